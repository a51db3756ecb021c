//! Plans, as tables.

use std::cmp::Ordering;
use std::sync::Arc;

use client::{Error, Object as _};
use jiff::Timestamp;
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use meta::{GroupVersionResource, Status};
use serde_json::{Value, json};

use super::definition::{Definition, name_of};
use super::plan::*;
use super::{Stored, touch};
use crate::discovery::{Resource, Resources};

const BORN: &str = "2026-01-01T00:00:00Z";

fn at(second: i64) -> Timestamp {
    let born: Timestamp = BORN.parse().unwrap();
    Timestamp::from_second(born.as_second() + second).unwrap()
}

/// A migration of `widgets.example.com`: conditions such as `Running`, or `-Running` where it is
/// false, and `@7` for the revision.
fn migration(name: &str, second: i64, words: &str) -> StorageVersionMigration {
    let words: Vec<_> = words.split_whitespace().collect();
    let conditions = words.iter().filter(|word| !word.starts_with('@'));
    let conditions = conditions.map(|word| {
        let (status, ty) = match word.strip_prefix('-') {
            Some(ty) => ("False", ty),
            None => ("True", *word),
        };
        json!({
            "type": ty, "status": status, "reason": "R", "message": "M",
            "lastTransitionTime": BORN,
        })
    });
    let revision = words.iter().find_map(|word| word.strip_prefix('@'));
    serde_json::from_value(json!({
        "metadata": {"name": name, "generation": 3, "creationTimestamp": at(second)},
        "spec": {"resource": {"group": "example.com", "resource": "widgets"}},
        "status": {"conditions": conditions.collect::<Value>(), "resourceVersion": revision},
    }))
    .unwrap()
}

#[test]
fn phases() {
    for (words, expected) in [
        ("", Phase::Idle),
        ("Running", Phase::Unbounded),
        ("Running @7", Phase::Bounded("7")),
        ("Running @7 Succeeded", Phase::Idle),
        ("Running Failed", Phase::Idle),
        ("-Running @7 Failed", Phase::Idle),
        ("-Running", Phase::Idle),
        // Whoever noted the revision has seen that it runs.
        ("-Running @7", Phase::Bounded("7")),
        ("Running @7 -Succeeded -Failed", Phase::Bounded("7")),
    ] {
        assert_eq!(phase(&migration("m", 0, words)), expected, "{words}");
    }
}

/// `name@second: conditions` for each migration; which end, and whose turn it is.
#[test]
fn turns() {
    for (all, expected) in [
        (&[][..], "[] -"),
        (&["a@0:"], "[] a"),
        (&["b@0:", "a@0:"], "[] a"),
        (&["a@1:", "b@0:"], "[] b"),
        (&["a@0:", "b@1: Running"], "[] -"),
        (&["b@1: Running @7", "a@0:"], "[] -"),
        (&["a@0: Running @7 Succeeded", "b@1:"], "[a] b"),
        (&["a@0: -Running @7 Succeeded", "b@1:"], "[] b"),
        (&["a@0: Running Failed", "b@1: Running Failed"], "[a b] -"),
        (&["a@0: Running Failed", "b@1: Running", "c@2:"], "[a] -"),
        (&["a@0: Failed", "b@1: Succeeded"], "[] -"),
    ] {
        let all: Vec<_> = all
            .iter()
            .map(|text| {
                let (name, words) = text.split_once(':').unwrap();
                let (name, second) = name.split_once('@').unwrap();
                Arc::new(migration(name, second.parse().unwrap(), words))
            })
            .collect();
        let Turn { completed, next } = turn(&all);
        let completed: Vec<_> = completed.iter().map(|m| m.name()).collect();
        let next = next.as_ref().map_or("-", |m| m.name());
        let came = format!("[{}] {next}", completed.join(" "));
        assert_eq!(came, expected, "{all:?}");
    }
}

fn said(migration: &StorageVersionMigration) -> Vec<String> {
    let status = serde_json::to_value(&migration.status).unwrap();
    let conditions = status["conditions"].as_array().unwrap().iter();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    conditions
        .map(|c| {
            let fields = ["type", "status", "reason", "message", "lastTransitionTime"];
            let fields: Vec<_> = fields.iter().map(|field| word(&c[*field])).collect();
            format!("{} {}", fields.join("|"), c["observedGeneration"])
        })
        .collect()
}

