//! Groups of pods that are scheduled together (KEP-4671): PodGroups, and pods' word of
//! theirs.

use meta::field::{BadValue, ErrorList, FieldError};
use meta::validation as format;
use serde_json::Value;

use super::at::{At, IMMUTABLE};
use super::conditions::conditions;
use super::{Rules, required};

pub(super) const RULES: &[Rules] = &[Rules {
    group: "scheduling.k8s.io",
    kind: "PodGroup",
    name: format::dns1123_subdomain,
    object: |group, errors| spec(&group.get("spec"), errors),
    update: |new, old, errors| unchanged(&new.get("spec"), &old.get("spec"), errors),
    status: |new, _, errors| conditions(&new.get("status").get("conditions"), errors),
}];

/// The bounds of priorities that users may give.
const PRIORITIES: std::ops::RangeInclusive<i64> = -2_147_483_648..=1_000_000_000;
const TOPOLOGIES: usize = 1;

/// Complains where not exactly one of these fields is there.
fn one_of(union: &At<'_>, members: &[&'static str], errors: &mut ErrorList) {
    let given: Vec<&str> = (members.iter().copied())
        .filter(|member| union.get(member).is_set())
        .collect();
    let quoted: Vec<String> = members.iter().map(|m| format!("`{m}`")).collect();
    let (bad, words) = match *given {
        [_] => return,
        [] => (String::new(), "must specify one of"),
        _ => (
            format!("{{{}}}", given.join(", ")),
            "must specify exactly one of",
        ),
    };
    let detail = format!("{words}: {}", quoted.join(", "));
    errors.push(FieldError::invalid(&union.path, bad, detail));
}

fn spec(spec: &At<'_>, errors: &mut ErrorList) {
    let template = spec.get("podGroupTemplateRef");
    if template.is_set() {
        one_of(&template, &["workload"], errors);
        let workload = template.get("workload");
        if workload.is_set() {
            let name = workload.get("workloadName");
            if required(&name, errors) {
                name.check(errors, format::dns1123_subdomain(name.text()));
            }
            let name = workload.get("podGroupTemplateName");
            if required(&name, errors) {
                name.check(errors, format::dns1123_label(name.text()));
            }
        }
    }
    policy(&spec.get("schedulingPolicy"), errors);
    let topology = spec.get("schedulingConstraints").get("topology");
    if topology.len() > TOPOLOGIES {
        let path = &topology.path;
        errors.push(FieldError::too_many(path, topology.len(), TOPOLOGIES));
    } else {
        for constraint in topology.items() {
            let key = constraint.get("key");
            if required(&key, errors) {
                key.check(errors, format::qualified_name(key.text()));
            }
        }
    }
    let mode = spec.get("disruptionMode");
    if mode.is_set() {
        mode.one_of(errors, &["Pod", "PodGroup"]);
    }
    let class = spec.get("priorityClassName");
    if class.is_given() {
        class.check(errors, format::dns1123_subdomain(class.text()));
    }
    let priority = spec.get("priority");
    if priority.int().is_some_and(|p| p > *PRIORITIES.end()) {
        let most = PRIORITIES.end();
        priority.invalid(errors, format!("must be less than or equal to {most}"));
    }
}

fn policy(policy: &At<'_>, errors: &mut ErrorList) {
    one_of(policy, &["basic", "gang"], errors);
    let gang = policy.get("gang");
    if !gang.is_set() {
        return;
    }
    let count = gang.get("minCount");
    match count.int().unwrap_or(0) {
        0 => count.required(errors, ""),
        1.. => {}
        _ => count.invalid(errors, "must be greater than or equal to 1"),
    }
}

/// A group stays what it was made as.
fn unchanged(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    for field in [
        "podGroupTemplateRef",
        "schedulingPolicy",
        "schedulingConstraints",
        "resourceClaims",
        "disruptionMode",
        "priorityClassName",
        "priority",
    ] {
        let (new, old) = (new.get(field), old.get(field));
        let same = match (new.is_given(), old.is_given()) {
            (false, false) => true,
            _ => new.value() == old.value(),
        };
        if !same {
            let unsaid = BadValue::json(&Value::Null);
            errors.push(FieldError::invalid(&new.path, unsaid, IMMUTABLE));
        }
    }
}

/// What a pod says of its group.
pub(super) fn of_pod(spec: &At<'_>, errors: &mut ErrorList) {
    let group = spec.get("schedulingGroup");
    if !group.is_set() {
        return;
    }
    let name = group.get("podGroupName");
    if name.is_set() {
        name.check(errors, format::dns1123_subdomain(name.text()));
    } else {
        name.invalid(errors, "must specify one of: `podGroupName`");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{create, update};
    use super::*;

    const OF: (&str, &str) = ("scheduling.k8s.io", "PodGroup");

    fn group(spec: Value) -> Value {
        json!({"metadata": {"name": "g", "namespace": "n", "uid": "u", "resourceVersion": "1"},
            "spec": spec})
    }

    fn created(spec: Value) -> Vec<String> {
        let errors = create(OF.0, OF.1, true, &group(spec));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_group_has_one_policy() {
        let gang = |count| json!({"schedulingPolicy": {"gang": {"minCount": count}}});
        assert!(created(gang(1)).is_empty());
        assert!(created(json!({"schedulingPolicy": {"basic": {}}})).is_empty());
        let at = "spec.schedulingPolicy";
        assert_eq!(
            created(gang(0)),
            [format!("{at}.gang.minCount: Required value")]
        );
        assert_eq!(
            created(gang(-1)),
            [format!(
                "{at}.gang.minCount: Invalid value: -1: must be greater than or equal to 1"
            )]
        );
        assert_eq!(
            created(json!({})),
            [format!(
                "{at}: Invalid value: \"\": must specify one of: `basic`, `gang`"
            )]
        );
        assert_eq!(
            created(json!({"schedulingPolicy": {"gang": {"minCount": 1}, "basic": {}}})),
            [format!(
                "{at}: Invalid value: \"{{basic, gang}}\": must specify exactly one of: `basic`, `gang`"
            )]
        );
    }

    #[test]
    fn constraints_name_one_label() {
        let of = |topology: Value| {
            created(json!({
                "schedulingPolicy": {"basic": {}},
                "schedulingConstraints": {"topology": topology},
            }))
        };
        assert!(of(json!([{"key": "example.com/rack"}])).is_empty());
        assert_eq!(
            of(json!([{"key": "a"}, {"key": "b"}])),
            ["spec.schedulingConstraints.topology: Too many: 2: must have at most 1 item"]
        );
        assert_eq!(of(json!([{"key": "/bad/x"}])).len(), 1);
    }

    #[test]
    fn a_group_stays_what_it_is() {
        let gang = |count| group(json!({"schedulingPolicy": {"gang": {"minCount": count}}}));
        let errors = update(OF.0, OF.1, &gang(2), &gang(1));
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["spec.schedulingPolicy: Invalid value: null: field is immutable"]
        );
        assert!(update(OF.0, OF.1, &gang(1), &gang(1)).is_empty());
    }
}
