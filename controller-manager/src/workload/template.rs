//! Pod templates: when two are the same, and the hash that names a template's ReplicaSet.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// Tells the ReplicaSets of one Deployment apart: on the ReplicaSet, its selector and its pods.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Whether two templates make the same pods. The hash label is ignored, and an empty list or
/// map is the same as none, so that a ReplicaSet made by another version is recognised.
pub fn equal_ignoring_hash(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    if a.spec != b.spec && pruned(&a.spec) != pruned(&b.spec) {
        return false;
    }
    let without_hash = |t: &PodTemplateSpec| {
        let mut metadata = t.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut metadata.labels {
            labels.remove(POD_TEMPLATE_HASH);
        }
        pruned(&metadata)
    };
    without_hash(a) == without_hash(b)
}

/// The object as a tree without empty members.
fn pruned(object: &impl serde::Serialize) -> Value {
    // A template has string keys and finite numbers only; its serialization cannot fail.
    let mut value = serde_json::to_value(object).unwrap_or_default();
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            // An empty object may mean something (`emptyDir: {}`), except where it is a map.
            const MAPS: [&str; 5] = [
                "labels",
                "annotations",
                "nodeSelector",
                "limits",
                "requests",
            ];
            fields.retain(|key, v| {
                let empty_map = v.as_object().is_some_and(|o| o.is_empty());
                !(empty(v) || empty_map && MAPS.contains(&key.as_str()))
            });
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// A short text that differs for different templates, most likely. On a collision the
/// Deployment counts up `status.collisionCount` and gets another.
pub fn hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let mut fnv = Fnv32a::default();
    fnv.write(pruned(template).to_string().as_bytes());
    if let Some(count) = collision_count {
        fnv.write(&u64::from(count as u32).to_le_bytes());
    }
    meta::name_generator::safe_encode(&fnv.0.to_string())
}

/// The Fowler–Noll–Vo hash, variant 1a, of 32 bits.
struct Fnv32a(u32);

impl Default for Fnv32a {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv32a {
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u32::from(*b)).wrapping_mul(0x0100_0193);
        }
    }
}

/// `labels` with the hash label.
pub fn with_hash_label(
    labels: Option<&BTreeMap<String, String>>,
    hash: &str,
) -> BTreeMap<String, String> {
    let mut labels = labels.cloned().unwrap_or_default();
    labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.to_owned());
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(value: Value) -> PodTemplateSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_hash_label_and_empty_members_do_not_count() {
        let a = template(json!({
            "metadata": {"labels": {"app": "a", "pod-template-hash": "x"}, "annotations": {}},
            "spec": {"containers": [{"name": "c", "image": "i", "env": []}], "volumes": []},
        }));
        let b = template(json!({
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }));
        assert!(equal_ignoring_hash(&a, &b));
        let c = template(json!({
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "image": "j"}]},
        }));
        assert!(!equal_ignoring_hash(&a, &c));
    }

    #[test]
    fn the_hash_depends_on_template_and_collisions() {
        let a = template(json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}));
        let b = template(json!({"spec": {"containers": [{"name": "c", "image": "j"}]}}));
        assert_eq!(hash(&a, None), hash(&a, None));
        assert_ne!(hash(&a, None), hash(&b, None));
        assert_ne!(hash(&a, None), hash(&a, Some(1)));
        assert!(hash(&a, None).len() <= 10);
    }

    #[test]
    fn fnv_is_fnv() {
        let mut fnv = Fnv32a::default();
        fnv.write(b"foobar");
        assert_eq!(fnv.0, 0xbf9c_f968);
    }
}
