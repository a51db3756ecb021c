//! What extenders are sent and answer (`kube-scheduler/extender/v1`): its fields are called in
//! JSON as in Go.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Args<'a> {
    pub pod: &'a Value,
    pub nodes: Option<Value>,
    pub node_names: Option<Vec<&'a str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PreemptionArgs<'a> {
    pub pod: &'a Value,
    pub node_name_to_victims: Option<BTreeMap<&'a str, Victims<'a>>>,
    pub node_name_to_meta_victims: Option<BTreeMap<&'a str, MetaVictims>>,
}

#[derive(Serialize)]
pub struct Victims<'a> {
    #[serde(rename = "Pods")]
    pub pods: Vec<&'a Value>,
    #[serde(rename = "NumPDBViolations")]
    pub violations: usize,
}

/// Victims by their uids.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaVictims {
    #[serde(rename(serialize = "Pods", deserialize = "pods"))]
    pub pods: Vec<MetaPod>,
    #[serde(rename(serialize = "NumPDBViolations", deserialize = "numpdbviolations"))]
    pub violations: i64,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaPod {
    #[serde(rename(serialize = "UID", deserialize = "uid"))]
    pub uid: String,
}

// Answers are read after `decode` has made their names lower-case.

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Filtered {
    pub nodes: Option<Value>,
    #[serde(rename = "nodenames")]
    pub node_names: Option<Vec<String>>,
    #[serde(rename = "failednodes")]
    pub failed: BTreeMap<String, String>,
    #[serde(rename = "failedandunresolvablenodes")]
    pub failed_for_good: BTreeMap<String, String>,
    pub error: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct HostScore {
    pub host: String,
    pub score: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Preempted {
    #[serde(rename = "nodenametometavictims")]
    pub victims: BTreeMap<String, MetaVictims>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Bound {
    pub error: String,
}

/// Reads an answer as Go would, which extenders in other languages have come to count on: a
/// field's name is written in any case, and what is `null` is not said. Names of nodes are
/// lower-case anyway.
pub fn decode<T: DeserializeOwned>(answer: &[u8]) -> serde_json::Result<T> {
    serde_json::from_value(lowered(serde_json::from_slice(answer)?))
}

fn lowered(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let said = members.into_iter().filter(|(_, value)| !value.is_null());
            said.map(|(name, value)| (name.to_ascii_lowercase(), lowered(value)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(lowered).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_fields_are_written_in_any_case() {
        for answer in [
            r#"{"Nodes": null, "NodeNames": ["a"], "FailedNodes": {"b": "busy"},
                "FailedAndUnresolvableNodes": {"c": "never"}, "Error": ""}"#,
            r#"{"nodeNames": ["a"], "failedNodes": {"b": "busy"},
                "failedAndUnresolvableNodes": {"c": "never"}, "error": null}"#,
        ] {
            let filtered: Filtered = decode(answer.as_bytes()).unwrap();
            assert_eq!(filtered.node_names.unwrap(), ["a"]);
            assert_eq!(filtered.failed["b"], "busy");
            assert_eq!(filtered.failed_for_good["c"], "never");
            assert!(filtered.nodes.is_none() && filtered.error.is_empty());
        }
        let answer = br#"{"nodeNameToMetaVictims": {"a": {"pods": [{"uid": "u"}]}}}"#;
        let preempted: Preempted = decode(answer).unwrap();
        assert_eq!(preempted.victims["a"].pods[0].uid, "u");
    }

    #[test]
    fn questions_are_asked_under_upstreams_names() {
        let pod = json!({"kind": "Pod"});
        let args = Args {
            pod: &pod,
            nodes: None,
            node_names: Some(vec!["a"]),
        };
        assert_eq!(
            serde_json::to_string(&args).unwrap(),
            r#"{"Pod":{"kind":"Pod"},"Nodes":null,"NodeNames":["a"]}"#
        );
        let victims = MetaVictims {
            pods: vec![MetaPod { uid: "u".into() }],
            violations: 1,
        };
        let args = PreemptionArgs {
            pod: &pod,
            node_name_to_victims: None,
            node_name_to_meta_victims: Some([("a", victims)].into()),
        };
        assert_eq!(
            serde_json::to_value(&args).unwrap(),
            json!({"Pod": pod, "NodeNameToVictims": null,
                "NodeNameToMetaVictims": {"a": {"Pods": [{"UID": "u"}], "NumPDBViolations": 1}}})
        );
    }
}
