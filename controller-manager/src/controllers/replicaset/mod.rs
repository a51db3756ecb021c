//! replicaset-controller: keeps the number of pods that each ReplicaSet asks for.

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use client::expectations::Expectations;
use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::GroupVersionKind;
use meta::labels::Selector;
use meta::owner::{controller_of, new_controller_ref};

use self::plan::{Failure, Manage};
use crate::context::{Context, Run, enqueue_all, now, retry_conflicts};
use crate::events::reference;
use crate::kinds::Pod;
use crate::workload::adopt::{Claimant, Claimed, claim_all, still_there};
use crate::workload::pod_control::{Parent, PodControl};
use crate::workload::written::Written;
use crate::workload::{index, pods};

struct Controller {
    sets: Store<ReplicaSet>,
    sets_by_owner: Index<ReplicaSet>,
    pods_by_owner: Index<Pod>,
    set_api: Api<ReplicaSet>,
    pods: PodControl,
    expectations: Expectations<ObjectKey>,
    written: Written,
    queue: Queue<ObjectKey>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("replicaset-controller")?;
    let sets = ctx.informer::<ReplicaSet>();
    let pods = ctx.pods();
    let controller = Arc::new(Controller {
        sets: sets.store().clone(),
        sets_by_owner: index::by_owner(&sets),
        pods_by_owner: index::pods_by_owner(&pods),
        set_api: Api::all(&client),
        pods: PodControl::new(&client, ctx.recorder("replicaset-controller")),
        expectations: Expectations::new(),
        written: Written::default(),
        queue: ctx.queue("replicaset"),
    });
    let c = Arc::clone(&controller);
    sets.add_handler(move |change| {
        let replaced = |a: &Arc<ReplicaSet>, b: &Arc<ReplicaSet>| a.uid() != b.uid();
        match change {
            Change::Deleted(_) => c.expectations.forget(&change.key()),
            Change::Updated { old, new } if replaced(old, new) => {
                c.expectations.forget(&change.key())
            }
            _ => {}
        }
    });
    enqueue_all(&sets, &controller.queue);
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| c.pod_changed(change));
    let workers = ctx.options.replicaset.concurrent_replicaset_syncs;
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        sets.wait_synced().await;
        pods.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            })
            .await;
    })))
}

