//! Groups of pods that are scheduled together (KEP-4671): Workloads with their templates of
//! groups, PodGroups, and pods' word of theirs.

use std::collections::HashSet;

use meta::field::{BadValue, ErrorList, FieldError};
use meta::validation as format;
use serde_json::Value;

use super::at::{At, IMMUTABLE};
use super::conditions::conditions;
use super::same::differing;
use super::{Rules, any_update, anything, required};

const GROUP: &str = "scheduling.k8s.io";
const MODELS: &str = "io.k8s.api.scheduling.v1alpha2";

/// What these kinds are made with stays as it is: an update has nothing to look at again.
pub(super) const RULES: &[Rules] = &[
    Rules {
        group: GROUP,
        kind: "PodGroup",
        name: format::dns1123_subdomain,
        object: anything,
        update: |new, old, errors| {
            let (new, old) = (new.get("spec"), old.get("spec"));
            let changed = differing(&format!("{MODELS}.PodGroupSpec"), &new, &old);
            immutable(&new, &changed, errors);
            let claims = new.get("resourceClaims");
            if changed.contains(&"resourceClaims") {
                not_too_many(&claims, CLAIMS, errors);
            }
        },
        status: |new, _, errors| {
            conditions(&new.get("status").get("conditions"), errors);
            claim_statuses(new, errors);
        },
    },
    Rules {
        group: GROUP,
        kind: "Workload",
        name: format::dns1123_subdomain,
        object: anything,
        update: |new, old, errors| {
            let (new, old) = (new.get("spec"), old.get("spec"));
            let changed = differing(&format!("{MODELS}.WorkloadSpec"), &new, &old);
            immutable(&new, &changed, errors);
            if changed.contains(&"podGroupTemplates") {
                some_templates(&new.get("podGroupTemplates"), errors);
            }
        },
        status: any_update,
    },
];

/// The bounds of priorities that users may give.
const PRIORITIES: std::ops::RangeInclusive<i64> = -2_147_483_648..=1_000_000_000;
const TOPOLOGIES: usize = 1;
const CLAIMS: usize = 4;
const TEMPLATES: usize = 8;

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

pub(super) fn group_created(group: &At<'_>, errors: &mut ErrorList) {
    let spec = group.get("spec");
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
    placement(&spec, errors);
}

pub(super) fn created(workload: &At<'_>, errors: &mut ErrorList) {
    let spec = workload.get("spec");
    let controller = spec.get("controllerRef");
    if controller.is_set() {
        let group = controller.get("apiGroup");
        if group.is_given() {
            group.check(errors, format::dns1123_subdomain(group.text()));
        }
        for part in ["kind", "name"] {
            let part = controller.get(part);
            if required(&part, errors) {
                part.check(errors, format::path_segment_name(part.text()));
            }
        }
    }
    let templates = spec.get("podGroupTemplates");
    if some_templates(&templates, errors) {
        named_once(&templates, errors);
        for template in templates.items() {
            label(&template.get("name"), errors);
            placement(&template, errors);
        }
    }
}

fn some_templates(templates: &At<'_>, errors: &mut ErrorList) -> bool {
    let some = templates.len() > 0;
    if !some {
        templates.required(errors, "");
    }
    some && not_too_many(templates, TEMPLATES, errors)
}

fn not_too_many(list: &At<'_>, most: usize, errors: &mut ErrorList) -> bool {
    let few = list.len() <= most;
    if !few {
        errors.push(FieldError::too_many(&list.path, list.len(), most));
    }
    few
}

/// Items of a list are told apart by their names.
fn named_once(list: &At<'_>, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for item in list.items() {
        if !seen.insert(item.get("name").text()) {
            item.duplicate(errors);
        }
    }
}

fn label(name: &At<'_>, errors: &mut ErrorList) {
    if required(name, errors) {
        name.check(errors, format::dns1123_label(name.text()));
    }
}

