//! NodeResourcesFit: a node must have left what a pod requests; which of those that have is
//! best, strategies see differently.

use std::borrow::Cow;
use std::sync::Arc;

use super::node_resources::{Weighted, amount, cpu_and_memory, taken_and_all};
use crate::cache::devices::DeviceEvent;
use crate::cache::{Cache, NodeInfo, Resources};
use crate::framework::{
    ClusterEvent, Filter, Hint, MAX_SCORE, Normalize, Plugin, Rejection, Score,
};
use crate::groups::placement::Proposal;
use crate::model::{Node, PodInfo, Template};

/// `NodeResourcesFitArgs`.
#[derive(Debug, Clone)]
pub struct Fit {
    /// Extended resources that somebody else looks after.
    pub ignored: Vec<String>,
    /// The same, by what is before the slash.
    pub ignored_groups: Vec<String>,
    pub strategy: Strategy,
    pub resources: Vec<Weighted>,
}

/// `ScoringStrategy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// The emptier the better.
    LeastAllocated,
    /// The fuller the better.
    MostAllocated,
    /// By a curve: of utilizations in percent, what each is worth (0 to [`MAX_SCORE`]).
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

impl Default for Fit {
    fn default() -> Self {
        Self {
            ignored: Vec::new(),
            ignored_groups: Vec::new(),
            strategy: Strategy::LeastAllocated,
            resources: cpu_and_memory(),
        }
    }
}

impl Strategy {
    fn score(&self, used: i64, all: i64) -> i64 {
        match self {
            Self::LeastAllocated if used > all => 0,
            Self::LeastAllocated => (all - used) * MAX_SCORE / all,
            Self::MostAllocated => used.min(all) * MAX_SCORE / all,
            Self::RequestedToCapacityRatio(curve) => {
                on_curve(curve, if used > all { 100 } else { used * 100 / all })
            }
        }
    }

    /// The score of a node, of those of its resources and their weights.
    fn mean(&self, scores: impl Iterator<Item = (i64, i64)>) -> i64 {
        let by_curve = matches!(self, Self::RequestedToCapacityRatio(_));
        let (mut sum, mut weights) = (0, 0);
        for (score, weight) in scores.filter(|(score, _)| !by_curve || *score > 0) {
            sum += score * weight;
            weights += weight;
        }
        match weights {
            0 => 0,
            // To the nearest.
            _ if by_curve => (2 * sum + weights) / (2 * weights),
            _ => sum / weights,
        }
    }
}

fn on_curve(curve: &[(i64, i64)], at: i64) -> i64 {
    let mut before: Option<(i64, i64)> = None;
    for (x, y) in curve {
        if at <= *x {
            return before.map_or(*y, |(x0, y0)| y0 + (y - y0) * (at - x0) / (x - x0));
        }
        before = Some((*x, *y));
    }
    before.map_or(0, |(_, y)| y)
}

/// What a node lacks for `wanted`, as upstream words it; and whether it would lack it even
/// if it were empty.
fn lacking(
    wanted: &Resources,
    allocatable: &Resources,
    taken: &Resources,
    ignores: impl Fn(&str) -> bool,
) -> (Vec<Cow<'static, str>>, bool) {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    let mut never = false;
    let mut check = |reason: Cow<'static, str>, wanted: i64, all: i64, taken: i64| {
        if wanted > 0 && wanted > all - taken {
            reasons.push(reason);
            never |= wanted > all;
        }
    };
    check(
        "Insufficient cpu".into(),
        wanted.milli_cpu,
        allocatable.milli_cpu,
        taken.milli_cpu,
    );
    check(
        "Insufficient memory".into(),
        wanted.memory,
        allocatable.memory,
        taken.memory,
    );
    check(
        "Insufficient ephemeral-storage".into(),
        wanted.ephemeral_storage,
        allocatable.ephemeral_storage,
        taken.ephemeral_storage,
    );
    for (name, amount) in wanted.scalars.iter().filter(|(name, _)| !ignores(name)) {
        let (all, taken) = (allocatable.scalar(name), taken.scalar(name));
        if *amount > all - taken {
            check(format!("Insufficient {name}").into(), *amount, all, taken);
        }
    }
    (reasons, never)
}

impl Fit {
    fn ignores(&self, name: &str) -> bool {
        let Some((group, _)) = name.split_once('/') else {
            return false;
        };
        self.ignored.iter().any(|i| i == name) || self.ignored_groups.iter().any(|g| g == group)
    }
}

