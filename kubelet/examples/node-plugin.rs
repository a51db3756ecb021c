//! Plays a node's plugins for a kubelet, ours or upstream's: a DRA driver that prepares every claim
//! as one CDI device, a CSI driver whose volumes are directories, and a device plugin with four
//! devices `NAME/device`, all of them `/dev/null`. What it is asked is printed, one line a call
//! (secrets too: it is for tests).
//!
//! `node-plugin NAME [ROOT]` serves below the kubelet's root directory until it is killed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use grpc::plugins::csi::node_server::{Node, NodeServer};
use grpc::plugins::csi::node_service_capability as capability;
use grpc::plugins::csi::*;
use grpc::plugins::devices;
use grpc::plugins::devices::device_plugin_server::{DevicePlugin, DevicePluginServer};
use grpc::plugins::devices::registration_client::RegistrationClient;
use grpc::plugins::dra::v1::dra_plugin_server::{DraPlugin, DraPluginServer};
use grpc::plugins::dra::v1::*;
use grpc::plugins::registration::registration_server::{Registration, RegistrationServer};
use grpc::plugins::registration::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

struct Registrar(PluginInfo);

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Answer<PluginInfo> {
        Ok(Response::new(self.0.clone()))
    }
    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Answer<RegistrationStatusResponse> {
        println!("{}: {:?}", self.0.r#type, status.into_inner());
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

struct Devices;

const DEVICES: [&str; 4] = ["d0", "d1", "d2", "d3"];

#[tonic::async_trait]
impl DevicePlugin for Devices {
    async fn get_device_plugin_options(
        &self,
        _: Request<devices::Empty>,
    ) -> Answer<devices::DevicePluginOptions> {
        Ok(Response::new(devices::DevicePluginOptions {
            pre_start_required: true,
            get_preferred_allocation_available: true,
        }))
    }

    type ListAndWatchStream = BoxStream<'static, Result<devices::ListAndWatchResponse, Status>>;

    async fn list_and_watch(&self, _: Request<devices::Empty>) -> Answer<Self::ListAndWatchStream> {
        let device = |id: &str| devices::Device {
            id: id.into(),
            health: "Healthy".into(),
            topology: Some(devices::TopologyInfo {
                nodes: vec![devices::NumaNode { id: 0 }],
            }),
        };
        let devices = DEVICES.map(device).into();
        let list = stream::iter([Ok(devices::ListAndWatchResponse { devices })]);
        Ok(Response::new(Box::pin(list.chain(stream::pending()))))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<devices::PreferredAllocationRequest>,
    ) -> Answer<devices::PreferredAllocationResponse> {
        println!("GetPreferredAllocation {:?}", request.get_ref());
        let prefer = |asked: &devices::ContainerPreferredAllocationRequest| {
            let mut ids = asked.available_device_i_ds.clone();
            ids.sort();
            // The last ones, so that it shows.
            ids.reverse();
            ids.truncate(usize::try_from(asked.allocation_size).unwrap_or_default());
            devices::ContainerPreferredAllocationResponse { device_i_ds: ids }
        };
        let asked = request.get_ref().container_requests.iter();
        Ok(Response::new(devices::PreferredAllocationResponse {
            container_responses: asked.map(prefer).collect(),
        }))
    }

    async fn allocate(
        &self,
        request: Request<devices::AllocateRequest>,
    ) -> Answer<devices::AllocateResponse> {
        println!("Allocate {:?}", request.get_ref());
        let give = |asked: &devices::ContainerAllocateRequest| {
            let device = |id: &String| devices::DeviceSpec {
                container_path: format!("/dev/{id}"),
                host_path: "/dev/null".into(),
                permissions: "rw".into(),
            };
            devices::ContainerAllocateResponse {
                envs: [("DEVICES".to_owned(), asked.devices_ids.join(","))].into(),
                mounts: vec![devices::Mount {
                    container_path: "/plugin".into(),
                    host_path: "/etc".into(),
                    read_only: true,
                }],
                devices: asked.devices_ids.iter().map(device).collect(),
                annotations: [("node-plugin/devices".to_owned(), "1".to_owned())].into(),
                cdi_devices: Vec::new(),
            }
        };
        let asked = request.get_ref().container_requests.iter();
        Ok(Response::new(devices::AllocateResponse {
            container_responses: asked.map(give).collect(),
        }))
    }

    async fn pre_start_container(
        &self,
        request: Request<devices::PreStartContainerRequest>,
    ) -> Answer<devices::PreStartContainerResponse> {
        println!("PreStartContainer {:?}", request.get_ref());
        Ok(Response::new(devices::PreStartContainerResponse {}))
    }
}

/// Serves devices and makes them known, again whenever a kubelet has started and taken the socket
/// away.
async fn serve_devices(dir: PathBuf, name: String) -> anyhow::Result<()> {
    let own = dir.join(format!("{name}.sock"));
    loop {
        let served = tokio::spawn(serve(own.clone(), DevicePluginServer::new(Devices)));
        let request = devices::RegisterRequest {
            version: "v1beta1".into(),
            endpoint: format!("{name}.sock"),
            resource_name: format!("{name}/device"),
            options: None,
        };
        let channel = grpc::connect_unix(&dir.join("kubelet.sock").to_string_lossy())?;
        let registered = RegistrationClient::new(channel).register(request).await;
        println!("Register {:?}", registered.as_ref().map(|_| ()));
        let pause = || tokio::time::sleep(Duration::from_millis(300));
        while registered.is_ok() && own.exists() {
            pause().await;
        }
        served.abort();
        pause().await;
    }
}

struct Dra(String);

impl Dra {
    /// Where the runtime looks for devices.
    fn spec(uid: &str) -> PathBuf {
        Path::new("/var/run/cdi").join(format!("{uid}.json"))
    }
}

#[tonic::async_trait]
impl DraPlugin for Dra {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Answer<NodePrepareResourcesResponse> {
        let mut claims = BTreeMap::new();
        for claim in request.into_inner().claims {
            println!("NodePrepareResources {} {}", claim.name, claim.uid);
            let spec = serde_json::json!({
                "cdiVersion": "0.5.0",
                "kind": format!("{}/claim", self.0),
                "devices": [{"name": claim.uid, "containerEdits": {"env": [format!("CLAIM={}", claim.name)]}}],
            });
            let path = Self::spec(&claim.uid);
            fs::create_dir_all("/var/run/cdi").map_err(failed)?;
            fs::write(path, spec.to_string()).map_err(failed)?;
            let device = Device {
                request_names: vec![],
                pool_name: "pool".into(),
                device_name: "device".into(),
                cdi_device_ids: vec![format!("{}/claim={}", self.0, claim.uid)],
                share_id: None,
            };
            let answer = NodePrepareResourceResponse {
                devices: vec![device],
                error: String::new(),
            };
            claims.insert(claim.uid, answer);
        }
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Answer<NodeUnprepareResourcesResponse> {
        let mut claims = BTreeMap::new();
        for claim in request.into_inner().claims {
            println!("NodeUnprepareResources {} {}", claim.name, claim.uid);
            let _ = fs::remove_file(Self::spec(&claim.uid));
            claims.insert(claim.uid, NodeUnprepareResourceResponse::default());
        }
        Ok(Response::new(NodeUnprepareResourcesResponse { claims }))
    }
}

/// Volumes are directories here; a file says how large each is.
struct Csi(PathBuf);

impl Csi {
    fn volume(&self, id: &str) -> Result<PathBuf, Status> {
        let path = self.0.join(id.replace('/', "_"));
        fs::create_dir_all(&path).map_err(failed)?;
        Ok(path)
    }
}

fn show(from: &Path, to: &str, readonly: bool) -> Result<(), Status> {
    fs::create_dir_all(to).map_err(failed)?;
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    if table.lines().any(|line| line.split(' ').nth(4) == Some(to)) {
        return Ok(());
    }
    let (none, bind) = (None::<&str>, MsFlags::MS_BIND);
    mount(Some(from), to, none, bind, none).map_err(failed)?;
    if readonly {
        let again = bind | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, to, none, again, none).map_err(failed)?;
    }
    Ok(())
}

fn hide(path: &str) -> Result<(), Status> {
    let _ = umount2(path, MntFlags::UMOUNT_NOFOLLOW);
    let device = fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir());
    let remove = if device {
        fs::remove_file
    } else {
        fs::remove_dir
    };
    match remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl Node for Csi {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Answer<NodeStageVolumeResponse> {
        let r = request.into_inner();
        println!(
            "NodeStageVolume {} at {} publish {:?} context {:?} secrets {:?} {:?}",
            r.volume_id,
            r.staging_target_path,
            r.publish_context,
            r.volume_context,
            r.secrets,
            r.volume_capability
        );
        show(&self.volume(&r.volume_id)?, &r.staging_target_path, false)?;
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Answer<NodeUnstageVolumeResponse> {
        let r = request.into_inner();
        println!(
            "NodeUnstageVolume {} {}",
            r.volume_id, r.staging_target_path
        );
        hide(&r.staging_target_path)?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        let r = request.into_inner();
        println!(
            "NodePublishVolume {} from {:?} at {} readonly {} publish {:?} context {:?} secrets {:?} {:?}",
            r.volume_id,
            r.staging_target_path,
            r.target_path,
            r.readonly,
            r.publish_context,
            r.volume_context,
            r.secrets,
            r.volume_capability
        );
        let from = match r.staging_target_path.as_str() {
            "" => self.volume(&r.volume_id)?,
            staged => staged.into(),
        };
        let kind = r.volume_capability.and_then(|c| c.access_type);
        if matches!(kind, Some(volume_capability::AccessType::Block(_))) {
            // Any device will do: nobody reads it.
            let device = ["b", "7", "200"];
            let mut mknod = Command::new("mknod");
            mknod
                .arg(&r.target_path)
                .args(device)
                .status()
                .map_err(failed)?;
        } else {
            show(&from, &r.target_path, r.readonly)?;
        }
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        let r = request.into_inner();
        println!("NodeUnpublishVolume {} {}", r.volume_id, r.target_path);
        hide(&r.target_path)?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<NodeGetVolumeStatsRequest>,
    ) -> Answer<NodeGetVolumeStatsResponse> {
        let usage = |unit: volume_usage::Unit, total| VolumeUsage {
            available: total / 4,
            total,
            used: total - total / 4,
            unit: unit.into(),
        };
        Ok(Response::new(NodeGetVolumeStatsResponse {
            usage: vec![
                usage(volume_usage::Unit::Bytes, 1 << 30),
                usage(volume_usage::Unit::Inodes, 1000),
            ],
            volume_condition: None,
        }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Answer<NodeExpandVolumeResponse> {
        let r = request.into_inner();
        let capacity_bytes = r.capacity_range.map_or(0, |range| range.required_bytes);
        println!(
            "NodeExpandVolume {} at {} staged {} to {capacity_bytes}",
            r.volume_id, r.volume_path, r.staging_target_path
        );
        Ok(Response::new(NodeExpandVolumeResponse { capacity_bytes }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        use capability::rpc::Type;
        let all = [
            Type::StageUnstageVolume,
            Type::GetVolumeStats,
            Type::ExpandVolume,
        ];
        let of = |kind: Type| NodeServiceCapability {
            r#type: Some(capability::Type::Rpc(capability::Rpc {
                r#type: kind.into(),
            })),
        };
        let capabilities = all.map(of).into();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Answer<NodeGetInfoResponse> {
        let node = fs::read_to_string("/proc/sys/kernel/hostname").map_err(failed)?;
        let node = node.trim();
        Ok(Response::new(NodeGetInfoResponse {
            node_id: format!("id-of-{node}"),
            max_volumes_per_node: 10,
            accessible_topology: Some(Topology {
                segments: [("topology.node-plugin/node".to_owned(), node.to_owned())].into(),
            }),
        }))
    }
}

async fn serve<S>(path: PathBuf, service: S) -> anyhow::Result<()>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let _ = fs::remove_file(&path);
    let listener = UnixListenerStream::new(UnixListener::bind(&path)?);
    let server = tonic::transport::Server::builder();
    Ok(server.serve_with_incoming(service, listener).await?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "node-plugin".into());
    let root = args.next().unwrap_or_else(|| "/var/lib/kubelet".into());
    let root = Path::new(&root);
    let own = root.join("plugins").join(&name);
    let (dra, csi) = (own.join("dra.sock"), own.join("csi.sock"));
    let registrar = |kind: &str, endpoint: &Path, version: &str| {
        let info = PluginInfo {
            r#type: kind.into(),
            name: name.clone(),
            endpoint: endpoint.to_string_lossy().into_owned(),
            supported_versions: vec![version.into()],
        };
        RegistrationServer::new(Registrar(info))
    };
    let registry = root.join("plugins_registry");
    futures::try_join!(
        serve_devices(root.join("device-plugins"), name.clone()),
        serve(dra.clone(), DraPluginServer::new(Dra(name.clone()))),
        serve(csi.clone(), NodeServer::new(Csi(own.join("volumes")))),
        serve(
            registry.join(format!("{name}-dra.sock")),
            registrar("DRAPlugin", &dra, "v1.DRAPlugin")
        ),
        serve(
            registry.join(format!("{name}-csi.sock")),
            registrar("CSIPlugin", &csi, "1.0.0")
        ),
    )?;
    Ok(())
}
