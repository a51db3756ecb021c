//! The container runtime interface of the [`Runtime`] that runs nothing.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::stream;
use tokio::net::UnixListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxStream, Service as _};
use tonic::{Request, Response, Status, async_trait};

use super::cri::image_service_server::{ImageService, ImageServiceServer};
use super::cri::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use super::cri::{
    CgroupDriver, ContainerEventResponse, ContainerStatsResponse, ContainerStatusRequest,
    ContainerStatusResponse, CreateContainerRequest, CreateContainerResponse, ExecSyncRequest,
    ExecSyncResponse, FilesystemIdentifier, FilesystemUsage, GetEventsRequest, Image,
    ImageFsInfoRequest, ImageFsInfoResponse, ImageStatusRequest, ImageStatusResponse,
    LinuxRuntimeConfiguration, ListContainerStatsRequest, ListContainerStatsResponse,
    ListContainersRequest, ListContainersResponse, ListImagesRequest, ListImagesResponse,
    ListPodSandboxRequest, ListPodSandboxResponse, ListPodSandboxStatsRequest,
    ListPodSandboxStatsResponse, PodSandboxStatusRequest, PodSandboxStatusResponse,
    PullImageRequest, PullImageResponse, RemoveContainerRequest, RemoveContainerResponse,
    RemovePodSandboxRequest, RemovePodSandboxResponse, RunPodSandboxRequest, RunPodSandboxResponse,
    RuntimeCondition, RuntimeConfigRequest, RuntimeConfigResponse, RuntimeStatus,
    StartContainerRequest, StartContainerResponse, StatusRequest, StatusResponse,
    StopContainerRequest, StopContainerResponse, StopPodSandboxRequest, StopPodSandboxResponse,
    UInt64Value, UpdateContainerResourcesRequest, UpdateContainerResourcesResponse,
    UpdateRuntimeConfigRequest, UpdateRuntimeConfigResponse, VersionRequest, VersionResponse,
};
use super::runtime::{IMAGE, Runtime, Wanted};

type Answer<T> = std::result::Result<Response<T>, Status>;

/// Answers on a Unix socket until it is aborted.
///
/// # Errors
///
/// When it cannot listen.
pub fn serve(runtime: &Arc<Runtime>, socket: &Path) -> Result<JoinHandle<()>> {
    let listener = UnixListener::bind(socket).with_context(|| socket.display().to_string())?;
    let containers = RuntimeServiceServer::from_arc(Arc::clone(runtime));
    let images = ImageServiceServer::from_arc(Arc::clone(runtime));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (mut containers, mut images) = (containers.clone(), images.clone());
        async move {
            if request
                .uri()
                .path()
                .starts_with("/runtime.v1.ImageService/")
            {
                images.call(request).await
            } else {
                containers.call(request).await
            }
        }
    });
    let connections = UnixListenerStream::new(listener);
    let serving = tonic::transport::Server::builder().serve_with_incoming(service, connections);
    Ok(tokio::spawn(async move {
        // Who calls notices when it ends.
        let _ = serving.await;
    }))
}

fn image() -> Image {
    Image {
        id: IMAGE.to_owned(),
        repo_tags: vec!["registry.example/pause:1".to_owned()],
        size: 1 << 20,
        ..Image::default()
    }
}

