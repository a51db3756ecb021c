use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{Decision, Nomination};
use crate::cache::Cache;
use crate::cache::objects::{Budget, Namespace, PodDisruptionBudget, Service};
use crate::evaluation::Evaluations;
use crate::framework::{ClusterEvent, Filter, Hint, Plugin, Rejection};
use crate::model::{Pod, PodInfo, Templates};
use crate::plugins::default_profile;
use crate::plugins::testing::api_node;
use crate::profile::Profile;

/// A cluster to try things out on.
pub struct Stand {
    profile: Profile,
    cluster: Cache,
    evaluations: Evaluations,
    templates: Templates,
}

impl Stand {
    /// With nodes `n0`, `n1`… in zones `z0`, `z1`…, so many nodes per zone.
    pub fn new(zones: usize, per_zone: usize) -> Self {
        let mut stand = Self {
            profile: default_profile(),
            cluster: Cache::default(),
            evaluations: Evaluations::default(),
            templates: Templates::default(),
        };
        for i in 0..zones * per_zone {
            stand.node(&format!("n{i}"), &format!("z{}", i / per_zone), json!({}));
        }
        stand
    }

    fn node(&mut self, name: &str, zone: &str, rest: Value) {
        let mut node = api_node(name, rest);
        let labels = &mut node.metadata.labels;
        labels.insert("kubernetes.io/hostname".into(), name.into());
        labels.insert("topology.kubernetes.io/zone".into(), zone.into());
        self.cluster.put_node(&node);
    }

    fn info(&mut self, name: &str, labels: &Value, spec: &Value) -> Arc<PodInfo> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": labels},
            "spec": spec,
        }))
        .unwrap();
        self.templates.pod(&pod)
    }

    /// Puts a pod on a node.
    fn run(&mut self, name: &str, node: &str, labels: Value, mut spec: Value) {
        spec["nodeName"] = node.into();
        let pod = self.info(name, &labels, &spec);
        self.cluster.put_pod(pod);
    }

    fn decide(&mut self, name: &str, labels: Value, spec: Value) -> (Arc<PodInfo>, Decision) {
        let pod = self.info(name, &labels, &spec);
        let decision = self.profile.schedule(
            &pod,
            &self.cluster,
            &mut self.evaluations,
            &mut 0,
            &mut |_| 0,
        );
        (pod, decision)
    }

    /// Where the pod goes, for good; or why it goes nowhere.
    pub fn place(&mut self, name: &str, labels: Value, spec: Value) -> Result<String, String> {
        match self.decide(name, labels, spec) {
            (pod, Decision::Node(node)) => {
                self.cluster.assume(pod, &node);
                Ok(node.into())
            }
            (_, Decision::Unschedulable(verdict)) => Err(verdict.message()),
        }
    }
}

pub fn cpu(amount: &str) -> Value {
    json!([{"resources": {"requests": {"cpu": amount}}}])
}

pub fn affinity(kind: &str, when: &str, terms: Value) -> Value {
    json!({kind: {format!("{when}DuringSchedulingIgnoredDuringExecution"): terms}})
}

pub fn term(app: &str, key: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

pub const ZONE: &str = "topology.kubernetes.io/zone";
pub const HOST: &str = "kubernetes.io/hostname";
const NO_HELP: &str = "no new claims to deallocate, preemption: 0";

#[test]
fn the_message_counts_reasons_as_upstream_does() {
    let mut stand = Stand::new(1, 2);
    let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    stand.node("c", "z", tainted);
    stand.node("d", "z", json!({"spec": {"unschedulable": true}}));
    let message = stand.place("big", json!({}), json!({"containers": cpu("64")}));
    assert_eq!(
        message.unwrap_err(),
        format!(
            "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu. {NO_HELP}/4 nodes are available: 4 Preemption is not helpful for scheduling."
        )
    );
    let mut empty = Stand::new(0, 0);
    assert_eq!(
        empty.place("p", json!({}), json!({})).unwrap_err(),
        "no nodes available to schedule pods"
    );
}

#[test]
fn pods_fill_nodes_evenly_and_what_is_kept_stays_true() {
    let mut stand = Stand::new(1, 4);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for i in 0..8 {
        let node = stand.place(
            &format!("p{i}"),
            json!({}),
            json!({"containers": cpu("500m")}),
        );
        *counts.entry(node.unwrap()).or_default() += 1;
    }
    assert!(counts.values().all(|n| *n == 2), "{counts:?}");
    for i in 8..16 {
        let name = format!("p{i}");
        assert!(
            stand
                .place(&name, json!({}), json!({"containers": cpu("500m")}))
                .is_ok()
        );
    }
    assert!(
        stand
            .place("more", json!({}), json!({"containers": cpu("500m")}))
            .is_err()
    );
    stand.cluster.remove_pod(&"default/p3".into());
    assert!(
        stand
            .place("more", json!({}), json!({"containers": cpu("500m")}))
            .is_ok()
    );
}

#[test]
fn names_narrow_the_nodes_and_the_rest_is_counted_together() {
    let mut stand = Stand::new(1, 3);
    let named = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["n1"]},
        ]}],
    }}});
    let spec = json!({"containers": cpu("3"), "affinity": named});
    let message = stand.place("p", json!({}), spec).unwrap_err();
    assert!(
        message.starts_with(
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
        ),
        "{message}"
    );
}

