//! Whether a node is alive: pure, from its Ready condition, its lease and what was seen before.
//!
//! Only our own clock counts: what matters is when we saw a heartbeat change, not what time the
//! node wrote into it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::kinds::{Node, NodeCondition};

/// What is remembered of a node between looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// When a sign of life was last seen.
    pub probed: Timestamp,
    /// The Ready condition at the last look.
    ready: Option<NodeCondition>,
    /// The newest renewal of its lease.
    lease: Option<Timestamp>,
}

/// How long nodes may be silent.
#[derive(Debug, Clone, Copy)]
pub struct GracePeriods {
    /// Until the first status.
    pub startup: Duration,
    /// After that.
    pub monitor: Duration,
}

/// The result of a look at a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub health: Health,
    /// Status of the Ready condition before this look: `True`, `False` or `Unknown`.
    pub was: String,
    /// And after it; `None` if there is no such condition (yet).
    pub is: Option<String>,
    /// Conditions to write, if the node has been silent for too long.
    pub write: Option<Vec<NodeCondition>>,
}

/// What the kubelet reports, and so what is unknown when it does not.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Looks at a node. `lease` is the renewal time of its lease.
pub fn look(
    node: &Node,
    known: Option<&Health>,
    lease: Option<Timestamp>,
    periods: GracePeriods,
    now: Timestamp,
) -> Verdict {
    let ready = node.condition("Ready").cloned();
    let created = node.metadata.creation_timestamp.clone();
    let (was, grace) = match &ready {
        Some(c) => (c.status.to_string(), periods.monitor),
        None => ("Unknown".to_owned(), periods.startup),
    };
    let mut health = match (known, &ready) {
        (None, None) => Health {
            probed: created.as_ref().map_or(now, |t| t.0),
            ready: None,
            lease: None,
        },
        (None, Some(_)) => Health {
            probed: now,
            ready: ready.clone(),
            lease: None,
        },
        (Some(known), _) => {
            let heartbeat =
                |c: &Option<NodeCondition>| c.as_ref().map(|c| c.last_heartbeat_time.clone());
            let alive = heartbeat(&known.ready) != heartbeat(&ready);
            Health {
                probed: if alive { now } else { known.probed },
                ready: if alive {
                    ready.clone()
                } else {
                    known.ready.clone()
                },
                // A new status makes the lease count anew.
                lease: known.lease.filter(|_| !alive),
            }
        }
    };
    if let Some(renewed) = lease
        && health.lease.is_none_or(|before| before < renewed)
    {
        health.lease = Some(renewed);
        health.probed = now;
    }
    let mut verdict = Verdict {
        is: ready.as_ref().map(|c| c.status.to_string()),
        was,
        write: None,
        health,
    };
    let silent = now.duration_since(verdict.health.probed);
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    if silent > grace {
        let conditions = unknown_conditions(node, created, now);
        verdict.is = Some("Unknown".to_owned());
        let changes = ready.as_ref().is_none_or(|c| &*c.status != "Unknown");
        verdict.write = Some(conditions).filter(|_| changes);
        if changes {
            verdict.health.ready = verdict.write.as_ref().and_then(|w| w.first()).cloned();
        }
    }
    verdict
}

fn unknown_conditions(node: &Node, created: Option<Time>, now: Timestamp) -> Vec<NodeCondition> {
    let condition = |kind: &&str| match node.condition(kind) {
        None => NodeCondition {
            r#type: (*kind).into(),
            status: "Unknown".into(),
            reason: "NodeStatusNeverUpdated".into(),
            message: "Kubelet never posted node status.".into(),
            last_heartbeat_time: created.clone(),
            last_transition_time: Some(Time(now)),
        },
        Some(c) if &*c.status == "Unknown" => c.clone(),
        Some(c) => NodeCondition {
            status: "Unknown".into(),
            reason: "NodeStatusUnknown".into(),
            message: "Kubelet stopped posting node status.".into(),
            last_transition_time: Some(Time(now)),
            ..c.clone()
        },
    };
    CONDITIONS.iter().map(condition).collect()
}