const LATER: &str = "2026-01-01T00:01:40Z";

#[test]
fn conditions_are_upstreams() {
    let now = at(100);
    let fresh = migration("m", 0, "");
    for (verdict, expected) in [
        (
            Verdict::Running,
            "Running|True|MigrationRunning|The migration is running",
        ),
        (
            Verdict::Succeeded,
            "Succeeded|True|StorageVersionMigrationSucceeded|",
        ),
        (
            Verdict::Failed("why".to_owned()),
            "Failed|True|StorageVersionMigrationFailed|why",
        ),
    ] {
        let expected = format!("{expected}|{LATER} null");
        assert_eq!(said(&with(&fresh, &verdict, now)), [expected]);
    }
    let running = migration("m", 0, "Running");
    assert_eq!(with(&running, &Verdict::Running, now), running);
    let ended = migration("m", 0, "Running Succeeded");
    let expected = [
        format!("Running|False|MigrationCompleted|Migration completed|{LATER} 3"),
        format!("Succeeded|True|R|M|{BORN} null"),
    ];
    assert_eq!(said(&completed(&ended, now)), expected);
    let noted = bounded(&running, "12");
    assert_eq!(phase(&noted), Phase::Bounded("12"));
    assert_eq!(said(&noted), said(&running));
}

fn resource(version: &str, verbs: &str) -> Resource {
    Resource {
        gvr: GroupVersionResource::new("example.com", version, "widgets"),
        kind: "Widget".to_owned(),
        namespaced: true,
        verbs: verbs.split(' ').map(str::to_owned).collect(),
    }
}

#[test]
fn resources_are_found_in_the_version_that_is_preferred() {
    let all = "create delete get list patch update watch";
    let served = Resources::of(vec![resource("v2", all), resource("v1", "get")]);
    let nothing = Resources::default();
    let born = migration("m", 0, "Running");
    let found = Target::Found(&resource("v2", all));
    assert_eq!(target(&born, &served, "absent", at(0)), found);
    assert_eq!(target(&born, &nothing, "absent", at(59)), Target::Awaited);
    assert_eq!(
        target(&born, &nothing, "absent", at(60)),
        Target::Never("absent".to_owned())
    );
    // The name of the kind, or that of another group, is not the resource's.
    for wanted in [
        json!({"group": "example.com", "resource": "widget"}),
        json!({"group": "", "resource": "widgets"}),
    ] {
        let mut other = born.clone();
        other.spec.as_mut().unwrap().resource = serde_json::from_value(wanted).unwrap();
        let never = Target::Never("absent".to_owned());
        assert_eq!(target(&other, &served, "absent", at(60)), never);
    }
    assert_eq!(hindrance(&resource("v2", all)), None);
    assert_eq!(
        hindrance(&resource("v1", "get list update")).unwrap(),
        "resource \"example.com/v1, Resource=widgets\" does not support discovery operations: \
         [update patch list]"
    );
}

#[test]
fn revisions_are_numbers_of_any_length() {
    for (a, b, expected) in [
        ("9", "10", Ok(Ordering::Less)),
        ("10", "9", Ok(Ordering::Greater)),
        ("7", "7", Ok(Ordering::Equal)),
        (
            "99999999999999999999998",
            "99999999999999999999999",
            Ok(Ordering::Less),
        ),
        ("0", "7", Err("0")),
        ("7", "", Err("")),
        ("7", "07", Err("07")),
        ("7a", "7", Err("7a")),
    ] {
        let expected = expected.map_err(|text| Malformed(text.to_owned()));
        assert_eq!(compare(a, b), expected, "{a} {b}");
    }
}

