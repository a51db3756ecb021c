//! Events: one stored object, two groups that name its fields differently.

use serde_json::{Map, Value};

/// Core's name and `events.k8s.io`'s name of the same field.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub fn core_to_v1(event: &mut Value) {
    rename(event, NAMES.into_iter());
}

pub fn v1_to_core(event: &mut Value) {
    rename(event, NAMES.into_iter().map(|(core, v1)| (v1, core)));
}

/// What a selectable field of `events.k8s.io` is called in core.
pub fn label_in_core(label: &str) -> String {
    let (first, rest) = match label.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (label, None),
    };
    let names = NAMES.iter().find(|(_, v1)| *v1 == first);
    let first = names.map_or(first, |(core, _)| core);
    rest.map_or(first.to_owned(), |rest| format!("{first}.{rest}"))
}

fn rename(event: &mut Value, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(event) = event.as_object_mut() else {
        return;
    };
    let renamed: Map<String, Value> = names
        .filter_map(|(from, to)| Some((to.to_owned(), event.remove(from)?)))
        .collect();
    event.extend(renamed);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_renamed_there_and_back() {
        let core = json!({
            "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"}, "message": "m",
            "source": {"component": "c"}, "count": 3, "reportingComponent": "r", "type": "Normal",
        });
        let mut event = core.clone();
        core_to_v1(&mut event);
        assert_eq!(event["regarding"]["kind"], "Pod");
        assert_eq!(event["note"], "m");
        assert_eq!(event["reportingController"], "r");
        assert!(event.get("involvedObject").is_none());
        v1_to_core(&mut event);
        assert_eq!(event, core);
    }
}
