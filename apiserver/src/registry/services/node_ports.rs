//! Which node ports a Service that is written asks for.
//!
//! Pure; what must not be here: taking them.

use std::collections::{BTreeSet, HashMap, HashSet};

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

/// A Service's ports as they are given node ports, one after the other. What the others have is
/// looked up by number: one body holds tens of thousands of ports.
#[derive(Debug)]
pub enum Ports {
    /// By port, the first node port that is asked for, and the first that one before has.
    Created {
        asked: HashMap<i64, i64>,
        earlier: HashMap<i64, i64>,
    },
    /// The node ports that the Service had, and those that ports before have.
    Updated {
        held: HashSet<i64>,
        earlier: HashSet<(String, i64)>,
    },
}

impl Ports {
    pub fn of(service: &Value, old: Option<&Value>) -> Self {
        match old {
            None => {
                let mut asked = HashMap::new();
                for port in fields::ports(service).iter().filter(|p| is_given(p)) {
                    asked.entry(number(port)).or_insert(port_number(port));
                }
                Ports::Created {
                    asked,
                    earlier: HashMap::new(),
                }
            }
            Some(old) => Ports::Updated {
                held: fields::ports(old).iter().map(port_number).collect(),
                earlier: HashSet::new(),
            },
        }
    }

    /// What the i-th port wants, when those before it are done. `taken`: what has been taken for
    /// this write already.
    ///
    /// When created, ports of one number share one node port, whatever their protocols are (DNS
    /// over UDP and TCP); what any of them asks for is for all.
    pub fn wanted(&self, service: &Value, taken: &BTreeSet<i64>, i: usize) -> Wanted {
        let port = &fields::ports(service)[i];
        let given = port_number(port);
        if given == 0 && !needs_node_ports(service) {
            return Wanted::Nothing;
        }
        match self {
            Ports::Created { asked, earlier } => {
                match (earlier.get(&number(port)), asked.get(&number(port))) {
                    (Some(earlier), _) if given == 0 => Wanted::Share(*earlier),
                    (Some(earlier), _) if given == *earlier => Wanted::Nothing,
                    (Some(_), _) => Wanted::Number(given),
                    (None, Some(first)) => Wanted::Number(*first),
                    (None, None) => Wanted::Any,
                }
            }
            Ports::Updated { .. } if given == 0 => Wanted::Any,
            Ports::Updated { held, .. } if taken.contains(&given) || held.contains(&given) => {
                Wanted::Nothing
            }
            Ports::Updated { .. } => Wanted::Number(given),
        }
    }

    /// The i-th port is done.
    ///
    /// # Errors
    /// On update, a node port may be given twice only for two protocols. Upstream's allocator
    /// says so before validation can, as an error of no kind.
    pub fn done(&mut self, service: &Value, i: usize) -> Result<(), Status> {
        let port = &fields::ports(service)[i];
        if !is_given(port) {
            return Ok(());
        }
        match self {
            Ports::Created { earlier, .. } => {
                earlier.entry(number(port)).or_insert(port_number(port));
            }
            Ports::Updated { earlier, .. } => {
                let (protocol, number) = (protocol(port), port_number(port));
                if !earlier.insert((protocol.clone(), number)) {
                    return Err(Status::unknown(format!(
                        "duplicate nodePort: {{{protocol} {number}}}"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn number(port: &Value) -> i64 {
    port["port"].as_i64().unwrap_or(0)
}

fn is_given(port: &Value) -> bool {
    port_number(port) != 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(ports: Value) -> Value {
        json!({"spec": {"type": "NodePort", "ports": ports}})
    }

    /// What each port wants, when each before it that wants a certain number has it.
    fn wanted(service: &Value, old: Option<&Value>, taken: &[i64]) -> Vec<Wanted> {
        let mut service = service.clone();
        let mut ports = Ports::of(&service, old);
        let taken = taken.iter().copied().collect();
        let each = 0..fields::ports(&service).len();
        each.map(|i| {
            let wanted = ports.wanted(&service, &taken, i);
            if let Wanted::Number(number) | Wanted::Share(number) = wanted {
                service["spec"]["ports"][i]["nodePort"] = json!(number);
            }
            ports.done(&service, i).unwrap();
            wanted
        })
        .collect()
    }

    #[test]
    fn ports_of_one_number_share_a_node_port_when_created() {
        let dns =
            service(json!([{"port": 53, "protocol": "UDP"}, {"port": 53, "nodePort": 30053}]));
        let taken = [Wanted::Number(30053), Wanted::Nothing];
        assert_eq!(wanted(&dns, None, &[]), taken);
        let given = service(json!([{"port": 53, "nodePort": 30053}, {"port": 53}, {"port": 54}]));
        let taken = [Wanted::Number(30053), Wanted::Share(30053), Wanted::Any];
        assert_eq!(wanted(&given, None, &[]), taken);
        let twice =
            service(json!([{"port": 80, "nodePort": 30080}, {"port": 80, "nodePort": 30080}]));
        let taken = [Wanted::Number(30080), Wanted::Nothing];
        assert_eq!(wanted(&twice, None, &[]), taken, "validation tells of it");
        let other =
            service(json!([{"port": 80, "nodePort": 30080}, {"port": 81, "nodePort": 30080}]));
        let taken = [Wanted::Number(30080), Wanted::Number(30080)];
        assert_eq!(wanted(&other, None, &[]), taken);
    }

    #[test]
    fn an_update_takes_only_what_the_service_does_not_hold() {
        let old = service(json!([{"port": 80, "nodePort": 30080}]));
        let new = service(
            json!([{"port": 80, "nodePort": 30080}, {"port": 81, "nodePort": 30081}, {"port": 82}]),
        );
        let mut expected = [Wanted::Nothing, Wanted::Number(30081), Wanted::Any];
        assert_eq!(wanted(&new, Some(&old), &[]), expected);
        expected[1] = Wanted::Nothing;
        assert_eq!(wanted(&new, Some(&old), &[30081]), expected);
    }

    #[test]
    fn without_allocation_only_what_is_asked_for_is_taken() {
        let balancer = json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "ports": [{"port": 80}, {"port": 81, "nodePort": 30081}]}});
        let expected = [Wanted::Nothing, Wanted::Number(30081)];
        assert_eq!(wanted(&balancer, None, &[]), expected);
        let none = service(json!([]));
        assert_eq!(wanted(&balancer, Some(&none), &[]), expected);
    }

    #[test]
    fn one_node_port_for_two_ports_of_one_protocol_is_refused_on_update() {
        let twice =
            service(json!([{"port": 80, "nodePort": 30080}, {"port": 81, "nodePort": 30080}]));
        let mut ports = Ports::of(&twice, Some(&service(json!([]))));
        assert!(ports.done(&twice, 0).is_ok());
        let said = ports.done(&twice, 1).map_err(|e| e.message.clone());
        assert_eq!(said, Err("duplicate nodePort: {TCP 30080}".into()));
    }
}
