//! `matchLabelKeys`: a pod's own values of these labels are added to the selectors of its
//! affinities and spread constraints when it is created (KEP-3633, KEP-3243).
//!
//! Pure; what must not be here: matching.

use serde_json::{Map, Value, json};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Adds what the keys mean to every selector of the pod.
pub fn merge(pod: &mut Value) {
    let labels = pod["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = pod.pointer_mut(&format!("/spec/affinity/{kind}")) else {
            continue;
        };
        for term in items(affinity, REQUIRED) {
            add(term, &labels);
        }
        for preferred in items(affinity, PREFERRED) {
            if let Some(term) = preferred.get_mut("podAffinityTerm") {
                add(term, &labels);
            }
        }
    }
    if let Some(spec) = pod.get_mut("spec") {
        for constraint in items(spec, "topologySpreadConstraints") {
            add(constraint, &labels);
        }
    }
}

fn items<'a>(of: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> + use<'a> {
    let list = of.get_mut(list).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

fn add(term: &mut Value, labels: &Map<String, Value>) {
    if !term["labelSelector"].is_object() {
        return;
    }
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term[list].as_array().cloned().unwrap_or_default();
        for key in keys.iter().filter_map(Value::as_str) {
            let Some(value) = labels.get(key) else {
                continue;
            };
            let selector = &mut term["labelSelector"];
            if !selector["matchExpressions"].is_array() {
                selector["matchExpressions"] = json!([]);
            }
            if let Some(expressions) = selector["matchExpressions"].as_array_mut() {
                expressions.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_labels_are_added() {
        let mut pod = json!({"metadata": {"labels": {"a": "1"}}, "spec": {
            "topologySpreadConstraints": [{"labelSelector": {}, "matchLabelKeys": ["a", "b"]}, {"matchLabelKeys": ["a"]}],
            "affinity": {"podAffinity": {PREFERRED: [{"podAffinityTerm": {"labelSelector": {}, "mismatchLabelKeys": ["a"]}}]}},
        }});
        merge(&mut pod);
        let spread = &pod["spec"]["topologySpreadConstraints"];
        assert_eq!(
            spread[0]["labelSelector"]["matchExpressions"],
            json!([{"key": "a", "operator": "In", "values": ["1"]}])
        );
        assert!(spread[1].get("labelSelector").is_none_or(Value::is_null));
        let term = &pod["spec"]["affinity"]["podAffinity"][PREFERRED][0]["podAffinityTerm"];
        assert_eq!(
            term["labelSelector"]["matchExpressions"][0]["operator"],
            "NotIn"
        );
    }
}
