//! What an object may say only while a gate is on, where the field itself is always there; and
//! what a gate fills in.

use meta::field::{ErrorList, FieldError, Path};
use serde_json::{Value, json};

/// What is written at one place of an object, to which a gate belongs.
pub(super) struct Guarded {
    pub gate: &'static str,
    /// Complains of each use while the gate is off.
    pub refused: Complain,
    /// Complains of what is wrong with it while it may be used.
    pub allowed: Complain,
    /// Whether an object that says this may go on to use it.
    pub already: fn(&Value) -> bool,
}

/// What is there, and where.
type Complain = fn(&Value, &Path, &mut ErrorList);

fn of_nothing(_: &Value, _: &Path, _: &mut ErrorList) {}

/// Of a pod's spec, wherever one is.
pub(super) const OF_PODS: &[Guarded] = &[
    Guarded {
        gate: "SELinuxMount",
        refused: mount_option,
        allowed: of_nothing,
        already: |spec| selinux_policy(spec).is_some(),
    },
    // KEP-5471
    Guarded {
        gate: "TaintTolerationComparisonOperators",
        refused: comparisons,
        allowed: numbers,
        already: |spec| compared(spec).next().is_some(),
    },
    // KEP-5607
    Guarded {
        gate: "UserNamespacesHostNetworkSupport",
        refused: shared_network,
        allowed: of_nothing,
        already: has_own_users_on_host_network,
    },
];

/// Of a HorizontalPodAutoscaler's spec.
pub(super) const OF_AUTOSCALERS: &[Guarded] = &[
    // KEP-2021
    Guarded {
        gate: "HPAScaleToZero",
        refused: to_zero,
        allowed: of_nothing,
        already: scales_to_zero,
    },
];

fn selinux_policy(spec: &Value) -> Option<&Value> {
    spec.pointer("/securityContext/seLinuxChangePolicy")
}

fn mount_option(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if selinux_policy(spec).is_some_and(|policy| policy == "MountOption") {
        let path = path.child("securityContext").child("seLinuxChangePolicy");
        errors.push(FieldError::not_supported(
            &path,
            "MountOption",
            &["Recursive"],
        ));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The tolerations that compare numbers: their places, operators and values.
fn compared(spec: &Value) -> impl Iterator<Item = (usize, &str, &str)> {
    let tolerations = spec["tolerations"].as_array().into_iter().flatten();
    tolerations
        .enumerate()
        .map(|(i, t)| (i, text(&t["operator"]), text(&t["value"])))
        .filter(|(_, operator, _)| ["Gt", "Lt"].contains(operator))
}

fn comparisons(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for (i, operator, _) in compared(spec) {
        let path = path.child("tolerations").index(i).child("operator");
        errors.push(FieldError::not_supported(
            &path,
            operator,
            &["Equal", "Exists", "Lt", "Gt"],
        ));
    }
}

fn numbers(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for (i, _, value) in compared(spec) {
        let path = path.child("tolerations").index(i).child("value");
        for message in meta::validation::decimal_integer(value) {
            errors.push(FieldError::invalid(&path, value, message));
        }
        if value.parse::<i64>().is_err() {
            errors.push(FieldError::invalid(
                &path,
                value,
                "must be an integer of 64 bits",
            ));
        }
    }
}

fn has_own_users_on_host_network(spec: &Value) -> bool {
    spec["hostUsers"] == false && spec["hostNetwork"] == true
}

fn shared_network(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if has_own_users_on_host_network(spec) {
        let path = path.child("hostNetwork");
        errors.push(FieldError::forbidden(&path, "when `hostUsers` is false"));
    }
}

fn scales_to_zero(spec: &Value) -> bool {
    spec["minReplicas"] == 0
}

fn to_zero(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if scales_to_zero(spec) {
        let path = path.child("minReplicas");
        errors.push(FieldError::invalid(
            &path,
            &json!(0),
            "must be greater than or equal to 1",
        ));
    }
}

/// A default that there is only while a gate is on.
pub(super) struct Filled {
    pub group: &'static str,
    pub plural: &'static str,
    pub gate: &'static str,
    pub fill: fn(&mut Value),
}

pub(super) const FILLED: &[Filled] = &[
    Filled {
        group: "apps",
        plural: "statefulsets",
        gate: "MaxUnavailableStatefulSet",
        fill: max_unavailable,
    },
    Filled {
        group: "storage.k8s.io",
        plural: "csidrivers",
        gate: "VolumeLimitScaling",
        fill: prevent_scheduling,
    },
];

fn max_unavailable(set: &mut Value) {
    let strategy = &mut set["spec"]["updateStrategy"];
    if strategy["type"] == "RollingUpdate"
        && let Some(rolling) = strategy["rollingUpdate"].as_object_mut()
    {
        rolling.entry("maxUnavailable").or_insert(json!(1));
    }
}

fn prevent_scheduling(driver: &mut Value) {
    if let Some(spec) = driver["spec"].as_object_mut() {
        (spec.entry("preventPodSchedulingIfMissing")).or_insert(json!(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(guarded: &Guarded, spec: &Value) -> Vec<String> {
        let mut errors = ErrorList::default();
        (guarded.refused)(spec, &Path::root().child("spec"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_use_is_complained_of_and_only_a_use() {
        let [selinux, tolerations, network] = OF_PODS else {
            panic!("another rule has no test")
        };
        let policy = |policy| json!({"securityContext": {"seLinuxChangePolicy": policy}});
        assert_eq!(
            complaints(selinux, &policy("MountOption")),
            [
                "spec.securityContext.seLinuxChangePolicy: Unsupported value: \"MountOption\": supported values: \"Recursive\""
            ]
        );
        assert!(complaints(selinux, &policy("Recursive")).is_empty());
        assert!((selinux.already)(&policy("Recursive")));

        let compared =
            json!({"tolerations": [{"operator": "Exists"}, {"key": "a", "operator": "Gt"}]});
        assert_eq!(
            complaints(tolerations, &compared),
            [
                "spec.tolerations[1].operator: Unsupported value: \"Gt\": supported values: \"Equal\", \"Exists\", \"Lt\", \"Gt\""
            ]
        );
        assert!((tolerations.already)(&compared));
        let mut errors = ErrorList::default();
        (tolerations.allowed)(&compared, &Path::root(), &mut errors);
        assert_eq!(errors.iter().count(), 2, "{errors:?}");
        assert!(!(tolerations.already)(&json!({})));

        let shared = json!({"hostUsers": false, "hostNetwork": true});
        assert_eq!(
            complaints(network, &shared),
            ["spec.hostNetwork: Forbidden: when `hostUsers` is false"]
        );
        assert!(complaints(network, &json!({"hostNetwork": true})).is_empty());

        assert_eq!(
            complaints(&OF_AUTOSCALERS[0], &json!({"minReplicas": 0})),
            ["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"]
        );
    }

    #[test]
    fn defaults_leave_what_is_said() {
        let set = |rolling: Value| json!({"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}});
        let mut filled = set(json!({}));
        max_unavailable(&mut filled);
        assert_eq!(filled, set(json!({"maxUnavailable": 1})));
        let mut said = set(json!({"maxUnavailable": "20%"}));
        max_unavailable(&mut said);
        assert_eq!(said, set(json!({"maxUnavailable": "20%"})));
        let mut on_delete = json!({"spec": {"updateStrategy": {"type": "OnDelete"}}});
        max_unavailable(&mut on_delete);
        assert_eq!(
            on_delete,
            json!({"spec": {"updateStrategy": {"type": "OnDelete"}}})
        );
    }
}
