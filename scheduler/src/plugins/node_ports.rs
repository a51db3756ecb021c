//! NodePorts: two pods cannot have the same port of a node.

use std::sync::Arc;

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Filter, Hint, Plugin, Rejection};
use crate::model::{HostPort, PodInfo};

pub struct NodePorts;

/// The same port of the same protocol on the same address, or on all of them.
fn conflict(a: &HostPort, b: &HostPort) -> bool {
    let any = |port: &HostPort| &*port.ip == "0.0.0.0";
    a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || any(a) || any(b))
}

fn conflicts(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    wanted.iter().any(|w| taken.iter().any(|t| conflict(w, t)))
}

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &Arc<PodInfo>, _cluster: &Cache) -> Filter {
        if pod.host_ports.is_empty() {
            return Filter::Skip;
        }
        let pod = Arc::clone(&pod.template);
        Filter::Local(Box::new(move |node| {
            if conflicts(&pod.host_ports, &node.ports) {
                let reason = "node(s) didn't have free ports for the requested pod ports";
                return Err(Rejection::resolvable(reason));
            }
            Ok(())
        }))
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        match event {
            ClusterEvent::NodeAdded(_) => Hint::Queue,
            ClusterEvent::PodGone(other) => {
                Hint::queue_if(conflicts(&pod.host_ports, &other.host_ports))
            }
            _ => Hint::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{filter, node, pod};

    fn wants(port: i32, ip: &str) -> Arc<PodInfo> {
        pod(
            json!({"containers": [{"ports": [{"containerPort": 80, "hostPort": port, "hostIP": ip}]}]}),
        )
    }

    #[test]
    fn a_port_is_taken_on_its_address_or_on_all() {
        let mut node = node("a", json!({}));
        node.add(&wants(8080, "10.0.0.1"));
        assert!(filter(&NodePorts, &wants(8080, "10.0.0.1"), &node).is_err());
        assert!(filter(&NodePorts, &wants(8080, ""), &node).is_err());
        assert!(filter(&NodePorts, &wants(8080, "10.0.0.2"), &node).is_ok());
        assert!(filter(&NodePorts, &wants(8081, ""), &node).is_ok());
    }
}
