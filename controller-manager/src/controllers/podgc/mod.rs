//! pod-garbage-collector-controller: removes pods that nobody else will: too many that have
//! ended, those of nodes that are gone or out of service, and those that are deleted before
//! they ever had a node.

mod plan;

use std::collections::HashMap;
use std::time::Duration;

use client::informer::Store;
use client::{Api, DeleteOptions, Error, Object as _, Patch, PatchOptions, optional};
use jiff::Timestamp;
use prometheus::IntCounterVec;
use serde_json::json;

use self::plan::{Doomed, Reason};
use crate::context::{Context, Run, now};
use crate::kinds::{Node, Pod};
use crate::workload::pods::condition_patch;

const PERIOD: Duration = Duration::from_secs(20);

struct Controller {
    pods: Store<Pod>,
    nodes: Store<Node>,
    pod_api: Api<Pod>,
    node_api: Api<Node>,
    threshold: usize,
    /// By namespace and reason.
    deleted: IntCounterVec,
    failures: IntCounterVec,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("pod-garbage-collector")?;
    let pods = ctx.pods();
    let nodes = ctx.informer::<Node>();
    let controller = Controller {
        pods: pods.store().clone(),
        nodes: nodes.store().clone(),
        pod_api: Api::all(&client),
        node_api: Api::all(&client),
        deleted: ctx.meter.counters(
            "pod_gc_collector_force_delete_pods_total",
            "Pods that were deleted by force.",
            &["namespace", "reason"],
        )?,
        failures: ctx.meter.counters(
            "pod_gc_collector_force_delete_pod_errors_total",
            "Pods that could not be deleted by force.",
            &["namespace", "reason"],
        )?,
        threshold: usize::try_from(ctx.options.podgc.terminated_pod_gc_threshold).unwrap_or(0),
    };
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        pods.wait_synced().await;
        nodes.wait_synced().await;
        let mut missing = HashMap::new();
        let mut ticks = tokio::time::interval(PERIOD);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            controller.collect(&mut missing, now()).await;
        }
    })))
}

impl Controller {
    /// `missing`: nodes that pods name and that are not there, by when they were first missed.
    async fn collect(&self, missing: &mut HashMap<String, Timestamp>, now: Timestamp) {
        let pods = self.pods.list();
        let nodes = self.nodes.list();
        let mut gone = Vec::new();
        for name in plan::overdue(&pods, &nodes, missing, now) {
            // The cache may not have seen a node that has just come.
            match optional(self.node_api.get(&name).await) {
                Ok(None) => gone.push(name),
                Ok(Some(_)) => {}
                Err(err) => tracing::error!(node = name, %err, "cannot look for a node"),
            }
        }
        for doomed in plan::plan(&pods, &nodes, &gone, self.threshold) {
            let labels = [doomed.pod.namespace(), doomed.reason.label()];
            self.deleted.with_label_values(&labels).inc();
            if let Err(err) = self.delete(&doomed, now).await {
                self.failures.with_label_values(&labels).inc();
                let pod = doomed.pod.key();
                tracing::error!(%pod, %err, "cannot delete a pod");
            }
        }
    }

    async fn delete(&self, doomed: &Doomed, now: Timestamp) -> Result<(), Error> {
        let pod = &doomed.pod;
        tracing::info!(pod = %pod.key(), reason = ?doomed.reason, "PodGC is force deleting Pod");
        let api = self.pod_api.within(pod.namespace());
        if !pod.is_terminal() {
            let mut status = json!({});
            if doomed.reason == Reason::NodeGone {
                let condition = json!({
                    "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                    "message": "PodGC: node no longer exists", "lastTransitionTime": now,
                    "observedGeneration": pod.metadata.generation,
                });
                status = condition_patch(pod, condition);
            }
            status["phase"] = "Failed".into();
            status["observedGeneration"] = json!(pod.metadata.generation);
            let patch = Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": status}));
            if optional(
                api.patch_status(pod.name(), &patch, &PatchOptions::default())
                    .await,
            )?
            .is_none()
            {
                return Ok(());
            }
        }
        optional(api.delete(pod.name(), &DeleteOptions::new().now()).await).map(drop)
    }
}
