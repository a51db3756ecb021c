//! HorizontalPodAutoscalers, as `v2` (which is stored) has them; scales; and disruption budgets.

use meta::field::{ErrorList, FieldError};
use meta::quantity::Quantity;
use meta::validation as format;

use super::at::At;
use super::conditions::conditions;
use super::{Rules, any_update, apps, pod, quota};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "autoscaling",
        kind: "HorizontalPodAutoscaler",
        name: format::dns1123_subdomain,
        object: |at, errors| autoscaler(&at.get("spec"), errors),
        update: |new, old, errors| {
            let [new, old] = [new, old].map(|at| at.get("spec").get("scaleTargetRef"));
            let differs = |field| new.get(field).text() != old.get(field).text();
            if differs("apiVersion") || differs("kind") {
                target_version(&new, errors);
            }
        },
        status: |new, _, errors| {
            for field in ["currentReplicas", "desiredReplicas"] {
                new.get("status").get(field).non_negative(errors);
            }
        },
    },
    // It is not stored, and checked as if it were new whenever it is written.
    Rules {
        group: "autoscaling",
        kind: "Scale",
        name: format::dns1123_subdomain,
        object: |at, errors| at.get("spec").get("replicas").non_negative(errors),
        update: any_update,
        status: any_update,
    },
    Rules {
        group: "policy",
        kind: "PodDisruptionBudget",
        // Upstream asks no more of it than that it stands in a path.
        name: format::path_segment_name,
        object: |at, errors| budget(&at.get("spec"), errors),
        update: any_update,
        status: |new, _, errors| {
            let status = new.get("status");
            conditions(&status.get("conditions"), errors);
            for field in [
                "disruptionsAllowed",
                "currentHealthy",
                "desiredHealthy",
                "expectedPods",
            ] {
                status.get(field).non_negative(errors);
            }
        },
    },
];

/// Something that an autoscaler points at by kind and name.
fn reference(at: &At<'_>, errors: &mut ErrorList) {
    for field in ["kind", "name"] {
        let part = at.get(field);
        if part.is_given() {
            part.check(errors, format::path_segment_name(part.text()));
        } else {
            part.required(errors, "");
        }
    }
}

/// The version of what is scaled. It was not always looked at, so it may stay what it is.
fn target_version(target: &At<'_>, errors: &mut ErrorList) {
    let version = target.get("apiVersion");
    if version.text().matches('/').count() > 1 {
        let detail = format!("unexpected GroupVersion string: {}", version.text());
        version.invalid(errors, detail);
        return;
    }
    let group = version
        .text()
        .split_once('/')
        .map_or("", |(group, _)| group);
    if group.is_empty() && target.get("kind").text() != "ReplicationController" {
        // Of the core group, only this has a scale.
        errors.push(FieldError::invalid(
            &version.path,
            version.text(),
            "apiVersion must specify API group",
        ));
    }
}

pub(super) fn autoscaler_created(autoscaler: &At<'_>, errors: &mut ErrorList) {
    target_version(&autoscaler.get("spec").get("scaleTargetRef"), errors);
}

fn autoscaler(spec: &At<'_>, errors: &mut ErrorList) {
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    // Zero is a feature's matter.
    if min.int().is_some_and(|n| n < 0) {
        min.invalid(errors, "must be greater than or equal to 1");
    }
    let most = max.int().unwrap_or(0);
    if most == 0 {
        max.required(errors, "must be set and greater than 0");
    } else if most < 0 {
        max.invalid(errors, "must be greater than or equal to 1");
    }
    if min.int().is_some_and(|least| most < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(
            &max.path,
            &serde_json::json!(most),
            detail,
        ));
    }
    let target = spec.get("scaleTargetRef");
    reference(&target, errors);
    if min.int() == Some(0) {
        let metrics = spec.get("metrics");
        let outside = |m: At<'_>| matches!(m.get("type").text(), "Object" | "External");
        if !metrics.items().any(outside) {
            metrics.forbidden(errors, "must specify at least one Object or External metric to support scaling to zero replicas");
        }
    }
    for each in spec.get("metrics").items() {
        metric(&each, errors);
    }
    for direction in ["scaleUp", "scaleDown"] {
        scaling_rules(&spec.get("behavior").get(direction), errors);
    }
}

/// The types of metrics and where each is described, in the order in which they are checked.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn metric(metric: &At<'_>, errors: &mut ErrorList) {
    let ty = metric.get("type");
    let mut known = SOURCES.map(|(name, _)| name);
    known.sort_unstable();
    if !ty.is_given() {
        ty.required(errors, "must specify a metric source type");
    }
    ty.one_of(errors, &known);
    let expected = SOURCES.iter().find(|(name, _)| *name == ty.text());
    let mut given = Vec::new();
    for (_, field) in SOURCES {
        let source = metric.get(field);
        if source.is_set() {
            given.push(field);
            if given.len() == 1 {
                metric_source(field, &source, errors);
            }
        }
    }
    match expected {
        Some((_, field)) => {
            if !metric.get(field).is_set() {
                metric.get(field).required(
                    errors,
                    "must populate information for the given metric source",
                );
            }
        }
        // Upstream says it again, and clients see all causes.
        None => ty.one_of(errors, &known),
    }
    if given.len() > 1 {
        let wanted = expected.map(|(_, field)| *field);
        for other in given.into_iter().filter(|field| Some(*field) != wanted) {
            metric
                .get(other)
                .forbidden(errors, "must populate the given metric source only");
        }
    }
}

