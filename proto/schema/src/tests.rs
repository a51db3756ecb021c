//! The tables hold together, say a few facts that must not change, and describe every
//! field of upstream's golden fixtures.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::*;

/// The fields as JSON shows them: inlined messages' fields among the message's own.
fn flattened(message: &'static Message) -> Vec<&'static Field> {
    message
        .fields
        .iter()
        .flat_map(|f| match f.ty {
            Type::Message(m) if f.json.is_empty() => flattened(m),
            _ => vec![f],
        })
        .collect()
}

fn pod_spec() -> &'static Message {
    message("io.k8s.api.core.v1.PodSpec").expect("PodSpec")
}

#[test]
fn indexes_are_sorted_and_complete() {
    for m in messages() {
        let numbers: Vec<u32> = m
            .by_number
            .iter()
            .map(|i| m.fields[*i as usize].number)
            .collect();
        assert!(
            numbers.is_sorted_by(|a, b| a < b),
            "{}: {numbers:?}",
            m.name
        );
        assert_eq!(
            numbers.len(),
            m.fields.iter().filter(|f| f.number != 0).count(),
            "{}",
            m.name
        );
        let names: Vec<&str> = m
            .by_json
            .iter()
            .map(|i| m.fields[*i as usize].json)
            .collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{}: {names:?}", m.name);
        assert_eq!(
            names.len(),
            m.fields.iter().filter(|f| !f.json.is_empty()).count(),
            "{}",
            m.name
        );
        assert!(std::ptr::eq(
            message(m.name).expect("found by its name"),
            *m
        ));
    }
    assert!(messages().is_sorted_by(|a, b| a.name < b.name));
}

#[test]
fn json_names_are_unique_through_inlined_messages() {
    for m in messages() {
        let mut seen = BTreeSet::new();
        for f in flattened(m) {
            assert!(seen.insert(f.json), "{}: {}", m.name, f.json);
            assert!(m.field(f.json).is_some_and(|found| std::ptr::eq(found, f)));
        }
    }
}

#[test]
fn keys_are_fields_of_the_items() {
    for m in messages() {
        for f in m.fields {
            for key in f.list_map_keys.iter().chain(&f.patch_merge_key) {
                assert_eq!(f.cardinality, Cardinality::List, "{}.{}", m.name, f.json);
                let Type::Message(item) = f.ty else {
                    panic!("{}.{}: keyed, but no list of messages", m.name, f.json)
                };
                assert!(item.field(key).is_some(), "{}.{}: {key}", m.name, f.json);
            }
            assert_eq!(
                f.list_type == ListType::Map,
                !f.list_map_keys.is_empty(),
                "{}.{}",
                m.name,
                f.json
            );
        }
        for member in m.unions.iter().flat_map(|u| u.members) {
            assert!(m.field(member.0).is_some(), "{}: {}", m.name, member.0);
        }
    }
}

#[test]
fn defaults_are_json() {
    for f in messages().iter().flat_map(|m| m.fields) {
        if let Some(default) = f.default {
            assert!(
                serde_json::from_str::<Value>(default).is_ok(),
                "{}: {default}",
                f.json
            );
        }
    }
}

#[test]
fn group_versions_and_kinds_are_counted() {
    let served: Vec<_> = group_versions()
        .iter()
        .filter(|gv| gv.group_priority != 0)
        .collect();
    assert_eq!(served.len(), 36);
    assert_eq!(resources().len(), 95);
    let mut resources_of: usize = 0;
    for gv in &served {
        resources_of += gv.resources().len();
        for r in gv.resources() {
            assert_eq!((r.group, r.version), (gv.group, gv.version));
        }
        assert!(gv.resources().is_sorted_by(|a, b| a.plural < b.plural));
    }
    assert_eq!(resources_of, resources().len());
    // Those of one group version, not the likes of DeleteOptions, which every group version has.
    let kinds = messages()
        .iter()
        .filter(|m| m.gvks.len() < served.len())
        .flat_map(|m| m.gvks)
        .filter(|k| {
            served
                .iter()
                .any(|gv| (gv.group, gv.version) == (k.group, k.version))
        })
        .count();
    assert_eq!(kinds, 233);
}

#[test]
fn a_resource_is_of_one_piece() {
    for r in resources() {
        let what = format!("{}/{} {}", r.group, r.version, r.kind);
        assert!(
            kind(r.group, r.version, r.kind).is_some_and(|m| std::ptr::eq(m, r.message)),
            "{what}"
        );
        assert_eq!(
            r.verbs.contains(&"list"),
            r.list_message.is_some(),
            "{what}"
        );
        assert_eq!(
            r.storage_version.is_empty(),
            r.storage_prefix.is_empty(),
            "{what}"
        );
        for s in r.subresources {
            assert!(
                kind(s.group, s.version, s.kind).is_some(),
                "{what}: {}",
                s.name
            );
        }
        if !r.storage_version.is_empty() {
            let (group, version) = r
                .storage_version
                .rsplit_once('/')
                .unwrap_or(("", r.storage_version));
            assert!(
                kind(group, version, r.kind).is_some(),
                "{what}: {}",
                r.storage_version
            );
        }
    }
    let mut prefixes: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for r in resources().iter().filter(|r| !r.storage_prefix.is_empty()) {
        let stored = (r.storage_version, r.kind);
        assert_eq!(
            *prefixes.entry(r.storage_prefix).or_insert(stored),
            stored,
            "{}",
            r.storage_prefix
        );
    }
}

