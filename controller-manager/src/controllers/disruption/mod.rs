//! disruption-controller: keeps the status of PodDisruptionBudgets, by which evictions are
//! allowed or refused, and takes stale signs of a disruption from pods.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Kind, Object as _, ObjectKey, optional};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod as FullPod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use meta::labels::Selector;
use meta::owner::controller_of;

use crate::context::{Context, Run, enqueue_all, now, retry_conflicts};
use crate::events::{Recorder, reference};
use crate::kinds::Pod;
use crate::workload::index;
use crate::workload::scales::Scales;
use crate::workload::selectors::go_selector;
use crate::workload::written::Written;

/// A sign of a disruption that has not come after this is taken away.
const STALE: SignedDuration = SignedDuration::from_mins(2);

/// Why a budget's pods could not be counted.
#[derive(Debug, thiserror::Error)]
enum CountError {
    #[error(transparent)]
    Api(#[from] Error),
    #[error("{0}")]
    Owner(String),
}

struct Controller {
    budgets: Index<PodDisruptionBudget>,
    budget_store: Store<PodDisruptionBudget>,
    pods: Index<Pod>,
    pod_store: Store<Pod>,
    deployments: Store<Deployment>,
    replica_sets: Store<ReplicaSet>,
    stateful_sets: Store<StatefulSet>,
    replication_controllers: Store<ReplicationController>,
    scales: Scales,
    api: Api<PodDisruptionBudget>,
    pod_api: Api<FullPod>,
    events: Recorder,
    written: Written,
    queue: Queue<ObjectKey>,
    /// Pods with a sign of a disruption.
    stale: Queue<ObjectKey>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("disruption-controller")?;
    let budgets = ctx.informer::<PodDisruptionBudget>();
    let pods = ctx.pods();
    let deployments = ctx.informer::<Deployment>();
    let replica_sets = ctx.informer::<ReplicaSet>();
    let stateful_sets = ctx.informer::<StatefulSet>();
    let replication_controllers = ctx.informer::<ReplicationController>();
    let controller = Arc::new(Controller {
        budgets: index::by_namespace(&budgets),
        budget_store: budgets.store().clone(),
        pods: index::by_namespace(&pods),
        pod_store: pods.store().clone(),
        deployments: deployments.store().clone(),
        replica_sets: replica_sets.store().clone(),
        stateful_sets: stateful_sets.store().clone(),
        replication_controllers: replication_controllers.store().clone(),
        scales: Scales::new(&client),
        api: Api::all(&client),
        pod_api: Api::all(&client),
        events: ctx.recorder("controllermanager"),
        written: Written::default(),
        queue: ctx.queue("disruption"),
        stale: ctx.queue("stale_pod_disruption"),
    });
    enqueue_all(&budgets, &controller.queue);
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| c.pod_changed(change));
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        budgets.wait_synced().await;
        pods.wait_synced().await;
        deployments.wait_synced().await;
        replica_sets.wait_synced().await;
        stateful_sets.wait_synced().await;
        replication_controllers.wait_synced().await;
        let (queue, stale) = (controller.queue.clone(), controller.stale.clone());
        let of_pods = Arc::clone(&controller);
        tokio::join!(
            queue.run(1, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            }),
            stale.run(1, &stop, move |key| {
                let controller = Arc::clone(&of_pods);
                async move { retry_conflicts(controller.clear_stale(&key).await) }
            }),
        );
    })))
}

fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    let selector = budget.spec.as_ref()?.selector.as_ref();
    Selector::from_label_selector(selector).ok()
}

/// The owner of a name in a store, if it is that very one.
fn resolve<K: Kind>(store: &Store<K>, namespace: &str, owner: &OwnerReference) -> Option<Arc<K>> {
    let group = owner.api_version.rsplit_once('/').map_or("", |(g, _)| g);
    let resource = K::RESOURCE;
    if owner.kind != resource.kind || (group != resource.group && group != "extensions") {
        return None;
    }
    let found = store.get(namespace, &owner.name)?;
    (found.uid() == owner.uid).then_some(found)
}

fn owner<K: Metadata<Ty = ObjectMeta>>(object: &K) -> Option<&OwnerReference> {
    controller_of(object.metadata())
}

