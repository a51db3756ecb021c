//! job-controller: runs pods until enough of them have succeeded.

mod backoff;
mod indexes;
mod metrics;
mod plan;
mod pods;
mod policy;
#[cfg(test)]
mod tests;
mod tracking;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::expectations::Expectations;
use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey, Patch, PatchOptions, optional};
use futures::future::join_all;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::GroupVersionKind;
use meta::labels::Selector;
use meta::owner::new_controller_ref;
use parking_lot::Mutex;
use serde_json::json;

use self::backoff::Backoff;
use self::metrics::Metrics;
use self::plan::{Act, Decision, FINALIZER, Observed, Outcome};
use crate::context::{Context, Run, now, retry_conflicts};
use crate::events::{Recorder, reference};
use crate::kinds::Pod;
use crate::workload::adopt::{Claimant, Claimed, claim_all, still_there};
use crate::workload::index;
use crate::workload::pod_control::{Parent, PodControl};
use crate::workload::written::Written;

/// Changes of pods are collected for so long.
const BATCH: Duration = Duration::from_secs(1);
/// The name of this controller in `spec.managedBy`.
const MANAGER: &str = "kubernetes.io/job-controller";

struct Controller {
    jobs: Store<Job>,
    pods_by_owner: Index<Pod>,
    pod_store: Store<Pod>,
    api: Api<Job>,
    pods: PodControl,
    events: Recorder,
    expectations: Expectations<ObjectKey>,
    written: Written,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
    queue: Queue<ObjectKey>,
    /// Pods that nobody counts any more, but that still have the finalizer.
    orphans: Queue<ObjectKey>,
    metrics: Metrics,
}

/// What is remembered of a Job.
#[derive(Default)]
struct Memory {
    backoff: Backoff,
    /// Pods whose finalizer has been taken away, until the cache shows it.
    unfinalized: HashSet<String>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("job-controller")?;
    let jobs = ctx.informer::<Job>();
    let pods = ctx.pods();
    let events = ctx.recorder("job-controller");
    let backoff = client::workqueue::Backoff {
        base: Duration::from_secs(1),
        max: Duration::from_secs(60),
        ..Default::default()
    };
    let controller = Arc::new(Controller {
        jobs: jobs.store().clone(),
        pods_by_owner: index::pods_by_owner(&pods),
        pod_store: pods.store().clone(),
        api: Api::all(&client),
        pods: PodControl::new(&client, events.clone()),
        events,
        expectations: Expectations::new(),
        written: Written::default(),
        memory: Mutex::default(),
        queue: ctx.queue_with("job", backoff),
        orphans: ctx.queue("job_orphan_pod"),
        metrics: Metrics::new(&ctx.meter)?,
    });
    let c = Arc::clone(&controller);
    jobs.add_handler(move |change| {
        if let Change::Added(job) = change
            && let Some(manager) = job.spec.as_ref().filter(|s| is_others(s))
        {
            let manager = manager.managed_by.as_deref().unwrap_or_default();
            c.metrics.left_to(manager);
        }
        let own = |j: &Job| {
            let generation = j.metadata.generation;
            (generation, j.metadata.deletion_timestamp.is_some())
        };
        match change {
            // The status is our own doing.
            Change::Updated { old, new } if own(old) == own(new) => {
                c.queue.add_after(change.key(), BATCH)
            }
            _ => c.queue.add(change.key()),
        }
        if change.current().is_none_or(|j| plan::is_finished(j)) {
            let pods = c.pods_by_owner.get(change.object().uid());
            let kept = pods.iter().filter(|p| p.has_finalizer(FINALIZER));
            kept.for_each(|p| c.orphans.add(p.key()));
        }
    });
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| c.pod_changed(change));
    let workers = ctx.options.job.concurrent_job_syncs.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        jobs.wait_synced().await;
        pods.wait_synced().await;
        let (queue, orphans) = (controller.queue.clone(), controller.orphans.clone());
        let for_orphans = Arc::clone(&controller);
        tokio::join!(
            queue.run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            }),
            orphans.run(1, &stop, move |key| {
                let controller = Arc::clone(&for_orphans);
                async move { controller.release_orphan(&key).await }
            }),
        );
    })))
}