#[test]
fn spot_facts() {
    let containers = pod_spec().field("containers").expect("containers");
    assert_eq!(containers.number, 2);
    assert_eq!(containers.list_map_keys, ["name"]);
    assert_eq!(containers.patch_strategy, PatchStrategy::Merge);
    assert!(containers.required);

    let port = message("io.k8s.api.core.v1.ServicePort").expect("ServicePort");
    let protocol = port.field("protocol").expect("protocol");
    assert_eq!(protocol.default, Some("\"TCP\""));
    assert_eq!(protocol.enum_values, ["SCTP", "TCP", "UDP"]);

    // `volumeSource` is inlined in JSON and a message in protobuf.
    let volume = message("io.k8s.api.core.v1.Volume").expect("Volume");
    assert!(volume.field("emptyDir").is_some());
    assert_eq!(volume.numbered(2).map(|f| f.json), Some(""));

    let first = pod_spec().fields[0].json;
    assert_eq!(first, "volumes", "fields are in Go's order");

    let stored = |plural| {
        let r = resources()
            .iter()
            .find(|r| r.plural == plural)
            .expect("a resource");
        (r.storage_version, r.storage_prefix)
    };
    assert_eq!(stored("nodes"), ("v1", "minions"));
    assert_eq!(stored("endpoints"), ("v1", "services/endpoints"));
    assert_eq!(stored("deployments"), ("apps/v1", "deployments"));
    assert_eq!(stored("tokenreviews"), ("", ""));

    let pods = resources().iter().find(|r| r.plural == "pods");
    let pods = pods.expect("pods");
    assert!(pods.selectable_fields.contains(&"spec.nodeName"));
    assert!(pods.enabled && pods.namespaced);
    let eviction = pods.subresources.iter().find(|s| s.name == "eviction");
    assert_eq!(
        eviction.map(|s| (s.group, s.kind)),
        Some(("policy", "Eviction"))
    );

    let delete = kind("apps", "v1", "DeleteOptions").expect("in every group version");
    assert_eq!(
        delete.name,
        "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
    );
    assert!(kind("", "v1", "Status").is_some());
    assert!(kind("apps", "v1", "Status").is_none());
    assert!(kind("", "v1", "Nonsense").is_none());
    let order: Vec<String> = group_versions()
        .iter()
        .take(3)
        .map(GroupVersion::api_version)
        .collect();
    assert_eq!(order, ["apiregistration.k8s.io/v1", "v1", "apps/v1"]);
}

/// Checks that a JSON value has no field that the tables do not know.
fn resolve(value: &Value, message: &'static Message, path: &str, unknown: &mut Vec<String>) {
    let Value::Object(object) = value else { return };
    for (name, value) in object {
        let path = format!("{path}.{name}");
        let Some(field) = message.field(name) else {
            unknown.push(path);
            continue;
        };
        let Type::Message(m) = field.ty else { continue };
        match (field.cardinality, value) {
            (Cardinality::One, value) => resolve(value, m, &path, unknown),
            (Cardinality::List, Value::Array(items)) => {
                items.iter().for_each(|v| resolve(v, m, &path, unknown));
            }
            (Cardinality::Map, Value::Object(entries)) => {
                entries.values().for_each(|v| resolve(v, m, &path, unknown));
            }
            _ => unknown.push(path),
        }
    }
}

/// Needs upstream's `staging/src/k8s.io/api/testdata/HEAD` in `FERROKUBE_FIXTURES`.
#[test]
fn every_fixture_resolves() {
    let Some(dir) = std::env::var_os("FERROKUBE_FIXTURES") else {
        eprintln!(
            "SKIPPED: FERROKUBE_FIXTURES does not name the directory of upstream's golden fixtures"
        );
        return;
    };
    let mut unknown = Vec::new();
    let mut fixtures = 0;
    for entry in std::fs::read_dir(dir).expect("FERROKUBE_FIXTURES is a directory") {
        let path = entry.expect("a readable directory").path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        fixtures += 1;
        let stem = path
            .file_stem()
            .and_then(|s| s.to_str())
            .expect("a file name");
        let (group_version, name) = stem.rsplit_once('.').expect("group.version.Kind");
        let (group, version) = group_version.rsplit_once('.').expect("group.version");
        let group = if group == "core" { "" } else { group };
        let Some(message) = kind(group, version, name) else {
            unknown.push(stem.to_owned());
            continue;
        };
        let bytes = std::fs::read(&path).expect("a readable fixture");
        let value: Value = serde_json::from_slice(&bytes).expect("a JSON fixture");
        resolve(&value, message, stem, &mut unknown);
    }
    assert!(unknown.is_empty(), "unknown: {unknown:#?}");
    assert_ne!(fixtures, 0, "no fixtures found");
    println!("{fixtures} fixtures resolve");
}
