//! persistentvolume-attach-detach-controller: asks CSI drivers, by VolumeAttachments, to attach
//! the volumes of pods to their nodes and to detach what no pod there uses any more, and tells
//! kubelets what is attached.
//!
//! Volumes of drivers that once were in the tree are not of concern here.

mod plan;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, Patch, PatchOptions, optional};
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, Node as FullNode, PersistentVolume, PersistentVolumeClaim,
};
use k8s_openapi::api::storage::v1::{
    CSIDriver, VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::plan::{Attachment, Detach, Plan, Wanted, unique_name};
use crate::context::{Context, Run, retry_conflicts};
use crate::events::{Recorder, reference};
use crate::kinds::{Node, Pod};
use crate::workload::index;

/// On nodes whose kubelets leave attaching to this controller.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// On nodes that keep volumes of pods that have ended.
const KEEP: &str = "volumes.kubernetes.io/keep-terminated-pod-volumes";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Nodes at a time.
const WORKERS: usize = 10;
const CSI: &str = "kubernetes.io/csi/";

struct Controller {
    pods: Store<Pod>,
    pods_by_node: Index<Pod>,
    pods_by_claim: Index<Pod>,
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
    attachments_by_node: Index<VolumeAttachment>,
    attachments_by_volume: Index<VolumeAttachment>,
    drivers: Store<CSIDriver>,
    nodes: Store<Node>,
    node_api: Api<FullNode>,
    attachment_api: Api<VolumeAttachment>,
    events: Recorder,
    /// Volumes that nobody wants on a node, since when.
    unwanted: Mutex<HashMap<String, BTreeMap<String, Instant>>>,
    /// Pods that were told that another node has their volume.
    told: Mutex<BTreeSet<(ObjectKey, String)>>,
    force: bool,
    queue: Queue<String>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("attachdetach-controller")?;
    let pods = ctx.pods();
    let claims = ctx.informer::<PersistentVolumeClaim>();
    let volumes = ctx.informer::<PersistentVolume>();
    let attachments = ctx.informer::<VolumeAttachment>();
    let drivers = ctx.informer::<CSIDriver>();
    let nodes = ctx.informer::<Node>();
    let controller = Arc::new(Controller {
        pods: pods.store().clone(),
        pods_by_node: index::pods_by_node(&pods),
        pods_by_claim: index::pods_by_claim(&pods),
        claims: claims.store().clone(),
        volumes: volumes.store().clone(),
        attachments_by_node: attachments.add_index("node", |a| vec![a.spec.node_name.clone()]),
        attachments_by_volume: attachments.add_index("volume", |a| {
            a.spec
                .source
                .persistent_volume_name
                .clone()
                .into_iter()
                .collect()
        }),
        drivers: drivers.store().clone(),
        nodes: nodes.store().clone(),
        node_api: Api::all(&client),
        attachment_api: Api::all(&client),
        events: ctx.recorder("attachdetach-controller"),
        unwanted: Mutex::default(),
        told: Mutex::default(),
        force: !ctx.options.attach_detach.disable_force_detach_on_timeout,
        queue: ctx.queue("attach_detach"),
    });
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| {
        let matters = |pod: &Pod| (pod.spec.node_name.clone(), is_ended(pod));
        if change.previous().map(|p| matters(p)) != change.current().map(|p| matters(p)) {
            c.pod_changed(change.object());
        }
        if let Change::Deleted(pod) = change {
            c.told.lock().retain(|(told, _)| *told != pod.key());
        }
    });
    let c = Arc::clone(&controller);
    claims.add_handler(move |change| c.claim_changed(&change.key()));
    let c = Arc::clone(&controller);
    volumes.add_handler(move |change| c.volume_changed(change.object()));
    let c = Arc::clone(&controller);
    attachments.add_handler(move |change| {
        let attachment = change.object();
        c.queue.add(attachment.spec.node_name.clone());
        // Another node may wait for it.
        let volume = attachment.spec.source.persistent_volume_name.as_deref();
        if let Some(volume) = volume.and_then(|v| c.volumes.get("", v)) {
            c.volume_changed(&volume);
        }
    });
    let c = Arc::clone(&controller);
    nodes.add_handler(move |change| {
        if change.previous().map(|n| of_node(n)) != change.current().map(|n| of_node(n)) {
            c.queue.add(change.object().name().to_owned());
        }
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        pods.wait_synced().await;
        claims.wait_synced().await;
        volumes.wait_synced().await;
        attachments.wait_synced().await;
        drivers.wait_synced().await;
        nodes.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(WORKERS, &stop, move |node| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&node).await) }
            })
            .await;
    })))
}

