//! Keeps the node's status in the API server true: at once when it changes, and now and then even
//! if it does not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Api, Client, Informer, Patch, PatchOptions};
use grpc::cri;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::facts::NodeFacts;
use super::setters::{self, NodeSettings, Seen};
use super::{news, patch};
use crate::cri::client::CriClient;
use crate::devices::Devices;
use crate::events::{Events, Kind};
use crate::sys::node::Machine;

/// The list of images changes seldom, and is large.
const IMAGES_EVERY: Duration = Duration::from_secs(60);

/// Shows the node.
pub struct Updater {
    pub client: Client,
    pub runtime: CriClient,
    pub machine: Machine,
    pub settings: NodeSettings,
    pub facts: Arc<NodeFacts>,
    pub devices: Arc<Devices>,
    pub events: Arc<Events>,
    pub node: Informer<Node>,
    /// Wakes the updater: something of the node changed.
    pub wake: Arc<Notify>,
    /// `nodeStatusUpdateFrequency`, `nodeStatusReportFrequency`.
    pub update_every: Duration,
    pub report_every: Duration,
}

#[derive(Default)]
struct State {
    images: Vec<cri::Image>,
    images_at: Option<Instant>,
    reported: Option<Instant>,
    reboot_told: bool,
    pod_cidr: String,
    /// The last status that was sent, or meant to be.
    told: Option<NodeStatus>,
    cordoned: bool,
    /// Extended resources that are no more, until that is shown.
    removed: BTreeSet<String>,
}

impl Updater {
    /// Updates until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut state = State::default();
        let mut failures = 0;
        loop {
            let pause = match self.update(&mut state).await {
                Ok(()) => {
                    failures = 0;
                    self.update_every
                }
                Err(error) => {
                    warn!(%error, "cannot update the node's status yet");
                    failures += 1;
                    // A few quick attempts, then at the usual pace.
                    if failures < 5 {
                        Duration::from_millis(500)
                    } else {
                        self.update_every
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    async fn update(&self, state: &mut State) -> client::Result<()> {
        let nodes: Api<Node> = Api::all(&self.client);
        let cached = self.node.store().get("", &self.settings.name);
        let node = match cached {
            Some(node) => node,
            None => Arc::new(nodes.get(&self.settings.name).await?),
        };
        self.facts.update(|facts| facts.node = Some(node.clone()));
        self.once_per_boot(state, &node);
        self.tell_cordon(state, &node);
        self.pod_cidr(state, &node).await;
        if state.images_at.is_none_or(|at| at.elapsed() > IMAGES_EVERY)
            && let Ok(images) = self.runtime.list_images().await
        {
            state.images = images;
            state.images_at = Some(Instant::now());
        }

        let facts = self.facts.get();
        let shown = node.status.clone().unwrap_or_default();
        let mut devices = self.devices.capacity();
        state.removed.append(&mut devices.removed);
        state
            .removed
            .retain(|name| !devices.counts.contains_key(name));
        devices.removed.clone_from(&state.removed);
        let seen = Seen {
            facts: &facts,
            devices: &devices,
            images: &state.images,
            now: Timestamp::now(),
        };
        let status = setters::status(&shown, &self.machine, &self.settings, &seen);
        let due = state
            .reported
            .is_none_or(|at| at.elapsed() >= self.report_every);
        if !due && !setters::differs(&shown, &status) {
            return Ok(());
        }
        let before = state.told.as_ref().unwrap_or(&shown);
        for reason in news::news(before, &status) {
            self.tell(reason);
        }
        state.told = Some(status.clone());
        if let Some(patch) = patch::status(&shown, &status).unwrap_or_default() {
            debug!(%patch, "updating the node's status");
            let patch = Patch::Strategic(patch);
            nodes
                .patch_status(&self.settings.name, &patch, &PatchOptions::default())
                .await?;
        }
        state.reported = Some(Instant::now());
        state.removed.clear();
        Ok(())
    }

    fn once_per_boot(&self, state: &mut State, node: &Node) {
        if !state.reboot_told && setters::rebooted(node, &self.machine) {
            let message = format!(
                "Node {} has been rebooted, boot id: {}",
                self.settings.name, self.machine.boot_id
            );
            self.events.node(Kind::Warning, "Rebooted", &message);
        }
        state.reboot_told = true;
    }

    /// Some runtimes make their network configuration from the node's range of addresses.
    async fn pod_cidr(&self, state: &mut State, node: &Node) {
        let spec = node.spec.as_ref();
        let cidrs = spec
            .and_then(|spec| spec.pod_cidrs.as_ref())
            .map(|cidrs| cidrs.join(","));
        let cidr = cidrs
            .or_else(|| spec.and_then(|spec| spec.pod_cidr.clone()))
            .unwrap_or_default();
        if cidr != state.pod_cidr && !cidr.is_empty() {
            match self.runtime.update_pod_cidr(&cidr).await {
                Ok(()) => state.pod_cidr = cidr,
                Err(error) => {
                    warn!(%error, cidr, "cannot tell the runtime the node's range of addresses")
                }
            }
        }
    }

    fn tell_cordon(&self, state: &mut State, node: &Node) {
        let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        if std::mem::replace(&mut state.cordoned, cordoned) != cordoned {
            self.tell(if cordoned {
                "NodeNotSchedulable"
            } else {
                "NodeSchedulable"
            });
        }
    }

    fn tell(&self, reason: &str) {
        let message = format!("Node {} status is now: {reason}", self.settings.name);
        self.events.node(Kind::Normal, reason, &message);
    }
}