impl Controller {
    /// The ReplicaSet that a reference means, if it is that very one.
    fn resolve(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<ReplicaSet>> {
        let set = self.sets.get(namespace, &owner.name)?;
        (owner.kind == "ReplicaSet" && set.uid() == owner.uid).then_some(set)
    }

    fn owner(&self, pod: &Pod) -> Option<Arc<ReplicaSet>> {
        self.resolve(pod.namespace(), pod.controller()?)
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        match change {
            Change::Added(pod) if pod.is_deleting() => self.pod_going(pod),
            Change::Added(pod) => match pod.controller() {
                Some(_) => {
                    if let Some(set) = self.owner(pod) {
                        self.expectations.creation_observed(&set.key());
                        self.queue.add(set.key());
                    }
                }
                None => self.enqueue_adopters(pod),
            },
            Change::Updated { old, new } => {
                if new.is_deleting() {
                    self.pod_going(new);
                    if old.metadata.labels != new.metadata.labels {
                        self.pod_going(old);
                    }
                    return;
                }
                if old.controller() != new.controller()
                    && let Some(set) = self.owner(old)
                {
                    self.queue.add(set.key());
                }
                match new.controller() {
                    Some(_) => {
                        if let Some(set) = self.owner(new) {
                            self.queue.add(set.key());
                        }
                    }
                    None if old.metadata.labels != new.metadata.labels
                        || old.controller().is_some() =>
                    {
                        self.enqueue_adopters(new);
                    }
                    None => {}
                }
            }
            Change::Deleted(pod) => self.pod_going(pod),
        }
    }

    fn pod_going(&self, pod: &Pod) {
        if let Some(set) = self.owner(pod) {
            self.expectations.deletion_observed(&set.key(), pod.uid());
            self.queue.add(set.key());
        }
    }

    fn enqueue_adopters(&self, pod: &Pod) {
        let matches = |set: &&Arc<ReplicaSet>| {
            let selector = selector(set);
            selector.is_some_and(|s| !s.is_empty() && s.matches_labels(Some(&pod.metadata.labels)))
        };
        let sets = self.sets.list_namespace(pod.namespace());
        sets.iter()
            .filter(matches)
            .for_each(|set| self.queue.add(set.key()));
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(set) = self.sets.get_key(key) else {
            self.expectations.forget(key);
            self.written.forget(key);
            return Ok(Requeue::No);
        };
        if self.written.is_ahead_of(&*set) {
            return Ok(Requeue::No);
        }
        let may_act = self.expectations.satisfied(key);
        let Some(selector) = selector(&set) else {
            tracing::error!(%key, "the pod selector is invalid");
            return Ok(Requeue::No);
        };
        let mut all = self.pods_by_owner.get(set.uid());
        all.extend(self.pods_by_owner.get(&index::orphans(set.namespace())));
        let (active, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| p.is_active());
        let active = self.claim(&set, &selector, active).await?;
        let terminating = others.iter().filter(|p| {
            let labels = Some(&p.metadata.labels);
            p.is_terminating() && p.is_controlled_by(set.uid()) && selector.matches_labels(labels)
        });
        let terminating = terminating.count();

        let mut failure = None;
        if may_act && set.metadata.deletion_timestamp.is_none() {
            failure = self.manage(key, &set, &active).await.err();
        }
        let now = now();
        let told = failure.as_ref().map(|e| Failure {
            message: e.to_string(),
        });
        let status = plan::status(&set, &active, terminating, told.as_ref(), now);
        self.update_status(&set, &status).await?;
        if let Some(error) = failure {
            return Err(error);
        }
        let min_ready = set
            .spec
            .as_ref()
            .and_then(|s| s.min_ready_seconds)
            .unwrap_or(0);
        if min_ready > 0 && status.ready_replicas != status.available_replicas {
            // Nothing but time makes a ready pod available.
            let next = active
                .iter()
                .filter_map(|p| p.available_in(min_ready, now))
                .min();
            let wait = next.and_then(|d| Duration::try_from(d).ok());
            let longest = Duration::from_secs(min_ready.unsigned_abs().into());
            return Ok(Requeue::After(wait.unwrap_or(longest)));
        }
        Ok(Requeue::No)
    }

    async fn claim(
        &self,
        set: &ReplicaSet,
        selector: &Selector,
        pods: Vec<Arc<Pod>>,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let own = own_reference(set);
        let claimant = Claimant {
            reference: &own,
            deleting: set.metadata.deletion_timestamp.is_some(),
        };
        claim_all(
            &self.pods.api,
            &claimant,
            pods,
            |pod| Claimed {
                controller: pod.controller(),
                deleting: pod.is_deleting(),
                matches: selector.matches_labels(Some(&pod.metadata.labels)),
            },
            || async {
                let live = self.set_api.within(set.namespace()).get(set.name()).await?;
                let deleting = live.metadata.deletion_timestamp.is_some();
                still_there(&live, set.uid(), deleting, "ReplicaSet")
            },
        )
        .await
    }

    async fn manage(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        active: &[Arc<Pod>],
    ) -> Result<(), Error> {
        let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let parent = Parent {
            key,
            reference: reference(set),
            expectations: &self.expectations,
        };
        match plan::manage(wanted, active, || self.related_pods(set), now()) {
            Manage::Nothing => Ok(()),
            Manage::Create(count) => self.create(&parent, set, count).await,
            Manage::Delete(pods) => {
                let uids = pods.iter().map(|p| p.uid().to_owned());
                self.expectations.expect_deletions(key, uids);
                self.pods.delete(&parent, &pods).await.map_err(Error::from)
            }
        }
    }

    /// The pods of all ReplicaSets of the same Deployment.
    fn related_pods(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let owner = controller_of(&set.metadata);
        let sets = owner
            .map(|o| self.sets_by_owner.get(&o.uid))
            .unwrap_or_default();
        sets.iter()
            .flat_map(|s| self.pods_by_owner.get(s.uid()))
            .collect()
    }

    async fn create(
        &self,
        parent: &Parent<'_>,
        set: &ReplicaSet,
        count: usize,
    ) -> Result<(), Error> {
        self.expectations.expect_creations(parent.key, count);
        let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
        let pod = pods::from_template(set.namespace(), set.name(), template, own_reference(set));
        let (_, failure) = self.pods.create(parent, &vec![pod; count]).await;
        failure.map_or(Ok(()), Err)
    }

    async fn update_status(
        &self,
        set: &ReplicaSet,
        status: &ReplicaSetStatus,
    ) -> Result<(), Error> {
        if set.status.as_ref() == Some(status) {
            return Ok(());
        }
        let with_status = |set: &ReplicaSet| ReplicaSet {
            status: Some(status.clone()),
            ..set.clone()
        };
        match self.set_api.replace_status(&with_status(set)).await {
            Err(e) if e.is_conflict() => {}
            other => return other.map(|new| self.written.note(&new)),
        }
        // The Deployment has written in between, most likely: the counts are still right.
        let live = self.set_api.within(set.namespace()).get(set.name()).await?;
        if live.uid() != set.uid() {
            return Ok(());
        }
        self.set_api
            .replace_status(&with_status(&live))
            .await
            .map(|new| self.written.note(&new))
    }
}

fn own_reference(set: &ReplicaSet) -> OwnerReference {
    new_controller_ref(
        &set.metadata,
        &GroupVersionKind::new("apps", "v1", "ReplicaSet"),
    )
}

fn selector(set: &ReplicaSet) -> Option<Selector> {
    let spec = set.spec.as_ref()?;
    Selector::from_label_selector(Some(&spec.selector)).ok()
}
