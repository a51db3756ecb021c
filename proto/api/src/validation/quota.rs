//! Limit ranges and resource quotas, and the names that resources may have in them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use meta::field::{BadValue, ErrorList, FieldError};
use meta::quantity::{Format, Quantity};
use meta::validation as format;
use serde_json::Value;

use super::at::{At, IMMUTABLE};
use super::container::{overcommits, quantity_value};
use super::{Rules, any_update};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "",
        kind: "LimitRange",
        name: format::dns1123_subdomain,
        object: |at, errors| {
            let mut types = HashSet::new();
            for limit in at.get("spec").get("limits").items() {
                limit_range_item(&limit, &mut types, errors);
            }
        },
        update: any_update,
        status: any_update,
    },
    Rules {
        group: "",
        kind: "ResourceQuota",
        name: format::dns1123_subdomain,
        object: |at, errors| quota(&at.get("spec"), errors),
        update: |new, old, errors| {
            let (new, old) = (new.get("spec").get("scopes"), old.get("spec").get("scopes"));
            let set = |scopes: &At<'_>| -> BTreeSet<String> {
                scopes.items().map(|s| s.text().to_owned()).collect()
            };
            if set(&new) != set(&old) {
                errors.push(FieldError::invalid(&new.path, list(&new), IMMUTABLE));
            }
        },
        status: |new, _, errors| {
            for field in ["hard", "used"] {
                amounts(&new.get("status").get(field), errors);
            }
        },
    },
];

/// Resources that a quota may count.
const QUOTA_RESOURCES: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

/// Of these there are only whole ones.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_quota_resource(name: &str) -> bool {
    QUOTA_RESOURCES.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
}

/// `example.com/gpu`: of somebody else's domain, and short enough for a quota.
pub(super) fn is_extended(name: &str) -> bool {
    !crate::resources::is_native(name)
        && !name.starts_with("requests.")
        && format::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether there are only whole ones of a resource.
pub(super) fn is_integer(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// A name that any resource may have. Returns whether it is one.
pub(super) fn resource_name(name: &str, at: &At<'_>, errors: &mut ErrorList) -> bool {
    let mut messages = format::qualified_name(name);
    let standard = is_quota_resource(name) || name == "storage";
    if messages.is_empty() && !name.contains('/') && !standard {
        messages.push("must be a standard resource type or fully qualified".to_owned());
    }
    let good = messages.is_empty();
    for message in messages {
        errors.push(FieldError::invalid(&at.path, name, message));
    }
    good
}

/// A resource that everybody knows, or one with a domain.
pub(super) fn is_standard(name: &str) -> bool {
    name.contains('/') || is_quota_resource(name) || name.starts_with("hugepages-")
}

/// A name that a container may ask for.
pub(super) fn container_resource_name(name: &str, at: &At<'_>, errors: &mut ErrorList) {
    resource_name(name, at, errors);
    let standard =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let message = if name.contains('/') {
        let wrong = !crate::resources::is_native(name) && !is_extended(name);
        wrong.then_some("doesn't follow extended resource name standard")
    } else {
        (!standard).then_some("must be a standard resource for containers")
    };
    if let Some(message) = message {
        errors.push(FieldError::invalid(&at.path, name, message));
    }
}

/// `hard` or `used`.
fn amounts(list: &At<'_>, errors: &mut ErrorList) {
    for (name, quantity) in list.entries() {
        resource_name(name, &quantity, errors);
        if !name.contains('/') && !is_quota_resource(name) {
            let error = "must be a standard resource for quota";
            errors.push(FieldError::invalid(&quantity.path, name, error));
        }
        quantity_value(name, &quantity, errors);
    }
}

fn list(of: &At<'_>) -> BadValue {
    BadValue::json(of.value().unwrap_or(&Value::Null))
}

fn quota(spec: &At<'_>, errors: &mut ErrorList) {
    amounts(&spec.get("hard"), errors);
    let hard: Vec<&str> = spec.get("hard").entries().map(|(name, _)| name).collect();
    let scopes = spec.get("scopes");
    let mut set = Vec::new();
    for scope in scopes.items() {
        let scope = scope.text();
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(
                &scopes.path,
                list(&scopes),
                "unsupported scope",
            ));
        }
        for _ in hard.iter().filter(|name| !is_for(scope, name)) {
            let error = "unsupported scope applied to resource";
            errors.push(FieldError::invalid(&scopes.path, list(&scopes), error));
        }
        set.push(scope);
    }
    conflicts(&set, &scopes, &scopes, errors);

    let selector = spec.get("scopeSelector");
    let expressions = selector.get("matchExpressions");
    let mut set = Vec::new();
    for requirement in expressions.items() {
        let scope = requirement.get("scopeName").text();
        scope_requirement(&requirement, &expressions, errors);
        for _ in hard.iter().filter(|name| !is_for(scope, name)) {
            let error = "unsupported scope applied to resource";
            let value = go_selector(&expressions);
            errors.push(FieldError::invalid(&expressions.path, value, error));
        }
        set.push(scope);
    }
    conflicts(&set, &expressions, &scopes, errors);
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];

