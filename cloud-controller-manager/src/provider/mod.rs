//! What a cloud tells and does: the seam that every provider implements.
//!
//! A provider answers for instances, load balancers and routes; `None` for a part means
//! that the cloud has no such thing, and the controllers of it do not run.
//!
//! What must not be here: the Kubernetes API; controllers hand over what is needed.

pub mod baremetal;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use ipnet::IpNet;

/// A cloud (`cloudprovider.Interface`).
pub trait Provider: Send + Sync + 'static {
    /// As in `--cloud-provider` and in the scheme of a node's `providerID`.
    fn name(&self) -> &'static str;

    fn instances(&self) -> Option<&dyn Instances> {
        None
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        None
    }

    fn routes(&self) -> Option<&dyn Routes> {
        None
    }
}

/// Which node is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRef {
    pub name: String,
    /// `spec.providerID`; empty on a node that has not been initialized.
    pub provider_id: String,
}

/// The machines behind nodes (`cloudprovider.InstancesV2`).
pub trait Instances: Send + Sync {
    /// The machine of a node; `None` when the cloud has no such machine (any more).
    fn instance<'a>(
        &'a self,
        node: &'a NodeRef,
    ) -> BoxFuture<'a, Result<Option<Instance>, ProviderError>>;
}

/// A machine (`cloudprovider.InstanceMetadata`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Instance {
    /// `<provider>://<id>`.
    pub provider_id: String,
    /// Empty for unknown; likewise zone and region.
    pub instance_type: String,
    pub zone: String,
    pub region: String,
    /// As `status.addresses` has them: type and address.
    pub addresses: Vec<(String, String)>,
    pub labels: BTreeMap<String, String>,
    /// Switched off, but still there.
    pub shut_down: bool,
}

/// Addresses outside of the cluster for services of type LoadBalancer
/// (`cloudprovider.LoadBalancer`).
pub trait LoadBalancers: Send + Sync {
    /// Makes or updates the balancer of a service and returns its addresses. `taken`
    /// are the addresses that other services have, and `present` those that this one
    /// has by now: the provider keeps no state of its own.
    fn ensure<'a>(
        &'a self,
        service: &'a BalancedService,
        taken: &'a [std::net::IpAddr],
    ) -> BoxFuture<'a, Result<Vec<std::net::IpAddr>, ProviderError>>;

    /// Removes it; succeeds when it is not there.
    fn ensure_deleted<'a>(
        &'a self,
        service: &'a BalancedService,
    ) -> BoxFuture<'a, Result<(), ProviderError>>;
}

/// What a balancer needs to know of its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalancedService {
    pub namespace: String,
    pub name: String,
    /// `spec.loadBalancerIP`, when asked for.
    pub requested: Option<std::net::IpAddr>,
    pub present: Vec<std::net::IpAddr>,
}

/// The ways to the pods of nodes (`cloudprovider.Routes`).
pub trait Routes: Send + Sync {
    /// The routes of this cluster that there are.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Route>, ProviderError>>;

    /// Makes a route to a node, in the place of one to the same destination.
    /// `addresses` are the node's, as its status has them: type and address.
    fn create<'a>(
        &'a self,
        route: &'a Route,
        addresses: &'a [(String, String)],
    ) -> BoxFuture<'a, Result<(), ProviderError>>;

    /// Removes it; succeeds when it is not there.
    fn delete<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, Result<(), ProviderError>>;
}

/// Where packets for some pods go (`cloudprovider.Route`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// A node's pod network.
    pub destination: IpNet,
    /// The node's name; empty when the cloud knows no such machine (any more).
    pub node: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("unknown cloud provider {0:?}; this build has: baremetal")]
    Unknown(String),
    #[error("cannot read the cloud configuration {path}")]
    Config {
        path: String,
        #[source]
        source: anyhow::Error,
    },
    #[error("{0}")]
    Failed(String),
}

/// The provider of that name (`--cloud-provider`), configured from `--cloud-config`.
pub fn build(name: &str, config: Option<&Path>) -> Result<Arc<dyn Provider>, ProviderError> {
    match name {
        baremetal::NAME => Ok(Arc::new(baremetal::Baremetal::load(config)?)),
        other => Err(ProviderError::Unknown(other.to_owned())),
    }
}
