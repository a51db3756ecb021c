//! What the API server itself puts into the cluster and keeps there: system namespaces, the
//! `kubernetes` service, default roles, priority classes, its own lease. Each part is a task
//! that tries again until it has succeeded, and says so to `/readyz`.
//!
//! What must not be here: controllers that could run elsewhere (`controller-manager`).

mod api_services;
mod authentication_config;
mod coordinated_leaders;
mod endpoints;
mod identity;
mod legacy_tokens;
mod local;
mod master_leases;
mod namespaces;
mod priority_classes;
mod rbac;
mod service;
mod service_cidr;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use component::features::FeatureGates;
use ipnet::IpNet;
use meta::Status;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use authentication_config::{Authentication, RequestHeader};
pub use coordinated_leaders::Times as LeadershipTimes;
pub use local::Local;
pub use master_leases::MasterLeases;

use crate::authn::UsedSecret;
use crate::backends::Caches;
use crate::health::{Health, Step};

/// How soon a part that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often endpoints and leases are renewed (upstream: 10 s, with leases of 15 s).
const RECONCILE: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// What the parts need.
pub struct ControlPlane {
    pub local: Arc<Local>,
    pub caches: Caches,
    pub leases: MasterLeases,
    /// `--advertise-address`
    pub advertise: IpAddr,
    pub secure_port: u16,
    /// Where other API servers reach this one.
    pub peer: SocketAddr,
    /// `--service-cluster-ip-range`
    pub service_ranges: Vec<IpNet>,
    /// `--kubernetes-service-node-port`; 0: none.
    pub service_node_port: u16,
    /// `--endpoint-reconciler-type` is not `none`.
    pub reconcile_endpoints: bool,
    pub authentication: Authentication,
    pub bootstrap_rbac: bool,
    pub gates: FeatureGates,
    pub leadership: LeadershipTimes,
    pub hostname: String,
    /// Secrets whose tokens are used.
    pub used_secrets: mpsc::Receiver<UsedSecret>,
}

impl ControlPlane {
    /// Starts every part. `stop` ends the reconciling parts; the returned future is done when
    /// they have taken the server's traces out of the cluster.
    pub fn start(
        mut self,
        health: &Health,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (_, nobody) = mpsc::channel(1);
        let used = std::mem::replace(&mut self.used_secrets, nobody);
        tokio::spawn(legacy_tokens::note(self.local.clone(), used));
        let cp = Arc::new(self);
        let start = Start {
            health,
            cp: &cp,
            stop: &stop,
        };
        start.repeat(
            "start-system-namespaces-controller",
            MINUTE,
            namespaces::ensure,
        );
        start.repeat(
            "start-cluster-authentication-info-controller",
            MINUTE,
            authentication_config::ensure,
        );
        start.repeat(
            "start-kube-apiserver-identity-lease-controller",
            RECONCILE,
            identity::renew,
        );
        start.repeat(
            "start-kube-apiserver-identity-lease-garbage-collector",
            HOUR,
            identity::collect,
        );
        start.repeat(
            "start-legacy-token-tracking-controller",
            HOUR / 2,
            legacy_tokens::ensure,
        );
        if cp.gates.enabled("CoordinatedLeaderElection") {
            let begun = health.hook("start-kube-apiserver-coordinated-leader-election-controller");
            let (cp, stop) = (cp.clone(), stop.clone());
            tokio::spawn(async move {
                cp.caches.synced().await;
                begun.done();
                coordinated_leaders::run(cp.local.clone(), cp.leadership, stop).await;
            });
        }
        start.once("apiservice-registration-controller", api_services::register);
        if cp.bootstrap_rbac {
            start.once("rbac/bootstrap-roles", rbac::ensure);
        }
        start.once(
            "scheduling/bootstrap-system-priority-classes",
            priority_classes::ensure,
        );
        let bootstrap = health.hook("bootstrap-controller");
        start.once(
            "start-kubernetes-service-cidr-controller",
            service_cidr::ensure,
        );
        let endpoints = tokio::spawn(endpoints_until(cp, stop, bootstrap));
        async move {
            if let Err(e) = endpoints.await {
                tracing::error!(error = %e, "the endpoints of the kubernetes service");
            }
        }
    }
}

/// What starts the parts.
struct Start<'a> {
    health: &'a Health,
    cp: &'a Arc<ControlPlane>,
    stop: &'a CancellationToken,
}

impl Start<'_> {
    /// Runs a part once, until it succeeds.
    fn once<F>(
        &self,
        name: &'static str,
        part: impl Fn(Arc<ControlPlane>) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let done = self.health.hook(name);
        tokio::spawn(keep(
            name,
            self.cp.clone(),
            self.stop.clone(),
            None,
            part,
            done,
        ));
    }

    /// Runs a part until it succeeds, and then again and again.
    fn repeat<F>(
        &self,
        name: &'static str,
        every: Duration,
        part: impl Fn(Arc<ControlPlane>) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let done = self.health.hook(name);
        let every = Some(every);
        tokio::spawn(keep(
            name,
            self.cp.clone(),
            self.stop.clone(),
            every,
            part,
            done,
        ));
    }
}

async fn keep<F>(
    name: &'static str,
    cp: Arc<ControlPlane>,
    stop: CancellationToken,
    every: Option<Duration>,
    part: impl Fn(Arc<ControlPlane>) -> F + Send + Sync + 'static,
    done: Step,
) where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    cp.caches.synced().await;
    let mut has_been = false;
    while !stop.is_cancelled() {
        match part(cp.clone()).await {
            Ok(()) => {
                has_been = true;
                done.done();
                if every.is_none() {
                    return;
                }
            }
            Err(e) => tracing::warn!(hook = name, error = %e, "post-start hook, trying again"),
        }
        let pause = every.filter(|_| has_been).unwrap_or(RETRY);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Keeps the `kubernetes` service and its endpoints, and takes this server out of them at
/// the end.
async fn endpoints_until(cp: Arc<ControlPlane>, stop: CancellationToken, done: Step) {
    if !cp.reconcile_endpoints {
        done.done();
        return;
    }
    cp.caches.synced().await;
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
        let reconciled = async {
            service::ensure(&cp).await?;
            endpoints::reconcile(&cp).await
        };
        wait = match reconciled.await {
            Ok(()) => {
                done.done();
                RECONCILE
            }
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