/// Whether a scope means anything for a resource that quotas know.
fn is_for(scope: &str, resource: &str) -> bool {
    let compute = [
        "cpu",
        "memory",
        "limits.cpu",
        "limits.memory",
        "requests.cpu",
        "requests.memory",
    ];
    if !is_quota_resource(resource) {
        return true;
    }
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || compute.contains(&resource),
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => true,
    }
}

/// Nothing can be in both of a pair. Upstream shows `scopes` for either place.
fn conflicts(set: &[&str], at: &At<'_>, scopes: &At<'_>, errors: &mut ErrorList) {
    for pair in [
        ["BestEffort", "NotBestEffort"],
        ["Terminating", "NotTerminating"],
    ] {
        if pair.iter().all(|scope| set.contains(scope)) {
            errors.push(FieldError::invalid(
                &at.path,
                list(scopes),
                "conflicting scopes",
            ));
        }
    }
}

/// A scope selector as Go would write its own form of it.
#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct GoSelector<'a> {
    match_expressions: Vec<GoRequirement<'a>>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct GoRequirement<'a> {
    scope_name: &'a str,
    operator: &'a str,
    values: Option<&'a Value>,
}

fn go_selector(expressions: &At<'_>) -> BadValue {
    let requirements = expressions.items().map(|requirement| GoRequirement {
        scope_name: requirement.get("scopeName").text(),
        operator: requirement.get("operator").text(),
        values: requirement.raw("values"),
    });
    BadValue::json(&GoSelector {
        match_expressions: requirements.collect(),
    })
}

/// Upstream's paths have no index here.
fn scope_requirement(requirement: &At<'_>, list: &At<'_>, errors: &mut ErrorList) {
    let (scope, operator) = (
        requirement.get("scopeName").text(),
        requirement.get("operator").text(),
    );
    let invalid = |field: &'static str, value: BadValue, detail: &str| {
        FieldError::invalid(&list.path.child(field), value, detail)
    };
    if !SCOPES.contains(&scope) {
        errors.push(invalid("scopeName", scope.into(), "unsupported scope"));
    }
    let plain = !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
    if SCOPES.contains(&scope) && plain && operator != "Exists" {
        errors.push(invalid(
            "operator",
            operator.into(),
            "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
        ));
    }
    let values = requirement.get("values");
    match operator {
        "In" | "NotIn" if values.len() == 0 => errors.push(FieldError::required(
            &list.path.child("values"),
            "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
        )),
        "Exists" | "DoesNotExist" if values.len() != 0 => errors.push(invalid(
            "values",
            self::list(&values),
            "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.push(invalid(
            "operator",
            operator.into(),
            "not a valid selector operator",
        )),
    }
}

