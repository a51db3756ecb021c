//! The plan against a small world that obeys it: every write succeeds and pods become
//! available on demand.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::plan::{Observed, Plan, Step, plan};
use super::revisions;

struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: Timestamp,
    /// What was told, newest last.
    events: Vec<String>,
    /// The most pods there were, and the fewest available, since the last reset.
    most: i32,
    fewest: i32,
}

impl World {
    fn new(replicas: i32, strategy: Value) -> Self {
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "d", "uid": "dep", "generation": 1},
            "spec": {
                "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
                "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
                "template": {"metadata": {"labels": {"app": "web"}},
                             "spec": {"containers": [{"name": "c", "image": "v1"}]}},
            },
        }));
        Self {
            deployment: deployment.unwrap(),
            sets: Vec::new(),
            now: "2024-01-01T00:00:00Z".parse().unwrap(),
            events: Vec::new(),
            most: 0,
            fewest: i32::MAX,
        }
    }

    fn rolling(replicas: i32, surge: Value, unavailable: Value) -> Self {
        Self::new(
            replicas,
            json!({"type": "RollingUpdate",
                   "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}),
        )
    }

    fn change(&mut self, f: impl FnOnce(&mut k8s_openapi::api::apps::v1::DeploymentSpec)) {
        f(self.deployment.spec.as_mut().unwrap());
        *self.deployment.metadata.generation.as_mut().unwrap() += 1;
    }

    fn set_image(&mut self, image: &str) {
        self.change(|s| {
            s.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        });
    }

    fn plan(&self) -> Plan {
        let observed = Observed {
            deployment: self.deployment.clone(),
            replica_sets: self.sets.clone(),
            running_pods: Vec::new(),
        };
        plan(observed, self.now)
    }

    fn put(&mut self, mut rs: ReplicaSet) {
        let generation = rs.metadata.generation.get_or_insert(0);
        *generation += 1;
        match self
            .sets
            .iter_mut()
            .find(|s| s.metadata.name == rs.metadata.name)
        {
            Some(old) => *old = rs,
            None => self.sets.push(rs),
        }
    }

    /// One sync. Returns whether anything was written.
    fn sync(&mut self) -> bool {
        let plan = self.plan();
        self.events
            .extend(plan.events.into_iter().map(|e| e.message));
        let wrote = !plan.steps.is_empty();
        for step in plan.steps {
            let events = match step {
                Step::CreateReplicaSet(mut rs, events) => {
                    rs.metadata.uid = rs.metadata.name.clone();
                    rs.metadata.creation_timestamp = Some(Time(self.now));
                    self.put(*rs);
                    events
                }
                Step::UpdateReplicaSet(rs, events) => {
                    self.put(*rs);
                    events
                }
                Step::DeleteReplicaSet { name } => {
                    self.sets
                        .retain(|s| s.metadata.name.as_deref() != Some(&name));
                    Vec::new()
                }
                Step::UpdateDeployment(d, events) => {
                    self.deployment = *d;
                    *self.deployment.metadata.generation.as_mut().unwrap() += 1;
                    events
                }
                Step::UpdateStatus(d) => {
                    self.deployment.status = d.status.clone();
                    self.deployment.metadata.annotations = d.metadata.annotations.clone();
                    Vec::new()
                }
            };
            self.events.extend(events.into_iter().map(|e| e.message));
        }
        self.now += SignedDuration::from_secs(1);
        wrote
    }

    /// ReplicaSets make the pods they want; those of images in `broken` never get available.
    fn run_pods(&mut self, broken: &[&str]) {
        for rs in &mut self.sets {
            let spec = rs.spec.as_ref().unwrap();
            let image = spec
                .template
                .as_ref()
                .unwrap()
                .spec
                .as_ref()
                .unwrap()
                .containers[0]
                .image
                .clone();
            let n = spec.replicas.unwrap();
            let available = if broken.contains(&image.unwrap().as_str()) {
                0
            } else {
                n
            };
            rs.status = Some(ReplicaSetStatus {
                replicas: n,
                ready_replicas: Some(available),
                available_replicas: Some(available),
                observed_generation: rs.metadata.generation,
                terminating_replicas: Some(0),
                ..Default::default()
            });
        }
        let pods = self
            .sets
            .iter()
            .map(|s| s.status.as_ref().unwrap().replicas)
            .sum();
        let available = self
            .sets
            .iter()
            .map(|s| s.status.as_ref().unwrap().available_replicas.unwrap())
            .sum();
        self.most = self.most.max(pods);
        self.fewest = self.fewest.min(available);
    }

    fn settle(&mut self, broken: &[&str]) {
        for _ in 0..100 {
            let wrote = self.sync();
            self.run_pods(broken);
            if !wrote && !self.sync() {
                return;
            }
        }
        panic!("does not settle: {:#?}", self.events);
    }

    fn reset(&mut self) {
        (self.most, self.fewest) = (0, i32::MAX);
        self.events.clear();
    }

    fn condition(&self, kind: &str) -> (String, String, String) {
        let status = self.deployment.status.as_ref().unwrap();
        let c = status
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == kind)
            .unwrap();
        (
            c.status.clone(),
            c.reason.clone().unwrap(),
            c.message.clone().unwrap(),
        )
    }

    /// Image and size of each ReplicaSet by revision.
    fn sizes(&self) -> Vec<(i64, String, i32)> {
        let mut sizes: Vec<_> = self
            .sets
            .iter()
            .map(|rs| {
                let spec = rs.spec.as_ref().unwrap();
                let image = spec
                    .template
                    .as_ref()
                    .unwrap()
                    .spec
                    .as_ref()
                    .unwrap()
                    .containers[0]
                    .image
                    .clone();
                (
                    revisions::revision_of(rs).unwrap(),
                    image.unwrap(),
                    spec.replicas.unwrap(),
                )
            })
            .collect();
        sizes.sort();
        sizes
    }
}

