//! The drivers that have registered, whether they answer, and their calls. A driver may have two
//! plugins while it is being replaced: the newest that is connected counts.
//!
//! Devices of a driver that is not there must not be allocated: its ResourceSlices are deleted,
//! at once when the kubelet starts (nobody has registered yet), later after a while of grace.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Api, Client, DeleteOptions, ListOptions};
use futures::future::BoxFuture;
use grpc::plugins::dra::health::NodeWatchResourcesRequest;
use grpc::plugins::dra::health::dra_resource_health_client::DraResourceHealthClient;
use grpc::plugins::dra::v1::dra_plugin_client::DraPluginClient as V1;
use grpc::plugins::dra::v1::{
    Claim, NodePrepareResourceResponse, NodePrepareResourcesRequest, NodeUnprepareResourceResponse,
    NodeUnprepareResourcesRequest,
};
use grpc::plugins::dra::v1beta1::dra_plugin_client::DraPluginClient as V1Beta1;
use k8s_openapi::api::resource::v1::ResourceSlice;
use parking_lot::Mutex;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tracing::{debug, info};

use super::health::{DeviceKey, Health};
use crate::cri::client::CriError;
use crate::metrics::{Metrics, grpc_code};
use crate::plugins::{Handler, Plugin};

/// Upstream's deadline of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(45);
/// Between two tries to reach a plugin, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Upstream's grace: long enough for a driver's pod to be replaced.
pub const WIPE_AFTER: Duration = Duration::from_secs(30);
const MAX_WIPE_PAUSE: Duration = Duration::from_secs(300);

/// Why a driver did not do what it was asked to.
#[derive(Debug, Error)]
pub enum DriverError {
    #[error("DRA driver {0} is not registered")]
    Unknown(String),
    #[error("{0}: {1}")]
    Call(&'static str, CriError),
}

/// The services that plugins offer, the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    V1,
    V1Beta1,
}

impl Service {
    /// The first that the plugin offers and we know.
    fn choose(offered: &[String]) -> Result<Self, String> {
        if offered.is_empty() {
            return Err("empty list of supported gRPC services (aka supported versions)".into());
        }
        let known = |name: &String| match name.as_str() {
            "v1.DRAPlugin" => Some(Self::V1),
            "v1beta1.DRAPlugin" => Some(Self::V1Beta1),
            _ => None,
        };
        offered.iter().find_map(known).ok_or_else(|| {
            format!(
                "none of services supported by the plugin ({offered:?}) are supported by the kubelet \
                 ([\"v1.DRAPlugin\" \"v1beta1.DRAPlugin\"])"
            )
        })
    }

    fn method(self, name: &str) -> String {
        let version = match self {
            Self::V1 => "v1",
            Self::V1Beta1 => "v1beta1",
        };
        format!("/k8s.io.kubelet.pkg.apis.dra.{version}.DRAPlugin/{name}")
    }
}

/// One plugin of a driver.
struct Endpoint {
    path: String,
    service: Service,
    /// There while the plugin is connected.
    channel: Mutex<Option<Channel>>,
    end: CancellationToken,
}

/// Told which devices of a driver are otherwise than before.
pub type Changed = Box<dyn Fn(&str, &[DeviceKey]) + Send + Sync>;

