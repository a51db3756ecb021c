//! Server-side apply to an object that may have managers: what is applied is JSON or YAML. The
//! managers afterwards can be stored and read, who applies the same again changes nothing, and
//! managers that are read only where it matters become what they become when all are read.

#![no_main]

use codec::decode;
use libfuzzer_sys::fuzz_target;
use patch::apply::{Error, Managed, Request, Set, Versions};
use schema::{Message, Resource};
use serde_json::Value;

/// No other version of the kind is known: what belongs to managers of one is forgotten.
struct Only {
    api_version: String,
    message: &'static Message,
}

impl Versions for Only {
    fn message(&self, api_version: &str) -> Option<&'static Message> {
        (api_version == self.api_version).then_some(self.message)
    }

    fn convert(&self, object: &Value, _: &str, _: &str) -> Value {
        object.clone()
    }
}

fn applied(body: &[u8]) -> Option<Value> {
    if let Some(value) = decode::plain_json(body) {
        return Some(value);
    }
    let (json, _) = decode::yaml_to_json(body).ok()?;
    decode::untyped(&json).ok().filter(Value::is_object)
}

/// As it is stored and read.
fn stored(managed: Managed) -> Managed {
    let list = managed.write();
    let again = Managed::read(list.as_ref()).expect("own managers are read");
    assert_eq!(again.clone().write(), list);
    again
}

/// As managers see it: they own what is in embedded JSON too.
fn seen(message: &'static Message, mut object: Value) -> Value {
    if message.holds_raw {
        codec::tree::expand_raw(message, &mut object);
    }
    object
}

fn live(resource: &Resource, body: &[u8]) -> Option<(Value, Option<Value>)> {
    let read = decode::json(resource.message, body, decode::Strictness::Ignore).ok()?;
    let mut object = read.value;
    let list = object
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|metadata| metadata.remove("managedFields"));
    Some((seen(resource.message, object), list))
}

/// As the object of its type that goes to storage.
fn typed(message: &'static Message, object: Value) -> Option<Value> {
    let object = match decode::canonical(message, object) {
        Ok(object) => return Some(object),
        Err(object) => object,
    };
    // By way of the tree's own writer: what was there has field sets as text.
    let mut text = Vec::new();
    codec::tree::to_json(message, &object, &mut text).ok()?;
    let read = decode::json(message, &text, decode::Strictness::Ignore);
    read.ok().map(|read| read.value)
}

fuzz_target!(|data: &[u8]| {
    let Some((resource, body)) = fuzz::resource(data) else {
        return;
    };
    let Some((before, config)) = fuzz::halves(body) else {
        return;
    };
    let Some(config) = applied(config) else {
        return;
    };
    let Some((object, list)) = live(resource, before) else {
        return;
    };
    let Some(managed) = Managed::read(list.as_ref()) else {
        return;
    };
    let versions = Only {
        api_version: fuzz::api_version(resource),
        message: resource.message,
    };
    let status = Set::of(&[&["status"]]);
    let request = |manager| Request {
        versions: &versions,
        api_version: &versions.api_version,
        message: resource.message,
        subresource: "",
        manager,
        now: "2026-01-01T00:00:00Z",
        reset: &status,
    };
    for manager in ["fuzz", "kubectl"] {
        let mut books = managed.clone();
        match request(manager).apply(&mut books, &object, &config, false) {
            Err(Error::Invalid { .. }) => continue,
            Err(Error::Conflicts(conflicts)) => assert!(!conflicts.is_empty()),
            Ok(_) => drop(stored(books)),
        }
        let mut books = managed.clone();
        let forced = request(manager).apply(&mut books, &object, &config, true);
        let Ok(forced) = forced else { continue };
        let mut books = stored(books);
        let Some(merged) = typed(resource.message, forced.unwrap_or_else(|| object.clone())) else {
            continue;
        };
        let after = seen(resource.message, merged.clone());
        let mut updated = managed.clone();
        let done = request("other").update(&mut updated, &object, &after, false);
        let mut lazily = Managed::read_lazily(list.as_ref(), &versions).expect("it was read");
        let also = request("other").update(&mut lazily, &object, &after, false);
        assert_eq!(done, also);
        if done.is_ok() {
            assert_eq!(lazily.write(), updated.clone().write());
            stored(updated);
        }
        if let Ok(Some(again)) = request(manager).apply(&mut books, &after, &config, true) {
            let again = typed(resource.message, again);
            assert_eq!(again.expect("it is of its type"), merged);
        }
    }
});