fn limit_range_item<'a>(limit: &At<'a>, types: &mut HashSet<&'a str>, errors: &mut ErrorList) {
    let at = limit.get("type");
    let kind = at.text();
    let mut messages = format::qualified_name(kind);
    let standard = matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim");
    if messages.is_empty() && !kind.contains('/') && !standard {
        messages.push("must be a standard limit type or fully qualified".to_owned());
    }
    for message in messages {
        errors.push(FieldError::invalid(&at.path, kind, message));
    }
    if !types.insert(kind) {
        errors.push(FieldError::duplicate(&at.path, kind));
    }
    let mut names = BTreeSet::new();
    let mut read = |field: &'static str, errors: &mut ErrorList| {
        let mut amounts = BTreeMap::new();
        for (name, quantity) in limit.get(field).entries() {
            match kind {
                "Pod" | "Container" => container_resource_name(name, &quantity, errors),
                _ => {
                    resource_name(name, &quantity, errors);
                }
            }
            names.insert(name);
            if let Ok(amount) = quantity.text().parse::<Quantity>() {
                amounts.insert(name, amount);
            }
        }
        amounts
    };
    let (max, min) = (read("max", errors), read("min", errors));
    let (mut default, mut request) = (BTreeMap::new(), BTreeMap::new());
    if kind == "Pod" {
        for field in ["default", "defaultRequest"] {
            if limit.get(field).len() > 0 {
                let error = "may not be specified when `type` is 'Pod'";
                limit.get(field).forbidden(errors, error);
            }
        }
    } else {
        default = read("default", errors);
        request = read("defaultRequest", errors);
    }
    let bounded = min.contains_key("storage") || max.contains_key("storage");
    if kind == "PersistentVolumeClaim" && !bounded {
        errors.push(FieldError::required(
            &limit.path.child("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        ));
    }
    let ratio = read("maxLimitRequestRatio", errors);
    for name in names {
        let amounts = Amounts {
            min: min.get(name),
            max: max.get(name),
            default: default.get(name),
            request: request.get(name),
            ratio: ratio.get(name),
        };
        amounts.check(name, limit, errors);
    }
}

/// What a limit says of one resource.
struct Amounts<'a> {
    min: Option<&'a Quantity>,
    max: Option<&'a Quantity>,
    default: Option<&'a Quantity>,
    request: Option<&'a Quantity>,
    ratio: Option<&'a Quantity>,
}

impl Amounts<'_> {
    fn check(&self, name: &str, limit: &At<'_>, errors: &mut ErrorList) {
        let mut invalid = |field: &'static str, value: &Quantity, detail: String| {
            let path = limit.path.child(field).key(name);
            errors.push(FieldError::invalid(&path, value.to_string(), detail));
        };
        let greater = |a: Option<&Quantity>, b: Option<&Quantity>| match (a, b) {
            (Some(a), Some(b)) if a > b => Some((a.clone(), b.clone())),
            _ => None,
        };
        let Self {
            min,
            max,
            default,
            request,
            ratio,
        } = *self;
        if let Some((min, max)) = greater(min, max) {
            let detail = format!("min value {min} is greater than max value {max}");
            invalid("min", &min, detail);
        }
        if let Some((min, request)) = greater(min, request) {
            let detail = format!("min value {min} is greater than default request value {request}");
            invalid("defaultRequest", &request, detail);
        }
        if let Some((request, max)) = greater(request, max) {
            let detail = format!("default request value {request} is greater than max value {max}");
            invalid("defaultRequest", &request, detail);
        }
        if let Some((request, default)) = greater(request, default) {
            let detail = format!(
                "default request value {request} is greater than default limit value {default}"
            );
            invalid("defaultRequest", &request, detail);
        }
        if let Some((min, default)) = greater(min, default) {
            let detail = format!("min value {min} is greater than default value {default}");
            invalid("default", &min, detail);
        }
        if let Some((default, max)) = greater(default, max) {
            let detail = format!("default value {default} is greater than max value {max}");
            invalid("default", &max, detail);
        }
        if let Some(ratio) = ratio {
            if *ratio < Quantity::new(1, Format::DecimalSI) {
                let detail = format!("ratio {ratio} is less than 1");
                invalid("maxLimitRequestRatio", ratio, detail);
            }
            if let (Some(min), Some(max)) = (min, max) {
                let most = widest(ratio, min, max);
                if most.0 > most.1 {
                    let detail = format!("ratio {ratio} is greater than max/min = {:.6}", most.1);
                    invalid("maxLimitRequestRatio", ratio, detail);
                }
            }
        }
        if let (Some(default), Some(request)) = (default, request)
            && !overcommits(name)
            && default != request
        {
            let detail = format!(
                "default value {default} must equal to defaultRequest value {request} in {name}"
            );
            invalid("defaultRequest", request, detail);
        }
    }
}

