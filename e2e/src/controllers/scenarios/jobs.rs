//! Jobs, and what is left of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Book;
use super::templates::{job, merged};
use crate::controllers::World;
use crate::controllers::kubelet::End;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    for (completions, parallelism) in [(1, 1), (3, 2), (2, 4), (5, 5), (0, 1)] {
        for mode in ["NonIndexed", "Indexed"] {
            let name = format!("job/complete-{completions}-of-{parallelism}-{mode}");
            book.with(name, (completions, parallelism, mode), complete);
        }
    }
    book.add("job/work-queue", work_queue);
    book.add("job/parallelism-0", no_parallelism);
    for limit in [0, 1] {
        for mode in ["NonIndexed", "Indexed"] {
            book.with(
                format!("job/backoff-limit-{limit}-{mode}"),
                (limit, mode),
                backoff,
            );
        }
    }
    book.add("job/on-failure", on_failure);
    book.add("job/on-failure-within-limit", on_failure_within);
    for (limit, failed) in [(0, None), (1, None), (0, Some(0)), (0, Some(2))] {
        let name = format!("job/per-index-{limit}-{}", failed.map_or(-1, |n: i32| n));
        book.with(name, (limit, failed), per_index);
    }
    for (name, rule, end) in failure_rules() {
        book.with(
            format!("job/failure-policy-{name}"),
            (rule, end),
            failure_policy,
        );
    }
    for (name, rules, succeed) in success_rules() {
        book.with(
            format!("job/success-policy-{name}"),
            (rules, succeed),
            success_policy,
        );
    }
    for mode in ["NonIndexed", "Indexed"] {
        book.with(format!("job/suspend-{mode}"), mode, suspend);
        book.with(format!("job/scale-{mode}"), mode, scale);
        book.with(format!("job/pod-gone-{mode}"), mode, pod_gone);
    }
    book.add("job/suspended-from-the-start", suspended);
    book.add("job/template-changed-while-suspended", template_changed);
    book.add("job/elastic-indexed", elastic);
    book.add("job/deadline", deadline);
    book.add("job/deadline-while-suspended", deadline_suspended);
    for policy in ["TerminatingOrFailed", "Failed"] {
        book.with(format!("job/replacement-{policy}"), policy, replacement);
    }
    book.add("job/managed-by", managed_by);
    book.add("job/adopt-and-release", adopt);
    book.add("job/manual-selector", manual_selector);
    for policy in [
        Propagation::Foreground,
        Propagation::Background,
        Propagation::Orphan,
    ] {
        book.with(format!("job/delete-{policy:?}"), policy, delete);
        book.with(
            format!("job/delete-complete-{policy:?}"),
            policy,
            delete_complete,
        );
    }
    for ttl in [0, 2] {
        book.with(format!("job/ttl-{ttl}"), ttl, ttl_after);
    }
    book.add("job/ttl-set-later", ttl_later);
    book.add("job/ready-and-terminating", counts);
    book.add("job/finalizer-of-somebody", foreign_finalizer);
    book.add("job/node-selector-and-labels", labels);
    book.add("job/pod-of-unknown-phase", unknown_phase);
}

fn index(pod: &Value) -> Option<&str> {
    pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str()
}

fn of_index(w: &World, wanted: &str) -> Option<Arc<Value>> {
    w.pods().into_iter().find(|pod| index(pod) == Some(wanted))
}

async fn pod_of(w: &World, wanted: &str) -> Arc<Value> {
    w.until(&format!("a pod of index {wanted}"), |w| {
        of_index(w, wanted).is_some()
    })
    .await;
    of_index(w, wanted).unwrap_or_default()
}

async fn counted(w: &World, field: &str, count: i32) {
    w.until_field("Job", "j", &format!("/status/{field}"), json!(count))
        .await;
}

async fn finished(w: &World, ty: &str) {
    w.until_condition("Job", "j", ty).await;
}

/// Ends what the Job wants ended as kubelets would, until it is over.
async fn wind_up(w: &World, ty: &str) {
    w.kubelets();
    finished(w, ty).await;
}