/// What a pod asks for, as far as scores go.
fn asked<'a>(pod: &'a Template, name: &str) -> &'a Resources {
    match name {
        "cpu" | "memory" => &pod.scored_requests,
        _ => &pod.requests,
    }
}

/// What pods have taken of a node, as far as scores go.
fn taken<'a>(node: &'a NodeInfo, name: &str) -> &'a Resources {
    match name {
        "cpu" | "memory" => &node.scored,
        _ => &node.requested,
    }
}

/// Whether DynamicResources looks for it, since a node does not have it otherwise.
fn as_device(name: &str, allocatable: &Resources, cluster: &Cache) -> bool {
    allocatable.scalar(name) == 0 && cluster.devices.class_for(name).is_some()
}

/// Would an empty node of this size take the pod?
fn could_fit(pod: &Template, node: &Node, cluster: &Cache) -> bool {
    let allocatable = Resources::of(&node.status.allocatable);
    let (reasons, _) = lacking(&pod.requests, &allocatable, &Resources::default(), |name| {
        as_device(name, &allocatable, cluster)
    });
    reasons.is_empty() && allowed_pods(node) > 0
}

fn allowed_pods(node: &Node) -> i64 {
    node.status.allocatable.get("pods").map_or(0, |q| q.value())
}

/// Whether any amount that a pod wants is larger in `new` than in `old`.
fn more_for(pod: &Template, old: &Resources, new: &Resources) -> bool {
    let wanted = &pod.requests;
    let more = |name: &str| amount(wanted, name) > 0 && amount(new, name) > amount(old, name);
    ["cpu", "memory", "ephemeral-storage"].into_iter().any(more)
        || wanted.scalars.iter().any(|(name, _)| more(name))
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &Arc<PodInfo>, cluster: &Cache) -> Filter {
        let scalars = pod.requests.scalars.iter();
        let classed = scalars.filter(|(name, _)| cluster.devices.class_for(name).is_some());
        let classed: Vec<Box<str>> = classed.map(|(name, _)| name.clone()).collect();
        let (pod, this) = (Arc::clone(&pod.template), self.clone());
        Filter::Local(Box::new(move |node| {
            // What a node does not have otherwise, DynamicResources looks for.
            let as_devices = |name: &str| {
                classed.iter().any(|c| **c == *name) && node.allocatable.scalar(name) == 0
            };
            let (mut reasons, never) =
                lacking(&pod.requests, &node.allocatable, &node.requested, |name| {
                    this.ignores(name) || as_devices(name)
                });
            if node.pod_count() + 1 > node.allowed_pods {
                reasons.insert(0, "Too many pods".into());
            }
            if reasons.is_empty() {
                return Ok(());
            }
            Err(Rejection {
                reasons,
                unresolvable: never,
                error: false,
            })
        }))
    }

    fn score(&self, pod: &Arc<PodInfo>, _cluster: &Cache) -> Score {
        let strategy = self.strategy.clone();
        let wanted: Vec<(Weighted, i64)> = self
            .resources
            .iter()
            .map(|r| (r.clone(), amount(asked(pod, &r.name), &r.name)))
            .collect();
        let score = move |node: &NodeInfo, _: &Cache| {
            strategy.mean(wanted.iter().filter_map(|(resource, wanted)| {
                let name = &*resource.name;
                let taken = taken(node, name);
                let (taken, all) = taken_and_all(name, *wanted, taken, &node.allocatable)?;
                Some((strategy.score(taken + wanted, all), resource.weight))
            }))
        };
        Score::Local(Box::new(score), Normalize::Not)
    }

    /// The fuller the better, whatever is better of single nodes: what is left elsewhere may
    /// take another group.
    fn score_placement(&self, proposal: &Proposal<'_>, cluster: &Cache) -> i64 {
        let scores = self.resources.iter().filter_map(|resource| {
            let name = &*resource.name;
            let pods = proposal.pods.iter();
            let wanted: i64 = pods.map(|pod| amount(asked(pod, name), name)).sum();
            let (mut used, mut all) = (wanted, 0);
            let slots = proposal.placement.slots().iter();
            for node in slots.filter_map(|slot| cluster.node(*slot)) {
                let counted = taken_and_all(name, wanted, taken(node, name), &node.allocatable);
                let (taken, allocatable) = counted.unwrap_or_default();
                used += taken;
                all += allocatable;
            }
            (all != 0).then(|| {
                let score = Strategy::MostAllocated.score(used, all);
                (score, resource.weight)
            })
        });
        Strategy::MostAllocated.mean(scores)
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, cluster: &Cache) -> Hint {
        match event {
            ClusterEvent::NodeAdded(node) => Hint::queue_if(could_fit(pod, node, cluster)),
            ClusterEvent::NodeUpdated { old, new } => {
                let before = Resources::of(&old.status.allocatable);
                let now = Resources::of(&new.status.allocatable);
                let mut scalars = pod.requests.scalars.iter();
                // What drivers have of it no update of a node tells.
                let helps = allowed_pods(new) > allowed_pods(old)
                    || more_for(pod, &before, &now)
                    || scalars.any(|(name, n)| *n > 0 && as_device(name, &now, cluster));
                Hint::queue_if(helps && could_fit(pod, new, cluster))
            }
            // A slot is free in any case, and the pod may have waited for just that.
            ClusterEvent::PodGone(_) => Hint::Queue,
            ClusterEvent::PodUpdated { old, new } => {
                Hint::queue_if(more_for(pod, &new.requests, &old.requests))
            }
            ClusterEvent::Devices(DeviceEvent::Class { .. }) => {
                Hint::queue_if(!pod.extended.is_empty())
            }
            ClusterEvent::PodChanged { old } => {
                Hint::queue_if(more_for(pod, &pod.requests, &old.requests))
            }
            _ => Hint::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{api_node, filter, node, pod, score};

    fn asking(requests: serde_json::Value) -> Arc<PodInfo> {
        pod(json!({"containers": [{"resources": {"requests": requests}}]}))
    }

    #[test]
    fn what_is_lacking_is_named() {
        let mut node = node("a", json!({}));
        node.add(&asking(json!({"cpu": "1500m"})));
        let fit = Fit::default();
        assert!(filter(&fit, &asking(json!({"cpu": "500m"})), &node).is_ok());
        let rejection = filter(
            &fit,
            &asking(json!({"cpu": "501m", "example.com/gpu": "1"})),
            &node,
        )
        .unwrap_err();
        assert_eq!(
            rejection.reasons,
            ["Insufficient cpu", "Insufficient example.com/gpu"]
        );
        assert!(rejection.unresolvable, "no node of this size has a gpu");
    }

    #[test]
    fn what_somebody_else_looks_after_is_not_looked_at() {
        let fit = Fit {
            ignored_groups: vec!["example.com".to_owned()],
            ..Fit::default()
        };
        let pod = asking(json!({"example.com/gpu": "1"}));
        assert!(filter(&fit, &pod, &node("a", json!({}))).is_ok());
    }

    #[test]
    fn a_node_may_have_as_devices_what_it_does_not_have_otherwise() {
        let class = json!({"metadata": {"name": "gpus"},
            "spec": {"extendedResourceName": "example.com/gpu"}});
        let mut cluster = Cache::default();
        let pod = asking(json!({"cpu": "1", "example.com/gpu": "1"}));
        let node = api_node("a", json!({}));
        let hint =
            |cluster: &Cache| Fit::default().hint(&pod, &ClusterEvent::NodeAdded(&node), cluster);
        assert_eq!(hint(&cluster), Hint::Skip);
        let class = Arc::new(serde_json::from_value(class).unwrap());
        cluster.devices.put_class(&class);
        assert_eq!(hint(&cluster), Hint::Queue);
    }

    #[test]
    fn a_full_node_takes_nobody() {
        let node = node("a", json!({"status": {"allocatable": {"pods": "0"}}}));
        let rejection = filter(&Fit::default(), &asking(json!({})), &node).unwrap_err();
        assert_eq!(rejection.reasons, ["Too many pods"]);
    }

    #[test]
    fn strategies_score_as_upstream_does() {
        let empty = node("a", json!({}));
        let mut half = node("b", json!({}));
        half.add(&asking(json!({"cpu": "1", "memory": "1Gi"})));
        let pod = asking(json!({"cpu": "500m", "memory": "512Mi"}));
        let scores = |strategy| {
            let fit = Fit {
                strategy,
                ..Fit::default()
            };
            [&empty, &half].map(|node| score(&fit, &pod, node))
        };
        assert_eq!(scores(Strategy::LeastAllocated), [75, 25]);
        assert_eq!(scores(Strategy::MostAllocated), [25, 75]);
        let curve = vec![(0, 0), (50, 100), (100, 0)];
        assert_eq!(
            scores(Strategy::RequestedToCapacityRatio(curve)),
            [50, 50],
            "a quarter and three quarters"
        );
    }
}
