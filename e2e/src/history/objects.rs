//! Config maps and leases, in JSON and in protobuf, and the states that they hold.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::record::{HALF, Revision, Sort, State, VALUE};
use crate::bench::proto::Message;
use crate::bench::scan::proto::{field, fields, unwrap};

/// Where all objects of a history are.
pub const NAMESPACE: &str = "history";

// Fields of every object, of its metadata, and of the kinds.
const METADATA: u64 = 1;
const NAME: u64 = 1;
const RESOURCE_VERSION: u64 = 6;
const LABELS: u64 = 11;
const ANNOTATIONS: u64 = 12;
const DATA: u64 = 2;
const SPEC: u64 = 2;
const HOLDER: u64 = 1;

/// An object as a client has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// See [`Sort::key`].
    pub key: String,
    pub revision: Revision,
    pub state: State,
}

/// The API version and kind of a sort.
pub fn kind(sort: Sort) -> (&'static str, &'static str) {
    match sort {
        Sort::ConfigMaps => ("v1", "ConfigMap"),
        Sort::Leases => ("coordination.k8s.io/v1", "Lease"),
    }
}

/// The path of one object, or with no name that of all.
pub fn path(sort: Sort, name: &str) -> String {
    let root = match sort {
        Sort::ConfigMaps => "/api/v1",
        Sort::Leases => "/apis/coordination.k8s.io/v1",
    };
    let slash = if name.is_empty() { "" } else { "/" };
    format!(
        "{root}/namespaces/{NAMESPACE}/{}{slash}{name}",
        sort.plural()
    )
}

/// What the keys of a sort begin with in etcd.
pub fn prefix(sort: Sort) -> String {
    format!("/registry/{}/{NAMESPACE}/", sort.plural())
}

/// What a lease holds in its spec, and what in its annotations.
fn parts(state: &State) -> (Option<&String>, State) {
    let rest = state
        .iter()
        .filter(|(field, _)| !is_one(field, &[VALUE, HALF]));
    let rest = rest.map(|(field, value)| (field.clone(), value.clone()));
    (state.get(VALUE), rest.collect())
}

fn is_one(field: &str, of: &[&str]) -> bool {
    of.contains(&field)
}

/// An object to be written. With a revision, only over that one.
pub fn to_json(sort: Sort, name: &str, state: &State, revision: Option<Revision>) -> Value {
    let (api_version, kind) = kind(sort);
    let mut object = json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name},
    });
    if let Some(half) = state.get(HALF) {
        object["metadata"]["labels"] = json!({HALF: half});
    }
    match sort {
        Sort::ConfigMaps => {
            let mut data = state.clone();
            data.remove(HALF);
            object["data"] = json!(data);
        }
        Sort::Leases => {
            let (holder, annotations) = parts(state);
            object["spec"] = json!({"holderIdentity": holder});
            object["metadata"]["annotations"] = json!(annotations);
        }
    }
    if let Some(revision) = revision {
        object["metadata"]["resourceVersion"] = revision.to_string().into();
    }
    object
}

/// The same in protobuf, without its envelope.
pub fn to_proto(sort: Sort, name: &str, state: &State, revision: Option<Revision>) -> Message {
    let mut metadata = Message::default().text(NAME, name);
    if let Some(revision) = revision {
        metadata = metadata.text(RESOURCE_VERSION, &revision.to_string());
    }
    if let Some(half) = state.get(HALF) {
        metadata = metadata.text_entry(LABELS, HALF, half);
    }
    let (holder, rest) = parts(state);
    match sort {
        Sort::ConfigMaps => {
            let mut object = Message::default().message(METADATA, metadata);
            for (field, value) in state.iter().filter(|(field, _)| *field != HALF) {
                object = object.text_entry(DATA, field, value);
            }
            object
        }
        Sort::Leases => {
            for (field, value) in &rest {
                metadata = metadata.text_entry(ANNOTATIONS, field, value);
            }
            let mut spec = Message::default();
            if let Some(holder) = holder {
                spec = spec.text(HOLDER, holder);
            }
            Message::default()
                .message(METADATA, metadata)
                .message(SPEC, spec)
        }
    }
}

