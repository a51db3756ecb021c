//! Revisions: the annotations that number a Deployment's ReplicaSets and carry its history.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions of a ReplicaSet that came back, separated by commas.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's size when the ReplicaSet was last scaled; if it differs, the Deployment
/// has been scaled since.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Size plus surge at that time: the base of proportional scaling.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// A request to roll back, left by the old `extensions/v1beta1` rollback subresource.
pub const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

const MAX_HISTORY_LENGTH: usize = 2000;

type Annotations = BTreeMap<String, String>;

/// 0 without the annotation, `None` if it is no number.
pub fn revision(annotations: Option<&Annotations>) -> Option<i64> {
    annotations
        .and_then(|a| a.get(REVISION))
        .map_or(Some(0), |v| v.parse().ok())
}

pub fn revision_of(rs: &ReplicaSet) -> Option<i64> {
    revision(rs.metadata.annotations.as_ref())
}

/// The highest revision among them.
pub fn max<'a>(sets: impl Iterator<Item = &'a ReplicaSet>) -> i64 {
    sets.filter_map(revision_of).fold(0, i64::max)
}

/// The second highest: where a rollback without a number goes. 0 if there is none.
pub fn last<'a>(sets: impl Iterator<Item = &'a ReplicaSet>) -> i64 {
    let (mut highest, mut second) = (0, 0);
    for v in sets.filter_map(revision_of) {
        if v >= highest {
            second = highest;
            highest = v;
        } else if v > second {
            second = v;
        }
    }
    second
}

/// The revision that a rollback is asked for; 0 means the one before.
pub fn rollback_to(deployment: &Deployment) -> Option<i64> {
    let annotations = deployment.metadata.annotations.as_ref()?;
    annotations
        .get(ROLLBACK_TO)
        .filter(|v| !v.is_empty())?
        .parse()
        .ok()
}

/// Annotations that stay where they are.
fn is_own(key: &str) -> bool {
    matches!(
        key,
        LAST_APPLIED | REVISION | REVISION_HISTORY | DESIRED_REPLICAS | MAX_REPLICAS | ROLLBACK_TO
    )
}

/// Gives the new ReplicaSet the Deployment's annotations and the revision, if it is higher than
/// the one it has. Returns whether anything changed.
pub fn annotate_new(deployment: &Deployment, rs: &mut ReplicaSet, new_revision: i64) -> bool {
    let mut changed = false;
    let to = rs.metadata.annotations.get_or_insert_default();
    for (k, v) in deployment.metadata.annotations.iter().flatten() {
        if !is_own(k) && to.get(k) != Some(v) {
            to.insert(k.clone(), v.clone());
            changed = true;
        }
    }
    let old = to.get(REVISION).cloned();
    let old_revision = match old.as_deref() {
        None | Some("") => 0,
        Some(text) => match text.parse() {
            Ok(n) => n,
            Err(_) => return false,
        },
    };
    if old_revision >= new_revision {
        return changed;
    }
    to.insert(REVISION.to_owned(), new_revision.to_string());
    if let Some(old) = old {
        let history = to.get(REVISION_HISTORY).map_or("", String::as_str);
        if let Some(history) = appended(history, &old) {
            to.insert(REVISION_HISTORY.to_owned(), history);
        }
    }
    true
}

/// The history with one more revision; the oldest give way when it grows too long.
fn appended(history: &str, revision: &str) -> Option<String> {
    if history.is_empty() || history.starts_with(',') {
        return Some(revision.to_owned());
    }
    let mut rest = history;
    while !rest.is_empty() && rest.len() + revision.len() + 1 > MAX_HISTORY_LENGTH {
        rest = rest.split_once(',').map_or("", |(_, r)| r);
    }
    match rest {
        "" if revision.len() > MAX_HISTORY_LENGTH => None,
        "" => Some(revision.to_owned()),
        rest => Some(format!("{rest},{revision}")),
    }
}

/// Gives the Deployment the annotations of the ReplicaSet it rolls back to, its own excepted.
pub fn restore(deployment: &mut Deployment, from: &ReplicaSet) {
    let annotations = deployment.metadata.annotations.get_or_insert_default();
    annotations.retain(|k, _| is_own(k));
    for (k, v) in from.metadata.annotations.iter().flatten() {
        if !is_own(k) {
            annotations.insert(k.clone(), v.clone());
        }
    }
}

/// Notes the Deployment's size on a ReplicaSet. Returns whether anything changed.
pub fn set_sizes(rs: &mut ReplicaSet, desired: i32, max: i32) -> bool {
    let annotations = rs.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in [(DESIRED_REPLICAS, desired), (MAX_REPLICAS, max)] {
        let value = value.to_string();
        if annotations.get(key) != Some(&value) {
            annotations.insert(key.to_owned(), value);
            changed = true;
        }
    }
    changed
}

/// A size noted on a ReplicaSet.
pub fn size(rs: &ReplicaSet, key: &str) -> Option<i32> {
    let text = rs.metadata.annotations.as_ref()?.get(key)?;
    text.parse().ok().filter(|n| *n >= 0)
}