fn own_reference(job: &Job) -> OwnerReference {
    new_controller_ref(&job.metadata, &GroupVersionKind::new("batch", "v1", "Job"))
}

fn is_others(spec: &JobSpec) -> bool {
    spec.managed_by.as_deref().is_some_and(|m| m != MANAGER)
}

fn unfinalize_patch(pod: &Pod) -> Patch {
    Patch::Strategic(json!({
        "metadata": {"uid": pod.uid(), "$deleteFromPrimitiveList/finalizers": [FINALIZER]},
    }))
}

impl Controller {
    fn resolve(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<Job>> {
        let job = self.jobs.get(namespace, &owner.name)?;
        (owner.kind == "Job" && job.uid() == owner.uid).then_some(job)
    }

    fn pod_changed(&self, change: &Change<Pod>) {
        let (old, new) = (change.previous(), change.current());
        self.metrics
            .pod_changed(old.map(|p| &**p), new.map(|p| &**p));
        for pod in [change.previous(), change.current()].into_iter().flatten() {
            let owner = pod.controller().filter(|o| o.kind == "Job");
            let job = owner.and_then(|o| self.resolve(pod.namespace(), o));
            if let Some(job) = &job {
                let key = job.key();
                match change {
                    Change::Added(p) if !p.is_deleting() => {
                        self.expectations.creation_observed(&key)
                    }
                    Change::Updated { new, .. } if !new.is_deleting() => {}
                    _ => self.expectations.deletion_observed(&key, pod.uid()),
                }
                let unfinalized = change.current().is_none_or(|p| !p.has_finalizer(FINALIZER));
                if unfinalized && let Some(memory) = self.memory.lock().get_mut(&key) {
                    memory.unfinalized.remove(pod.uid());
                }
                self.queue.add_after(key, BATCH);
            }
            let counted = job.as_ref().is_none_or(|j| plan::is_finished(j));
            let ours = owner.is_some()
                || pod
                    .metadata
                    .labels
                    .contains_key("batch.kubernetes.io/controller-uid");
            if ours && counted && pod.has_finalizer(FINALIZER) {
                self.orphans.add(pod.key());
            }
        }
        let orphan = change
            .current()
            .filter(|p| p.controller().is_none() && !p.is_deleting());
        if let Some(pod) = orphan {
            for job in self.jobs.list_namespace(pod.namespace()) {
                if selector(&job).is_some_and(|s| s.matches_labels(Some(&pod.metadata.labels))) {
                    self.queue.add_after(job.key(), BATCH);
                }
            }
        }
    }

    /// Takes the finalizer from a pod whose Job is gone or has ended.
    async fn release_orphan(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(pod) = self
            .pod_store
            .get_key(key)
            .filter(|p| p.has_finalizer(FINALIZER))
        else {
            return Ok(Requeue::No);
        };
        if let Some(owner) = pod.controller() {
            if owner.kind != "Job" {
                return Ok(Requeue::No);
            }
            if let Some(job) = self.resolve(pod.namespace(), owner) {
                let others = job.spec.as_ref().is_some_and(is_others);
                if others || !plan::is_finished(&job) {
                    return Ok(Requeue::No);
                }
            }
        }
        let api = self.pods.api.within(key.namespace());
        let patched = api
            .patch(
                key.name(),
                &unfinalize_patch(&pod),
                &PatchOptions::default(),
            )
            .await;
        optional(patched)?;
        Ok(Requeue::No)
    }

    fn forget(&self, key: &ObjectKey) {
        self.expectations.forget(key);
        self.written.forget(key);
        self.memory.lock().remove(key);
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(job) = self.jobs.get_key(key) else {
            self.forget(key);
            return Ok(Requeue::No);
        };
        let Some(spec) = job.spec.clone().filter(|s| !is_others(s)) else {
            return Ok(Requeue::No);
        };
        if plan::is_finished(&job) {
            self.forget(key);
            return Ok(Requeue::No);
        }
        if self.written.is_ahead_of(&*job) {
            return Ok(Requeue::No);
        }
        let known = spec
            .completion_mode
            .as_deref()
            .is_none_or(|m| matches!(m, "NonIndexed" | "Indexed"));
        if !known {
            let message = "Skipped Job sync because completion mode is unknown";
            self.events
                .event(&reference(&*job), true, "UnknownCompletionMode", message);
            return Ok(Requeue::No);
        }
        let began = Instant::now();
        let mut act = None;
        let result = self.look(key, &job, &spec, &mut act).await;
        self.metrics
            .synced(&spec, act.as_ref(), result.is_ok(), began);
        result
    }

    /// A sync of a Job that is ours and not over. `act` is what is done about its pods.
    async fn look(
        &self,
        key: &ObjectKey,
        job: &Job,
        spec: &JobSpec,
        act: &mut Option<Act>,
    ) -> Result<Requeue, Error> {
        let may_act = self.expectations.satisfied(key, job.uid());
        let pods = self.claim(job).await?;
        let (backoff, unfinalized) = {
            let mut memory = self.memory.lock();
            let memory = memory.entry(key.clone()).or_default();
            (memory.backoff, memory.unfinalized.clone())
        };
        let observed = Observed {
            job,
            spec,
            pods: &pods,
            unfinalized: &unfinalized,
            may_act,
            backoff,
            now: now(),
        };
        let decision = plan::decide(&observed);
        let (backoff, again_after) = (decision.backoff, decision.again_after);
        let before = (decision.failed, decision.terminating);
        let (outcome, failure) = self.carry_out(key, job, spec, &decision).await;
        if let Act::Create(wanted) = &decision.act {
            let not = match &failure {
                Some(_) => wanted.len().saturating_sub(outcome.created),
                None => 0,
            };
            self.metrics.created(spec, before, outcome.created, not);
        }
        *act = Some(decision.act.clone());
        let mut tracking = tracking::track(&observed, decision, outcome);

        let mut stored = Job::clone(job);
        stored = self.store(stored, &tracking.status).await?;
        let failed = tracking.unfinalize.iter().filter(|p| observed.is_failed(p));
        for action in failed.filter_map(|pod| observed.failure(pod).action()) {
            self.metrics.by_policy(action);
        }
        if let Some(memory) = self.memory.lock().get_mut(key) {
            memory.backoff = backoff;
        }
        self.tell(job, std::mem::take(&mut tracking.events));
        let (gone, trouble) = self.unfinalize(key, &tracking.unfinalize).await;
        let (status, events, finished) = tracking::conclude(spec, tracking, &gone);
        if trouble.is_none() || stored.status.as_ref() != Some(&status) {
            self.store(stored, &status).await?;
            if finished {
                self.metrics.ended(spec, &status);
            }
        }
        self.tell(job, events);
        if let Some(error) = trouble.or(failure) {
            return Err(error);
        }
        Ok(again_after.map_or(Requeue::No, Requeue::After))
    }

    fn tell(&self, job: &Job, events: Vec<tracking::Event>) {
        for (warning, reason, message) in events {
            self.events
                .event(&reference(job), warning, &reason, message);
        }
    }

    /// Stores a status, if it is another.
    async fn store(&self, job: Job, status: &JobStatus) -> Result<Job, Error> {
        if job.status.as_ref() == Some(status) {
            return Ok(job);
        }
        let old = job.status.clone();
        let changed = Job {
            status: Some(status.clone()),
            ..job
        };
        let stored = self.api.replace_status(&changed).await?;
        if let (Some(spec), Some(new)) = (&stored.spec, &stored.status) {
            self.metrics.stored(spec, &old.unwrap_or_default(), new);
        }
        self.written.note(&stored);
        Ok(stored)
    }

    async fn claim(&self, job: &Job) -> Result<Vec<Arc<Pod>>, Error> {
        let mut pods = self.pods_by_owner.get(job.uid());
        pods.extend(self.pods_by_owner.get(&index::orphans(job.namespace())));
        let own = own_reference(job);
        let claimant = Claimant {
            reference: &own,
            deleting: job.metadata.deletion_timestamp.is_some(),
            finalizer: Some(FINALIZER),
        };
        let selector = selector(job).unwrap_or_else(Selector::nothing);
        let owned = claim_all(
            &self.pods.api,
            &claimant,
            pods,
            |pod| Claimed {
                controller: pod.controller(),
                deleting: pod.is_deleting(),
                matches: selector.matches_labels(Some(&pod.metadata.labels)),
            },
            || async {
                let live = self.api.within(job.namespace()).get(job.name()).await?;
                still_there(
                    &live,
                    job.uid(),
                    live.metadata.deletion_timestamp.is_some(),
                    "Job",
                )
            },
        )
        .await?;
        // What was just adopted has the finalizer now, though the cache does not show it.
        let kept =
            |pod: Arc<Pod>| match pod.is_controlled_by(job.uid()) || pod.has_finalizer(FINALIZER) {
                true => pod,
                false => {
                    let mut pod = Pod::clone(&pod);
                    pod.metadata.finalizers.push(FINALIZER.to_owned());
                    Arc::new(pod)
                }
            };
        Ok(owned.into_iter().map(kept).collect())
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        job: &Job,
        spec: &JobSpec,
        decision: &Decision,
    ) -> (Outcome, Option<Error>) {
        let parent = Parent {
            key,
            reference: reference(job),
            expectations: &self.expectations,
        };
        match &decision.act {
            Act::Nothing => (Outcome::default(), None),
            Act::Create(indexes) => {
                let new: Vec<_> = indexes
                    .iter()
                    .map(|index| pods::new(job, spec, *index, &decision.delayed))
                    .collect();
                self.expectations
                    .expect_creations(key, job.uid(), new.len());
                let (made, failure) = self.pods.create(&parent, &new).await;
                let outcome = Outcome {
                    created: made.len(),
                    ..Outcome::default()
                };
                (outcome, failure)
            }
            Act::Stop(pods) => self.delete(&parent, pods, false).await,
            Act::Remove(pods) => {
                let uids = pods.iter().map(|p| p.uid().to_owned());
                self.expectations.expect_deletions(key, job.uid(), uids);
                self.delete(&parent, pods, true).await
            }
        }
    }

    async fn delete(
        &self,
        parent: &Parent<'_>,
        pods: &[Arc<Pod>],
        unfinalize_first: bool,
    ) -> (Outcome, Option<Error>) {
        let results = join_all(pods.iter().map(|pod| async move {
            if unfinalize_first && pod.has_finalizer(FINALIZER) {
                let api = self.pods.api.within(pod.namespace());
                let patched = api
                    .patch(pod.name(), &unfinalize_patch(pod), &PatchOptions::default())
                    .await;
                if let Err(e) = patched {
                    parent.expectations.deletion_observed(parent.key, pod.uid());
                    return if e.is_not_found() { Ok(()) } else { Err(e) };
                }
            }
            self.pods
                .delete(parent, std::slice::from_ref(pod))
                .await
                .map_err(Error::from)
        }))
        .await;
        let mut outcome = Outcome::default();
        let mut failure = None;
        for (pod, result) in pods.iter().zip(results) {
            match result {
                Ok(()) => {
                    outcome.deleted += 1;
                    outcome.deleted_ready += usize::from(pod.is_ready());
                }
                Err(error) => failure = Some(error),
            }
        }
        (outcome, failure)
    }

    /// Takes finalizers away; returns of which pods they are gone.
    async fn unfinalize(
        &self,
        key: &ObjectKey,
        pods: &[Arc<Pod>],
    ) -> (HashSet<String>, Option<Error>) {
        let uids = || pods.iter().map(|p| p.uid().to_owned());
        if let Some(memory) = self.memory.lock().get_mut(key) {
            memory.unfinalized.extend(uids());
        }
        let results = join_all(pods.iter().map(|pod| async move {
            let api = self.pods.api.within(pod.namespace());
            optional(
                api.patch(pod.name(), &unfinalize_patch(pod), &PatchOptions::default())
                    .await,
            )
        }))
        .await;
        let mut gone = HashSet::new();
        let mut trouble = None;
        for (pod, result) in pods.iter().zip(results) {
            match result {
                Ok(patched) => {
                    gone.insert(pod.uid().to_owned());
                    if patched.is_some() {
                        continue;
                    }
                }
                Err(error) => trouble = Some(error),
            }
            // No event will tell of it.
            if let Some(memory) = self.memory.lock().get_mut(key) {
                memory.unfinalized.remove(pod.uid());
            }
        }
        (gone, trouble)
    }
}

fn selector(job: &Job) -> Option<Selector> {
    let spec = job.spec.as_ref()?;
    Selector::from_label_selector(Some(spec.selector.as_ref()?)).ok()
}
