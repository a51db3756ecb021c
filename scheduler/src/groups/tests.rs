use std::sync::Arc;

use client::{Object as _, ObjectKey};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::decision::{Decision, decide};
use super::trial::{Bench, Outcome, Verdict};
use super::{PodGroup, Told};
use crate::cache::Cache;
use crate::config::ProfileConfiguration;
use crate::cycle::tests::{HOST, affinity, cpu, term};
use crate::evaluation::Evaluations;
use crate::model::{Pod, PodInfo, Templates};
use crate::plugins::profile;
use crate::plugins::testing::api_node;
use crate::profile::Profile;

const GANGS: &[&str] = &["GenericWorkload", "GangScheduling"];
const PLACEMENTS: &[&str] = &[
    "GenericWorkload",
    "GangScheduling",
    "TopologyAwareWorkloadScheduling",
];
const PREEMPTION: &[&str] = &[
    "GenericWorkload",
    "GangScheduling",
    "WorkloadAwarePreemption",
];
const WAITS: &str = "waiting for minCount pods from a gang to be scheduled, one or more plugins asked to wait and no plugin rejected pod";

struct Stand {
    profile: Profile,
    cluster: Cache,
    evaluations: Evaluations,
    templates: Templates,
}

impl Stand {
    /// With these features.
    fn new(features: &[&str]) -> Self {
        let config = ProfileConfiguration::default();
        let gate = |name: &str| features.contains(&name);
        Self {
            profile: profile("default-scheduler", &config, &[], &gate).unwrap(),
            cluster: Cache::default(),
            evaluations: Evaluations::default(),
            templates: Templates::new(true),
        }
    }

    /// A node with one CPU.
    fn node(&mut self, name: &str, rack: &str) {
        let rest = json!({
            "metadata": {"labels": {HOST: name, "rack": rack}},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"}},
        });
        self.cluster.put_node(&api_node(name, rest));
    }

