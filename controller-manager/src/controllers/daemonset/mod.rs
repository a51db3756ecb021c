//! daemonset-controller: one pod on each node that should have one, and rolling updates of
//! them through ControllerRevisions.

mod history;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::expectations::Expectations;
use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Client, Error, Object as _, ObjectKey};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod as FullPod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::GroupVersionKind;
use meta::labels::Selector;
use meta::owner::{controller_of, new_controller_ref};
use parking_lot::Mutex;

use self::plan::{Changes, FailedPods, Observed};
use crate::context::{Context, Run, enqueue_all, now, retry_conflicts};
use crate::events::{Recorder, reference};
use crate::kinds::{Node, Pod};
use crate::workload::adopt::{Claimant, Claimed, claim_all, still_there};
use crate::workload::pod_control::{Parent, PodControl};
use crate::workload::revisions::HASH_LABEL;
use crate::workload::written::Written;
use crate::workload::{index, pods};

struct Controller {
    client: Client,
    sets: Store<DaemonSet>,
    nodes: Store<Node>,
    pods_by_owner: Index<Pod>,
    pods_by_node: Index<Pod>,
    revisions: Index<ControllerRevision>,
    api: Api<DaemonSet>,
    revision_api: Api<ControllerRevision>,
    pods: PodControl,
    events: Recorder,
    expectations: Expectations<ObjectKey>,
    written: Written,
    failed: Mutex<std::collections::HashMap<ObjectKey, FailedPods>>,
    queue: Queue<ObjectKey>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("daemon-set-controller")?;
    let sets = ctx.informer::<DaemonSet>();
    let nodes = ctx.informer::<Node>();
    let pods = ctx.pods();
    let revisions = ctx.informer::<ControllerRevision>();
    let events = ctx.recorder("daemonset-controller");
    let controller = Arc::new(Controller {
        sets: sets.store().clone(),
        nodes: nodes.store().clone(),
        pods_by_owner: index::pods_by_owner(&pods),
        pods_by_node: index::pods_by_node(&pods),
        revisions: index::by_owner(&revisions),
        api: Api::all(&client),
        revision_api: Api::all(&client),
        pods: PodControl::new(&client, events.clone()),
        events,
        expectations: Expectations::new(),
        written: Written::default(),
        failed: Mutex::default(),
        queue: ctx.queue("daemonset"),
        client,
    });
    enqueue_all(&sets, &controller.queue);
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| c.pod_changed(change));
    let c = Arc::clone(&controller);
    nodes.add_handler(move |change| c.node_changed(change));
    let c = Arc::clone(&controller);
    revisions.add_handler(move |change| c.revision_changed(change));
    let workers = ctx.options.daemonset.concurrent_daemonset_syncs.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        sets.wait_synced().await;
        nodes.wait_synced().await;
        pods.wait_synced().await;
        revisions.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            })
            .await;
    })))
}

fn own_reference(set: &DaemonSet) -> OwnerReference {
    new_controller_ref(
        &set.metadata,
        &GroupVersionKind::new("apps", "v1", "DaemonSet"),
    )
}

fn selector(set: &DaemonSet) -> Option<Selector> {
    Selector::from_label_selector(Some(&set.spec.as_ref()?.selector)).ok()
}

