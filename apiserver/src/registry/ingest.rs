//! How the watch cache reads stored bytes: labels and selectable fields are picked out
//! of the protobuf without building the object, and the resource version is put in.
//!
//! What must not be here: where objects are kept.

mod fields;

use bytes::Bytes;
use codec::envelope;
use codec::meta_splice::{self, ObjectMeta};
use schema::{Cardinality, Message, Resource, Type};
use serde_json::Value;

use super::as_read::{self, Lacking};
use super::object_meta::{meta, meta_mut};
use crate::storage::Revision;
use crate::storage::cache::{Ingest, Ingested, SelectableField};
use fields::{Found, Sought};

/// Reads one built-in resource.
pub struct BuiltIn {
    resource: &'static Resource,
    fields: Vec<Field>,
    sought: Sought,
    /// With the marks of what is sought.
    lacking: Lacking<usize>,
    /// The first that Services have addresses of.
    primary_family: &'static str,
}

/// Fields that are looked up often enough for an index: every kubelet asks for its pods.
const INDEXED: &[(&str, &str)] = &[("pods", "spec.nodeName")];

/// Selectable fields that are not called what the stored field is called.
const ALIASES: &[(&str, &str, &str)] = &[
    ("events", "source", "source.component"),
    ("jobs", "status.successful", "status.succeeded"),
    ("pods", "spec.host", "spec.nodeName"),
];

/// Selectable fields that upstream never gives a value.
const VALUELESS: &[(&str, &str)] = &[("pods", "status.podIPs")];

/// Selectable fields that another stored field stands in for when they are empty: events made
/// through events.k8s.io tell their reporter and no source.
const FALLBACKS: &[(&str, &str, &str)] = &[("events", "source", "reportingComponent")];

/// The way to a scalar: `spec.nodeName`.
#[derive(Debug, Clone)]
struct Path {
    /// Protobuf numbers from the object down.
    numbers: Vec<u32>,
    /// The same as JSON names.
    names: Vec<String>,
    /// What the field selector compares with when the field is absent.
    absent: &'static str,
    boolean: bool,
    /// The field is always written: it is given when it says something.
    text: bool,
    /// What is compared instead when the field is empty.
    fallback: Option<Box<Path>>,
}

/// A selectable field and where the walk finds it; nowhere, if it has a name that no field has.
struct Field {
    path: Path,
    found: Option<usize>,
    /// What is compared instead when the field is empty.
    fallback: Option<usize>,
}

impl BuiltIn {
    pub fn new(resource: &'static Resource, primary_family: &'static str) -> BuiltIn {
        let mut sought = Sought::default();
        let fields = resource.selectable_fields.iter().map(|name| {
            let path = Path::selectable(resource, name);
            let mut value = |path: &Path| {
                (!path.numbers.is_empty()).then(|| sought.value(&path.numbers, path.boolean))
            };
            Field {
                found: value(&path),
                fallback: path.fallback.as_deref().and_then(&mut value),
                path,
            }
        });
        let fields = fields.collect();
        let lacking = match as_read::lacking(resource) {
            Lacking::Unless {
                given,
                absent,
                together,
            } => {
                for name in given {
                    let path = Path::new(resource, name);
                    sought.given(&path.numbers, path.text);
                }
                let mut mark = |name| {
                    let path = Path::new(resource, name);
                    sought.mark(&path.numbers, path.text)
                };
                Lacking::Unless {
                    given: Vec::new(),
                    absent: absent.into_iter().map(&mut mark).collect(),
                    together: (together.into_iter())
                        .map(|(one, other)| (mark(one), mark(other)))
                        .collect(),
                }
            }
            Lacking::Anything => Lacking::Anything,
            Lacking::Nothing => Lacking::Nothing,
        };
        BuiltIn {
            resource,
            fields,
            sought,
            lacking,
            primary_family,
        }
    }