struct Inner {
    endpoints: Mutex<HashMap<String, Vec<Arc<Endpoint>>>>,
    wipes: Mutex<HashMap<String, CancellationToken>>,
    /// `None` without an API server: then there are no slices.
    api: Option<Client>,
    node_name: String,
    wipe_after: Duration,
    /// `None` where nobody is to know how devices are.
    health: Option<(Arc<Health>, Changed)>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// All drivers. Cheap to clone.
#[derive(Clone)]
pub struct Drivers(Arc<Inner>);

impl Drivers {
    pub fn new(
        api: Option<Client>,
        node_name: &str,
        wipe_after: Duration,
        health: Option<(Arc<Health>, Changed)>,
        metrics: Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            endpoints: Mutex::default(),
            wipes: Mutex::default(),
            api,
            node_name: node_name.to_owned(),
            wipe_after,
            health,
            metrics,
            stop: stop.clone(),
        }))
    }

    /// Nobody has registered yet: deletes the slices of all of the node's drivers.
    pub fn wipe_all(&self) {
        let (drivers, stop) = (self.clone(), self.0.stop.clone());
        tokio::spawn(async move { drivers.wipe("", &stop).await });
    }

    /// # Errors
    /// When no plugin of the driver is registered.
    pub fn check(&self, driver: &str) -> Result<(), DriverError> {
        self.endpoint(driver).map(drop)
    }

    fn endpoint(&self, driver: &str) -> Result<Arc<Endpoint>, DriverError> {
        let endpoints = self.0.endpoints.lock();
        let own = endpoints.get(driver).map(Vec::as_slice).unwrap_or_default();
        let connected = own.iter().rev().find(|e| e.channel.lock().is_some());
        let chosen = connected.or(own.last()).cloned();
        chosen.ok_or_else(|| DriverError::Unknown(driver.to_owned()))
    }

    /// What came of preparing claims, by their uids.
    ///
    /// # Errors
    /// When the driver is unknown or does not answer.
    pub async fn prepare(
        &self,
        driver: &str,
        claims: Vec<Claim>,
    ) -> Result<BTreeMap<String, NodePrepareResourceResponse>, DriverError> {
        const NAME: &str = "NodePrepareResources";
        let request = NodePrepareResourcesRequest { claims };
        let answer = self.call(driver, NAME, async |service, channel| {
            let request = within(request);
            match service {
                Service::V1 => V1::new(channel).node_prepare_resources(request).await,
                Service::V1Beta1 => V1Beta1::new(channel).node_prepare_resources(request).await,
            }
        });
        Ok(answer.await?.claims)
    }

    /// What came of giving claims up, by their uids.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub async fn unprepare(
        &self,
        driver: &str,
        claims: Vec<Claim>,
    ) -> Result<BTreeMap<String, NodeUnprepareResourceResponse>, DriverError> {
        const NAME: &str = "NodeUnprepareResources";
        let request = NodeUnprepareResourcesRequest { claims };
        let answer = self.call(driver, NAME, async |service, channel| {
            let request = within(request);
            match service {
                Service::V1 => V1::new(channel).node_unprepare_resources(request).await,
                Service::V1Beta1 => {
                    V1Beta1::new(channel)
                        .node_unprepare_resources(request)
                        .await
                }
            }
        });
        Ok(answer.await?.claims)
    }

    async fn call<T>(
        &self,
        driver: &str,
        name: &'static str,
        call: impl AsyncFnOnce(Service, Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, DriverError> {
        let endpoint = self.endpoint(driver)?;
        let channel = endpoint.channel.lock().clone();
        let begun = Instant::now();
        let answer = match channel {
            Some(channel) => call(endpoint.service, channel).await,
            None => Err(Status::unavailable(format!(
                "connection error: nobody serves on {}",
                endpoint.path
            ))),
        };
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        let labels = [driver, &endpoint.service.method(name), &grpc_code(code)];
        let took = &self.0.metrics.plugins.dra_calls;
        took.with_label_values(&labels)
            .observe(begun.elapsed().as_secs_f64());
        answer
            .map(Response::into_inner)
            .map_err(|status| DriverError::Call(name, status.into()))
    }

    /// Keeps a connection to the plugin until it is let go.
    async fn follow(self, driver: String, endpoint: Arc<Endpoint>) {
        let mut pause = FIRST_PAUSE;
        while !endpoint.end.is_cancelled() {
            match grpc::dial_unix(&endpoint.path).await {
                Ok((channel, ended)) => {
                    debug!(driver, path = endpoint.path, "connected");
                    pause = FIRST_PAUSE;
                    *endpoint.channel.lock() = Some(channel.clone());
                    self.weigh(&driver);
                    tokio::select! {
                        () = endpoint.end.cancelled() => {}
                        () = ended.wait() => {}
                        () = self.watch_health(&driver, channel) => {}
                    }
                    debug!(driver, path = endpoint.path, "not connected any more");
                    *endpoint.channel.lock() = None;
                }
                Err(error) => debug!(driver, %error, "cannot reach a driver's plugin"),
            }
            self.weigh(&driver);
            tokio::select! {
                () = endpoint.end.cancelled() => {}
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
            }
        }
    }

    /// Takes in what the driver tells of its devices' health. Never ends while the connection
    /// lasts: drivers need not tell.
    async fn watch_health(&self, driver: &str, channel: Channel) {
        let Some((health, changed)) = &self.0.health else {
            return std::future::pending().await;
        };
        let forget = Forget(health, driver);
        loop {
            let mut client = DraResourceHealthClient::new(channel.clone());
            match client
                .node_watch_resources(NodeWatchResourcesRequest {})
                .await
            {
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    while let Ok(Some(told)) = stream.message().await {
                        let devices = health.update(driver, &told.devices, Instant::now());
                        if !devices.is_empty() {
                            changed(driver, &devices);
                        }
                    }
                    health.clear(driver);
                }
                Err(status) if status.code() == Code::Unimplemented => break,
                Err(status) => debug!(driver, %status, "cannot watch the health of devices"),
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        std::future::pending::<()>().await;
        drop(forget);
    }

    /// Sees to it that the slices of a driver that nobody serves go, and of no other.
    fn weigh(&self, driver: &str) {
        if self.0.api.is_none() || self.0.stop.is_cancelled() {
            return;
        }
        let usable = {
            let endpoints = self.0.endpoints.lock();
            let own = endpoints.get(driver).map(Vec::as_slice).unwrap_or_default();
            own.iter().any(|endpoint| endpoint.channel.lock().is_some())
        };
        let mut wipes = self.0.wipes.lock();
        if usable {
            if let Some(wipe) = wipes.remove(driver) {
                wipe.cancel();
            }
            return;
        }
        if wipes.contains_key(driver) {
            return;
        }
        let cancel = self.0.stop.child_token();
        wipes.insert(driver.to_owned(), cancel.clone());
        let (drivers, driver) = (self.clone(), driver.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(drivers.0.wipe_after) => {}
            }
            drivers.wipe(&driver, &cancel).await;
        });
    }

    /// Deletes the node's slices of a driver, or of all, however long it takes.
    async fn wipe(&self, driver: &str, cancel: &CancellationToken) {
        let Some(api) = &self.0.api else { return };
        let mut which = format!("spec.nodeName={}", self.0.node_name);
        if !driver.is_empty() {
            which = format!("spec.driver={driver},{which}");
        }
        let slices = Api::<ResourceSlice>::all(api);
        let mut pause = Duration::from_secs(1);
        loop {
            let (options, which) = (DeleteOptions::new(), ListOptions::new().fields(&which));
            match slices.delete_collection(&options, &which).await {
                Ok(()) => return info!(driver, "deleted the ResourceSlices of absent drivers"),
                Err(error) if error.is_not_found() => return,
                Err(error) => debug!(driver, %error, "cannot delete ResourceSlices yet"),
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_WIPE_PAUSE),
            }
        }
    }
}

