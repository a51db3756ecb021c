//! Server-side apply on kinds of the real schema.

use schema::Message;
use serde_json::{Value, json};

use super::*;

struct OneVersion(&'static Message, &'static str);

impl Versions for OneVersion {
    fn message(&self, api_version: &str) -> Option<&'static Message> {
        (api_version == self.1).then_some(self.0)
    }

    fn convert(&self, object: &Value, _: &str, _: &str) -> Value {
        object.clone()
    }
}

/// An object that writes are done to.
struct Subject {
    versions: OneVersion,
    live: Value,
    managed: Managed,
}

impl Subject {
    fn new(group: &str, kind: &str, api_version: &'static str) -> Subject {
        let message = schema::kind(group, "v1", kind).unwrap();
        Subject {
            versions: OneVersion(message, api_version),
            live: json!({"apiVersion": api_version, "kind": kind}),
            managed: Managed::default(),
        }
    }

    fn request<'a>(&'a self, manager: &'a str, reset: &'a Set) -> Request<'a> {
        Request {
            versions: &self.versions,
            api_version: self.versions.1,
            message: self.versions.0,
            subresource: "",
            manager,
            now: "2026-01-01T00:00:00Z",
            reset,
        }
    }

    fn update(&mut self, manager: &str, object: Value) {
        let none = Set::default();
        let creating = self.managed.is_empty();
        let request = self.request(manager, &none);
        let mut managed = self.stored();
        let mut live = self.live.clone();
        if !creating {
            // As who calls it has them.
            live["metadata"]["managedFields"] = json!([{}]);
        }
        request
            .update(&mut managed, &live, &object, creating)
            .unwrap();
        let mut all_read = self.managed.clone();
        request
            .update(&mut all_read, &live, &object, creating)
            .unwrap();
        assert_eq!(managed.clone().write(), all_read.write());
        self.managed = managed;
        self.live = object;
    }

    /// The managers as the next request finds them.
    fn stored(&self) -> Managed {
        let list = self.managed.clone().write();
        Managed::read_lazily(list.as_ref(), &self.versions).unwrap()
    }

    fn apply(&mut self, manager: &str, applied: Value, force: bool) -> Result<(), Error> {
        let none = Set::default();
        let mut managed = self.stored();
        let object =
            self.request(manager, &none)
                .apply(&mut managed, &self.live, &applied, force)?;
        self.managed = managed;
        if let Some(object) = object {
            self.live = object;
        }
        Ok(())
    }

    fn fields(&self, manager: &str) -> Vec<String> {
        let entries = self.managed.entries.iter();
        entries
            .filter(|e| e.id.manager == manager)
            .flat_map(|e| e.set().paths())
            .collect()
    }
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

#[test]
fn what_is_no_longer_applied_goes() {
    let mut map = Subject::new("", "ConfigMap", "v1");
    map.apply("one", config_map(json!({"a": "1", "b": "1"})), false)
        .unwrap();
    assert_eq!(map.fields("one"), [".data.a", ".data.b"]);
    map.apply("two", config_map(json!({"b": "1"})), false)
        .unwrap();
    map.apply("one", config_map(json!({"a": "2"})), false)
        .unwrap();
    // The other applier still has b.
    assert_eq!(map.live["data"], json!({"a": "2", "b": "1"}));
    map.apply("two", config_map(json!({})), false).unwrap();
    assert_eq!(map.live["data"], json!({"a": "2"}));
    assert!(map.fields("two").is_empty() || map.fields("two") == [".data"]);
}

#[test]
fn what_a_write_does_not_meet_is_read_once() {
    let labelled = |label: &str, data: &str| {
        let mut map = config_map(json!({"a": data}));
        map["metadata"]["labels"] = json!({"l": label});
        map
    };
    let mut map = Subject::new("", "ConfigMap", "v1");
    map.update("creator", labelled("1", "1"));
    map.update("editor", config_map(json!({"a": "2"})));
    map.update("editor", config_map(json!({"a": "3"})));
    assert_eq!(map.fields("editor"), [".data.a"]);
    let mut is_read = |label, data| {
        map.update("labeller", labelled(label, data));
        let editors = |e: &&Entry| e.id.manager == "editor";
        map.managed.entries.iter().find(editors).unwrap().is_read()
    };
    is_read("1", "3");
    assert!(!is_read("2", "3"));
    assert!(!is_read("3", "3"));
    assert!(!is_read("3", "3"));
    map.update("labeller", labelled("3", "4"));
    assert!(map.fields("editor").is_empty());
    assert_eq!(
        map.fields("labeller"),
        [".data.a", ".metadata.labels", ".metadata.labels.l"]
    );
}

#[test]
fn nobody_goes_on_to_own_the_books() {
    let mut map = Subject::new("", "ConfigMap", "v1");
    map.update("creator", config_map(json!({"a": "1"})));
    for _ in 0..2 {
        let id = Identity::new("owner", Operation::Update, "v1", "");
        let books = Set::of(&[&["data", "b"], &["metadata", "managedFields"]]);
        map.managed.put(Entry::new(id, "v1", books));
        map.update("editor", config_map(json!({"a": "1"})));
        assert_eq!(map.fields("owner"), [".data.b"]);
    }
}

