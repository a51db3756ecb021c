//! What to do about a service's load balancer. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};

use crate::provider::BalancedService;

/// Keeps a service from going before its balancer has gone.
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// Put the finalizer on first, then make the balancer.
    Ensure,
    /// Take the balancer down, clear the status, then take the finalizer off.
    CleanUp,
}

pub fn action(service: &Service) -> Action {
    let wants = wants_balancer(service) && service.metadata.deletion_timestamp.is_none();
    if wants {
        Action::Ensure
    } else if has_finalizer(service) || !addresses(service).is_empty() {
        Action::CleanUp
    } else {
        Action::Nothing
    }
}

/// Of type LoadBalancer, and of no class: a class names another controller.
fn wants_balancer(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
    })
}

pub fn has_finalizer(service: &Service) -> bool {
    service
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|f| f == FINALIZER)
}

/// The addresses that the service's status names.
pub fn addresses(service: &Service) -> Vec<IpAddr> {
    let ingress = service
        .status
        .as_ref()
        .and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        .filter_map(|i| i.ip.as_ref()?.parse().ok())
        .collect()
}

/// What the provider is told.
pub fn balanced(service: &Service) -> BalancedService {
    let spec = service.spec.as_ref();
    BalancedService {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: service.metadata.name.clone().unwrap_or_default(),
        requested: spec.and_then(|s| s.load_balancer_ip.as_ref()?.parse().ok()),
        present: addresses(service),
    }
}

/// The status that names those addresses.
pub fn ingress(addresses: &[IpAddr]) -> Vec<LoadBalancerIngress> {
    addresses
        .iter()
        .map(|ip| LoadBalancerIngress {
            ip: Some(ip.to_string()),
            ip_mode: Some("VIP".to_owned()),
            ..LoadBalancerIngress::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value, metadata: Value, status: Value) -> Service {
        let whole = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": metadata, "spec": spec, "status": status,
        });
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_balancer_is_made_kept_and_taken_down() {
        let balanced = json!({"type": "LoadBalancer"});
        let none = json!({});
        let held = json!({"finalizers": [FINALIZER]});
        let leaving =
            json!({"finalizers": [FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(
            action(&service(balanced.clone(), none.clone(), none.clone())),
            Action::Ensure
        );
        assert_eq!(
            action(&service(balanced.clone(), leaving, none.clone())),
            Action::CleanUp
        );
        let plain = json!({"type": "ClusterIP"});
        assert_eq!(
            action(&service(plain.clone(), held, none.clone())),
            Action::CleanUp
        );
        assert_eq!(
            action(&service(plain, none.clone(), none.clone())),
            Action::Nothing
        );
        let other = json!({"type": "LoadBalancer", "loadBalancerClass": "other.example/lb"});
        assert_eq!(action(&service(other, none.clone(), none)), Action::Nothing);
    }
}
