//! Config maps, as the wire and etcd have them, and the states that they hold.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::record::{HALF, Revision, State};
use crate::bench::scan::proto::{field, fields, unwrap};

/// Where all objects of a history are.
pub const NAMESPACE: &str = "history";
/// Their keys in etcd.
pub const PREFIX: &str = "/registry/configmaps/history/";

/// The path of one object, or with no key that of all.
pub fn path(key: &str) -> String {
    let slash = if key.is_empty() { "" } else { "/" };
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps{slash}{key}")
}

/// An object to be written. With a revision, only over that one.
pub fn object(key: &str, state: &State, revision: Option<Revision>) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": key, "labels": {HALF: state.get(HALF)}},
        "data": data(state),
    });
    if let Some(revision) = revision {
        object["metadata"]["resourceVersion"] = revision.to_string().into();
    }
    object
}

fn data(state: &State) -> State {
    let mut data = state.clone();
    data.remove(HALF);
    data
}

/// Name, revision and state of an object in JSON.
///
/// # Errors
///
/// When it is none.
pub fn read(object: &Value) -> Result<(String, Revision, State)> {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().context("no name")?;
    let mut state = State::new();
    for (field, value) in object["data"].as_object().into_iter().flatten() {
        state.insert(field.clone(), value.as_str().context("text")?.to_owned());
    }
    if let Some(half) = metadata["labels"][HALF].as_str() {
        state.insert(HALF.to_owned(), half.to_owned());
    }
    Ok((name.to_owned(), revision(object)?, state))
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

/// The state of an object as etcd has it.
///
/// # Errors
///
/// When that is no config map in its envelope.
pub fn stored(bytes: &[u8]) -> Result<State> {
    const METADATA: u64 = 1;
    const DATA: u64 = 2;
    const LABELS: u64 = 11;
    let object = unwrap(bytes)?;
    let metadata = field(object, METADATA)?.context("no metadata")?;
    let mut state = entries(object, DATA)?;
    if let Some(half) = entries(metadata, LABELS)?.remove(HALF) {
        state.insert(HALF.to_owned(), half);
    }
    Ok(state)
}

/// A map's field.
fn entries(message: &[u8], number: u64) -> Result<State> {
    let mut map = State::new();
    for entry in fields(message, number)? {
        let text = |number| -> Result<String> {
            Ok(String::from_utf8(
                field(entry, number)?.unwrap_or_default().to_vec(),
            )?)
        };
        map.insert(text(1)?, text(2)?);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::proto::{Message, envelope};

    #[test]
    fn both_forms_hold_the_same() {
        let state: State = [("value", "v1"), ("w0", "v2"), (HALF, "a")]
            .map(|(field, value)| (field.to_owned(), value.to_owned()))
            .into();
        let json = object("k", &state, Some(7));
        assert_eq!(read(&json).unwrap(), ("k".to_owned(), 7, state.clone()));
        let metadata = Message::default().text(1, "k").text_entry(11, HALF, "a");
        let map = Message::default()
            .message(1, metadata)
            .text_entry(2, "value", "v1")
            .text_entry(2, "w0", "v2");
        assert_eq!(stored(&envelope("v1", "ConfigMap", map)).unwrap(), state);
    }
}
