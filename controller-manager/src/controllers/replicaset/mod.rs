//! replicaset-controller: keeps the number of pods that each ReplicaSet asks for. It does the
//! same for ReplicationControllers, as replicationcontroller-controller.

pub mod plan;
mod replicator;

use std::sync::Arc;
use std::time::Duration;

use client::expectations::Expectations;
use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::labels::Selector;
use meta::owner::{controller_of, new_controller_ref};

use self::plan::{Failure, Manage};
use self::replicator::Replicator;
use crate::context::{Context, Run, enqueue_all, now, retry_conflicts};
use crate::events::reference;
use crate::kinds::Pod;
use crate::workload::adopt::{Claimant, Claimed, claim_all, still_there};
use crate::workload::pod_control::{Parent, PodControl};
use crate::workload::written::Written;
use crate::workload::{index, pods};

struct Controller<S: Replicator> {
    sets: Store<S>,
    sets_by_owner: Index<S>,
    pods_by_owner: Index<Pod>,
    set_api: Api<S>,
    pods: PodControl,
    expectations: Expectations<ObjectKey>,
    written: Written,
    queue: Queue<ObjectKey>,
}

/// What the controller of one kind is known by.
struct Names {
    client: &'static str,
    events: &'static str,
    queue: &'static str,
}

/// Sets the controller of ReplicaSets up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let names = Names {
        client: "replicaset-controller",
        events: "replicaset-controller",
        queue: "replicaset",
    };
    let workers = ctx.options.replicaset.concurrent_replicaset_syncs.get();
    start_for::<ReplicaSet>(ctx, &names, workers)
}

/// Sets the controller of ReplicationControllers up.
pub fn start_replication_controllers(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let names = Names {
        client: "replication-controller",
        events: "replication-controller",
        queue: "replicationmanager",
    };
    let workers = ctx.options.replicaset.concurrent_rc_syncs.get();
    start_for::<ReplicationController>(ctx, &names, workers)
}

fn start_for<S: Replicator>(
    ctx: &Context,
    names: &Names,
    workers: usize,
) -> anyhow::Result<Option<Run>> {
    let client = ctx.client(names.client)?;
    let sets = ctx.informer::<S>();
    let pods = ctx.pods();
    let controller = Arc::new(Controller {
        sets: sets.store().clone(),
        sets_by_owner: index::by_owner(&sets),
        pods_by_owner: index::pods_by_owner(&pods),
        set_api: Api::all(&client),
        pods: PodControl::new(&client, ctx.recorder(names.events)),
        expectations: Expectations::new(),
        written: Written::default(),
        queue: ctx.queue(names.queue),
    });
    enqueue_all(&sets, &controller.queue);
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| c.pod_changed(change));
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

impl<S: Replicator> Controller<S> {
    /// The set that a reference means, if it is that very one.
    fn resolve(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<S>> {
        let set = self.sets.get(namespace, &owner.name)?;
        (owner.kind == S::RESOURCE.kind && set.uid() == owner.uid).then_some(set)
    }

    fn owner(&self, pod: &Pod) -> Option<Arc<S>> {
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
        let matches = |set: &&Arc<S>| {
            let selector = set.selector();
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
        let may_act = self.expectations.satisfied(key, set.uid());
        let Some(selector) = set.selector() else {
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
        if may_act && set.metadata().deletion_timestamp.is_none() {
            failure = self.manage(key, &set, &active).await.err();
        }
        let now = now();
        let told = failure.as_ref().map(|e| Failure {
            message: e.to_string(),
        });
        let status = plan::status(&*set, &active, terminating, told.as_ref(), now);
        self.update_status(&set, &status).await?;
        if let Some(error) = failure {
            return Err(error);
        }
        let min_ready = set.min_ready_seconds();
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
        set: &S,
        selector: &Selector,
        pods: Vec<Arc<Pod>>,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let own = own_reference(set);
        let claimant = Claimant {
            reference: &own,
            deleting: set.metadata().deletion_timestamp.is_some(),
            finalizer: None,
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
                let deleting = live.metadata().deletion_timestamp.is_some();
                still_there(&live, set.uid(), deleting, &S::RESOURCE.kind)
            },
        )
        .await
    }

    async fn manage(&self, key: &ObjectKey, set: &S, active: &[Arc<Pod>]) -> Result<(), Error> {
        let wanted = set.replicas();
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
                self.expectations.expect_deletions(key, set.uid(), uids);
                self.pods.delete(&parent, &pods).await.map_err(Error::from)
            }
        }
    }

    /// The pods of all ReplicaSets of the same Deployment.
    fn related_pods(&self, set: &S) -> Vec<Arc<Pod>> {
        let owner = controller_of(set.metadata());
        let sets = owner
            .map(|o| self.sets_by_owner.get(&o.uid))
            .unwrap_or_default();
        sets.iter()
            .flat_map(|s| self.pods_by_owner.get(s.uid()))
            .collect()
    }

    async fn create(&self, parent: &Parent<'_>, set: &S, count: usize) -> Result<(), Error> {
        self.expectations
            .expect_creations(parent.key, set.uid(), count);
        let pod = pods::from_template(
            set.namespace(),
            set.name(),
            set.template(),
            own_reference(set),
        );
        let (_, failure) = self.pods.create(parent, &vec![pod; count]).await;
        failure.map_or(Ok(()), Err)
    }

    async fn update_status(&self, set: &S, status: &ReplicaSetStatus) -> Result<(), Error> {
        let wanted = set.with_status(status);
        if set.status() == wanted.status() {
            return Ok(());
        }
        match self.set_api.replace_status(&wanted).await {
            Err(e) if e.is_conflict() => {}
            other => return other.map(|new| self.written.note(&new)),
        }
        // The Deployment has written in between, most likely: the counts are still right.
        let live = self.set_api.within(set.namespace()).get(set.name()).await?;
        if live.uid() != set.uid() {
            return Ok(());
        }
        self.set_api
            .replace_status(&live.with_status(status))
            .await
            .map(|new| self.written.note(&new))
    }
}

fn own_reference<S: Replicator>(set: &S) -> OwnerReference {
    new_controller_ref(set.metadata(), &S::RESOURCE.gvk())
}
