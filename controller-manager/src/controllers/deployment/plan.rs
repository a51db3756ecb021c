//! What a Deployment needs next: pure, from the Deployment, its ReplicaSets and the time.
//!
//! The plan works on copies as if every write had succeeded, so that each object is written
//! once in a sync, however many of its fields change. `rolling`, `scale` and `status` hold the
//! rules of their subjects.

use std::cmp::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use meta::GroupVersionKind;

use super::conditions::{self, PROGRESSING, reason};
use super::{revisions, rolling, scale, status};
use crate::workload::template;

/// What is known of a Deployment.
#[derive(Debug)]
pub struct Observed {
    pub deployment: Deployment,
    /// Those that it owns.
    pub replica_sets: Vec<ReplicaSet>,
    /// Pods that have not ended, by the UID of their ReplicaSet; looked at for `Recreate` only.
    pub running_pods: Vec<(String, usize)>,
}

/// An event about the Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// One write. Events are told when it has succeeded.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    CreateReplicaSet(Box<ReplicaSet>, Vec<Event>),
    UpdateReplicaSet(Box<ReplicaSet>, Vec<Event>),
    DeleteReplicaSet {
        name: String,
    },
    /// The Deployment itself, when it is rolled back.
    UpdateDeployment(Box<Deployment>, Vec<Event>),
    UpdateStatus(Box<Deployment>),
}

/// Writes, in order; if one fails the rest is left for the next sync.
#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Events that no write goes with.
    pub events: Vec<Event>,
    /// Look again after so long.
    pub again_after: Option<Duration>,
}

/// A ReplicaSet in the making.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub rs: ReplicaSet,
    change: Change,
    events: Vec<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Create,
    Update,
}

impl Set {
    fn new(rs: ReplicaSet) -> Self {
        Self {
            rs,
            change: Change::None,
            events: Vec::new(),
        }
    }

    pub fn replicas(&self) -> i32 {
        replicas(&self.rs)
    }

    pub fn status(&self) -> ReplicaSetStatus {
        self.rs.status.clone().unwrap_or_default()
    }

    pub fn available(&self) -> i32 {
        self.rs
            .status
            .as_ref()
            .and_then(|s| s.available_replicas)
            .unwrap_or(0)
    }

    /// Order of age, then of name.
    pub fn by_age(&self, other: &Self) -> Ordering {
        by_age(&self.rs, &other.rs)
    }
}

fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> Ordering {
    let time = |rs: &ReplicaSet| rs.metadata.creation_timestamp.clone().map(|t| t.0);
    (time(a), &a.metadata.name).cmp(&(time(b), &b.metadata.name))
}

fn replicas(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0)
}

/// The state of a plan in the making.
pub(super) struct Work {
    pub deployment: Deployment,
    /// The Deployment's status as it will be.
    pub status: DeploymentStatus,
    pub new: Option<Set>,
    /// All others, oldest first.
    pub old: Vec<Set>,
    pub now: Timestamp,
    deleted: Vec<String>,
    again_after: Option<Duration>,
}

/// Makes the plan.
pub fn plan(observed: Observed, now: Timestamp) -> Plan {
    let mut original = observed.deployment.clone();
    let mut work = Work::new(observed.deployment, observed.replica_sets, now);

    if selects_everything(&work.deployment) {
        return selecting_all(original);
    }
    if work.deployment.metadata.deletion_timestamp.is_some() {
        work.sync_revision(false);
        work.status = status::calculate(&work);
        return work.finish(&mut original);
    }
    work.check_paused();
    let spec = work.deployment.spec.clone().unwrap_or_default();
    let paused = spec.paused == Some(true);
    if !paused && let Some(to) = revisions::rollback_to(&work.deployment) {
        return work.roll_back(to);
    }
    work.sync_revision(false);
    if paused || scale::is_scaling_event(&work) {
        scale::scale(&mut work);
        if paused && revisions::rollback_to(&work.deployment).is_none() {
            work.clean_up();
        }
        work.status = status::calculate(&work);
        return work.finish(&mut original);
    }
    if is_recreate(&work.deployment) {
        rolling::recreate(&mut work, &observed.running_pods);
    } else {
        rolling::rolling_update(&mut work);
    }
    status::roll_out(&mut work, original.status.as_ref());
    work.finish(&mut original)
}

fn selects_everything(d: &Deployment) -> bool {
    d.spec
        .as_ref()
        .is_none_or(|s| s.selector == LabelSelector::default())
}

