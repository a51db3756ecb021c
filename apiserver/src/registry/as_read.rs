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

use super::claims;
use super::convert::{api_version, convert, retired};
use super::object_meta::{child_mut, meta, meta_mut};
use super::services::fields;
use super::store;

/// Reads what etcd holds as if this release had stored it. `family`: the first that Services have
/// addresses of.
pub fn read(stored: &'static Resource, family: &'static str, value: &[u8]) -> codec::Result<Value> {
    let written = Written::of(stored, value)?;
    let mut object = store::decode_as(written.message, value)?;
    api::defaults::apply(written.message, &mut object);
    match written.resource {
        Some(resource) => object = convert(object, resource, stored),
        None => retired::renew(written.message, stored, &mut object),
    }
    if !std::ptr::eq(written.message, stored.message) {
        // What the older version has no defaults for.
        api::defaults::apply(stored.message, &mut object);
    }
    defaults_for_readers(stored, &mut object);
    if (stored.group, stored.plural) == ("", "services") {
        addresses_in_the_plural(&mut object, family);
    }
    Ok(object)
}

/// What this release would have stored instead; `None` where it is what is stored.
pub fn renewed(
    stored: &'static Resource,
    family: &'static str,
    value: &[u8],
) -> codec::Result<Option<Vec<u8>>> {
    let renewed = store::encode(stored, &read(stored, family, value)?)?;
    Ok((renewed != value).then_some(renewed))
}

/// The form in which an object was written.
struct Written {
    message: &'static Message,
    /// `None` for a version that the API does not have any more.
    resource: Option<&'static Resource>,
}

impl Written {
    /// Of what nobody knows any more, it is taken that it is as it would be today.
    fn of(stored: &'static Resource, value: &[u8]) -> codec::Result<Written> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct TypeMeta<'a> {
            #[serde(borrow, default)]
            api_version: Cow<'a, str>,
        }
        let by = |resource: &'static Resource| Written {
            message: resource.message,
            resource: Some(resource),
        };
        if stored.storage_json {
            return Ok(by(stored));
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
            return Ok(by(stored));
        }
        let mut versions = schema::resources().iter();
        let served = versions.find(|r| {
            r.kind == stored.kind && r.plural == stored.plural && version == api_version(r)
        });
        if let Some(resource) = served {
            return Ok(by(resource));
        }
        let (group, short) = version.split_once('/').unwrap_or(("", &version));
        Ok(match schema::kind(group, short, stored.kind) {
            Some(message) => Written {
                message,
                resource: None,
            },
            None => by(stored),
        })
    }
}

