//! The quality-of-service class of a pod, and what it means to the kernel's OOM killer.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::requests::{Amounts, amounts, container_limits, container_requests, of, pod_requests};
use crate::pods::pod::{PodExt, is_sidecar};

/// `status.qosClass`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class recorded in the pod's status, which never changes, or the one its spec gives.
pub fn qos_class(pod: &Pod) -> QosClass {
    match pod
        .status
        .as_ref()
        .and_then(|status| status.qos_class.as_deref())
    {
        Some("Guaranteed") => QosClass::Guaranteed,
        Some("Burstable") => QosClass::Burstable,
        Some("BestEffort") => QosClass::BestEffort,
        _ => compute(pod),
    }
}

fn compute(pod: &Pod) -> QosClass {
    let counted = |list: Option<&super::requests::ResourceList>| -> Amounts {
        let mut amounts = amounts(list);
        amounts.retain(|name, amount| matches!(name.as_str(), "cpu" | "memory") && *amount > 0);
        amounts
    };
    let mut requests = Amounts::new();
    let mut limits = Amounts::new();
    let mut all_limited = true;
    if let Some(own) = &pod.pod_spec().resources {
        requests = counted(own.requests.as_ref());
        limits = counted(own.limits.as_ref());
        all_limited = limits.len() == 2;
    } else {
        for container in pod.containers().iter().chain(pod.init_containers()) {
            for (name, amount) in counted(container_requests(container)) {
                *requests.entry(name).or_default() += amount;
            }
            let limited = counted(container_limits(container));
            all_limited &= limited.len() == 2;
            for (name, amount) in limited {
                *limits.entry(name).or_default() += amount;
            }
        }
    }
    if requests.is_empty() && limits.is_empty() {
        QosClass::BestEffort
    } else if all_limited && requests == limits {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

const GUARANTEED_OOM_SCORE: i64 = -997;
const BEST_EFFORT_OOM_SCORE: i64 = 1000;
const NODE_CRITICAL: &str = "system-node-critical";

/// `oom_score_adj` of a container's processes: the smaller its request beside the node's memory
/// (in bytes), the sooner it goes.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory: i64) -> i64 {
    let spec = pod.pod_spec();
    // By the class: nobody looks up the priority of a static pod's.
    let critical = pod.is_critical() && spec.priority_class_name.as_deref() == Some(NODE_CRITICAL);
    match qos_class(pod) {
        _ if critical => return GUARANTEED_OOM_SCORE,
        QosClass::Guaranteed => return GUARANTEED_OOM_SCORE,
        QosClass::BestEffort => return BEST_EFFORT_OOM_SCORE,
        QosClass::Burstable => {}
    }
    let memory = |c: &Container| of(container_requests(c), "memory");
    // What the pod requests beyond its containers is shared out evenly among them.
    let own = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let shared = own
        .filter(|list| list.contains_key("memory"))
        .map_or(0, |_| {
            let containers = pod.containers().len()
                + pod
                    .init_containers()
                    .iter()
                    .filter(|c| is_sidecar(c))
                    .count();
            let requested: i64 = pod
                .containers()
                .iter()
                .chain(pod.init_containers().iter().filter(|c| is_sidecar(c)))
                .map(memory)
                .sum();
            let total = pod_requests(pod, false)
                .get("memory")
                .copied()
                .unwrap_or_default();
            (total - requested).max(0) / i64::try_from(containers.max(1)).unwrap_or(1)
        });
    let score = |request: i64| 1000 - 1000 * (request + shared) / node_memory.max(1);
    let mut adjust = score(memory(container));
    if is_sidecar(container)
        && pod
            .init_containers()
            .iter()
            .any(|c| c.name == container.name)
    {
        // A sidecar must not go before the containers it serves.
        let least = pod
            .containers()
            .iter()
            .map(memory)
            .min()
            .unwrap_or_default();
        adjust = adjust.min(score(least));
    }
    match adjust {
        adjust if adjust < 1000 + GUARANTEED_OOM_SCORE => 1000 + GUARANTEED_OOM_SCORE,
        BEST_EFFORT_OOM_SCORE => BEST_EFFORT_OOM_SCORE - 1,
        adjust => adjust,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(containers: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap()
    }

    fn with(requests: serde_json::Value, limits: serde_json::Value) -> serde_json::Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn classes_and_scores() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        let node = 4 << 30;
        for (containers, class, score) in [
            (
                json!([with(full.clone(), full.clone())]),
                QosClass::Guaranteed,
                -997,
            ),
            (
                json!([with(full.clone(), json!({}))]),
                QosClass::Burstable,
                750,
            ),
            (
                json!([with(json!({"cpu": "1"}), json!({}))]),
                QosClass::Burstable,
                999,
            ),
            (
                json!([with(json!({"memory": "4Gi"}), json!({}))]),
                QosClass::Burstable,
                3,
            ),
            (
                json!([with(full.clone(), full.clone()), {"name": "d"}]),
                QosClass::Burstable,
                750,
            ),
            (
                json!([with(json!({"cpu": "0"}), json!({"nvidia.com/gpu": "1"}))]),
                QosClass::BestEffort,
                1000,
            ),
        ] {
            let p = pod(containers.clone());
            assert_eq!(qos_class(&p), class, "{containers}");
            assert_eq!(
                oom_score_adj(&p, &p.containers()[0], node),
                score,
                "{containers}"
            );
        }
    }
}