fn selecting_all(mut d: Deployment) -> Plan {
    let mut plan = Plan {
        events: vec![Event {
            warning: true,
            reason: "SelectingAll",
            message: "This deployment is selecting all pods. A non-empty selector is required."
                .to_owned(),
        }],
        ..Plan::default()
    };
    let generation = d.metadata.generation;
    let status = d.status.get_or_insert_default();
    if status.observed_generation < generation {
        status.observed_generation = generation;
        plan.steps.push(Step::UpdateStatus(Box::new(d)));
    }
    plan
}

pub(super) fn is_recreate(d: &Deployment) -> bool {
    let strategy = d.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// The largest number means "never".
pub(super) fn progress_deadline(d: &Deployment) -> Option<i32> {
    let seconds = d.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then_some(seconds)
}

/// The ReplicaSet of the Deployment's template. If there are several the oldest is taken, so
/// that every manager takes the same.
pub fn find_new(d: &Deployment, sets: &[ReplicaSet]) -> Option<usize> {
    let wanted = &d.spec.as_ref()?.template;
    let mut order: Vec<usize> = (0..sets.len()).collect();
    order.sort_by(|a, b| by_age(&sets[*a], &sets[*b]));
    order.into_iter().find(|i| {
        let template = sets[*i].spec.as_ref().and_then(|s| s.template.as_ref());
        template.is_some_and(|t| template::equal_ignoring_hash(t, wanted))
    })
}

impl Work {
    fn new(deployment: Deployment, mut sets: Vec<ReplicaSet>, now: Timestamp) -> Self {
        let new = find_new(&deployment, &sets).map(|i| Set::new(sets.swap_remove(i)));
        let mut old: Vec<_> = sets.into_iter().map(Set::new).collect();
        old.sort_by(Set::by_age);
        Self {
            status: deployment.status.clone().unwrap_or_default(),
            deployment,
            new,
            old,
            now,
            deleted: Vec::new(),
            again_after: None,
        }
    }

    pub fn name(&self) -> &str {
        self.deployment.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn replicas(&self) -> i32 {
        self.deployment
            .spec
            .as_ref()
            .and_then(|s| s.replicas)
            .unwrap_or(1)
    }

    pub fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    /// What all ReplicaSets want together.
    pub fn total(&self) -> i32 {
        self.all().map(Set::replicas).sum()
    }

    pub fn available(&self) -> i32 {
        self.all().map(Set::available).sum()
    }

    pub fn condition(&mut self, status: &str, reason: &str, message: String) {
        let condition = conditions::new(PROGRESSING, status, reason, message, self.now);
        conditions::set(&mut self.status, condition);
    }

    pub fn look_again_after(&mut self, wait: Duration) {
        self.again_after = Some(wait);
    }

    /// A paused Deployment says so, and one that is not any more says that.
    fn check_paused(&mut self) {
        if progress_deadline(&self.deployment).is_none() {
            return;
        }
        let current = conditions::get(&self.status, PROGRESSING);
        if conditions::has_reason(current, reason::TIMED_OUT) {
            return;
        }
        let says_paused = conditions::has_reason(current, reason::PAUSED);
        let paused = self.deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
        if paused && !says_paused {
            self.condition("Unknown", reason::PAUSED, "Deployment is paused".to_owned());
        } else if !paused && says_paused {
            self.condition(
                "Unknown",
                reason::RESUMED,
                "Deployment is resumed".to_owned(),
            );
        }
    }

    /// Sees that the new ReplicaSet carries the highest revision and the Deployment's
    /// annotations; makes it if it is not there and `create` is set.
    pub fn sync_revision(&mut self, create: bool) {
        let next = revisions::max(self.old.iter().map(|s| &s.rs)).wrapping_add(1);
        let min_ready = self
            .deployment
            .spec
            .as_ref()
            .and_then(|s| s.min_ready_seconds);
        let has_deadline = progress_deadline(&self.deployment).is_some();
        if let Some(set) = &mut self.new {
            let annotated = revisions::annotate_new(&self.deployment, &mut set.rs, next);
            let spec = set.rs.spec.get_or_insert_default();
            let min_ready_differs = spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0);
            spec.min_ready_seconds = min_ready;
            if (annotated || min_ready_differs) && set.change == Change::None {
                set.change = Change::Update;
            }
            let annotations = set.rs.metadata.annotations.as_ref();
            let revision = annotations
                .and_then(|a| a.get(revisions::REVISION))
                .cloned();
            let name = set.rs.metadata.name.clone().unwrap_or_default();
            self.set_revision(revision.unwrap_or_default());
            if has_deadline && conditions::get(&self.status, PROGRESSING).is_none() {
                let message = format!("Found new replica set {name:?}");
                self.condition("True", reason::FOUND_NEW_REPLICA_SET, message);
            }
        } else if create {
            let mut set = Set::new(new_replica_set(&self.deployment));
            set.change = Change::Create;
            let size = rolling::new_set_size(self, 0);
            set.rs.spec.get_or_insert_default().replicas = Some(size);
            revisions::annotate_new(&self.deployment, &mut set.rs, next);
            let (desired, max) = (self.replicas(), scale::most(self));
            revisions::set_sizes(&mut set.rs, desired, max);
            let name = set.rs.metadata.name.clone().unwrap_or_default();
            if size > 0 {
                set.events.push(Event {
                    warning: false,
                    reason: "ScalingReplicaSet",
                    message: format!("Scaled up replica set {name} from 0 to {size}"),
                });
            }
            self.new = Some(set);
            self.set_revision(next.to_string());
            if has_deadline {
                let message = format!("Created new replica set {name:?}");
                self.condition("True", reason::NEW_REPLICA_SET_CREATED, message);
            }
        }
    }

    fn set_revision(&mut self, revision: String) {
        let annotations = self.deployment.metadata.annotations.get_or_insert_default();
        annotations.insert(revisions::REVISION.to_owned(), revision);
    }

    /// Plans to scale a ReplicaSet and to note the Deployment's size on it. Returns whether
    /// its size changes. Without `force` the notes alone are no reason to write.
    pub fn scale_set(&mut self, which: Which, to: i32, force: bool) -> bool {
        let desired = self.replicas();
        let max = scale::most(self);
        let Some(set) = self.set_mut(which) else {
            return false;
        };
        let from = set.replicas();
        if from == to && !force {
            return false;
        }
        let noted = revisions::set_sizes(&mut set.rs, desired, max);
        if from == to && !noted {
            return false;
        }
        set.rs.spec.get_or_insert_default().replicas = Some(to);
        if set.change == Change::None {
            set.change = Change::Update;
        }
        if from == to {
            return false;
        }
        let direction = if from < to { "up" } else { "down" };
        let name = set.rs.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
        set.events.push(Event {
            warning: false,
            reason: "ScalingReplicaSet",
            message,
        });
        true
    }

    fn set_mut(&mut self, which: Which) -> Option<&mut Set> {
        match which {
            Which::New => self.new.as_mut(),
            Which::Old(i) => self.old.get_mut(i),
        }
    }

    /// Plans to delete the oldest revisions beyond the limit that are empty.
    pub fn clean_up(&mut self) {
        let limit = self
            .deployment
            .spec
            .as_ref()
            .and_then(|s| s.revision_history_limit);
        let Some(limit) = limit.filter(|l| *l != i32::MAX) else {
            return;
        };
        let alive = |s: &&Set| s.rs.metadata.deletion_timestamp.is_none();
        let mut sets: Vec<&Set> = self.old.iter().filter(alive).collect();
        let excess = sets
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        sets.sort_by(|a, b| {
            // What has no revision that can be read counts as the oldest.
            let (x, y) = (revisions::revision_of(&a.rs), revisions::revision_of(&b.rs));
            x.cmp(&y).then_with(|| a.by_age(b))
        });
        let empty = sets.into_iter().take(excess).filter(|s| {
            let status = s.status();
            let observed = status.observed_generation.unwrap_or(0);
            status.replicas == 0
                && s.replicas() == 0
                && s.rs.metadata.generation.unwrap_or(0) <= observed
        });
        self.deleted = empty.filter_map(|s| s.rs.metadata.name.clone()).collect();
    }

    /// Puts the template of an earlier revision into the Deployment's spec.
    fn roll_back(mut self, to: i64) -> Plan {
        self.sync_revision(true);
        let to = match to {
            0 => revisions::last(self.all().map(|s| &s.rs)),
            to => to,
        };
        let mut deployment = self.deployment.clone();
        if let Some(annotations) = &mut deployment.metadata.annotations {
            annotations.remove(revisions::ROLLBACK_TO);
        }
        let found = self
            .all()
            .find(|s| revisions::revision_of(&s.rs) == Some(to));
        let (warning, reason, message) = match found {
            _ if to == 0 => (
                true,
                "DeploymentRollbackRevisionNotFound",
                "Unable to find last revision.".to_owned(),
            ),
            None => (
                true,
                "DeploymentRollbackRevisionNotFound",
                "Unable to find the revision to rollback to.".to_owned(),
            ),
            Some(set) => {
                let template = set.rs.spec.as_ref().and_then(|s| s.template.clone());
                let mut template = template.unwrap_or_default();
                let spec = deployment.spec.get_or_insert_default();
                if template::equal_ignoring_hash(&spec.template, &template) {
                    let message = format!(
                        "The rollback revision contains the same template as current deployment {:?}",
                        self.name()
                    );
                    (true, "DeploymentRollbackTemplateUnchanged", message)
                } else {
                    let metadata = template.metadata.get_or_insert_default();
                    if let Some(labels) = &mut metadata.labels {
                        labels.remove(template::POD_TEMPLATE_HASH);
                    }
                    spec.template = template;
                    revisions::restore(&mut deployment, &set.rs);
                    let message =
                        format!("Rolled back deployment {:?} to revision {to}", self.name());
                    (false, "DeploymentRollback", message)
                }
            }
        };
        let event = Event {
            warning,
            reason,
            message,
        };
        let mut plan = Plan::default();
        plan.steps.extend(self.set_steps());
        plan.steps
            .push(Step::UpdateDeployment(Box::new(deployment), vec![event]));
        plan
    }

    fn set_steps(&mut self) -> Vec<Step> {
        let sets = self.new.iter_mut().chain(&mut self.old);
        let steps = sets.filter_map(|set| {
            let events = std::mem::take(&mut set.events);
            let rs = Box::new(set.rs.clone());
            match set.change {
                Change::None => None,
                Change::Create => Some(Step::CreateReplicaSet(rs, events)),
                Change::Update => Some(Step::UpdateReplicaSet(rs, events)),
            }
        });
        steps.collect()
    }

    fn finish(mut self, original: &mut Deployment) -> Plan {
        let mut steps = self.set_steps();
        let deletions = self
            .deleted
            .drain(..)
            .map(|name| Step::DeleteReplicaSet { name });
        steps.extend(deletions);
        let changed = original.status.as_ref() != Some(&self.status)
            || original
                .metadata
                .annotations
                .as_ref()
                .and_then(|a| a.get(revisions::REVISION))
                != self
                    .deployment
                    .metadata
                    .annotations
                    .as_ref()
                    .and_then(|a| a.get(revisions::REVISION));
        if changed {
            let mut deployment = self.deployment;
            deployment.status = Some(self.status);
            steps.push(Step::UpdateStatus(Box::new(deployment)));
        }
        Plan {
            steps,
            events: Vec::new(),
            again_after: self.again_after,
        }
    }
}

/// One of the work's ReplicaSets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    New,
    Old(usize),
}