/// The ratio that is asked for and the one that minimum and maximum leave room for.
fn widest(ratio: &Quantity, min: &Quantity, max: &Quantity) -> (f64, f64) {
    const MAX_MILLI: i64 = i64::MAX / 1000;
    if [ratio, min, max].iter().all(|q| q.value() < MAX_MILLI) {
        let most = max.milli_value() as f64 / min.milli_value() as f64;
        return (ratio.milli_value() as f64 / 1000.0, most);
    }
    (
        ratio.value() as f64,
        max.value() as f64 / min.value() as f64,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{create, update, update_status};
    use super::*;

    fn told(kind: &str, spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "x", "namespace": "n", "uid": "u"}, "spec": spec});
        let errors = create("", kind, true, &object);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn quotas() {
        let quota = |spec: Value| told("ResourceQuota", spec);
        let good = json!({"hard": {"pods": "5", "requests.cpu": "1", "count/x.y": "2",
            "requests.example.com/gpu": "1", "hugepages-2Mi": "4Mi"}, "scopes": ["Terminating"]});
        assert_eq!(
            quota(good),
            [
                "spec.scopes: Invalid value: [\"Terminating\"]: unsupported scope applied to resource",
            ]
        );
        assert_eq!(
            quota(json!({"hard": {"pods": "500m", "storage": "1", "other": "-1"}})),
            [
                "spec.hard[other]: Invalid value: \"other\": must be a standard resource type or fully qualified",
                "spec.hard[other]: Invalid value: \"other\": must be a standard resource for quota",
                "spec.hard[other]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.hard[pods]: Invalid value: \"500m\": must be an integer",
                "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
            ]
        );
        assert_eq!(
            quota(json!({"scopes": ["BestEffort", "NotBestEffort", "Other"]})),
            [
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Other\"]: unsupported scope",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Other\"]: conflicting scopes",
            ]
        );
        let selector = json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "BestEffort", "operator": "In"},
            {"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]},
            {"scopeName": "PriorityClass", "operator": "Gt"}]}});
        let told = quota(selector);
        let path = "spec.scopeSelector.matchExpressions";
        assert!(told[0].starts_with(&format!(
            "{path}.operator: Invalid value: \"In\": must be 'Exists'"
        )));
        assert!(told[1].starts_with(&format!("{path}.values: Required value")));
        assert!(told[2].starts_with(&format!("{path}.values: Invalid value: [\"a\"]")));
        assert!(told[3].ends_with("not a valid selector operator"));
    }

    #[test]
    fn quotas_keep_their_scopes() {
        let quota = |scopes: Value, used: &str| {
            json!({"metadata": {"name": "x", "namespace": "n", "resourceVersion": "1"},
                   "spec": {"scopes": scopes}, "status": {"used": {"pods": used}}})
        };
        let (a, b) = (quota(json!(["BestEffort"]), "1"), quota(json!([]), "1500m"));
        assert_eq!(update("", "ResourceQuota", &a, &a).len(), 0);
        let errors = update("", "ResourceQuota", &a, &b);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable"]
        );
        assert_eq!(update_status("", "ResourceQuota", &b, &a).len(), 1);
    }

    #[test]
    fn limit_ranges() {
        let range = |limits: Value| told("LimitRange", json!({"limits": limits}));
        assert!(
            range(
                json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"},
            "default": {"cpu": "2"}, "defaultRequest": {"cpu": "1"},
            "maxLimitRequestRatio": {"cpu": "2"}}])
            )
            .is_empty()
        );
        assert_eq!(
            range(
                json!([{"type": "Pod", "default": {"cpu": "1"}}, {"type": "Pod", "max": {"storage": "1"}},
                         {"type": "x"}, {"type": "PersistentVolumeClaim"}])
            ),
            [
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[1].type: Duplicate value: \"Pod\"",
                "spec.limits[1].max[storage]: Invalid value: \"storage\": must be a standard resource for containers",
                "spec.limits[2].type: Invalid value: \"x\": must be a standard limit type or fully qualified",
                "spec.limits[3].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            ]
        );
        assert_eq!(
            range(
                json!([{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"},
                "default": {"cpu": "3", "example.com/x": "1"},
                "defaultRequest": {"cpu": "4", "example.com/x": "2"},
                "maxLimitRequestRatio": {"cpu": "500m"}}])
            ),
            [
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"4\": default request value 4 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"4\": default request value 4 is greater than default limit value 3",
                "spec.limits[0].default[cpu]: Invalid value: \"1\": default value 3 is greater than max value 1",
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
                "spec.limits[0].defaultRequest[example.com/x]: Invalid value: \"2\": default request value 2 is greater than default limit value 1",
                "spec.limits[0].defaultRequest[example.com/x]: Invalid value: \"2\": default value 1 must equal to defaultRequest value 2 in example.com/x",
            ]
        );
    }
}
