//! What is left of a StorageVersion without the servers that are no more: pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::apiserverinternal::v1alpha1::{
    ServerStorageVersion, StorageVersion, StorageVersionCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const ALL_EQUAL: &str = "AllEncodingVersionsEqual";

#[derive(Debug, PartialEq)]
pub enum Plan {
    Keep,
    /// Its status is to be this.
    Write(Box<StorageVersion>),
    /// No server is left.
    Delete,
}

fn records(version: &StorageVersion) -> &[ServerStorageVersion] {
    let status = version.status.as_ref();
    let records = status.and_then(|status| status.storage_versions.as_deref());
    records.unwrap_or_default()
}

/// The servers that say how they store the resource.
pub fn servers(version: &StorageVersion) -> impl Iterator<Item = &str> {
    let records = records(version).iter();
    records.map(|record| record.api_server_id.as_str())
}

/// Plans for one StorageVersion. `gone` are servers that are no more.
pub fn plan(version: &StorageVersion, gone: &BTreeSet<&str>, now: Timestamp) -> Plan {
    let records = records(version);
    let left = records.iter();
    let left = left.filter(|record| !gone.contains(record.api_server_id.as_str()));
    let left: Vec<ServerStorageVersion> = left.cloned().collect();
    if left.len() == records.len() {
        return Plan::Keep;
    }
    let Some(first) = left.first() else {
        return Plan::Delete;
    };
    let encoding = &first.encoding_version;
    let common = left
        .iter()
        .all(|record| record.encoding_version == *encoding);
    let common = common.then(|| encoding.clone());
    let mut changed = version.clone();
    let generation = version.metadata.generation.filter(|g| *g != 0);
    let status = changed.status.get_or_insert_default();
    let before = std::mem::replace(&mut status.common_encoding_version, common.clone());
    status.storage_versions = Some(left);
    // From one common version to another it is a transition, too.
    let moved = before.is_some() && common.is_some() && before != common;
    let conditions = status.conditions.get_or_insert_default();
    set(
        conditions,
        condition(common.is_some(), generation, now),
        moved,
    );
    Plan::Write(Box::new(changed))
}

fn condition(common: bool, generation: Option<i64>, now: Timestamp) -> StorageVersionCondition {
    let (status, reason, message) = match common {
        true => (
            "True",
            "CommonEncodingVersionSet",
            "Common encoding version set",
        ),
        false => (
            "False",
            "CommonEncodingVersionUnset",
            "Common encoding version unset",
        ),
    };
    StorageVersionCondition {
        type_: ALL_EQUAL.to_owned(),
        status: status.to_owned(),
        observed_generation: generation,
        last_transition_time: Some(Time(now)),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// Sets a condition; that it is what it was is no transition, unless `moved`.
fn set(
    conditions: &mut Vec<StorageVersionCondition>,
    mut new: StorageVersionCondition,
    moved: bool,
) {
    let Some(old) = conditions.iter_mut().find(|c| c.type_ == new.type_) else {
        conditions.push(new);
        return;
    };
    if old.status == new.status && !moved {
        new.last_transition_time = old.last_transition_time.take();
    }
    *old = new;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const THEN: &str = "2026-01-01T00:00:00Z";
    const NOW: &str = "2026-01-02T00:00:00Z";

    /// Servers with the versions in which they store.
    fn version(
        records: &[(&str, &str)],
        common: Option<&str>,
        conditions: Value,
    ) -> StorageVersion {
        let records = records.iter().map(|(server, version)| {
            json!({
                "apiServerID": server, "encodingVersion": version, "decodableVersions": [version],
            })
        });
        let version = json!({
            "metadata": {"name": "g.things", "generation": 3, "resourceVersion": "7"}, "spec": {},
            "status": {
                "storageVersions": records.collect::<Vec<_>>(), "commonEncodingVersion": common,
                "conditions": conditions,
            },
        });
        serde_json::from_value(version).unwrap()
    }

    fn said(equal: bool, at: &str, generation: i64) -> Value {
        let word = if equal { "Set" } else { "Unset" };
        json!([{
            "type": "AllEncodingVersionsEqual", "status": if equal { "True" } else { "False" },
            "observedGeneration": generation, "lastTransitionTime": at,
            "reason": format!("CommonEncodingVersion{word}"),
            "message": format!("Common encoding version {}", word.to_lowercase()),
        }])
    }

    #[test]
    fn servers_that_are_no_more() {
        let old = |records| version(records, None, said(false, THEN, 1));
        let (a, b, c) = (("a", "v1"), ("b", "v2"), ("c", "v1"));
        let gone = [("x", "v1"), ("y", "v1")];
        let write = |records, common, at: &str| {
            let equal = Option::is_some(&common);
            Plan::Write(Box::new(version(records, common, said(equal, at, 3))))
        };
        for (case, from, expected) in [
            ("none", old(&[]), Plan::Keep),
            ("all live", old(&[a, b]), Plan::Keep),
            ("none lives", old(&gone), Plan::Delete),
            (
                "a common version comes",
                old(&[a, gone[0], c]),
                write(&[a, c], Some("v1"), NOW),
            ),
            (
                "there is none yet",
                old(&[a, gone[0], b]),
                write(&[a, b], None, THEN),
            ),
            (
                "it stays",
                version(&[a, gone[1]], Some("v1"), said(true, THEN, 1)),
                write(&[a], Some("v1"), THEN),
            ),
            (
                "it becomes another",
                version(&[gone[0], b], Some("v1"), said(true, THEN, 1)),
                write(&[b], Some("v2"), NOW),
            ),
            (
                "nothing was said",
                version(&[gone[0], b], None, json!(null)),
                write(&[b], Some("v2"), NOW),
            ),
        ] {
            let gone = BTreeSet::from(["x", "y", "z"]);
            assert_eq!(plan(&from, &gone, NOW.parse().unwrap()), expected, "{case}");
        }
    }

    #[test]
    fn what_others_say_stays() {
        let other = json!([{
            "type": "Other", "status": "True", "reason": "R", "message": "",
            "lastTransitionTime": THEN,
        }]);
        let from = version(&[("a", "v1"), ("x", "v1")], None, other);
        let gone = BTreeSet::from(["x"]);
        let Plan::Write(changed) = plan(&from, &gone, NOW.parse().unwrap()) else {
            panic!("a record goes");
        };
        let status = changed.status.unwrap();
        let types = status.conditions.iter().flatten().map(|c| c.type_.as_str());
        assert_eq!(types.collect::<Vec<_>>(), ["Other", ALL_EQUAL]);
        assert_eq!(changed.metadata, from.metadata);
    }
}
