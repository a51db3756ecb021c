//! Defaults of the apps group.

use serde_json::{Value, json};

use super::{Defaulter, Fields, is_given, is_set, object, objects, set_empty, set_unset, text};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    ("io.k8s.api.apps.v1.DaemonSetSpec", daemon_set),
    ("io.k8s.api.apps.v1.DeploymentSpec", deployment),
    ("io.k8s.api.apps.v1.ReplicaSetSpec", replica_set),
    ("io.k8s.api.apps.v1.StatefulSetSpec", stateful_set),
    ("io.k8s.api.apps.v1beta1.Deployment", like_the_template),
    (
        "io.k8s.api.apps.v1beta1.DeploymentSpec",
        deployment_of_two_revisions,
    ),
    ("io.k8s.api.apps.v1beta1.StatefulSet", like_the_template),
    ("io.k8s.api.apps.v1beta1.StatefulSetSpec", updates_on_delete),
    ("io.k8s.api.extensions.v1beta1.DaemonSet", like_the_template),
    (
        "io.k8s.api.extensions.v1beta1.DaemonSetSpec",
        updates_on_delete,
    ),
    (
        "io.k8s.api.extensions.v1beta1.Deployment",
        like_the_template,
    ),
    (
        "io.k8s.api.extensions.v1beta1.DeploymentSpec",
        deployment_without_limits,
    ),
    (
        "io.k8s.api.extensions.v1beta1.ReplicaSet",
        like_the_template,
    ),
];

// Of the versions that the API does not have any more, only what they default otherwise than
// `apps/v1`, whose defaults come after.

/// The selector and the labels are those of the pods.
fn like_the_template(workload: &mut Fields) {
    let labels = workload.get("spec").and_then(|spec| {
        let labels = spec.get("template")?.get("metadata")?.get("labels")?;
        labels.as_object().cloned()
    });
    let Some(labels) = labels else { return };
    let spec = object(workload, "spec");
    set_unset(spec, "selector", json!({"matchLabels": labels}));
    let metadata = object(workload, "metadata");
    set_empty(metadata, "labels", labels);
}

fn deployment_of_two_revisions(spec: &mut Fields) {
    set_unset(spec, "revisionHistoryLimit", 2);
}

/// Limits that mean none.
fn deployment_without_limits(spec: &mut Fields) {
    let strategy = object(spec, "strategy");
    set_empty(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = object(strategy, "rollingUpdate");
        set_unset(rolling, "maxUnavailable", 1);
        set_unset(rolling, "maxSurge", 1);
    }
    set_unset(spec, "revisionHistoryLimit", i32::MAX);
    set_unset(spec, "progressDeadlineSeconds", i32::MAX);
}

fn updates_on_delete(spec: &mut Fields) {
    set_empty(object(spec, "updateStrategy"), "type", "OnDelete");
}

fn deployment(spec: &mut Fields) {
    set_unset(spec, "replicas", 1);
    let strategy = object(spec, "strategy");
    set_empty(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = object(strategy, "rollingUpdate");
        set_unset(rolling, "maxUnavailable", "25%");
        set_unset(rolling, "maxSurge", "25%");
    }
    set_unset(spec, "revisionHistoryLimit", 10);
    set_unset(spec, "progressDeadlineSeconds", 600);
}

fn daemon_set(spec: &mut Fields) {
    let strategy = object(spec, "updateStrategy");
    set_empty(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = object(strategy, "rollingUpdate");
        set_unset(rolling, "maxUnavailable", 1);
        set_unset(rolling, "maxSurge", 0);
    }
    set_unset(spec, "revisionHistoryLimit", 10);
}

fn replica_set(spec: &mut Fields) {
    set_unset(spec, "replicas", 1);
}

fn stateful_set(spec: &mut Fields) {
    set_empty(spec, "podManagementPolicy", "OrderedReady");
    let strategy = object(spec, "updateStrategy");
    if !is_given(strategy, "type") {
        strategy.insert("type".to_owned(), "RollingUpdate".into());
        set_unset(strategy, "rollingUpdate", json!({}));
    }
    if text(strategy, "type") == "RollingUpdate" && is_set(strategy, "rollingUpdate") {
        let rolling = object(strategy, "rollingUpdate");
        set_unset(rolling, "partition", 0);
    }
    // What they are is known, and not stored: said or not, it makes no difference.
    for template in objects(spec, "volumeClaimTemplates") {
        template.remove("apiVersion");
        template.remove("kind");
    }
    let retention = object(spec, "persistentVolumeClaimRetentionPolicy");
    set_empty(retention, "whenDeleted", "Retain");
    set_empty(retention, "whenScaled", "Retain");
    set_unset(spec, "replicas", 1);
    set_unset(spec, "revisionHistoryLimit", Value::from(10));
}