    /// What is found in bytes that say what readers are to see; `None` where that may have to be
    /// something else than what is stored.
    fn look(&self, value: &[u8]) -> Result<Option<Found>, String> {
        if !envelope::is_enveloped(value) || matches!(self.lacking, Lacking::Anything) {
            return Ok(None);
        }
        let unknown = envelope::decode(value).map_err(|e| e.to_string())?;
        if unknown.api_version != self.resource.storage_version {
            return Ok(None);
        }
        let found = self.sought.look(unknown.raw)?;
        let lacks = match &self.lacking {
            Lacking::Unless {
                absent, together, ..
            } => {
                let there = |mark: &usize| found.marks[*mark];
                found.lacks
                    || absent.iter().any(there)
                    || (together.iter()).any(|(one, other)| there(one) && !there(other))
            }
            Lacking::Anything => true,
            Lacking::Nothing => false,
        };
        Ok((!lacks).then_some(found))
    }

    /// Reads bytes that say what readers are to see.
    fn settled(&self, value: &[u8], revision: Revision) -> Result<Ingested, String> {
        if !envelope::is_enveloped(value) {
            return self.ingest_json(value, revision);
        }
        let raw = envelope::decode(value).map_err(|e| e.to_string())?.raw;
        self.ingested(value, self.sought.look(raw)?, revision)
    }

    fn ingested(
        &self,
        value: &[u8],
        mut found: Found,
        revision: Revision,
    ) -> Result<Ingested, String> {
        let raw = envelope::decode(value).map_err(|e| e.to_string())?.raw;
        let mut ingested = Ingested {
            bytes: stamp(value, revision)?,
            ..Ingested::default()
        };
        let meta = ObjectMeta::of(raw).map_err(|e| e.to_string())?;
        for label in meta.labels() {
            let (key, value) = label.map_err(|e| e.to_string())?;
            ingested.labels.push((key.to_owned(), value.to_owned()));
        }
        let mut value = |place: Option<usize>| place.and_then(|i| found.values[i].take());
        for field in &self.fields {
            let own = value(field.found).unwrap_or_else(|| field.path.absent.to_owned());
            ingested.fields.push(match own.is_empty() {
                true => value(field.fallback).unwrap_or(own),
                false => own,
            });
        }
        Ok(ingested)
    }

    pub fn selectable(resource: &'static Resource) -> Vec<SelectableField> {
        resource
            .selectable_fields
            .iter()
            .map(|name| SelectableField {
                name: (*name).to_owned(),
                indexed: INDEXED.contains(&(resource.plural, *name)),
            })
            .collect()
    }

    /// Custom resources and the few built-in ones that are stored as JSON.
    fn ingest_json(&self, value: &[u8], revision: Revision) -> Result<Ingested, String> {
        let mut object = codec::decode::untyped(value).map_err(|e| e.to_string())?;
        meta_mut(&mut object).insert("resourceVersion".into(), revision.to_string().into());
        let m = meta(&object);
        Ok(Ingested {
            labels: m
                .get("labels")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), json_text(v)))
                .collect(),
            fields: self
                .fields
                .iter()
                .map(|field| field.path.pick_json(&object))
                .collect(),
            bytes: serde_json::to_vec(&object)
                .map_err(|e| e.to_string())?
                .into(),
        })
    }
}

impl Path {
    /// That of a selectable field.
    fn selectable(resource: &'static Resource, name: &str) -> Path {
        let stored = ALIASES
            .iter()
            .find(|(plural, alias, _)| *plural == resource.plural && *alias == name)
            .map_or(name, |(_, _, stored)| stored);
        if VALUELESS.contains(&(resource.plural, name)) {
            return Path {
                numbers: Vec::new(),
                ..Path::new(resource, name)
            };
        }
        let fallback = FALLBACKS
            .iter()
            .find(|(plural, field, _)| *plural == resource.plural && *field == name)
            .map(|(_, _, other)| Box::new(Path::new(resource, other)));
        Path {
            fallback,
            ..Path::new(resource, stored)
        }
    }

    fn new(resource: &'static Resource, stored: &str) -> Path {
        let mut path = Path {
            numbers: Vec::new(),
            names: stored.split('.').map(str::to_owned).collect(),
            absent: "",
            boolean: false,
            text: false,
            fallback: None,
        };
        let mut message: &'static Message = resource.message;
        for name in &path.names {
            let Some((numbers, field)) = find(message, name) else {
                // A name that no field has: it selects the empty value.
                path.numbers.clear();
                return path;
            };
            path.numbers.extend(numbers);
            path.text = matches!(field.ty, Type::String) && !field.pointer;
            match (field.ty, field.cardinality) {
                (Type::Message(inner), Cardinality::One | Cardinality::List) => message = inner,
                (Type::Bool, _) => {
                    path.boolean = true;
                    path.absent = "false";
                }
                (Type::Int32 | Type::Int64, _) => path.absent = "0",
                _ => {}
            }
        }
        path
    }
}

