//! The pod resources API (KEP-606): which devices, CPUs and memory containers have, for whoever
//! watches over them on the node. Read-only, on a socket below the kubelet's root directory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use grpc::pod_resources::v1::pod_resources_lister_server::PodResourcesListerServer as V1;
use grpc::pod_resources::v1alpha1::pod_resources_lister_server::PodResourcesListerServer as V1alpha1;
use grpc::pod_resources::{v1, v1alpha1};
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Request, Response, Status};
use tracing::warn;

use crate::dra::Dra;
use crate::memory::Block;
use crate::pods::active::ActivePods;
use crate::pods::pod::{PodExt, is_sidecar};
use crate::topology::Topology;

/// Questions a second, and how many may come at once: upstream's.
const RATE: f64 = 100.0;
const BURST: f64 = 10.0;

/// How many questions may come now, as of then.
struct Tokens {
    left: f64,
    at: Instant,
}

/// Answers questions about what pods have.
#[derive(Clone)]
pub struct PodResources {
    active: ActivePods,
    topology: Arc<Topology>,
    dra: Arc<Dra>,
    tokens: Arc<Mutex<Tokens>>,
}

type Answer<T> = Result<Response<T>, Status>;

/// Devices by resource, with their nodes.
type Devices = Vec<(String, BTreeMap<String, Vec<i64>>)>;

impl PodResources {
    pub fn new(active: ActivePods, topology: Arc<Topology>, dra: Arc<Dra>) -> Self {
        let at = Instant::now();
        Self {
            active,
            topology,
            dra,
            tokens: Arc::new(Mutex::new(Tokens { left: BURST, at })),
        }
    }

    /// Serves on `dir/kubelet.sock` until `stop`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn serve(self, dir: &Path, stop: CancellationToken) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(dir)?;
        let path = dir.join("kubelet.sock");
        // An earlier kubelet's.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListenerStream::new(UnixListener::bind(path)?);
        let versions = Versions {
            v1: V1::new(self.clone()),
            v1alpha1: V1alpha1::new(self),
        };
        let server = tonic::transport::Server::builder().serve_with_incoming_shutdown(
            versions,
            listener,
            stop.cancelled_owned(),
        );
        tokio::spawn(async move {
            if let Err(error) = server.await {
                warn!(%error, "the pod resources API is not served any more");
            }
        });
        Ok(())
    }

    fn limit(&self) -> Result<(), Status> {
        let (mut tokens, now) = (self.tokens.lock(), Instant::now());
        let more = now.duration_since(tokens.at).as_secs_f64() * RATE;
        tokens.left = (tokens.left + more).min(BURST);
        tokens.at = now;
        if tokens.left < 1.0 {
            return Err(Status::resource_exhausted("rejected by rate limit"));
        }
        tokens.left -= 1.0;
        Ok(())
    }

    fn container(&self, pod: &Pod, container: &Container) -> v1::ContainerResources {
        let (uid, name) = (pod.uid(), container.name.as_str());
        let cpus = self.topology.cpus.exclusive(uid, name);
        let cpus = cpus
            .iter()
            .flat_map(|cpus| cpus.iter().map(i64::from).collect::<Vec<_>>());
        v1::ContainerResources {
            name: name.to_owned(),
            devices: devices(self.topology.devices.of_container(uid, name)),
            cpu_ids: cpus.collect(),
            memory: memory(self.topology.memory.of_container(uid, name)),
            dynamic_resources: self.dra.resources(pod, container),
        }
    }

    fn pod(&self, pod: &Pod) -> v1::PodResources {
        // Those that run as long as the pod does.
        let sidecars = pod.init_containers().iter().filter(|c| is_sidecar(c));
        v1::PodResources {
            name: pod.name().to_owned(),
            namespace: pod.namespace().to_owned(),
            containers: sidecars
                .chain(pod.containers())
                .map(|container| self.container(pod, container))
                .collect(),
        }
    }
}

/// Both versions of the API, told apart by the path that is called.
#[derive(Clone)]
struct Versions {
    v1: V1<PodResources>,
    v1alpha1: V1alpha1<PodResources>,
}

impl Service<http::Request<Body>> for Versions {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path().starts_with("/v1alpha1.") {
            true => self.v1alpha1.call(request),
            false => self.v1.call(request),
        }
    }
}