async fn complete(w: World, (completions, parallelism, mode): (i32, usize, &'static str)) {
    let spec =
        json!({"completions": completions, "parallelism": parallelism, "completionMode": mode});
    w.create(job("j", spec)).await;
    w.until_pods(parallelism.min(completions as usize)).await;
    w.see("created").await;
    for done in 1..=completions {
        if mode == "Indexed" {
            let pod = pod_of(&w, &(done - 1).to_string()).await;
            w.end(&pod, 0).await;
        } else {
            w.until("a pod", |w| !w.pods().is_empty()).await;
            if let Some(pod) = w.pods().first() {
                w.end(pod, 0).await;
            }
        }
        counted(&w, "succeeded", done).await;
    }
    finished(&w, "Complete").await;
    w.see("complete").await;
}

async fn work_queue(w: World) {
    w.create(job("j", json!({"parallelism": 3}))).await;
    w.until_pods(3).await;
    w.end(&w.pods()[0], 0).await;
    counted(&w, "succeeded", 1).await;
    w.see("one is done, no more are made").await;
    w.end(&w.pods()[0], 1).await;
    counted(&w, "failed", 1).await;
    w.see("one failed").await;
    w.end(&w.pods()[0], 0).await;
    finished(&w, "Complete").await;
    w.see("complete").await;
}

async fn no_parallelism(w: World) {
    w.create(job("j", json!({"parallelism": 0, "completions": 2})))
        .await;
    w.see("nothing").await;
    w.patch("Job", "j", json!({"spec": {"parallelism": 2}}))
        .await;
    w.until_pods(2).await;
    w.see("two").await;
}

async fn backoff(w: World, (limit, mode): (i32, &'static str)) {
    w.create(job(
        "j",
        json!({"backoffLimit": limit, "completions": 1, "completionMode": mode}),
    ))
    .await;
    for failed in 1..=limit + 1 {
        w.until_pods(1).await;
        w.end(&w.pods()[0], 1).await;
        if failed <= limit {
            counted(&w, "failed", failed).await;
        }
    }
    finished(&w, "Failed").await;
    w.see("failed").await;
}

async fn on_failure(w: World) {
    let spec = json!({"backoffLimit": 2, "template": {"spec": {"restartPolicy": "OnFailure"}}});
    w.create(job("j", spec)).await;
    w.until_pods(1).await;
    w.run_as(&w.pods()[0], true, 3).await;
    finished(&w, "FailureTarget").await;
    w.see("too many restarts").await;
    wind_up(&w, "Failed").await;
    w.see("failed").await;
}

async fn on_failure_within(w: World) {
    let spec = json!({"backoffLimit": 4, "template": {"spec": {"restartPolicy": "OnFailure"}}});
    w.create(job("j", spec)).await;
    w.until_pods(1).await;
    w.run_as(&w.pods()[0], true, 2).await;
    w.see("restarted").await;
    w.end(&w.pods()[0], 0).await;
    finished(&w, "Complete").await;
    w.see("complete").await;
}

async fn per_index(w: World, (limit, max_failed): (i32, Option<i32>)) {
    let mut spec = json!({
        "completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "backoffLimitPerIndex": limit,
    });
    if let Some(max) = max_failed {
        spec["maxFailedIndexes"] = json!(max);
    }
    w.create(job("j", spec)).await;
    w.until_pods(3).await;
    for failed in 1..=limit + 1 {
        let pod = pod_of(&w, "1").await;
        w.end(&pod, 1).await;
        counted(&w, "failed", failed).await;
    }
    w.until_field("Job", "j", "/status/failedIndexes", json!("1"))
        .await;
    if max_failed == Some(0) {
        wind_up(&w, "Failed").await;
    } else {
        for i in ["0", "2"] {
            let pod = pod_of(&w, i).await;
            w.end(&pod, 0).await;
        }
        finished(&w, "Failed").await;
    }
    w.see("failed").await;
}

#[derive(Clone, Copy)]
enum Ending {
    Code(i32),
    Disrupted,
}

fn failure_rules() -> Vec<(&'static str, Value, Ending)> {
    let codes = |operator: &str| json!({"operator": operator, "values": [42]});
    let disrupted = json!([{"type": "DisruptionTarget", "status": "True"}]);
    let named = json!({"operator": "In", "values": [42], "containerName": "c"});
    let other = json!({"operator": "In", "values": [42], "containerName": "other"});
    let mut all = Vec::new();
    for action in ["FailJob", "Ignore", "Count"] {
        all.push((
            match action {
                "FailJob" => "fail-on-code",
                "Ignore" => "ignore-code",
                _ => "count-code",
            },
            json!([{"action": action, "onExitCodes": codes("In")}]),
            Ending::Code(42),
        ));
        all.push((
            match action {
                "FailJob" => "fail-on-disruption",
                "Ignore" => "ignore-disruption",
                _ => "count-disruption",
            },
            json!([{"action": action, "onPodConditions": disrupted}]),
            Ending::Disrupted,
        ));
    }
    all.push((
        "not-in",
        json!([{"action": "FailJob", "onExitCodes": codes("NotIn")}]),
        Ending::Code(7),
    ));
    all.push((
        "no-match",
        json!([{"action": "FailJob", "onExitCodes": codes("In")}]),
        Ending::Code(7),
    ));
    all.push((
        "of-container",
        json!([{"action": "FailJob", "onExitCodes": named}]),
        Ending::Code(42),
    ));
    all.push((
        "first-of-two",
        json!([
            {"action": "Ignore", "onExitCodes": codes("In")},
            {"action": "FailJob", "onExitCodes": codes("In")},
        ]),
        Ending::Code(42),
    ));
    // Refused: there is no such container.
    all.push((
        "of-no-container",
        json!([{"action": "FailJob", "onExitCodes": other}]),
        Ending::Code(42),
    ));
    all
}

async fn failure_policy(w: World, (rules, end): (Value, Ending)) {
    let failing = rules[0]["action"] == "FailJob";
    let ignored = rules[0]["action"] == "Ignore";
    let spec = json!({
        "completions": 2, "parallelism": 2, "backoffLimit": 3,
        "podFailurePolicy": {"rules": rules},
    });
    let refused = rules[0]["onExitCodes"]["containerName"] == "other";
    w.create(job("j", spec)).await;
    if refused {
        w.see("refused").await;
        return;
    }
    w.until_pods(2).await;
    w.run_all().await;
    counted(&w, "ready", 2).await;
    let pod = w.pods().remove(0);
    let (exit, conditions): (i32, &[&str]) = match end {
        Ending::Code(code) => (code, &[]),
        Ending::Disrupted => (137, &["DisruptionTarget"]),
    };
    w.end_with(&pod, End { exit, conditions }).await;
    w.until("one to have ended", |w| w.pods().len() < 2).await;
    if !ignored {
        counted(&w, "failed", 1).await;
    }
    w.until("what comes of it", |w| {
        w.pods().len() == 2 || failing && w.has_condition("Job", "j", "FailureTarget")
    })
    .await;
    w.see("one failed").await;
    if w.has_condition("Job", "j", "FailureTarget") {
        wind_up(&w, "Failed").await;
    } else {
        for pod in w.pods() {
            w.end(&pod, 0).await;
        }
        finished(&w, "Complete").await;
    }
    w.see("over").await;
}

fn success_rules() -> Vec<(&'static str, Value, Vec<&'static str>)> {
    vec![
        ("index", json!([{"succeededIndexes": "1"}]), vec!["1"]),
        (
            "indexes",
            json!([{"succeededIndexes": "0,2"}]),
            vec!["2", "0"],
        ),
        ("count", json!([{"succeededCount": 2}]), vec!["0", "3"]),
        (
            "count-of-indexes",
            json!([{"succeededIndexes": "0-2", "succeededCount": 1}]),
            vec!["3", "1"],
        ),
        (
            "second-rule",
            json!([{"succeededIndexes": "0-3"}, {"succeededIndexes": "2"}]),
            vec!["2"],
        ),
    ]
}

async fn success_policy(w: World, (rules, succeed): (Value, Vec<&'static str>)) {
    let spec = json!({
        "completions": 4, "parallelism": 4, "completionMode": "Indexed",
        "successPolicy": {"rules": rules},
    });
    w.create(job("j", spec)).await;
    w.until_pods(4).await;
    w.run_all().await;
    counted(&w, "ready", 4).await;
    for (i, wanted) in succeed.iter().enumerate() {
        let pod = pod_of(&w, wanted).await;
        w.end(&pod, 0).await;
        counted(&w, "succeeded", i as i32 + 1).await;
    }
    finished(&w, "SuccessCriteriaMet").await;
    w.see("met").await;
    wind_up(&w, "Complete").await;
    w.see("complete").await;
}

async fn suspend(w: World, mode: &'static str) {
    let spec = json!({"completions": 2, "parallelism": 2, "completionMode": mode});
    w.create(job("j", spec)).await;
    w.until_pods(2).await;
    w.run_all().await;
    counted(&w, "ready", 2).await;
    w.patch("Job", "j", json!({"spec": {"suspend": true}}))
        .await;
    finished(&w, "Suspended").await;
    w.see("suspended").await;
    w.kubelets();
    w.until("no pods", |w| w.list("Pod").is_empty()).await;
    w.see("pods are gone").await;
    w.patch("Job", "j", json!({"spec": {"suspend": false}}))
        .await;
    w.until_pods(2).await;
    counted(&w, "ready", 2).await;
    w.see("resumed").await;
}

async fn suspended(w: World) {
    w.create(job(
        "j",
        json!({"suspend": true, "completions": 2, "parallelism": 2}),
    ))
    .await;
    finished(&w, "Suspended").await;
    w.see("suspended").await;
    w.patch("Job", "j", json!({"spec": {"suspend": false}}))
        .await;
    w.until_pods(2).await;
    w.see("resumed").await;
}

async fn template_changed(w: World) {
    w.create(job("j", json!({"suspend": true}))).await;
    finished(&w, "Suspended").await;
    let template =
        json!({"metadata": {"labels": {"new": "yes"}}, "spec": {"nodeSelector": {"a": "b"}}});
    w.patch("Job", "j", json!({"spec": {"template": template}}))
        .await;
    w.patch("Job", "j", json!({"spec": {"suspend": false}}))
        .await;
    w.until_pods(1).await;
    w.see("resumed").await;
}

async fn elastic(w: World) {
    let spec = json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed"});
    w.create(job("j", spec)).await;
    w.until_pods(4).await;
    w.patch(
        "Job",
        "j",
        json!({"spec": {"completions": 2, "parallelism": 2}}),
    )
    .await;
    w.until_pods(2).await;
    w.see("fewer").await;
    for i in ["0", "1"] {
        let pod = pod_of(&w, i).await;
        w.end(&pod, 0).await;
    }
    finished(&w, "Complete").await;
    w.see("complete").await;
}

async fn scale(w: World, mode: &'static str) {
    let spec = json!({"completions": 6, "parallelism": 4, "completionMode": mode});
    w.create(job("j", spec)).await;
    w.until_pods(4).await;
    // The one that runs is kept. Which of those that wait are, depends on who makes four pods
    // within a second.
    w.run(&w.pods()[0]).await;
    counted(&w, "ready", 1).await;
    w.patch("Job", "j", json!({"spec": {"parallelism": 1}}))
        .await;
    w.until_pods(1).await;
    w.see("fewer").await;
    w.patch("Job", "j", json!({"spec": {"parallelism": 3}}))
        .await;
    w.until_pods(3).await;
    w.see("more").await;
}

async fn pod_gone(w: World, mode: &'static str) {
    w.create(job("j", json!({"completions": 1, "completionMode": mode})))
        .await;
    w.until_pods(1).await;
    w.run_all().await;
    counted(&w, "ready", 1).await;
    w.kill(&w.pods()[0]).await;
    counted(&w, "failed", 1).await;
    w.until_pods(1).await;
    w.see("replaced").await;
    w.end(&w.pods()[0], 0).await;
    finished(&w, "Complete").await;
    w.see("complete").await;
}

async fn deadline(w: World) {
    w.create(job("j", json!({"activeDeadlineSeconds": 3})))
        .await;
    w.until_pods(1).await;
    w.run_all().await;
    finished(&w, "FailureTarget").await;
    w.see("too late").await;
    wind_up(&w, "Failed").await;
    w.see("failed").await;
}

async fn deadline_suspended(w: World) {
    w.create(job(
        "j",
        json!({"activeDeadlineSeconds": 2, "suspend": true}),
    ))
    .await;
    w.pass(Duration::from_secs(3)).await;
    w.see("the clock stands").await;
}

async fn replacement(w: World, policy: &'static str) {
    w.create(job("j", json!({"podReplacementPolicy": policy})))
        .await;
    w.until_pods(1).await;
    w.run_all().await;
    counted(&w, "ready", 1).await;
    let pod = w.pods().remove(0);
    let name = pod["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    w.delete("Pod", &name, Propagation::Background).await;
    counted(&w, "terminating", 1).await;
    w.pass(Duration::from_secs(2)).await;
    w.see("it ends").await;
    w.end(&pod, 137).await;
    w.kill(&pod).await;
    w.until_pods(1).await;
    w.see("replaced").await;
}

async fn managed_by(w: World) {
    w.create(job("j", json!({"managedBy": "example.com/other"})))
        .await;
    w.see("left alone").await;
}

async fn adopt(w: World) {
    w.create(job("j", json!({"parallelism": 2, "completions": 2})))
        .await;
    w.until_pods(2).await;
    let name = w.pods()[0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    w.patch("Pod", &name, json!({"metadata": {"ownerReferences": null}}))
        .await;
    w.until("it to be adopted", |w| {
        !w.field("Pod", &name, "/metadata/ownerReferences").is_null()
    })
    .await;
    w.see("adopted").await;
    w.patch("Pod", &name, json!({"metadata": {"labels": null}}))
        .await;
    w.until_pods(3).await;
    w.see("released").await;
}

async fn manual_selector(w: World) {
    let spec = json!({
        "manualSelector": true, "selector": {"matchLabels": {"my": "job"}},
        "template": {"metadata": {"labels": {"my": "job"}}},
    });
    w.create(job("j", spec)).await;
    w.until_pods(1).await;
    w.see("created").await;
}

async fn delete(w: World, policy: Propagation) {
    w.create(job("j", json!({"parallelism": 2, "completions": 2})))
        .await;
    w.kubelets();
    counted(&w, "ready", 2).await;
    w.delete("Job", "j", policy).await;
    w.until_gone("Job", "j").await;
    if policy != Propagation::Orphan {
        w.until("no pods", |w| w.list("Pod").is_empty()).await;
    }
    w.see("deleted").await;
}

async fn delete_complete(w: World, policy: Propagation) {
    w.create(job("j", json!({}))).await;
    w.until_pods(1).await;
    w.end(&w.pods()[0], 0).await;
    finished(&w, "Complete").await;
    w.delete("Job", "j", policy).await;
    w.until_gone("Job", "j").await;
    w.see("deleted").await;
}

async fn ttl_after(w: World, ttl: i32) {
    w.create(job("j", json!({"ttlSecondsAfterFinished": ttl})))
        .await;
    w.until_pods(1).await;
    w.end(&w.pods()[0], 0).await;
    w.until_gone("Job", "j").await;
    w.until("no pods", |w| w.list("Pod").is_empty()).await;
    w.see("gone").await;
}

async fn ttl_later(w: World) {
    w.create(job("j", json!({"backoffLimit": 0}))).await;
    w.until_pods(1).await;
    w.end(&w.pods()[0], 1).await;
    finished(&w, "Failed").await;
    w.see("failed").await;
    w.patch("Job", "j", json!({"spec": {"ttlSecondsAfterFinished": 1}}))
        .await;
    w.until_gone("Job", "j").await;
    w.see("gone").await;
}

async fn counts(w: World) {
    w.create(job("j", json!({"parallelism": 3, "completions": 3})))
        .await;
    w.until_pods(3).await;
    w.run_as(&w.pods()[0], false, 0).await;
    w.run(&w.pods()[1]).await;
    counted(&w, "ready", 1).await;
    w.see("one is ready").await;
}

async fn foreign_finalizer(w: World) {
    let meta = json!({"metadata": {"finalizers": ["example.com/mine"]}});
    w.create(merged(job("j", json!({})), meta)).await;
    w.until_pods(1).await;
    w.delete("Job", "j", Propagation::Background).await;
    w.see("held").await;
    w.patch("Job", "j", json!({"metadata": {"finalizers": null}}))
        .await;
    w.until_gone("Job", "j").await;
    w.see("gone").await;
}

async fn labels(w: World) {
    let template = json!({
        "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
        "spec": {"nodeSelector": {"e": "f"}},
    });
    w.create(job("j", json!({"template": template}))).await;
    w.until_pods(1).await;
    w.see("created").await;
}

async fn unknown_phase(w: World) {
    w.create(job("j", json!({}))).await;
    w.until_pods(1).await;
    w.run_all().await;
    counted(&w, "ready", 1).await;
    let name = w.pods()[0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    w.patch_status("Pod", &name, json!({"phase": "Unknown"}))
        .await;
    w.see("unknown").await;
}