impl Controller {
    fn resolve(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<DaemonSet>> {
        let set = self.sets.get(namespace, &owner.name)?;
        (owner.kind == "DaemonSet" && set.uid() == owner.uid).then_some(set)
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let owner = |pod: &Pod| self.resolve(pod.namespace(), pod.controller()?);
        for pod in [change.previous(), change.current()].into_iter().flatten() {
            let Some(set) = owner(pod) else { continue };
            match change {
                Change::Added(p) if !p.is_deleting() => {
                    self.expectations.creation_observed(&set.key())
                }
                Change::Added(p) | Change::Deleted(p) => {
                    self.expectations.deletion_observed(&set.key(), p.uid())
                }
                Change::Updated { new, .. } if new.is_deleting() => {
                    self.expectations.deletion_observed(&set.key(), new.uid());
                }
                Change::Updated { .. } => {}
            }
            self.queue.add(set.key());
        }
        let orphan = change
            .current()
            .filter(|p| p.controller().is_none() && !p.is_deleting());
        let moved = change.previous().is_none_or(|old| {
            old.controller().is_some() || old.metadata.labels != change.object().metadata.labels
        });
        if let Some(orphan) = orphan.filter(|_| moved) {
            self.enqueue_adopters(orphan.namespace(), &orphan.metadata.labels);
        }
    }

    fn enqueue_adopters(&self, namespace: &str, labels: &BTreeMap<String, String>) {
        for set in self.sets.list_namespace(namespace) {
            let selects = |s: Selector| !s.is_empty() && s.matches_labels(Some(labels));
            if selector(&set).is_some_and(selects) {
                self.queue.add(set.key());
            }
        }
    }

    /// A new revision that has an owner was made by it, or by somebody who knows what they do.
    fn revision_changed(&self, change: &Change<ControllerRevision>) {
        let revision = change.object();
        let going = revision.metadata.deletion_timestamp.is_some();
        let owner = |r: &ControllerRevision| controller_of(&r.metadata).cloned();
        let seen = match change {
            Change::Added(_) if !going => [None, None],
            Change::Added(r) | Change::Deleted(r) => [owner(r), None],
            Change::Updated { old, new } => [owner(old), owner(new)],
        };
        for owner in seen.into_iter().flatten() {
            if let Some(set) = self.resolve(revision.namespace(), &owner) {
                self.queue.add(set.key());
            }
        }
        let orphan = change.current().filter(|r| owner(r).is_none() && !going);
        let moved = change.previous().is_none_or(|old| {
            owner(old).is_some() || old.metadata.labels != revision.metadata.labels
        });
        if let Some(orphan) = orphan.filter(|_| moved) {
            let labels = orphan.metadata.labels.clone().unwrap_or_default();
            self.enqueue_adopters(orphan.namespace(), &labels);
        }
    }

    /// Only the DaemonSets that the node's labels or taints matter to. The pods of a node that is
    /// gone are the pod garbage collector's; a DaemonSet looks again when they go.
    fn node_changed(&self, change: &Change<Node>) {
        let Some(node) = change.current() else { return };
        if change.previous().is_some_and(|old| {
            old.metadata.labels == node.metadata.labels && old.spec.taints == node.spec.taints
        }) {
            return;
        }
        let on_node = self.pods_by_node.get(node.name());
        for set in self.sets.list() {
            let Some(spec) = &set.spec else { continue };
            let mut pod_spec = spec.template.spec.clone().unwrap_or_default();
            plan::add_tolerations(&mut pod_spec);
            let (should_run, may_stay) = plan::fits(&pod_spec, node);
            let scheduled = on_node.iter().any(|p| p.is_controlled_by(set.uid()));
            let misscheduled = set
                .status
                .as_ref()
                .is_some_and(|s| s.number_misscheduled > 0);
            if (should_run && !scheduled) || (scheduled && (!may_stay || misscheduled)) {
                self.queue.add(set.key());
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(set) = self.sets.get_key(key) else {
            self.expectations.forget(key);
            self.written.forget(key);
            self.failed.lock().remove(key);
            return Ok(Requeue::No);
        };
        let (Some(spec), Some(selector)) = (set.spec.clone(), selector(&set)) else {
            return Ok(Requeue::No);
        };
        if selector.is_empty() {
            let message =
                "This daemon set is selecting all pods. A non-empty selector is required.";
            self.events
                .event(&reference(&*set), true, "SelectingAll", message);
            return Ok(Requeue::No);
        }
        if set.metadata.deletion_timestamp.is_some() || self.written.is_ahead_of(&*set) {
            return Ok(Requeue::No);
        }
        let history = self.history(&set, &spec, &selector).await?;
        let pods = self.claim(&set, &selector).await?;
        let nodes = self.nodes.list();
        let mut again_after = None;
        let may_act = self.expectations.satisfied(key, set.uid());
        let result = if may_act {
            let observed = Observed::new(&set, &spec, &nodes, pods.clone(), &history.hash, now());
            let mut managed = {
                let mut failed = self.failed.lock();
                plan::manage(&observed, failed.entry(key.clone()).or_default())
            };
            for (warning, reason, message) in managed.events.drain(..) {
                self.events
                    .event(&reference(&*set), warning, reason, message);
            }
            again_after = managed.again_after;
            let rolling = managed.is_empty() && plan::rolls(&spec);
            let changes = if rolling {
                plan::roll(&observed)
            } else {
                managed
            };
            match self
                .carry_out(key, &set, &spec, &history.hash, changes)
                .await
            {
                Ok(()) => self.clean_up(&spec, &pods, history.old).await,
                failed => failed,
            }
        } else {
            Ok(())
        };
        let observed = Observed::new(&set, &spec, &nodes, pods, &history.hash, now());
        let status = plan::status(&observed, may_act);
        if set.status.as_ref() != Some(&status) {
            let changed = DaemonSet {
                status: Some(status.clone()),
                ..DaemonSet::clone(&set)
            };
            let written = self.api.replace_status(&changed).await;
            // The failure to act is the one to tell.
            if result.is_ok() {
                self.written.note(&written?);
            }
        }
        result?;
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        if min_ready > 0 && status.number_ready != status.number_available.unwrap_or(0) {
            let ready = Duration::from_secs(min_ready.unsigned_abs().into());
            again_after = Some(again_after.map_or(ready, |failed| failed.min(ready)));
        }
        Ok(again_after.map_or(Requeue::No, Requeue::After))
    }

    async fn recheck(&self, set: &DaemonSet) -> Result<(), Error> {
        let live = self.api.within(set.namespace()).get(set.name()).await?;
        still_there(
            &live,
            set.uid(),
            live.metadata.deletion_timestamp.is_some(),
            "DaemonSet",
        )
    }

    async fn claim(&self, set: &DaemonSet, selector: &Selector) -> Result<Vec<Arc<Pod>>, Error> {
        let mut pods = self.pods_by_owner.get(set.uid());
        pods.extend(self.pods_by_owner.get(&index::orphans(set.namespace())));
        let own = own_reference(set);
        let claimant = Claimant {
            reference: &own,
            deleting: set.metadata.deletion_timestamp.is_some(),
            finalizer: None,
        };
        let describe = |pod: &Pod| selector.matches_labels(Some(&pod.metadata.labels));
        claim_all(
            &self.pods.api,
            &claimant,
            pods,
            |pod| Claimed {
                controller: pod.controller(),
                deleting: pod.is_deleting(),
                matches: describe(pod),
            },
            || self.recheck(set),
        )
        .await
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        hash: &str,
        changes: Changes,
    ) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.expectations
            .expect_creations(key, set.uid(), changes.create.len());
        self.expectations.expect_deletions(
            key,
            set.uid(),
            changes.delete.iter().map(|p| p.uid().to_owned()),
        );
        let parent = Parent {
            key,
            reference: reference(set),
            expectations: &self.expectations,
        };
        let new: Vec<FullPod> = changes
            .create
            .iter()
            .map(|node| daemon_pod(set, spec, hash, node))
            .collect();
        let (_, failure) = self.pods.create(&parent, &new).await;
        let deleted = self.pods.delete(&parent, &changes.delete).await;
        failure.map_or(Ok(()), Err)?;
        deleted.map_err(Error::from)
    }
}

/// The pod for one node: the scheduler may put it there only.
fn daemon_pod(set: &DaemonSet, spec: &DaemonSetSpec, hash: &str, node: &str) -> FullPod {
    let mut pod = pods::from_template(
        set.namespace(),
        set.name(),
        Some(&spec.template),
        own_reference(set),
    );
    let labels = pod.metadata.labels.get_or_insert_default();
    if let Some(generation) = plan::template_generation(set) {
        labels.insert(plan::GENERATION_LABEL.to_owned(), generation.to_owned());
    }
    if !hash.is_empty() {
        labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    }
    let pod_spec = pod.spec.get_or_insert_default();
    plan::add_tolerations(pod_spec);
    let only_here = NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
            match_expressions: None,
        }],
    };
    let affinity: &mut Affinity = pod_spec.affinity.get_or_insert_default();
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    node_affinity.required_during_scheduling_ignored_during_execution = Some(only_here);
    pod
}
