//! Which node ports a Service that is written asks for.
//!
//! Pure; what must not be here: taking them.

use meta::Status;
use serde_json::Value;

use super::fields::{self, needs_node_ports, port_number, protocol};

/// What is to be done for one of a Service's ports.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    Nothing,
    /// The number of an earlier port.
    Share(i64),
    /// This number, which must be free.
    Number(i64),
    Any,
}

/// The ports before the i-th are done. Ports of one number share one node port, whatever their
/// protocols are (DNS over UDP and TCP); what any of them asks for is for all.
pub fn on_create(service: &Value, i: usize) -> Wanted {
    let ports = fields::ports(service);
    let asked = port_number(&ports[i]);
    if asked == 0 && !needs_node_ports(service) {
        return Wanted::Nothing;
    }
    let number = |of: &[Value]| {
        let mut same = of.iter().filter(|p| p["port"] == ports[i]["port"]);
        same.find_map(|p| Some(port_number(p)).filter(|n| *n != 0))
    };
    match (number(&ports[..i]), number(ports)) {
        (Some(earlier), _) if asked == 0 => Wanted::Share(earlier),
        (Some(earlier), _) if asked == earlier => Wanted::Nothing,
        (Some(_), _) => Wanted::Number(asked),
        (None, Some(first)) => Wanted::Number(first),
        (None, None) => Wanted::Any,
    }
}

/// `taken`: what has been taken for this write already.
pub fn on_update(service: &Value, old: &Value, taken: &[i64], i: usize) -> Wanted {
    match port_number(&fields::ports(service)[i]) {
        0 if needs_node_ports(service) => Wanted::Any,
        0 => Wanted::Nothing,
        asked if taken.contains(&asked) => Wanted::Nothing,
        asked if fields::ports(old).iter().any(|p| port_number(p) == asked) => Wanted::Nothing,
        asked => Wanted::Number(asked),
    }
}

/// On update, a node port may be given twice only for two protocols. Upstream's allocator says
/// so before validation can, as an error of no kind.
pub fn distinct(service: &Value, i: usize) -> Result<(), Status> {
    let key = |port: &Value| (protocol(port), port_number(port));
    let ports = fields::ports(service);
    let (protocol, number) = key(&ports[i]);
    if number == 0
        || !ports[..i]
            .iter()
            .any(|p| key(p) == (protocol.clone(), number))
    {
        return Ok(());
    }
    Err(Status::unknown(format!(
        "duplicate nodePort: {{{protocol} {number}}}"
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(ports: Value) -> Value {
        json!({"spec": {"type": "NodePort", "ports": ports}})
    }

    #[test]
    fn ports_of_one_number_share_a_node_port_when_created() {
        let dns =
            service(json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "nodePort": 30053}]));
        assert_eq!(on_create(&dns, 0), Wanted::Number(30053));
        let given = service(json!([{"port": 53, "nodePort": 30053}, {"port": 53}, {"port": 54}]));
        assert_eq!(on_create(&given, 1), Wanted::Share(30053));
        assert_eq!(on_create(&given, 2), Wanted::Any);
        let twice =
            service(json!([{"port": 80, "nodePort": 30080}, {"port": 80, "nodePort": 30080}]));
        assert_eq!(
            on_create(&twice, 1),
            Wanted::Nothing,
            "validation tells of it"
        );
        let other =
            service(json!([{"port": 80, "nodePort": 30080}, {"port": 81, "nodePort": 30080}]));
        assert_eq!(on_create(&other, 1), Wanted::Number(30080));
    }

    #[test]
    fn an_update_takes_only_what_the_service_does_not_hold() {
        let old = service(json!([{"port": 80, "nodePort": 30080}]));
        let new = service(
            json!([{"port": 80, "nodePort": 30080}, {"port": 81, "nodePort": 30081}, {"port": 82}]),
        );
        let wanted: Vec<Wanted> = (0..3).map(|i| on_update(&new, &old, &[], i)).collect();
        assert_eq!(
            wanted,
            [Wanted::Nothing, Wanted::Number(30081), Wanted::Any]
        );
        assert_eq!(on_update(&new, &old, &[30081], 1), Wanted::Nothing);
    }

    #[test]
    fn without_allocation_only_what_is_asked_for_is_taken() {
        let balancer = json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "ports": [{"port": 80}, {"port": 81, "nodePort": 30081}]}});
        assert_eq!(on_create(&balancer, 0), Wanted::Nothing);
        assert_eq!(on_create(&balancer, 1), Wanted::Number(30081));
        assert_eq!(
            on_update(&balancer, &service(json!([])), &[], 0),
            Wanted::Nothing
        );
    }

    #[test]
    fn one_node_port_for_two_ports_of_one_protocol_is_refused_on_update() {
        let twice =
            service(json!([{"port": 80, "nodePort": 30080}, {"port": 81, "nodePort": 30080}]));
        let said = distinct(&twice, 1).map_err(|e| e.message.clone());
        assert_eq!(said, Err("duplicate nodePort: {TCP 30080}".into()));
        assert!(distinct(&twice, 0).is_ok());
    }
}
