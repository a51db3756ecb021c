//! CronJobs. Their last run is said to be long ago, so that one is due at once and none for
//! long thereafter.

use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

use super::Book;
use super::templates::{cronjob, merged};
use crate::controllers::World;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    book.add("cronjob/every-minute", every_minute);
    book.add("cronjob/due", due);
    for policy in ["Allow", "Forbid", "Replace"] {
        book.with(format!("cronjob/concurrency-{policy}"), policy, concurrency);
    }
    for zone in ["Asia/Tokyo", "America/New_York", "Etc/UTC", "Nowhere/AtAll"] {
        book.with(
            format!("cronjob/zone-{}", zone.replace('/', "-")),
            zone,
            zoned,
        );
    }
    for schedule in [
        "0 0 31 2 *",
        "@yearly",
        "0 0 1 JAN *",
        "*/7 * 29 2 *",
        "TZ=UTC 0 0 1 1 *",
        "5 4 * *",
        "@every 1h",
    ] {
        let name: String = schedule
            .chars()
            .filter(|c| c.is_ascii_alphanumeric())
            .collect();
        book.with(format!("cronjob/schedule-{name}"), schedule, scheduled);
    }
    for (successful, failed) in [(0, 0), (1, 1), (3, 0)] {
        let name = format!("cronjob/history-{successful}-{failed}");
        book.with(name, (successful, failed), history);
    }
    book.add("cronjob/suspended", suspended);
    book.add("cronjob/too-late", too_late);
    book.add("cronjob/many-missed", many_missed);
    book.add("cronjob/job-deleted", job_deleted);
    book.add("cronjob/job-in-the-way", in_the_way);
    for policy in [
        Propagation::Foreground,
        Propagation::Background,
        Propagation::Orphan,
    ] {
        book.with(format!("cronjob/delete-{policy:?}"), policy, delete);
    }
    book.add("cronjob/template", template);
    book.add("cronjob/active-unknown", active_unknown);
}

/// A run a year, and the last one more than a year ago.
async fn overdue(w: &World, spec: Value) {
    let spec = merged(json!({"schedule": "0 0 1 1 *", "suspend": true}), spec);
    w.create(cronjob("c", spec)).await;
    let long_ago = Timestamp::now() - (400 * 24).hours();
    let long_ago = Timestamp::from_second(long_ago.as_second()).unwrap_or_default();
    w.patch_status(
        "CronJob",
        "c",
        json!({"lastScheduleTime": long_ago.to_string()}),
    )
    .await;
    w.rest().await;
    w.patch("CronJob", "c", json!({"spec": {"suspend": false}}))
        .await;
}

async fn until_jobs(w: &World, count: usize) {
    w.until(&format!("{count} jobs"), |w| w.list("Job").len() == count)
        .await;
}

/// Another time of the year has passed as well: the next run is due.
async fn another(w: &World) {
    reschedule(w, "0 0 1 2 *").await;
}

/// A new schedule alone is looked at when it is due next; any other change at once.
async fn reschedule(w: &World, schedule: &str) {
    w.patch("CronJob", "c", json!({"spec": {"schedule": schedule}}))
        .await;
    w.rest().await;
    let labels = json!({"schedule": schedule.replace([' ', '*'], "x")});
    w.patch("CronJob", "c", json!({"metadata": {"labels": labels}}))
        .await;
}

async fn every_minute(w: World) {
    w.create(cronjob("c", json!({}))).await;
    w.until_for(Duration::from_secs(80), "a job", |w| {
        w.list("Job").len() == 1
    })
    .await;
    w.patch("CronJob", "c", json!({"spec": {"suspend": true}}))
        .await;
    w.see("one").await;
}

async fn due(w: World) {
    overdue(&w, json!({})).await;
    w.until_pods(1).await;
    w.see("runs").await;
    w.end(&w.pods()[0], 0).await;
    w.until("no active job", |w| {
        w.field("CronJob", "c", "/status/active").is_null()
    })
    .await;
    w.see("ran").await;
}

