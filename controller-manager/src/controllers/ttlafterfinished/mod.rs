//! ttl-after-finished-controller: deletes Jobs some time after they have finished.

use std::time::Duration;

use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, Propagation, optional};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use prometheus::{Histogram, exponential_buckets};

use crate::context::{Context, Run, enqueue_all, now};

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("ttl-after-finished-controller")?;
    let jobs = ctx.informer::<Job>();
    let queue: Queue<ObjectKey> = ctx.queue("ttl_jobs_to_delete");
    enqueue_all(&jobs, &queue);
    let api: Api<Job> = Api::all(&client);
    let workers = ctx
        .options
        .ttl_after_finished
        .concurrent_ttl_after_finished_syncs
        .get();
    let late = ctx.meter.histogram(
        "ttl_after_finished_controller_job_deletion_duration_seconds",
        "From when a Job was due to its deletion.",
        exponential_buckets(0.1, 2.0, 14)?,
    )?;
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        jobs.wait_synced().await;
        let store = jobs.store().clone();
        queue
            .run(workers, &stop, move |key| {
                let (job, api, late) = (store.get_key(&key), api.clone(), late.clone());
                async move {
                    match job {
                        Some(job) => sync(&api, &job, &late).await,
                        None => Ok(Requeue::No),
                    }
                }
            })
            .await;
    })))
}

/// How long the job has left; `None` if it is not to be deleted, zero or less if it is due.
fn time_left(job: &Job, now: Timestamp) -> Option<SignedDuration> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let mut conditions = job.status.as_ref()?.conditions.iter().flatten();
    let finished = conditions
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    let at = finished.last_transition_time.as_ref()?;
    Some(SignedDuration::from_secs(ttl.into()) - now.duration_since(at.0))
}

async fn sync(api: &Api<Job>, job: &Job, late: &Histogram) -> Result<Requeue, Error> {
    let Some(left) = time_left(job, now()) else {
        return Ok(Requeue::No);
    };
    if left.is_positive() {
        return Ok(Requeue::After(Duration::try_from(left).unwrap_or_default()));
    }
    // The TTL may have been raised in between.
    let api = api.within(job.namespace());
    let Some(live) = optional(api.get(job.name()).await)? else {
        return Ok(Requeue::No);
    };
    let left = time_left(&live, Timestamp::now()).filter(|left| !left.is_positive());
    let Some(left) = left else {
        return Ok(Requeue::No);
    };
    tracing::info!(job = %job.key(), "Cleaning up Job");
    let options = DeleteOptions::with_uid(live.uid()).propagation(Propagation::Foreground);
    optional(api.delete(job.name(), &options).await)?;
    late.observe(-left.as_secs_f64());
    Ok(Requeue::No)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finished_jobs_have_a_time() {
        let at = |s: i64| Timestamp::from_second(1_700_000_000 + s).unwrap();
        let job = |ttl: Option<i32>, status: &str| -> Job {
            serde_json::from_value(json!({
                "metadata": {"name": "j"}, "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
                "status": {"conditions": [
                    {"type": "Complete", "status": status, "lastTransitionTime": at(0)}]},
            }))
            .unwrap()
        };
        assert_eq!(
            time_left(&job(Some(30), "True"), at(10)),
            Some(SignedDuration::from_secs(20))
        );
        assert!(
            time_left(&job(Some(30), "True"), at(31))
                .unwrap()
                .is_negative()
        );
        assert_eq!(time_left(&job(None, "True"), at(31)), None);
        assert_eq!(time_left(&job(Some(30), "False"), at(31)), None);
    }
}
