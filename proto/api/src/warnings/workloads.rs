//! Kinds from which pods are made: their names, templates and numbers.

use meta::field::Path;
use meta::validation::dns1123_label;
use serde_json::Value;

use super::pod::Pod;
use super::{Warnings, list, storage, text};

/// Where a kind has its template.
fn template_steps(group: &str, kind: &str) -> Option<&'static [&'static str]> {
    match (group, kind) {
        ("", "PodTemplate") => Some(&["template"]),
        ("", "ReplicationController")
        | ("apps", "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet")
        | ("batch", "Job") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// Whether pods are made from this kind.
pub(super) fn is_one(group: &str, kind: &str) -> bool {
    template_steps(group, kind).is_some()
}

/// A name that becomes a host's, or part of it.
fn host_name(warnings: &mut Warnings, object: &Value, of_what: &str) {
    let faults = dns1123_label(text(&object["metadata"], "name"));
    if !faults.is_empty() {
        let faults = faults.join(" ");
        warnings.say(format!("metadata.name: this is used in {of_what}, which can result in surprising behavior; a DNS label is recommended: [{faults}]"));
    }
}

pub(super) fn new_pod(warnings: &mut Warnings, pod: &Value) {
    host_name(warnings, pod, "the Pod's hostname");
    Pod::itself(pod).warn(warnings);
}

pub(super) fn create(warnings: &mut Warnings, group: &str, kind: &str, object: &Value) {
    // The names of these pods' hosts are other ones.
    if !matches!(kind, "DaemonSet" | "PodTemplate" | "StatefulSet") {
        host_name(warnings, object, "Pod names and hostnames");
    }
    template(warnings, group, kind, object);
    if kind == "StatefulSet" {
        stateful(warnings, &object["spec"], Claims::New);
    }
}

pub(super) fn update(
    warnings: &mut Warnings,
    group: &str,
    kind: &str,
    object: &Value,
    old: &Value,
) {
    const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
    let counted = |object: &Value| match kind {
        "DaemonSet" => object["metadata"]["annotations"][TEMPLATE_GENERATION].clone(),
        _ => object["metadata"]["generation"].clone(),
    };
    if counted(object) != counted(old) {
        // Upstream has these two the wrong way round.
        let of = match kind {
            "ReplicationController" => old,
            _ => object,
        };
        template(warnings, group, kind, of);
    }
    match kind {
        "StatefulSet" => stateful(warnings, &object["spec"], Claims::Changed),
        "CronJob" if text(&object["spec"], "schedule").contains("TZ") => {
            warnings.say("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details");
        }
        _ => {}
    }
}

/// The template and what surrounds it.
fn template(warnings: &mut Warnings, group: &str, kind: &str, object: &Value) {
    let steps = template_steps(group, kind).unwrap_or_default();
    let (mut path, mut template) = (Path::root(), object);
    for step in steps {
        if group == "batch" && *step == "template" {
            job(warnings, template, &path);
        }
        path = path.child(*step);
        template = &template[*step];
    }
    if !template.is_null() {
        Pod::template(template, path).warn(warnings);
    }
}

/// More indexes than a status can name.
fn job(warnings: &mut Warnings, spec: &Value, path: &Path) {
    const COMPLETIONS: i64 = 100_000;
    const PARALLELISM: i64 = 10_000;
    let above = |field: &str, limit| spec[field].as_i64().is_some_and(|n| n > limit);
    if spec["completionMode"] == "Indexed"
        && above("completions", COMPLETIONS)
        && above("parallelism", PARALLELISM)
    {
        warnings.add(path, "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail");
    }
}

/// Upstream calls the same field otherwise in an update.
enum Claims {
    New,
    Changed,
}

fn stateful(warnings: &mut Warnings, spec: &Value, claims: Claims) {
    for (claim, at) in list(spec, &Path::new("spec"), "volumeClaimTemplates") {
        let at = match claims {
            Claims::New => at,
            Claims::Changed => at.child("Spec"),
        };
        storage::claim_spec(warnings, &claim["spec"], &at);
    }
    if spec["revisionHistoryLimit"].as_i64().is_some_and(|n| n < 0) {
        warnings.say("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended");
    }
}
