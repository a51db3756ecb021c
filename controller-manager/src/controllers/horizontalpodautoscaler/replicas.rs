//! How many pods a metric asks for: pure.

use std::collections::{BTreeMap, BTreeSet};

use client::{Object as _, SlimMeta, slim_kind};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::quantity::Quantity;
use serde::{Deserialize, Serialize};

use super::metrics::PodMetrics;

/// A pod of the target, with what is to be known of it here. It is read when it is needed: the
/// shared cache does without pods' requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetPod {
    pub metadata: SlimMeta,
    pub spec: TargetSpec,
    pub status: TargetStatus,
}

slim_kind!(TargetPod, "", "v1", "Pod", "pods", namespaced);

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetSpec {
    pub containers: Vec<TargetContainer>,
    pub init_containers: Vec<TargetContainer>,
    pub resources: Option<TargetResources>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetContainer {
    pub name: String,
    pub restart_policy: String,
    pub resources: TargetResources,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetResources {
    pub requests: BTreeMap<String, Text>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetStatus {
    pub phase: String,
    pub start_time: Option<Time>,
    pub conditions: Vec<TargetCondition>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetCondition {
    pub r#type: String,
    pub status: String,
    pub last_transition_time: Option<Time>,
}

/// How far use may be from the target, as a share of it, before anything is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    pub down: f64,
    pub up: f64,
}

impl Tolerance {
    fn holds(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What all calculations are given.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    pub pods: &'a [TargetPod],
    pub replicas: i32,
    pub tolerance: Tolerance,
    /// CPU use of pods that started less than this ago counts only once they have been ready.
    pub cpu_initialization: SignedDuration,
    /// A pod that was not ready for so long after its start has never been ready.
    pub initial_readiness: SignedDuration,
    pub now: Timestamp,
}

/// The pods' names by what their metrics are good for.
#[derive(Default)]
struct Grouped {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

fn ceil(value: f64) -> i32 {
    // Saturates.
    value.ceil() as i32
}

impl TargetPod {
    fn ready(&self) -> Option<&TargetCondition> {
        self.status.conditions.iter().find(|c| c.r#type == "Ready")
    }
}

impl Given<'_> {
    fn group(&self, metrics: &PodMetrics, is_cpu: bool) -> Grouped {
        let mut grouped = Grouped::default();
        for pod in self.pods {
            let name = pod.name().to_owned();
            if pod.metadata.deletion_timestamp.is_some() || pod.status.phase == "Failed" {
                grouped.ignored.insert(name);
            } else if pod.status.phase == "Pending" {
                grouped.unready.insert(name);
            } else if let Some(metric) = metrics.get(&name) {
                if is_cpu && self.is_warming_up(pod, metric.at, metric.window) {
                    grouped.unready.insert(name);
                } else {
                    grouped.ready += 1;
                }
            } else {
                grouped.missing.insert(name);
            }
        }
        grouped
    }

    /// What a pod does to start says nothing of what it will do.
    fn is_warming_up(&self, pod: &TargetPod, at: Timestamp, window: SignedDuration) -> bool {
        let (Some(ready), Some(start)) = (pod.ready(), &pod.status.start_time) else {
            return true;
        };
        let since = ready
            .last_transition_time
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |t| t.0);
        let unready = ready.status == "False";
        let later = |from: Timestamp, span| from.saturating_add(span).unwrap_or(Timestamp::MAX);
        if later(start.0, self.cpu_initialization) > self.now {
            unready || at < later(since, window)
        } else {
            unready && later(start.0, self.initial_readiness) > since
        }
    }

    /// The number of pods by a ratio of use to target. Pods without metrics are taken to be at
    /// the target, or at nothing, whichever makes for the smaller change.
    fn propose(
        &self,
        mut metrics: PodMetrics,
        is_cpu: bool,
        ratio: impl Fn(&PodMetrics) -> Result<f64, String>,
        at_target: impl Fn(&str) -> i64,
    ) -> Result<(i32, PodMetrics), String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        let grouped = self.group(&metrics, is_cpu);
        metrics
            .retain(|name, _| !grouped.ignored.contains(name) && !grouped.unready.contains(name));
        if metrics.is_empty() {
            return Err(
                "did not receive metrics for targeted pods (pods might be unready)".to_owned(),
            );
        }
        let known = metrics.clone();
        let first = ratio(&metrics)?;
        let unready_matter = !grouped.unready.is_empty() && first > 1.0;
        if !unready_matter && grouped.missing.is_empty() {
            let wanted = match self.tolerance.holds(first) {
                true => self.replicas,
                false => ceil(first * grouped.ready as f64),
            };
            return Ok((wanted, known));
        }
        let mut assume = |name: &String, value| {
            let metric = super::metrics::PodMetric {
                at: self.now,
                window: SignedDuration::ZERO,
                value,
            };
            metrics.insert(name.clone(), metric);
        };
        for name in &grouped.missing {
            if first < 1.0 {
                assume(name, at_target(name));
            } else if first > 1.0 {
                assume(name, 0);
            }
        }
        if unready_matter {
            grouped.unready.iter().for_each(|name| assume(name, 0));
        }
        let second = ratio(&metrics)?;
        let turned = (first < 1.0 && second > 1.0) || (first > 1.0 && second < 1.0);
        let wanted = ceil(second * metrics.len() as f64);
        let backwards =
            (second < 1.0 && wanted > self.replicas) || (second > 1.0 && wanted < self.replicas);
        match self.tolerance.holds(second) || turned || backwards {
            true => Ok((self.replicas, known)),
            false => Ok((wanted, known)),
        }
    }

    /// By use as a share of requests. Returns the number of pods, the share in percent, and the
    /// mean use in thousandths.
    pub fn by_utilization(
        &self,
        metrics: PodMetrics,
        resource: &str,
        container: &str,
        target: i32,
    ) -> Result<(i32, i32, i64), String> {
        // Upstream says first what is wrong with the pods.
        if self.pods.is_empty() {
            return self
                .propose(metrics, false, |_| Ok(1.0), |_| 0)
                .map(|_| (0, 0, 0));
        }
        let requests = requests(self.pods, resource, container);
        let share = |metrics: &PodMetrics| -> Result<(i32, i64), String> {
            let requests = requests.as_ref().map_err(Clone::clone)?;
            let known = metrics
                .iter()
                .filter_map(|(name, metric)| Some((metric.value, requests.get(name)?)));
            let (mut used, mut asked, mut count) = (0_i64, 0_i64, 0_i64);
            for (value, request) in known {
                used += value;
                asked += request;
                count += 1;
            }
            if asked == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let percent = i32::try_from(used * 100 / asked).unwrap_or(i32::MAX);
            Ok((percent, used / count))
        };
        let fallback = i64::from(target.max(100));
        let at_target = |name: &str| {
            let request = requests.as_ref().ok().and_then(|r| r.get(name));
            request.map_or(0, |r| r * fallback / 100)
        };
        let ratio =
            |m: &PodMetrics| share(m).map(|(percent, _)| f64::from(percent) / f64::from(target));
        let (wanted, known) = self.propose(metrics, resource == "cpu", ratio, at_target)?;
        let (percent, mean) = share(&known)?;
        Ok((wanted, percent, mean))
    }

    /// By the mean value. Returns the number of pods and the mean, in thousandths as the target.
    pub fn by_mean(
        &self,
        metrics: PodMetrics,
        is_cpu: bool,
        target: i64,
    ) -> Result<(i32, i64), String> {
        let mean = |metrics: &PodMetrics| {
            let sum: i64 = metrics.values().map(|m| m.value).sum();
            sum / i64::try_from(metrics.len()).unwrap_or(1).max(1)
        };
        let ratio = |m: &PodMetrics| Ok(mean(m) as f64 / target as f64);
        let (wanted, known) = self.propose(metrics, is_cpu, ratio, |_| target)?;
        Ok((wanted, mean(&known)))
    }

    /// By one value for all pods together.
    pub fn by_value(&self, value: i64, target: i64) -> Result<i32, String> {
        let ratio = value as f64 / target as f64;
        if self.replicas == 0 {
            return Ok(ceil(ratio));
        }
        if self.tolerance.holds(ratio) {
            return Ok(self.replicas);
        }
        if self.pods.is_empty() {
            return Err("unable to calculate ready pods: no pods returned by selector while calculating replica count".to_owned());
        }
        let ready = self.pods.iter().filter(|p| {
            p.status.phase == "Running" && p.ready().is_some_and(|c| c.status == "True")
        });
        Ok(ceil(ratio * ready.count() as f64))
    }

    /// By one value that is to be shared among so many pods. Returns the number of pods, and the
    /// share of each now.
    pub fn by_share(&self, value: i64, target: i64, pods_now: i32) -> (i32, i64) {
        let ratio = value as f64 / (target as f64 * f64::from(pods_now));
        let wanted = match self.tolerance.holds(ratio) {
            true => pods_now,
            false => ceil(value as f64 / target as f64),
        };
        (wanted, (value as f64 / f64::from(pods_now)).ceil() as i64)
    }
}

/// What each pod asks for of a resource, in thousandths.
fn requests(
    pods: &[TargetPod],
    resource: &str,
    container: &str,
) -> Result<BTreeMap<String, i64>, String> {
    let milli = |text: &Text| -> Result<i64, String> {
        let quantity: Result<Quantity, _> = text.0.parse();
        Ok(quantity.map_err(|e| e.to_string())?.milli_value())
    };
    let mut all = BTreeMap::new();
    for pod in pods {
        let whole = pod
            .spec
            .resources
            .as_ref()
            .filter(|r| !r.requests.is_empty());
        if let Some(whole) = whole.filter(|_| container.is_empty()) {
            let request = whole.requests.get(resource).ok_or_else(|| {
                format!(
                    "missing pod-level request for {resource} in Pod {}",
                    pod.name()
                )
            })?;
            all.insert(pod.name().to_owned(), milli(request)?);
            continue;
        }
        let sidecars = pod.spec.init_containers.iter();
        let sidecars = sidecars.filter(|c| c.restart_policy == "Always");
        let mut found = container.is_empty();
        let mut sum = 0;
        for c in pod.spec.containers.iter().chain(sidecars) {
            if !container.is_empty() && c.name != container {
                continue;
            }
            let request = c.resources.requests.get(resource).ok_or_else(|| {
                format!(
                    "missing request for {resource} in container {} of Pod {}",
                    c.name,
                    pod.name()
                )
            })?;
            sum += milli(request)?;
            found = true;
        }
        if !found {
            return Err(format!(
                "container {container} not found in Pod {}",
                pod.name()
            ));
        }
        all.insert(pod.name().to_owned(), sum);
    }
    Ok(all)
}
