//! AppArmor profiles that are asked for by annotation, as was done before there was a field
//! (KEP-24): both say the same in the end.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::registry::object_meta::{child_mut, meta};

const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn is_for_windows(pod: &Value) -> bool {
    pod["spec"]["os"]["name"] == "windows"
}

/// The profile that an annotation's value stands for.
fn profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        other => {
            let name = other.strip_prefix("localhost/")?;
            let valid = !name.is_empty() && name.trim() == name && name.len() <= 4095;
            valid.then(|| json!({"type": "Localhost", "localhostProfile": name}))
        }
    }
}

/// Sets the fields of containers that have but an annotation. The warnings.
pub fn from_annotations(pod: &mut Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let annotated = meta(pod).get("annotations").and_then(Value::as_object);
    let annotated: HashMap<String, String> = annotated
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| {
            let container = key.strip_prefix(ANNOTATION)?;
            Some((container.to_owned(), value.as_str()?.to_owned()))
        })
        .collect();
    if annotated.is_empty() || is_for_windows(pod) {
        return warnings;
    }
    let of_pod = pod["spec"]["securityContext"]["appArmorProfile"].clone();
    for list in LISTS {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default();
            let Some(value) = annotated.get(name) else {
                continue;
            };
            if container["securityContext"]
                .get("appArmorProfile")
                .is_some()
            {
                continue;
            }
            let warning = format!(
                "metadata.annotations[{ANNOTATION}{name}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
            );
            match profile(value) {
                Some(profile) if profile == of_pod => continue,
                Some(profile) => {
                    child_mut(container, "securityContext")
                        .insert("appArmorProfile".to_owned(), profile);
                }
                None => {}
            }
            warnings.push(warning);
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotation: &str, field: &Value) -> Value {
        let mut pod = json!({
            "metadata": {"annotations": {format!("{ANNOTATION}a"): annotation}},
            "spec": {"containers": [{"name": "b"}, {"name": "a"}]},
        });
        if !field.is_null() {
            pod["spec"]["containers"][1]["securityContext"]["appArmorProfile"] = field.clone();
        }
        pod
    }

    #[test]
    fn annotations_become_fields() {
        for (annotation, want) in [
            ("runtime/default", json!({"type": "RuntimeDefault"})),
            (
                "localhost/p",
                json!({"type": "Localhost", "localhostProfile": "p"}),
            ),
            ("localhost/", Value::Null),
            ("other", Value::Null),
        ] {
            let mut pod = pod(annotation, &Value::Null);
            assert_eq!(from_annotations(&mut pod).len(), 1);
            let container = &pod["spec"]["containers"][1];
            assert_eq!(container["securityContext"]["appArmorProfile"], want);
            assert_eq!(pod["spec"]["containers"][0].get("securityContext"), None);
        }
        let mut both = pod("unconfined", &json!({"type": "RuntimeDefault"}));
        assert!(from_annotations(&mut both).is_empty());
    }

    #[test]
    fn the_pods_own_profile_is_enough() {
        let mut pod = pod("runtime/default", &Value::Null);
        pod["spec"]["securityContext"]["appArmorProfile"] = json!({"type": "RuntimeDefault"});
        assert!(from_annotations(&mut pod).is_empty());
        assert_eq!(pod["spec"]["containers"][1].get("securityContext"), None);
    }
}
