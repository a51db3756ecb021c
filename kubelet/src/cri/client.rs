//! Talking to the runtime: every call with its deadline, and its errors in one type. Knows CRI,
//! not pods.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, TryStreamExt};
use grpc::cri::{
    self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use parking_lot::Mutex;
use thiserror::Error;
use tonic::{Code, Request, Status};

use super::labels;
use super::measured::Measured;
use crate::metrics::Metrics;

/// Lists of a full node are larger than gRPC's usual 4 MiB.
const MAX_MESSAGE: usize = 16 << 20;

/// What the runtime answered instead.
#[derive(Debug, Error, Clone)]
#[error("rpc error: code = {code:?} desc = {message}")]
pub struct CriError {
    pub code: Code,
    /// The runtime's words, without the wrapping.
    pub message: String,
}

impl CriError {
    fn missing(what: &str) -> Self {
        Self {
            code: Code::Unknown,
            message: format!("the runtime's answer lacks {what}"),
        }
    }
}

impl From<Status> for CriError {
    fn from(status: Status) -> Self {
        Self {
            code: status.code(),
            message: status.message().to_owned(),
        }
    }
}

type Result<T> = std::result::Result<T, CriError>;

/// The runtime and its images. Cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct CriClient {
    runtime: RuntimeServiceClient<Measured>,
    images: ImageServiceClient<Measured>,
    timeout: Duration,
    creating: Creating,
}

/// In which sandboxes containers are being made, and how many.
#[derive(Debug, Clone, Default)]
struct Creating(Arc<Mutex<HashMap<String, usize>>>);

impl Creating {
    fn is_in(&self, sandbox_id: &str) -> bool {
        self.0.lock().contains_key(sandbox_id)
    }

    fn begin(&self, sandbox_id: &str) -> Creation {
        let id = sandbox_id.to_owned();
        *self.0.lock().entry(id.clone()).or_default() += 1;
        Creation {
            all: self.clone(),
            sandbox_id: id,
        }
    }
}

/// One container that is being made.
struct Creation {
    all: Creating,
    sandbox_id: String,
}

impl Drop for Creation {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(count) = all.get_mut(&self.sandbox_id) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.sandbox_id);
            }
        }
    }
}

/// Where the runtime keeps its files: paths of file systems, or in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesAt {
    pub images: String,
    /// Writable layers of containers.
    pub containers: String,
}

/// Which sandboxes or containers to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Of<'a> {
    pub pod_uid: Option<&'a str>,
    /// Ready sandboxes or running containers only.
    pub running: bool,
}

impl Of<'_> {
    fn labels(&self) -> BTreeMap<String, String> {
        self.pod_uid
            .iter()
            .map(|uid| (labels::POD_UID.to_owned(), (*uid).to_owned()))
            .collect()
    }
}