#[test]
fn required_affinity_needs_a_friend_or_makes_the_start() {
    let mut stand = Stand::new(2, 2);
    let near = |app: &str| json!({"affinity": affinity("podAffinity", "required", json!([term(app, ZONE)]))});
    let lonely = stand.place("p", json!({"app": "a"}), near("b"));
    assert!(
        lonely
            .unwrap_err()
            .contains("4 node(s) didn't match pod affinity rules")
    );
    let first = stand.place("b0", json!({"app": "b"}), near("b")).unwrap();
    stand.cluster.remove_pod(&"default/b0".into());
    stand.run("b0", "n2", json!({"app": "b"}), json!({}));
    for i in 1..4 {
        let node = stand.place(&format!("b{i}"), json!({"app": "b"}), near("b"));
        assert!(
            matches!(node.as_deref(), Ok("n2" | "n3")),
            "first was on {first}"
        );
    }
    let follower = stand.place("p", json!({"app": "a"}), near("b"));
    assert!(matches!(follower.as_deref(), Ok("n2" | "n3")));
}

#[test]
fn anti_affinity_holds_both_ways() {
    let mut stand = Stand::new(2, 1);
    let alone =
        json!({"affinity": affinity("podAntiAffinity", "required", json!([term("x", ZONE)]))});
    stand.run("loner", "n0", json!({"app": "y"}), alone.clone());
    // It does not want to be with an x, so no x goes there.
    assert_eq!(
        stand.place("x0", json!({"app": "x"}), json!({})).unwrap(),
        "n1"
    );
    let message = stand
        .place("y1", json!({"app": "y"}), alone.clone())
        .unwrap();
    assert_eq!(message, "n0", "a y may be with a y, and not with an x");
    let message = stand
        .place("x1", json!({"app": "x"}), alone.clone())
        .unwrap_err();
    assert!(
        message.contains("1 node(s) didn't match pod anti-affinity rules"),
        "{message}"
    );
    assert!(
        message.contains("1 node(s) didn't satisfy existing pods anti-affinity rules"),
        "{message}"
    );
    stand.cluster.remove_pod(&"default/x0".into());
    assert_eq!(stand.place("x1", json!({"app": "x"}), alone).unwrap(), "n1");
}

#[test]
fn labels_of_namespaces_select() {
    let mut stand = Stand::new(2, 1);
    let put = |stand: &mut Stand, team: &str| {
        let namespace: Namespace = serde_json::from_value(
            json!({"metadata": {"name": "default", "labels": {"team": team}}}),
        )
        .unwrap();
        if stand.cluster.objects.put_namespace(&namespace) {
            stand.cluster.epoch += 1;
        }
    };
    put(&mut stand, "red");
    stand.run("db", "n1", json!({"app": "db"}), json!({}));
    let mut near = term("db", ZONE);
    near["namespaceSelector"] = json!({"matchLabels": {"team": "red"}});
    let spec = json!({"affinity": affinity("podAffinity", "required", json!([near]))});
    assert_eq!(stand.place("p", json!({}), spec.clone()).unwrap(), "n1");
    put(&mut stand, "blue");
    assert!(stand.place("q", json!({}), spec).is_err());
}

#[test]
fn preferences_and_those_of_others_draw_and_repel() {
    let mut stand = Stand::new(3, 1);
    stand.run("db", "n1", json!({"app": "db"}), json!({}));
    let weighted = |app: &str| json!([{"weight": 100, "podAffinityTerm": term(app, ZONE)}]);
    let near = json!({"affinity": affinity("podAffinity", "preferred", weighted("db"))});
    assert_eq!(stand.place("p", json!({}), near).unwrap(), "n1");
    let mut stand = Stand::new(3, 1);
    let shy = json!({"affinity": affinity("podAntiAffinity", "preferred", weighted("loud"))});
    stand.run("shy0", "n0", json!({}), shy.clone());
    stand.run("shy1", "n1", json!({}), shy);
    assert_eq!(
        stand.place("l", json!({"app": "loud"}), json!({})).unwrap(),
        "n2"
    );
}

