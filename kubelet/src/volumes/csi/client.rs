//! A driver's Node service: each call with its deadline, its errors in one type, measured.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grpc::plugins::csi::node_client::NodeClient;
use grpc::plugins::csi::node_service_capability::{Type, rpc};
use grpc::plugins::csi::{
    NodeExpandVolumeRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, volume_usage::Unit,
};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::cri::client::CriError;
use crate::metrics::{Metrics, grpc_code};

/// Upstream's deadline of a call.
const TIMEOUT: Duration = Duration::from_secs(120);

pub use rpc::Type as Capability;

/// What a driver answered instead.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct CallError(CriError);

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self(status.into())
    }
}

impl CallError {
    /// Whether nothing goes on any more of what was asked for.
    pub fn is_final(&self) -> bool {
        !matches!(
            self.0.code,
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unavailable
                | Code::ResourceExhausted
                | Code::Aborted
        )
    }
}

type Result<T> = std::result::Result<T, CallError>;

/// Room in a volume, as far as its driver tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub available: i64,
    pub capacity: i64,
    pub used: i64,
    pub inodes: i64,
    pub inodes_free: i64,
    pub inodes_used: i64,
}

/// What a driver can do.
#[derive(Debug, Clone, Default)]
pub struct Capabilities(HashSet<Capability>);

impl Capabilities {
    pub fn has(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }
}

/// One driver. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    driver: Arc<str>,
    node: NodeClient<Channel>,
    metrics: Arc<Metrics>,
}

impl Client {
    /// Connects on first use.
    ///
    /// # Errors
    /// When the endpoint is no Unix socket.
    pub fn new(
        driver: &str,
        endpoint: &str,
        metrics: Arc<Metrics>,
    ) -> std::result::Result<Self, grpc::EndpointError> {
        Ok(Self {
            driver: driver.into(),
            node: NodeClient::new(grpc::connect_unix(endpoint)?),
            metrics,
        })
    }

    async fn call<M, T, F>(
        &self,
        method: &str,
        message: M,
        call: impl FnOnce(NodeClient<Channel>, Request<M>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = std::result::Result<Response<T>, Status>>,
    {
        let mut request = Request::new(message);
        request.set_timeout(TIMEOUT);
        let begun = Instant::now();
        let answer = call(self.node.clone(), request).await;
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        let method = format!("/csi.v1.Node/{method}");
        let labels = [&*self.driver, &method, &grpc_code(code), "false"];
        let took = self.metrics.plugins.csi_calls.with_label_values(&labels);
        took.observe(begun.elapsed().as_secs_f64());
        Ok(answer?.into_inner())
    }

    pub async fn info(&self) -> Result<NodeGetInfoResponse> {
        let request = NodeGetInfoRequest {};
        self.call("NodeGetInfo", request, async |mut node, request| {
            node.node_get_info(request).await
        })
        .await
    }

    pub async fn capabilities(&self) -> Result<Capabilities> {
        let request = NodeGetCapabilitiesRequest {};
        let answer = self
            .call("NodeGetCapabilities", request, async |mut node, request| {
                node.node_get_capabilities(request).await
            })
            .await?;
        let all = answer.capabilities.into_iter();
        let known = all.filter_map(|capability| match capability.r#type? {
            Type::Rpc(rpc) => Some(rpc.r#type()),
        });
        Ok(Capabilities(known.collect()))
    }

    pub async fn stage(&self, request: NodeStageVolumeRequest) -> Result<()> {
        self.call("NodeStageVolume", request, async |mut node, request| {
            node.node_stage_volume(request).await
        })
        .await
        .map(drop)
    }

    pub async fn unstage(&self, request: NodeUnstageVolumeRequest) -> Result<()> {
        self.call("NodeUnstageVolume", request, async |mut node, request| {
            node.node_unstage_volume(request).await
        })
        .await
        .map(drop)
    }

    pub async fn publish(&self, request: NodePublishVolumeRequest) -> Result<()> {
        self.call("NodePublishVolume", request, async |mut node, request| {
            node.node_publish_volume(request).await
        })
        .await
        .map(drop)
    }

    pub async fn unpublish(&self, request: NodeUnpublishVolumeRequest) -> Result<()> {
        self.call("NodeUnpublishVolume", request, async |mut node, request| {
            node.node_unpublish_volume(request).await
        })
        .await
        .map(drop)
    }

    pub async fn expand(&self, request: NodeExpandVolumeRequest) -> Result<()> {
        self.call("NodeExpandVolume", request, async |mut node, request| {
            node.node_expand_volume(request).await
        })
        .await
        .map(drop)
    }

    pub async fn stats(&self, request: NodeGetVolumeStatsRequest) -> Result<Usage> {
        let answer = self
            .call("NodeGetVolumeStats", request, async |mut node, request| {
                node.node_get_volume_stats(request).await
            })
            .await?;
        let mut usage = Usage::default();
        for part in answer.usage {
            match part.unit() {
                Unit::Bytes => {
                    usage.available = part.available;
                    usage.capacity = part.total;
                    usage.used = part.used;
                }
                Unit::Inodes => {
                    usage.inodes_free = part.available;
                    usage.inodes = part.total;
                    usage.inodes_used = part.used;
                }
                Unit::Unknown => {}
            }
        }
        Ok(usage)
    }
}
