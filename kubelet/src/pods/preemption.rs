//! Room for a critical pod: which pods have to end so that it can run here. Pure.
//!
//! Pods of the lower classes go first; of one class, those whose requests come nearest to what is
//! lacking, so that few have to go.

use std::cmp::Ordering;

use k8s_openapi::api::core::v1::Pod;
use thiserror::Error;

use super::pod::PodExt;
use crate::resources::qos::{QosClass, qos_class};
use crate::resources::requests::pod_requests;

/// What is lacking of a resource: in thousandths of `cpu`, else in its own unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    pub resource: String,
    pub amount: i64,
}

/// Not even all pods that may be ended would make room enough.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [{0}]"
)]
pub struct NoRoom(String);

fn no_room(left: &[Shortage]) -> NoRoom {
    let each = |s: &Shortage| format!("(res: {}, q: {}), ", s.resource, s.amount);
    NoRoom(left.iter().map(each).collect())
}

fn request(pod: &Pod, resource: &str) -> i64 {
    if resource == "pods" {
        return 1;
    }
    pod_requests(pod, true)
        .get(resource)
        .copied()
        .unwrap_or_default()
}

/// What is still lacking without these pods.
fn without<'a>(
    lacking: &[Shortage],
    pods: impl IntoIterator<Item = &'a Pod> + Clone,
) -> Vec<Shortage> {
    let left = lacking.iter().map(|shortage| {
        let freed: i64 = pods
            .clone()
            .into_iter()
            .map(|pod| request(pod, &shortage.resource))
            .sum();
        Shortage {
            resource: shortage.resource.clone(),
            amount: shortage.amount - freed,
        }
    });
    left.filter(|shortage| shortage.amount > 0).collect()
}

/// How far the pod's requests are from what is lacking: the sum of the squares of what of each
/// resource would still be lacking, as a share of it.
fn distance(pod: &Pod, lacking: &[Shortage]) -> f64 {
    let share = |shortage: &Shortage| {
        let left = shortage.amount - request(pod, &shortage.resource);
        (left.max(0) as f64 / shortage.amount as f64).powi(2)
    };
    lacking.iter().map(share).sum()
}

/// By memory, then by CPU.
fn by_size(a: &Pod, b: &Pod) -> Ordering {
    let key = |pod: &Pod| (request(pod, "memory"), request(pod, "cpu"));
    key(a).cmp(&key(b))
}

fn nearest(mut pods: Vec<&Pod>, mut lacking: Vec<Shortage>) -> Result<Vec<&Pod>, NoRoom> {
    let mut chosen = Vec::new();
    while !lacking.is_empty() {
        let best = (0..pods.len()).min_by(|a, b| {
            let of = |index: &usize| distance(pods[*index], &lacking);
            of(a)
                .total_cmp(&of(b))
                .then_with(|| by_size(pods[*a], pods[*b]))
        });
        let Some(best) = best else {
            return Err(no_room(&lacking));
        };
        let pod = pods.swap_remove(best);
        lacking = without(&lacking, [pod]);
        chosen.push(pod);
    }
    Ok(chosen)
}

/// Whether `pod` may be ended to make room for `critical`.
fn gives_way(pod: &Pod, critical: &Pod) -> bool {
    let priority = |pod: &Pod| pod.pod_spec().priority;
    !pod.is_critical()
        || priority(critical)
            .zip(priority(pod))
            .is_some_and(|(critical, own)| critical > own)
}

/// The pods to end.
///
/// # Errors
/// When there are not enough of them.
pub fn victims<'a>(
    critical: &Pod,
    active: &[&'a Pod],
    lacking: &[Shortage],
) -> Result<Vec<&'a Pod>, NoRoom> {
    let of = |class: QosClass| -> Vec<&'a Pod> {
        let own = active.iter().copied().filter(|pod| qos_class(pod) == class);
        own.filter(|pod| gives_way(pod, critical)).collect()
    };
    let best_effort = of(QosClass::BestEffort);
    let burstable = of(QosClass::Burstable);
    let guaranteed = of(QosClass::Guaranteed);
    let all = best_effort.iter().chain(&burstable).chain(&guaranteed);
    let left = without(lacking, all.copied());
    if !left.is_empty() {
        return Err(no_room(&left));
    }
    // Of the higher classes no more than what the lower ones, all of them, leave lacking.
    let lower = best_effort.iter().chain(&burstable).copied();
    let guaranteed = nearest(guaranteed, without(lacking, lower))?;
    let others = best_effort.iter().chain(&guaranteed).copied();
    let burstable = nearest(burstable, without(lacking, others))?;
    let others = burstable.iter().chain(&guaranteed).copied();
    let best_effort = nearest(best_effort, without(lacking, others))?;
    Ok([best_effort, burstable, guaranteed].concat())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, cpu: &str, memory: &str, guaranteed: bool, priority: i32) -> Pod {
        let mut resources = json!({});
        if !cpu.is_empty() {
            resources["requests"] = json!({"cpu": cpu, "memory": memory});
        }
        if guaranteed {
            resources["limits"] = resources["requests"].clone();
        }
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name},
            "spec": {"priority": priority, "containers": [{"name": "c", "resources": resources}]}}))
        .unwrap()
    }

    fn chosen(pods: &[Pod], lacking: &[(&str, i64)]) -> Result<Vec<String>, String> {
        let critical = pod("critical", "1", "1Gi", false, 2_000_000_000);
        let pods: Vec<&Pod> = pods.iter().collect();
        let lacking: Vec<Shortage> = lacking
            .iter()
            .map(|(resource, amount)| Shortage {
                resource: (*resource).into(),
                amount: *amount,
            })
            .collect();
        let victims = victims(&critical, &pods, &lacking).map_err(|error| error.to_string())?;
        Ok(victims.iter().map(|pod| pod.name().to_owned()).collect())
    }

    #[test]
    fn lower_classes_and_near_requests_go_first() {
        let pods = [
            pod("best", "", "", false, 0),
            pod("small", "100m", "100Mi", false, 0),
            pod("large", "300m", "300Mi", false, 0),
            pod("guaranteed", "300m", "300Mi", true, 0),
            pod("node-critical", "1", "1Gi", false, 2_000_001_000),
        ];
        let of = |lacking: &[(&str, i64)]| chosen(&pods, lacking).unwrap();
        assert_eq!(of(&[("pods", 1)]), ["best"]);
        assert_eq!(of(&[("cpu", 100)]), ["small"]);
        assert_eq!(of(&[("cpu", 200)]), ["large"]);
        assert_eq!(of(&[("cpu", 350)]), ["large", "small"]);
        assert_eq!(of(&[("cpu", 500), ("pods", 1)]), ["large", "guaranteed"]);
        assert_eq!(of(&[]), Vec::<String>::new());
        assert_eq!(
            chosen(&pods, &[("cpu", 1000), ("memory", 1)]).unwrap_err(),
            "preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: \
             [(res: cpu, q: 300), ]"
        );
    }

    #[test]
    fn more_critical_pods_are_not_ended() {
        let system = pod("system", "", "", false, 2_000_000_000);
        let static_pod = {
            let mut pod = pod("static", "", "", false, 0);
            let source = ("kubernetes.io/config.source".to_owned(), "file".to_owned());
            pod.metadata.annotations = Some([source].into());
            pod
        };
        let of = chosen(&[system, static_pod], &[("pods", 1)]);
        assert_eq!(of.unwrap(), ["static"]);
        assert!(chosen(&[pod("node", "", "", false, 2_000_001_000)], &[("pods", 1)]).is_err());
    }
}
