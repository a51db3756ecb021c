//! Which kinds have rules of their own, and which endpoints are not simply stored objects:
//! one line registers each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use component::features::FeatureGates;
use ipnet::IpNet;

use super::certificate_requests::CertificateRequests;
use super::device_claims::DeviceClaims;
use super::events::Events;
use super::jobs::Jobs;
use super::namespaces::Namespaces;
use super::pod_certificates::PodCertificates;
use super::pods::Pods;
use super::pods::binding::Bindings;
use super::pods::eviction::Evictions;
use super::rest::Rest;
use super::scale::Scale;
use super::service_account_tokens::Tokens;
use super::services::metrics::Metrics as ServiceMetrics;
use super::services::{Addresses, NodePorts, ServiceHooks, Services};
use super::store::Env;
use super::strategy::Strategy;
use super::{Registry, Strategies};
use crate::authn::token_issuer::TokenIssuer;
use crate::authz::Authorizer;
use crate::lookup::Lookup;
use crate::options::PortRange;

/// Group, plural and subresource.
pub type Endpoint = (&'static str, &'static str, &'static str);

pub fn strategies(event_ttl: Duration) -> Strategies {
    let mut strategies = Strategies::new();
    let mut of = |group, plural, strategy: Box<dyn Strategy>| {
        strategies.insert((group, plural), strategy);
    };
    of("", "events", Box::new(Events { ttl: event_ttl }));
    of("", "namespaces", Box::new(Namespaces));
    of("", "pods", Box::new(Pods));
    of("", "services", Box::new(Services));
    of("batch", "jobs", Box::new(Jobs));
    of(
        "certificates.k8s.io",
        "certificatesigningrequests",
        Box::new(CertificateRequests),
    );
    strategies
}

/// A resource that something else is built on is switched off (`--runtime-config`).
#[derive(Debug, thiserror::Error)]
#[error("{0} must be served: others depend on it")]
pub struct NotServed(&'static str);

/// Subresources that speak another kind.
pub fn endpoints(
    registry: &Registry,
    issuer: Arc<TokenIssuer>,
    lookup: &Arc<dyn Lookup>,
) -> Result<HashMap<Endpoint, Arc<dyn Rest>>, NotServed> {
    let store = |group: &str, plural: &'static str| {
        registry
            .store(group, plural)
            .cloned()
            .ok_or(NotServed(plural))
    };
    let mut rest: HashMap<Endpoint, Arc<dyn Rest>> = HashMap::new();
    let bindings: Arc<dyn Rest> = Arc::new(Bindings {
        pods: store("", "pods")?,
    });
    rest.insert(("", "bindings", ""), bindings.clone());
    rest.insert(("", "pods", "binding"), bindings);
    rest.insert(
        ("", "pods", "eviction"),
        Arc::new(Evictions {
            pods: store("", "pods")?,
            budgets: store("policy", "poddisruptionbudgets")?,
        }),
    );
    for (group, plural) in [
        ("", "replicationcontrollers"),
        ("apps", "deployments"),
        ("apps", "replicasets"),
        ("apps", "statefulsets"),
    ] {
        // What is switched off is not scaled either.
        if let Some(workloads) = registry.store(group, plural).cloned() {
            rest.insert((group, plural, "scale"), Arc::new(Scale { workloads }));
        }
    }
    rest.insert(
        ("", "serviceaccounts", "token"),
        Arc::new(Tokens {
            service_accounts: store("", "serviceaccounts")?,
            issuer,
            lookup: lookup.clone(),
        }),
    );
    Ok(rest)
}

/// Makes requests for pods' certificates prove what they say.
pub fn guard_pod_certificates(registry: &Registry, authorizer: &Arc<dyn Authorizer>) {
    if let Some(store) = registry.store("certificates.k8s.io", "podcertificaterequests") {
        let authorizer = authorizer.clone();
        store.set_hooks(Arc::new(PodCertificates { authorizer }));
    }
}

/// Makes claims of devices ask their namespace for the administrator's rights, and the authorizer
/// who may say what in their status.
pub fn guard_device_claims(
    registry: &Registry,
    lookup: &Arc<dyn Lookup>,
    authorizer: &Arc<dyn Authorizer>,
    gates: &FeatureGates,
) {
    let by_part = gates.enabled("DRAResourceClaimGranularStatusAuthorization");
    for (plural, kind, spec) in [
        ("resourceclaims", "ResourceClaim", "/spec"),
        (
            "resourceclaimtemplates",
            "ResourceClaimTemplate",
            "/spec/spec",
        ),
    ] {
        if let Some(store) = registry.store("resource.k8s.io", plural) {
            store.set_hooks(Arc::new(DeviceClaims {
                kind,
                spec,
                lookup: lookup.clone(),
                parts: by_part.then(|| authorizer.clone()),
            }));
        }
    }
}

/// What Services allocate from.
pub struct ServiceAllocators {
    pub addresses: Arc<Addresses>,
    pub ports: Arc<NodePorts>,
}

/// Makes Services allocate addresses and ports.
pub fn allocate_for_services(
    registry: &Registry,
    env: &Env,
    ranges: Vec<IpNet>,
    port_range: PortRange,
    metrics: Arc<ServiceMetrics>,
) -> Result<ServiceAllocators, NotServed> {
    const NETWORKING: &str = "networking.k8s.io";
    let store = |group: &str, plural: &'static str| {
        registry
            .store(group, plural)
            .cloned()
            .ok_or(NotServed(plural))
    };
    let addresses = Arc::new(Addresses {
        objects: store(NETWORKING, "ipaddresses")?,
        cidrs: store(NETWORKING, "servicecidrs")?,
        ranges,
        random: env.random,
        metrics: metrics.clone(),
    });
    let ports = Arc::new(NodePorts {
        storage: env.storage.clone(),
        keys: env.keys.clone(),
        range: port_range,
        random: env.random,
        metrics,
    });
    store("", "services")?.set_hooks(Arc::new(ServiceHooks {
        addresses: addresses.clone(),
        ports: ports.clone(),
    }));
    Ok(ServiceAllocators { addresses, ports })
}
