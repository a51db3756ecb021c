//! What a terminating namespace's conditions say, and when to look again: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::GroupVersionResource;

/// What is left of one resource after a round of deletions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remaining {
    pub count: usize,
    /// Objects by finalizer.
    pub finalizers: BTreeMap<String, usize>,
}

/// What a round of deletions has found.
#[derive(Debug, Default)]
pub struct Findings {
    pub discovery_error: Option<String>,
    pub content_errors: Vec<String>,
    pub remaining: BTreeMap<(String, String, String), Remaining>,
    /// Pods were left, and nothing else has been touched.
    pub only_pods: bool,
}

impl Findings {
    pub fn add(&mut self, resource: &GroupVersionResource, remaining: Remaining) {
        if remaining.count > 0 {
            let key = (
                resource.resource.clone(),
                resource.group.clone(),
                resource.version.clone(),
            );
            self.remaining.insert(key, remaining);
        }
    }
}

/// A condition's type; its reason and message when all is well.
const WELL: [(&str, &str, &str); 5] = [
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    (
        "NamespaceContentRemaining",
        "ContentRemoved",
        "All content successfully removed",
    ),
    (
        "NamespaceFinalizersRemaining",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
];

/// The trouble with one of [`WELL`], if any: reason and message.
fn trouble(index: usize, findings: &Findings) -> Option<(&'static str, String)> {
    match index {
        0 => findings
            .discovery_error
            .clone()
            .map(|e| ("DiscoveryFailed", e)),
        2 if !findings.content_errors.is_empty() => {
            let mut errors = findings.content_errors.clone();
            errors.sort();
            let message = format!(
                "Failed to delete all resource types, {} remaining: {}",
                errors.len(),
                errors.join(", ")
            );
            Some(("ContentDeletionFailed", message))
        }
        // While only pods have been dealt with, the rest is not known.
        3 | 4 if findings.only_pods => None,
        3 if !findings.remaining.is_empty() => {
            let mut list: Vec<String> = findings
                .remaining
                .iter()
                .map(|((resource, group, _), r)| {
                    format!("{resource}.{group} has {} resource instances", r.count)
                })
                .collect();
            list.sort();
            Some((
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", list.join(", ")),
            ))
        }
        4 => {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for (finalizer, n) in findings.remaining.values().flat_map(|r| &r.finalizers) {
                *counts.entry(finalizer).or_default() += n;
            }
            let list: Vec<String> = counts
                .iter()
                .map(|(f, n)| format!("{f} in {n} resource instances"))
                .collect();
            let message = format!(
                "Some content in the namespace has finalizers remaining: {}",
                list.join(", ")
            );
            (!list.is_empty()).then_some(("SomeFinalizersRemain", message))
        }
        _ => None,
    }
}

/// Brings the conditions up to date; returns whether any changed.
pub fn update_conditions(
    conditions: &mut Vec<NamespaceCondition>,
    findings: &Findings,
    now: Timestamp,
) -> bool {
    let mut changed = false;
    for (i, (kind, reason, message)) in WELL.into_iter().enumerate() {
        let (status, reason, message) = match trouble(i, findings) {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", reason, message.to_owned()),
        };
        let new = NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        };
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            None => conditions.push(new),
            Some(old)
                if old.status == new.status
                    && old.reason == new.reason
                    && old.message == new.message =>
            {
                continue;
            }
            Some(old) => {
                let since = old
                    .last_transition_time
                    .take()
                    .filter(|_| old.status == new.status);
                *old = NamespaceCondition {
                    last_transition_time: since.or(new.last_transition_time.clone()),
                    ..new
                };
            }
        }
        changed = true;
    }
    changed
}

/// How long the rest may still need, after a deletion that left objects behind. `grace` is the
/// longest grace period of pods in it.
pub fn estimate(
    remaining: &Remaining,
    grace: Duration,
    deleted: Timestamp,
    now: Timestamp,
) -> Result<Duration, Unexpected> {
    const FINALIZERS: Duration = Duration::from_secs(15);
    let passed = now.duration_since(deleted);
    if passed < SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX) {
        return Ok(grace);
    }
    if !remaining.finalizers.is_empty() {
        return Ok(FINALIZERS);
    }
    Err(Unexpected)
}

/// Objects are left that nothing keeps.
#[derive(Debug, PartialEq, Eq)]
pub struct Unexpected;

/// When to look again, if content needs so long.
pub fn look_again(estimate: Duration) -> Duration {
    Duration::from_secs(estimate.as_secs() / 2 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2024-01-01T00:00:00Z".parse().unwrap()
    }

    fn find<'a>(conditions: &'a [NamespaceCondition], kind: &str) -> (&'a str, &'a str, &'a str) {
        let c = conditions.iter().find(|c| c.type_ == kind).unwrap();
        (
            &c.status,
            c.reason.as_deref().unwrap(),
            c.message.as_deref().unwrap(),
        )
    }

    #[test]
    fn conditions_tell_what_is_left() {
        let mut findings = Findings {
            content_errors: vec!["b".into(), "a".into()],
            ..Findings::default()
        };
        let left = Remaining {
            count: 2,
            finalizers: [("x/y".to_owned(), 1)].into(),
        };
        findings.add(&GroupVersionResource::new("", "v1", "pods"), left.clone());
        findings.add(
            &GroupVersionResource::new("apps", "v1", "deployments"),
            Remaining {
                count: 0,
                ..left.clone()
            },
        );
        findings.add(
            &GroupVersionResource::new("apps", "v1", "replicasets"),
            left,
        );
        let mut conditions = Vec::new();
        assert!(update_conditions(&mut conditions, &findings, now()));
        assert!(!update_conditions(&mut conditions, &findings, now()));
        assert_eq!(
            find(&conditions, "NamespaceDeletionContentFailure").2,
            "Failed to delete all resource types, 2 remaining: a, b"
        );
        assert_eq!(
            find(&conditions, "NamespaceContentRemaining"),
            (
                "True",
                "SomeResourcesRemain",
                "Some resources are remaining: pods. has 2 resource instances, replicasets.apps has 2 resource instances"
            )
        );
        assert_eq!(
            find(&conditions, "NamespaceFinalizersRemaining").2,
            "Some content in the namespace has finalizers remaining: x/y in 2 resource instances"
        );
        assert_eq!(
            find(&conditions, "NamespaceDeletionDiscoveryFailure").0,
            "False"
        );
        assert!(update_conditions(
            &mut conditions,
            &Findings::default(),
            now()
        ));
        assert_eq!(
            find(&conditions, "NamespaceContentRemaining").1,
            "ContentRemoved"
        );
    }

    #[test]
    fn estimates() {
        let grace = Duration::from_secs(30);
        let later = |s: i64| now() + SignedDuration::from_secs(s);
        let plain = Remaining {
            count: 1,
            ..Remaining::default()
        };
        assert_eq!(estimate(&plain, grace, now(), later(10)), Ok(grace));
        assert_eq!(estimate(&plain, grace, now(), later(31)), Err(Unexpected));
        let held = Remaining {
            count: 1,
            finalizers: [("f".to_owned(), 1)].into(),
        };
        assert_eq!(
            estimate(&held, grace, now(), later(31)),
            Ok(Duration::from_secs(15))
        );
        assert_eq!(look_again(grace), Duration::from_secs(16));
    }
}
