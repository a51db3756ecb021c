//! How many pods of a budget may be evicted: pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::Object as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::policy::v1::{
    PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::kinds::Pod;
use crate::workload::int_or_percent::{Round, scaled};

/// An evicted pod that is not being deleted after this will not be.
pub const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
const CONDITION: &str = "DisruptionAllowed";

/// What the budget asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub expected: i32,
    pub healthy: i32,
}

/// Evicted pods that are still to go.
#[derive(Debug, Default, PartialEq)]
pub struct Disrupted {
    pub pods: BTreeMap<String, Time>,
    pub again_after: Option<Duration>,
    /// Those that should have gone and did not.
    pub stayed: Vec<Arc<Pod>>,
}

/// Whether the budget is a share of what the pods' controllers want, not just a number.
pub fn needs_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// `scale` is the sum of what the pods' controllers want, where that is needed.
pub fn counts(spec: &PodDisruptionBudgetSpec, pods: usize, scale: i32) -> Result<Counts, String> {
    let share = |value: &IntOrString| {
        scaled(value, scale, Round::Up)
            .ok_or_else(|| format!("invalid value for IntOrString: {value:?}"))
    };
    Ok(match (&spec.max_unavailable, &spec.min_available) {
        (Some(max), _) => Counts {
            expected: scale,
            healthy: (scale - share(max)?).max(0),
        },
        (None, Some(IntOrString::Int(min))) => Counts {
            expected: i32::try_from(pods).unwrap_or(i32::MAX),
            healthy: *min,
        },
        (None, Some(min)) => Counts {
            expected: scale,
            healthy: share(min)?,
        },
        (None, None) => Counts {
            expected: 0,
            healthy: 0,
        },
    })
}

/// Which of the evicted pods are still waited for.
pub fn disrupted(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], now: Timestamp) -> Disrupted {
    let mut disrupted = Disrupted::default();
    let known = budget
        .status
        .as_ref()
        .and_then(|s| s.disrupted_pods.as_ref());
    let Some(known) = known else {
        return disrupted;
    };
    for pod in pods.iter().filter(|p| !p.is_deleting()) {
        let Some(since) = known.get(pod.name()) else {
            continue;
        };
        let left = DELETION_TIMEOUT - now.duration_since(since.0);
        if left.is_negative() {
            disrupted.stayed.push(Arc::clone(pod));
            continue;
        }
        // Times are whole seconds: at the very one it is not over yet.
        let left = Duration::try_from(left).unwrap_or_default();
        let left = left.max(Duration::from_secs(1));
        let soonest = disrupted.again_after.map_or(left, |a| a.min(left));
        disrupted.again_after = Some(soonest);
        disrupted.pods.insert(pod.name().to_owned(), since.clone());
    }
    disrupted
}

/// The budget's status.
pub fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    counts: Counts,
    disrupted: BTreeMap<String, Time>,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let going = |p: &Pod| {
        let since = disrupted.get(p.name());
        p.is_deleting() || since.is_some_and(|s| now.duration_since(s.0) < DELETION_TIMEOUT)
    };
    let healthy = pods.iter().filter(|p| p.is_ready() && !going(p)).count();
    let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
    // Nothing is allowed while there are no pods: the first that appear may be counted late.
    let allowed = match counts.expected > 0 {
        true => (healthy - counts.healthy).max(0),
        false => 0,
    };
    let generation = budget.metadata.generation;
    let (status, reason) = match allowed > 0 {
        true => ("True", "SufficientPods"),
        false => ("False", "InsufficientPods"),
    };
    PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(counts.healthy),
        expected_pods: Some(counts.expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|d| !d.is_empty()),
        observed_generation: generation,
        conditions: conditions(budget, generation, (status, reason, ""), now),
    }
}

/// The status where nothing is known: no eviction is safe.
pub fn failed(
    budget: &PodDisruptionBudget,
    why: &str,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    let generation = status.observed_generation;
    status.conditions = conditions(budget, generation, ("False", "SyncFailed", why), now);
    status
}

