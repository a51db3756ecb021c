//! How an object looks to those who read it, where that is not what is stored: protobuf cannot
//! tell an empty list from none, some defaults are only given to readers, and an earlier release
//! may have stored another version of the kind, or known fewer defaults.
//!
//! What must not be here: what the versions differ by (`convert`), the defaults themselves
//! (`api::defaults`).

use std::borrow::Cow;

use schema::{Cardinality, Message, Resource, Type};
use serde::Deserialize;
use serde_json::{Value, json};

use super::convert::{api_version, convert};
use super::object_meta::{child_mut, meta, meta_mut};
use super::store;

/// Reads what etcd holds as if this release had stored it.
pub fn read(stored: &'static Resource, value: &[u8]) -> codec::Result<Value> {
    let written = written_as(stored, value)?;
    let mut object = store::decode(written, value)?;
    defaults(written, &mut object);
    Ok(convert(object, written, stored))
}

/// What this release would have stored instead; `None` where it is what is stored.
pub fn renewed(stored: &'static Resource, value: &[u8]) -> codec::Result<Option<Vec<u8>>> {
    let written = written_as(stored, value)?;
    let mut object = store::decode(written, value)?;
    let lacked = defaults(written, &mut object);
    if !lacked && std::ptr::eq(written, stored) {
        return Ok(None);
    }
    store::encode(stored, &convert(object, written, stored)).map(Some)
}

/// The version of the resource in which it was written; the one in which it would be today, if
/// the API does not have that version any more.
fn written_as(stored: &'static Resource, value: &[u8]) -> codec::Result<&'static Resource> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct TypeMeta<'a> {
        #[serde(borrow, default)]
        api_version: Cow<'a, str>,
    }
    if stored.storage_json {
        return Ok(stored);
    }
    let version = match codec::envelope::is_enveloped(value) {
        true => Cow::Borrowed(codec::envelope::decode(value)?.api_version),
        false => {
            serde_json::from_slice::<TypeMeta<'_>>(value)
                .map_err(|e| codec::Error::Syntax(e.to_string()))?
                .api_version
        }
    };
    if version == stored.storage_version {
        return Ok(stored);
    }
    let same = |r: &&Resource| r.kind == stored.kind && r.plural == stored.plural;
    let mut versions = schema::resources().iter().filter(same);
    Ok(versions
        .find(|r| version == api_version(r))
        .unwrap_or(stored))
}

/// Makes of an object that has just been written what reading it back would give.
pub fn settle(stored: &'static Resource, object: &mut Value) {
    drop_empty(stored.message, object);
    defaults_for_readers(stored, object);
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

/// Gives readers what the writer left out, or could not know of. Says whether there was anything
/// to do.
fn defaults(written: &Resource, object: &mut Value) -> bool {
    let before = object.clone();
    api::defaults::apply(written.message, object);
    defaults_for_readers(written, object) || *object != before
}

/// The defaults that are not stored. Says whether there was anything to do.
fn defaults_for_readers(stored: &Resource, object: &mut Value) -> bool {
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

/// Which objects of a resource may lack something that readers have to be given. Fields are named
/// by their paths.
pub enum Lacking<Path> {
    Nothing,
    /// To be found out by looking for it.
    Anything,
    /// Those for which one of these does not hold: there are many objects, and they are whole.
    Unless {
        /// Fields that are always given; of lists, in each item.
        given: Vec<Path>,
        /// Fields from which others follow.
        absent: Vec<Path>,
        /// The second is given where the first is.
        together: Vec<(Path, Path)>,
    },
}

impl Lacking<&'static str> {
    fn unless(given: &[&'static str]) -> Self {
        Lacking::Unless {
            given: given.to_vec(),
            absent: Vec::new(),
            together: Vec::new(),
        }
    }
}

pub fn lacking(stored: &Resource) -> Lacking<&'static str> {
    match (stored.group, stored.plural) {
        ("", "pods") => Lacking::Unless {
            given: vec![
                "spec.restartPolicy",
                "spec.terminationGracePeriodSeconds",
                "spec.dnsPolicy",
                "spec.securityContext",
                "spec.schedulerName",
                "spec.enableServiceLinks",
                "spec.containers.imagePullPolicy",
                "spec.containers.terminationMessagePath",
                "spec.containers.terminationMessagePolicy",
            ],
            absent: vec!["spec.resources"],
            together: vec![("status.podIP", "status.podIPs")],
        },
        ("", "secrets") => Lacking::unless(&["type"]),
        ("discovery.k8s.io", "endpointslices") => {
            Lacking::unless(&["ports.name", "ports.protocol"])
        }
        _ if api::defaults::has_any(stored.message) => Lacking::Anything,
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
        assert!(!defaults_for_readers(resource("jobs"), &mut job));
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
