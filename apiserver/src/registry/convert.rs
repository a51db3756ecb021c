//! Conversion between the version that is stored and the versions that are served.
//!
//! Most versions of a kind have the same fields: then only the API version changes. What
//! differs has a function per pair here. Fields that the other version does not have are
//! left out when the tree is written.
//!
//! What must not be here: defaults, validation.

mod autoscaling;
mod events;
mod resource;
pub mod retired;

use schema::Resource;
use serde_json::{Value, json};

use crate::storage::cache::UnknownField;

/// Annotations that upstream's conversion into a version adds: its internal objects, of which it
/// shows metadata alone, do not have them.
fn added_annotations(served: &Resource) -> &'static [&'static str] {
    match (served.group, served.version, served.plural) {
        ("apps", "v1", "daemonsets") => &["deprecated.daemonset.template.generation"],
        ("autoscaling", "v1", "horizontalpodautoscalers") => autoscaling::ANNOTATIONS,
        _ => &[],
    }
}

/// Whether metadata shown alone are not those of the whole object.
pub fn adds_annotations(served: &Resource) -> bool {
    !added_annotations(served).is_empty()
}

/// An object's metadata, as they are shown alone.
pub fn bare_metadata(served: &Resource, object: &Value) -> Value {
    let mut metadata = object["metadata"].clone();
    let added = added_annotations(served);
    if let Some(members) = metadata.as_object_mut().filter(|_| !added.is_empty())
        && let Some(annotations) = members
            .get_mut("annotations")
            .and_then(Value::as_object_mut)
    {
        annotations.retain(|key, _| !added.contains(&key.as_str()));
        if annotations.is_empty() {
            members.remove("annotations");
        }
    }
    metadata
}

/// Turns a tree of `from` into one of `to`, two versions of one resource.
type Function = fn(&mut Value);

/// A pair whose versions differ by more than the name, or a version of which conversion leaves
/// something out.
struct Conversion {
    plural: &'static str,
    /// Group and version.
    from: (&'static str, &'static str),
    to: (&'static str, &'static str),
    function: Function,
}

const CONVERSIONS: &[Conversion] = &[
    Conversion {
        plural: "horizontalpodautoscalers",
        from: ("autoscaling", "v1"),
        to: ("autoscaling", "v2"),
        function: autoscaling::v1_to_v2,
    },
    Conversion {
        plural: "horizontalpodautoscalers",
        from: ("autoscaling", "v2"),
        to: ("autoscaling", "v1"),
        function: autoscaling::v2_to_v1,
    },
    Conversion {
        plural: "horizontalpodautoscalers",
        from: ("autoscaling", "v2"),
        to: ("autoscaling", "v2"),
        function: autoscaling::drop_annotations,
    },
    Conversion {
        plural: "events",
        from: ("events.k8s.io", "v1"),
        to: ("", "v1"),
        function: events::v1_to_core,
    },
    Conversion {
        plural: "events",
        from: ("", "v1"),
        to: ("events.k8s.io", "v1"),
        function: events::core_to_v1,
    },
    of_devices("resourceclaims", "v1beta1", "v1", resource::claim_to_v1),
    of_devices(
        "resourceclaims",
        "v1",
        "v1beta1",
        resource::claim_to_v1beta1,
    ),
    of_devices(
        "resourceclaims",
        "v1beta1",
        "v1beta2",
        resource::claim_to_v1,
    ),
    of_devices(
        "resourceclaims",
        "v1beta2",
        "v1beta1",
        resource::claim_to_v1beta1,
    ),
    of_devices(
        "resourceclaimtemplates",
        "v1beta1",
        "v1",
        resource::claim_to_v1,
    ),
    of_devices(
        "resourceclaimtemplates",
        "v1",
        "v1beta1",
        resource::claim_to_v1beta1,
    ),
    of_devices(
        "resourceclaimtemplates",
        "v1beta1",
        "v1beta2",
        resource::claim_to_v1,
    ),
    of_devices(
        "resourceclaimtemplates",
        "v1beta2",
        "v1beta1",
        resource::claim_to_v1beta1,
    ),
    of_devices("resourceslices", "v1beta1", "v1", resource::slice_to_v1),
    of_devices(
        "resourceslices",
        "v1",
        "v1beta1",
        resource::slice_to_v1beta1,
    ),
    of_devices(
        "resourceslices",
        "v1beta1",
        "v1beta2",
        resource::slice_to_v1,
    ),
    of_devices(
        "resourceslices",
        "v1beta2",
        "v1beta1",
        resource::slice_to_v1beta1,
    ),
];

