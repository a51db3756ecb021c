//! Pods out of templates, and what controllers say in their status.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use crate::kinds;

/// A pod of the template, owned by the object that the reference names. The server makes up
/// the rest of its name.
pub fn from_template(
    namespace: &str,
    owner_name: &str,
    template: Option<&PodTemplateSpec>,
    owner: OwnerReference,
) -> Pod {
    let template = template.cloned().unwrap_or_default();
    let metadata = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some(format!("{owner_name}-")),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// The part of a strategic merge patch of a pod's status that sets a condition, behind those
/// that the pod has: without an order the server would put it first.
pub fn condition_patch(pod: &kinds::Pod, condition: Value) -> Value {
    let mut order: Vec<_> = pod.status.conditions.iter().map(|c| &*c.r#type).collect();
    let new = condition["type"].as_str().unwrap_or_default();
    if !order.contains(&new) {
        order.push(new);
    }
    let order: Value = order.iter().map(|ty| json!({"type": ty})).collect();
    json!({"$setElementOrder/conditions": order, "conditions": [condition]})
}
