//! node-lifecycle-controller: says of nodes that went silent that nobody knows how they are,
//! taints nodes by their conditions, and marks the pods of dead nodes not ready.

mod health;
mod metrics;
mod node_taints;
mod pods;
pub mod taints;
mod zones;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey, Patch, PatchOptions, SlimMeta, slim_kind};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::health::{GracePeriods, Health, Verdict};
use self::metrics::Metrics;
use self::taints::{NOT_READY, UNREACHABLE};
use self::zones::{Disruption, Rates, Zones, zone_key};
use crate::context::{Context, Run, enqueue_all};
use crate::events::Recorder;
use crate::kinds::{Node, Pod};
use crate::workload::index;

/// Nodes that are looked at, or written, at the same time.
const PARALLEL: usize = 8;
/// Between looks at the queues of nodes to taint, as long as there are any.
const TAINT_PERIOD: Duration = Duration::from_millis(100);

/// A node's heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Lease {
    pub metadata: SlimMeta,
    pub spec: LeaseSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    pub renew_time: Option<MicroTime>,
}

slim_kind!(
    Lease,
    "coordination.k8s.io",
    "v1",
    "Lease",
    "leases",
    namespaced
);

const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The reference of an event to a node.
pub fn node_reference(name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

struct Controller {
    nodes: Store<Node>,
    leases: Store<Lease>,
    pods: Store<Pod>,
    pods_by_node: Index<Pod>,
    node_api: Api<Node>,
    pod_api: Api<Pod>,
    events: Recorder,
    periods: GracePeriods,
    rates: Rates,
    memory: Mutex<Memory>,
    /// Wakes the loop that taints.
    taint: tokio::sync::Notify,
    metrics: Metrics,
}

/// What is remembered between looks.
#[derive(Default)]
struct Memory {
    health: HashMap<String, Health>,
    /// Ready status as of the last look.
    ready: HashMap<String, String>,
    /// Names and UIDs of known nodes.
    known: HashMap<String, String>,
    zones: Zones,
    /// Nodes whose pods could not all be marked.
    retry: HashSet<String>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("node-controller")?;
    let nodes = ctx.informer::<Node>();
    let leases = ctx.informer::<Lease>();
    let pods = ctx.pods();
    let options = &ctx.options.nodelifecycle;
    let controller = Arc::new(Controller {
        nodes: nodes.store().clone(),
        leases: leases.store().clone(),
        pods: pods.store().clone(),
        pods_by_node: index::pods_by_node(&pods),
        node_api: Api::all(&client),
        pod_api: Api::all(&client),
        events: ctx.recorder("node-controller"),
        periods: GracePeriods {
            startup: options.node_startup_grace_period.get(),
            monitor: options.node_monitor_grace_period.get(),
        },
        rates: Rates {
            normal: options.node_eviction_rate,
            secondary: options.secondary_node_eviction_rate,
            large_cluster: options.large_cluster_size_threshold.get(),
            unhealthy_threshold: options.unhealthy_zone_threshold,
        },
        memory: Mutex::default(),
        taint: tokio::sync::Notify::new(),
        metrics: Metrics::new(&ctx.meter)?,
    });
    let node_queue: Queue<ObjectKey> = ctx.queue("node_lifecycle_controller");
    enqueue_all(&nodes, &node_queue);
    let pod_queue: Queue<ObjectKey> = ctx.queue("node_lifecycle_controller_pods");
    let queue = pod_queue.clone();
    pods.add_handler(move |change| {
        let node = |p: &Arc<Pod>| p.spec.node_name.clone();
        let assigned = change.current().map(node).filter(|n| !n.is_empty());
        if assigned.is_some() && assigned != change.previous().map(node) {
            queue.add(change.key());
        }
    });
    let c = Arc::clone(&controller);
    nodes.add_handler(move |change| {
        if let Change::Deleted(node) = change {
            c.memory.lock().retry.remove(node.name());
        }
    });
    let period = ctx.options.generic.node_monitor_period.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        nodes.wait_synced().await;
        leases.wait_synced().await;
        pods.wait_synced().await;
        let for_nodes = Arc::clone(&controller);
        let for_pods = Arc::clone(&controller);
        tokio::join!(
            node_queue.run(PARALLEL, &stop, move |key| {
                let controller = Arc::clone(&for_nodes);
                async move { controller.sync_node(&key).await }
            }),
            pod_queue.run(4, &stop, move |key| {
                let controller = Arc::clone(&for_pods);
                async move { controller.sync_pod(&key).await }
            }),
            controller.monitor_loop(period, &stop),
            controller.taint_loop(&stop),
        );
    })))
}

