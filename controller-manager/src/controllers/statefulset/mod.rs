//! statefulset-controller: pods that each have a name, a place in the order and volumes of
//! their own, and rolling updates of them through ControllerRevisions.

mod apply;
mod claims;
mod history;
mod identity;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::expectations::{self, Expectations};
use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Client, Error, Object as _, ObjectKey};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod as FullPod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::labels::Selector;

use self::claims::Claims;
use self::identity::own_reference;
use self::plan::Observed;
use crate::context::{Context, Run, enqueue_all, now, retry_conflicts};
use crate::events::Recorder;
use crate::kinds::Pod;
use crate::workload::adopt::{Claimant, Claimed, claim_all, still_there};
use crate::workload::index;
use crate::workload::written::Written;

struct Controller {
    client: Client,
    sets: Store<StatefulSet>,
    pods_by_owner: Index<Pod>,
    claims: Store<PersistentVolumeClaim>,
    revisions: Index<ControllerRevision>,
    api: Api<StatefulSet>,
    pods: Api<Pod>,
    full_pods: Api<FullPod>,
    claim_api: Api<PersistentVolumeClaim>,
    revision_api: Api<ControllerRevision>,
    events: Recorder,
    expectations: Expectations<ObjectKey>,
    written: Written,
    /// The gate `MaxUnavailableStatefulSet`.
    max_unavailable: bool,
    queue: Queue<ObjectKey>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("statefulset-controller")?;
    let sets = ctx.informer::<StatefulSet>();
    let pods = ctx.pods();
    let claims = ctx.informer::<PersistentVolumeClaim>();
    let revisions = ctx.informer::<ControllerRevision>();
    let gates = &ctx.options.generic.feature_gates;
    let controller = Arc::new(Controller {
        sets: sets.store().clone(),
        pods_by_owner: index::pods_by_owner(&pods),
        claims: claims.store().clone(),
        revisions: index::by_owner(&revisions),
        api: Api::all(&client),
        pods: Api::all(&client),
        full_pods: Api::all(&client),
        claim_api: Api::all(&client),
        revision_api: Api::all(&client),
        events: ctx.recorder("statefulset-controller"),
        expectations: Expectations::new(),
        written: Written::default(),
        max_unavailable: gates.enabled("MaxUnavailableStatefulSet"),
        queue: ctx.queue("statefulset"),
        client,
    });
    enqueue_all(&sets, &controller.queue);
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| c.pod_changed(change));
    let workers = ctx.options.statefulset.concurrent_statefulset_syncs.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        sets.wait_synced().await;
        pods.wait_synced().await;
        claims.wait_synced().await;
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

fn selector(set: &StatefulSet) -> Option<Selector> {
    Selector::from_label_selector(Some(&set.spec.as_ref()?.selector)).ok()
}

