//! Who ends when, and with how much time. Pure.

use std::sync::Arc;
use std::time::Duration;

use component::features::FeatureGates;
use k8s_openapi::api::core::v1::Pod;

use crate::config::{KubeletConfiguration, ShutdownGracePeriodByPodPriority as Period};
use crate::pods::pod::PodExt;

/// From here on pods are critical.
const CRITICAL: i32 = 2_000_000_000;

/// The times that pods get by their priority, the lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Periods(Vec<Period>);

/// Pods that end together.
#[derive(Debug)]
pub struct Group {
    /// How long is waited for them.
    pub time: Duration,
    /// Each with the seconds that it gets.
    pub pods: Vec<(Arc<Pod>, i64)>,
}

impl Periods {
    /// `None` where nothing is to be done when the node goes down.
    pub fn new(config: &KubeletConfiguration, gates: &FeatureGates) -> Option<Self> {
        if !gates.enabled("GracefulNodeShutdown") {
            return None;
        }
        let by_priority = &config.shutdown_grace_period_by_pod_priority;
        let mut periods = by_priority.clone();
        if periods.is_empty() || !gates.enabled("GracefulNodeShutdownBasedOnPodPriority") {
            periods = two(config);
        }
        periods.sort_by_key(|period| period.priority);
        (!periods.is_empty()).then_some(Self(periods))
    }

    /// How long all takes at most.
    pub fn total(&self) -> Duration {
        let seconds = self.0.iter().map(|period| seconds(period).as_secs());
        Duration::from_secs(seconds.fold(0, u64::saturating_add))
    }

    /// Who ends when: the first group first. A pod belongs to the highest period that is not above
    /// it, and to the lowest one if all are.
    pub fn groups(&self, pods: Vec<Arc<Pod>>) -> Vec<Group> {
        let group = |period| Group {
            time: seconds(period),
            pods: Vec::new(),
        };
        let mut groups: Vec<Group> = self.0.iter().map(group).collect();
        for pod in pods {
            let spec = pod.pod_spec();
            let priority = spec.priority.unwrap_or_default();
            let index = self.index(priority);
            let most = self.0[index].shutdown_grace_period_seconds;
            let own = spec.termination_grace_period_seconds;
            // A runtime that is given no time at all would not even ask.
            let grace = own.map_or(most, |own| own.min(most)).max(1);
            groups[index].pods.push((pod, grace));
        }
        groups.retain(|group| !group.pods.is_empty());
        groups
    }

    fn index(&self, priority: i32) -> usize {
        // Of periods for the same priority the first counts, as upstream's search finds it.
        let from = self.0.partition_point(|period| period.priority < priority);
        match self.0.get(from) {
            Some(period) if period.priority == priority => from,
            _ => from.saturating_sub(1),
        }
    }
}

fn seconds(period: &Period) -> Duration {
    Duration::from_secs(u64::try_from(period.shutdown_grace_period_seconds).unwrap_or(0))
}

/// The older way to say it: all there is, and what of it is for critical pods.
fn two(config: &KubeletConfiguration) -> Vec<Period> {
    let all = config.shutdown_grace_period.get();
    let critical = config.shutdown_grace_period_critical_pods.get();
    if all.is_zero() || critical > all {
        return Vec::new();
    }
    let period = |priority, time: Duration| Period {
        priority,
        shutdown_grace_period_seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
    };
    vec![period(0, all - critical), period(CRITICAL, critical)]
}