    fn group(&mut self, name: &str, spec: Value) {
        let group = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": spec,
        });
        let group: PodGroup = serde_json::from_value(group).unwrap();
        self.cluster.groups.put_object(Arc::new(group));
    }

    fn pod(&mut self, name: &str, group: &str, mut spec: Value) -> Arc<PodInfo> {
        if spec.get("containers").is_none() {
            spec["containers"] = cpu("1");
        }
        if !group.is_empty() {
            spec["schedulingGroup"] = json!({"podGroupName": group});
        }
        let pod = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "x"}},
            "spec": spec,
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.templates.pod(&pod)
    }

    /// Puts a pod on a node.
    fn run(&mut self, name: &str, node: &str, group: &str, mut spec: Value) {
        spec["nodeName"] = node.into();
        let pod = self.pod(name, group, spec);
        self.cluster.put_pod(pod);
    }

    /// Pods of a group that wait.
    fn wait(&mut self, names: &[&str], group: &str, spec: &Value) -> Vec<Arc<PodInfo>> {
        let pods = names.iter();
        let pods: Vec<_> = pods.map(|p| self.pod(p, group, spec.clone())).collect();
        pods.iter().for_each(|pod| self.cluster.groups.wait(pod));
        pods
    }

    fn decide(&mut self, group: &str, pods: &[Arc<PodInfo>]) -> Decision {
        let before = self.state();
        let mut bench = Bench {
            cache: &mut self.cluster,
            evaluations: &mut self.evaluations,
            start: &mut 0,
            draw: &mut |_| 0,
        };
        let decision = decide(&self.profile, &mut bench, &key(group), pods);
        assert_eq!(self.state(), before, "the cluster is as it was");
        decision
    }

    /// Who is where, and who is nominated.
    fn state(&self) -> Vec<String> {
        let mut state: Vec<String> = Vec::new();
        for node in self.cluster.nodes() {
            state.extend(node.pods.iter().map(|p| format!("{} {}", node.name, p.key)));
            let nominated = self.cluster.nominated_to(&node.name).iter();
            state.extend(nominated.map(|p| format!("{} ({})", node.name, p.key)));
        }
        for group in ["g", "h"].map(key) {
            let groups = &self.cluster.groups;
            state.push(format!(
                "{group} {}/{}",
                groups.placed_count(&group),
                groups.count(&group)
            ));
        }
        state.sort();
        state
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

fn gang(min: i32) -> Value {
    json!({"schedulingPolicy": {"gang": {"minCount": min}}})
}

/// The node of each pod, or why it has none.
fn words(decision: &Decision) -> Vec<String> {
    let outcomes = decision.trial.outcomes.iter();
    outcomes
        .map(|outcome| match outcome {
            Outcome::Fits { node, waits } => match waits {
                Some(why) => format!("{node}, but {why}"),
                None => node.to_string(),
            },
            Outcome::Preempts { verdict, .. } => {
                let victims = verdict.victims.iter().map(|v| v.key.name());
                format!("after {}", victims.collect::<Vec<_>>().join(" "))
            }
            Outcome::Unschedulable(verdict) => verdict.message(),
            Outcome::Failed(why) => format!("failed: {why}"),
        })
        .collect()
}

fn victims(decision: &Decision) -> Vec<&str> {
    let victims = decision.victims.iter().flat_map(|v| &v.pods);
    victims.map(|pod| pod.key.name()).collect()
}

#[test]
fn a_gang_goes_as_a_whole_or_not_at_all() {
    let mut stand = Stand::new(GANGS);
    stand.node("a", "");
    stand.node("b", "");
    stand.group("g", gang(3));
    let pods = stand.wait(&["p", "q", "r"], "g", &json!({}));
    let decision = stand.decide("g", &pods);
    assert_eq!(decision.trial.verdict, Verdict::Unschedulable);
    assert_eq!(decision.message, "pod group is unschedulable");
    let said = words(&decision);
    assert!(
        said[..2].iter().all(|word| word.ends_with(WAITS)),
        "{said:?}"
    );
    assert!(said[2].starts_with("0/2 nodes are available: 2 Insufficient cpu."));
    stand.node("c", "");
    let decision = stand.decide("g", &pods);
    assert_eq!(decision.trial.verdict, Verdict::Schedulable);
    assert_eq!(decision.message, "");
}

#[test]
fn enough_of_a_gang_may_go_without_the_others() {
    let mut stand = Stand::new(GANGS);
    stand.node("a", "");
    stand.node("b", "");
    stand.group("g", gang(2));
    let pods = stand.wait(&["p", "q", "r"], "g", &json!({}));
    let decision = stand.decide("g", &pods);
    assert_eq!(decision.trial.verdict, Verdict::Schedulable);
    assert!(matches!(
        decision.trial.outcomes[2],
        Outcome::Unschedulable(_)
    ));
    // Those that have a node count.
    stand.run("p", "a", "g", json!({}));
    stand.cluster.groups.remove(&key("g"), &key("r"));
    let decision = stand.decide("g", &pods[1..2]);
    assert_eq!(decision.trial.verdict, Verdict::Schedulable);
    assert_eq!(words(&decision), ["b"]);
}

#[test]
fn pods_of_a_basic_group_go_each_for_itself() {
    let mut stand = Stand::new(GANGS);
    stand.node("a", "");
    stand.group("g", json!({"schedulingPolicy": {"basic": {}}}));
    let pods = stand.wait(&["p", "q"], "g", &json!({}));
    let decision = stand.decide("g", &pods);
    assert_eq!(decision.trial.verdict, Verdict::Schedulable);
    assert_eq!(words(&decision)[0], "a");
    assert!(matches!(
        decision.trial.outcomes[1],
        Outcome::Unschedulable(_)
    ));
}

#[test]
fn pods_of_a_group_see_each_other() {
    let mut stand = Stand::new(GANGS);
    let apart = affinity("podAntiAffinity", "required", json!([term("x", HOST)]));
    let spec = json!({"affinity": apart, "containers": []});
    stand.node("a", "");
    stand.node("b", "");
    stand.group("g", gang(3));
    let pods = stand.wait(&["p", "q", "r"], "g", &spec);
    let decision = stand.decide("g", &pods);
    assert_eq!(decision.trial.verdict, Verdict::Unschedulable);
    let last = &words(&decision)[2];
    let why = "didn't match pod anti-affinity rules";
    assert!(last.contains(why), "{last}");
}

#[test]
fn without_its_group_a_pod_waits_or_fails() {
    let mut stand = Stand::new(GANGS);
    stand.node("a", "");
    let pods = stand.wait(&["p", "q"], "g", &json!({}));
    let admitted = |stand: &Stand| stand.profile.admit(&pods[0], &stand.cluster);
    assert_eq!(admitted(&stand), Err("GangScheduling"));
    let decision = stand.decide("g", &pods);
    let why = "running Permit plugin \"GangScheduling\": failed to get podGroup default/g: podgroup.scheduling.k8s.io \"g\" not found";
    assert_eq!(words(&decision), [format!("failed: {why}")]);
    let all = format!("failed to schedule other pod from a pod group: {why}");
    assert_eq!(decision.trial.verdict, Verdict::Failed(all));
    stand.group("g", gang(3));
    assert_eq!(admitted(&stand), Err("GangScheduling"));
    stand.wait(&["r"], "g", &json!({}));
    assert_eq!(admitted(&stand), Ok(()));
}

#[test]
fn a_nomination_outlives_a_trial() {
    let mut stand = Stand::new(GANGS);
    stand.node("a", "");
    stand.group("g", gang(1));
    let pods = stand.wait(&["p"], "g", &json!({}));
    stand.cluster.nominate(&pods[0], "a");
    let decision = stand.decide("g", &pods);
    assert_eq!(words(&decision), ["a"]);
    assert_eq!(stand.cluster.nomination(&key("p")), Some("a"));
}

#[test]
fn others_leave_for_single_pods_where_that_is_enough() {
    let mut stand = Stand::new(GANGS);
    for (node, pod) in [("a", "low"), ("b", "lower")] {
        stand.node(node, "");
        stand.run(pod, node, "", json!({}));
    }
    let spec = json!({"priority": 10});
    stand.group("g", gang(2));
    let pods = stand.wait(&["p", "q"], "g", &spec);
    let decision = stand.decide("g", &pods);
    assert_eq!(decision.trial.verdict, Verdict::AfterPreemption);
    let mut said = words(&decision);
    said.sort();
    assert_eq!(said, ["after low", "after lower"]);
    stand.group("g", gang(3));
    let pods = stand.wait(&["p", "q", "r"], "g", &spec);
    let decision = stand.decide("g", &pods);
    assert_eq!(decision.trial.verdict, Verdict::Unschedulable);
}

fn in_one_rack(min: i32) -> Value {
    let mut spec = gang(min);
    spec["schedulingConstraints"] = json!({"topology": [{"key": "rack"}]});
    spec
}

#[test]
fn a_group_goes_to_one_rack() {
    let mut stand = Stand::new(PLACEMENTS);
    for (rack, nodes) in [("x", 1), ("y", 2), ("z", 3)] {
        for i in 0..nodes {
            stand.node(&format!("{rack}{i}"), rack);
        }
    }
    stand.group("g", in_one_rack(3));
    let pods = stand.wait(&["p", "q", "r"], "g", &json!({}));
    let decision = stand.decide("g", &pods);
    assert_eq!(decision.trial.verdict, Verdict::Schedulable);
    let said = words(&decision);
    assert_eq!(said[2].chars().next(), Some('z'), "{said:?}");
    // Nobody leaves, and the first rack gives the words.
    stand.group("g", in_one_rack(4));
    let pods = stand.wait(&["p", "q", "r", "s"], "g", &json!({"priority": 1}));
    let decision = stand.decide("g", &pods);
    assert_eq!(
        decision.message,
        "0/3 placements are available, first placement status: pod group is unschedulable"
    );
    assert_eq!(
        words(&decision)[1],
        "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to placement-based pod group scheduling limitation"
    );
    // Those who come late follow.
    stand.run("p", "y0", "g", json!({}));
    let decision = stand.decide("g", &pods[1..2]);
    assert_eq!(words(&decision), [format!("y1, but {WAITS}")]);
    stand.run("q", "z0", "g", json!({}));
    let decision = stand.decide("g", &pods[2..3]);
    let Verdict::Failed(why) = &decision.trial.verdict else {
        panic!("{decision:?}");
    };
    let begins = "cannot determine domain for already scheduled pods: more than 1 domain found for pod group: ";
    assert!(why.starts_with(begins), "{why}");
}

#[test]
fn the_rack_that_takes_more_pods_is_better_and_then_the_fuller_one() {
    let mut stand = Stand::new(PLACEMENTS);
    for node in ["x0", "x1", "y0", "y1", "y2", "z0", "z1", "z2"] {
        stand.node(node, &node[..1]);
    }
    stand.group("g", in_one_rack(2));
    let half = json!({"containers": cpu("500m")});
    let other = json!({"containers": cpu("100m")});
    stand.run("other", "z0", "", other);
    let pods = stand.wait(&["p", "q", "r", "s", "t"], "g", &half);
    let decision = stand.decide("g", &pods);
    let said = words(&decision);
    assert!(said[4].starts_with('z'), "{said:?}");
    let pods = stand.wait(&["p", "q"], "g", &half);
    let said = words(&stand.decide("g", &pods));
    assert!(said[1].starts_with('x'), "{said:?}");
}

#[test]
fn no_node_says_where_it_is() {
    let mut stand = Stand::new(PLACEMENTS);
    let node = api_node("a", json!({}));
    stand.cluster.put_node(&node);
    stand.group("g", in_one_rack(1));
    let pods = stand.wait(&["p"], "g", &json!({}));
    let decision = stand.decide("g", &pods);
    assert_eq!(decision.trial.verdict, Verdict::Unschedulable);
    assert_eq!(decision.message, "no feasible placements found");
}

#[test]
fn the_least_important_leave_for_a_group() {
    let mut stand = Stand::new(PREEMPTION);
    for (node, pod, priority) in [("a", "one", 1), ("b", "two", 2), ("c", "more", 50)] {
        stand.node(node, "");
        stand.run(pod, node, "", json!({"priority": priority}));
    }
    let mut spec = gang(1);
    spec["priority"] = json!(10);
    stand.group("g", spec.clone());
    let pods = stand.wait(&["p"], "g", &json!({"priority": 10}));
    let decision = stand.decide("g", &pods);
    assert_eq!(decision.trial.verdict, Verdict::AfterPreemption);
    assert_eq!(victims(&decision), ["one"]);
    assert_eq!(decision.message, "pod group is unschedulable");
    // A group that leaves as a whole is worth more than single pods of its priority.
    stand.group("h", json!({"disruptionMode": "PodGroup", "priority": 1}));
    stand.run("two", "b", "h", json!({}));
    stand.node("d", "");
    stand.run("three", "d", "h", json!({}));
    assert_eq!(victims(&stand.decide("g", &pods)), ["one"]);
    stand.run("one", "a", "", json!({"priority": 5}));
    let decision = stand.decide("g", &pods);
    let mut whole = victims(&decision);
    whole.sort_unstable();
    assert_eq!(whole, ["three", "two"]);
}

#[test]
fn nobody_leaves_for_a_group_in_vain() {
    let mut stand = Stand::new(PREEMPTION);
    stand.node("a", "");
    stand.run("low", "a", "", json!({}));
    let message = |stand: &mut Stand, min, priority, spec| {
        let mut group = gang(min);
        group["priority"] = json!(priority);
        stand.group("g", group);
        let pods = stand.wait(&["p", "q"], "g", &spec);
        let decision = stand.decide("g", &pods);
        assert!(decision.victims.is_none());
        decision.message
    };
    assert_eq!(
        message(&mut stand, 2, 10, json!({})),
        "pod group is unschedulable, pod group is unschedulable"
    );
    assert_eq!(
        message(&mut stand, 1, 0, json!({"priority": 10})),
        "pod group is unschedulable, No preemption victims found for incoming preemptor"
    );
    assert_eq!(
        message(&mut stand, 1, 10, json!({"preemptionPolicy": "Never"})),
        "pod group is unschedulable, not eligible due to preemptionPolicy=Never."
    );
    // Least of all its own pods.
    stand.run("low", "a", "g", json!({}));
    assert_eq!(
        message(&mut stand, 2, 10, json!({})),
        "pod group is unschedulable, No preemption victims found for incoming preemptor"
    );
}

#[test]
fn what_has_been_scheduled_stays_so() {
    let mut stand = Stand::new(GANGS);
    stand.group("g", gang(1));
    let groups = &mut stand.cluster.groups;
    let told = |scheduled, message: &str| Told {
        scheduled,
        reason: if scheduled {
            "Scheduled"
        } else {
            "Unschedulable"
        },
        message: message.to_owned(),
    };
    let at = |second| Timestamp::from_second(second).unwrap();
    let group = key("g");
    let first = groups.tell(&group, &told(false, "no"), at(1)).unwrap();
    assert_eq!(groups.tell(&group, &told(false, "no"), at(2)), None);
    let second = groups.tell(&group, &told(false, "never"), at(3)).unwrap();
    assert_eq!(second.last_transition_time, first.last_transition_time);
    // What could not be written is told again.
    groups.not_written(&group, &second);
    assert!(groups.tell(&group, &told(false, "never"), at(4)).is_some());
    let done = groups.tell(&group, &told(true, ""), at(5)).unwrap();
    assert_eq!(done.last_transition_time.0, at(5));
    assert_eq!(groups.tell(&group, &told(false, "no"), at(6)), None);
    // Nor does it change when the API server tells of it.
    let mut object = (**groups.object(&group).unwrap()).clone();
    object.status.conditions.push(done);
    groups.put_object(Arc::new(object.clone()));
    assert_eq!(groups.tell(&group, &told(false, "no"), at(7)), None);
    // Another of its name is another.
    object.metadata.uid = "other".into();
    object.status.conditions.clear();
    groups.put_object(Arc::new(object));
    assert_eq!(groups.object(&group).map(|o| o.uid()), Some("other"));
    assert!(groups.tell(&group, &told(false, "no"), at(8)).is_some());
}
