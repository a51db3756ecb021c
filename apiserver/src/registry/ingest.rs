//! How the watch cache reads stored bytes: labels and selectable fields are picked out
//! of the protobuf without building the object, and the resource version is put in.
//!
//! What must not be here: where objects are kept.

use bytes::Bytes;
use codec::envelope;
use codec::meta_splice::{self, ObjectMeta};
use schema::{Cardinality, Message, Resource, Type};
use serde_json::Value;

use super::as_read::{self, Lacking};
use super::object_meta::{meta, meta_mut};
use crate::storage::Revision;
use crate::storage::cache::{Ingest, Ingested, SelectableField};

/// Reads one built-in resource.
pub struct BuiltIn {
    resource: &'static Resource,
    fields: Vec<Path>,
    lacking: Lacking<Path>,
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
    ("pods", "status.podIPs", "status.podIP"),
];

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

impl BuiltIn {
    pub fn new(resource: &'static Resource, primary_family: &'static str) -> BuiltIn {
        BuiltIn {
            resource,
            primary_family,
            fields: resource
                .selectable_fields
                .iter()
                .map(|name| Path::selectable(resource, name))
                .collect(),
            lacking: match as_read::lacking(resource) {
                Lacking::Unless {
                    given,
                    absent,
                    together,
                } => {
                    let path = |name| Path::new(resource, name);
                    Lacking::Unless {
                        given: given.into_iter().map(path).collect(),
                        absent: absent.into_iter().map(path).collect(),
                        together: (together.into_iter())
                            .map(|(one, other)| (path(one), path(other)))
                            .collect(),
                    }
                }
                Lacking::Anything => Lacking::Anything,
                Lacking::Nothing => Lacking::Nothing,
            },
        }
    }

