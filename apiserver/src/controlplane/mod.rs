//! What the API server itself puts into the cluster and keeps there: system namespaces, the
//! `kubernetes` service, default roles, priority classes, its own lease. Each part is a task
//! that tries again until it has succeeded, and says so to `/readyz`.
//!
//! What must not be here: controllers that could run elsewhere (`controller-manager`).

mod authentication_config;
mod endpoints;
mod identity;
mod local;
mod master_leases;
mod namespaces;
mod priority_classes;
mod rbac;
mod service;
mod service_cidr;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use component::health::Checks;
use ipnet::IpNet;
use meta::Status;
use tokio_util::sync::CancellationToken;

pub use authentication_config::{Authentication, RequestHeader};
pub use local::Local;
pub use master_leases::MasterLeases;

use crate::storage::cache::Cache;

/// How soon a part that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often endpoints and leases are renewed (upstream: 10 s, with leases of 15 s).
const RECONCILE: Duration = Duration::from_secs(10);

/// What the parts need.
pub struct ControlPlane {
    pub local: Arc<Local>,
    pub cache: Arc<Cache>,
    pub leases: MasterLeases,
    /// `--advertise-address`
    pub advertise: IpAddr,
    pub secure_port: u16,
    /// `--service-cluster-ip-range`
    pub service_ranges: Vec<IpNet>,
    /// `--kubernetes-service-node-port`; 0: none.
    pub service_node_port: u16,
    /// `--endpoint-reconciler-type` is not `none`.
    pub reconcile_endpoints: bool,
    pub authentication: Authentication,
    pub bootstrap_rbac: bool,
    pub hostname: String,
}

impl ControlPlane {
    /// Starts every part. `stop` ends the reconciling parts; the returned future is done when
    /// they have taken the server's traces out of the cluster.
    pub fn start(
        self,
        ready: &Checks,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let cp = Arc::new(self);
        spawn_hook(
            ready,
            "start-system-namespaces-controller",
            &cp,
            &stop,
            namespaces::ensure,
        );
        spawn_hook(
            ready,
            "scheduling/bootstrap-system-priority-classes",
            &cp,
            &stop,
            priority_classes::ensure,
        );
        if cp.bootstrap_rbac {
            spawn_hook(ready, "rbac/bootstrap-roles", &cp, &stop, rbac::ensure);
        }
        spawn_hook(
            ready,
            "start-cluster-authentication-info-controller",
            &cp,
            &stop,
            authentication_config::ensure,
        );
        spawn_hook(
            ready,
            "start-kubernetes-service-cidr-controller",
            &cp,
            &stop,
            service_cidr::ensure,
        );
        tokio::spawn(repeat(
            cp.clone(),
            stop.clone(),
            Duration::from_secs(60),
            namespaces::ensure,
        ));
        tokio::spawn(repeat(
            cp.clone(),
            stop.clone(),
            Duration::from_secs(60),
            authentication_config::ensure,
        ));
        tokio::spawn(repeat(cp.clone(), stop.clone(), RECONCILE, identity::renew));
        let endpoints = tokio::spawn(endpoints_until(cp, stop));
        async move {
            if let Err(e) = endpoints.await {
                tracing::error!(error = %e, "the endpoints of the kubernetes service");
            }
        }
    }
}

/// Runs a part once, until it succeeds.
fn spawn_hook<F>(
    ready: &Checks,
    name: &'static str,
    cp: &Arc<ControlPlane>,
    stop: &CancellationToken,
    part: impl Fn(Arc<ControlPlane>) -> F + Send + Sync + 'static,
) where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let done = Arc::new(AtomicBool::new(false));
    ready.add(format!("poststarthook/{name}"), {
        let done = done.clone();
        move || match done.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err("not finished".to_owned()),
        }
    });
    let (cp, stop) = (cp.clone(), stop.clone());
    tokio::spawn(async move {
        cp.cache.synced().await;
        while !stop.is_cancelled() {
            match part(cp.clone()).await {
                Ok(()) => {
                    done.store(true, Ordering::Relaxed);
                    return;
                }
                Err(e) => tracing::warn!(hook = name, error = %e, "post-start hook, trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    });
}

/// Runs a part again and again.
async fn repeat<F>(
    cp: Arc<ControlPlane>,
    stop: CancellationToken,
    every: Duration,
    part: impl Fn(Arc<ControlPlane>) -> F + Send + Sync + 'static,
) where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    cp.cache.synced().await;
    let mut ticks = tokio::time::interval(every);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(e) = part(cp.clone()).await {
            tracing::warn!(error = %e, "keeping the control plane's own objects");
        }
    }
}

/// Keeps the `kubernetes` service and its endpoints, and takes this server out of them at
/// the end.
async fn endpoints_until(cp: Arc<ControlPlane>, stop: CancellationToken) {
    if !cp.reconcile_endpoints {
        return;
    }
    cp.cache.synced().await;
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
        let done = async {
            service::ensure(&cp).await?;
            endpoints::reconcile(&cp).await
        };
        wait = match done.await {
            Ok(()) => RECONCILE,
            Err(e) => {
                tracing::warn!(error = %e, "reconciling the kubernetes service");
                RETRY
            }
        };
    }
    let removed = tokio::time::timeout(2 * RECONCILE, endpoints::remove(&cp)).await;
    if let Ok(Err(e)) = removed {
        tracing::warn!(error = %e, "leaving the kubernetes service");
    }
}
