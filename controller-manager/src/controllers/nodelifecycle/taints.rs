//! Which taints and labels a node's state calls for: pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::kinds::{Node, Taint};

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, its status, and the taint that says the same.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    (
        "MemoryPressure",
        "True",
        "node.kubernetes.io/memory-pressure",
    ),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// A taint of ours, added now.
pub fn taint(key: &str, effect: &str, now: Timestamp) -> Taint {
    Taint {
        key: key.into(),
        effect: effect.into(),
        time_added: Some(Time(now)),
        ..Taint::default()
    }
}

pub fn has(taints: &[Taint], key: &str, effect: &str) -> bool {
    taints
        .iter()
        .any(|t| &*t.key == key && &*t.effect == effect)
}

/// Keys of `NoSchedule` taints to add and to remove, so that they say what the node's
/// conditions say.
pub fn no_schedule(node: &Node) -> (Vec<&'static str>, Vec<&'static str>) {
    let wanted = |key: &str| {
        (key == UNSCHEDULABLE && node.spec.unschedulable)
            || BY_CONDITION.iter().any(|(condition, status, taint)| {
                *taint == key
                    && node
                        .condition(condition)
                        .is_some_and(|c| &*c.status == *status)
            })
    };
    let keys = BY_CONDITION
        .iter()
        .map(|(_, _, key)| *key)
        .chain([UNSCHEDULABLE]);
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    for key in keys {
        match (wanted(key), has(&node.spec.taints, key, "NoSchedule")) {
            (true, false) => add.push(key),
            (false, true) => remove.push(key),
            _ => {}
        }
    }
    (add, remove)
}

/// The taints after adding and removing, or `None` if nothing changes. The API keeps one taint
/// per key and effect.
pub fn swapped(
    taints: &[Taint],
    effect: &str,
    add: &[&str],
    remove: &[&str],
    now: Timestamp,
) -> Option<Vec<Taint>> {
    let mut new: Vec<Taint> = taints
        .iter()
        .filter(|t| &*t.effect != effect || !remove.contains(&&*t.key))
        .cloned()
        .collect();
    let missing = add.iter().filter(|key| !has(taints, key, effect));
    new.extend(missing.map(|key| taint(key, effect, now)));
    (new != taints).then_some(new)
}

/// Labels whose old names must say the same as the new ones.
pub fn labels_to_update(node: &Node) -> Vec<(&'static str, String)> {
    const NAMES: [(&str, &str); 2] = [
        ("kubernetes.io/os", "beta.kubernetes.io/os"),
        ("kubernetes.io/arch", "beta.kubernetes.io/arch"),
    ];
    let labels = &node.metadata.labels;
    NAMES
        .into_iter()
        .filter_map(|(primary, secondary)| {
            let value = labels.get(primary)?;
            (labels.get(secondary) != Some(value)).then(|| (secondary, value.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(conditions: serde_json::Value, spec: serde_json::Value) -> Node {
        let labels = json!({"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                            "beta.kubernetes.io/arch": "amd64"});
        serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": labels},
            "spec": spec, "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn conditions_become_taints() {
        let n = node(
            json!([{"type": "Ready", "status": "Unknown"}, {"type": "DiskPressure", "status": "True"},
                   {"type": "MemoryPressure", "status": "False"}]),
            json!({"unschedulable": true, "taints": [
                {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
                {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"},
                {"key": "mine", "effect": "NoSchedule"}]}),
        );
        let (add, remove) = no_schedule(&n);
        assert_eq!(add, [UNREACHABLE, UNSCHEDULABLE]);
        assert_eq!(remove, [NOT_READY]);
        let now = Timestamp::UNIX_EPOCH;
        let new = swapped(&n.spec.taints, "NoSchedule", &add, &remove, now).unwrap();
        let keys: Vec<_> = new.iter().map(|t| &*t.key).collect();
        assert_eq!(
            keys,
            [
                "node.kubernetes.io/disk-pressure",
                "mine",
                UNREACHABLE,
                UNSCHEDULABLE
            ]
        );
        assert_eq!(swapped(&new, "NoSchedule", &add, &remove, now), None);
    }

    #[test]
    fn old_labels_follow() {
        let n = node(json!([]), json!({}));
        assert_eq!(
            labels_to_update(&n),
            [("beta.kubernetes.io/os", "linux".to_owned())]
        );
    }
}
