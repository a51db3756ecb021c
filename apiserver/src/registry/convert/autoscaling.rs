//! HorizontalPodAutoscaler: `v1` knows one metric (CPU utilization); what `v2` has beyond
//! that travels in annotations, so that nothing is lost by reading or writing the older version.

mod annotated;

use k8s_openapi::api::autoscaling::v2;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::object_meta::{child_mut, meta_mut};
use annotated::{Behavior, Condition, MetricSpec, MetricStatus};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// Percent of what is requested; what a `v1` without any metric stands for.
const DEFAULT_CPU_UTILIZATION: i32 = 80;

/// Those that are conversion's own: what a client writes there does not outlive it.
pub const ANNOTATIONS: &[&str] = &[
    METRICS,
    BEHAVIOR,
    CURRENT_METRICS,
    CONDITIONS,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// `v2` has a field for everything.
pub fn drop_annotations(hpa: &mut Value) {
    let meta = meta_mut(hpa);
    let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) else {
        return;
    };
    annotations.retain(|key, _| !ANNOTATIONS.contains(&key.as_str()));
    if annotations.is_empty() {
        meta.remove("annotations");
    }
}

fn annotate(hpa: &mut Value, key: &str, value: &impl Serialize) {
    let annotations = meta_mut(hpa)
        .entry("annotations")
        .or_insert_with(|| json!({}));
    annotations[key] = json!(codec::json::compacted(value));
}

/// `None` where there is none, or none that Go would take for a `T`: upstream goes on as if nothing
/// were said.
fn annotation<T: DeserializeOwned + Default>(hpa: &Value, key: &str) -> Option<T> {
    codec::json::from_text(hpa["metadata"]["annotations"][key].as_str()?).ok()
}

/// A part of a `v2` that has been checked against the schema.
fn part<T: DeserializeOwned + Default>(value: Option<Value>) -> T {
    value
        .and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default()
}

/// The one target that `v1` has a field for, in percent of what is requested.
fn cpu_utilization(metric: &v2::MetricSpec) -> Option<i32> {
    let resource = metric.resource.as_ref()?;
    let cpu = metric.type_ == "Resource" && resource.name == "cpu";
    resource.target.average_utilization.filter(|_| cpu)
}

fn current_cpu_utilization(metric: &v2::MetricStatus) -> Option<i32> {
    let resource = metric.resource.as_ref()?;
    let cpu = metric.type_ == "Resource" && resource.name == "cpu";
    resource.current.average_utilization.filter(|_| cpu)
}

pub fn v2_to_v1(hpa: &mut Value) {
    drop_annotations(hpa);

    let spec = child_mut(hpa, "spec");
    let metrics: Vec<v2::MetricSpec> = part(spec.remove("metrics"));
    let behavior: Option<v2::HorizontalPodAutoscalerBehavior> = part(spec.remove("behavior"));
    if let Some(percent) = metrics.iter().find_map(cpu_utilization) {
        spec.insert("targetCPUUtilizationPercentage".into(), json!(percent));
    }
    let others = metrics.into_iter().filter(|m| cpu_utilization(m).is_none());
    let others: Vec<MetricSpec> = others.map(MetricSpec::from).collect();
    if !others.is_empty() {
        annotate(hpa, METRICS, &others);
    }
    if let Some(behavior) = behavior {
        annotate(hpa, BEHAVIOR, &Behavior::from(behavior));
    }

    let status = child_mut(hpa, "status");
    let current: Vec<v2::MetricStatus> = part(status.remove("currentMetrics"));
    let conditions: Vec<v2::HorizontalPodAutoscalerCondition> = part(status.remove("conditions"));
    if let Some(percent) = current.iter().rev().find_map(current_cpu_utilization) {
        status.insert("currentCPUUtilizationPercentage".into(), json!(percent));
    }
    // Those of the CPU too: the field has no place for the amount.
    let current: Vec<MetricStatus> = current.into_iter().map(MetricStatus::from).collect();
    if !current.is_empty() {
        annotate(hpa, CURRENT_METRICS, &current);
    }
    let conditions: Vec<Condition> = conditions.into_iter().map(Condition::from).collect();
    if !conditions.is_empty() {
        annotate(hpa, CONDITIONS, &conditions);
    }
}

