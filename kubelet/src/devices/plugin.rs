//! One plugin, from when it has made itself known until it is gone: its options, its list of
//! devices as it changes, and what it is asked.

use std::time::Duration;

use grpc::plugins::devices as pb;
use grpc::plugins::devices::device_plugin_client::DevicePluginClient;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::choose::{Ids, Question};
use crate::metrics::grpc_code;

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The interface's: how long preparing devices before a container's start may take.
const PRE_START_TIMEOUT: Duration = Duration::from_secs(30);

/// The plugin of one resource.
#[derive(Clone)]
pub struct Plugin {
    client: DevicePluginClient<Channel>,
    options: pb::DevicePluginOptions,
    /// Cancelled when another one has taken its place, or it is to be left alone.
    pub replaced: CancellationToken,
}

/// A call's failure as Go writes it: pods show it.
fn failed(status: &tonic::Status) -> String {
    let (code, message) = (grpc_code(status.code()), status.message());
    format!("rpc error: code = {code} desc = {message}")
}

impl Plugin {
    /// # Errors
    /// When nobody answers at the socket.
    pub async fn connect(socket: &str) -> Result<Self, String> {
        let dialed = tokio::time::timeout(DIAL_TIMEOUT, grpc::dial_unix(socket)).await;
        let why = |error: &dyn std::fmt::Display| format!("failed to dial device plugin: {error}");
        let (channel, _) = dialed
            .map_err(|_| why(&"context deadline exceeded"))?
            .map_err(|error| why(&error))?;
        let mut client = DevicePluginClient::new(channel);
        let options = client.get_device_plugin_options(pb::Empty {}).await;
        let options = options.map_err(|status| {
            format!("failed to get device plugin options: {}", failed(&status))
        })?;
        Ok(Self {
            client,
            options: options.into_inner(),
            replaced: CancellationToken::new(),
        })
    }

    /// Hears its lists until it has no more to say. Returns why.
    pub async fn watch(&self, mut told: impl FnMut(Vec<pb::Device>)) -> String {
        let mut client = self.client.clone();
        let stream = tokio::select! {
            biased;
            () = self.replaced.cancelled() => return "replaced".into(),
            stream = client.list_and_watch(pb::Empty {}) => stream,
        };
        let mut stream = match stream {
            Ok(stream) => stream.into_inner(),
            Err(status) => return failed(&status),
        };
        loop {
            let message = tokio::select! {
                // What it says after another one has come does not count.
                biased;
                () = self.replaced.cancelled() => return "replaced".into(),
                message = stream.message() => message,
            };
            match message {
                Ok(Some(list)) => told(list.devices),
                Ok(None) => return "EOF".into(),
                Err(status) => return failed(&status),
            }
        }
    }

    /// What it prefers; nothing where it has no preferences.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn preferred(&self, question: &Question) -> Result<Ids, String> {
        if !self.options.get_preferred_allocation_available {
            return Ok(Ids::new());
        }
        let list = |ids: &Ids| ids.iter().cloned().collect();
        let request = pb::PreferredAllocationRequest {
            container_requests: vec![pb::ContainerPreferredAllocationRequest {
                available_device_i_ds: list(&question.available),
                must_include_device_i_ds: list(&question.must_include),
                allocation_size: i32::try_from(question.size).unwrap_or(i32::MAX),
            }],
        };
        let answer = self.client.clone().get_preferred_allocation(request).await;
        let answer = answer.map_err(|status| {
            let why = failed(&status);
            format!("device plugin GetPreferredAllocation rpc failed with err: {why}")
        })?;
        let first = answer.into_inner().container_responses.into_iter().next();
        let ids = first.map(|first| first.device_i_ds).unwrap_or_default();
        Ok(ids.into_iter().collect())
    }

    /// What a container needs to use these devices.
    ///
    /// # Errors
    /// When it cannot have them.
    pub async fn allocate(&self, ids: &Ids) -> Result<pb::ContainerAllocateResponse, String> {
        let request = pb::AllocateRequest {
            container_requests: vec![pb::ContainerAllocateRequest {
                devices_ids: ids.iter().cloned().collect(),
            }],
        };
        let answer = self.client.clone().allocate(request).await;
        let answer = answer.map_err(|status| failed(&status))?.into_inner();
        let first = answer.container_responses.into_iter().next();
        first
            .ok_or_else(|| "no containers return in allocation response &AllocateResponse{}".into())
    }

    pub fn wants_pre_start(&self) -> bool {
        self.options.pre_start_required
    }

    /// A container with these devices is about to start.
    ///
    /// # Errors
    /// When it must not.
    pub async fn pre_start(&self, ids: &Ids) -> Result<(), String> {
        let request = pb::PreStartContainerRequest {
            devices_ids: ids.iter().cloned().collect(),
        };
        let mut request = tonic::Request::new(request);
        request.set_timeout(PRE_START_TIMEOUT);
        let answer = self.client.clone().pre_start_container(request).await;
        let why = |status| {
            format!(
                "device plugin PreStartContainer rpc failed with err: {}",
                failed(&status)
            )
        };
        answer.map(drop).map_err(why)
    }
}
