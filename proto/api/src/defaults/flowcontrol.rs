//! Defaults of flowcontrol.apiserver.k8s.io.

use serde_json::Value;

use super::{Defaulter, Fields, set_empty, set_unset};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    (
        "io.k8s.api.flowcontrol.v1.ExemptPriorityLevelConfiguration",
        exempt,
    ),
    ("io.k8s.api.flowcontrol.v1.FlowSchemaSpec", flow_schema),
    (
        "io.k8s.api.flowcontrol.v1.LimitedPriorityLevelConfiguration",
        limited,
    ),
    ("io.k8s.api.flowcontrol.v1.QueuingConfiguration", queuing),
    (
        "io.k8s.api.flowcontrol.v1beta1.LimitedPriorityLevelConfiguration",
        assured,
    ),
    (
        "io.k8s.api.flowcontrol.v1beta2.LimitedPriorityLevelConfiguration",
        assured,
    ),
    (
        "io.k8s.api.flowcontrol.v1beta3.PriorityLevelConfiguration",
        nominal,
    ),
];

/// Says in `v1beta3`, where zero is unset, that zero is meant.
pub const PRESERVE_ZERO_SHARES: &str =
    "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

// Of the versions before `v1`, only what they default otherwise.

fn assured(level: &mut Fields) {
    set_empty(level, "assuredConcurrencyShares", 30);
}

fn nominal(configuration: &mut Fields) {
    let annotated = configuration.get("metadata").is_some_and(|metadata| {
        let annotations = metadata.get("annotations");
        annotations.is_some_and(|annotations| annotations.get(PRESERVE_ZERO_SHARES).is_some())
    });
    let spec = configuration.get_mut("spec").and_then(Value::as_object_mut);
    let limited = spec.and_then(|spec| spec.get_mut("limited")?.as_object_mut());
    if let Some(limited) = limited.filter(|_| !annotated) {
        set_empty(limited, "nominalConcurrencyShares", 30);
    }
}

fn exempt(level: &mut Fields) {
    set_unset(level, "nominalConcurrencyShares", 0);
    set_unset(level, "lendablePercent", 0);
}

fn flow_schema(spec: &mut Fields) {
    set_empty(spec, "matchingPrecedence", 1000);
}

fn limited(level: &mut Fields) {
    set_unset(level, "nominalConcurrencyShares", 30);
    set_unset(level, "lendablePercent", 0);
}

fn queuing(queuing: &mut Fields) {
    set_empty(queuing, "handSize", 8);
    set_empty(queuing, "queues", 64);
    set_empty(queuing, "queueLengthLimit", 50);
}