impl Controller {
    /// Taints and labels that follow from a node's conditions.
    async fn sync_node(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(node) = self.nodes.get_key(key) else {
            return Ok(Requeue::No);
        };
        let (add, remove) = taints::no_schedule(&node);
        node_taints::swap(&self.node_api, &node, "NoSchedule", &add, &remove).await?;
        let labels = taints::labels_to_update(&node);
        if !labels.is_empty() {
            let labels: BTreeMap<_, _> = labels.into_iter().collect();
            let patch = Patch::Strategic(json!({"metadata": {"labels": labels}}));
            self.node_api
                .patch(node.name(), &patch, &PatchOptions::default())
                .await?;
        }
        Ok(Requeue::No)
    }

    /// A pod that has come to a dead node is not ready, whatever it says.
    async fn sync_pod(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(pod) = self.pods.get_key(key) else {
            return Ok(Requeue::No);
        };
        let status = self.memory.lock().ready.get(&*pod.spec.node_name).cloned();
        if status.is_some_and(|s| s != "True") {
            pods::mark_not_ready(&self.pod_api, &self.events, &[pod]).await?;
        }
        Ok(Requeue::No)
    }

    async fn monitor_loop(&self, period: Duration, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(period.max(Duration::from_millis(100)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.monitor().await;
        }
    }

    /// Looks at all nodes.
    async fn monitor(&self) {
        let began = Instant::now();
        let nodes = self.nodes.list();
        self.greet(&nodes).await;
        let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for some in nodes.chunks(PARALLEL) {
            let statuses = join_all(some.iter().map(async |node| {
                let began = Instant::now();
                let status = self.look_at(node).await;
                self.metrics.one.observe(began.elapsed().as_secs_f64());
                status
            }))
            .await;
            for (node, status) in some.iter().zip(statuses) {
                let Some(status) = status else { continue };
                if node
                    .metadata
                    .labels
                    .contains_key("node.kubernetes.io/exclude-disruption")
                {
                    continue;
                }
                let count = counts.entry(zone_key(node)).or_default();
                if status == "True" {
                    count.0 += 1
                } else {
                    count.1 += 1
                }
            }
        }
        self.metrics.seen(&counts);
        self.metrics.all.observe(began.elapsed().as_secs_f64());
        let disruption = self
            .memory
            .lock()
            .zones
            .update(&counts, &self.rates, Timestamp::now());
        match disruption {
            Disruption::None => {}
            Disruption::Entered => {
                tracing::info!(
                    "Controller detected that all Nodes are not-Ready. Entering master disruption mode"
                );
                for node in &nodes {
                    self.mark_reachable(node).await;
                }
            }
            Disruption::Left => {
                tracing::info!(
                    "Controller detected that some Nodes are Ready. Exiting master disruption mode"
                );
                let now = Timestamp::now();
                self.memory
                    .lock()
                    .health
                    .values_mut()
                    .for_each(|h| h.probed = now);
            }
        }
        self.taint.notify_one();
    }

    /// Takes in nodes that are new, and forgets those that are gone.
    async fn greet(&self, nodes: &[Arc<Node>]) {
        let mut added = Vec::new();
        {
            let mut memory = self.memory.lock();
            let now = Timestamp::now();
            for node in nodes {
                memory.zones.ensure(&zone_key(node), &self.rates, now);
                if !memory.known.contains_key(node.name()) {
                    memory
                        .known
                        .insert(node.name().to_owned(), node.uid().to_owned());
                    added.push(Arc::clone(node));
                }
            }
            let gone: Vec<(String, String)> = {
                let present: HashSet<&str> = nodes.iter().map(|n| n.name()).collect();
                let gone = memory
                    .known
                    .iter()
                    .filter(|(name, _)| !present.contains(name.as_str()));
                gone.map(|(n, u)| (n.clone(), u.clone())).collect()
            };
            for (name, uid) in gone {
                memory.known.remove(&name);
                memory.health.remove(&name);
                memory.ready.remove(&name);
                self.node_event(
                    &name,
                    &uid,
                    "RemovingNode",
                    &format!("Removing Node {name} from Controller"),
                );
            }
        }
        for node in added {
            let message = format!("Registered Node {} in Controller", node.name());
            self.node_event(node.name(), node.uid(), "RegisteredNode", &message);
            self.mark_reachable(&node).await;
        }
    }

    fn node_event(&self, name: &str, uid: &str, reason: &str, event: &str) {
        let message = format!("Node {name} event: {event}");
        self.events
            .event(&node_reference(name, uid), false, reason, message);
    }

    /// Looks at one node; returns its Ready status. `None` if it could not be dealt with.
    async fn look_at(&self, node: &Arc<Node>) -> Option<String> {
        let verdict = match self.judge(node).await {
            Ok(verdict) => verdict,
            Err(err) => {
                tracing::error!(node = node.name(), %err, "cannot update the health of a node");
                return None;
            }
        };
        let name = node.name().to_owned();
        {
            let mut memory = self.memory.lock();
            let is_new = memory.health.insert(name.clone(), verdict.health).is_none();
            if is_new {
                // The last leader may have ended before it had marked the pods of a dead node.
                memory.retry.insert(name.clone());
            }
            match &verdict.is {
                Some(status) => memory.ready.insert(name.clone(), status.clone()),
                None => memory.ready.remove(&name),
            };
        }
        let Some(status) = verdict.is else {
            return Some("Unknown".to_owned());
        };
        self.evict_by_taint(node, &status).await;
        let needs_retry = self.memory.lock().retry.contains(&name);
        let went_down = status != "True" && verdict.was == "True";
        if went_down {
            let message = format!("Node {name} status is now: NodeNotReady");
            self.events.event(
                &node_reference(&name, node.uid()),
                false,
                "NodeNotReady",
                message,
            );
        }
        if went_down || (needs_retry && verdict.was != "True") {
            let pods = self.pods_by_node.get(&name);
            if let Err(err) = pods::mark_not_ready(&self.pod_api, &self.events, &pods).await {
                tracing::error!(node = name, %err, "unable to mark all pods NotReady");
                self.memory.lock().retry.insert(name);
                return Some(status);
            }
        }
        self.memory.lock().retry.remove(&name);
        Some(status)
    }

    /// Judges a node and writes conditions if it has been silent for too long.
    async fn judge(&self, node: &Arc<Node>) -> Result<Verdict, Error> {
        const ATTEMPTS: usize = 5;
        let mut node = Arc::clone(node);
        let mut attempt = 1;
        loop {
            let known = self.memory.lock().health.get(node.name()).cloned();
            let lease = self.leases.get(LEASE_NAMESPACE, node.name());
            let renewed = lease.and_then(|l| l.spec.renew_time.as_ref().map(|t| t.0));
            let verdict = health::look(
                &node,
                known.as_ref(),
                renewed,
                self.periods,
                Timestamp::now(),
            );
            let Some(conditions) = &verdict.write else {
                return Ok(verdict);
            };
            // Only if the kubelet has not written in between.
            let patch = Patch::Strategic(json!({
                "metadata": {"resourceVersion": node.resource_version()},
                "status": health::condition_patch(&node, conditions),
            }));
            match self
                .node_api
                .patch_status(node.name(), &patch, &PatchOptions::default())
                .await
            {
                Ok(_) => return Ok(verdict),
                Err(e) if e.is_conflict() && attempt < ATTEMPTS => {
                    attempt += 1;
                    node = Arc::new(self.node_api.get(node.name()).await?);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Sees that the right `NoExecute` taint comes to the node, in its zone's time, or goes.
    async fn evict_by_taint(&self, node: &Node, status: &str) {
        let (wanted, other) = match status {
            "True" => {
                self.mark_reachable(node).await;
                return;
            }
            "False" => (NOT_READY, UNREACHABLE),
            _ => (UNREACHABLE, NOT_READY),
        };
        let taints = &node.spec.taints;
        if taints::has(taints, other, "NoExecute") {
            // It is being evicted already: only the reason changes.
            let swapped =
                node_taints::swap(&self.node_api, node, "NoExecute", &[wanted], &[other]).await;
            if let Err(err) = swapped {
                tracing::error!(node = node.name(), %err, "cannot swap the taint, trying again in the next cycle");
            }
            return;
        }
        let tainted = taints::has(taints, wanted, "NoExecute");
        if let Some(queue) = self.memory.lock().zones.queue(&zone_key(node)) {
            if !tainted {
                queue.remove(node.name());
            }
            if queue.add(node.name()) && !tainted {
                tracing::info!(
                    node = node.name(),
                    status,
                    "Node is not ready, adding it to the taint queue"
                );
            }
        }
    }

    async fn mark_reachable(&self, node: &Node) {
        let removed = node_taints::swap(
            &self.node_api,
            node,
            "NoExecute",
            &[],
            &[UNREACHABLE, NOT_READY],
        )
        .await;
        if let Err(err) = removed {
            tracing::error!(node = node.name(), %err, "cannot remove taints, trying again in the next cycle");
            return;
        }
        if let Some(queue) = self.memory.lock().zones.queue(&zone_key(node)) {
            queue.remove(node.name());
        }
    }

    /// Taints the nodes that are waiting for it, at the rates of their zones.
    async fn taint_loop(&self, stop: &CancellationToken) {
        loop {
            let waiting = self
                .memory
                .lock()
                .zones
                .queues()
                .any(|(_, q)| q.has_waiting());
            let wake = async {
                if waiting {
                    tokio::time::sleep(TAINT_PERIOD).await;
                } else {
                    self.taint.notified().await;
                }
            };
            if stop.run_until_cancelled(wake).await.is_none() {
                return;
            }
            let now = Timestamp::now();
            let due: Vec<(String, String)> = {
                let mut memory = self.memory.lock();
                let queues = memory.zones.queues();
                queues
                    .filter_map(|(zone, q)| Some((zone.clone(), q.next(now)?)))
                    .collect()
            };
            for (zone, name) in due {
                if let Err(err) = self.taint_now(&name).await {
                    tracing::error!(node = name, %err, "unable to taint an unresponsive node");
                    if let Some(queue) = self.memory.lock().zones.queue(&zone) {
                        queue.again(name);
                    }
                }
            }
        }
    }

    async fn taint_now(&self, name: &str) -> Result<(), Error> {
        let Some(node) = self.nodes.get("", name) else {
            return Ok(());
        };
        let (wanted, other) = match node.condition("Ready").map(|c| &*c.status) {
            Some("False") => (NOT_READY, UNREACHABLE),
            Some("Unknown") => (UNREACHABLE, NOT_READY),
            // It is ready by now.
            _ => return Ok(()),
        };
        node_taints::swap(&self.node_api, &node, "NoExecute", &[wanted], &[other]).await?;
        self.metrics.evicted(&zone_key(&node));
        Ok(())
    }
}
