//! What `v1` has no fields for, as upstream's server keeps it in annotations: types of its own
//! that Go's encoding/json writes member by member in this order, and reads leniently.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, Time,
};
use meta::quantity::Quantity;
use serde::{Deserialize, Serialize};

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricSpec {
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<ObjectSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<PodsSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<ResourceSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_resource: Option<ContainerResourceSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<ExternalSource>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectSource {
    target: ObjectReference,
    metric_name: String,
    target_value: Quantity,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<Selector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_value: Option<Quantity>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodsSource {
    metric_name: String,
    target_average_value: Quantity,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<Selector>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceSource {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_utilization: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_value: Option<Quantity>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerResourceSource {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_utilization: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_value: Option<Quantity>,
    container: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ExternalSource {
    metric_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_selector: Option<Selector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_value: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_average_value: Option<Quantity>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MetricStatus {
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<ObjectStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<PodsStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<ResourceStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_resource: Option<ContainerResourceStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<ExternalStatus>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectStatus {
    target: ObjectReference,
    metric_name: String,
    current_value: Quantity,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<Selector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_value: Option<Quantity>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodsStatus {
    metric_name: String,
    current_average_value: Quantity,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<Selector>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceStatus {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_average_utilization: Option<i32>,
    current_average_value: Quantity,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerResourceStatus {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_average_utilization: Option<i32>,
    current_average_value: Quantity,
    container: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ExternalStatus {
    metric_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric_selector: Option<Selector>,
    current_value: Quantity,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_average_value: Option<Quantity>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectReference {
    kind: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Selector {
    #[serde(skip_serializing_if = "Option::is_none")]
    match_labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    match_expressions: Option<Vec<LabelSelectorRequirement>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    r#type: String,
    status: String,
    /// Written even when there is none.
    last_transition_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Upstream writes its internal type, whose members have the names that they have in Go.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Behavior {
    scale_up: Option<ScalingRules>,
    scale_down: Option<ScalingRules>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ScalingRules {
    stabilization_window_seconds: Option<i32>,
    select_policy: Option<String>,
    policies: Option<Vec<ScalingPolicy>>,
    tolerance: Option<Quantity>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ScalingPolicy {
    r#type: String,
    value: i32,
    period_seconds: i32,
}

/// What is no pointer in upstream's type has a value.
fn or_zero(quantity: Option<ApiQuantity>) -> Quantity {
    quantity.and_then(ours).unwrap_or_default()
}

fn ours(quantity: ApiQuantity) -> Option<Quantity> {
    Quantity::try_from(&quantity).ok()
}

fn theirs(quantity: Option<Quantity>) -> Option<ApiQuantity> {
    quantity.map(ApiQuantity::from)
}

impl From<v2::CrossVersionObjectReference> for ObjectReference {
    fn from(reference: v2::CrossVersionObjectReference) -> Self {
        ObjectReference {
            kind: reference.kind,
            name: reference.name,
            api_version: reference.api_version,
        }
    }
}

impl From<ObjectReference> for v2::CrossVersionObjectReference {
    fn from(reference: ObjectReference) -> Self {
        v2::CrossVersionObjectReference {
            api_version: reference.api_version,
            kind: reference.kind,
            name: reference.name,
        }
    }
}

impl From<LabelSelector> for Selector {
    fn from(selector: LabelSelector) -> Self {
        Selector {
            match_labels: selector.match_labels,
            match_expressions: selector.match_expressions,
        }
    }
}

fn identifier(name: String, selector: Option<Selector>) -> v2::MetricIdentifier {
    v2::MetricIdentifier {
        name,
        selector: selector.map(|selector| LabelSelector {
            match_expressions: selector.match_expressions,
            match_labels: selector.match_labels,
        }),
    }
}

fn parts(metric: v2::MetricIdentifier) -> (String, Option<Selector>) {
    (metric.name, metric.selector.map(Selector::from))
}

impl From<v2::MetricSpec> for MetricSpec {
    fn from(metric: v2::MetricSpec) -> Self {
        let object = metric.object.map(|source| {
            let (metric_name, selector) = parts(source.metric);
            ObjectSource {
                target: source.described_object.into(),
                metric_name,
                target_value: or_zero(source.target.value),
                selector,
                average_value: source.target.average_value.and_then(ours),
            }
        });
        let pods = metric.pods.map(|source| {
            let (metric_name, selector) = parts(source.metric);
            PodsSource {
                metric_name,
                target_average_value: or_zero(source.target.average_value),
                selector,
            }
        });
        let external = metric.external.map(|source| {
            let (metric_name, metric_selector) = parts(source.metric);
            ExternalSource {
                metric_name,
                metric_selector,
                target_value: source.target.value.and_then(ours),
                target_average_value: source.target.average_value.and_then(ours),
            }
        });
        MetricSpec {
            r#type: metric.type_,
            object,
            pods,
            resource: metric.resource.map(|source| ResourceSource {
                name: source.name,
                target_average_utilization: source.target.average_utilization,
                target_average_value: source.target.average_value.and_then(ours),
            }),
            container_resource: (metric.container_resource).map(|source| ContainerResourceSource {
                name: source.name,
                target_average_utilization: source.target.average_utilization,
                target_average_value: source.target.average_value.and_then(ours),
                container: source.container,
            }),
            external,
        }
    }
}

impl From<MetricSpec> for v2::MetricSpec {
    fn from(metric: MetricSpec) -> Self {
        let object = metric.object.map(|source| {
            // Beside an average, a zero says only that Go could not leave the value out.
            let valued = source.average_value.is_none();
            let value = (valued || !source.target_value.is_zero()).then_some(source.target_value);
            v2::ObjectMetricSource {
                described_object: source.target.into(),
                metric: identifier(source.metric_name, source.selector),
                target: target(valued, value, source.average_value),
            }
        });
        let pods = metric.pods.map(|source| v2::PodsMetricSource {
            metric: identifier(source.metric_name, source.selector),
            target: target(false, None, Some(source.target_average_value)),
        });
        let resource = metric.resource.map(|source| v2::ResourceMetricSource {
            name: source.name,
            target: share(
                source.target_average_utilization,
                source.target_average_value,
            ),
        });
        let container_resource = (metric.container_resource).map(|source| {
            let target = share(
                source.target_average_utilization,
                source.target_average_value,
            );
            v2::ContainerResourceMetricSource {
                container: source.container,
                name: source.name,
                target,
            }
        });
        let external = metric.external.map(|source| v2::ExternalMetricSource {
            metric: identifier(source.metric_name, source.metric_selector),
            target: target(
                source.target_value.is_some(),
                source.target_value,
                source.target_average_value,
            ),
        });
        v2::MetricSpec {
            container_resource,
            external,
            object,
            pods,
            resource,
            type_: metric.r#type,
        }
    }
}

/// Of what is requested, in percent, or an amount.
fn share(utilization: Option<i32>, average: Option<Quantity>) -> v2::MetricTarget {
    let type_ = match utilization {
        Some(_) => "Utilization",
        None => "AverageValue",
    };
    v2::MetricTarget {
        type_: type_.to_owned(),
        average_utilization: utilization,
        average_value: theirs(average),
        value: None,
    }
}

fn target(valued: bool, value: Option<Quantity>, average: Option<Quantity>) -> v2::MetricTarget {
    v2::MetricTarget {
        type_: if valued { "Value" } else { "AverageValue" }.to_owned(),
        average_utilization: None,
        average_value: theirs(average),
        value: theirs(value),
    }
}

impl From<v2::MetricStatus> for MetricStatus {
    fn from(metric: v2::MetricStatus) -> Self {
        let object = metric.object.map(|status| {
            let (metric_name, selector) = parts(status.metric);
            ObjectStatus {
                target: status.described_object.into(),
                metric_name,
                current_value: or_zero(status.current.value),
                selector,
                average_value: status.current.average_value.and_then(ours),
            }
        });
        let pods = metric.pods.map(|status| {
            let (metric_name, selector) = parts(status.metric);
            PodsStatus {
                metric_name,
                current_average_value: or_zero(status.current.average_value),
                selector,
            }
        });
        let external = metric.external.map(|status| {
            let (metric_name, metric_selector) = parts(status.metric);
            ExternalStatus {
                metric_name,
                metric_selector,
                current_value: or_zero(status.current.value),
                current_average_value: status.current.average_value.and_then(ours),
            }
        });
        MetricStatus {
            r#type: metric.type_,
            object,
            pods,
            resource: metric.resource.map(|status| ResourceStatus {
                name: status.name,
                current_average_utilization: status.current.average_utilization,
                current_average_value: or_zero(status.current.average_value),
            }),
            container_resource: (metric.container_resource).map(|status| ContainerResourceStatus {
                name: status.name,
                current_average_utilization: status.current.average_utilization,
                current_average_value: or_zero(status.current.average_value),
                container: status.container,
            }),
            external,
        }
    }
}

impl From<MetricStatus> for v2::MetricStatus {
    fn from(metric: MetricStatus) -> Self {
        let object = metric.object.map(|status| v2::ObjectMetricStatus {
            current: current(Some(status.current_value), status.average_value),
            described_object: status.target.into(),
            metric: identifier(status.metric_name, status.selector),
        });
        let pods = metric.pods.map(|status| v2::PodsMetricStatus {
            current: current(None, Some(status.current_average_value)),
            metric: identifier(status.metric_name, status.selector),
        });
        let resource = metric.resource.map(|status| v2::ResourceMetricStatus {
            current: v2::MetricValueStatus {
                average_utilization: status.current_average_utilization,
                ..current(None, Some(status.current_average_value))
            },
            name: status.name,
        });
        let container_resource = (metric.container_resource).map(|status| {
            let current = v2::MetricValueStatus {
                average_utilization: status.current_average_utilization,
                ..current(None, Some(status.current_average_value))
            };
            v2::ContainerResourceMetricStatus {
                container: status.container,
                current,
                name: status.name,
            }
        });
        let external = metric.external.map(|status| v2::ExternalMetricStatus {
            current: current(Some(status.current_value), status.current_average_value),
            metric: identifier(status.metric_name, status.metric_selector),
        });
        v2::MetricStatus {
            container_resource,
            external,
            object,
            pods,
            resource,
            type_: metric.r#type,
        }
    }
}

fn current(value: Option<Quantity>, average: Option<Quantity>) -> v2::MetricValueStatus {
    v2::MetricValueStatus {
        average_utilization: None,
        average_value: theirs(average),
        value: theirs(value),
    }
}

impl From<v2::HorizontalPodAutoscalerCondition> for Condition {
    fn from(condition: v2::HorizontalPodAutoscalerCondition) -> Self {
        Condition {
            r#type: condition.type_,
            status: condition.status,
            last_transition_time: condition.last_transition_time,
            reason: condition.reason,
            message: condition.message,
        }
    }
}

impl From<Condition> for v2::HorizontalPodAutoscalerCondition {
    fn from(condition: Condition) -> Self {
        v2::HorizontalPodAutoscalerCondition {
            last_transition_time: condition.last_transition_time,
            message: condition.message,
            reason: condition.reason,
            status: condition.status,
            type_: condition.r#type,
        }
    }
}

impl From<v2::HorizontalPodAutoscalerBehavior> for Behavior {
    fn from(behavior: v2::HorizontalPodAutoscalerBehavior) -> Self {
        let rules = |rules: v2::HPAScalingRules| ScalingRules {
            stabilization_window_seconds: rules.stabilization_window_seconds,
            select_policy: rules.select_policy,
            policies: (rules.policies).map(|all| all.into_iter().map(policy).collect()),
            tolerance: rules.tolerance.and_then(ours),
        };
        fn policy(policy: v2::HPAScalingPolicy) -> ScalingPolicy {
            ScalingPolicy {
                r#type: policy.type_,
                value: policy.value,
                period_seconds: policy.period_seconds,
            }
        }
        Behavior {
            scale_up: behavior.scale_up.map(rules),
            scale_down: behavior.scale_down.map(rules),
        }
    }
}

impl From<Behavior> for v2::HorizontalPodAutoscalerBehavior {
    fn from(behavior: Behavior) -> Self {
        let rules = |rules: ScalingRules| v2::HPAScalingRules {
            policies: (rules.policies).map(|all| all.into_iter().map(policy).collect()),
            select_policy: rules.select_policy,
            stabilization_window_seconds: rules.stabilization_window_seconds,
            tolerance: theirs(rules.tolerance),
        };
        fn policy(policy: ScalingPolicy) -> v2::HPAScalingPolicy {
            v2::HPAScalingPolicy {
                period_seconds: policy.period_seconds,
                type_: policy.r#type,
                value: policy.value,
            }
        }
        v2::HorizontalPodAutoscalerBehavior {
            scale_down: behavior.scale_down.map(rules),
            scale_up: behavior.scale_up.map(rules),
        }
    }
}