/// Of Services from before `clusterIPs` became plural: what was one address is the first of
/// several, and from them follow the families.
fn addresses_in_the_plural(service: &mut Value, family: &'static str) {
    if !fields::needs_cluster_ip(service) {
        return;
    }
    let one = service["spec"]["clusterIP"].clone();
    if fields::cluster_ips(service).is_empty() && one.as_str().is_some_and(|ip| !ip.is_empty()) {
        child_mut(service, "spec").insert("clusterIPs".into(), json!([one]));
    }
    if !fields::families(service).is_empty() {
        return;
    }
    let families: Vec<&str> = if !fields::is_headless(service) {
        let addresses = fields::cluster_ips(service);
        let six = |ip: &String| if ip.contains(':') { "IPv6" } else { "IPv4" };
        addresses.iter().map(six).collect()
    } else if fields::has_selector(service) {
        vec![family]
    } else {
        // Its endpoints are somebody's own, of whichever family.
        let other = if family == "IPv6" { "IPv4" } else { "IPv6" };
        vec![family, other]
    };
    let policy = match families.len() {
        0 => return,
        1 => "SingleStack",
        _ => "RequireDualStack",
    };
    let spec = child_mut(service, "spec");
    spec.insert("ipFamilies".into(), json!(families));
    spec.insert("ipFamilyPolicy".into(), json!(policy));
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

/// The defaults that are not stored.
fn defaults_for_readers(stored: &Resource, object: &mut Value) {
    match (stored.group, stored.plural) {
        ("", "persistentvolumeclaims") => {
            let status = child_mut(object, "status");
            if status.get("phase").is_none_or(|phase| phase == "") {
                status.insert("phase".into(), json!("Pending"));
            }
            // Claims from before there were two fields have one.
            claims::fill_source(object);
        }
        ("batch", "jobs") => {
            label_like_the_template(object);
        }
        ("", "pods") if object["spec"]["resources"].is_object() => {
            api::defaults::pod_level_requests(object);
        }
        // A name has no traffic to route; older servers kept the field.
        ("", "services") if object["spec"]["type"] == "ExternalName" => {
            child_mut(object, "spec").remove("internalTrafficPolicy");
        }
        _ => {}
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
        let mut pod = json!({"metadata": {}, "spec": {
            "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
            "containers": [{"name": "a", "resources": {"requests": {"memory": "1Gi"}}}]}});
        settle(resource("pods"), &mut pod);
        assert_eq!(
            pod["spec"]["resources"]["requests"],
            json!({"cpu": "1", "memory": "1Gi"})
        );
    }

    #[test]
    fn services_from_before_addresses_were_several() {
        let spec = |spec: Value| {
            let mut service = json!({"spec": spec});
            addresses_in_the_plural(&mut service, "IPv6");
            service["spec"].take()
        };
        let own = spec(json!({"clusterIP": "10.96.0.9"}));
        let wanted = json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
        assert_eq!(own, wanted);
        assert_eq!(spec(wanted.clone()), wanted);
        let headless = spec(json!({"clusterIP": "None", "selector": {"a": "b"}}));
        assert_eq!(headless["ipFamilies"], json!(["IPv6"]));
        let alone = spec(json!({"clusterIP": "None"}));
        assert_eq!(alone["ipFamilies"], json!(["IPv6", "IPv4"]));
        assert_eq!(alone["ipFamilyPolicy"], "RequireDualStack");
        let name = json!({"type": "ExternalName", "externalName": "a.b"});
        assert_eq!(spec(name.clone()), name);
    }

    #[test]
    fn versions_that_are_no_more_are_read() {
        let stored = |group: &str, plural: &str| {
            let mut all = schema::resources().iter();
            all.find(|r| r.group == group && r.version == "v1" && r.plural == plural)
                .unwrap()
        };
        let labels = json!({"a": "b"});
        let old = json!({"apiVersion": "extensions/v1beta1", "kind": "Deployment",
            "metadata": {"name": "d"},
            "spec": {"rollbackTo": {"revision": 3}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "a", "image": "a"}]}}}});
        let message = schema::kind("extensions", "v1beta1", "Deployment").unwrap();
        let mut raw = Vec::new();
        codec::tree::to_proto(message, &old, &mut raw).unwrap();
        let enveloped = codec::envelope::encode("extensions/v1beta1", "Deployment", &raw);
        let deployments = stored("apps", "deployments");
        for bytes in [old.to_string().into_bytes(), enveloped] {
            let new = read(deployments, "IPv4", &bytes).unwrap();
            assert_eq!(new["apiVersion"], "apps/v1");
            assert_eq!(new["spec"]["selector"]["matchLabels"], labels);
            assert_eq!(new["spec"]["strategy"]["rollingUpdate"]["maxSurge"], 1);
            assert_eq!(new["metadata"]["labels"], labels);
            let annotation = &new["metadata"]["annotations"]["deprecated.deployment.rollback.to"];
            assert_eq!(annotation, "3");
            let renewed = renewed(deployments, "IPv4", &bytes).unwrap().unwrap();
            assert_eq!(renewed, store::encode(deployments, &new).unwrap());
            assert_eq!(super::renewed(deployments, "IPv4", &renewed).unwrap(), None);
        }

        let level = |version: &str, field: &str, shares: i64| {
            let old = json!({"metadata": {"name": "p"}, "kind": "PriorityLevelConfiguration",
                "apiVersion": format!("flowcontrol.apiserver.k8s.io/{version}"),
                "spec": {"type": "Limited", "limited": {field: shares}}});
            let levels = stored(
                "flowcontrol.apiserver.k8s.io",
                "prioritylevelconfigurations",
            );
            let new = read(levels, "IPv4", old.to_string().as_bytes()).unwrap();
            new["spec"]["limited"]["nominalConcurrencyShares"].clone()
        };
        assert_eq!(level("v1beta2", "assuredConcurrencyShares", 7), 7);
        assert_eq!(level("v1beta2", "assuredConcurrencyShares", 0), 30);
        assert_eq!(level("v1beta3", "nominalConcurrencyShares", 0), 30);
        assert_eq!(level("v1", "nominalConcurrencyShares", 0), 0);
    }
}
