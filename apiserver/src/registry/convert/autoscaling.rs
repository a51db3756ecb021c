//! HorizontalPodAutoscaler: `v1` knows one metric (CPU utilization); what `v2` has beyond
//! that travels in annotations, so that nothing is lost by reading or writing the older version.

use serde_json::{Map, Value, json};

use super::super::object_meta::{child_mut, meta_mut};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// Percent of what is requested; what a `v1` without any metric stands for.
const DEFAULT_CPU_UTILIZATION: u32 = 80;

pub const ANNOTATIONS: &[&str] = &[METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS];

fn is_cpu_utilization(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

fn annotate(hpa: &mut Value, key: &str, value: &Value) {
    let annotations = meta_mut(hpa)
        .entry("annotations")
        .or_insert_with(|| json!({}));
    annotations[key] = json!(in_go_order(value));
}

/// The members of upstream's structs in the order in which Go writes them.
const ORDER: [&str; 34] = [
    "type",
    "status",
    "lastTransitionTime",
    "reason",
    "message",
    "object",
    "pods",
    "resource",
    "containerResource",
    "external",
    "kind",
    "target",
    "name",
    "apiVersion",
    "metricName",
    "metricSelector",
    "targetAverageUtilization",
    "currentAverageUtilization",
    "targetValue",
    "currentValue",
    "targetAverageValue",
    "currentAverageValue",
    "container",
    "selector",
    "averageValue",
    "ScaleUp",
    "ScaleDown",
    "StabilizationWindowSeconds",
    "SelectPolicy",
    "Policies",
    "Type",
    "Value",
    "PeriodSeconds",
    "Tolerance",
];

fn in_go_order(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(in_go_order).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let place = |key: &str| ORDER.iter().position(|known| *known == key);
            let mut members: Vec<_> = members.iter().collect();
            // Others keep their alphabetical order, which sorting does not disturb.
            members.sort_by_key(|(key, _)| place(key).unwrap_or(ORDER.len()));
            let text =
                |(key, value): &(&String, &Value)| format!("{}:{}", json!(key), in_go_order(value));
            let members: Vec<String> = members.iter().map(text).collect();
            format!("{{{}}}", members.join(","))
        }
        scalar => scalar.to_string(),
    }
}

/// Upstream writes the behavior by its internal names, unset members included.
fn behavior_to_go(behavior: &Value) -> Value {
    let rules = |rules: &Value| {
        if !rules.is_object() {
            return Value::Null;
        }
        let policies = rules["policies"].as_array().map(|policies| {
            let policy = |p: &Value| json!({"Type": p["type"], "Value": p["value"], "PeriodSeconds": p["periodSeconds"]});
            policies.iter().map(policy).collect::<Vec<_>>()
        });
        json!({
            "StabilizationWindowSeconds": rules["stabilizationWindowSeconds"],
            "SelectPolicy": rules["selectPolicy"],
            "Policies": policies,
            "Tolerance": rules["tolerance"],
        })
    };
    json!({"ScaleUp": rules(&behavior["scaleUp"]), "ScaleDown": rules(&behavior["scaleDown"])})
}

/// The other way; what older servers of ours wrote in the API's own names is left as it is.
fn behavior_from_go(behavior: Value) -> Value {
    if behavior.get("ScaleUp").is_none() && behavior.get("ScaleDown").is_none() {
        return behavior;
    }
    let mut out = json!({});
    for (from, to) in [("ScaleUp", "scaleUp"), ("ScaleDown", "scaleDown")] {
        let rules = &behavior[from];
        if !rules.is_object() {
            continue;
        }
        let mut known = json!({});
        for (from, to) in [
            ("StabilizationWindowSeconds", "stabilizationWindowSeconds"),
            ("SelectPolicy", "selectPolicy"),
            ("Tolerance", "tolerance"),
        ] {
            if !rules[from].is_null() {
                known[to] = rules[from].clone();
            }
        }
        if let Some(policies) = rules["Policies"].as_array() {
            let policy = |p: &Value| json!({"type": p["Type"], "value": p["Value"], "periodSeconds": p["PeriodSeconds"]});
            known["policies"] = policies.iter().map(policy).collect();
        }
        out[to] = known;
    }
    out
}

