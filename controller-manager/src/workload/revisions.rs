//! ControllerRevisions: the history of templates that DaemonSets and StatefulSets keep.
//!
//! Upstream recognises a template by the bytes of its revision, so ours must be the very same:
//! JSON as Go writes it, with sorted keys and `<`, `>`, `&` escaped.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Api, Client, Error, Object as _, Request};
use http::Method;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Names the revision that a pod was made from; on revisions and pods.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// The patch that a rollback to this template applies: what a revision keeps.
pub fn template_patch(template: &PodTemplateSpec) -> Value {
    // Templates have string keys and finite numbers only.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// Whether the revision keeps this very patch, as upstream compares the bytes: an empty selector
/// selects all where none selects nothing.
pub fn keeps(revision: &ControllerRevision, patch: &Value) -> bool {
    revision.data.as_ref().is_some_and(|data| data.0 == *patch)
}

pub fn hash_label(labels: Option<&BTreeMap<String, String>>) -> &str {
    labels
        .and_then(|l| l.get(HASH_LABEL))
        .map_or("", String::as_str)
}

/// Oldest first.
pub fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by_key(|r| {
        (
            r.revision,
            r.metadata.creation_timestamp.clone(),
            r.metadata.name.clone(),
        )
    });
}

/// The highest number among them.
pub fn max(revisions: &[Arc<ControllerRevision>]) -> i64 {
    revisions.iter().map(|r| r.revision).max().unwrap_or(0)
}

/// As Go's `encoding/json` writes it.
fn go_json(value: &Value) -> String {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
    out
}

/// What names the revision of a patch: the Fowler–Noll–Vo hash, variant 1, of its bytes and of
/// how many names were taken before.
pub fn hash(data: &Value, collisions: i32) -> String {
    let text = go_json(data) + &collisions.to_string();
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        hash.wrapping_mul(0x0100_0193) ^ u32::from(byte)
    });
    meta::name_generator::safe_encode(&hash.to_string())
}

/// Creates a revision; its data goes over the wire as text, byte for byte.
pub async fn create(
    client: &Client,
    metadata: &ObjectMeta,
    data: &Value,
    revision: i64,
) -> Result<ControllerRevision, Error> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire<'a> {
        api_version: &'static str,
        kind: &'static str,
        metadata: &'a ObjectMeta,
        data: &'a RawValue,
        revision: i64,
    }
    let name = metadata.name.as_deref().unwrap_or_default();
    let encode = |e: serde_json::Error| Error::Encode {
        what: format!("ControllerRevision {name}"),
        message: e.to_string(),
    };
    let data = RawValue::from_string(go_json(data)).map_err(encode)?;
    let wire = Wire {
        api_version: "apps/v1",
        kind: "ControllerRevision",
        metadata,
        data: &data,
        revision,
    };
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let path = format!("/apis/apps/v1/namespaces/{namespace}/controllerrevisions");
    let body = serde_json::to_vec(&wire).map_err(encode)?;
    let request = Request::new(Method::POST, path).body("application/json", body.into());
    let (_, bytes) = client.fetch(&request).await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Decode {
        what: format!("ControllerRevision {name}"),
        message: e.to_string(),
    })
}

/// Gives a revision a new number.
pub async fn renumber(
    api: &Api<ControllerRevision>,
    revision: &ControllerRevision,
    number: i64,
) -> Result<ControllerRevision, Error> {
    // A patch leaves the bytes of the data alone.
    let patch = client::Patch::Merge(json!({
        "metadata": {"resourceVersion": revision.resource_version()}, "revision": number,
    }));
    let own = api.within(revision.namespace());
    own.patch(revision.name(), &patch, &client::PatchOptions::default())
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_gos() {
        let value = json!({"b": "a && b > c", "a": [1, {"z": null, "y": "<\u{2028}>"}]});
        assert_eq!(
            go_json(&value),
            r#"{"a":[1,{"y":"\u003c\u2028\u003e","z":null}],"b":"a \u0026\u0026 b \u003e c"}"#
        );
    }

    #[test]
    fn an_empty_selector_is_not_none() {
        let spreading = |constraint: Value| {
            let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {
                "containers": [{"name": "c", "resources": {}}],
                "topologySpreadConstraints": [constraint],
            }});
            template_patch(&serde_json::from_value(template).unwrap())
        };
        let all = spreading(
            json!({"labelSelector": {}, "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}),
        );
        let none = spreading(
            json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}),
        );
        let revision: ControllerRevision =
            serde_json::from_value(json!({"metadata": {}, "data": all, "revision": 1})).unwrap();
        assert!(keeps(&revision, &all));
        assert!(!keeps(&revision, &none));
    }
}
