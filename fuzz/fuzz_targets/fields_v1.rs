//! Field sets: what is read is written as what is read as the same; sets obey the laws of sets;
//! and what the codec makes of their text is the same set.

#![no_main]

use libfuzzer_sys::fuzz_target;
use patch::apply::{Managed, Set};
use serde_json::{Value, json};

fn read(fields: &str) -> Option<Managed> {
    Managed::read(Some(&json!([{
        "manager": "fuzz",
        "operation": "Update",
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }])))
}

fn set(mut managed: Managed) -> Set {
    std::mem::take(managed.entries[0].set_mut())
}

/// The text that the set has when it is made anew.
fn written(set: Set) -> String {
    let mut managed = read("{}").expect("an empty set");
    *managed.entries[0].set_mut() = set;
    let list = managed.write().expect("an entry");
    list[0]["fieldsV1"].as_str().expect("text").to_owned()
}

fn same(a: &Set, b: &Set) -> bool {
    a.covers(b) && b.covers(a)
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (first, second) = text.split_once('\0').unwrap_or((text, "{}"));
    let (Some(a), Some(b)) = (read(first), read(second)) else {
        return;
    };
    let kept = a.clone().write().expect("an entry");
    let (a, b) = (set(a), set(b));
    let again = written(a.clone());
    assert_eq!(
        written(set(read(&again).expect("own sets are read"))),
        again
    );
    // Text is kept only where it is what would be written.
    assert_eq!(kept[0]["fieldsV1"], again.as_str());

    let both = a.clone().union(b.clone());
    assert!(both.covers(&a) && both.covers(&b));
    let shared = a.intersection(&b);
    assert!(a.covers(&shared) && b.covers(&shared));
    assert!(same(&shared, &b.intersection(&a)));
    let left = a.difference(&b);
    assert!(!left.meets(&b) && a.covers(&left));
    assert!(same(&left.clone().union(shared), &a));
    let mut rest = a.clone();
    rest.subtract_recursively(&b);
    assert!(left.covers(&rest));
    assert_eq!(a.is_empty(), a.paths().is_empty());

    // By way of an object in storage.
    let message = schema::kind("", "v1", "ConfigMap").expect("a kind");
    let mut object = json!({"metadata": {"managedFields": [{"fieldsV1": again}]}});
    let mut proto = Vec::new();
    codec::tree::to_proto(message, &object, &mut proto).expect("a tree is protobuf");
    let back = codec::tree::from_proto(message, &proto).expect("own bytes are read");
    assert_eq!(
        back["metadata"]["managedFields"][0]["fieldsV1"],
        again.as_str()
    );
    codec::tree::expand_managed_fields(&mut object);
    let mut json = Vec::new();
    codec::tree::to_json(message, &object, &mut json).expect("a tree is JSON");
    let strict = codec::decode::Strictness::Ignore;
    let sent = codec::decode::json(message, &json, strict).expect("own JSON is read");
    let sent = &sent.value["metadata"]["managedFields"][0]["fieldsV1"];
    let text = sent.as_str().map(str::to_owned);
    let text = text.or_else(|| (*sent == Value::Null).then(|| "{}".to_owned()));
    let read = read(&text.expect("trees hold text")).expect("it is a set");
    assert!(same(&set(read), &a));
});