/// Of its containers none runs.
fn is_ended(pod: &Pod) -> bool {
    let statuses = pod.status.container_statuses.iter();
    let none_runs = || statuses.clone().all(|c| c.state.running.is_none());
    pod.is_terminal() || pod.is_deleting() && none_runs()
}

/// What of a node matters here.
fn of_node(node: &Node) -> (bool, bool, plan::Node) {
    let says = |key: &str| {
        node.metadata
            .annotations
            .get(key)
            .is_some_and(|v| &**v == "true")
    };
    let reported = node.status.volumes_attached.iter();
    let taints = &node.spec.taints;
    let known = plan::Node {
        in_use: node
            .status
            .volumes_in_use
            .iter()
            .map(|v| v.to_string())
            .collect(),
        reported: reported
            .map(|v| v.name.to_string())
            .filter(|name| name.starts_with(CSI))
            .collect(),
        ready: node
            .condition("Ready")
            .is_some_and(|c| &*c.status == "True"),
        out_of_service: taints.iter().any(|t| &*t.key == OUT_OF_SERVICE),
        gone: false,
    };
    (
        node.metadata.annotations.contains_key(MANAGED),
        says(KEEP),
        known,
    )
}

fn source(volume: &PersistentVolume) -> Option<&CSIPersistentVolumeSource> {
    volume.spec.as_ref()?.csi.as_ref()
}

/// Of volumes that say nothing nothing is known.
fn is_shared(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|s| s.access_modes.as_deref());
    let modes = modes.unwrap_or_default();
    modes.is_empty()
        || modes
            .iter()
            .any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany")
}

impl Controller {
    fn pod_changed(&self, pod: &Pod) {
        if !pod.spec.node_name.is_empty() && pod.claims().next().is_some() {
            self.queue.add(pod.spec.node_name.to_string());
        }
    }

    fn claim_changed(&self, claim: &ObjectKey) {
        for pod in self.pods_by_claim.get(claim.as_str()) {
            self.pod_changed(&pod);
        }
    }

    fn volume_changed(&self, volume: &PersistentVolume) {
        let claim = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        if let Some(claim) = claim {
            let part = |of: &Option<String>| of.clone().unwrap_or_default();
            self.claim_changed(&ObjectKey::new(&part(&claim.namespace), &part(&claim.name)));
        }
    }

    /// The CSI volume that is bound to a claim, if it has to be attached.
    fn volume_of(&self, namespace: &str, claim: &str) -> Option<Arc<PersistentVolume>> {
        let claim = self.claims.get(namespace, claim)?;
        let bound = claim.status.as_ref()?.phase.as_deref() == Some("Bound");
        let name = claim.spec.as_ref()?.volume_name.clone().filter(|_| bound)?;
        let volume = self.volumes.get("", &name)?;
        let driver = self.drivers.get("", &source(&volume)?.driver);
        let required = driver.is_none_or(|d| d.spec.attach_required.unwrap_or(true));
        required.then_some(volume)
    }