#[test]
fn only_what_another_time_could_change_is_tried_again() {
    let status = |code: u16, reason: &str| {
        let status = json!({"status": "Failure", "code": code, "reason": reason});
        Error::from(serde_json::from_value::<Status>(status).unwrap())
    };
    let lost = Error::Transport {
        server: String::new(),
        message: String::new(),
        refused: true,
        connecting: true,
        source: None,
    };
    for (error, expected) in [
        (status(409, "Conflict"), Consequence::Unneeded),
        (status(429, "TooManyRequests"), Consequence::Again),
        (status(500, "InternalError"), Consequence::Again),
        (status(503, "ServiceUnavailable"), Consequence::Again),
        (status(504, "Timeout"), Consequence::Again),
        (lost, Consequence::Again),
        (Error::NotLeading, Consequence::Again),
        (status(403, "Forbidden"), Consequence::Fails),
        (status(404, "NotFound"), Consequence::Fails),
        (status(422, "Invalid"), Consequence::Fails),
    ] {
        assert_eq!(consequence(&error), expected, "{error:?}");
    }
}

#[test]
fn an_object_is_named_and_nothing_more() {
    let object: Stored = serde_json::from_value(json!({
        "metadata": {"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "5", "x": 1},
    }))
    .unwrap();
    let resource = resource("v1", "");
    let client::Patch::Apply(patch) = touch(&resource, "example.com/v1", &object) else {
        panic!("not an apply");
    };
    assert_eq!(
        serde_json::to_value(patch).unwrap(),
        json!({
            "apiVersion": "example.com/v1", "kind": "Widget",
            "metadata": {"uid": "u", "resourceVersion": "5"},
        })
    );
}

/// `told` is the status, the generation and the message of what was said before.
fn definition(generation: i64, told: Option<(&str, i64, &str)>) -> Definition {
    let mut conditions = vec![json!({"type": "Established", "observedGeneration": 9})];
    conditions.extend(told.map(|(status, generation, message)| {
        json!({
            "type": "StorageMigrating", "status": status, "message": message,
            "observedGeneration": generation,
        })
    }));
    serde_json::from_value(json!({
        "metadata": {
            "name": "widgets.example.com", "generation": generation, "resourceVersion": "8",
        },
        "spec": {"versions": [
            {"name": "v1", "storage": false, "schema": {}}, {"name": "v2", "storage": true},
        ]},
        "status": {"conditions": conditions, "storedVersions": ["v1", "v2"]},
    }))
    .unwrap()
}

#[test]
fn definitions_are_told() {
    let now = at(100);
    let resource = resource_of(&migration("m", 0, ""));
    assert_eq!(name_of(&resource), "widgets.example.com");
    let applied = |status: &str, reason: &str, message: &str, stored: &[&str]| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.com", "resourceVersion": "8"},
            "status": {"conditions": [{
                "type": "StorageMigrating", "status": status, "reason": reason,
                "message": message, "lastTransitionTime": LATER, "observedGeneration": 4,
            }], "storedVersions": stored},
        })
    };
    const RUNS: &str = "Migration m is running";
    let both: &[&str] = &["v1", "v2"];
    let begun = Some(applied("True", "MigrationRunning", RUNS, both));
    for (told, expected) in [
        (None, &begun),
        (Some(("True", 3, RUNS)), &begun),
        (Some(("True", 4, "Migration n is running")), &begun),
        (Some(("False", 4, "The migration has failed")), &begun),
        (Some(("True", 4, RUNS)), &None),
    ] {
        assert_eq!(definition(4, told).begun("m", now), *expected, "{told:?}");
    }
    let updated = applied(
        "False",
        "MigrationSucceeded",
        "The migration has succeeded and the stored versions have been updated",
        &["v2"],
    );
    let changed = applied(
        "False",
        "MigrationSucceeded",
        "The migration has succeeded but the stored versions have not been updated due to a \
         generation mismatch",
        both,
    );
    let failed = applied("False", "MigrationFailed", "The migration has failed", both);
    for (told, succeeded, expected) in [
        (Some(("True", 4, RUNS)), true, Some(updated)),
        (Some(("True", 3, RUNS)), true, Some(changed.clone())),
        (None, true, Some(changed)),
        (Some(("True", 4, RUNS)), false, Some(failed)),
        // It was told, and the manager ended before the migration was.
        (Some(("False", 4, "")), true, None),
    ] {
        let came = definition(4, told).ended(succeeded, now);
        assert_eq!(came, expected, "{told:?} {succeeded}");
    }
}