impl Controller {
    fn resolve(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<StatefulSet>> {
        let set = self.sets.get(namespace, &owner.name)?;
        (owner.kind == "StatefulSet" && set.uid() == owner.uid).then_some(set)
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let owner = |pod: &Pod| self.resolve(pod.namespace(), pod.controller()?);
        let replaced = match change {
            // The name may have passed to another while the cache did not look.
            Change::Updated { old, new } => old.uid() != new.uid(),
            Change::Added(_) | Change::Deleted(_) => true,
        };
        if let Some((old, set)) = change.previous().and_then(|p| Some((p, owner(p)?))) {
            if replaced {
                self.expectations.deletion_observed(&set.key(), old.uid());
            }
            self.queue.add(set.key());
        }
        if let Some((new, set)) = change.current().and_then(|p| Some((p, owner(p)?))) {
            if replaced {
                self.expectations.creation_observed(&set.key());
            }
            if new.is_deleting() {
                self.expectations.deletion_observed(&set.key(), new.uid());
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
            for set in self.sets.list_namespace(orphan.namespace()) {
                let labels = Some(&orphan.metadata.labels);
                if selector(&set).is_some_and(|s| !s.is_empty() && s.matches_labels(labels)) {
                    self.queue.add(set.key());
                }
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(set) = self.sets.get_key(key) else {
            self.expectations.forget(key);
            self.written.forget(key);
            return Ok(Requeue::No);
        };
        let Some(selector) = selector(&set) else {
            tracing::error!(%key, "the selector is invalid");
            return Ok(Requeue::No);
        };
        if self.written.is_ahead_of(&*set) {
            return Ok(Requeue::No);
        }
        // What the cache does not show yet must not be done again: a pod that has just been
        // replaced has the name of the one before. Its event brings us back.
        if !self.expectations.satisfied(key, set.uid()) {
            return Ok(Requeue::After(expectations::TIMEOUT));
        }
        let pods = self.claim(&set, &selector).await?;
        let history = self.history(&set, &selector).await?;
        let claims = self.claims_of(&set, &pods);
        let observed = Observed {
            set: &set,
            pods: &pods,
            claims: &claims,
            current: history.current.name(),
            update: history.update.name(),
            collisions: history.collisions,
            max_unavailable: self.max_unavailable,
            now: now(),
        };
        let plan = plan::plan(&observed);
        let (replaced, result) = self.carry_out(&set, &history, &claims, &plan).await;
        let mut status = plan.status;
        if replaced > 0 {
            let left = status.current_replicas.unwrap_or(0) - replaced;
            status.current_replicas = Some(left).filter(|n| *n != 0);
            plan::complete(&set, &mut status);
        }
        let again_after = plan::again_after(&observed, &status);
        if plan::differs(set.status.as_ref(), &status) {
            let changed = StatefulSet {
                status: Some(status),
                ..StatefulSet::clone(&set)
            };
            let written = self.api.replace_status(&changed).await;
            // The failure to act is the one to tell.
            if result.is_ok() {
                self.written.note(&written?);
            }
        }
        result?;
        self.clean_up(&set, &pods, &history).await?;
        Ok(again_after.map_or(Requeue::No, Requeue::After))
    }

    async fn recheck(&self, set: &StatefulSet) -> Result<(), Error> {
        let live = self.api.within(set.namespace()).get(set.name()).await?;
        let deleting = live.metadata.deletion_timestamp.is_some();
        still_there(&live, set.uid(), deleting, "StatefulSet")
    }

    /// The set's pods: those that have its labels and a name that it gives.
    async fn claim(&self, set: &StatefulSet, selector: &Selector) -> Result<Vec<Arc<Pod>>, Error> {
        let mut pods = self.pods_by_owner.get(set.uid());
        pods.extend(self.pods_by_owner.get(&index::orphans(set.namespace())));
        let own = own_reference(set);
        let claimant = Claimant {
            reference: &own,
            deleting: set.metadata.deletion_timestamp.is_some(),
            finalizer: None,
        };
        claim_all(
            &self.pods,
            &claimant,
            pods,
            |pod| Claimed {
                controller: pod.controller(),
                deleting: pod.is_deleting(),
                matches: selector.matches_labels(Some(&pod.metadata.labels))
                    && identity::ordinal(set.name(), pod.name()).is_some(),
            },
            || self.recheck(set),
        )
        .await
    }

    /// The claims of all ordinals that the set wants, or has.
    fn claims_of(&self, set: &StatefulSet, pods: &[Arc<Pod>]) -> Claims {
        let (start, count) = identity::ordinals(set);
        let wanted = (start..).take(count);
        let there = pods
            .iter()
            .filter_map(|p| identity::ordinal(set.name(), p.name()));
        let names = wanted
            .chain(there)
            .flat_map(|ordinal| claims::names(set, ordinal).map(|(_, name)| name));
        names
            .filter_map(|name| {
                let claim = self.claims.get(set.namespace(), &name)?;
                Some((name, claim))
            })
            .collect()
    }
}