/// A field by its JSON name with the protobuf numbers that lead to it; more than one when it
/// is inlined.
fn find(message: &'static Message, json: &str) -> Option<(Vec<u32>, &'static schema::Field)> {
    for field in message.fields {
        if field.json == json {
            return Some((vec![field.number], field));
        }
        if field.json.is_empty()
            && let Type::Message(inlined) = field.ty
            && let Some((mut numbers, found)) = find(inlined, json)
        {
            numbers.insert(0, field.number);
            return Some((numbers, found));
        }
    }
    None
}

fn json_text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Ingest for BuiltIn {
    fn ingest(&self, value: &[u8], revision: Revision) -> Result<Ingested, String> {
        if let Some(found) = self.look(value)? {
            return self.ingested(value, found, revision);
        }
        if envelope::is_enveloped(value) || !self.resource.storage_json {
            let renewed = as_read::renewed(self.resource, self.primary_family, value)
                .map_err(|e| e.to_string())?;
            if let Some(value) = renewed {
                return self.settled(&value, revision);
            }
        }
        self.settled(value, revision)
    }

    fn restamp(&self, bytes: &[u8], revision: Revision) -> Result<Bytes, String> {
        if envelope::is_enveloped(bytes) {
            return stamp(bytes, revision);
        }
        self.ingest_json(bytes, revision).map(|i| i.bytes)
    }
}

impl Path {
    fn pick_json(&self, object: &Value) -> String {
        let found = self.names.iter().try_fold(object, |at, name| at.get(name));
        let own = found.map_or(self.absent.to_owned(), json_text);
        match &self.fallback {
            Some(other) if own.is_empty() => other.pick_json(object),
            _ => own,
        }
    }
}

/// The same enveloped object with this resource version in its metadata.
pub fn stamp(value: &[u8], revision: Revision) -> Result<Bytes, String> {
    let mut out = Vec::with_capacity(value.len() + 24);
    meta_splice::set_enveloped_resource_version(value, &revision.to_string(), &mut out)
        .map_err(|e| e.to_string())?;
    Ok(out.into())
}