fn sizes(list: &[(i64, &str, i32)]) -> Vec<(i64, String, i32)> {
    list.iter()
        .map(|(r, i, n)| (*r, (*i).to_owned(), *n))
        .collect()
}

#[test]
fn a_new_deployment() {
    let mut w = World::rolling(3, json!("25%"), json!("25%"));
    let plan = w.plan();
    let Step::CreateReplicaSet(rs, _) = &plan.steps[0] else {
        panic!("{plan:?}")
    };
    let hash = rs.metadata.labels.as_ref().unwrap()["pod-template-hash"].clone();
    let mut value = serde_json::to_value(rs).unwrap();
    assert_eq!(value["metadata"]["name"], format!("web-{hash}"));
    assert_eq!(
        value["spec"]["selector"]["matchLabels"],
        json!({"app": "web", "pod-template-hash": hash})
    );
    assert_eq!(
        value["metadata"]["annotations"].take(),
        json!({
            "deployment.kubernetes.io/desired-replicas": "3",
            "deployment.kubernetes.io/max-replicas": "4",
            "deployment.kubernetes.io/revision": "1",
        })
    );
    assert_eq!(
        value["metadata"]["ownerReferences"][0]["blockOwnerDeletion"],
        true
    );

    w.sync();
    assert_eq!(
        w.events,
        [format!("Scaled up replica set web-{hash} from 0 to 3")]
    );
    let created = (
        "True".into(),
        "NewReplicaSetCreated".into(),
        format!("Created new replica set \"web-{hash}\""),
    );
    assert_eq!(w.condition("Progressing"), created);
    assert_eq!(w.condition("Available").1, "MinimumReplicasUnavailable");
    assert_eq!(
        w.deployment.metadata.annotations.as_ref().unwrap()[revisions::REVISION],
        "1"
    );
    w.settle(&[]);
    let done = (
        "True".into(),
        "NewReplicaSetAvailable".into(),
        format!("ReplicaSet \"web-{hash}\" has successfully progressed."),
    );
    assert_eq!(w.condition("Progressing"), done);
    assert_eq!(
        w.condition("Available").2,
        "Deployment has minimum availability."
    );
    let status = w.deployment.status.clone().unwrap();
    assert_eq!(
        (status.replicas, status.updated_replicas),
        (Some(3), Some(3))
    );
    assert_eq!(
        (status.unavailable_replicas, status.terminating_replicas),
        (None, Some(0))
    );
}