const fn of_devices(
    plural: &'static str,
    from: &'static str,
    to: &'static str,
    function: Function,
) -> Conversion {
    const GROUP: &str = "resource.k8s.io";
    Conversion {
        plural,
        from: (GROUP, from),
        to: (GROUP, to),
        function,
    }
}

fn find(from: &Resource, to: &Resource) -> Option<Function> {
    CONVERSIONS
        .iter()
        .find(|c| {
            c.plural == from.plural
                && c.from == (from.group, from.version)
                && c.to == (to.group, to.version)
        })
        .map(|c| c.function)
}

/// `apps/v1`, `v1`.
pub fn api_version(resource: &Resource) -> String {
    match resource.group {
        "" => resource.version.to_owned(),
        group => format!("{group}/{}", resource.version),
    }
}

/// Converts an object's tree.
pub fn convert(mut object: Value, from: &Resource, to: &Resource) -> Value {
    if let Some(function) = find(from, to) {
        function(&mut object);
    }
    if std::ptr::eq(from, to) {
        return object;
    }
    if let Some(members) = object.as_object_mut() {
        members.insert("apiVersion".into(), json!(api_version(to)));
        members.insert("kind".into(), json!(to.kind));
    }
    object
}

/// The stored version's name of a selectable field of the served one; `None` when it is the
/// same. Fields that only the stored version can be selected by are unknown.
pub fn field_label(
    label: &str,
    served: &Resource,
    stored: &Resource,
) -> Result<Option<String>, UnknownField> {
    let of_all = matches!(label, "metadata.name" | "metadata.namespace");
    if std::ptr::eq(served, stored) || of_all {
        return Ok(None);
    }
    if !served.selectable_fields.contains(&label) {
        return Err(UnknownField::new(
            label,
            served.selectable_fields.is_empty(),
        ));
    }
    let events = served.plural == "events" && (served.group, stored.group) == ("events.k8s.io", "");
    Ok(events.then(|| events::label_in_core(label)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectable_fields_have_stored_names() {
        for served in schema::resources() {
            let stored = (served.group, served.plural) == ("events.k8s.io", "events");
            let stored = schema::resources()
                .iter()
                .find(|r| stored && r.group.is_empty() && r.plural == "events");
            for label in served.selectable_fields {
                let name = field_label(label, served, stored.unwrap_or(served)).unwrap();
                let name = name.as_deref().unwrap_or(label);
                let target = stored.unwrap_or(served);
                assert!(target.selectable_fields.contains(&name), "{label}: {name}");
            }
        }
    }

    #[test]
    fn metadata_alone_are_without_what_conversion_adds() {
        let daemon_sets = schema::resources()
            .iter()
            .find(|r| r.group == "apps" && r.plural == "daemonsets")
            .unwrap();
        let generation = "deprecated.daemonset.template.generation";
        let set = json!({"metadata": {"name": "d", "annotations": {generation: "1"}}});
        assert_eq!(bare_metadata(daemon_sets, &set), json!({"name": "d"}));
        let set = json!({"metadata": {"annotations": {generation: "1", "a": "b"}}});
        assert_eq!(
            bare_metadata(daemon_sets, &set),
            json!({"annotations": {"a": "b"}})
        );
    }

    #[test]
    fn every_conversion_is_between_resources_that_exist() {
        for c in CONVERSIONS {
            for (group, version) in [c.from, c.to] {
                assert!(
                    schema::resources()
                        .iter()
                        .any(|r| r.plural == c.plural && r.group == group && r.version == version),
                    "{group}/{version} {}",
                    c.plural
                );
            }
        }
    }
}
