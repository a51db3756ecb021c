//! Which Services a change of a pod matters to, and which pods a Service selects.

use std::sync::Arc;

use client::informer::{Event as Change, Index};
use client::{Object as _, ObjectKey};
use k8s_openapi::api::core::v1::Service;
use meta::labels::Selector;

use crate::kinds::Pod;

/// The Service's selector; `None` if its endpoints are somebody else's business.
pub fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let labels = spec.selector.as_ref().filter(|s| !s.is_empty())?;
    Some(Selector::from_set(labels))
}

/// The pods of a namespace that a selector matches.
pub fn select(pods: &Index<Pod>, namespace: &str, selector: &Selector) -> Vec<Arc<Pod>> {
    let mut pods = pods.get(namespace);
    pods.retain(|p| selector.matches_labels(Some(&p.metadata.labels)));
    pods
}

/// Services whose endpoints a change of a pod may change. `services` are by namespace.
pub fn services(services: &Index<Service>, change: &Change<Pod>) -> Vec<ObjectKey> {
    let (old, new) = (change.previous(), change.current());
    let (same_place, same_address) = match (old, new) {
        (Some(old), Some(new)) => (same_place(old, new), same_address(old, new)),
        _ => (true, false),
    };
    if same_place && same_address {
        return Vec::new();
    }
    let matches = |service: &Service, pod: Option<&Arc<Pod>>| {
        let selector = selector(service);
        pod.is_some_and(|p| selector.is_some_and(|s| s.matches_labels(Some(&p.metadata.labels))))
    };
    let namespace = change.object().namespace();
    let mut affected = services.get(namespace);
    affected.retain(|service| {
        let (before, after) = (matches(service, old), matches(service, new));
        // If the pod itself is as before, only those that gain or lose it care.
        if same_address {
            before != after
        } else {
            before || after
        }
    });
    affected.iter().map(|s| s.key()).collect()
}

/// Labels and host name: what says which Services a pod belongs to.
fn same_place(a: &Pod, b: &Pod) -> bool {
    a.metadata.labels == b.metadata.labels
        && a.spec.hostname == b.spec.hostname
        && a.spec.subdomain == b.spec.subdomain
}

/// What an endpoint says of a pod.
fn same_address(a: &Pod, b: &Pod) -> bool {
    a.metadata.deletion_timestamp == b.metadata.deletion_timestamp
        && a.is_ready() == b.is_ready()
        && a.is_terminal() == b.is_terminal()
        && a.spec.node_name == b.spec.node_name
        && a.status.pod_ips == b.status.pod_ips
}
