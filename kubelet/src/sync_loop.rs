//! The loop: one event after the other, each changing which pods there are and what their workers
//! are to do. It waits for nothing itself; work is done in tasks that answer with an event.

mod eviction;
mod judging;
mod placing;
mod preemption;
mod resize;
mod second_look;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Api;
use k8s_openapi::api::core::v1::{Node, Pod};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::preemption::Preemptor;
use self::resize::Trigger;
use crate::cri::client::Of;
use crate::cri::plan::Health;
use crate::cri::{gc, labels};
use crate::event::{Event, ProbeKind, Source};
use crate::pods::admission::{self, Rejection, Room};
use crate::pods::index::PodIndex;
use crate::pods::pod::{PodExt, PodUid, is_terminal_phase};
use crate::pods::sync::Syncer;
use crate::pods::worker::{Phase, Times, Work, Worker};

/// How the loop is set up.
pub struct Settings {
    pub node_name: String,
    pub times: Times,
    pub unsafe_sysctls: Vec<String>,
    /// `cpuManagerPolicy: static`, and the like for memory: what guaranteed pods were given of it
    /// is theirs alone.
    pub static_cpus: bool,
    pub static_memory: bool,
    /// The sources that must have told all before anything is taken to be gone.
    pub sources: HashSet<Source>,
    /// Where the node is read; `None` without an API server.
    pub nodes: Option<Api<Node>>,
    pub gc: gc::Policy,
    pub logs_root: PathBuf,
}

/// What a pod is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// The node as it is known.
    Known,
    /// The same, once the pod has been given what it asks for.
    Placed,
    /// The node as it has just been read.
    Read,
}

/// Between two rounds of clearing away what is dead.
const COLLECT_EVERY: Duration = Duration::from_secs(60);

pub struct SyncLoop {
    syncer: Arc<Syncer>,
    settings: Settings,
    workers: HashMap<PodUid, Worker>,
    ready: HashSet<Source>,
    /// Pods that came while their namesakes were still ending.
    waiting: HashMap<PodUid, Arc<Pod>>,
    /// Critical pods that room is being made for.
    preemptors: HashMap<PodUid, Preemptor>,
    /// Who waits for evicted pods to end.
    evicted: HashMap<PodUid, watch::Sender<Phase>>,
    /// Pods that could not run on the node as it is known, until it is known better.
    doubted: HashMap<PodUid, Arc<Pod>>,
    /// Pods that are being given their devices, CPUs and memory.
    placing: HashMap<PodUid, Arc<Pod>>,
    /// Pods that have been turned away: nothing of them is here, and nothing is done about them
    /// until they are deleted.
    turned_away: HashSet<PodUid>,
    events: mpsc::UnboundedReceiver<Event>,
    told: mpsc::UnboundedSender<Event>,
    node_changed: Arc<Notify>,
    /// Something died since the last round of clearing away.
    dirt: bool,
    /// Pods that ask for other resources than they were granted.
    resizes: Vec<PodUid>,
}

impl SyncLoop {
    pub fn new(
        syncer: Arc<Syncer>,
        settings: Settings,
        events: mpsc::UnboundedReceiver<Event>,
        told: mpsc::UnboundedSender<Event>,
        node_changed: Arc<Notify>,
    ) -> Self {
        Self {
            syncer,
            settings,
            workers: HashMap::new(),
            ready: HashSet::new(),
            waiting: HashMap::new(),
            preemptors: HashMap::new(),
            evicted: HashMap::new(),
            doubted: HashMap::new(),
            placing: HashMap::new(),
            turned_away: HashSet::new(),
            events,
            told,
            node_changed,
            dirt: true,
            resizes: Vec::new(),
        }
    }