#[test]
fn another_value_is_a_conflict() {
    let mut map = Subject::new("", "ConfigMap", "v1");
    map.update("editor", config_map(json!({"a": "1"})));
    assert_eq!(map.fields("editor"), [".data", ".data.a"]);
    let Err(Error::Conflicts(conflicts)) = map.apply("one", config_map(json!({"a": "2"})), false)
    else {
        panic!("no conflict");
    };
    assert_eq!(conflicts.len(), 1);
    assert_eq!(conflicts[0].path, ".data.a");
    assert_eq!(conflicts[0].manager.to_string(), "\"editor\" using v1");
    assert_eq!(map.live["data"]["a"], "1");
    map.apply("one", config_map(json!({"a": "2"})), true)
        .unwrap();
    assert_eq!(map.live["data"]["a"], "2");
    assert_eq!(map.fields("editor"), [".data"]);
    assert_eq!(map.fields("one"), [".data.a"]);
}

#[test]
fn the_same_value_is_shared() {
    let mut map = Subject::new("", "ConfigMap", "v1");
    map.update("editor", config_map(json!({"a": "1"})));
    map.apply("one", config_map(json!({"a": "1"})), false)
        .unwrap();
    assert_eq!(map.fields("editor"), [".data", ".data.a"]);
    assert_eq!(map.fields("one"), [".data.a"]);
}

fn service(ports: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
           "spec": {"ports": ports}})
}

#[test]
fn items_are_told_apart_by_their_keys() {
    let mut s = Subject::new("", "Service", "v1");
    s.apply("one", service(json!([{"port": 80, "name": "web"}])), false)
        .unwrap();
    // The protocol has a default, which is part of the key.
    assert_eq!(
        s.fields("one"),
        [
            ".spec.ports[port=80,protocol=\"TCP\"]",
            ".spec.ports[port=80,protocol=\"TCP\"].name",
            ".spec.ports[port=80,protocol=\"TCP\"].port",
        ]
    );
    s.apply(
        "two",
        service(json!([{"port": 53, "protocol": "UDP", "name": "dns"}])),
        false,
    )
    .unwrap();
    assert_eq!(s.live["spec"]["ports"].as_array().unwrap().len(), 2);
    let Err(Error::Invalid { why, .. }) =
        s.apply("three", service(json!([{"port": 1}, {"port": 1}])), false)
    else {
        panic!("duplicates are refused");
    };
    assert_eq!(
        why,
        ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]"
    );
    s.apply("one", service(json!([])), false).unwrap();
    assert_eq!(s.live["spec"]["ports"][0]["name"], "dns");
}

#[test]
fn what_is_applied_has_a_type() {
    let mut s = Subject::new("", "Service", "v1");
    let wrong = json!({"apiVersion": "v1", "kind": "Service", "spec": {"typ": 1, "type": 2}});
    let Err(Error::Invalid { doing, why }) = s.apply("one", wrong, false) else {
        panic!("not declared");
    };
    assert_eq!(doing, "failed to create typed patch object");
    assert_eq!(
        why,
        "errors:\n  .spec.typ: field not declared in schema\n  .spec.type: expected string, got &value.valueUnstructured{Value:2}"
    );
}

#[test]
fn a_created_object_is_its_creators() {
    let mut d = Subject::new("apps", "Deployment", "apps/v1");
    d.update(
        "kubectl-create",
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "labels": {"app": "a"}},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": {"labels": {"app": "a"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    );
    assert_eq!(
        d.managed.clone().write().unwrap()[0]["fieldsV1"],
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                        ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                    }}},
                },
            },
        })
        .to_string()
    );
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let mut map = Subject::new("", "ConfigMap", "v1");
    let mut object = config_map(json!({"a": "1", "b": "1"}));
    object["metadata"]["annotations"] = json!({LAST_APPLIED: object.to_string()});
    map.update("kubectl-client-side-apply", object);
    map.apply("kubectl", config_map(json!({"a": "2", "b": "1"})), false)
        .unwrap();
    assert_eq!(map.live["data"]["a"], "2");

    map.update("editor", {
        let mut edited = map.live.clone();
        edited["data"]["b"] = json!("3");
        edited
    });
    let Err(Error::Conflicts(conflicts)) =
        map.apply("kubectl", config_map(json!({"a": "2", "b": "4"})), false)
    else {
        panic!("no conflict");
    };
    assert_eq!(conflicts[0].path, ".data.b");
}

#[test]
fn a_field_may_say_otherwise_than_its_type() {
    // References are atomic, but for that of a volume to its claim.
    let mut volume = Subject::new("", "PersistentVolume", "v1");
    let object = |phase: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "a"},
               "spec": {"claimRef": {"name": "c", "namespace": phase}}})
    };
    volume.apply("one", object("a"), false).unwrap();
    assert_eq!(
        volume.fields("one"),
        [".spec.claimRef.name", ".spec.claimRef.namespace"]
    );
}
