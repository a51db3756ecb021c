//! What people are told by events when a node's conditions change. Pure.

use k8s_openapi::api::core::v1::NodeStatus;

/// Condition, and the reasons of the events that tell that it became true, or false.
const TOLD: [(&str, &str, &str); 4] = [
    (
        "MemoryPressure",
        "NodeHasInsufficientMemory",
        "NodeHasSufficientMemory",
    ),
    (
        "DiskPressure",
        "NodeHasDiskPressure",
        "NodeHasNoDiskPressure",
    ),
    (
        "PIDPressure",
        "NodeHasInsufficientPID",
        "NodeHasSufficientPID",
    ),
    ("Ready", "NodeReady", "NodeNotReady"),
];

/// Reasons of the events to record when `old` is what the API server shows and `new` what is.
pub fn news(old: &NodeStatus, new: &NodeStatus) -> Vec<&'static str> {
    let of = |status: &NodeStatus, kind: &str| {
        let mut conditions = status.conditions.iter().flatten();
        conditions
            .find(|condition| condition.type_ == kind)
            .map(|condition| condition.status == "True")
    };
    TOLD.into_iter()
        .filter_map(|(kind, on, off)| {
            let now = of(new, kind)?;
            (of(old, kind) != Some(now)).then_some(if now { on } else { off })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_changes_are_news() {
        let status = |conditions: &[(&str, &str)]| -> NodeStatus {
            let list: Vec<_> = conditions
                .iter()
                .map(|(kind, status)| json!({"type": kind, "status": status}))
                .collect();
            serde_json::from_value(json!({"conditions": list})).unwrap()
        };
        let well = status(&[("MemoryPressure", "False"), ("Ready", "True")]);
        let new = NodeStatus::default();
        assert_eq!(news(&new, &well), ["NodeHasSufficientMemory", "NodeReady"]);
        assert!(news(&well, &well).is_empty(), "a restart is no news");
        let ill = status(&[("MemoryPressure", "True"), ("Ready", "False")]);
        assert_eq!(
            news(&well, &ill),
            ["NodeHasInsufficientMemory", "NodeNotReady"]
        );
    }
}
