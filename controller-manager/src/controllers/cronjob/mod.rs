//! cronjob-controller: makes Jobs at set times.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, Propagation, optional};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::owner::controller_of;
use prometheus::{Histogram, exponential_buckets};

use crate::context::{Context, Run, retry_conflicts};
use crate::events::{Recorder, reference};
use crate::workload::index;
use crate::workload::written::Written;

struct Controller {
    crons: Store<CronJob>,
    jobs_by_owner: Index<Job>,
    api: Api<CronJob>,
    jobs: Api<Job>,
    events: Recorder,
    written: Written,
    /// Of schedules that name none.
    zone: TimeZone,
    queue: Queue<ObjectKey>,
    /// How late Jobs are made.
    skew: Histogram,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("cronjob-controller")?;
    let crons = ctx.informer::<CronJob>();
    let jobs = ctx.informer::<Job>();
    let controller = Arc::new(Controller {
        crons: crons.store().clone(),
        jobs_by_owner: index::by_owner(&jobs),
        api: Api::all(&client),
        jobs: Api::all(&client),
        events: ctx.recorder("cronjob-controller"),
        written: Written::default(),
        zone: TimeZone::system(),
        queue: ctx.queue("cronjob"),
        skew: ctx.meter.histogram(
            "cronjob_controller_job_creation_skew_duration_seconds",
            "From when a Job was due to its creation.",
            exponential_buckets(1.0, 2.0, 10)?,
        )?,
    });
    let c = Arc::clone(&controller);
    crons.add_handler(move |change| c.changed(change));
    let c = Arc::clone(&controller);
    jobs.add_handler(move |change| {
        for job in [change.previous(), change.current()].into_iter().flatten() {
            if let Some(cron) = c.owner(job) {
                c.queue.add(cron.key());
            }
        }
    });
    let workers = ctx.options.cronjob.concurrent_cron_job_syncs.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        crons.wait_synced().await;
        jobs.wait_synced().await;
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
    fn owner(&self, job: &Job) -> Option<Arc<CronJob>> {
        let owner = controller_of(&job.metadata).filter(|o| o.kind == "CronJob")?;
        let cron = self.crons.get(job.namespace(), &owner.name)?;
        (cron.uid() == owner.uid).then_some(cron)
    }

    /// A new schedule is first looked at when it is next due: what the old one left out is not
    /// made up for.
    fn changed(&self, change: &Change<CronJob>) {
        if let Change::Updated { old, new } = change {
            let when = |c: &CronJob| (c.spec.schedule.clone(), c.spec.time_zone.clone());
            if when(old) != when(new) {
                match plan::after_change(new, Timestamp::now(), &self.zone) {
                    Ok(Some(wait)) => self.queue.add_after(new.key(), wait),
                    Ok(None) => self.queue.add(new.key()),
                    Err((warning, reason, message)) => {
                        self.events
                            .event(&reference(&**new), warning, reason, message);
                    }
                }
                return;
            }
        }
        self.queue.add(change.key());
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(cached) = self.crons.get_key(key) else {
            self.written.forget(key);
            return Ok(Requeue::No);
        };
        if self.written.is_ahead_of(&*cached) {
            return Ok(Requeue::No);
        }
        let mut cron = CronJob::clone(&cached);
        let jobs = self.jobs_by_owner.get(cron.uid());
        if !plan::unknown(&cron.status.clone().unwrap_or_default(), &jobs).is_empty() {
            // The cached CronJob may be older than the cached Jobs.
            let live = self.api.within(key.namespace()).get(key.name()).await?;
            if live.uid() == cron.uid() {
                cron = live;
            }
        }
        let before = cron.status.clone();
        let result = self.act(&mut cron, &jobs).await;
        if before.unwrap_or_default() != cron.status.clone().unwrap_or_default() {
            self.store_status(cron).await?;
        }
        result
    }

    /// Nobody else writes the status: where somebody has changed the spec in between, what we
    /// have seen and done still holds.
    async fn store_status(&self, cron: CronJob) -> Result<(), Error> {
        let stored = match self.api.replace_status(&cron).await {
            Err(e) if e.is_conflict() => {
                let live = self.api.within(cron.namespace()).get(cron.name()).await?;
                if live.uid() != cron.uid() {
                    return Ok(());
                }
                let status = cron.status;
                self.api.replace_status(&CronJob { status, ..live }).await?
            }
            other => other?,
        };
        self.written.note(&stored);
        Ok(())
    }