/// What a driver told holds no longer than its connection.
struct Forget<'a>(&'a Health, &'a str);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.clear(self.1);
    }
}

fn within<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

fn invalid(plugin: &Plugin, why: &str) -> String {
    let Plugin { name, endpoint, .. } = plugin;
    format!(
        "invalid supported gRPC versions of DRA driver plugin {name} at endpoint {endpoint}: {why}"
    )
}

impl Handler for Drivers {
    fn validate(&self, plugin: &Plugin) -> Result<(), String> {
        let service = Service::choose(&plugin.versions);
        service.map(drop).map_err(|why| invalid(plugin, &why))
    }

    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>> {
        let register = || {
            let service = Service::choose(&plugin.versions).map_err(|why| invalid(plugin, &why))?;
            let mut endpoints = self.0.endpoints.lock();
            let own = endpoints.entry(plugin.name.clone()).or_default();
            // One plugin must not take another's socket over.
            if own.iter().any(|endpoint| endpoint.path == plugin.endpoint) {
                return Err(format!(
                    "endpoint {} already registered for DRA driver plugin {}",
                    plugin.endpoint, plugin.name
                ));
            }
            let endpoint = Arc::new(Endpoint {
                path: plugin.endpoint.clone(),
                service,
                channel: Mutex::default(),
                end: self.0.stop.child_token(),
            });
            own.push(endpoint.clone());
            drop(endpoints);
            tokio::spawn(self.clone().follow(plugin.name.clone(), endpoint));
            Ok(())
        };
        Box::pin(std::future::ready(register()))
    }

    fn deregister(&self, plugin: &Plugin) {
        let mut endpoints = self.0.endpoints.lock();
        if let Some(own) = endpoints.get_mut(&plugin.name) {
            own.retain(|endpoint| {
                let keep = endpoint.path != plugin.endpoint;
                if !keep {
                    endpoint.end.cancel();
                }
                keep
            });
            if own.is_empty() {
                endpoints.remove(&plugin.name);
            }
        }
        drop(endpoints);
        self.weigh(&plugin.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_service_is_chosen() {
        let choose = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|name| (*name).to_owned()).collect();
            Service::choose(&list)
        };
        assert_eq!(
            choose(&["v9.X", "v1beta1.DRAPlugin", "v1.DRAPlugin"]),
            Ok(Service::V1Beta1)
        );
        assert_eq!(choose(&["v1.DRAPlugin"]), Ok(Service::V1));
        assert!(choose(&["1.0.0"]).is_err() && choose(&[]).is_err());
    }
}