/// The definition under which the cache keeps a resource.
pub fn definition(
    resource: &'static Resource,
    primary_family: &'static str,
) -> crate::storage::cache::Definition {
    crate::storage::cache::Definition {
        group: resource.group.to_owned(),
        resource: resource.plural.to_owned(),
        storage_prefix: resource.storage_prefix.to_owned(),
        namespaced: resource.namespaced,
        fields: BuiltIn::selectable(resource),
        ingest: std::sync::Arc::new(BuiltIn::new(resource, primary_family)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::store;
    use super::*;

    fn pods() -> &'static Resource {
        schema::resources()
            .iter()
            .find(|r| r.group.is_empty() && r.plural == "pods")
            .unwrap()
    }

    #[test]
    fn a_pod_is_indexed_and_stamped() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "ns", "uid": "u", "labels": {"x": "1", "y": ""},
                         "finalizers": ["f/g"]},
            "spec": {"nodeName": "n1", "hostNetwork": true, "containers": []},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        let bytes = store::encode(pods(), &pod).unwrap();
        let ingest = BuiltIn::new(pods(), "IPv4");
        let got = ingest.ingest(&bytes, 42).unwrap();
        assert_eq!(
            got.labels,
            [("x".into(), "1".into()), ("y".into(), String::new())]
        );
        let field = |name: &str| {
            let i = pods()
                .selectable_fields
                .iter()
                .position(|f| *f == name)
                .unwrap();
            got.fields[i].clone()
        };
        assert_eq!(field("spec.nodeName"), "n1");
        assert_eq!(field("spec.hostNetwork"), "true");
        assert_eq!(field("status.phase"), "Running");
        assert_eq!(field("status.podIP"), "10.0.0.1");
        assert_eq!(field("status.podIPs"), "");
        let back = store::decode(pods(), &got.bytes).unwrap();
        assert_eq!(back["metadata"]["resourceVersion"], "42");
        assert_eq!(back["metadata"]["finalizers"], json!(["f/g"]));
        let again = ingest.restamp(&got.bytes, 43).unwrap();
        let back = store::decode(pods(), &again).unwrap();
        assert_eq!(back["metadata"]["resourceVersion"], "43");
        assert_eq!(back["status"]["phase"], "Running");
    }

    fn resource(group: &str, version: &str, plural: &str) -> &'static Resource {
        schema::resources()
            .iter()
            .find(|r| (r.group, r.version, r.plural) == (group, version, plural))
            .unwrap()
    }

    /// What a reader gets of an object that was stored so.
    fn read(stored: &'static Resource, value: &[u8]) -> Value {
        let got = BuiltIn::new(stored, "IPv4").ingest(value, 7).unwrap();
        store::decode(stored, &got.bytes).unwrap()
    }

    #[test]
    fn what_is_stored_in_another_version_is_converted() {
        let old = resource("autoscaling", "v1", "horizontalpodautoscalers");
        let hpa = json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "namespace": "ns", "labels": {"x": "1"}},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3,
                     "targetCPUUtilizationPercentage": 70},
        });
        let mut raw = Vec::new();
        codec::tree::to_proto(old.message, &hpa, &mut raw).unwrap();
        let protobuf = envelope::encode("autoscaling/v1", old.kind, &raw);
        let stored = resource("autoscaling", "v2", "horizontalpodautoscalers");
        for value in [protobuf, serde_json::to_vec(&hpa).unwrap()] {
            let got = read(stored, &value);
            assert_eq!(got["apiVersion"], "autoscaling/v2");
            assert_eq!(got["metadata"]["resourceVersion"], "7");
            assert_eq!(got["metadata"]["labels"], json!({"x": "1"}));
            assert_eq!(got["spec"]["minReplicas"], 1);
            let target = &got["spec"]["metrics"][0]["resource"]["target"];
            assert_eq!(target["averageUtilization"], 70);
        }
    }

    #[test]
    fn what_was_stored_before_a_default_was_known_gets_it() {
        let jobs = resource("batch", "v1", "jobs");
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "namespace": "ns"},
            "spec": {"completions": 1, "template": {"spec": {"containers": []}}},
        });
        for value in [
            store::encode(jobs, &job).unwrap(),
            serde_json::to_vec(&job).unwrap(),
        ] {
            assert_eq!(read(jobs, &value)["spec"]["completionMode"], "NonIndexed");
        }
    }

    #[test]
    fn a_pod_is_looked_at_closely_only_if_it_lacks_something() {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ns"},
            "spec": {"containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]},
            "status": {"podIP": "10.0.0.1"},
        });
        api::defaults::apply(pods().message, &mut pod);
        let ingest = BuiltIn::new(pods(), "IPv4");
        let differs = |pod: &Value| {
            let found = ingest.look(&store::encode(pods(), pod).unwrap());
            found.map(|found| found.is_none())
        };
        assert_eq!(differs(&pod), Ok(false));
        for (lacking, field) in [
            ("/spec", "enableServiceLinks"),
            ("/spec", "schedulerName"),
            ("/spec", "securityContext"),
            ("/spec/containers/1", "imagePullPolicy"),
            ("/status", "podIPs"),
        ] {
            let mut lacks = pod.clone();
            let given = lacks.pointer_mut(lacking).unwrap().as_object_mut().unwrap();
            let value = given.remove(field).unwrap();
            assert_eq!(differs(&lacks), Ok(true), "{field}");
            let got = read(pods(), &store::encode(pods(), &lacks).unwrap());
            assert_eq!(got.pointer(lacking).unwrap()[field], value);
        }
    }

    #[test]
    fn every_selectable_field_is_found() {
        for resource in schema::resources() {
            for name in resource.selectable_fields {
                if resource.group == "events.k8s.io" {
                    continue; // read as core's event
                }
                let path = Path::selectable(resource, name);
                let has_value = !VALUELESS.contains(&(resource.plural, *name));
                assert_eq!(
                    !path.numbers.is_empty(),
                    has_value,
                    "{} {name}",
                    resource.plural
                );
            }
        }
    }
}