/// The ReplicaSet for the Deployment's template, without size and annotations.
fn new_replica_set(d: &Deployment) -> ReplicaSet {
    let spec = d.spec.clone().unwrap_or_default();
    let collisions = d.status.as_ref().and_then(|s| s.collision_count);
    let hash = template::hash(&spec.template, collisions);
    let mut template = spec.template;
    let metadata = template.metadata.get_or_insert_default();
    let labels = template::with_hash_label(metadata.labels.as_ref(), &hash);
    metadata.labels = Some(labels.clone());
    let mut selector = spec.selector;
    selector.match_labels = Some(template::with_hash_label(
        selector.match_labels.as_ref(),
        &hash,
    ));
    let kind = GroupVersionKind::new("apps", "v1", "Deployment");
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(replica_set_name(
                d.metadata.name.as_deref().unwrap_or_default(),
                &hash,
            )),
            namespace: d.metadata.namespace.clone(),
            owner_references: Some(vec![meta::owner::new_controller_ref(&d.metadata, &kind)]),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

fn replica_set_name(deployment: &str, hash: &str) -> String {
    const MAX: usize = 253;
    let mut end = deployment.len().min(MAX.saturating_sub(hash.len() + 1));
    while !deployment.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &deployment[..end])
}

/// The step after another object was found under the new ReplicaSet's name: count the
/// collision, so that the next hash differs.
pub fn collided(mut deployment: Deployment) -> Step {
    let status = deployment.status.get_or_insert_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    Step::UpdateStatus(Box::new(deployment))
}

/// The step after the new ReplicaSet could not be created, and the event that tells of it.
pub fn create_failed(
    mut deployment: Deployment,
    name: &str,
    error: &str,
    now: Timestamp,
) -> (Option<Step>, Event) {
    let message = format!("Failed to create new replica set {name:?}: {error}");
    let event = Event {
        warning: true,
        reason: reason::REPLICA_SET_CREATE_ERROR,
        message: message.clone(),
    };
    if progress_deadline(&deployment).is_none() {
        return (None, event);
    }
    let reason = reason::REPLICA_SET_CREATE_ERROR;
    let condition = conditions::new(PROGRESSING, "False", reason, message, now);
    conditions::set(deployment.status.get_or_insert_default(), condition);
    (Some(Step::UpdateStatus(Box::new(deployment))), event)
}