/// One entry for every device and node.
fn devices(all: Devices) -> Vec<v1::ContainerDevices> {
    let mut entries = Vec::new();
    for (resource, devices) in all {
        for (id, nodes) in devices {
            let entry = |topology| v1::ContainerDevices {
                resource_name: resource.clone(),
                device_ids: vec![id.clone()],
                topology,
            };
            match nodes.is_empty() {
                true => entries.push(entry(None)),
                false => entries.extend(nodes.into_iter().map(|id| entry(topology([id])))),
            }
        }
    }
    entries
}

fn topology(nodes: impl IntoIterator<Item = i64>) -> Option<v1::TopologyInfo> {
    let nodes = nodes.into_iter().map(|id| v1::NumaNode { id }).collect();
    Some(v1::TopologyInfo { nodes })
}

fn memory(blocks: Vec<Block>) -> Vec<v1::ContainerMemory> {
    let entry = |block: Block| v1::ContainerMemory {
        memory_type: block.kind,
        size: block.size,
        topology: topology(block.nodes.into_iter().map(i64::from)),
    };
    blocks.into_iter().map(entry).collect()
}

#[tonic::async_trait]
impl v1::pod_resources_lister_server::PodResourcesLister for PodResources {
    async fn list(
        &self,
        _: Request<v1::ListPodResourcesRequest>,
    ) -> Answer<v1::ListPodResourcesResponse> {
        self.limit()?;
        let metrics = &self.topology.metrics.resources;
        metrics.asked.with_label_values(&["v1"]).inc();
        metrics.asked_list.with_label_values(&["v1"]).inc();
        self.topology.devices.give_back();
        let pods = self.active.all();
        let pod_resources = pods.iter().map(|pod| self.pod(pod)).collect();
        Ok(Response::new(v1::ListPodResourcesResponse {
            pod_resources,
        }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<v1::AllocatableResourcesRequest>,
    ) -> Answer<v1::AllocatableResourcesResponse> {
        self.limit()?;
        let metrics = &self.topology.metrics.resources;
        metrics.asked.with_label_values(&["v1"]).inc();
        metrics.asked_allocatable.with_label_values(&["v1"]).inc();
        Ok(Response::new(v1::AllocatableResourcesResponse {
            devices: devices(self.topology.devices.allocatable()),
            cpu_ids: self
                .topology
                .cpus
                .allocatable()
                .iter()
                .map(i64::from)
                .collect(),
            memory: memory(self.topology.memory.allocatable()),
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetPodResourcesRequest>,
    ) -> Answer<v1::GetPodResourcesResponse> {
        self.limit()?;
        let metrics = &self.topology.metrics.resources;
        metrics.asked.with_label_values(&["v1"]).inc();
        metrics.asked_get.with_label_values(&["v1"]).inc();
        let request = request.into_inner();
        let (namespace, name) = (request.pod_namespace, request.pod_name);
        let pod = self
            .active
            .index
            .by_name(&namespace, &name)
            .ok_or_else(|| {
                metrics.get_errors.with_label_values(&["v1"]).inc();
                Status::unknown(format!("pod {name} in namespace {namespace} not found"))
            })?;
        let pod_resources = Some(self.pod(&pod));
        Ok(Response::new(v1::GetPodResourcesResponse { pod_resources }))
    }
}

#[tonic::async_trait]
impl v1alpha1::pod_resources_lister_server::PodResourcesLister for PodResources {
    async fn list(
        &self,
        _: Request<v1alpha1::ListPodResourcesRequest>,
    ) -> Answer<v1alpha1::ListPodResourcesResponse> {
        self.limit()?;
        let metrics = &self.topology.metrics.resources;
        metrics.asked.with_label_values(&["v1alpha1"]).inc();
        self.topology.devices.give_back();
        let container = |pod: &Pod, container: &Container| {
            let all = devices(
                self.topology
                    .devices
                    .of_container(pod.uid(), &container.name),
            );
            let all = all.into_iter().map(|entry| v1alpha1::ContainerDevices {
                resource_name: entry.resource_name,
                device_ids: entry.device_ids,
            });
            v1alpha1::ContainerResources {
                name: container.name.clone(),
                devices: all.collect(),
            }
        };
        let pods = self.active.index.all();
        let pods = pods.iter().map(|pod| v1alpha1::PodResources {
            name: pod.name().to_owned(),
            namespace: pod.namespace().to_owned(),
            containers: pod.containers().iter().map(|c| container(pod, c)).collect(),
        });
        let pod_resources = pods.collect();
        Ok(Response::new(v1alpha1::ListPodResourcesResponse {
            pod_resources,
        }))
    }
}