    /// Everything but storing the status.
    async fn act(&self, cron: &mut CronJob, jobs: &[Arc<Job>]) -> Result<Requeue, Error> {
        let spec = cron.spec.clone();
        let about = reference(cron);
        let tell = |events: Vec<plan::Event>| {
            for (warning, reason, message) in events {
                self.events.event(&about, warning, reason, message);
            }
        };
        for job in plan::excess(&spec, jobs) {
            // What stays for now is tried again with the next change.
            let _ = self
                .delete(cron, &about, job.namespace(), job.name(), job.uid())
                .await;
        }
        let looked = plan::look_at_jobs(cron.status.get_or_insert_default(), jobs);
        tell(looked.events);
        for missing in looked.missing {
            self.forget_if_gone(cron, &about, &missing).await?;
        }
        let decision = plan::decide(cron, Timestamp::now(), &self.zone);
        tell(decision.events);
        if let Some(at) = decision.start {
            for old in &decision.replace {
                let field = |f: &Option<String>| f.clone().unwrap_or_default();
                let (namespace, name) = (field(&old.namespace), field(&old.name));
                if let Err(e) = self.jobs.within(&namespace).get(&name).await {
                    let message = format!("Get job: {e}");
                    self.events.event(&about, true, "FailedGet", message);
                    return Err(e);
                }
                self.delete(cron, &about, &namespace, &name, &field(&old.uid))
                    .await?;
            }
            self.start(cron, &about, at).await?;
        }
        Ok(decision.again_after.map_or(Requeue::No, Requeue::After))
    }

    /// Deletes a Job and takes it out of the list of active ones.
    async fn delete(
        &self,
        cron: &mut CronJob,
        about: &ObjectReference,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<(), Error> {
        let options = DeleteOptions::with_uid(uid).propagation(Propagation::Background);
        if let Err(e) = self.jobs.within(namespace).delete(name, &options).await {
            let message = format!("Deleted job: {e}");
            self.events.event(about, true, "FailedDelete", message);
            return Err(e);
        }
        plan::drop_active(cron.status.get_or_insert_default(), uid);
        let message = format!("Deleted job {name}");
        self.events.event(about, false, "SuccessfulDelete", message);
        Ok(())
    }

    /// An active Job that the cache does not show may be younger than the cache.
    async fn forget_if_gone(
        &self,
        cron: &mut CronJob,
        about: &ObjectReference,
        missing: &ObjectReference,
    ) -> Result<(), Error> {
        let name = missing.name.clone().unwrap_or_default();
        let api = self
            .jobs
            .within(missing.namespace.as_deref().unwrap_or_default());
        if optional(api.get(&name).await)?.is_none() {
            let message = format!("Active job went missing: {name}");
            self.events.event(about, false, "MissingJob", message);
            let uid = missing.uid.as_deref().unwrap_or_default();
            plan::drop_active(cron.status.get_or_insert_default(), uid);
        }
        Ok(())
    }

    /// Makes the Job of a time and notes it.
    async fn start(
        &self,
        cron: &mut CronJob,
        about: &ObjectReference,
        at: Timestamp,
    ) -> Result<(), Error> {
        let new = plan::job(cron, at, &self.zone);
        let job = match self.jobs.create(&new).await {
            Ok(job) => {
                let made = job.metadata.creation_timestamp.as_ref();
                if let Some(made) = made {
                    self.skew.observe(made.0.duration_since(at).as_secs_f64());
                }
                let message = format!("Created job {}", job.name());
                self.events.event(about, false, "SuccessfulCreate", message);
                job
            }
            // Made before a crash that kept it out of the status; or it is somebody else's.
            Err(e) if e.is_already_exists() => {
                let job = self.jobs.within(cron.namespace()).get(new.name()).await?;
                let ours = controller_of(&job.metadata).is_some_and(|o| o.uid == cron.uid());
                let status = cron.status.get_or_insert_default();
                if !ours || plan::is_active(status, job.uid()) {
                    return Ok(());
                }
                job
            }
            Err(e) => {
                if !e.is_namespace_terminating() {
                    let message = format!("Error creating job: {e}");
                    self.events.event(about, true, "FailedCreate", message);
                }
                return Err(e);
            }
        };
        let status = cron.status.get_or_insert_default();
        status.active.get_or_insert_default().push(reference(&job));
        status.last_schedule_time = Some(Time(at));
        Ok(())
    }
}