impl Controller {
    fn pod_changed(&self, change: &Change<Pod>) {
        let same_labels = match change {
            Change::Updated { old, new } => old.metadata.labels == new.metadata.labels,
            Change::Added(_) | Change::Deleted(_) => false,
        };
        let before = change.previous().filter(|_| !same_labels);
        for pod in [before, change.current()].into_iter().flatten() {
            self.enqueue_budgets(pod);
        }
        if let Some(pod) = change.current()
            && let Some(wait) = plan::stale_in(pod, STALE, Timestamp::now())
        {
            self.stale.add_after(pod.key(), wait);
        }
    }

    fn enqueue_budgets(&self, pod: &Pod) {
        let matches = |b: &Arc<PodDisruptionBudget>| {
            selector(b).is_some_and(|s| s.matches_labels(Some(&pod.metadata.labels)))
        };
        let mut matching = self.budgets.get(pod.namespace());
        matching.retain(matches);
        if let [first, _, ..] = matching.as_slice() {
            let message = format!(
                "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.",
                pod.namespace(),
                pod.name(),
                first.name()
            );
            let about = reference(pod);
            self.events
                .event(&about, true, "MultiplePodDisruptionBudgets", message);
        }
        matching.iter().for_each(|b| self.queue.add(b.key()));
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(budget) = self.budget_store.get_key(key) else {
            self.written.forget(key);
            return Ok(Requeue::No);
        };
        if self.written.is_ahead_of(&*budget) {
            return Ok(Requeue::No);
        }
        match self.try_sync(&budget).await {
            // Somebody evicts: nothing is wrong with the budget.
            Err(CountError::Api(e)) if e.is_conflict() => Err(e),
            Err(e) => {
                tracing::error!(budget = %key, %e, "Failed to sync PDB");
                let status = plan::failed(&budget, &e.to_string(), now());
                self.store(&budget, status).await?;
                Ok(Requeue::No)
            }
            Ok(requeue) => Ok(requeue),
        }
    }

    async fn try_sync(&self, budget: &PodDisruptionBudget) -> Result<Requeue, CountError> {
        let about = reference(budget);
        let selector = selector(budget).unwrap_or_else(Selector::nothing);
        let mut pods = self.pods.get(budget.namespace());
        pods.retain(|p| selector.matches_labels(Some(&p.metadata.labels)));
        if pods.is_empty() {
            let message = "No matching pods found";
            self.events.event(&about, false, "NoPods", message);
        }
        let spec = budget.spec.clone().unwrap_or_default();
        let counted = async {
            let mut scale = 0;
            if plan::needs_scale(&spec) {
                let (sum, unmanaged) = self.expected_scale(&pods).await?;
                scale = sum;
                if unmanaged {
                    self.tell_unmanaged(budget);
                }
            }
            plan::counts(&spec, pods.len(), scale).map_err(CountError::Owner)
        };
        let counts = counted.await.inspect_err(|e| {
            let message = format!("Failed to calculate the number of expected pods: {e}");
            self.events
                .event(&about, true, "CalculateExpectedPodCountFailed", message);
        })?;
        let now = now();
        let disrupted = plan::disrupted(budget, &pods, now);
        for pod in &disrupted.stayed {
            let message = format!(
                "Pod was expected by PDB {0}/{0} to be deleted but it wasn't",
                budget.namespace()
            );
            self.events
                .event(&reference(&**pod), true, "NotDeleted", message);
        }
        let status = plan::status(budget, &pods, counts, disrupted.pods, now);
        self.store(budget, status).await?;
        Ok(disrupted.again_after.map_or(Requeue::No, Requeue::After))
    }

    fn tell_unmanaged(&self, budget: &PodDisruptionBudget) {
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        let message = format!(
            "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
            go_selector(selector)
        );
        self.events
            .event(&reference(budget), true, "UnmanagedPods", message);
    }