    /// Whether readers may have to be shown something else than what is stored.
    fn may_differ(&self, value: &[u8]) -> Result<bool, String> {
        if !envelope::is_enveloped(value) {
            return Ok(!self.resource.storage_json);
        }
        let unknown = envelope::decode(value).map_err(|e| e.to_string())?;
        if unknown.api_version != self.resource.storage_version {
            return Ok(true);
        }
        let raw = unknown.raw;
        match &self.lacking {
            Lacking::Nothing => Ok(false),
            Lacking::Anything => Ok(true),
            Lacking::Unless {
                given,
                absent,
                together,
            } => {
                for path in given {
                    if !path.is_given(raw)? {
                        return Ok(true);
                    }
                }
                for path in absent {
                    if path.is_there(raw)? {
                        return Ok(true);
                    }
                }
                for (one, other) in together {
                    if one.is_given(raw)? && !other.is_there(raw)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// Reads bytes that say what readers are to see.
    fn ingest_settled(&self, value: &[u8], revision: Revision) -> Result<Ingested, String> {
        if !envelope::is_enveloped(value) {
            return self.ingest_json(value, revision);
        }
        let unknown = envelope::decode(value).map_err(|e| e.to_string())?;
        let mut ingested = Ingested::default();
        let meta = ObjectMeta::of(unknown.raw).map_err(|e| e.to_string())?;
        for label in meta.labels() {
            let (key, value) = label.map_err(|e| e.to_string())?;
            ingested.labels.push((key.to_owned(), value.to_owned()));
        }
        for path in &self.fields {
            ingested.fields.push(path.pick(unknown.raw)?);
        }
        ingested.bytes = stamp(value, revision)?;
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
                .map(|path| path.pick_json(&object))
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
        if self.may_differ(value)? {
            let renewed = as_read::renewed(self.resource, self.primary_family, value)
                .map_err(|e| e.to_string())?;
            if let Some(value) = renewed {
                return self.ingest_settled(&value, revision);
            }
        }
        self.ingest_settled(value, revision)
    }

    fn restamp(&self, bytes: &[u8], revision: Revision) -> Result<Bytes, String> {
        if envelope::is_enveloped(bytes) {
            return stamp(bytes, revision);
        }
        self.ingest_json(bytes, revision).map(|i| i.bytes)
    }
}

impl Path {
    fn pick(&self, raw: &[u8]) -> Result<String, String> {
        let own = self.pick_own(raw)?;
        match &self.fallback {
            Some(other) if own.is_empty() => other.pick(raw),
            _ => Ok(own),
        }
    }

    /// Whether an object has the field, a message.
    fn is_there(&self, raw: &[u8]) -> Result<bool, String> {
        let mut at = raw;
        for number in &self.numbers {
            match wire::first(at, *number)? {
                Some(inner) => at = inner,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Whether the field is given wherever it has a place: in each item of a list.
    fn is_given(&self, raw: &[u8]) -> Result<bool, String> {
        self.is_given_below(&self.numbers, raw)
    }

    fn is_given_below(&self, numbers: &[u32], raw: &[u8]) -> Result<bool, String> {
        let Some((number, below)) = numbers.split_first() else {
            return Ok(!(self.text && raw.is_empty()));
        };
        let mut found = false;
        for field in wire::fields(raw) {
            match field? {
                (n, wire::Value::Bytes(bytes)) if n == *number => {
                    if !self.is_given_below(below, bytes)? {
                        return Ok(false);
                    }
                    found = true;
                }
                (n, _) if n == *number => found = true,
                _ => {}
            }
        }
        // What is not there has no fields to give.
        Ok(found || !below.is_empty())
    }

    fn pick_json(&self, object: &Value) -> String {
        let found = self.names.iter().try_fold(object, |at, name| at.get(name));
        let own = found.map_or(self.absent.to_owned(), json_text);
        match &self.fallback {
            Some(other) if own.is_empty() => other.pick_json(object),
            _ => own,
        }
    }

    fn pick_own(&self, raw: &[u8]) -> Result<String, String> {
        let mut at = raw;
        let Some((last, parents)) = self.numbers.split_last() else {
            return Ok(self.absent.to_owned());
        };
        for number in parents {
            match wire::first(at, *number)? {
                Some(inner) => at = inner,
                None => return Ok(self.absent.to_owned()),
            }
        }
        for field in wire::fields(at) {
            match field? {
                (n, wire::Value::Bytes(bytes)) if n == *last => return text(bytes),
                (n, wire::Value::Varint(v)) if n == *last && self.boolean => {
                    return Ok((v != 0).to_string());
                }
                (n, wire::Value::Varint(v)) if n == *last => return Ok((v as i64).to_string()),
                _ => {}
            }
        }
        Ok(self.absent.to_owned())
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a name is no UTF-8".to_owned())
}

/// The same enveloped object with this resource version in its metadata.
pub fn stamp(value: &[u8], revision: Revision) -> Result<Bytes, String> {
    let mut out = Vec::with_capacity(value.len() + 24);
    meta_splice::set_enveloped_resource_version(value, &revision.to_string(), &mut out)
        .map_err(|e| e.to_string())?;
    Ok(out.into())
}

/// As much of protobuf's wire format as it takes to find a field.
mod wire {
    pub enum Value<'a> {
        Varint(u64),
        Bytes(&'a [u8]),
        Fixed,
    }

    const TRUNCATED: &str = "truncated protobuf";

    fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = bytes.split_first().ok_or(TRUNCATED)?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("varint too long".to_owned())
    }

    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = bytes.split_at_checked(n).ok_or(TRUNCATED)?;
        *bytes = rest;
        Ok(taken)
    }

    fn next<'a>(bytes: &mut &'a [u8]) -> Result<(u32, Value<'a>), String> {
        let tag = varint(bytes)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(bytes)?),
            1 => take(bytes, 8).map(|_| Value::Fixed)?,
            2 => {
                let n = usize::try_from(varint(bytes)?).map_err(|_| TRUNCATED)?;
                Value::Bytes(take(bytes, n)?)
            }
            5 => take(bytes, 4).map(|_| Value::Fixed)?,
            other => return Err(format!("illegal wire type {other}")),
        };
        Ok(((tag >> 3) as u32, value))
    }

    /// The fields of a message in the order in which they are written.
    pub fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u32, Value<'_>), String>> {
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let field = next(&mut bytes);
            if field.is_err() {
                bytes = &[];
            }
            Some(field)
        })
    }

    /// A field of type bytes, string or message.
    pub fn first(bytes: &[u8], number: u32) -> Result<Option<&[u8]>, String> {
        for field in fields(bytes) {
            match field? {
                (n, Value::Bytes(found)) if n == number => return Ok(Some(found)),
                _ => {}
            }
        }
        Ok(None)
    }
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
            "status": {"phase": "Running"},
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
        assert_eq!(field("status.podIP"), "");
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
        let differs = |pod: &Value| ingest.may_differ(&store::encode(pods(), pod).unwrap());
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
                assert!(!path.numbers.is_empty(), "{} {name}", resource.plural);
            }
        }
    }
}