pub fn spread(key: &str, skew: i64, when: &str, rest: Value) -> Value {
    let mut constraint = json!({
        "topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": when,
        "labelSelector": {"matchLabels": {"app": "s"}},
    });
    for (field, value) in rest.as_object().unwrap() {
        constraint[field] = value.clone();
    }
    json!({"topologySpreadConstraints": [constraint]})
}

#[test]
fn skew_is_bounded() {
    let mut stand = Stand::new(2, 2);
    for i in 0..2 {
        stand.run(&format!("s{i}"), "n0", json!({"app": "s"}), json!({}));
    }
    let hard = spread(ZONE, 1, "DoNotSchedule", json!({}));
    for name in ["a", "b"] {
        let node = stand
            .place(name, json!({"app": "s"}), hard.clone())
            .unwrap();
        assert!(
            matches!(node.as_str(), "n2" | "n3"),
            "the other zone is fuller"
        );
    }
    let per_host = spread(HOST, 1, "DoNotSchedule", json!({}));
    let node = stand.place("c", json!({"app": "s"}), per_host).unwrap();
    assert_eq!(node, "n1", "the only one that is empty");
    stand.cluster.remove_node("n2");
    stand.cluster.remove_node("n3");
    let message = stand
        .place(
            "d",
            json!({"app": "s"}),
            spread("rack", 1, "DoNotSchedule", json!({})),
        )
        .unwrap_err();
    assert!(message.contains(
        "2 node(s) didn't match pod topology spread constraints (missing required label)"
    ));
}

#[test]
fn missing_domains_count_as_empty_ones() {
    let mut stand = Stand::new(2, 1);
    let spec = spread(ZONE, 1, "DoNotSchedule", json!({"minDomains": 3}));
    assert!(stand.place("a", json!({"app": "s"}), spec.clone()).is_ok());
    assert!(stand.place("b", json!({"app": "s"}), spec.clone()).is_ok());
    let message = stand.place("c", json!({"app": "s"}), spec).unwrap_err();
    assert!(
        message.contains("2 node(s) didn't match pod topology spread constraints."),
        "{message}"
    );
}

#[test]
fn nodes_that_a_pod_cannot_be_on_count_by_policy() {
    let mut stand = Stand::new(1, 1);
    let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    stand.node("t", "z9", tainted);
    stand.run("s0", "n0", json!({"app": "s"}), json!({}));
    // The tainted node's zone is empty, which keeps the pod off the other one…
    let ignore = spread(ZONE, 1, "DoNotSchedule", json!({}));
    assert!(stand.place("a", json!({"app": "s"}), ignore).is_err());
    // …unless it does not count.
    let honor = spread(
        ZONE,
        1,
        "DoNotSchedule",
        json!({"nodeTaintsPolicy": "Honor"}),
    );
    assert_eq!(stand.place("b", json!({"app": "s"}), honor).unwrap(), "n0");
}

#[test]
fn revisions_are_spread_apart_by_their_label() {
    let mut stand = Stand::new(2, 1);
    stand.run("old", "n0", json!({"app": "s", "rev": "1"}), json!({}));
    let spec = spread(ZONE, 1, "DoNotSchedule", json!({"matchLabelKeys": ["rev"]}));
    stand.run("new", "n1", json!({"app": "s", "rev": "2"}), json!({}));
    assert_eq!(
        stand
            .place("p", json!({"app": "s", "rev": "2"}), spec)
            .unwrap(),
        "n0"
    );
}

#[test]
fn pods_of_a_service_are_spread_by_default() {
    let mut stand = Stand::new(3, 1);
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "s", "namespace": "default"},
        "spec": {"selector": {"app": "s"}},
    }))
    .unwrap();
    // The kind is known before its Service is.
    assert!(stand.place("first", json!({"app": "s"}), json!({})).is_ok());
    stand.cluster.remove_pod(&"default/first".into());
    stand
        .cluster
        .objects
        .put_service("default/s".into(), &service);
    for (i, node) in ["n0", "n1", "n0"].iter().enumerate() {
        stand.run(&format!("s{i}"), node, json!({"app": "s"}), json!({}));
    }
    assert_eq!(
        stand.place("p", json!({"app": "s"}), json!({})).unwrap(),
        "n2"
    );
}

fn preemptor() -> Value {
    json!({"containers": cpu("2"), "priority": 100})
}

