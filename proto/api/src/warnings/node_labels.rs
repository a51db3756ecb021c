//! Labels of nodes that have other names now, wherever nodes are selected by their labels.

use meta::field::Path;
use meta::validation::label_value;
use serde_json::Value;

use super::{Warnings, items, keys, list, text};

/// What there is to say of a label that is deprecated.
pub(super) fn deprecated(label: &str) -> Option<&'static str> {
    Some(match label {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            "deprecated since v1.22; use Taints and Tolerations instead"
        }
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// A key that names a label.
pub(super) fn key(warnings: &mut Warnings, path: &Path, label: &str) {
    if let Some(what) = deprecated(label) {
        warnings.add(path, format_args!("{label} is {what}"));
    }
}

/// Whether the values of a term are looked at, too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    Checked,
    Taken,
}

/// A node selector's term.
pub(super) fn term(warnings: &mut Warnings, term: &Value, path: &Path, values: Values) {
    for (expression, at) in list(term, path, "matchExpressions") {
        key(warnings, &at.child("key"), text(expression, "key"));
        if values == Values::Taken {
            continue;
        }
        for (value, at) in list(expression, &at, "values") {
            let value = value.as_str().unwrap_or_default();
            for fault in label_value(value) {
                warnings.add(&at, format_args!("{value} is invalid, {fault}"));
            }
        }
    }
}

pub(super) fn runtime_class(warnings: &mut Warnings, class: &Value) {
    let path = Path::new("scheduling").child("nodeSelector");
    for what in keys(&class["scheduling"]["nodeSelector"]).filter_map(|label| deprecated(label)) {
        warnings.add(&path, what);
    }
}

pub(super) fn storage_class(warnings: &mut Warnings, class: &Value) {
    let topologies = "allowedTopologies";
    for (topology, at) in items(&class[topologies], &Path::new(topologies)) {
        for (expression, at) in list(topology, &at, "matchLabelExpressions") {
            if let Some(what) = deprecated(text(expression, "key")) {
                warnings.add(&at.child("key"), what);
            }
        }
    }
}

pub(super) fn capacity(warnings: &mut Warnings, capacity: &Value) {
    let (topology, path) = (&capacity["nodeTopology"], Path::new("nodeTopology"));
    term(warnings, topology, &path, Values::Taken);
    for label in keys(&topology["matchLabels"]) {
        if let Some(what) = deprecated(label) {
            warnings.add(&path.child("matchLabels").child(label.clone()), what);
        }
    }
}