/// Takes an annotation away and reads it.
fn annotation(hpa: &mut Value, key: &str) -> Option<Value> {
    let meta = meta_mut(hpa);
    let annotations = meta.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(key)?;
    if annotations.is_empty() {
        meta.remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn items(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

pub fn v2_to_v1(hpa: &mut Value) {
    let spec = child_mut(hpa, "spec");
    let mut metrics = items(spec.remove("metrics"));
    let behavior = spec.remove("behavior");
    if let Some(at) = metrics.iter().position(|m| {
        is_cpu_utilization(m) && m["resource"]["target"]["averageUtilization"].is_number()
    }) {
        let cpu = metrics.remove(at);
        spec.insert(
            "targetCPUUtilizationPercentage".into(),
            cpu["resource"]["target"]["averageUtilization"].clone(),
        );
    }
    if !metrics.is_empty() {
        annotate(
            hpa,
            METRICS,
            &metrics.into_iter().map(metric_to_v1).collect(),
        );
    }
    if let Some(behavior) = behavior {
        annotate(hpa, BEHAVIOR, &behavior_to_go(&behavior));
    }
    let status = child_mut(hpa, "status");
    let current = items(status.remove("currentMetrics"));
    let mut conditions = items(status.remove("conditions"));
    if let Some(cpu) = current.iter().find(|m| is_cpu_utilization(m)) {
        let utilization = &cpu["resource"]["current"]["averageUtilization"];
        if utilization.is_number() {
            status.insert(
                "currentCPUUtilizationPercentage".into(),
                utilization.clone(),
            );
        }
    }
    if !current.is_empty() {
        annotate(
            hpa,
            CURRENT_METRICS,
            &current.into_iter().map(status_to_v1).collect(),
        );
    }
    // The annotation's type prints the time even when there is none.
    for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
        let time = condition.entry("lastTransitionTime");
        time.or_insert(Value::Null);
    }
    if !conditions.is_empty() {
        annotate(hpa, CONDITIONS, &Value::Array(conditions));
    }
}

pub fn v1_to_v2(hpa: &mut Value) {
    let metrics = annotation(hpa, METRICS);
    let behavior = annotation(hpa, BEHAVIOR);
    let current = annotation(hpa, CURRENT_METRICS);
    let conditions = annotation(hpa, CONDITIONS);

    let spec = child_mut(hpa, "spec");
    let mut metrics: Vec<Value> = items(metrics).into_iter().map(metric_to_v2).collect();
    let utilization = spec.remove("targetCPUUtilizationPercentage");
    // Only here is it known that there is no metric in either place.
    let assumed = || metrics.is_empty().then(|| json!(DEFAULT_CPU_UTILIZATION));
    if let Some(utilization) = utilization.or_else(assumed) {
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": utilization}}}));
    }
    spec.insert("metrics".into(), Value::Array(metrics));
    if let Some(behavior) = behavior {
        spec.insert("behavior".into(), behavior_from_go(behavior));
    }
    let status = child_mut(hpa, "status");
    let utilization = status.remove("currentCPUUtilizationPercentage");
    // The annotation knows more than the one value.
    let current: Vec<Value> = match (current, utilization) {
        (None, Some(utilization)) => vec![json!({"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": utilization}}})],
        (current, _) => items(current).into_iter().map(status_to_v2).collect(),
    };
    if !current.is_empty() {
        status.insert("currentMetrics".into(), Value::Array(current));
    }
    if let Some(mut conditions) = conditions {
        let list = conditions.as_array_mut().into_iter().flatten();
        for condition in list.filter_map(Value::as_object_mut) {
            condition.retain(|_, value| !value.is_null());
        }
        status.insert("conditions".into(), conditions);
    }
}

/// The member of a metric that holds its source, by its type.
fn source(metric: &Value) -> Option<&'static str> {
    Some(match metric["type"].as_str()? {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "External" => "external",
        _ => return None,
    })
}

/// `v2` nests what `v1` (and its annotations) spell out: `(type, member of v1, member of v2)`.
const TARGETS: [(&str, &str, &str); 9] = [
    ("resource", "targetAverageUtilization", "averageUtilization"),
    ("resource", "targetAverageValue", "averageValue"),
    (
        "containerResource",
        "targetAverageUtilization",
        "averageUtilization",
    ),
    ("containerResource", "targetAverageValue", "averageValue"),
    ("pods", "targetAverageValue", "averageValue"),
    ("object", "averageValue", "averageValue"),
    ("object", "targetValue", "value"),
    ("external", "targetAverageValue", "averageValue"),
    ("external", "targetValue", "value"),
];

const CURRENTS: [(&str, &str, &str); 8] = [
    (
        "resource",
        "currentAverageUtilization",
        "averageUtilization",
    ),
    ("resource", "currentAverageValue", "averageValue"),
    (
        "containerResource",
        "currentAverageUtilization",
        "averageUtilization",
    ),
    ("containerResource", "currentAverageValue", "averageValue"),
    ("pods", "currentAverageValue", "averageValue"),
    ("object", "currentValue", "value"),
    ("external", "currentAverageValue", "averageValue"),
    ("external", "currentValue", "value"),
];

