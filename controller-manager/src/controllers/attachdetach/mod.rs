//! persistentvolume-attach-detach-controller: asks CSI drivers, by VolumeAttachments, to attach
//! the volumes of pods to their nodes and to detach what no pod there uses any more, and tells
//! kubelets what is attached.
//!
//! Disks that nodes bring in by themselves have no driver: a kubelet may use one as long as its
//! node's status says that it is attached, and that is all there is to it.

mod plan;
pub mod volume;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, Patch, PatchOptions, optional};
use k8s_openapi::api::core::v1::{Node as FullNode, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment, VolumeAttachmentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::plan::{Attachment, Detach, Plan, Wanted};
use self::volume::{Attachable, Driver};
use crate::context::{Context, Run, retry_conflicts};
use crate::events::{Recorder, reference};
use crate::kinds::{Node, Pod};
use crate::workload::{index, volumes};

/// On nodes whose kubelets leave attaching to this controller.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Nodes at a time.
const WORKERS: usize = 10;
/// Between looks whether the cache knows of what was written, and how long to look: revisions begin
/// anew where somebody restores a backup.
const STALE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// What a node has and waits for, by what was last decided: the cache tells of it later.
#[derive(Default)]
struct Holding {
    holds: BTreeSet<String>,
    /// What other nodes have.
    waits: BTreeSet<String>,
    /// What its kubelet used when it was last heard of.
    in_use: BTreeSet<String>,
    /// The node's revision that the last report made, and when.
    reported: Option<(u64, Instant)>,
}

struct Controller {
    pods: Store<Pod>,
    pods_by_node: Index<Pod>,
    pods_by_claim: Index<Pod>,
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
    volumes_by_unique: Index<PersistentVolume>,
    attachments_by_node: Index<VolumeAttachment>,
    /// By the PersistentVolume, or the unique name of a pod's own volume.
    attachments_by_volume: Index<VolumeAttachment>,
    drivers: Store<CSIDriver>,
    nodes: Store<Node>,
    nodes_by_disk: Index<Node>,
    holdings: Mutex<HashMap<String, Holding>>,
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
        volumes_by_unique: volumes.add_index("attachable", |volume| {
            let attachable = volume::persistent(volume).map(|a| a.unique);
            attachable.into_iter().collect()
        }),
        attachments_by_node: attachments.add_index("node", |a| vec![a.spec.node_name.clone()]),
        attachments_by_volume: attachments.add_index("volume", |a| {
            let name = a.spec.source.persistent_volume_name.clone();
            name.or_else(|| own(a)).into_iter().collect()
        }),
        drivers: drivers.store().clone(),
        nodes: nodes.store().clone(),
        nodes_by_disk: nodes.add_index("disk", |node| {
            let attached = node.status.volumes_attached.iter();
            let names = attached.map(|v| v.name.to_string());
            names.filter(|name| volume::is_disk(name)).collect()
        }),
        holdings: Mutex::default(),
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
        if let Some(unique) = c.unique_of(attachment) {
            c.wake(&BTreeSet::from([unique]));
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
    let inits = pod.status.init_container_statuses.iter();
    let statuses = pod.status.container_statuses.iter().chain(inits);
    let none_runs = || statuses.clone().all(|c| c.state.running.is_none());
    pod.is_terminal() || pod.is_deleting() && none_runs()
}

/// What of a node matters here.
fn of_node(node: &Node) -> (bool, plan::Node) {
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
            .filter(|name| volume::is_known(name))
            .collect(),
        ready: node
            .condition("Ready")
            .is_some_and(|c| &*c.status == "True"),
        out_of_service: taints.iter().any(|t| &*t.key == OUT_OF_SERVICE),
        gone: false,
    };
    (node.metadata.annotations.contains_key(MANAGED), known)
}

/// The unique name of a pod's own volume.
fn own(attachment: &VolumeAttachment) -> Option<String> {
    let spec = attachment.spec.source.inline_volume_spec.as_ref()?;
    let csi = spec.csi.as_ref()?;
    Some(volume::unique_name(&csi.driver, &csi.volume_handle))
}

fn revision(version: &str) -> u64 {
    version.parse().unwrap_or_default()
}

impl Controller {
    fn pod_changed(&self, pod: &Pod) {
        let has_volumes = pod.claims().next().is_some() || pod.disks().next().is_some();
        if !pod.spec.node_name.is_empty() && has_volumes {
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

    /// The volume that is bound to a pod's claim, if it has to be attached. `made`: the claim is to
    /// be one that was made for the pod.
    fn volume_of(&self, pod: &Pod, claim: &str, made: bool) -> Option<Attachable> {
        let claim = self.claims.get(pod.namespace(), claim)?;
        let volume = volumes::bound(&self.volumes, &claim, made.then(|| pod.uid()))?;
        volume::persistent(&volume)
    }

    fn is_attached_by_driver(&self, volume: &Attachable) -> bool {
        let driver = volume.driver.as_ref();
        let driver = driver.and_then(|driver| self.drivers.get("", &driver.name));
        driver.is_none_or(|driver| driver.spec.attach_required.unwrap_or(true))
    }

    fn wanted(&self, node: &str) -> BTreeMap<String, Wanted> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        for pod in self.pods_by_node.get(node) {
            if is_ended(&pod) {
                continue;
            }
            let claims = pod.claims();
            let bound = claims.filter_map(|(claim, made)| self.volume_of(&pod, &claim, made));
            let disks = pod.disks();
            let disks = disks.filter_map(|disk| volume::inline(disk, pod.namespace()));
            for volume in bound.chain(disks) {
                if !self.is_attached_by_driver(&volume) {
                    continue;
                }
                let entry = wanted.entry(volume.unique.clone());
                let entry = entry.or_insert_with(|| Wanted {
                    volume,
                    pods: Vec::new(),
                });
                entry.pods.push(pod.key());
            }
        }
        wanted
    }

    /// The driver's volume that an attachment is of.
    fn driver_of(&self, attachment: &VolumeAttachment) -> Option<(String, Driver)> {
        let source = &attachment.spec.source;
        let Some(name) = source.persistent_volume_name.as_deref() else {
            let csi = source.inline_volume_spec.as_ref()?.csi.as_ref()?;
            let driver = Driver {
                name: csi.driver.clone(),
                handle: csi.volume_handle.clone(),
                source: source.clone(),
            };
            return Some((own(attachment)?, driver));
        };
        let volume = volume::persistent(&*self.volumes.get("", name)?)?;
        Some((volume.unique, volume.driver?))
    }

    fn unique_of(&self, attachment: &VolumeAttachment) -> Option<String> {
        self.driver_of(attachment).map(|(unique, _)| unique)
    }

    /// Attachments of a node by the unique names of their volumes; only those that bear the
    /// name that this controller gives.
    fn attached(&self, node: &str) -> BTreeMap<String, Attachment> {
        let mut attached = BTreeMap::new();
        for attachment in self.attachments_by_node.get(node) {
            let Some((unique, driver)) = self.driver_of(&attachment) else {
                continue;
            };
            let name = driver.attachment(node);
            if attachment.name() != name {
                continue;
            }
            let status = attachment.status.as_ref();
            let known = Attachment {
                name: Some(name),
                attached: status.is_some_and(|s| s.attached),
                deleting: attachment.metadata.deletion_timestamp.is_some(),
            };
            attached.insert(unique, known);
        }
        attached
    }

    /// The other nodes that have a volume, or are about to.
    fn elsewhere(&self, unique: &str, node: &str) -> BTreeSet<String> {
        let volumes = self.volumes_by_unique.get(unique);
        let names = volumes.iter().map(|volume| volume.name());
        let attachments = names
            .chain([unique])
            .flat_map(|name| self.attachments_by_volume.get(name));
        let mut nodes: BTreeSet<String> = attachments.map(|a| a.spec.node_name.clone()).collect();
        let disks = self.nodes_by_disk.get(unique);
        nodes.extend(disks.iter().map(|node| node.name().to_owned()));
        let holdings = self.holdings.lock();
        let holders = holdings.iter().filter(|(_, h)| h.holds.contains(unique));
        nodes.extend(holders.map(|(node, _)| node.clone()));
        nodes.remove(node);
        nodes
    }

    /// Looks at nodes again that wait for volumes which others may have let go of.
    fn wake(&self, free: &BTreeSet<String>) {
        for (node, holding) in &*self.holdings.lock() {
            if !holding.waits.is_disjoint(free) {
                self.queue.add(node.clone());
            }
        }
    }

    /// Plans for a node and notes what it will have, in one step: of two nodes that want a volume
    /// at the same time one gets it.
    fn decide(
        &self,
        name: &str,
        wanted: &BTreeMap<String, Wanted>,
        node: &plan::Node,
        waited: impl Fn(&str) -> Duration,
    ) -> Plan {
        let attached = self.attached(name);
        let exclusive = wanted.iter().filter(|(_, w)| !w.volume.shared);
        let taken: BTreeSet<&str> = exclusive
            .map(|(unique, _)| unique.as_str())
            .filter(|unique| !self.elsewhere(unique, name).is_empty())
            .collect();
        let mut holdings = self.holdings.lock();
        let others = holdings.iter().filter(|(other, _)| *other != name);
        let elsewhere = |unique: &str| {
            taken.contains(unique) || others.clone().any(|(_, h)| h.holds.contains(unique))
        };
        let plan = plan::plan(wanted, &attached, node, elsewhere, waited, self.force);
        // Of a node that is gone nobody will say that it has let go.
        let let_go = |unique: &String| node.gone && plan.detach.iter().any(|d| d.volume == *unique);
        let before = node.reported.iter().filter(|unique| !let_go(unique));
        let soon = plan.report.iter().flatten().chain(&plan.attach);
        let all = attached.keys().chain(before).chain(soon);
        let holds: BTreeSet<String> = all.cloned().collect();
        let holding = holdings.entry(name.to_owned()).or_default();
        let before = std::mem::replace(&mut holding.holds, holds);
        holding.in_use.clone_from(&node.in_use);
        holding.waits = plan.taken.iter().cloned().collect();
        let free: BTreeSet<String> = before.difference(&holding.holds).cloned().collect();
        if node.gone && holding.holds.is_empty() {
            holdings.remove(name);
        }
        drop(holdings);
        if !free.is_empty() {
            self.wake(&free);
        }
        // Who has let go meanwhile did not know that somebody waits.
        let mut waits = plan.taken.iter();
        if waits.any(|unique| self.elsewhere(unique, name).is_empty()) {
            self.queue.add(name.to_owned());
        }
        plan
    }

    /// A node that is gone, with what it had when it was last heard of: its machine may well run on.
    fn gone(&self, name: &str) -> plan::Node {
        let gone = plan::Node {
            gone: true,
            ..plan::Node::default()
        };
        match self.holdings.lock().get(name) {
            Some(last) => {
                let holds = last.holds.iter().filter(|unique| volume::is_disk(unique));
                plan::Node {
                    in_use: last.in_use.clone(),
                    reported: holds.cloned().collect(),
                    ..gone
                }
            }
            // Nobody knows what it uses.
            None => plan::Node {
                in_use: self.attached(name).into_keys().collect(),
                ..gone
            },
        }
    }

    async fn sync(&self, name: &str) -> Result<Requeue, Error> {
        let observed = self.nodes.get("", name);
        let (managed, node) = match observed.as_deref() {
            Some(node) => of_node(node),
            // What was attached to a node that is gone is detached all the same.
            None => (true, self.gone(name)),
        };
        if !managed {
            self.holdings.lock().remove(name);
            return Ok(Requeue::No);
        }
        let now = Instant::now();
        let version = observed.as_ref().map(|n| n.resource_version().to_owned());
        let reported = self.holdings.lock().get(name).and_then(|h| h.reported);
        if let (Some(version), Some((reported, at))) = (&version, reported)
            && revision(version) < reported
            && now - at < PATIENCE
        {
            // What was said of disks lately is not known here yet.
            return Ok(Requeue::After(STALE));
        }
        let wanted = self.wanted(name);
        let since = self.unwanted.lock().get(name).cloned().unwrap_or_default();
        let waited = |volume: &str| {
            let since = since.get(volume);
            since.map_or_else(Default::default, |at| now - *at)
        };
        let plan = self.decide(name, &wanted, &node, waited);
        let still = plan.unwanted.iter().cloned();
        let still: BTreeMap<_, _> = still
            .map(|volume| {
                let at = since.get(&volume).copied().unwrap_or(now);
                (volume, at)
            })
            .collect();
        if still.is_empty() {
            self.unwanted.lock().remove(name);
        } else {
            self.unwanted.lock().insert(name.to_owned(), still);
        }
        self.apply(name, version, &wanted, &plan).await?;
        Ok(plan.wait.map_or(Requeue::No, Requeue::After))
    }

    async fn apply(
        &self,
        node: &str,
        version: Option<String>,
        wanted: &BTreeMap<String, Wanted>,
        plan: &Plan,
    ) -> Result<(), Error> {
        // Kubelets must not mount what is about to go. Of disks that is all: a kubelet that says
        // that it uses one was either heard, or will hear.
        if let Some(report) = &plan.report {
            let mut detached = plan.detach.iter();
            let lets_go = detached.any(|d| d.attachment.is_none() && !d.force);
            let version = version.filter(|_| lets_go);
            self.report(node, version, report).await?;
        }
        for name in &plan.ready {
            let Some(volume) = wanted.get(name) else {
                continue;
            };
            let message = format!(
                "AttachVolume.Attach succeeded for volume {:?} ",
                volume.volume.name
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
            if let Some(wanted) = wanted.get(name)
                && let Some(driver) = &wanted.volume.driver
            {
                self.attach(node, wanted, driver).await?;
            }
        }
        Ok(())
    }

    /// Says in the node's status what is attached; given a version, only if nobody has changed the
    /// node since.
    async fn report(
        &self,
        node: &str,
        version: Option<String>,
        volumes: &[String],
    ) -> Result<(), Error> {
        let others = self.nodes.get("", node);
        let others = others.iter().flat_map(|n| n.status.volumes_attached.iter());
        let others = others.filter(|v| !volume::is_known(&v.name));
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
        let mut patch = json!({"status": {"volumesAttached": all}});
        if let Some(version) = version {
            patch["metadata"] = json!({"resourceVersion": version});
        }
        let patch = Patch::Strategic(patch);
        let patched = self
            .node_api
            .patch_status(node, &patch, &PatchOptions::default())
            .await;
        if let Some(patched) = optional(patched)? {
            let mut holdings = self.holdings.lock();
            let holding = holdings.entry(node.to_owned()).or_default();
            holding.reported = Some((revision(patched.resource_version()), Instant::now()));
        }
        Ok(())
    }

    async fn detach(&self, node: &str, detach: &Detach) -> Result<(), Error> {
        let Some(attachment) = &detach.attachment else {
            tracing::info!(
                node,
                volume = detach.volume,
                force = detach.force,
                "Detached volume"
            );
            return Ok(());
        };
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
        optional(api.delete(attachment, &DeleteOptions::new()).await).map(drop)
    }

    async fn attach(&self, node: &str, wanted: &Wanted, driver: &Driver) -> Result<(), Error> {
        let name = &wanted.volume.name;
        tracing::info!(node, volume = name, "Attaching volume");
        let attachment = VolumeAttachment {
            metadata: ObjectMeta {
                name: Some(driver.attachment(node)),
                ..ObjectMeta::default()
            },
            spec: VolumeAttachmentSpec {
                attacher: driver.name.clone(),
                node_name: node.to_owned(),
                source: driver.source.clone(),
            },
            status: None,
        };
        match self.attachment_api.create(&attachment).await {
            Err(e) if !e.is_already_exists() => {
                let what = "AttachVolume.Attach failed for volume";
                let message = format!("{what} {name:?} : {e}");
                self.tell(wanted, true, "FailedAttachVolume", &message);
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
        let unique = &volume.volume.unique;
        let nodes = self.elsewhere(unique, node);
        let of = |other: &String| self.wanted(other).remove(unique);
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
            let message = format!(
                "Multi-Attach error for volume {:?} {who}",
                volume.volume.name
            );
            if let Some(pod) = self.pods.get_key(key) {
                self.events
                    .event(&reference(&*pod), true, "FailedAttachVolume", message);
            }
        }
    }
}
