//! deployment-controller: rolls Deployments out through ReplicaSets.
//!
//! A sync claims the ReplicaSets of a Deployment, makes a [`plan`](plan::plan) and carries it
//! out write by write. Whatever a crash leaves undone, the next sync sees and plans again.

mod conditions;
pub mod plan;
mod revisions;
mod rolling;
mod scale;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, optional};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::GroupVersionKind;
use meta::labels::Selector;
use meta::owner::{controller_of, new_controller_ref};

use self::plan::{Event, Observed, Step};
use crate::context::{Context, Run, enqueue_all, now, retry_conflicts};
use crate::events::{Recorder, reference};
use crate::kinds::Pod;
use crate::workload::adopt::{Claimant, Claimed, claim_all, still_there};
use crate::workload::written::Written;
use crate::workload::{index, template};

struct Controller {
    deployments: Store<Deployment>,
    sets: Store<ReplicaSet>,
    sets_by_owner: Index<ReplicaSet>,
    pods_by_owner: Index<Pod>,
    deployment_api: Api<Deployment>,
    set_api: Api<ReplicaSet>,
    events: Recorder,
    written_deployments: Written,
    written_sets: Written,
    queue: Queue<ObjectKey>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("deployment-controller")?;
    let deployments = ctx.informer::<Deployment>();
    let sets = ctx.informer::<ReplicaSet>();
    let pods = ctx.pods();
    let controller = Arc::new(Controller {
        deployments: deployments.store().clone(),
        sets: sets.store().clone(),
        sets_by_owner: index::by_owner(&sets),
        pods_by_owner: index::pods_by_owner(&pods),
        deployment_api: Api::all(&client),
        set_api: Api::all(&client),
        events: ctx.recorder("deployment-controller"),
        written_deployments: Written::default(),
        written_sets: Written::default(),
        queue: ctx.queue("deployment"),
    });
    enqueue_all(&deployments, &controller.queue);
    let c = Arc::clone(&controller);
    sets.add_handler(move |change| c.set_changed(change));
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| {
        if let Change::Deleted(pod) = change {
            c.pod_deleted(pod);
        }
    });
    let workers = ctx.options.deployment.concurrent_deployment_syncs.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        deployments.wait_synced().await;
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
    /// The Deployment that a reference means, if it is that very one.
    fn resolve(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<Deployment>> {
        let deployment = self.deployments.get(namespace, &owner.name)?;
        (owner.kind == "Deployment" && deployment.uid() == owner.uid).then_some(deployment)
    }

    fn set_changed(&self, change: &Change<ReplicaSet>) {
        if let Change::Deleted(set) = change {
            self.written_sets.forget(&set.key());
        }
        for set in [change.previous(), change.current()].into_iter().flatten() {
            if let Some(owner) = controller_of(&set.metadata)
                && let Some(deployment) = self.resolve(set.namespace(), owner)
            {
                self.queue.add(deployment.key());
            }
        }
        if let Some(orphan) = change
            .current()
            .filter(|s| controller_of(&s.metadata).is_none())
        {
            self.adopters(orphan).for_each(|key| self.queue.add(key));
        }
    }

    /// Deployments whose selector matches an orphan.
    fn adopters(&self, set: &ReplicaSet) -> impl Iterator<Item = ObjectKey> {
        let all = self.deployments.list_namespace(set.namespace());
        let labels = set.metadata.labels.clone();
        let matching = all.into_iter().filter(move |d| {
            let selector = selector(d);
            selector.is_some_and(|s| !s.is_empty() && s.matches_labels(labels.as_ref()))
        });
        matching.map(|d| d.key())
    }

    /// A `Recreate` update waits for the last pod to go.
    fn pod_deleted(&self, pod: &Pod) {
        let Some(owner) = pod.controller().filter(|o| o.kind == "ReplicaSet") else {
            return;
        };
        let set = self
            .sets
            .get(pod.namespace(), &owner.name)
            .filter(|s| s.uid() == owner.uid);
        let deployment = set.and_then(|set| {
            let owner = controller_of(&set.metadata)?;
            self.resolve(set.namespace(), owner)
        });
        if let Some(deployment) = deployment
            && plan::is_recreate(&deployment)
        {
            self.queue.add(deployment.key());
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(deployment) = self.deployments.get_key(key) else {
            self.written_deployments.forget(key);
            return Ok(Requeue::No);
        };
        if self.written_deployments.is_ahead_of(&*deployment) {
            return Ok(Requeue::No);
        }
        let sets = self.claim(&deployment).await?;
        if sets.iter().any(|s| self.written_sets.is_ahead_of(&**s)) {
            return Ok(Requeue::No);
        }
        let running_pods = if plan::is_recreate(&deployment) {
            sets.iter()
                .map(|s| (s.uid().to_owned(), self.running_pods(s.uid())))
                .collect()
        } else {
            Vec::new()
        };
        let observed = Observed {
            deployment: Deployment::clone(&deployment),
            replica_sets: sets.iter().map(|s| ReplicaSet::clone(s)).collect(),
            running_pods,
        };
        let plan = plan::plan(observed, now());
        self.tell(&deployment, plan.events);
        for step in plan.steps {
            if !self.carry_out(&deployment, step).await? {
                break;
            }
        }
        Ok(plan.again_after.map_or(Requeue::No, Requeue::After))
    }

    fn running_pods(&self, set_uid: &str) -> usize {
        let pods = self.pods_by_owner.get(set_uid);
        pods.iter().filter(|p| !p.is_terminal()).count()
    }

    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let namespace = deployment.namespace();
        let mut sets = self.sets_by_owner.get(deployment.uid());
        sets.extend(self.sets_by_owner.get(&index::orphans(namespace)));
        let selector = selector(deployment).unwrap_or_else(Selector::nothing);
        let kind = GroupVersionKind::new("apps", "v1", "Deployment");
        let own = new_controller_ref(&deployment.metadata, &kind);
        let claimant = Claimant {
            reference: &own,
            deleting: deployment.metadata.deletion_timestamp.is_some(),
            finalizer: None,
        };
        let describe = |set: &ReplicaSet| -> (bool, bool) {
            let labels = set.metadata.labels.as_ref();
            (
                set.metadata.deletion_timestamp.is_some(),
                selector.matches_labels(labels),
            )
        };
        claim_all(
            &self.set_api,
            &claimant,
            sets,
            |set| {
                let (deleting, matches) = describe(set);
                Claimed {
                    controller: controller_of(&set.metadata),
                    deleting,
                    matches,
                }
            },
            || async {
                let live = self
                    .deployment_api
                    .within(namespace)
                    .get(deployment.name())
                    .await?;
                let deleting = live.metadata.deletion_timestamp.is_some();
                still_there(&live, deployment.uid(), deleting, "Deployment")
            },
        )
        .await
    }

    fn tell(&self, deployment: &Deployment, events: Vec<Event>) {
        for event in events {
            let Event {
                warning,
                reason,
                message,
            } = event;
            self.events
                .event(&reference(deployment), warning, reason, message);
        }
    }

    /// Returns whether the plan goes on.
    async fn carry_out(&self, deployment: &Deployment, step: Step) -> Result<bool, Error> {
        match step {
            Step::CreateReplicaSet(set, events) => match self.set_api.create(&set).await {
                Ok(_) => self.tell(deployment, events),
                Err(e) => return self.create_failed(deployment, &set, e).await,
            },
            Step::UpdateReplicaSet(set, events) => {
                let new = self.set_api.replace(&set).await?;
                self.written_sets.note(&new);
                self.tell(deployment, events);
            }
            Step::DeleteReplicaSet { name } => {
                let api = self.set_api.within(deployment.namespace());
                optional(api.delete(&name, &DeleteOptions::new()).await)?;
            }
            Step::UpdateDeployment(changed, events) => {
                let new = self.deployment_api.replace(&changed).await?;
                self.written_deployments.note(&new);
                self.tell(deployment, events);
            }
            Step::UpdateStatus(changed) => {
                let new = self.deployment_api.replace_status(&changed).await?;
                self.written_deployments.note(&new);
            }
        }
        Ok(true)
    }

    async fn create_failed(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        error: Error,
    ) -> Result<bool, Error> {
        if error.is_namespace_terminating() {
            return Ok(false);
        }
        if error.is_already_exists() {
            let live = self.set_api.within(set.namespace()).get(set.name()).await?;
            let spec = |s: &ReplicaSet| {
                s.spec
                    .as_ref()
                    .and_then(|s| s.template.clone())
                    .unwrap_or_default()
            };
            if meta::owner::is_controlled_by(&live.metadata, deployment.uid())
                && template::equal_ignoring_hash(&spec(&live), &spec(set))
            {
                // We made it earlier; the cache will show it.
                return Ok(false);
            }
            tracing::info!(deployment = %deployment.key(), "hash collision, counting it");
            self.carry_out_status(plan::collided(deployment.clone()))
                .await?;
            return Err(error);
        }
        let (step, event) =
            plan::create_failed(deployment.clone(), set.name(), &error.to_string(), now());
        if let Some(step) = step {
            self.carry_out_status(step).await?;
        }
        self.tell(deployment, vec![event]);
        Err(error)
    }

    async fn carry_out_status(&self, step: Step) -> Result<(), Error> {
        if let Step::UpdateStatus(changed) = step {
            let new = self.deployment_api.replace_status(&changed).await?;
            self.written_deployments.note(&new);
        }
        Ok(())
    }
}

fn selector(deployment: &Deployment) -> Option<Selector> {
    let spec = deployment.spec.as_ref()?;
    Selector::from_label_selector(Some(&spec.selector)).ok()
}