impl CriClient {
    /// `timeout` is `runtimeRequestTimeout`. Connects on first use.
    ///
    /// # Errors
    /// When an endpoint is no Unix socket.
    pub fn new(
        runtime: &str,
        images: &str,
        timeout: Duration,
        metrics: &Arc<Metrics>,
    ) -> std::result::Result<Self, grpc::EndpointError> {
        let connect = |endpoint| {
            grpc::connect_unix(endpoint).map(|channel| Measured::new(channel, metrics.clone()))
        };
        let channel = connect(runtime)?;
        let image_channel = if images == runtime {
            channel.clone()
        } else {
            connect(images)?
        };
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(image_channel).max_decoding_message_size(MAX_MESSAGE),
            timeout,
            creating: Creating::default(),
        })
    }

    fn within<T>(&self, message: T) -> Request<T> {
        Self::timed(message, self.timeout)
    }

    fn timed<T>(message: T, timeout: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        request
    }

    pub async fn version(&self) -> Result<cri::VersionResponse> {
        Ok(self
            .runtime
            .clone()
            .version(self.within(cri::VersionRequest::default()))
            .await?
            .into_inner())
    }

    /// Who makes groups where the runtime does it, as it says itself; `None` where it does not.
    pub async fn cgroup_driver(&self) -> Result<Option<cri::CgroupDriver>> {
        let request = self.within(cri::RuntimeConfigRequest {});
        match self.runtime.clone().runtime_config(request).await {
            Ok(config) => {
                let linux = config.into_inner().linux;
                Ok(linux.map(|linux| linux.cgroup_driver()))
            }
            Err(status) if status.code() == tonic::Code::Unimplemented => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    pub async fn status(&self) -> Result<cri::StatusResponse> {
        Ok(self
            .runtime
            .clone()
            .status(self.within(cri::StatusRequest::default()))
            .await?
            .into_inner())
    }

    pub async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<()> {
        let network_config = Some(cri::NetworkConfig {
            pod_cidr: pod_cidr.to_owned(),
        });
        let runtime_config = Some(cri::RuntimeConfig { network_config });
        let request = self.within(cri::UpdateRuntimeConfigRequest { runtime_config });
        self.runtime.clone().update_runtime_config(request).await?;
        Ok(())
    }

    // Sandboxes.

    /// A sandbox's network may take long to set up: twice the usual time.
    pub async fn run_sandbox(
        &self,
        config: cri::PodSandboxConfig,
        runtime_handler: &str,
    ) -> Result<String> {
        let message = cri::RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: runtime_handler.to_owned(),
        };
        let request = Self::timed(message, self.timeout * 2);
        Ok(self
            .runtime
            .clone()
            .run_pod_sandbox(request)
            .await?
            .into_inner()
            .pod_sandbox_id)
    }

    /// A sandbox that is gone is stopped.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = self.within(cri::StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        });
        ignore_missing(self.runtime.clone().stop_pod_sandbox(request).await)
    }

    /// A sandbox that is gone is removed.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = self.within(cri::RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        });
        ignore_missing(self.runtime.clone().remove_pod_sandbox(request).await)
    }

    /// `None`: it is gone. Where the runtime sends events, the answer has the containers as well.
    pub async fn sandbox_status(&self, id: &str) -> Result<Option<cri::PodSandboxStatusResponse>> {
        let message = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        found(
            self.runtime
                .clone()
                .pod_sandbox_status(self.within(message))
                .await,
        )
    }

    /// Newest first.
    pub async fn list_sandboxes(&self, of: Of<'_>) -> Result<Vec<cri::PodSandbox>> {
        let state = of.running.then(|| cri::PodSandboxStateValue {
            state: cri::PodSandboxState::SandboxReady.into(),
        });
        let filter = Some(cri::PodSandboxFilter {
            state,
            label_selector: of.labels(),
            ..Default::default()
        });
        let request = self.within(cri::ListPodSandboxRequest { filter });
        let mut items = self
            .runtime
            .clone()
            .list_pod_sandbox(request)
            .await?
            .into_inner()
            .items;
        items.sort_by(|a, b| {
            let attempt = |s: &cri::PodSandbox| s.metadata.as_ref().map_or(0, |m| m.attempt);
            (attempt(b), b.created_at)
                .cmp(&(attempt(a), a.created_at))
                .then_with(|| a.id.cmp(&b.id))
        });
        Ok(items)
    }

    // Containers.

    pub async fn create_container(
        &self,
        sandbox_id: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let request = self.within(cri::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        });
        let (mut runtime, creation) = (self.runtime.clone(), self.creating.begin(sandbox_id));
        // The runtime goes on with what it has begun, even when nobody waits for it any more.
        let created = tokio::spawn(async move {
            let _creation = creation;
            runtime.create_container(request).await
        });
        let created = created.await.map_err(|e| Status::internal(e.to_string()))?;
        Ok(created?.into_inner().container_id)
    }

    /// Whether a container is being made in a sandbox.
    pub fn is_creating_in(&self, sandbox_id: &str) -> bool {
        self.creating.is_in(sandbox_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<()> {
        let request = self.within(cri::StartContainerRequest {
            container_id: id.to_owned(),
        });
        self.runtime.clone().start_container(request).await?;
        Ok(())
    }

    /// Asks it to stop, and kills it after `grace` seconds. One that is gone is stopped.
    pub async fn stop_container(&self, id: &str, grace: i64) -> Result<()> {
        let message = cri::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: grace,
        };
        let wait = Duration::from_secs(grace.max(0).unsigned_abs());
        ignore_missing(
            self.runtime
                .clone()
                .stop_container(Self::timed(message, self.timeout + wait))
                .await,
        )
    }

    /// One that is gone is removed.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = self.within(cri::RemoveContainerRequest {
            container_id: id.to_owned(),
        });
        ignore_missing(self.runtime.clone().remove_container(request).await)
    }

    /// Newest first.
    pub async fn list_containers(&self, of: Of<'_>) -> Result<Vec<cri::Container>> {
        let state = of.running.then(|| cri::ContainerStateValue {
            state: cri::ContainerState::ContainerRunning.into(),
        });
        let filter = Some(cri::ContainerFilter {
            state,
            label_selector: of.labels(),
            ..Default::default()
        });
        let request = self.within(cri::ListContainersRequest { filter });
        let mut containers = self
            .runtime
            .clone()
            .list_containers(request)
            .await?
            .into_inner()
            .containers;
        containers.sort_by(|a, b| {
            b.created_at
                .cmp(&a.created_at)
                .then_with(|| a.id.cmp(&b.id))
        });
        Ok(containers)
    }

    /// `None`: it is gone.
    pub async fn container_status(&self, id: &str) -> Result<Option<cri::ContainerStatus>> {
        let message = cri::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let response = found(
            self.runtime
                .clone()
                .container_status(self.within(message))
                .await,
        )?;
        response
            .map(|response| {
                response
                    .status
                    .ok_or_else(|| CriError::missing("a container's status"))
            })
            .transpose()
    }

    /// Gives a running container other resources.
    pub async fn update_container_resources(
        &self,
        id: &str,
        linux: cri::LinuxContainerResources,
    ) -> Result<()> {
        let request = self.within(cri::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            ..Default::default()
        });
        self.runtime
            .clone()
            .update_container_resources(request)
            .await?;
        Ok(())
    }

    /// Tells what a sandbox's pod may use from now on.
    pub async fn update_sandbox_resources(
        &self,
        request: cri::UpdatePodSandboxResourcesRequest,
    ) -> Result<()> {
        let request = self.within(request);
        self.runtime
            .clone()
            .update_pod_sandbox_resources(request)
            .await?;
        Ok(())
    }

    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = self.within(cri::ReopenContainerLogRequest {
            container_id: id.to_owned(),
        });
        self.runtime.clone().reopen_container_log(request).await?;
        Ok(())
    }

    /// Every change of a container or sandbox, as it happens. The runtime's answer begins with the
    /// first of them: until then nobody can tell whether it sends any.
    pub fn events(&self) -> impl Stream<Item = Result<cri::ContainerEventResponse>> + use<> {
        let mut runtime = self.runtime.clone();
        let asked = async move {
            let request = cri::GetEventsRequest::default();
            let answer = runtime.get_container_events(request).await?;
            Ok::<_, Status>(answer.into_inner())
        };
        futures::stream::once(asked)
            .try_flatten()
            .map_err(CriError::from)
    }

    // Processes and streams.

    /// Runs a command to its end. No timeout is the runtime's longest.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: &[String],
        timeout: Option<Duration>,
    ) -> Result<cri::ExecSyncResponse> {
        let seconds = timeout.map_or(0, |timeout| timeout.as_secs().max(1));
        let message = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: cmd.to_vec(),
            timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        // The runtime ends the command; its answer gets a moment more to arrive.
        let request = match timeout {
            Some(timeout) => Self::timed(message, timeout + self.timeout),
            None => Request::new(message),
        };
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    pub async fn exec_url(&self, request: cri::ExecRequest) -> Result<String> {
        Ok(self
            .runtime
            .clone()
            .exec(self.within(request))
            .await?
            .into_inner()
            .url)
    }

    pub async fn attach_url(&self, request: cri::AttachRequest) -> Result<String> {
        Ok(self
            .runtime
            .clone()
            .attach(self.within(request))
            .await?
            .into_inner()
            .url)
    }

    pub async fn port_forward_url(&self, sandbox_id: &str, port: Vec<i32>) -> Result<String> {
        let request = self.within(cri::PortForwardRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            port,
        });
        Ok(self
            .runtime
            .clone()
            .port_forward(request)
            .await?
            .into_inner()
            .url)
    }

    /// Has a container's state written into a file. It takes as long as the runtime may have for any
    /// call, or longer if `request` says so.
    pub async fn checkpoint(&self, mut request: cri::CheckpointContainerRequest) -> Result<()> {
        let usual = i64::try_from(self.timeout.as_secs()).unwrap_or(i64::MAX);
        request.timeout = request.timeout.max(usual);
        let timeout = u64::try_from(request.timeout).map_or(self.timeout, Duration::from_secs);
        let request = Self::timed(request, timeout.max(self.timeout));
        self.runtime.clone().checkpoint_container(request).await?;
        Ok(())
    }

    // Usage.

    /// `None`: it is gone, or has no numbers.
    pub async fn stats_of_container(&self, id: &str) -> Result<Option<cri::ContainerStats>> {
        let request = self.within(cri::ContainerStatsRequest {
            container_id: id.to_owned(),
        });
        let response = found(self.runtime.clone().container_stats(request).await)?;
        Ok(response.and_then(|response| response.stats))
    }

    pub async fn container_stats(&self) -> Result<Vec<cri::ContainerStats>> {
        let request = self.within(cri::ListContainerStatsRequest::default());
        Ok(self
            .runtime
            .clone()
            .list_container_stats(request)
            .await?
            .into_inner()
            .stats)
    }

    // Images.

    pub async fn list_images(&self) -> Result<Vec<cri::Image>> {
        let request = self.within(cri::ListImagesRequest::default());
        Ok(self
            .images
            .clone()
            .list_images(request)
            .await?
            .into_inner()
            .images)
    }

    /// By id. One that is not there is fine.
    pub async fn remove_image(&self, id: &str) -> Result<()> {
        let image = cri::ImageSpec {
            image: id.to_owned(),
            ..Default::default()
        };
        let request = self.within(cri::RemoveImageRequest { image: Some(image) });
        Ok(self.images.clone().remove_image(request).await.map(drop)?)
    }

    /// Where images and layers are kept; `None` where the runtime does not say.
    /// What images and layers take, and of which file systems.
    pub async fn image_fs_info(&self) -> Result<cri::ImageFsInfoResponse> {
        let request = self.within(cri::ImageFsInfoRequest::default());
        let answer = self.images.clone().image_fs_info(request).await?;
        Ok(answer.into_inner())
    }

    /// Where images and layers are kept; `None` where the runtime does not say.
    pub async fn image_fs(&self) -> Result<Option<FilesAt>> {
        let answer = self.image_fs_info().await?;
        let first = |list: Vec<cri::FilesystemUsage>| {
            let first = list.into_iter().next().and_then(|fs| fs.fs_id);
            first.map(|id| id.mountpoint)
        };
        let containers = first(answer.container_filesystems);
        Ok(first(answer.image_filesystems).map(|images| FilesAt {
            // Only newer runtimes tell them apart.
            containers: containers.unwrap_or_else(|| images.clone()),
            images,
        }))
    }

    /// `None`: it is not on this node.
    pub async fn image_status(&self, image: cri::ImageSpec) -> Result<Option<cri::Image>> {
        let request = self.within(cri::ImageStatusRequest {
            image: Some(image),
            verbose: false,
        });
        Ok(self
            .images
            .clone()
            .image_status(request)
            .await?
            .into_inner()
            .image)
    }

    /// Takes as long as it takes: the runtime gives up where there is no progress.
    pub async fn pull_image(
        &self,
        image: cri::ImageSpec,
        auth: Option<cri::AuthConfig>,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let message = cri::PullImageRequest {
            image: Some(image),
            auth,
            sandbox_config: Some(sandbox_config),
        };
        Ok(self
            .images
            .clone()
            .pull_image(message)
            .await?
            .into_inner()
            .image_ref)
    }
}

fn ignore_missing<T>(result: std::result::Result<tonic::Response<T>, Status>) -> Result<()> {
    found(result).map(|_| ())
}

fn found<T>(result: std::result::Result<tonic::Response<T>, Status>) -> Result<Option<T>> {
    match result {
        Ok(response) => Ok(Some(response.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}