fn metric_source(field: &str, source: &At<'_>, errors: &mut ErrorList) {
    let target = source.get("target");
    let is_resource = matches!(field, "resource" | "containerResource");
    if is_resource {
        let (name, container) = (source.get("name"), source.get("container"));
        let of_container = field == "containerResource";
        if !name.is_given() {
            name.required(errors, "must specify a resource name");
        } else if of_container {
            quota::container_resource_name(name.text(), &name, errors);
        }
        if of_container && !container.is_given() {
            container.required(errors, "must specify a container");
        } else if of_container {
            container.check(errors, format::dns1123_label(container.text()));
        }
    } else {
        let name = source.get("metric").get("name");
        if name.is_given() {
            name.check(errors, format::path_segment_name(name.text()));
        } else {
            name.required(errors, "must specify a metric name");
        }
    }
    if field == "object" {
        reference(&source.get("describedObject"), errors);
    }
    metric_target(&target, errors);
    let (value, average) = (target.get("value"), target.get("averageValue"));
    match field {
        "resource" | "containerResource" => {
            let percent = target.get("averageUtilization");
            match (percent.is_set(), average.is_set()) {
                (false, false) => percent.required(
                    errors,
                    "must set either a target raw value or a target utilization",
                ),
                (true, true) => average.forbidden(
                    errors,
                    "may not set both a target raw value and a target utilization",
                ),
                _ => {}
            }
        }
        "pods" => {
            if !average.is_set() {
                average.required(errors, "must specify a positive target averageValue");
            }
        }
        "object" => {
            if !value.is_set() && !average.is_set() {
                average.required(errors, "must set either a target value or averageValue");
            }
        }
        _ => match (value.is_set(), average.is_set()) {
            (true, true) => value.forbidden(
                errors,
                "may not set both a target value for metric and a per-pod target",
            ),
            (false, false) => average.required(
                errors,
                "must set either a target value for metric or a per-pod target",
            ),
            _ => {}
        },
    }
}

fn metric_target(target: &At<'_>, errors: &mut ErrorList) {
    let ty = target.get("type");
    if !ty.is_given() {
        ty.required(errors, "must specify a metric target type");
    }
    if !matches!(ty.text(), "Utilization" | "Value" | "AverageValue") {
        errors.push(FieldError::invalid(
            &ty.path,
            ty.text(),
            "must be either Utilization, Value, or AverageValue",
        ));
    }
    for field in ["value", "averageValue"] {
        let value = target.get(field);
        let quantity = value.text().parse::<Quantity>();
        if quantity.is_ok_and(|q| q <= Quantity::default()) {
            value.invalid(errors, "must be positive");
        }
    }
    let percent = target.get("averageUtilization");
    if percent.int().is_some_and(|p| p < 1) {
        percent.invalid(errors, "must be greater than 0");
    }
}

fn scaling_rules(rules: &At<'_>, errors: &mut ErrorList) {
    if !rules.is_set() {
        return;
    }
    /// Seconds.
    const LONGEST: (i64, i64) = (3600, 1800);
    let window = rules.get("stabilizationWindowSeconds");
    window.non_negative(errors);
    if window.int().is_some_and(|w| w > LONGEST.0) {
        let detail = format!("must be less than or equal to {}", LONGEST.0);
        window.invalid(errors, detail);
    }
    let tolerance = rules.get("tolerance");
    let negative = |text: &str| {
        text.parse()
            .is_ok_and(|q: Quantity| q < Quantity::default())
    };
    if negative(tolerance.text()) {
        tolerance.invalid(errors, "must be greater than or equal to 0");
    }
    if rules.get("selectPolicy").is_set() {
        rules
            .get("selectPolicy")
            .one_of(errors, &["Disabled", "Max", "Min"]);
    }
    let policies = rules.get("policies");
    if policies.len() == 0 {
        policies.required(errors, "must specify at least one Policy");
    }
    for policy in policies.items() {
        policy.get("type").one_of(errors, &["Percent", "Pods"]);
        for (field, most) in [("value", i64::MAX), ("periodSeconds", LONGEST.1)] {
            let number = policy.get(field);
            if number.int().is_none_or(|n| n <= 0) {
                number.invalid(errors, "must be greater than zero");
            } else if number.int().is_some_and(|n| n > most) {
                number.invalid(errors, format!("must be less than or equal to {most}"));
            }
        }
    }
}

fn budget(spec: &At<'_>, errors: &mut ErrorList) {
    let bounds = ["minAvailable", "maxUnavailable"].map(|b| spec.get(b));
    if bounds.iter().all(At::is_set) {
        spec.invalid(errors, "minAvailable and maxUnavailable cannot be both set");
    }
    for bound in &bounds {
        if bound.is_set() {
            apps::int_or_percent(bound, errors);
            apps::not_over_100(bound, errors);
        }
    }
    pod::label_selector(&spec.get("selector"), errors);
    let policy = spec.get("unhealthyPodEvictionPolicy");
    if policy.is_set() {
        policy.one_of(errors, &["AlwaysAllow", "IfHealthyBudget"]);
    }
}