#[test]
fn rolling_updates_keep_the_limits() {
    for (replicas, surge, unavailable, most, fewest) in [
        (3, json!("25%"), json!("25%"), 4, 3),
        (10, json!(0), json!(2), 10, 8),
        (10, json!("30%"), json!("30%"), 13, 7),
        (1, json!(0), json!(0), 1, 0),
        (4, json!(4), json!(0), 8, 4),
    ] {
        let mut w = World::rolling(replicas, surge, unavailable);
        w.settle(&[]);
        w.reset();
        w.set_image("v2");
        w.settle(&[]);
        assert_eq!(w.sizes(), sizes(&[(1, "v1", 0), (2, "v2", replicas)]));
        assert!(
            w.most <= most && w.fewest >= fewest,
            "{} {} {:?}",
            w.most,
            w.fewest,
            w.events
        );
        assert_eq!(w.condition("Progressing").1, "NewReplicaSetAvailable");
    }
}

#[test]
fn recreate_stops_all_first() {
    let mut w = World::new(3, json!({"type": "Recreate"}));
    w.settle(&[]);
    w.reset();
    w.set_image("v2");
    assert!(w.sync());
    assert_eq!(w.sizes(), sizes(&[(1, "v1", 0)]));
    // Its pods still run.
    assert!(!w.sync());
    w.settle(&[]);
    assert_eq!(w.sizes(), sizes(&[(1, "v1", 0), (2, "v2", 3)]));
    assert_eq!(w.most, 3);
}

