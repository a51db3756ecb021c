//! `status.conditions`: one entry per type.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::object_meta::{child_mut, time};

/// Sets a condition of `status.conditions`. `lastTransitionTime` moves when the status
/// changes. An empty reason or message is left out.
pub fn set(
    object: &mut Value,
    ty: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = child_mut(object, "status")
        .entry("conditions")
        .or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let list = conditions.as_array_mut().expect("made a list above");
    let at = list.iter().position(|c| c["type"] == ty);
    let before = at.map(|i| list[i].clone());
    let mut condition = before.clone().unwrap_or_else(|| json!({"type": ty}));
    if condition["status"] != status || condition.get("lastTransitionTime").is_none() {
        condition["lastTransitionTime"] = time(now);
    }
    condition["status"] = json!(status);
    for (key, text) in [("reason", reason), ("message", message)] {
        if let Some(members) = condition.as_object_mut() {
            super::object_meta::set_text(members, key, text);
        }
    }
    match at {
        Some(i) => list[i] = condition,
        None => list.push(condition),
    }
}

/// The status of a condition; empty when it is not there.
pub fn status<'a>(object: &'a Value, ty: &str) -> &'a str {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|c| c["type"] == ty)
        .and_then(|c| c["status"].as_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_moves_with_the_status_only() {
        let at = |s: &str| s.parse::<Timestamp>().unwrap();
        let mut pod = json!({});
        set(
            &mut pod,
            "Ready",
            "False",
            "Why",
            "",
            at("2024-01-01T00:00:00Z"),
        );
        set(
            &mut pod,
            "Ready",
            "False",
            "",
            "m",
            at("2024-01-02T00:00:00Z"),
        );
        assert_eq!(
            pod["status"]["conditions"],
            json!([{"type": "Ready", "status": "False", "message": "m",
                    "lastTransitionTime": "2024-01-01T00:00:00Z"}])
        );
        set(
            &mut pod,
            "Ready",
            "True",
            "",
            "",
            at("2024-01-03T00:00:00Z"),
        );
        assert_eq!(
            pod["status"]["conditions"][0]["lastTransitionTime"],
            "2024-01-03T00:00:00Z"
        );
        assert_eq!(status(&pod, "Ready"), "True");
        assert_eq!(status(&pod, "Other"), "");
    }
}