/// An object in JSON.
///
/// # Errors
///
/// When it is none.
pub fn from_json(sort: Sort, object: &Value) -> Result<Object> {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().context("no name")?;
    let entries = match sort {
        Sort::ConfigMaps => &object["data"],
        Sort::Leases => &metadata["annotations"],
    };
    let mut state = State::new();
    for (field, value) in entries.as_object().into_iter().flatten() {
        state.insert(field.clone(), value.as_str().context("text")?.to_owned());
    }
    if let Some(half) = metadata["labels"][HALF].as_str() {
        state.insert(HALF.to_owned(), half.to_owned());
    }
    if let (Sort::Leases, Some(holder)) = (sort, object["spec"]["holderIdentity"].as_str()) {
        state.insert(VALUE.to_owned(), holder.to_owned());
    }
    Ok(Object {
        key: sort.key(name),
        revision: revision(object)?,
        state,
    })
}

/// The revision of an object or a list in JSON.
///
/// # Errors
///
/// When it has none.
pub fn revision(object: &Value) -> Result<Revision> {
    let revision = object["metadata"]["resourceVersion"].as_str();
    Ok(revision.context("no resourceVersion")?.parse()?)
}

/// An object in protobuf, without its envelope.
///
/// # Errors
///
/// When it is none.
pub fn from_proto(sort: Sort, object: &[u8]) -> Result<Object> {
    let metadata = field(object, METADATA)?.context("no metadata")?;
    let revision = text(metadata, RESOURCE_VERSION)?.context("no resourceVersion")?;
    Ok(Object {
        key: sort.key(&text(metadata, NAME)?.context("no name")?),
        revision: revision.parse()?,
        state: state(sort, object)?,
    })
}

/// The state of an object as etcd has it.
///
/// # Errors
///
/// When that is no such object in its envelope.
pub fn stored(sort: Sort, bytes: &[u8]) -> Result<State> {
    state(sort, unwrap(bytes)?)
}

fn state(sort: Sort, object: &[u8]) -> Result<State> {
    let metadata = field(object, METADATA)?.context("no metadata")?;
    let mut state = match sort {
        Sort::ConfigMaps => entries(object, DATA)?,
        Sort::Leases => entries(metadata, ANNOTATIONS)?,
    };
    if let Some(half) = entries(metadata, LABELS)?.remove(HALF) {
        state.insert(HALF.to_owned(), half);
    }
    if sort == Sort::Leases
        && let Some(spec) = field(object, SPEC)?
        && let Some(holder) = text(spec, HOLDER)?
    {
        state.insert(VALUE.to_owned(), holder);
    }
    Ok(state)
}

/// A field of text.
///
/// # Errors
///
/// When the message is none, or the field is no text.
pub fn text(message: &[u8], number: u64) -> Result<Option<String>> {
    let bytes = field(message, number)?.map(<[u8]>::to_vec);
    Ok(bytes.map(String::from_utf8).transpose()?)
}

/// A map's field.
///
/// # Errors
///
/// Likewise.
pub fn entries(message: &[u8], number: u64) -> Result<State> {
    let mut map = State::new();
    for entry in fields(message, number)? {
        let part = |number| -> Result<String> { Ok(text(entry, number)?.unwrap_or_default()) };
        map.insert(part(1)?, part(2)?);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::proto::envelope;

    #[test]
    fn all_forms_hold_the_same() {
        let state: State = [("value", "v1"), ("w0", "v2"), (HALF, "a")]
            .map(|(field, value)| (field.to_owned(), value.to_owned()))
            .into();
        for sort in Sort::ALL {
            let object = Object {
                key: sort.key("k"),
                revision: 7,
                state: state.clone(),
            };
            let json = to_json(sort, "k", &state, Some(7));
            assert_eq!(from_json(sort, &json).unwrap(), object);
            let proto = to_proto(sort, "k", &state, Some(7));
            let (api_version, kind) = kind(sort);
            let bytes = envelope(api_version, kind, proto.clone());
            assert_eq!(stored(sort, &bytes).unwrap(), state);
            assert_eq!(from_proto(sort, &proto.into_bytes()).unwrap(), object);
        }
    }
}