#[test]
fn a_broken_update_times_out_and_is_undone() {
    let mut w = World::rolling(4, json!(1), json!(1));
    w.settle(&[]);
    w.reset();
    w.set_image("bad");
    w.settle(&["bad"]);
    assert_eq!(w.fewest, 3);
    assert_eq!(w.condition("Progressing").1, "ReplicaSetUpdated");
    let again = w.plan().again_after.unwrap();
    assert!(again.as_secs() > 590 && again.as_secs() <= 601, "{again:?}");
    w.now += SignedDuration::from_secs(601);
    assert!(w.sync());
    let (status, reason, message) = w.condition("Progressing");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "ProgressDeadlineExceeded")
    );
    assert!(message.ends_with("has timed out progressing."), "{message}");
    // As kubectl rollout undo does: the old template comes back as a new revision.
    w.set_image("v1");
    w.settle(&["bad"]);
    assert_eq!(w.sizes(), sizes(&[(2, "bad", 0), (3, "v1", 4)]));
    let back = w
        .sets
        .iter()
        .find(|s| revisions::revision_of(s) == Some(3))
        .unwrap();
    assert_eq!(
        back.metadata.annotations.as_ref().unwrap()[revisions::REVISION_HISTORY],
        "1"
    );
    assert_eq!(w.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[test]
fn the_rollback_annotation() {
    let mut w = World::rolling(2, json!(1), json!(0));
    w.settle(&[]);
    w.set_image("v2");
    w.settle(&[]);
    w.reset();
    let annotations = w.deployment.metadata.annotations.as_mut().unwrap();
    annotations.insert(revisions::ROLLBACK_TO.to_owned(), "1".to_owned());
    w.settle(&[]);
    assert_eq!(w.events[0], "Rolled back deployment \"web\" to revision 1");
    assert_eq!(w.sizes(), sizes(&[(2, "v2", 0), (3, "v1", 2)]));
    let annotations = w.deployment.metadata.annotations.as_mut().unwrap();
    assert!(!annotations.contains_key(revisions::ROLLBACK_TO));
    annotations.insert(revisions::ROLLBACK_TO.to_owned(), "77".to_owned());
    w.reset();
    w.settle(&[]);
    assert_eq!(w.events, ["Unable to find the revision to rollback to."]);
}

#[test]
fn scaling_amid_an_update_is_proportional() {
    let mut w = World::rolling(10, json!(3), json!(2));
    w.settle(&[]);
    w.set_image("bad");
    w.settle(&["bad"]);
    assert_eq!(w.sizes(), sizes(&[(1, "v1", 8), (2, "bad", 5)]));
    w.change(|s| s.replicas = Some(15));
    w.sync();
    // 18 pods may be; 8/13 and 5/13 of the five more, the larger takes the rest.
    assert_eq!(w.sizes(), sizes(&[(1, "v1", 11), (2, "bad", 7)]));
    w.change(|s| s.replicas = Some(0));
    w.sync();
    assert_eq!(w.sizes(), sizes(&[(1, "v1", 0), (2, "bad", 0)]));
}

#[test]
fn paused_deployments_scale_but_do_not_roll() {
    let mut w = World::rolling(2, json!(1), json!(0));
    w.settle(&[]);
    w.change(|s| s.paused = Some(true));
    w.set_image("v2");
    w.change(|s| s.replicas = Some(5));
    w.settle(&[]);
    assert_eq!(w.sizes(), sizes(&[(1, "v1", 5)]));
    assert_eq!(w.condition("Progressing").1, "DeploymentPaused");
    assert_eq!(w.condition("Progressing").0, "Unknown");
    w.change(|s| s.paused = None);
    w.sync();
    w.settle(&[]);
    assert_eq!(w.sizes(), sizes(&[(1, "v1", 0), (2, "v2", 5)]));
}

#[test]
fn old_revisions_are_cleaned_up() {
    let mut w = World::rolling(1, json!(1), json!(0));
    w.change(|s| s.revision_history_limit = Some(1));
    for image in ["v1", "v2", "v3", "v4"] {
        w.set_image(image);
        w.settle(&[]);
    }
    assert_eq!(w.sizes(), sizes(&[(3, "v3", 0), (4, "v4", 1)]));
}

#[test]
fn annotations_follow_and_an_unchanged_world_is_left_alone() {
    let mut w = World::rolling(1, json!(1), json!(0));
    w.settle(&[]);
    assert!(w.plan().steps.is_empty());
    let annotations = w.deployment.metadata.annotations.as_mut().unwrap();
    annotations.insert("kubernetes.io/change-cause".into(), "because".into());
    annotations.insert(
        "kubectl.kubernetes.io/last-applied-configuration".into(),
        "{}".into(),
    );
    w.settle(&[]);
    let annotations = w.sets[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["kubernetes.io/change-cause"], "because");
    assert!(!annotations.contains_key("kubectl.kubernetes.io/last-applied-configuration"));
}

#[test]
fn a_crash_after_any_write_loses_nothing() {
    for crash_after in 0..12 {
        let mut w = World::rolling(3, json!(1), json!(1));
        w.settle(&[]);
        w.set_image("v2");
        let mut written = 0;
        // Each sync is cut off after its first write, as often as asked for.
        while written < crash_after {
            let mut plan = w.plan();
            if plan.steps.is_empty() {
                w.run_pods(&[]);
                if w.plan().steps.is_empty() {
                    break;
                }
                continue;
            }
            match plan.steps.remove(0) {
                Step::CreateReplicaSet(mut rs, _) => {
                    rs.metadata.creation_timestamp = Some(Time(w.now));
                    w.put(*rs);
                }
                Step::UpdateReplicaSet(rs, _) => w.put(*rs),
                Step::UpdateStatus(d) => w.deployment = *d,
                other => panic!("{other:?}"),
            }
            written += 1;
        }
        w.settle(&[]);
        assert_eq!(
            w.sizes(),
            sizes(&[(1, "v1", 0), (2, "v2", 3)]),
            "{crash_after}"
        );
    }
}
