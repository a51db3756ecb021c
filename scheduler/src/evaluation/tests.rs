//! What is kept from pod to pod must be what would be found anew, whatever has happened in
//! between.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{ABSENT, Attempt, Evaluations, FEASIBLE};
use crate::cache::Cache;
use crate::cache::objects::Service;
use crate::cycle::Bounds;
use crate::model::{Pod, PodInfo, Templates};
use crate::plugins::default_profile;
use crate::plugins::testing::api_node;
use crate::profile::Profile;

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % n
    }
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

fn kinds() -> Vec<Value> {
    let selector = |app: &str| json!({"matchLabels": {"app": app}});
    let term = |app: &str, key: &str| json!({"topologyKey": key, "labelSelector": selector(app)});
    let when = |kind: &str, terms: Value| json!({kind: terms});
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    let weighted = |app: &str, key: &str| json!([{"weight": 7, "podAffinityTerm": term(app, key)}]);
    let spread = |key: &str, hard: bool| {
        json!({"topologyKey": key, "maxSkew": 1, "labelSelector": selector("a"),
            "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" }})
    };
    vec![
        json!({}),
        json!({"affinity": {"podAffinity": when(required, json!([term("a", ZONE)]))}}),
        json!({"affinity": {"podAntiAffinity": when(required, json!([term("b", HOST)]))}}),
        json!({"affinity": {"podAffinity": when(preferred, weighted("b", ZONE))}}),
        json!({"affinity": {"podAntiAffinity": when(preferred, weighted("a", HOST))}}),
        json!({"topologySpreadConstraints": [spread(ZONE, true), spread(HOST, false)]}),
        json!({"topologySpreadConstraints": [spread(HOST, true), spread(ZONE, false)],
            "tolerations": [{"operator": "Exists"}], "priority": 5}),
    ]
}

struct World {
    cluster: Cache,
    templates: Templates,
    numbers: Numbers,
    pods: Vec<Arc<PodInfo>>,
    made: usize,
}