/// Whether what the configuration says about shutting down makes sense.
///
/// # Errors
/// When it does not: why.
pub fn validate(config: &KubeletConfiguration, gates: &FeatureGates) -> Result<(), String> {
    let wrong = |why: String| Err(format!("invalid configuration: {why}"));
    let all = config.shutdown_grace_period;
    let critical = config.shutdown_grace_period_critical_pods;
    let two = all.get() > Duration::ZERO || critical.get() > Duration::ZERO;
    let by_priority = !config.shutdown_grace_period_by_pod_priority.is_empty();
    if gates.enabled("GracefulNodeShutdown") {
        if critical > all {
            return wrong(format!(
                "shutdownGracePeriodCriticalPods {critical} must be <= shutdownGracePeriod {all}"
            ));
        }
        for (name, period) in [
            ("shutdownGracePeriod", all),
            ("shutdownGracePeriodCriticalPods", critical),
        ] {
            if !period.is_zero() && period.get() < Duration::from_secs(1) {
                return wrong(format!(
                    "{name} {period} must be either zero or otherwise >= 1 sec"
                ));
            }
        }
    } else if two {
        return wrong(
            "specifying shutdownGracePeriod or shutdownGracePeriodCriticalPods requires feature gate \
             GracefulNodeShutdown"
                .into(),
        );
    }
    match (gates.enabled("GracefulNodeShutdownBasedOnPodPriority"), by_priority) {
        (true, true) if two => wrong(
            "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time".into(),
        ),
        (false, true) => wrong(
            "Specifying shutdownGracePeriodByPodPriority requires feature gate GracefulNodeShutdownBasedOnPodPriority"
                .into(),
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(config: Value) -> KubeletConfiguration {
        serde_json::from_value(config).unwrap()
    }

    fn gates(names: &[&str]) -> FeatureGates {
        let off = names.iter().map(|name| ((*name).to_owned(), false));
        FeatureGates::from_pairs(&off.collect()).unwrap()
    }

    fn periods(spec: Value) -> Option<Periods> {
        Periods::new(&config(spec), &gates(&[]))
    }

    fn listed(pairs: &[(i32, i64)]) -> Value {
        let period = |(priority, seconds): &(i32, i64)| json!({"priority": priority, "shutdownGracePeriodSeconds": seconds});
        json!({"shutdownGracePeriodByPodPriority": pairs.iter().map(period).collect::<Vec<_>>()})
    }

    fn pod(name: &str, priority: Option<i32>, grace: Option<i64>) -> Arc<Pod> {
        let spec =
            json!({"containers": [], "priority": priority, "terminationGracePeriodSeconds": grace});
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn shown(groups: &[Group]) -> Vec<String> {
        let one = |(pod, grace): &(Arc<Pod>, i64)| format!("{}={grace}", pod.name());
        let group = |group: &Group| {
            let pods: Vec<_> = group.pods.iter().map(one).collect();
            format!("{}: {}", group.time.as_secs(), pods.join(" "))
        };
        groups.iter().map(group).collect()
    }

    #[test]
    fn nothing_is_done_unless_it_is_asked_for() {
        assert_eq!(periods(json!({})), None);
        let asked = config(json!({"shutdownGracePeriod": "30s"}));
        assert_eq!(
            Periods::new(
                &asked,
                &gates(&[
                    "GracefulNodeShutdown",
                    "GracefulNodeShutdownBasedOnPodPriority"
                ])
            ),
            None
        );
    }

    #[test]
    fn critical_pods_end_last() {
        let periods = periods(
            json!({"shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "10s"}),
        );
        let periods = periods.unwrap();
        assert_eq!(periods.total(), Duration::from_secs(30));
        let pods = vec![
            pod("critical", Some(CRITICAL + 1000), None),
            pod("none", None, Some(5)),
            pod("low", Some(-7), Some(60)),
            pod("high", Some(CRITICAL - 1), Some(0)),
        ];
        assert_eq!(
            shown(&periods.groups(pods)),
            ["20: none=5 low=20 high=1", "10: critical=10"]
        );
    }

    #[test]
    fn groups_by_priority() {
        let periods = periods(listed(&[(1000, 120), (0, 60), (100, 0), (10, 180)])).unwrap();
        assert_eq!(periods.total(), Duration::from_secs(360));
        let pods = [-1, 0, 9, 10, 99, 100, 2000];
        let pods = pods.map(|priority| pod(&priority.to_string(), Some(priority), Some(100)));
        assert_eq!(
            shown(&periods.groups(pods.into())),
            [
                "60: -1=60 0=60 9=60",
                "180: 10=100 99=100",
                "0: 100=1",
                "120: 2000=100"
            ]
        );
        let alone = periods.groups(vec![pod("a", Some(10), None)]);
        assert_eq!(
            shown(&alone),
            ["180: a=180"],
            "nobody is waited for in vain"
        );
    }

    #[test]
    fn what_makes_sense() {
        let judge = |spec: Value, off: &[&str]| validate(&config(spec), &gates(off)).err();
        assert_eq!(judge(json!({}), &[]), None);
        assert_eq!(judge(listed(&[(0, 1)]), &[]), None);
        let both = [
            "GracefulNodeShutdown",
            "GracefulNodeShutdownBasedOnPodPriority",
        ];
        for (spec, off, why) in [
            (
                json!({"shutdownGracePeriod": "10s", "shutdownGracePeriodCriticalPods": "11s"}),
                &[][..],
                "shutdownGracePeriodCriticalPods 11s must be <= shutdownGracePeriod 10s",
            ),
            (
                json!({"shutdownGracePeriod": "500ms"}),
                &[],
                "shutdownGracePeriod 500ms must be",
            ),
            (
                json!({"shutdownGracePeriod": "10s"}),
                &both,
                "requires feature gate GracefulNodeShutdown",
            ),
            (
                listed(&[(0, 1)]),
                &both[1..],
                "requires feature gate GracefulNodeShutdownBasedOnPodPriority",
            ),
        ] {
            let error = judge(spec, off).unwrap();
            assert!(error.contains(why), "{error}");
        }
        let mut doubled = listed(&[(0, 1)]);
        doubled["shutdownGracePeriod"] = json!("10s");
        assert!(judge(doubled, &[]).unwrap().contains("Cannot specify both"));
    }
}
