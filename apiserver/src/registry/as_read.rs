//! How an object looks to those who read it, where that is not what is stored: protobuf cannot
//! tell an empty list from none, and some defaults are only given to readers.
//!
//! What must not be here: versions (`convert`), defaults that are stored.

use schema::{Cardinality, Message, Resource, Type};
use serde_json::{Value, json};

use super::object_meta::{child_mut, meta, meta_mut};

/// Makes of an object that has just been written what reading it back would give.
pub fn settle(stored: &'static Resource, object: &mut Value) {
    drop_empty(stored.message, object);
    defaults(stored, object);
    if says_more(stored) {
        say_more(object);
    }
}

/// Whether there is something in JSON that protobuf has no fields for: a StatefulSet's claim
/// templates say what they are.
pub fn says_more(stored: &Resource) -> bool {
    (stored.group, stored.plural) == ("apps", "statefulsets")
}

/// Adds what [`says_more`] is about.
pub fn say_more(object: &mut Value) {
    let claims = object.pointer_mut("/spec/volumeClaimTemplates");
    for claim in claims.and_then(Value::as_array_mut).into_iter().flatten() {
        claim["apiVersion"] = json!("v1");
        claim["kind"] = json!("PersistentVolumeClaim");
    }
}

/// Gives readers what the writer left out. Says whether there was anything to do.
pub fn defaults(stored: &Resource, object: &mut Value) -> bool {
    match (stored.group, stored.plural) {
        ("", "persistentvolumeclaims") => {
            let status = child_mut(object, "status");
            let unset = status.get("phase").is_none_or(|phase| phase == "");
            if unset {
                status.insert("phase".into(), json!("Pending"));
            }
            unset
        }
        ("batch", "jobs") => label_like_the_template(object),
        ("", "pods") => {
            let asks = object["spec"]["resources"].is_object();
            asks && api::defaults::pod_level_requests(object)
        }
        ("", "services") => {
            // A name has no traffic to route; older servers kept the field.
            let named = object["spec"]["type"] == "ExternalName";
            let spec = object["spec"].as_object_mut().filter(|_| named);
            spec.is_some_and(|spec| spec.remove("internalTrafficPolicy").is_some())
        }
        _ => false,
    }
}

/// The objects of a resource that [`defaults`] may have anything to say about.
pub enum Lacking<Path> {
    Nothing,
    Anything,
    /// Those that have the field with this path, a message.
    Where(Path),
}

pub fn lacking(stored: &Resource) -> Lacking<&'static str> {
    match (stored.group, stored.plural) {
        ("", "persistentvolumeclaims" | "services") | ("batch", "jobs") => Lacking::Anything,
        // There are many pods, and few ask for anything as a whole.
        ("", "pods") => Lacking::Where("spec.resources"),
        _ => Lacking::Nothing,
    }
}

/// A job without labels has those of its pods.
pub fn label_like_the_template(job: &mut Value) -> bool {
    let labels = job["spec"]["template"]["metadata"]["labels"].clone();
    let own = meta(job).get("labels").and_then(Value::as_object);
    let unset = own.is_none_or(serde_json::Map::is_empty);
    let given = labels.as_object().is_some_and(|labels| !labels.is_empty());
    if unset && given {
        meta_mut(job).insert("labels".into(), labels);
    }
    unset && given
}

/// Takes out empty lists and maps: they are stored as nothing.
fn drop_empty(message: &'static Message, object: &mut Value) {
    let Some(members) = object.as_object_mut() else {
        return;
    };
    for field in message.fields {
        if field.json.is_empty() {
            if let Type::Message(inlined) = field.ty {
                drop_empty(inlined, object);
                return drop_empty_rest(message, object);
            }
            continue;
        }
        drop_field(field, members);
    }
}

/// The fields of a message that also has inlined ones.
fn drop_empty_rest(message: &'static Message, object: &mut Value) {
    let Some(members) = object.as_object_mut() else {
        return;
    };
    for field in message.fields.iter().filter(|f| !f.json.is_empty()) {
        drop_field(field, members);
    }
}

fn drop_field(field: &'static schema::Field, members: &mut serde_json::Map<String, Value>) {
    let inner = match field.ty {
        Type::Message(inner) => Some(inner),
        _ => None,
    };
    let empty = match (field.cardinality, members.get_mut(field.json)) {
        (Cardinality::List, Some(Value::Array(items))) => {
            if let Some(inner) = inner {
                items.iter_mut().for_each(|item| drop_empty(inner, item));
            }
            items.is_empty()
        }
        (Cardinality::Map, Some(Value::Object(entries))) => {
            if let Some(inner) = inner {
                entries.values_mut().for_each(|v| drop_empty(inner, v));
            }
            entries.is_empty()
        }
        (Cardinality::One, Some(value)) => {
            if let Some(inner) = inner {
                drop_empty(inner, value);
            }
            false
        }
        _ => false,
    };
    if empty {
        members.remove(field.json);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(plural: &str) -> &'static Resource {
        let mut all = schema::resources().iter();
        all.find(|r| r.plural == plural).expect("a resource")
    }

    #[test]
    fn empty_lists_are_none() {
        let mut role = json!({"metadata": {"name": "r", "labels": {}}, "rules": []});
        settle(resource("roles"), &mut role);
        assert_eq!(role, json!({"metadata": {"name": "r"}}));
    }

    #[test]
    fn readers_see_more_than_was_written() {
        let mut claim = json!({"metadata": {}, "spec": {}});
        settle(resource("persistentvolumeclaims"), &mut claim);
        assert_eq!(claim["status"], json!({"phase": "Pending"}));
        let mut job = json!({"metadata": {"name": "j"},
            "spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
        settle(resource("jobs"), &mut job);
        assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
        assert!(!defaults(resource("jobs"), &mut job));
        let mut pod = json!({"metadata": {}, "spec": {
            "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
            "containers": [{"name": "a", "resources": {"requests": {"memory": "1Gi"}}}]}});
        settle(resource("pods"), &mut pod);
        assert_eq!(
            pod["spec"]["resources"]["requests"],
            json!({"cpu": "1", "memory": "1Gi"})
        );
    }
}
