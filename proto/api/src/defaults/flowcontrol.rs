//! Defaults of flowcontrol.apiserver.k8s.io.

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
];

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