fn metric_to_v1(metric: Value) -> Value {
    flatten(metric, "target", &TARGETS)
}

fn metric_to_v2(metric: Value) -> Value {
    nest(metric, "target", &TARGETS)
}

fn status_to_v1(metric: Value) -> Value {
    let mut metric = flatten(metric, "current", &CURRENTS);
    // These are no pointers in upstream's structs.
    for kind in ["resource", "containerResource", "pods"] {
        let source = metric.get_mut(kind).and_then(Value::as_object_mut);
        if let Some(source) = source {
            source
                .entry("currentAverageValue")
                .or_insert_with(|| json!("0"));
        }
    }
    metric
}

fn status_to_v2(metric: Value) -> Value {
    nest(metric, "current", &CURRENTS)
}

type Names = [(&'static str, &'static str, &'static str)];

fn flatten(mut metric: Value, nested: &str, names: &Names) -> Value {
    let Some(kind) = source(&metric) else {
        return metric;
    };
    let member = child_mut(&mut metric, kind);
    let inner = member.remove(nested).unwrap_or_default();
    for (_, v1, v2) in names.iter().filter(|(k, _, _)| *k == kind) {
        if let Some(value) = inner.get(v2) {
            member.insert((*v1).to_owned(), value.clone());
        }
    }
    if let Some(Value::Object(identity)) = member.remove("metric") {
        let mut identity = identity;
        if let Some(name) = identity.remove("name") {
            member.insert("metricName".into(), name);
        }
        if let Some(selector) = identity.remove("selector") {
            let key = if kind == "external" {
                "metricSelector"
            } else {
                "selector"
            };
            member.insert(key.into(), selector);
        }
    }
    if let Some(described) = member.remove("describedObject") {
        member.insert("target".into(), described);
    }
    metric
}

fn nest(mut metric: Value, nested: &str, names: &Names) -> Value {
    let Some(kind) = source(&metric) else {
        return metric;
    };
    let member = child_mut(&mut metric, kind);
    if kind == "object"
        && let Some(described) = member.remove("target")
    {
        member.insert("describedObject".into(), described);
    }
    let mut inner = Map::new();
    for (_, v1, v2) in names.iter().filter(|(k, _, _)| *k == kind) {
        if let Some(value) = member.remove(*v1) {
            inner.insert((*v2).to_owned(), value);
        }
    }
    if nested == "target" {
        let ty = ["averageUtilization", "averageValue", "value"]
            .into_iter()
            .find(|k| inner.contains_key(*k));
        let ty = match ty {
            Some("averageUtilization") => "Utilization",
            Some("averageValue") => "AverageValue",
            _ => "Value",
        };
        inner.insert("type".into(), json!(ty));
    }
    let mut identity = Map::new();
    if let Some(name) = member.remove("metricName") {
        identity.insert("name".into(), name);
    }
    if let Some(selector) = member
        .remove("metricSelector")
        .or_else(|| member.remove("selector"))
    {
        identity.insert("selector".into(), selector);
    }
    if !identity.is_empty() {
        member.insert("metric".into(), Value::Object(identity));
    }
    member.insert(nested.to_owned(), Value::Object(inner));
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way_to_v1_and_back() {
        let v2 = json!({
            "metadata": {"name": "h"},
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 50}}},
                    {"type": "Pods", "pods": {"metric": {"name": "qps"},
                        "target": {"type": "AverageValue", "averageValue": "10"}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
            },
            "status": {
                "currentReplicas": 1,
                "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 40, "averageValue": "1m"}}}],
            },
        });
        let mut hpa = v2.clone();
        v2_to_v1(&mut hpa);
        assert_eq!(hpa["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(hpa["status"]["currentCPUUtilizationPercentage"], 40);
        assert!(hpa["spec"].get("metrics").is_none());
        assert!(
            hpa["metadata"]["annotations"][METRICS]
                .as_str()
                .unwrap()
                .contains("qps")
        );
        let conditions = hpa["metadata"]["annotations"][CONDITIONS].as_str().unwrap();
        assert!(conditions.contains(r#""lastTransitionTime":null"#));
        v1_to_v2(&mut hpa);
        // What v1 has a field for comes after what it has none for.
        let mut back = v2;
        back["spec"]["metrics"].as_array_mut().unwrap().reverse();
        assert_eq!(hpa, back);
    }
}