/// The part of a strategic merge patch of a node's status that sets conditions, in the order
/// that the node has them, with what is new at the end; the server wants both lists in it.
pub fn condition_patch(node: &Node, written: &[NodeCondition]) -> Value {
    let mut types: Vec<&str> = Vec::new();
    for condition in node.status.conditions.iter().chain(written) {
        if !types.contains(&&*condition.r#type) {
            types.push(&condition.r#type);
        }
    }
    let mut written: Vec<_> = written.iter().collect();
    written.sort_by_key(|c| types.iter().position(|ty| *ty == &*c.r#type));
    let order: Value = types.iter().map(|ty| json!({"type": ty})).collect();
    json!({"$setElementOrder/conditions": order, "conditions": written})
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIODS: GracePeriods = GracePeriods {
        startup: Duration::from_secs(60),
        monitor: Duration::from_secs(50),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn node(heartbeat: Option<i64>) -> Node {
        let conditions = heartbeat.map(|h| {
            json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": at(h), "lastTransitionTime": at(0)}])
        });
        serde_json::from_value(json!({
            "metadata": {"name": "n", "creationTimestamp": at(0)},
            "status": {"conditions": conditions.unwrap_or(json!([]))},
        }))
        .unwrap()
    }

    #[test]
    fn a_node_that_never_reports() {
        let first = look(&node(None), None, None, PERIODS, at(59));
        assert_eq!((first.is, first.write), (None, None));
        let late = look(&node(None), Some(&first.health), None, PERIODS, at(61));
        let written = late.write.unwrap();
        assert_eq!(written.len(), 4);
        assert_eq!(&*written[0].reason, "NodeStatusNeverUpdated");
        assert_eq!(late.is.as_deref(), Some("Unknown"));
    }

    #[test]
    fn silence_makes_unknown_once() {
        let n = node(Some(0));
        let first = look(&n, None, Some(at(0)), PERIODS, at(0));
        assert_eq!(first.write, None);
        // Leases alone keep a node alive.
        let leased = look(&n, Some(&first.health), Some(at(40)), PERIODS, at(41));
        assert_eq!(leased.health.probed, at(41));
        let fine = look(&n, Some(&leased.health), Some(at(40)), PERIODS, at(91));
        assert_eq!(fine.write, None);
        let silent = look(&n, Some(&fine.health), Some(at(40)), PERIODS, at(92));
        let written = silent.write.clone().unwrap();
        assert_eq!(
            (&*written[0].status, &*written[0].reason),
            ("Unknown", "NodeStatusUnknown")
        );
        assert_eq!(written[0].last_heartbeat_time, Some(Time(at(0))));
        assert_eq!(
            (silent.was.as_str(), silent.is.as_deref()),
            ("True", Some("Unknown"))
        );
        let mut now_unknown = node(Some(0));
        let mut otherwise = now_unknown.clone();
        otherwise.status.conditions.reverse();
        let patch = condition_patch(&otherwise, &written);
        let types = |list: &str| {
            let all = patch[list].as_array().unwrap().iter();
            let types = all.map(|c| c["type"].clone());
            types.collect::<Vec<_>>()
        };
        let (order, set) = (types("$setElementOrder/conditions"), types("conditions"));
        assert_eq!(order, set);
        now_unknown.status.conditions = written;
        let again = look(
            &now_unknown,
            Some(&silent.health),
            Some(at(40)),
            PERIODS,
            at(97),
        );
        assert_eq!((again.was.as_str(), again.write), ("Unknown", None));
        // It comes back.
        let back = look(
            &node(Some(98)),
            Some(&again.health),
            Some(at(40)),
            PERIODS,
            at(99),
        );
        assert_eq!(
            (back.is.as_deref(), back.health.probed),
            (Some("True"), at(99))
        );
    }
}