impl World {
    fn pod(&mut self, node: &str) -> Arc<PodInfo> {
        let all = kinds();
        let mut spec = all[self.numbers.below(all.len() as u64) as usize].clone();
        let cpu = format!(
            "{}m",
            [100, 200, 300, 400, 1900][self.numbers.below(5) as usize]
        );
        spec["containers"] = json!([{"resources": {"requests": {"cpu": cpu}}}]);
        spec["nodeName"] = node.into();
        let app = ["a", "b", "c"][self.numbers.below(3) as usize];
        let deleting = (self.numbers.below(8) == 0).then_some("2026-01-01T00:00:00Z");
        self.made += 1;
        let name = format!("p{}", self.made);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name,
                "labels": {"app": app}, "deletionTimestamp": deleting},
            "spec": spec,
        }))
        .unwrap();
        self.templates.pod(&pod)
    }

    /// Something happens.
    fn step(&mut self) {
        let node = format!("n{}", self.numbers.below(12));
        match self.numbers.below(10) {
            0 | 1 => {
                let zone = format!("z{}", self.numbers.below(3));
                let mut labels = json!({HOST: node});
                if self.numbers.below(5) > 0 {
                    labels[ZONE] = zone.into();
                }
                let taints = match self.numbers.below(4) {
                    0 => json!([{"key": "k", "effect": "NoSchedule"}]),
                    1 => json!([{"key": "k", "effect": "PreferNoSchedule"}]),
                    _ => json!([]),
                };
                self.cluster.put_node(&api_node(
                    &node,
                    json!({"metadata": {"labels": labels}, "spec": {"taints": taints}}),
                ));
            }
            2 if self.numbers.below(3) == 0 => self.cluster.remove_node(&node),
            3 => {
                let pod = self.pod("");
                self.cluster.nominate(&pod, &node);
                self.pods.push(pod);
            }
            4 | 5 if !self.pods.is_empty() => {
                let at = self.numbers.below(self.pods.len() as u64) as usize;
                let pod = self.pods.swap_remove(at);
                self.cluster.remove_pod(&pod.key);
                self.cluster.denominate(&pod.key);
            }
            6 => {
                let service: Service = serde_json::from_value(json!({
                    "metadata": {"name": "s", "namespace": "default"},
                    "spec": {"selector": {"app": "a"}},
                }))
                .unwrap();
                let key = "default/s".into();
                if self.numbers.below(2) == 0 {
                    self.cluster.objects.put_service(key, &service);
                } else {
                    self.cluster.objects.remove_service(&key);
                }
            }
            _ => {
                let pod = self.pod(&node);
                self.cluster.put_pod(Arc::clone(&pod));
                self.pods.push(pod);
            }
        }
    }

    /// What is picked without a look at each node is one of those with the highest score.
    fn pick_is_one_of(
        &self,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        found: Option<&BTreeMap<usize, i64>>,
        kept: &mut Evaluations,
    ) {
        let mut picked = Vec::new();
        let mut shared = 1;
        while picked.len() < shared {
            let mut draw = |n: usize| {
                shared = n;
                picked.len()
            };
            let evaluation = kept.of(profile, pod, &self.cluster);
            let Some(slot) = evaluation.pick(&self.cluster, &mut draw) else {
                return;
            };
            picked.push(slot);
        }
        let found = found.expect("a node has been picked");
        let highest = found.values().max();
        let best = found.iter().filter(|(_, total)| Some(*total) == highest);
        assert_eq!(picked, best.map(|(slot, _)| *slot).collect::<Vec<_>>());
    }

    /// What filters say of each node by itself, and of all at once.
    fn verdicts(&self, profile: &Profile, pod: &Arc<PodInfo>) -> (Vec<String>, Vec<String>) {
        let mut evaluations = Evaluations::default();
        let evaluation = &*evaluations.of(profile, pod, &self.cluster);
        let named = |attempt: &Attempt<'_>, verdict: u16| match verdict {
            FEASIBLE | ABSENT => verdict.to_string(),
            n => format!("{:?}", attempt.rejections[usize::from(n) - 1]),
        };
        let mut attempt = Attempt::new(profile, pod, &self.cluster, evaluation);
        let each: Vec<u16> = (0..self.cluster.slots())
            .map(|slot| attempt.verdict(slot))
            .collect();
        let each = each.into_iter().map(|v| named(&attempt, v)).collect();
        let mut attempt = Attempt::new(profile, pod, &self.cluster, evaluation);
        let all = attempt.verdicts();
        let all = all.into_iter().map(|v| named(&attempt, v)).collect();
        (each, all)
    }

    /// What is found for a pod: nodes with their scores, or the words of a refusal.
    fn found(
        &self,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        evaluations: &mut Evaluations,
    ) -> Result<BTreeMap<usize, i64>, String> {
        let survey = profile.survey(
            pod,
            &self.cluster,
            evaluations,
            &mut 0,
            Bounds::default(),
            &mut |_| 0,
        );
        let candidates = survey.map_err(|verdict| {
            let victims = verdict.victims.iter().map(|v| v.key.name());
            let victims: Vec<&str> = victims.collect();
            format!(
                "{}: {:?}, {victims:?}",
                verdict.message(),
                verdict.nomination
            )
        })?;
        let totals = candidates
            .totals
            .iter()
            .copied()
            .chain(std::iter::repeat(0));
        Ok(candidates.slots.iter().copied().zip(totals).collect())
    }
}

#[test]
fn what_is_kept_is_what_would_be_found_anew() {
    let profile = default_profile();
    let mut preempted = 0;
    for seed in 0..20 {
        let mut world = World {
            cluster: Cache::default(),
            templates: Templates::default(),
            numbers: Numbers(seed),
            pods: Vec::new(),
            made: 0,
        };
        let asked: Vec<Arc<PodInfo>> = (0..12).map(|_| world.pod("")).collect();
        let mut kept = Evaluations::default();
        for step in 0..120 {
            world.step();
            // Not every kind is asked about every time: some have more to catch up with.
            let pod = &asked[world.numbers.below(asked.len() as u64) as usize];
            let anew = world.found(&profile, pod, &mut Evaluations::default());
            let found = world.found(&profile, pod, &mut kept);
            assert_eq!(
                found, anew,
                "seed {seed}, step {step}, pod {:?}",
                pod.template
            );
            preempted += usize::from(found.as_ref().is_err_and(|f| f.contains("Node(")));
            let (each, all) = world.verdicts(&profile, pod);
            assert_eq!(each, all, "seed {seed}, step {step}");
            world.pick_is_one_of(&profile, pod, found.as_ref().ok(), &mut kept);
        }
    }
    assert!(preempted > 0);
}
