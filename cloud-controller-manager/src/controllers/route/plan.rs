//! Which routes are missing and which are in the way. Pure.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use crate::provider::Route;

/// What is to be done to the cloud's routes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub delete: Vec<Route>,
    pub create: Vec<Route>,
}

/// Routes inside `cluster` (`--cluster-cidr`) are ours; others are left alone.
pub fn plan(nodes: &[Arc<Node>], routes: &[Route], cluster: &[IpNet]) -> Plan {
    let wanted: Vec<Route> = nodes.iter().flat_map(|node| wanted(node)).collect();
    let ours = |route: &&Route| {
        let inside = |net: &IpNet| net.contains(&route.destination);
        cluster.iter().any(inside)
    };
    Plan {
        delete: routes
            .iter()
            .filter(ours)
            // A route to another node is replaced, not removed first: no gap.
            .filter(|route| wanted.iter().all(|w| w.destination != route.destination))
            .cloned()
            .collect(),
        create: wanted
            .into_iter()
            .filter(|route| !routes.contains(route))
            .collect(),
    }
}

/// The routes to a node's pods; none until it has pod networks.
pub fn wanted(node: &Node) -> Vec<Route> {
    let cidrs = node.spec.as_ref().and_then(|s| s.pod_cidrs.as_deref());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let routes = cidrs.unwrap_or_default().iter().filter_map(|cidr| {
        Some(Route {
            destination: cidr.parse().ok()?,
            node: name.to_owned(),
        })
    });
    routes.collect()
}

/// Whether the node's condition NetworkUnavailable says already that its routes are there
/// or are not.
pub fn says(node: &Node, routed: bool) -> bool {
    let status = if routed { "False" } else { "True" };
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref());
    let mut conditions = conditions.unwrap_or_default().iter();
    conditions.any(|c| c.type_ == "NetworkUnavailable" && c.status == status)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, cidrs: &[&str]) -> Arc<Node> {
        let node = json!({"metadata": {"name": name}, "spec": {"podCIDRs": cidrs}});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn route(destination: &str, node: &str) -> Route {
        Route {
            destination: destination.parse().unwrap(),
            node: node.to_owned(),
        }
    }

    fn cluster() -> [IpNet; 1] {
        ["10.1.0.0/16".parse().unwrap()]
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_stale_goes() {
        let nodes = [node("a", &["10.1.0.0/24"]), node("b", &["10.1.1.0/24"])];
        let routes = [
            route("10.1.0.0/24", "a"),
            route("10.1.7.0/24", "gone"),
            route("192.0.2.0/24", ""),
        ];
        assert_eq!(
            plan(&nodes, &routes, &cluster()),
            Plan {
                delete: vec![route("10.1.7.0/24", "gone")],
                create: vec![route("10.1.1.0/24", "b")],
            }
        );
    }

    #[test]
    fn a_network_that_moves_is_never_without_a_route() {
        let nodes = [node("b", &["10.1.0.0/24"])];
        let plan = plan(&nodes, &[route("10.1.0.0/24", "a")], &cluster());
        assert_eq!(plan.delete, []);
        assert_eq!(plan.create, [route("10.1.0.0/24", "b")]);
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let nodes = [node("a", &["10.1.0.0/24"]), node("new", &[])];
        let routes = [route("10.1.0.0/24", "a")];
        assert_eq!(plan(&nodes, &routes, &cluster()), Plan::default());
    }
}