    fn wanted(&self, node: &str, keep: bool) -> BTreeMap<String, Wanted> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        for pod in self.pods_by_node.get(node) {
            if is_ended(&pod) && !keep {
                continue;
            }
            for (claim, _) in pod.claims() {
                let Some(volume) = self.volume_of(pod.namespace(), &claim) else {
                    continue;
                };
                let Some(csi) = source(&volume) else { continue };
                let entry = wanted.entry(unique_name(&csi.driver, &csi.volume_handle));
                let entry = entry.or_insert_with(|| Wanted {
                    volume: volume.name().to_owned(),
                    driver: csi.driver.clone(),
                    handle: csi.volume_handle.clone(),
                    pods: Vec::new(),
                    shared: is_shared(&volume),
                });
                entry.pods.push(pod.key());
            }
        }
        wanted
    }

    /// Attachments of a node by the unique names of their volumes; only those that bear the
    /// name that this controller gives.
    fn attached(&self, node: &str) -> BTreeMap<String, Attachment> {
        let mut attached = BTreeMap::new();
        for attachment in self.attachments_by_node.get(node) {
            let volume = attachment.spec.source.persistent_volume_name.as_deref();
            let Some(volume) = volume.and_then(|v| self.volumes.get("", v)) else {
                continue;
            };
            let Some(csi) = source(&volume) else { continue };
            let name = plan::attachment_name(&csi.driver, &csi.volume_handle, node);
            if attachment.name() != name {
                continue;
            }
            let status = attachment.status.as_ref();
            let known = Attachment {
                name,
                attached: status.is_some_and(|s| s.attached),
                deleting: attachment.metadata.deletion_timestamp.is_some(),
            };
            attached.insert(unique_name(&csi.driver, &csi.volume_handle), known);
        }
        attached
    }

    fn elsewhere(&self, wanted: &Wanted, node: &str) -> Vec<String> {
        let all = self.attachments_by_volume.get(&wanted.volume);
        let nodes = all.iter().map(|a| a.spec.node_name.clone());
        nodes.filter(|other| other != node).collect()
    }

    async fn sync(&self, name: &str) -> Result<Requeue, Error> {
        let (managed, keep, node) = match self.nodes.get("", name) {
            Some(node) => of_node(&node),
            // What was attached to a node that is gone is detached all the same.
            None => (
                true,
                false,
                plan::Node {
                    gone: true,
                    ..plan::Node::default()
                },
            ),
        };
        if !managed {
            return Ok(Requeue::No);
        }
        let wanted = self.wanted(name, keep);
        let now = Instant::now();
        let since = self.unwanted.lock().get(name).cloned().unwrap_or_default();
        let plan = plan::plan(
            &wanted,
            &self.attached(name),
            &node,
            |volume| !self.elsewhere(volume, name).is_empty(),
            |volume| {
                since
                    .get(volume)
                    .map_or_else(Default::default, |at| now - *at)
            },
            self.force,
        );
        let still = plan.unwanted.iter().cloned();
        let still = still.map(|volume| {
            let at = since.get(&volume).copied().unwrap_or(now);
            (volume, at)
        });
        self.unwanted
            .lock()
            .insert(name.to_owned(), still.collect());
        self.apply(name, &wanted, &plan).await?;
        Ok(plan.wait.map_or(Requeue::No, Requeue::After))
    }

    async fn apply(
        &self,
        node: &str,
        wanted: &BTreeMap<String, Wanted>,
        plan: &Plan,
    ) -> Result<(), Error> {
        // Kubelets must not mount what is about to go.
        if let Some(report) = &plan.report {
            self.report(node, report).await?;
        }
        for name in &plan.ready {
            let Some(volume) = wanted.get(name) else {
                continue;
            };
            let message = format!(
                "AttachVolume.Attach succeeded for volume {:?} ",
                volume.volume
            );
            self.tell(volume, false, "SuccessfulAttachVolume", &message);
        }
        for detach in &plan.detach {
            self.detach(node, detach).await?;
        }
        for name in &plan.taken {
            if let Some(volume) = wanted.get(name) {
                self.tell_taken(node, volume);
            }
        }
        for name in &plan.attach {
            if let Some(volume) = wanted.get(name) {
                self.attach(node, volume).await?;
            }
        }
        Ok(())
    }

    async fn report(&self, node: &str, volumes: &[String]) -> Result<(), Error> {
        let others = self.nodes.get("", node);
        let others = others.iter().flat_map(|n| n.status.volumes_attached.iter());
        let others = others.filter(|v| !v.name.starts_with(CSI));
        let mut all: Vec<Value> = others
            .map(|v| json!({"name": v.name, "devicePath": v.device_path}))
            .collect();
        all.extend(
            volumes
                .iter()
                .map(|name| json!({"name": name, "devicePath": ""})),
        );
        let all = if all.is_empty() {
            Value::Null
        } else {
            all.into()
        };
        let patch = Patch::Strategic(json!({"status": {"volumesAttached": all}}));
        let patched = self
            .node_api
            .patch_status(node, &patch, &PatchOptions::default())
            .await;
        optional(patched).map(drop)
    }

    async fn detach(&self, node: &str, detach: &Detach) -> Result<(), Error> {
        if !detach.force
            && let Some(live) = optional(self.node_api.get(node).await)?
        {
            let in_use = live
                .status
                .and_then(|s| s.volumes_in_use)
                .unwrap_or_default();
            if in_use.contains(&detach.volume) {
                return Err(Error::Request(format!(
                    "volume {:?} is still in use by node {node:?}, according to its status",
                    detach.volume
                )));
            }
        }
        tracing::info!(
            node,
            volume = detach.volume,
            force = detach.force,
            "Detaching volume"
        );
        let api = &self.attachment_api;
        optional(api.delete(&detach.attachment, &DeleteOptions::new()).await).map(drop)
    }

    async fn attach(&self, node: &str, volume: &Wanted) -> Result<(), Error> {
        tracing::info!(node, volume = volume.volume, "Attaching volume");
        let attachment = VolumeAttachment {
            metadata: ObjectMeta {
                name: Some(plan::attachment_name(&volume.driver, &volume.handle, node)),
                ..ObjectMeta::default()
            },
            spec: VolumeAttachmentSpec {
                attacher: volume.driver.clone(),
                node_name: node.to_owned(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(volume.volume.clone()),
                    ..VolumeAttachmentSource::default()
                },
            },
            status: None,
        };
        match self.attachment_api.create(&attachment).await {
            Err(e) if !e.is_already_exists() => {
                let what = "AttachVolume.Attach failed for volume";
                let message = format!("{what} {:?} : {e}", volume.volume);
                self.tell(volume, true, "FailedAttachVolume", &message);
                Err(e)
            }
            _ => Ok(()),
        }
    }

    fn tell(&self, volume: &Wanted, warning: bool, reason: &str, message: &str) {
        for key in &volume.pods {
            if let Some(pod) = self.pods.get_key(key) {
                self.events
                    .event(&reference(&*pod), warning, reason, message);
            }
        }
    }

    /// Tells each pod once who has its volume.
    fn tell_taken(&self, node: &str, volume: &Wanted) {
        let nodes = self.elsewhere(volume, node);
        let unique = unique_name(&volume.driver, &volume.handle);
        let of = |other: &String| self.wanted(other, false).remove(&unique);
        let users: Vec<_> = nodes.iter().filter_map(of).flat_map(|w| w.pods).collect();
        for key in &volume.pods {
            if !self.told.lock().insert((key.clone(), unique.clone())) {
                continue;
            }
            let (local, foreign): (Vec<_>, Vec<_>) = users
                .iter()
                .partition(|user| user.namespace() == key.namespace());
            let local: Vec<_> = local.iter().map(|user| user.name()).collect();
            let others = format!("{} pod(s) in different namespaces", foreign.len());
            let who = match (local.is_empty(), foreign.is_empty()) {
                (true, true) => "Volume is already exclusively attached to one node and can't be attached to another".to_owned(),
                (true, false) => format!("Volume is already used by {others}"),
                (false, more) => {
                    let more = if more { String::new() } else { format!(" and {others}") };
                    format!("Volume is already used by pod(s) {}{more}", local.join(", "))
                }
            };
            let message = format!("Multi-Attach error for volume {:?} {who}", volume.volume);
            if let Some(pod) = self.pods.get_key(key) {
                self.events
                    .event(&reference(&*pod), true, "FailedAttachVolume", message);
            }
        }
    }
}