async fn concurrency(w: World, policy: &'static str) {
    overdue(&w, json!({"concurrencyPolicy": policy})).await;
    w.until_pods(1).await;
    w.rest().await;
    w.kubelets();
    another(&w).await;
    w.see("the next is due").await;
    if policy == "Forbid" {
        w.end(&w.pods()[0], 0).await;
        w.see("the first is done").await;
    }
}

async fn zoned(w: World, zone: &'static str) {
    overdue(&w, json!({"timeZone": zone})).await;
    w.see("zoned").await;
}

async fn scheduled(w: World, schedule: &'static str) {
    overdue(&w, json!({"schedule": schedule})).await;
    w.see("scheduled").await;
}

async fn history(w: World, (successful, failed): (i32, i32)) {
    let spec = json!({
        "successfulJobsHistoryLimit": successful, "failedJobsHistoryLimit": failed,
        "jobTemplate": {"spec": {"backoffLimit": 0}},
    });
    overdue(&w, spec).await;
    for (exit, next) in [
        (0, "0 0 1 2 *"),
        (1, "0 0 1 3 *"),
        (0, "0 0 1 4 *"),
        (1, "0 0 1 5 *"),
    ] {
        w.until_pods(1).await;
        w.end(&w.pods()[0], exit).await;
        w.until("no active job", |w| {
            w.field("CronJob", "c", "/status/active").is_null()
        })
        .await;
        w.see("a run is over").await;
        reschedule(&w, next).await;
    }
    w.see("five runs").await;
}

async fn suspended(w: World) {
    overdue(&w, json!({})).await;
    until_jobs(&w, 1).await;
    w.patch("CronJob", "c", json!({"spec": {"suspend": true}}))
        .await;
    another(&w).await;
    w.see("suspended").await;
}

async fn too_late(w: World) {
    overdue(&w, json!({"startingDeadlineSeconds": 60})).await;
    w.see("too late").await;
}

async fn many_missed(w: World) {
    overdue(
        &w,
        json!({"schedule": "0 0 * * *", "concurrencyPolicy": "Forbid"}),
    )
    .await;
    until_jobs(&w, 1).await;
    w.see("one for all").await;
}

async fn job_deleted(w: World) {
    overdue(&w, json!({})).await;
    until_jobs(&w, 1).await;
    let name = w.list("Job")[0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    w.kubelets();
    w.delete("Job", &name, Propagation::Background).await;
    w.until("no active job", |w| {
        w.field("CronJob", "c", "/status/active").is_null()
    })
    .await;
    w.see("missing").await;
}

/// A job of the name that is next, of nobody.
async fn in_the_way(w: World) {
    overdue(&w, json!({})).await;
    until_jobs(&w, 1).await;
    let name = w.list("Job")[0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    w.delete("CronJob", "c", Propagation::Orphan).await;
    w.until_gone("CronJob", "c").await;
    w.until("an orphan", |w| {
        w.field("Job", &name, "/metadata/ownerReferences").is_null()
    })
    .await;
    w.rest().await;
    overdue(&w, json!({})).await;
    w.see("in the way").await;
}

async fn delete(w: World, policy: Propagation) {
    overdue(&w, json!({})).await;
    w.kubelets();
    w.until_pods(1).await;
    w.delete("CronJob", "c", policy).await;
    w.until_gone("CronJob", "c").await;
    if policy != Propagation::Orphan {
        w.until("no pods", |w| w.list("Pod").is_empty()).await;
    }
    w.see("deleted").await;
}

async fn template(w: World) {
    let template = json!({
        "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
        "spec": {"parallelism": 2, "completions": 2, "ttlSecondsAfterFinished": 1000},
    });
    overdue(&w, json!({"jobTemplate": template})).await;
    w.until_pods(2).await;
    w.see("as the template says").await;
}

async fn active_unknown(w: World) {
    overdue(&w, json!({})).await;
    until_jobs(&w, 1).await;
    w.rest().await;
    let active = json!([{"kind": "Job", "apiVersion": "batch/v1", "name": "gone", "namespace": w.namespace(), "uid": "11111111-2222-3333-4444-555555555555"}]);
    w.patch_status("CronJob", "c", json!({"active": active}))
        .await;
    w.rest().await;
    another(&w).await;
    w.see("forgotten").await;
}