pub fn v1_to_v2(hpa: &mut Value) {
    let metrics: Vec<MetricSpec> = annotation(hpa, METRICS).unwrap_or_default();
    let behavior: Behavior = annotation(hpa, BEHAVIOR).unwrap_or_default();
    let current: Option<Vec<MetricStatus>> = annotation(hpa, CURRENT_METRICS);
    let conditions: Option<Vec<Condition>> = annotation(hpa, CONDITIONS);
    drop_annotations(hpa);

    let spec = child_mut(hpa, "spec");
    let mut metrics: Vec<Value> = (metrics.into_iter().map(v2::MetricSpec::from))
        .map(|metric| json!(metric))
        .collect();
    let utilization = spec.remove("targetCPUUtilizationPercentage");
    // Only here is it known that there is no metric in either place.
    let assumed = || metrics.is_empty().then(|| json!(DEFAULT_CPU_UTILIZATION));
    if let Some(utilization) = utilization.or_else(assumed) {
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": utilization}}}));
    }
    spec.insert("metrics".into(), Value::Array(metrics));
    if behavior != Behavior::default() {
        let behavior = v2::HorizontalPodAutoscalerBehavior::from(behavior);
        spec.insert("behavior".into(), json!(behavior));
    }

    let status = child_mut(hpa, "status");
    let utilization = status.remove("currentCPUUtilizationPercentage");
    // The annotation knows more than the one value.
    let current = match (current, utilization) {
        (Some(current), _) => (current.into_iter().map(v2::MetricStatus::from))
            .map(|metric| json!(metric))
            .collect(),
        (None, Some(utilization)) => json!([{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": utilization}}}]),
        (None, None) => Value::Null,
    };
    if !current.is_null() {
        status.insert("currentMetrics".into(), current);
    }
    if let Some(conditions) = conditions {
        let conditions = conditions
            .into_iter()
            .map(v2::HorizontalPodAutoscalerCondition::from);
        let conditions: Vec<_> = conditions.collect();
        status.insert("conditions".into(), json!(conditions));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_v1(annotations: Value) -> Value {
        let mut hpa = json!({
            "metadata": {"name": "h", "annotations": annotations},
            "spec": {"maxReplicas": 3},
        });
        v1_to_v2(&mut hpa);
        assert!(hpa["metadata"].get("annotations").is_none());
        hpa
    }

    #[test]
    fn what_go_would_not_read_says_nothing() {
        let default = of_v1(json!({}));
        for (key, text) in [
            (METRICS, "{"),
            (
                METRICS,
                r#"[{"type":"Pods","pods":{"targetAverageValue":"x"}}]"#,
            ),
            (
                METRICS,
                r#"[{"type":"Resource","resource":{"targetAverageUtilization":"4"}}]"#,
            ),
            (BEHAVIOR, "{}"),
            (BEHAVIOR, r#"{"ScaleUp":null,"ScaleDown":null}"#),
            (
                BEHAVIOR,
                r#"{"ScaleUp":{"StabilizationWindowSeconds":"5"}}"#,
            ),
            (CONDITIONS, r#"{"ScaleUp":{}}"#),
            (
                CONDITIONS,
                r#"[{"type":"AbleToScale","lastTransitionTime":"soon"}]"#,
            ),
            (CURRENT_METRICS, r#"{"type":"Pods"}"#),
            ("autoscaling.alpha.kubernetes.io/scale-up-tolerance", "5"),
        ] {
            assert_eq!(of_v1(json!({key: text})), default, "{key}: {text}");
        }
    }

    #[test]
    fn what_is_no_pointer_in_go_has_a_value() {
        let metrics = r#"[{"type":"Pods","pods":{"metricName":"m"}},
            {"type":"Object","object":{"metricName":"m","averageValue":5,"targetValue":"0"}},
            {"type":"Object","object":{"metricName":"m"}},
            {"type":"External","external":{"metricName":"m"}}, null]"#;
        let hpa = of_v1(json!({ METRICS: metrics }));
        let target =
            |metric: usize, kind: &str| hpa["spec"]["metrics"][metric][kind]["target"].clone();
        let zero = json!({"type": "AverageValue", "averageValue": "0"});
        assert_eq!(target(0, "pods"), zero);
        let five = json!({"type": "AverageValue", "averageValue": "5"});
        assert_eq!(target(1, "object"), five);
        assert_eq!(target(2, "object"), json!({"type": "Value", "value": "0"}));
        assert_eq!(target(3, "external"), json!({"type": "AverageValue"}));
        assert_eq!(hpa["spec"]["metrics"][4], json!({"type": ""}));
    }

    #[test]
    fn v1_has_what_conversion_says_and_not_what_a_client_said() {
        let mut hpa = json!({
            "metadata": {"annotations": {METRICS: "[]", "a": "b"}},
            "spec": {"metrics": [
                {"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 60}}},
            ]},
            "status": {
                "conditions": [{"type": "AbleToScale", "status": "True", "message": "1 < 2"}],
                "currentMetrics": [{"type": "Object", "object": {
                    "metric": {"name": "m", "selector": {
                        "matchLabels": {"b": "x", "a": "y"},
                        "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}},
                    "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "s"},
                    "current": {"averageValue": "5"}}}],
            },
        });
        v2_to_v1(&mut hpa);
        assert_eq!(hpa["spec"]["targetCPUUtilizationPercentage"], 50);
        let said = json!({
            "a": "b",
            CONDITIONS: r#"[{"type":"AbleToScale","status":"True","lastTransitionTime":null,"message":"1 \u003c 2"}]"#,
            CURRENT_METRICS: concat!(
                r#"[{"type":"Object","object":{"target":{"kind":"Service","name":"s","apiVersion":"v1"},"#,
                r#""metricName":"m","currentValue":"0","selector":{"matchLabels":{"a":"y","b":"x"},"#,
                r#""matchExpressions":[{"key":"k","operator":"In","values":["v"]}]},"averageValue":"5"}}]"#,
            ),
        });
        assert_eq!(hpa["metadata"]["annotations"], said);
    }

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
