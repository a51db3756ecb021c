//! When a pod must leave a node with `NoExecute` taints: pure.

use jiff::{SignedDuration, Timestamp};

use crate::kinds::{Taint, Toleration};

/// An eviction that has been scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// When the pod's time began to run.
    pub since: Timestamp,
    pub at: Timestamp,
}

/// What to do about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It may stay: forget what was scheduled.
    Stay,
    /// Leave what is scheduled.
    Keep,
    /// Evict it then, instead of what was scheduled.
    Evict(Scheduled),
}

/// Whether the toleration is for the taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
    let key = toleration.key.is_empty() || toleration.key == taint.key;
    let value = match &*toleration.operator {
        "" | "Equal" => toleration.value == taint.value,
        "Exists" => true,
        _ => false,
    };
    effect && key && value
}

/// Decides. `taints` are the node's with the effect `NoExecute`.
pub fn plan(
    tolerations: &[Toleration],
    taints: &[Taint],
    scheduled: Option<Scheduled>,
    now: Timestamp,
) -> Action {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        let Some(toleration) = tolerations.iter().find(|t| tolerates(t, taint)) else {
            return Action::Evict(Scheduled {
                since: now,
                at: now,
            });
        };
        if let Some(seconds) = toleration.toleration_seconds {
            let seconds = seconds.max(0);
            shortest = Some(shortest.map_or(seconds, |s| s.min(seconds)));
        }
    }
    let Some(seconds) = shortest.filter(|_| !taints.is_empty()) else {
        return Action::Stay;
    };
    if scheduled.is_some() {
        // The time that has passed counts: a second look never makes it later.
        return Action::Keep;
    }
    // A toleration may be for longer than there is time.
    let at = now.checked_add(SignedDuration::from_secs(seconds));
    Action::Evict(Scheduled {
        since: now,
        at: at.unwrap_or(Timestamp::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn taint(key: &str) -> Taint {
        serde_json::from_value(json!({"key": key, "effect": "NoExecute"})).unwrap()
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        let value = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_shortest_toleration_counts() {
        let tolerations = [
            toleration("a", Some(300)),
            toleration("b", Some(60)),
            toleration("c", None),
        ];
        let evict = |seconds: i64| {
            Action::Evict(Scheduled {
                since: at(0),
                at: at(seconds),
            })
        };
        let run = |taints: &[Taint]| plan(&tolerations, taints, None, at(0));
        assert_eq!(run(&[]), Action::Stay);
        assert_eq!(run(&[taint("c")]), Action::Stay);
        assert_eq!(run(&[taint("a"), taint("c")]), evict(300));
        assert_eq!(run(&[taint("a"), taint("b")]), evict(60));
        assert_eq!(run(&[taint("a"), taint("x")]), evict(0));
    }

    #[test]
    fn a_second_look_does_not_begin_anew() {
        let tolerations = [toleration("a", Some(300))];
        let first = Scheduled {
            since: at(0),
            at: at(300),
        };
        assert_eq!(
            plan(&tolerations, &[taint("a")], Some(first), at(100)),
            Action::Keep
        );
    }

    #[test]
    fn tolerations_match() {
        let t = taint("k");
        for (value, want) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k"}), true),
            (json!({"key": "k", "value": "v"}), false),
            (
                json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}),
                false,
            ),
            (json!({"key": "other", "operator": "Exists"}), false),
        ] {
            let toleration: Toleration = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(tolerates(&toleration, &t), want, "{value}");
        }
    }
}
