//! Plays a device plugin in tests, over real sockets.

use std::path::Path;

use futures::stream::BoxStream;
use grpc::plugins::devices as pb;
use grpc::plugins::devices::device_plugin_server::{DevicePlugin, DevicePluginServer};
use grpc::plugins::devices::registration_client::RegistrationClient;
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status};

use crate::plugins::fake::{self, Served};

type Answer<T> = Result<Response<T>, Status>;

/// Gives what it is asked for, and tells of it.
struct Gpus {
    devices: watch::Receiver<Vec<pb::Device>>,
    called: mpsc::UnboundedSender<String>,
    prefers: Option<&'static str>,
}

#[tonic::async_trait]
impl DevicePlugin for Gpus {
    async fn get_device_plugin_options(
        &self,
        _: Request<pb::Empty>,
    ) -> Answer<pb::DevicePluginOptions> {
        Ok(Response::new(pb::DevicePluginOptions {
            pre_start_required: true,
            get_preferred_allocation_available: self.prefers.is_some(),
        }))
    }

    type ListAndWatchStream = BoxStream<'static, Result<pb::ListAndWatchResponse, Status>>;

    async fn list_and_watch(&self, _: Request<pb::Empty>) -> Answer<Self::ListAndWatchStream> {
        let mut devices = self.devices.clone();
        devices.mark_changed();
        let lists = futures::stream::unfold(devices, |mut devices| async {
            devices.changed().await.ok()?;
            let list = devices.borrow_and_update().clone();
            Some((Ok(pb::ListAndWatchResponse { devices: list }), devices))
        });
        Ok(Response::new(Box::pin(lists)))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<pb::PreferredAllocationRequest>,
    ) -> Answer<pb::PreferredAllocationResponse> {
        let asked = &request.get_ref().container_requests[0];
        let text = format!(
            "prefer {} of {:?} with {:?}",
            asked.allocation_size, asked.available_device_i_ds, asked.must_include_device_i_ds
        );
        let _ = self.called.send(text);
        let ids = self.prefers.iter().map(|id| (*id).to_owned()).collect();
        let response = pb::ContainerPreferredAllocationResponse { device_i_ds: ids };
        Ok(Response::new(pb::PreferredAllocationResponse {
            container_responses: vec![response],
        }))
    }

    async fn allocate(
        &self,
        request: Request<pb::AllocateRequest>,
    ) -> Answer<pb::AllocateResponse> {
        let ids = &request.get_ref().container_requests[0].devices_ids;
        let _ = self.called.send(format!("allocate {ids:?}"));
        if ids.contains(&"broken".to_owned()) {
            return Err(Status::internal("it is broken"));
        }
        let id = &ids[0];
        let response = pb::ContainerAllocateResponse {
            envs: [("GPUS".to_owned(), ids.join(","))].into(),
            mounts: vec![pb::Mount {
                container_path: "/lib/gpu".into(),
                host_path: "/opt/gpu".into(),
                read_only: true,
            }],
            devices: vec![pb::DeviceSpec {
                container_path: "/dev/gpu".into(),
                host_path: format!("/dev/gpu-{id}"),
                permissions: "rw".into(),
            }],
            annotations: [("d.io/gpu".to_owned(), id.clone())].into(),
            cdi_devices: vec![pb::CdiDevice {
                name: format!("d.io/gpu={id}"),
            }],
        };
        Ok(Response::new(pb::AllocateResponse {
            container_responses: vec![response],
        }))
    }

    async fn pre_start_container(
        &self,
        request: Request<pb::PreStartContainerRequest>,
    ) -> Answer<pb::PreStartContainerResponse> {
        let ids = &request.get_ref().devices_ids;
        let _ = self.called.send(format!("start with {ids:?}"));
        Ok(Response::new(pb::PreStartContainerResponse {}))
    }
}

pub struct Plugin {
    pub devices: watch::Sender<Vec<pb::Device>>,
    pub calls: mpsc::UnboundedReceiver<String>,
    pub served: Served,
}

pub fn device(id: &str, health: &str) -> pb::Device {
    pb::Device {
        id: id.into(),
        health: health.into(),
        topology: None,
    }
}

/// A plugin with healthy devices.
pub fn play(dir: &Path, name: &str, ids: &[&str], prefers: Option<&'static str>) -> Plugin {
    let devices = ids.iter().map(|id| device(id, "Healthy")).collect();
    play_with(dir, name, devices, prefers)
}

pub fn play_with(
    dir: &Path,
    name: &str,
    devices: Vec<pb::Device>,
    prefers: Option<&'static str>,
) -> Plugin {
    let (devices, listed) = watch::channel(devices);
    let (called, calls) = mpsc::unbounded_channel();
    let gpus = Gpus {
        devices: listed,
        called,
        prefers,
    };
    let served = fake::serve(&dir.join(name), DevicePluginServer::new(gpus));
    Plugin {
        devices,
        calls,
        served,
    }
}

/// As a plugin does. The kubelet's answer, if it is no.
pub async fn register(
    dir: &Path,
    version: &str,
    endpoint: &str,
    resource: &str,
) -> Result<(), String> {
    let socket = dir.join("kubelet.sock");
    let channel = grpc::connect_unix(&socket.to_string_lossy()).unwrap();
    let request = pb::RegisterRequest {
        version: version.into(),
        endpoint: endpoint.into(),
        resource_name: resource.into(),
        options: None,
    };
    let registered = RegistrationClient::new(channel).register(request).await;
    registered
        .map(drop)
        .map_err(|status| status.message().to_owned())
}