#[async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, request: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: request.into_inner().version,
            runtime_name: "simulated".to_owned(),
            runtime_version: "2.1.0".to_owned(),
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let conditions = ["RuntimeReady", "NetworkReady"].map(|condition| RuntimeCondition {
            r#type: condition.to_owned(),
            status: true,
            ..RuntimeCondition::default()
        });
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus {
                conditions: conditions.into(),
            }),
            ..StatusResponse::default()
        }))
    }

    async fn runtime_config(
        &self,
        _: Request<RuntimeConfigRequest>,
    ) -> Answer<RuntimeConfigResponse> {
        Ok(Response::new(RuntimeConfigResponse {
            linux: Some(LinuxRuntimeConfiguration {
                cgroup_driver: CgroupDriver::Cgroupfs.into(),
            }),
        }))
    }

    async fn update_runtime_config(
        &self,
        _: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<RunPodSandboxRequest>,
    ) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request
            .config
            .ok_or_else(|| Status::invalid_argument("no config"))?;
        let pod_sandbox_id = self.run_sandbox(config, request.runtime_handler);
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        self.stop_sandbox(&request.into_inner().pod_sandbox_id);
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        self.remove_sandbox(&request.into_inner().pod_sandbox_id);
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let (status, containers_statuses) = self.sandbox(&request.into_inner().pod_sandbox_id)?;
        Ok(Response::new(PodSandboxStatusResponse {
            status: Some(status),
            containers_statuses,
            ..PodSandboxStatusResponse::default()
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let wanted = Wanted {
            id: filter.id,
            state: filter.state.map(|state| state.state),
            labels: filter.label_selector,
            ..Wanted::default()
        };
        let items = self.sandboxes(&wanted);
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = request
            .config
            .ok_or_else(|| Status::invalid_argument("no config"))?;
        let container_id = self.create(&request.pod_sandbox_id, config)?;
        Ok(Response::new(CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        self.start(&request.into_inner().container_id)?;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Answer<StopContainerResponse> {
        self.stop(&request.into_inner().container_id, 0);
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        self.remove(&request.into_inner().container_id);
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let containers = self.containers(&Wanted {
            id: filter.id,
            sandbox: filter.pod_sandbox_id,
            state: filter.state.map(|state| state.state),
            labels: filter.label_selector,
        });
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let status = self.container(&request.into_inner().container_id)?;
        Ok(Response::new(ContainerStatusResponse {
            status: Some(status),
            ..ContainerStatusResponse::default()
        }))
    }

    async fn update_container_resources(
        &self,
        _: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn exec_sync(&self, _: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        Ok(Response::new(ExecSyncResponse::default()))
    }

    async fn container_stats(
        &self,
        request: Request<super::cri::ContainerStatsRequest>,
    ) -> Answer<ContainerStatsResponse> {
        self.container(&request.into_inner().container_id)?;
        Ok(Response::new(ContainerStatsResponse::default()))
    }

    async fn list_container_stats(
        &self,
        _: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        Ok(Response::new(ListContainerStatsResponse::default()))
    }

    async fn list_pod_sandbox_stats(
        &self,
        _: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        Ok(Response::new(ListPodSandboxStatsResponse::default()))
    }

    async fn get_container_events(
        &self,
        _: Request<GetEventsRequest>,
    ) -> Answer<BoxStream<ContainerEventResponse>> {
        let events = self.events.subscribe();
        let events = stream::unfold(events, |mut events| async move {
            match events.recv().await {
                Ok(event) => Some((Ok(event), events)),
                // Who is so slow has to look for itself.
                Err(RecvError::Lagged(missed)) => {
                    let why = format!("{missed} events were missed");
                    Some((Err(Status::data_loss(why)), events))
                }
                Err(RecvError::Closed) => None,
            }
        });
        Ok(Response::new(Box::pin(events)))
    }
}

#[async_trait]
impl ImageService for Runtime {
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let images = vec![image()];
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn image_status(&self, _: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        Ok(Response::new(ImageStatusResponse {
            image: Some(image()),
            ..ImageStatusResponse::default()
        }))
    }

    async fn pull_image(&self, _: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let image_ref = IMAGE.to_owned();
        Ok(Response::new(PullImageResponse { image_ref }))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        let used = FilesystemUsage {
            fs_id: Some(FilesystemIdentifier {
                mountpoint: self.home.display().to_string(),
            }),
            used_bytes: Some(UInt64Value { value: 1 << 20 }),
            inodes_used: Some(UInt64Value { value: 1 }),
            ..FilesystemUsage::default()
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![used.clone()],
            container_filesystems: vec![used],
        }))
    }
}