/// What a group and the template of one say alike.
fn placement(spec: &At<'_>, errors: &mut ErrorList) {
    policy(&spec.get("schedulingPolicy"), errors);
    let topology = spec.get("schedulingConstraints").get("topology");
    if not_too_many(&topology, TOPOLOGIES, errors) {
        for constraint in topology.items() {
            let key = constraint.get("key");
            if required(&key, errors) {
                key.check(errors, format::qualified_name(key.text()));
            }
        }
    }
    let claims = spec.get("resourceClaims");
    if not_too_many(&claims, CLAIMS, errors) {
        named_once(&claims, errors);
        claims.items().for_each(|item| claim(&item, errors));
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

fn claim(claim: &At<'_>, errors: &mut ErrorList) {
    const SOURCES: [&str; 2] = ["resourceClaimName", "resourceClaimTemplateName"];
    one_of(claim, &SOURCES, errors);
    label(&claim.get("name"), errors);
    for source in SOURCES {
        let name = claim.get(source);
        if name.is_set() {
            name.check(errors, format::dns1123_subdomain(name.text()));
        }
    }
}

/// Of the group's claims, and of each once.
fn claim_statuses(group: &At<'_>, errors: &mut ErrorList) {
    let claims = group.get("spec").get("resourceClaims");
    let statuses = group.get("status").get("resourceClaimStatuses");
    if not_too_many(&statuses, CLAIMS, errors) {
        named_once(&statuses, errors);
    }
    for status in statuses.items() {
        let name = status.get("name");
        if !claims
            .items()
            .any(|claim| claim.get("name").text() == name.text())
        {
            name.invalid(
                errors,
                "must match the name of an entry in `spec.resourceClaims`",
            );
        }
        let claim = status.get("resourceClaimName");
        if claim.is_set() {
            claim.check(errors, format::dns1123_subdomain(claim.text()));
        }
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

/// They stay what they were made as.
fn immutable(new: &At<'_>, changed: &[&'static str], errors: &mut ErrorList) {
    for field in changed {
        let unsaid = BadValue::json(&Value::Null);
        errors.push(FieldError::invalid(&new.get(field).path, unsaid, IMMUTABLE));
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

    const OF: (&str, &str) = (GROUP, "PodGroup");

    fn group(spec: Value) -> Value {
        json!({"metadata": {"name": "g", "namespace": "n", "uid": "u", "resourceVersion": "1"},
            "spec": spec})
    }

    fn made(spec: Value) -> Vec<String> {
        let errors = create(OF.0, OF.1, true, &group(spec));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_group_has_one_policy() {
        let gang = |count| json!({"schedulingPolicy": {"gang": {"minCount": count}}});
        assert!(made(gang(1)).is_empty());
        assert!(made(json!({"schedulingPolicy": {"basic": {}}})).is_empty());
        let at = "spec.schedulingPolicy";
        assert_eq!(
            made(gang(0)),
            [format!("{at}.gang.minCount: Required value")]
        );
        assert_eq!(
            made(gang(-1)),
            [format!(
                "{at}.gang.minCount: Invalid value: -1: must be greater than or equal to 1"
            )]
        );
        assert_eq!(
            made(json!({})),
            [format!(
                "{at}: Invalid value: \"\": must specify one of: `basic`, `gang`"
            )]
        );
        assert_eq!(
            made(json!({"schedulingPolicy": {"gang": {"minCount": 1}, "basic": {}}})),
            [format!(
                "{at}: Invalid value: \"{{basic, gang}}\": must specify exactly one of: `basic`, `gang`"
            )]
        );
    }

    #[test]
    fn constraints_name_one_label() {
        let of = |topology: Value| {
            made(json!({
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
    fn claims_have_a_name_and_one_source() {
        let of = |claims: Value| {
            made(json!({"schedulingPolicy": {"basic": {}}, "resourceClaims": claims}))
        };
        assert!(of(json!([{"name": "a", "resourceClaimName": "x"}])).is_empty());
        let at = "spec.resourceClaims";
        assert_eq!(
            of(json!([{"name": "a"}, {"name": "b", "resourceClaimTemplateName": "_"}]))[..1],
            [format!(
                "{at}[0]: Invalid value: \"\": must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            )]
        );
        let twice = json!({"name": "a", "resourceClaimName": "x"});
        assert_eq!(of(json!([twice, twice])).len(), 1);
        assert_eq!(
            of(json!(vec![twice; 5])),
            [format!("{at}: Too many: 5: must have at most 4 items")]
        );
    }

    #[test]
    fn a_workload_has_templates() {
        let made = |spec: Value| {
            let workload = group(spec);
            let errors = create(GROUP, "Workload", true, &workload);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let template = |name: &str| json!({"name": name, "schedulingPolicy": {"basic": {}}});
        let of = |templates: Value| made(json!({"podGroupTemplates": templates}));
        assert!(of(json!([template("a"), template("b")])).is_empty());
        let at = "spec.podGroupTemplates";
        assert_eq!(made(json!({})), [format!("{at}: Required value")]);
        assert_eq!(
            of(json!(vec![template("a"); 9])),
            [format!("{at}: Too many: 9: must have at most 8 items")]
        );
        assert_eq!(
            of(json!([template("")])),
            [format!("{at}[0].name: Required value")]
        );
        assert_eq!(of(json!([template("a"), template("a")])).len(), 1);
        let of_nobody = json!({
            "podGroupTemplates": [template("a")], "controllerRef": {"kind": "Job"},
        });
        assert_eq!(made(of_nobody), ["spec.controllerRef.name: Required value"]);
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
        // Zero is a priority that was given, and an empty list of claims none.
        let with = |field: &str, value: Value| {
            let mut group = gang(1);
            group["spec"][field] = value;
            group
        };
        let zero = with("priority", json!(0));
        assert_eq!(update(OF.0, OF.1, &gang(1), &zero).len(), 1);
        let none = with("resourceClaims", json!([]));
        assert!(update(OF.0, OF.1, &none, &gang(1)).is_empty());
        let claim = json!({"name": "a", "resourceClaimName": "a"});
        let many = with("resourceClaims", json!(vec![claim; 6]));
        assert_eq!(update(OF.0, OF.1, &many, &gang(1)).len(), 2);
    }
}
