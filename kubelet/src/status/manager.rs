//! The truth about this node's pods, and its way to the API server.
//!
//! A status is stored first and sent later: whoever reads it here sees the newest, whatever the
//! network does. Only what the API server does not have yet is sent, as a patch, and again until
//! it is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Api, Client, DeleteOptions, Patch, PatchOptions};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::containers::container_id;
use super::{conditions, merge};
use crate::pods::index::PodIndex;
use crate::pods::pod::{PodExt, PodUid, is_terminal_phase};

struct Entry {
    pod: Arc<Pod>,
    status: Arc<PodStatus>,
    /// Counts changes, and which of them the API server has.
    version: u64,
    sent: u64,
    /// Nothing of the pod is left on this node.
    finished: bool,
    /// The status that the API server answered last, and at which revision.
    api: Option<(u64, PodStatus)>,
}

/// Statuses of all pods of this node.
pub struct StatusManager {
    entries: Mutex<HashMap<PodUid, Entry>>,
    changed: Notify,
    index: Arc<PodIndex>,
    runtime_name: std::sync::OnceLock<String>,
}

/// Between attempts to send what could not be sent.
const RETRY: Duration = Duration::from_secs(5);

impl StatusManager {
    pub fn new(index: Arc<PodIndex>) -> Self {
        Self {
            entries: Mutex::default(),
            changed: Notify::new(),
            index,
            runtime_name: std::sync::OnceLock::new(),
        }
    }

    /// Told once the runtime has given its name: container ids in statuses begin with it.
    pub fn set_runtime_name(&self, name: &str) {
        let _ = self.runtime_name.set(name.to_owned());
    }

    /// The newest status of a pod of this node.
    pub fn get(&self, uid: &str) -> Option<Arc<PodStatus>> {
        self.entries
            .lock()
            .get(uid)
            .map(|entry| entry.status.clone())
    }

    /// Stores a status, and returns it completed.
    pub fn set(&self, pod: &Arc<Pod>, status: PodStatus) -> Arc<PodStatus> {
        self.store(pod, status, false)
    }

    /// Stores the last status of a pod: nothing of it is left on this node.
    pub fn finish(&self, pod: &Arc<Pod>) {
        let known = self.get(pod.uid()).map(|status| (*status).clone());
        let last = merge::finish(pod, &known.unwrap_or_else(|| pod.status_or_default()));
        self.store(pod, last, true);
    }

    fn store(&self, pod: &Arc<Pod>, status: PodStatus, finished: bool) -> Arc<PodStatus> {
        self.store_in(&mut self.entries.lock(), pod, status, finished)
    }

    fn store_in(
        &self,
        entries: &mut HashMap<PodUid, Entry>,
        pod: &Arc<Pod>,
        mut status: PodStatus,
        finished: bool,
    ) -> Arc<PodStatus> {
        let known = entries.get_mut(pod.uid());
        let old = match &known {
            Some(entry) => entry.status.clone(),
            None => {
                let shown = self.index.mirror_of(pod).unwrap_or_else(|| pod.clone());
                Arc::new(shown.status_or_default())
            }
        };
        if let Some(container) = merge::illegal_transition(pod, &old, &status) {
            error!(pod = %pod.full_name(), container, "a container that ended for good would be shown as not ended: keeping the old status");
            return old;
        }
        merge::carry_over(pod, &old, &mut status, Timestamp::now());
        match known {
            Some(entry) => {
                entry.pod = pod.clone();
                // The end of a pod is told even if its status is the same: it can be deleted now.
                let changed = !merge::same(&entry.status, &status) || (finished && !entry.finished);
                entry.finished |= finished;
                if changed {
                    entry.status = Arc::new(status);
                    entry.version += 1;
                    self.changed.notify_one();
                }
                entry.status.clone()
            }
            None => {
                let status = Arc::new(status);
                let entry = Entry {
                    pod: pod.clone(),
                    status: status.clone(),
                    version: 1,
                    sent: 0,
                    finished,
                    api: None,
                };
                entries.insert(pod.uid().into(), entry);
                self.changed.notify_one();
                status
            }
        }
    }

    /// A readiness probe has a new verdict.
    pub fn set_ready(&self, uid: &str, id: &str, ready: bool) {
        self.update_container(uid, id, |pod, status, index| {
            let (list, at) = index;
            let container = &mut list_mut(status, list)[at];
            if container.ready == ready {
                return false;
            }
            container.ready = ready;
            let statuses = status
                .init_container_statuses
                .iter()
                .chain(&status.container_statuses)
                .flatten();
            let all: Vec<_> = statuses.cloned().collect();
            let phase = status.phase.clone().unwrap_or_default();
            let theirs = status.conditions.clone().unwrap_or_default();
            for condition in status.conditions.iter_mut().flatten() {
                *condition = match condition.type_.as_str() {
                    conditions::READY => conditions::ready(pod, &all, &phase, &theirs),
                    conditions::CONTAINERS_READY => conditions::containers_ready(
                        pod,
                        conditions::CONTAINERS_READY,
                        &all,
                        &phase,
                    ),
                    _ => continue,
                };
            }
            true
        });
    }

    /// A startup probe has a new verdict.
    pub fn set_started(&self, uid: &str, id: &str, started: bool) {
        self.update_container(uid, id, |_, status, (list, at)| {
            let container = &mut list_mut(status, list)[at];
            let changed = container.started != Some(started);
            container.started = Some(started);
            changed
        });
    }

