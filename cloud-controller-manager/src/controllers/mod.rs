//! The controllers, one folder each: a pure `plan` and the `mod` that observes and applies.

mod node;
mod node_lifecycle;
mod route;
mod service;

use std::sync::Arc;
use std::time::Duration;

use client::Client;
use client::events::Recorder;
use client::informer::Informers;
use futures::future::BoxFuture;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use crate::provider::Provider;

/// What every controller is given.
pub struct Context {
    pub client: Client,
    pub informers: Informers,
    pub recorder: Recorder,
    pub provider: Arc<dyn Provider>,
    pub node_status_update_frequency: Duration,
    pub node_monitor_period: Duration,
    pub node_workers: usize,
    pub service_workers: usize,
    /// `--configure-cloud-routes`.
    pub configure_cloud_routes: bool,
    pub route_reconciliation_period: Duration,
    /// The networks of all pods: one per IP family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ends with the lease.
    pub stop: CancellationToken,
}

/// Registers with the informers and returns what is to run; `None` when the cloud has
/// nothing for the controller to do.
type Start = fn(Context) -> Option<BoxFuture<'static, ()>>;

/// Under upstream's names.
pub fn controllers() -> [(&'static str, Start); 4] {
    [
        ("cloud-node-controller", node::start),
        ("cloud-node-lifecycle-controller", node_lifecycle::start),
        ("service-lb-controller", service::start),
        ("node-route-controller", route::start),
    ]
}