fn conditions(
    budget: &PodDisruptionBudget,
    generation: Option<i64>,
    (status, reason, message): (&str, &str, &str),
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let old = budget.status.as_ref().and_then(|s| s.conditions.clone());
    let mut all = old.unwrap_or_default();
    let mut new = Condition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation.filter(|g| *g != 0),
        last_transition_time: Time(now),
    };
    match all.iter_mut().find(|c| c.type_ == CONDITION) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => all.push(new),
    }
    Some(all)
}

/// When the sign that a pod is about to be disrupted grows stale, if it has one and is not being
/// deleted.
pub fn stale_in(pod: &Pod, timeout: SignedDuration, now: Timestamp) -> Option<Duration> {
    if pod.is_deleting() || pod.is_terminal() {
        return None;
    }
    let sign = pod
        .condition("DisruptionTarget")
        .filter(|c| &*c.status == "True")?;
    let since = sign
        .last_transition_time
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    let left = timeout - now.duration_since(since);
    Some(Duration::try_from(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        serde_json::from_value(
            json!({"metadata": {"name": "b", "generation": 3}, "spec": spec, "status": status}),
        )
        .unwrap()
    }

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap(),
        )
    }

    #[test]
    fn what_is_expected() {
        for (spec, expected, healthy) in [
            (json!({"minAvailable": 2}), 3, 2),
            (json!({"minAvailable": "50%"}), 5, 3),
            (json!({"maxUnavailable": 1}), 5, 4),
            (json!({"maxUnavailable": "30%"}), 5, 3),
            (json!({"maxUnavailable": 9}), 5, 0),
            (json!({}), 0, 0),
        ] {
            let spec: PodDisruptionBudgetSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(counts(&spec, 3, 5), Ok(Counts { expected, healthy }));
        }
        let spec: PodDisruptionBudgetSpec =
            serde_json::from_value(json!({"maxUnavailable": "x"})).unwrap();
        assert!(counts(&spec, 3, 5).is_err());
    }

    #[test]
    fn what_is_allowed() {
        let pods = [pod("a", true), pod("b", true), pod("c", false)];
        for (expected, healthy, disrupted, allowed) in [
            (3, 1, &[][..], 1),
            (3, 1, &["a"][..], 0),
            (3, 3, &[][..], 0),
            (0, 0, &[][..], 0),
        ] {
            let disrupted = disrupted
                .iter()
                .map(|n| ((*n).to_owned(), Time(now())))
                .collect();
            let counts = Counts { expected, healthy };
            let s = status(
                &budget(json!({}), json!({})),
                &pods,
                counts,
                disrupted,
                now(),
            );
            assert_eq!(s.disruptions_allowed, Some(allowed));
            let condition = &s.conditions.unwrap()[0];
            assert_eq!(condition.status, if allowed > 0 { "True" } else { "False" });
            assert_eq!(condition.observed_generation, Some(3));
        }
    }

    #[test]
    fn evicted_pods_are_waited_for() {
        let status = json!({"disruptedPods": {"a": "2026-01-01T00:09:00Z", "b": "2026-01-01T00:07:00Z", "gone": "2026-01-01T00:09:00Z"},
            "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
        let got = disrupted(
            &budget(json!({}), status),
            &[pod("a", true), pod("b", true)],
            now(),
        );
        assert_eq!(got.pods.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(
            (got.again_after, got.stayed.len()),
            (Some(Duration::from_secs(60)), 1)
        );
    }

    #[test]
    fn failures_allow_nothing() {
        let status = json!({"currentHealthy": 2, "desiredHealthy": 1, "disruptionsAllowed": 1, "expectedPods": 2, "observedGeneration": 2});
        let got = failed(&budget(json!({}), status), "why", now());
        assert_eq!(
            (got.disruptions_allowed, got.current_healthy),
            (Some(0), Some(2))
        );
        let condition = &got.conditions.unwrap()[0];
        assert_eq!(
            (condition.reason.as_str(), condition.observed_generation),
            ("SyncFailed", Some(2))
        );
    }
}