#[test]
fn the_least_important_leave() {
    let mut stand = Stand::new(1, 2);
    for (name, node, priority) in [("a", "n0", 5), ("b", "n1", 1), ("c", "n1", 2)] {
        let spec = json!({"containers": cpu("1"), "priority": priority});
        stand.run(name, node, json!({}), spec);
    }
    stand.run(
        "system",
        "n0",
        json!({}),
        json!({"containers": cpu("1"), "priority": 1000}),
    );
    let (_, decision) = stand.decide("p", json!({}), preemptor());
    let Decision::Unschedulable(verdict) = decision else {
        panic!("both nodes are full")
    };
    assert_eq!(
        verdict.message(),
        "0/2 nodes are available: 2 Insufficient cpu."
    );
    assert_eq!(verdict.nomination, Nomination::Node("n1".into()));
    let names: Vec<&str> = verdict.victims.iter().map(|v| v.key.name()).collect();
    assert_eq!(names, ["c", "b"]);
}

#[test]
fn who_can_stay_stays_and_budgets_are_kept() {
    let mut stand = Stand::new(1, 2);
    for (name, node, app) in [("a", "n0", "guarded"), ("b", "n1", "free")] {
        stand.run(
            name,
            node,
            json!({"app": app}),
            json!({"containers": cpu("1500m")}),
        );
        let small = json!({"containers": cpu("100m")});
        stand.run(&format!("{name}2"), node, json!({}), small);
    }
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "guarded"}}},
        "status": {"disruptionsAllowed": 0},
    }))
    .unwrap();
    let budgets = &mut stand.cluster.objects.budgets;
    budgets.put("default/b".into(), Budget::new(&budget));
    let spec = json!({"containers": cpu("1"), "priority": 100});
    let (_, Decision::Unschedulable(verdict)) = stand.decide("p", json!({}), spec) else {
        panic!("both nodes are full")
    };
    let names: Vec<&str> = verdict.victims.iter().map(|v| v.key.name()).collect();
    assert_eq!(names, ["b"], "b2 need not go, and a must not");
}

#[test]
fn others_yield_to_who_is_nominated() {
    let mut stand = Stand::new(1, 1);
    let first = stand.info("first", &json!({}), &preemptor());
    stand.cluster.nominate(&first, "n0");
    let lesser = json!({"containers": cpu("1"), "priority": 5});
    let message = stand.place("lesser", json!({}), lesser).unwrap_err();
    assert!(
        message.starts_with("0/1 nodes are available: 1 Insufficient cpu."),
        "{message}"
    );
    let greater = json!({"containers": cpu("1"), "priority": 500});
    let (_, decision) = stand.decide("greater", json!({}), greater);
    assert!(matches!(decision, Decision::Node(_)), "it need not yield");
    assert_eq!(stand.place("first", json!({}), preemptor()).unwrap(), "n0");
    assert_eq!(stand.cluster.nominated_to("n0").len(), 0);
}

#[test]
fn who_may_not_preempt_says_so() {
    let mut stand = Stand::new(1, 1);
    stand.run("a", "n0", json!({}), json!({"containers": cpu("2")}));
    let mut spec = preemptor();
    spec["preemptionPolicy"] = "Never".into();
    let message = stand.place("p", json!({}), spec).unwrap_err();
    assert!(
        message.ends_with("preemption: not eligible due to preemptionPolicy=Never."),
        "{message}"
    );
    let equal = json!({"containers": cpu("2")});
    let message = stand.place("q", json!({}), equal).unwrap_err();
    assert!(
        message.ends_with("1 No preemption victims found for incoming pod."),
        "{message}"
    );
}

/// Fails on every node, and counts them.
struct Fails(Arc<AtomicUsize>);

impl Plugin for Fails {
    fn name(&self) -> &'static str {
        "Fails"
    }

    fn is_own(&self, _pod: &PodInfo) -> bool {
        true
    }

    fn filter(&self, _pod: &Arc<PodInfo>, _cluster: &Cache) -> Filter {
        let asked = Arc::clone(&self.0);
        Filter::own(move |_, _, _| {
            asked.fetch_add(1, Ordering::Relaxed);
            Err(Rejection::error("it took too long"))
        })
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        Hint::Skip
    }
}

#[test]
fn an_attempt_ends_with_the_first_failure() {
    let mut stand = Stand::new(1, 3);
    let asked = Arc::new(AtomicUsize::new(0));
    stand
        .profile
        .filters
        .push(Arc::new(Fails(Arc::clone(&asked))));
    let message = stand.place("p", json!({}), json!({})).unwrap_err();
    assert_eq!(message, "it took too long");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