    fn update_container(
        &self,
        uid: &str,
        id: &str,
        update: impl FnOnce(&Pod, &mut PodStatus, (List, usize)) -> bool,
    ) {
        let Some(runtime_name) = self.runtime_name.get() else {
            return;
        };
        let id = container_id(runtime_name, id);
        // Held until it is stored: a worker may be about to store a newer status.
        let mut entries = self.entries.lock();
        let known = entries
            .get(uid)
            .map(|entry| (entry.pod.clone(), entry.status.clone()));
        let Some((pod, status)) = known else { return };
        let mut status = (*status).clone();
        let position = [List::Regular, List::Init].into_iter().find_map(|list| {
            let at = list_mut(&mut status, list)
                .iter()
                .position(|c| c.container_id.as_deref() == Some(id.as_str()))?;
            Some((list, at))
        });
        if let Some(position) = position
            && update(&pod, &mut status, position)
        {
            self.store_in(&mut entries, &pod, status, false);
        }
    }

    /// The API server shows a pod, perhaps otherwise than it is.
    pub fn reconcile(&self, uid: &str, shown: &Pod) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(uid) else {
            return;
        };
        let mut api = shown.status_or_default();
        merge::normalize(shown, &mut api);
        let can_go = shown.is_deleting() && entry.finished;
        // While something is on its way, the difference is expected.
        if entry.sent == entry.version && (can_go || !merge::same(&api, &entry.status)) {
            entry.sent -= 1;
            self.changed.notify_one();
        }
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.entries.lock().remove(uid);
    }

    /// Sends statuses until `stop`.
    pub async fn run(self: Arc<Self>, client: Client, stop: CancellationToken) {
        let mut failed = false;
        loop {
            let retry = async {
                if failed {
                    tokio::time::sleep(RETRY).await
                } else {
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = retry => {}
            }
            failed = !self.send_all(&client).await;
        }
    }

    /// True if everything is with the API server now.
    async fn send_all(&self, client: &Client) -> bool {
        let due: Vec<PodUid> = {
            let entries = self.entries.lock();
            entries
                .iter()
                .filter(|(_, entry)| entry.sent < entry.version)
                .map(|(uid, _)| uid.clone())
                .collect()
        };
        let mut all = true;
        for uid in due {
            match self.send(client, &uid).await {
                Ok(sent) => all &= sent,
                Err(error) if error.is_not_found() => self.mark_sent(&uid, u64::MAX, None),
                Err(error) => {
                    warn!(%uid, %error, "cannot send a pod's status yet");
                    all = false;
                }
            }
        }
        all
    }

    fn mark_sent(&self, uid: &str, version: u64, api: Option<&Pod>) {
        if let Some(entry) = self.entries.lock().get_mut(uid) {
            entry.sent = version.min(entry.version);
            if let Some(pod) = api {
                entry.api = Some((revision(pod), pod.status_or_default()));
            }
        }
    }

    /// Sends one status. False: the API server does not have the pod to show it on yet.
    async fn send(&self, client: &Client, uid: &PodUid) -> Result<bool, client::Error> {
        let Some((pod, status, version, finished, answered)) = ({
            let entries = self.entries.lock();
            entries.get(uid).map(|e| {
                (
                    e.pod.clone(),
                    e.status.clone(),
                    e.version,
                    e.finished,
                    e.api.clone(),
                )
            })
        }) else {
            return Ok(true);
        };
        // A static pod's status is shown on its mirror.
        let shown = if pod.is_static() {
            self.index.mirror_of(&pod)
        } else {
            self.index.get(uid).or(Some(pod.clone()))
        };
        let Some(shown) = shown else {
            self.mark_sent(uid, version, None);
            return Ok(true);
        };
        let api = match answered {
            Some((at, status)) if at > revision(&shown) => status,
            _ => shown.status_or_default(),
        };
        let pods: Api<Pod> = Api::namespaced(client, shown.namespace());
        let may_run = self.index.may_run(uid);
        let merged = merge::for_api(&pod, &api, &status, may_run, Timestamp::now());
        let patch = merge::patch(shown.uid(), &api, &merged).unwrap_or_default();
        let mut phase = api.phase.clone().unwrap_or_default();
        if let Some(patch) = patch {
            debug!(pod = %shown.full_name(), %patch, "sending a status");
            let patch = Patch::Strategic(patch);
            let answer = pods
                .patch_status(shown.name(), &patch, &PatchOptions::default())
                .await;
            match answer {
                Ok(answer) => {
                    answer.phase().clone_into(&mut phase);
                    self.mark_sent(uid, version, Some(&answer));
                }
                // The name belongs to another pod by now.
                Err(error) if error.is_conflict() => {
                    self.mark_sent(uid, u64::MAX, None);
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        } else {
            self.mark_sent(uid, version, None);
        }
        let deleting = shown.is_deleting() && !shown.is_mirror();
        if deleting && finished && is_terminal_phase(&phase) {
            let options = DeleteOptions::with_uid(shown.uid()).now();
            match pods.delete(shown.name(), &options).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => {
                    self.unsend(uid);
                    return Err(error);
                }
            }
            debug!(pod = %shown.full_name(), "the pod is gone for good");
        }
        Ok(true)
    }

    fn unsend(&self, uid: &str) {
        if let Some(entry) = self.entries.lock().get_mut(uid) {
            entry.sent = entry.version.saturating_sub(1);
        }
    }
}

#[derive(Clone, Copy)]
enum List {
    Regular,
    Init,
}

fn list_mut(
    status: &mut PodStatus,
    list: List,
) -> &mut [k8s_openapi::api::core::v1::ContainerStatus] {
    match list {
        List::Regular => status.container_statuses.as_deref_mut().unwrap_or_default(),
        List::Init => status
            .init_container_statuses
            .as_deref_mut()
            .unwrap_or_default(),
    }
}

fn revision(pod: &Pod) -> u64 {
    pod.metadata
        .resource_version
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}