    async fn store(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), Error> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let changed = PodDisruptionBudget {
            status: Some(status),
            ..budget.clone()
        };
        let stored = self.api.replace_status(&changed).await?;
        self.written.note(&stored);
        Ok(())
    }

    /// The sum of what the controllers of all these pods want, and whether any pod has none.
    async fn expected_scale(&self, pods: &[Arc<Pod>]) -> Result<(i32, bool), CountError> {
        let mut scales: HashMap<String, i32> = HashMap::new();
        // Of many pods of one owner it is asked for once.
        let mut asked: HashMap<&str, ()> = HashMap::new();
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = pod.controller() else {
                unmanaged = true;
                continue;
            };
            if asked.insert(&owner.uid, ()).is_some() {
                continue;
            }
            let Some((uid, scale)) = self.scale(owner, pod.namespace()).await? else {
                let message = format!("found no controllers for pod {:?}", pod.name());
                return Err(CountError::Owner(message));
            };
            scales.insert(uid, scale);
        }
        let sum = scales.values().fold(0_i32, |sum, n| sum.saturating_add(*n));
        Ok((sum, unmanaged))
    }

    /// The UID of who decides how many pods there are, and how many those are.
    async fn scale(
        &self,
        reference: &OwnerReference,
        namespace: &str,
    ) -> Result<Option<(String, i32)>, CountError> {
        let found =
            |uid: &str, replicas: Option<i32>| Ok(Some((uid.to_owned(), replicas.unwrap_or(1))));
        if let Some(rc) = resolve(&self.replication_controllers, namespace, reference) {
            return found(rc.uid(), rc.spec.as_ref().and_then(|s| s.replicas));
        }
        if let Some(set) = resolve(&self.replica_sets, namespace, reference) {
            let Some(above) = owner(&*set).filter(|o| o.kind == "Deployment") else {
                return found(set.uid(), set.spec.as_ref().and_then(|s| s.replicas));
            };
            if let Some(deployment) = resolve(&self.deployments, namespace, above) {
                let spec = deployment.spec.as_ref();
                return found(deployment.uid(), spec.and_then(|s| s.replicas));
            }
        }
        if let Some(set) = resolve(&self.stateful_sets, namespace, reference) {
            return found(set.uid(), set.spec.as_ref().and_then(|s| s.replicas));
        }
        let group = reference
            .api_version
            .rsplit_once('/')
            .map_or("", |(g, _)| g);
        let resource = self.scales.resource(group, &reference.kind).await?;
        let Some(resource) = resource else {
            let (kind, version) = (&reference.kind, &reference.api_version);
            let message = format!("no matches for kind {kind:?} in version {version:?}");
            return Err(CountError::Owner(message));
        };
        if !resource.has_scale {
            let message = format!("{} does not implement the scale subresource", resource.name);
            return Err(CountError::Owner(message));
        }
        let scale = self.scales.get(&resource, namespace, &reference.name).await;
        let scale = optional(scale)?.filter(|s| s.metadata.uid.as_ref() == Some(&reference.uid));
        let replicas =
            |s: k8s_openapi::api::autoscaling::v1::Scale| s.spec.and_then(|s| s.replicas);
        Ok(scale.map(|s| (reference.uid.clone(), replicas(s).unwrap_or(0))))
    }

    /// The eviction that a pod's condition announces has not come: the condition is taken back.
    async fn clear_stale(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let stale = |pod: &Pod| plan::stale_in(pod, STALE, Timestamp::now());
        let Some(left) = self.pod_store.get_key(key).and_then(|p| stale(&p)) else {
            return Ok(Requeue::No);
        };
        if !left.is_zero() {
            return Ok(Requeue::After(left));
        }
        let api = self.pod_api.within(key.namespace());
        let Some(mut pod) = optional(api.get(key.name()).await)? else {
            return Ok(Requeue::No);
        };
        let generation = pod.metadata.generation;
        let conditions = pod.status.as_mut().and_then(|s| s.conditions.as_mut());
        let mut conditions = conditions.into_iter().flatten();
        let sign = conditions.find(|c| c.type_ == "DisruptionTarget");
        // The kubelet takes its time over what it ends itself.
        let by_kubelet = |r: Option<&str>| r == Some("TerminationByKubelet");
        let sign = sign.filter(|c| c.status == "True" && !by_kubelet(c.reason.as_deref()));
        let Some(sign) = sign else {
            return Ok(Requeue::No);
        };
        "False".clone_into(&mut sign.status);
        sign.reason = None;
        sign.message = None;
        sign.observed_generation = generation;
        sign.last_transition_time = Some(Time(now()));
        optional(api.replace_status(&pod).await)?;
        Ok(Requeue::No)
    }
}