    /// Runs until `stop`. Containers go on running: the next kubelet finds them.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut collect = tokio::time::interval(COLLECT_EVERY);
        collect.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut retry = tokio::time::interval(resize::RETRY_EVERY);
        retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.workers.values().filter_map(Worker::due).min();
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                event = self.events.recv() => match event {
                    Some(event) => self.handle(event),
                    None => return,
                },
                () = wait => {}
                _ = collect.tick() => self.collect(),
                _ = retry.tick() => self.retry_resizes(Trigger::Periodic),
            }
            // What has piled up meanwhile is taken in before work is started.
            while let Ok(event) = self.events.try_recv() {
                self.handle(event);
            }
            self.start_work();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::PodSet(source, pod) => self.set_pod(source, pod),
            Event::PodGone(source, pod) => self.pod_gone(source, &pod),
            Event::SourceReady(source) => {
                debug!(?source, "has told all its pods");
                self.ready.insert(source);
                if self.sources_ready() {
                    self.syncer.index.set_complete();
                    self.clean_up();
                    self.retry_resizes(Trigger::PodsAdded);
                }
            }
            Event::Runtime(uid) => match self.workers.get_mut(&uid) {
                Some(worker) => {
                    worker.poke();
                    self.dirt = true;
                }
                // Of a pod that is unknown, or has been forgotten just now.
                None => self.dirt = true,
            },
            Event::Orphan(pod) => {
                info!(pod = %pod.full_name(), uid = pod.uid(), "ending a pod that nobody asks for");
                self.syncer.runtime.metrics.orphaned_runtime_pods.inc();
                let uid: PodUid = pod.uid().into();
                // Its source may have told of it meanwhile.
                self.workers
                    .entry(uid)
                    .or_insert_with(|| Worker::orphan(pod));
            }
            Event::Probe {
                uid,
                kind,
                container_id,
                health,
            } => {
                let success = health == Health::Success;
                match kind {
                    ProbeKind::Readiness => {
                        self.syncer.status.set_ready(&uid, &container_id, success)
                    }
                    ProbeKind::Startup => {
                        self.syncer.status.set_started(&uid, &container_id, success)
                    }
                    ProbeKind::Liveness => {}
                }
                let matters = kind != ProbeKind::Liveness || health == Health::Failure;
                if let Some(worker) = self.workers.get_mut(&uid).filter(|_| matters) {
                    worker.poke();
                }
            }
            Event::NodeRead(uid) => {
                if let Some(pod) = self.doubted.remove(&uid) {
                    self.admit_by(uid, pod, View::Read);
                }
            }
            Event::Placed(uid, placed) => self.placed(uid, placed),
            Event::Objects(uids) => {
                for uid in uids {
                    if let Some(worker) = self.workers.get_mut(&uid) {
                        worker.poke();
                    }
                }
            }
            Event::Done(uid, outcome) => {
                let times = self.settings.times;
                if let Some(worker) = self.workers.get_mut(&uid) {
                    let ran = worker.may_run();
                    worker.done(&outcome, &times, Instant::now(), rand::random());
                    let (phase, runs) = (worker.phase(), worker.may_run());
                    self.syncer.index.set_may_run(&uid, runs);
                    self.tell_evictor(&uid, phase);
                    if phase == Phase::Finished {
                        self.finished(&uid);
                    }
                    if ran && !runs {
                        self.victim_ended(&uid);
                        self.retry_resizes(Trigger::PodTerminated);
                    }
                }
            }
            Event::Evict {
                uid,
                eviction,
                grace,
                ended,
            } => self.evict(uid, eviction, grace, ended),
            Event::CollectDead(done) => self.collect_dead(done),
            Event::Ready { runtime, network } => {
                self.node_changed.notify_one();
                if runtime && network {
                    self.workers.values_mut().for_each(Worker::poke);
                }
            }
        }
    }

    fn sources_ready(&self) -> bool {
        self.settings.sources.is_subset(&self.ready)
    }

    fn set_pod(&mut self, source: Source, pod: Arc<Pod>) {
        let index = self.syncer.index.clone();
        if source == Source::Api && pod.is_mirror() {
            index.set(pod.clone());
            if let Some(own) = index.static_of(&pod) {
                self.syncer.status.reconcile(own.uid(), &pod);
                if let Some(worker) = self.workers.get_mut(own.uid()) {
                    worker.poke();
                }
            } else if self.sources_ready() {
                self.delete_mirror(pod);
            }
            return;
        }
        let uid: PodUid = pod.uid().into();
        let old = index.get(&uid);
        index.set(pod.clone());
        if self.workers.contains_key(&uid) {
            self.update(&uid, pod, old.as_deref());
        } else {
            self.admit(uid, pod);
        }
    }

    /// A pod that has a worker has changed.
    fn update(&mut self, uid: &PodUid, pod: Arc<Pod>, old: Option<&Pod>) {
        self.syncer.status.reconcile(uid, &pod);
        let Some(worker) = self.workers.get_mut(uid) else {
            return;
        };
        // A static pod that came back while it was ending begins anew once it has ended.
        if worker.gone {
            self.waiting.insert(uid.clone(), pod);
            return;
        }
        if old.is_none_or(|old| differs(old, &pod)) {
            worker.update(pod.clone());
        } else {
            worker.pod = pod.clone();
        }
        if let Some(old) = old {
            self.note_resize(uid, old, &pod);
        }
    }

    /// A pod that has none.
    fn admit(&mut self, uid: PodUid, pod: Arc<Pod>) {
        self.admit_by(uid, pod, View::Known);
    }

    fn admit_by(&mut self, uid: PodUid, pod: Arc<Pod>, view: View) {
        if self.still_waits(&uid, &pod)
            || self.is_doubted(&uid, &pod)
            || self.is_being_placed(&uid, &pod)
        {
            return;
        }
        let over = is_terminal_phase(pod.phase()) && !pod.is_deleting();
        if over && self.turned_away.contains(&uid) {
            return;
        }
        let namesake = |worker: &Worker| {
            worker.pod.full_name() == pod.full_name()
                && worker.pod.uid() != pod.uid()
                && worker.phase() != Phase::Finished
        };
        if pod.is_static() && self.workers.values().any(namesake) {
            debug!(pod = %pod.full_name(), "waits for its namesake to end");
            self.waiting.insert(uid, pod);
            return;
        }
        if !is_terminal_phase(pod.phase()) && !pod.is_deleting() {
            // What it was granted by the kubelet before counts, not what it may ask for meanwhile.
            let granted = self.syncer.allocations.granted(&pod);
            let known = self.was_admitted(&pod);
            if view == View::Known {
                // What the node is short of counts before what it has.
                if !known && let Err(rejection) = self.judge_by(&granted, admission::at_first) {
                    return self.turn_away(&pod, &rejection);
                }
                if self.place(&uid, &pod, &granted) {
                    return;
                }
            }
            let judged = match known {
                true => Ok(Room::default()),
                false => self.judge(&granted),
            };
            // What the node is short of, and whether it goes down, it knows best itself.
            let certain = [crate::eviction::REASON, crate::shutdown::REJECTED.0];
            let doubtful = |rejection: &Rejection| !certain.contains(&rejection.reason.as_str());
            if judged.as_ref().is_err_and(doubtful)
                && view != View::Read
                && self.look_again(&uid, &pod)
            {
                return;
            }
            if let Err(rejection) = &judged {
                return self.turn_away(&pod, rejection);
            }
            if let Some(room) = judged.ok().filter(|room| !room.victims.is_empty()) {
                return self.preempt(uid, pod, room);
            }
            self.syncer.allocations.grant(&granted);
            self.syncer.allocations.conditions.take_over(&pod);
            self.queue_resize(&uid, &pod);
        }
        info!(pod = %pod.full_name(), uid = %uid, "a pod to run");
        let worker = Worker::new(pod);
        self.syncer.index.set_may_run(&uid, worker.may_run());
        self.workers.insert(uid, worker);
        self.retry_resizes(Trigger::PodsAdded);
    }

    /// A kubelet that restarts finds pods that it, or another, took before: it must not judge them
    /// again, with others in other order.
    fn was_admitted(&self, pod: &Pod) -> bool {
        pod.status
            .as_ref()
            .is_some_and(|status| status.start_time.is_some())
            && pod.phase() != "Failed"
    }

    fn pod_gone(&mut self, source: Source, pod: &Arc<Pod>) {
        self.syncer.index.remove(pod);
        if source == Source::Api && pod.is_mirror() {
            if let Some(own) = self.syncer.index.static_of(pod)
                && let Some(worker) = self.workers.get_mut(own.uid())
            {
                worker.poke();
            }
            return;
        }
        self.waiting.remove(pod.uid());
        self.preemptors.remove(pod.uid());
        self.doubted.remove(pod.uid());
        self.placing.remove(pod.uid());
        self.turned_away.remove(pod.uid());
        if source != Source::Api
            && let Some(mirror) = self
                .syncer
                .index
                .mirrors()
                .into_iter()
                .find(|m| m.full_name() == pod.full_name())
        {
            self.delete_mirror(mirror);
        }
        let uid: PodUid = pod.uid().into();
        match self.workers.get_mut(&uid) {
            Some(worker) => {
                worker.remove();
                if worker.phase() == Phase::Finished {
                    self.finished(&uid);
                }
            }
            None => self.forget(uid, pod),
        }
    }

    /// Nothing of a pod is left but its dead containers; and those no longer once nobody has it.
    fn finished(&mut self, uid: &PodUid) {
        let Some(worker) = self.workers.get(uid) else {
            return;
        };
        self.dirt = true;
        if worker.gone {
            let pod = worker.pod.clone();
            self.workers.remove(uid);
            self.forget(uid.clone(), &pod);
        }
        let names: HashSet<String> = self
            .workers
            .values()
            .filter(|worker| worker.phase() != Phase::Finished)
            .map(|worker| worker.pod.full_name())
            .collect();
        let free: Vec<PodUid> = self
            .waiting
            .iter()
            .filter(|(uid, pod)| {
                !self.workers.contains_key(*uid) && !names.contains(&pod.full_name())
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in free {
            if let Some(pod) = self.waiting.remove(&uid) {
                self.admit(uid, pod);
            }
        }
    }

    /// Removes everything of a pod that nobody has any more.
    fn forget(&mut self, uid: PodUid, pod: &Pod) {
        info!(pod = %pod.full_name(), uid = %uid, "a pod is gone");
        self.syncer.index.set_may_run(&uid, false);
        self.syncer.status.forget(&uid);
        self.syncer.prober.remove_pod(&uid);
        self.syncer.evictions.lock().remove(&uid);
        self.evicted.remove(&uid);
        self.syncer.allocations.forget(&uid);
        self.syncer.runtime.given.remove(&uid);
        self.syncer.runtime.topology.affinities.forget(&uid);
        self.retry_resizes(Trigger::PodsRemoved);
        self.dirt = true;
        let syncer = self.syncer.clone();
        let known = self.known();
        let (policy, logs) = (self.settings.gc, self.settings.logs_root.clone());
        let told = self.told.clone();
        tokio::spawn(async move {
            if let Err(error) = syncer.volumes.remove_pod_dir(&uid).await {
                warn!(%uid, %error, "cannot remove a pod's directory yet");
                let _ = told.send(Event::Runtime(uid));
            }
            let need = |uid: &str| known.need(uid);
            if let Err(error) = syncer.runtime.collect_dead(&logs, need, policy).await {
                warn!(%error, "cannot clear dead containers away");
            }
        });
    }

    fn delete_mirror(&self, mirror: Arc<Pod>) {
        let syncer = self.syncer.clone();
        tokio::spawn(async move {
            if let Some(mirrors) = &syncer.mirrors {
                mirrors.delete(&mirror).await;
            }
        });
    }

    /// The pods that this node has to do with.
    fn known(&self) -> Known {
        Known {
            workers: self.workers.keys().cloned().collect(),
            evicted: {
                let evictions = self.syncer.evictions.lock();
                let evicted = evictions.iter().filter(|(_, eviction)| eviction.clears);
                evicted.map(|(uid, _)| uid.clone()).collect()
            },
            index: self.syncer.index.clone(),
        }
    }

    /// Starts what workers want done.
    fn start_work(&mut self) {
        let now = Instant::now();
        for (uid, worker) in &mut self.workers {
            let first = worker.is_new();
            let Some((work, token)) = worker.next(now) else {
                continue;
            };
            let (syncer, told, uid) = (self.syncer.clone(), self.told.clone(), uid.clone());
            let orphan = worker.orphan;
            // A pod runs with what it was granted, whatever it asks for.
            let pod = syncer.allocations.granted(&worker.pod);
            tokio::spawn(async move {
                let metrics = &syncer.runtime.metrics;
                let operation = match work {
                    Work::Sync if first => "create",
                    Work::Sync => "sync",
                    Work::Terminate { .. } => "kill",
                    Work::Finish => "terminated",
                };
                if let Some(seen) = syncer.index.seen(&uid).filter(|_| first) {
                    let waited = seen.elapsed().as_secs_f64();
                    metrics.pod_worker_start.observe(waited);
                }
                let begun = Instant::now();
                let outcome = syncer.run(&pod, orphan, &work, &token).await;
                let took = metrics.pod_worker.with_label_values(&[operation]);
                took.observe(begun.elapsed().as_secs_f64());
                // The loop is gone only when the process is about to be.
                let _ = told.send(Event::Done(uid, outcome));
            });
        }
    }

    /// Now and then: what is dead goes, and what nobody asks for ends.
    fn collect(&mut self) {
        if self.sources_ready() {
            self.give_up_claims();
        }
        if !std::mem::take(&mut self.dirt) || !self.sources_ready() {
            return;
        }
        self.clean_up();
    }

    /// Claims of pods that have gone while no kubelet ran, or by force.
    fn give_up_claims(&self) {
        let active = |worker: &&Worker| worker.may_run();
        let active: HashSet<PodUid> = self
            .workers
            .iter()
            .filter(|(_, worker)| active(worker))
            .map(|(uid, _)| uid.clone())
            .collect();
        let syncer = self.syncer.clone();
        tokio::spawn(async move {
            let dra = &syncer.runtime.dra;
            dra.reconcile(|uid| active.contains(uid)).await;
        });
    }

    fn clean_up(&mut self) {
        for mirror in self.syncer.index.mirrors() {
            if self.syncer.index.static_of(&mirror).is_none() {
                self.delete_mirror(mirror);
            }
        }
        let syncer = self.syncer.clone();
        let known = self.known();
        syncer.allocations.retain(|uid| known.contains(uid));
        syncer.runtime.given.retain(|uid| known.contains(uid));
        let (policy, logs) = (self.settings.gc, self.settings.logs_root.clone());
        let told = self.told.clone();
        tokio::spawn(async move {
            let orphans = find_orphans(&syncer, &known).await;
            let ending: HashSet<PodUid> = orphans.iter().map(|pod| pod.uid().into()).collect();
            for orphan in orphans {
                let _ = told.send(Event::Orphan(Arc::new(orphan)));
            }
            let exists = |uid: &str| known.contains(uid) || ending.contains(uid);
            let need = |uid: &str| match ending.contains(uid) {
                true => gc::Need::All,
                false => known.need(uid),
            };
            if let Err(error) = syncer.runtime.collect_dead(&logs, need, policy).await {
                warn!(%error, "cannot clear dead containers away");
            }
            for uid in syncer
                .volumes
                .pods_on_disk()
                .await
                .into_iter()
                .filter(|uid| !exists(uid))
            {
                info!(uid, "removing what is left of a pod that is gone");
                if let Err(error) = syncer.volumes.remove_pod_dir(&uid).await {
                    warn!(uid, %error, "cannot remove a pod's directory yet");
                    let _ = told.send(Event::Runtime(uid.as_str().into()));
                }
            }
            for (class, uid) in syncer
                .runtime
                .cgroups
                .list()
                .into_iter()
                .filter(|(_, uid)| !exists(uid))
            {
                if let Err(error) = syncer.runtime.cgroups.remove(class, &uid).await {
                    warn!(uid, %error, "cannot remove a pod's cgroup yet");
                }
            }
        });
    }
}

/// The pods that the node has to do with: those that had a worker when something began that
/// takes its time, and those that are there now, whose containers it may come upon.
struct Known {
    workers: HashSet<PodUid>,
    evicted: HashSet<PodUid>,
    index: Arc<PodIndex>,
}

impl Known {
    fn contains(&self, uid: &str) -> bool {
        self.workers.contains(uid) || self.index.get(uid).is_some() || self.index.may_run(uid)
    }

    /// What is needed of what the runtime has of a pod. Of one that was evicted nothing is, once it
    /// has ended: there was no room for it.
    fn need(&self, uid: &str) -> gc::Need {
        let known = self.index.get(uid);
        let told = known
            .as_ref()
            .and_then(|pod| pod.status.as_ref()?.reason.as_deref());
        let evicted = self.evicted.contains(uid) || told == Some(crate::eviction::REASON);
        if !self.contains(uid) || evicted && !self.index.may_run(uid) {
            gc::Need::Nothing
        } else {
            gc::Need::All
        }
    }
}

/// Pods that run though nobody asks for them, as far as the runtime knows them.
async fn find_orphans(syncer: &Syncer, known: &Known) -> Vec<Pod> {
    let of = Of {
        pod_uid: None,
        running: true,
    };
    let client = &syncer.runtime.client;
    let Ok((sandboxes, containers)) =
        futures::try_join!(client.list_sandboxes(of), client.list_containers(of))
    else {
        return Vec::new();
    };
    let mut orphans: HashMap<String, Pod> = HashMap::new();
    let labels = sandboxes
        .into_iter()
        .map(|sandbox| sandbox.labels)
        .chain(containers.into_iter().map(|c| c.labels));
    for labels in labels {
        let Some(uid) = labels
            .get(labels::POD_UID)
            .filter(|uid| !known.contains(uid))
        else {
            continue;
        };
        let mut pod = Pod::default();
        pod.metadata.uid = Some(uid.clone());
        pod.metadata.name = labels.get(labels::POD_NAME).cloned();
        pod.metadata.namespace = labels.get(labels::POD_NAMESPACE).cloned();
        orphans.insert(uid.clone(), pod);
    }
    orphans.into_values().collect()
}

/// Whether two versions of a pod differ in what its worker acts on; a status alone is no reason to
/// sync, but for the conditions that readiness gates wait for.
fn differs(old: &Pod, new: &Pod) -> bool {
    let gates = |pod: &Pod| -> Vec<(String, String)> {
        let gates = pod
            .pod_spec()
            .readiness_gates
            .as_deref()
            .unwrap_or_default();
        let conditions = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        conditions
            .filter(|condition| {
                gates
                    .iter()
                    .any(|gate| gate.condition_type == condition.type_)
            })
            .map(|condition| (condition.type_.clone(), condition.status.clone()))
            .collect()
    };
    old.spec != new.spec
        || old.metadata.labels != new.metadata.labels
        || old.metadata.annotations != new.metadata.annotations
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.metadata.deletion_grace_period_seconds != new.metadata.deletion_grace_period_seconds
        || is_terminal_phase(old.phase()) != is_terminal_phase(new.phase())
        || gates(old) != gates(new)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_comes_while_others_are_cleared_away_is_known() {
        let pod = |uid: &str| -> Arc<Pod> {
            let metadata = json!({"name": uid, "namespace": "n", "uid": uid});
            Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap())
        };
        let known = Known {
            workers: [PodUid::from("ending")].into(),
            evicted: [PodUid::from("running"), "ending".into()].into(),
            index: Arc::default(),
        };
        known.index.set(pod("new"));
        known.index.set_may_run(&PodUid::from("running"), true);
        let uids = ["ending", "new", "running", "gone"];
        assert_eq!(
            uids.map(|uid| known.contains(uid)),
            [true, true, true, false]
        );
        use gc::Need::{All, Nothing};
        let needed = uids.map(|uid| known.need(uid));
        assert_eq!(needed, [Nothing, All, All, Nothing]);
    }

    #[test]
    fn a_status_of_our_own_is_no_news() {
        let pod = |status: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [], "readinessGates": [{"conditionType": "gate"}]}, "status": status}))
                .unwrap()
        };
        let pending = pod(json!({"phase": "Pending"}));
        assert!(!differs(
            &pending,
            &pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}))
        ));
        assert!(differs(
            &pending,
            &pod(json!({"phase": "Running", "conditions": [{"type": "gate", "status": "True"}]}))
        ));
        assert!(differs(&pending, &pod(json!({"phase": "Failed"}))));
    }
}
