//! The pod lifecycle event generator: tells when something happened to a pod's containers.
//!
//! A runtime that sends events is listened to, and looked at now and then all the same; one that
//! does not is looked at every second. Either way no more is told than whose containers to look at:
//! the look itself is the sync's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use grpc::cri::ContainerEventResponse;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::{debug, info};

use crate::cri::client::{CriClient, CriError, Of};
use crate::cri::labels::POD_UID;
use crate::event::Event;
use crate::metrics::Metrics;
use crate::pods::pod::PodUid;

/// Between two looks at a runtime that sends no events.
const POLL: Duration = Duration::from_secs(1);
/// Between two looks at one that does: for what got lost.
const SAFETY_NET: Duration = Duration::from_secs(60);
/// Changes that a follower may be behind before it has to look for itself.
const FOLLOWERS_BACKLOG: usize = 64;
/// Without a successful look for so long, the kubelet is not healthy.
const UNHEALTHY_AFTER: Duration = Duration::from_secs(180);

/// State of every sandbox and container by id: whose it is, and a number that changes with it.
type States = HashMap<String, (PodUid, i32)>;

/// Tells of changes in the runtime.
pub struct Pleg {
    runtime: CriClient,
    told: mpsc::UnboundedSender<Event>,
    followed: broadcast::Sender<PodUid>,
    last_look: Mutex<Instant>,
    metrics: Arc<Metrics>,
}

impl Pleg {
    pub fn new(
        runtime: CriClient,
        told: mpsc::UnboundedSender<Event>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            told,
            followed: broadcast::Sender::new(FOLLOWERS_BACKLOG),
            last_look: Mutex::new(Instant::now()),
            metrics,
        })
    }

    /// For those that wait for one pod's containers to change, from now on.
    pub fn follow(&self, uid: PodUid) -> PodChanges {
        PodChanges {
            uid,
            changes: self.followed.subscribe(),
        }
    }

    fn tell(&self, uid: PodUid) {
        // Nobody follows: nobody to tell.
        let _ = self.followed.send(uid.clone());
        let _ = self.told.send(Event::Runtime(uid));
    }

    /// Why the runtime cannot be followed, if it cannot.
    pub fn unhealthy(&self) -> Option<String> {
        let since = self.last_look.lock().elapsed();
        (since > UNHEALTHY_AFTER).then(|| {
            format!(
                "pleg was last seen active {}s ago; threshold is {}s",
                since.as_secs(),
                UNHEALTHY_AFTER.as_secs()
            )
        })
    }

    /// Follows the runtime until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut known = States::new();
        let mut events: Option<BoxStream<'_, Result<ContainerEventResponse, CriError>>> = None;
        let mut sends_events = true;
        let mut failed = false;
        loop {
            let pause = match events {
                Some(_) => SAFETY_NET,
                None => POLL,
            };
            // Not at once where it has just failed.
            if sends_events && events.is_none() && !failed {
                events = Some(self.runtime.events().boxed());
            }
            // The first look after the runtime was asked for events may be too early to find what
            // it has not told; the second, a moment later, is not.
            self.look(&mut known).await;
            let deadline = tokio::time::Instant::now() + pause;
            loop {
                let next = async {
                    match &mut events {
                        Some(stream) => stream.next().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(deadline) => {
                        failed = false;
                        break;
                    }
                    event = next => match event {
                        Some(Ok(event)) => {
                            let uid = event.pod_sandbox_status.and_then(|sandbox| sandbox.metadata).map(|m| m.uid);
                            if let Some(uid) = uid.filter(|uid| !uid.is_empty()) {
                                self.tell(uid.into());
                            }
                        }
                        Some(Err(error)) if error.code == Code::Unimplemented => {
                            info!("the runtime sends no events: looking every second");
                            sends_events = false;
                            events = None;
                            break;
                        }
                        ended => {
                            let error = ended.and_then(Result::err);
                            debug!(?error, "the runtime's events have ended: looking instead");
                            failed = true;
                            events = None;
                            break;
                        }
                    },
                }
            }
        }
    }

    async fn look(&self, known: &mut States) {
        let begun = Instant::now();
        let seen = self.states().await;
        let took = begun.elapsed().as_secs_f64();
        self.metrics.pleg_relist.observe(took);
        match seen {
            Ok(states) => {
                for uid in changed(known, &states) {
                    self.tell(uid);
                }
                *known = states;
                let before = std::mem::replace(&mut *self.last_look.lock(), Instant::now());
                let interval = before.elapsed().as_secs_f64();
                self.metrics.pleg_interval.observe(interval);
                let now = jiff::Timestamp::now().as_second();
                self.metrics.pleg_last_seen.set(now as f64);
            }
            Err(error) => debug!(%error, "cannot look at the runtime"),
        }
    }

    async fn states(&self) -> Result<States, CriError> {
        let (sandboxes, containers) = futures::try_join!(
            self.runtime.list_sandboxes(Of::default()),
            self.runtime.list_containers(Of::default())
        )?;
        let mut uids: HashSet<PodUid> = HashSet::new();
        let mut shared = |labels: &std::collections::BTreeMap<String, String>| {
            let uid = labels.get(POD_UID).map_or("", String::as_str);
            if let Some(uid) = uids.get(uid) {
                return uid.clone();
            }
            let uid: PodUid = uid.into();
            uids.insert(uid.clone());
            uid
        };
        let mut states = States::with_capacity(sandboxes.len() + containers.len());
        for sandbox in sandboxes {
            states.insert(sandbox.id, (shared(&sandbox.labels), sandbox.state));
        }
        for container in containers {
            states.insert(container.id, (shared(&container.labels), container.state));
        }
        Ok(states)
    }
}

/// Tells when something happened to one pod's containers.
pub struct PodChanges {
    uid: PodUid,
    changes: broadcast::Receiver<PodUid>,
}

impl PodChanges {
    /// Waits for the next change, or for one that may have been missed. Never, once the kubelet stops.
    pub async fn next(&mut self) {
        loop {
            match self.changes.recv().await {
                Ok(uid) if uid == self.uid => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Pods with anything new, changed or gone.
fn changed(old: &States, new: &States) -> HashSet<PodUid> {
    let differs = new
        .iter()
        .filter(|(id, state)| old.get(*id) != Some(state))
        .map(|(_, (uid, _))| uid);
    let gone = old
        .iter()
        .filter(|(id, _)| !new.contains_key(*id))
        .map(|(_, (uid, _))| uid);
    differs
        .chain(gone)
        .filter(|uid| !uid.is_empty())
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_containers_to_look_at() {
        let states = |list: &[(&str, &str, i32)]| -> States {
            list.iter()
                .map(|(id, uid, state)| ((*id).to_owned(), ((*uid).into(), *state)))
                .collect()
        };
        let old = states(&[("1", "a", 1), ("2", "b", 1), ("3", "c", 1)]);
        let new = states(&[("1", "a", 1), ("2", "b", 2), ("4", "d", 0), ("5", "", 0)]);
        let mut uids: Vec<_> = changed(&old, &new).into_iter().collect();
        uids.sort();
        assert_eq!(uids, ["b".into(), "c".into(), "d".into()] as [PodUid; 3]);
        assert!(changed(&new, &new).is_empty());
    }
}
