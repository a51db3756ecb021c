//! The work on one pod: observe, compute its status, prepare what it needs, let the runtime apply
//! the plan; and later stop it, and clear its remains away.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::Informer;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, Secret, Service};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::index::PodIndex;
use super::mirror::Mirrors;
use super::pod::{PodExt, PodUid, can_restart, is_terminal_phase};
use super::worker::{Outcome, Work};
use crate::allocation::{Allocations, ERROR, resize};
use crate::cri::client::CriError;
use crate::cri::env::service_variables;
use crate::cri::observe;
use crate::cri::observed::{PodStatus as Observed, State};
use crate::cri::runtime::{Prepared, Runtime, Synced};
use crate::events::Kind;
use crate::node_status::facts::NodeFacts;
use crate::prober::Prober;
use crate::resources::qos::{QosClass, qos_class};
use crate::status::conditions::RESTARTING_ALL;
use crate::status::containers::{Context, StartFailures};
use crate::status::generate::{Input, PAST_DEADLINE, generate};
use crate::status::{Eviction, StatusManager};
use crate::volumes::{VolumeContext, VolumeError, Volumes, make_pod_dirs};

/// Everything that work on pods takes.
pub struct Syncer {
    pub runtime: Runtime,
    pub volumes: Arc<Volumes>,
    pub prober: Prober,
    pub status: Arc<StatusManager>,
    pub index: Arc<PodIndex>,
    pub allocations: Arc<Allocations>,
    pub facts: Arc<NodeFacts>,
    /// Services, for environment variables; `None` without an API server.
    pub services: Option<Informer<Service>>,
    pub mirrors: Option<Mirrors>,
    /// Pods show how the devices that plugins gave them are (KEP-4680).
    pub show_device_health: bool,
    /// Why containers could not be started, by pod.
    pub failures: Mutex<HashMap<PodUid, StartFailures>>,
    /// Why pods have been ended by the node itself.
    pub evictions: Mutex<HashMap<PodUid, Eviction>>,
}

/// How long a pod waits for the services to be known before its containers are made.
const SERVICES_WAIT: Duration = Duration::from_secs(10);

impl Syncer {
    /// Does a worker's work.
    pub async fn run(
        &self,
        pod: &Arc<Pod>,
        orphan: bool,
        work: &Work,
        stop: &CancellationToken,
    ) -> Outcome {
        match work {
            Work::Sync => self.sync(pod, stop).await,
            Work::Terminate { .. } if orphan => self.end_orphan(pod).await,
            Work::Terminate { grace } => {
                tokio::select! {
                    () = stop.cancelled() => Outcome::Cancelled,
                    outcome = self.terminate(pod, *grace) => outcome,
                }
            }
            Work::Finish => self.finish(pod, orphan).await,
        }
    }

    async fn observe(&self, pod: &Pod) -> Result<Observed, CriError> {
        let mut observed = observe::pod(&self.runtime.client, pod.uid()).await?;
        observed.given = self.runtime.given.get(pod.uid()).unwrap_or_default();
        Ok(observed)
    }

    /// Computes and stores the status, and returns it.
    fn show(&self, pod: &Arc<Pod>, observed: &Observed, terminal: bool) -> Arc<PodStatus> {
        let old = self.status.get(pod.uid());
        let from_api;
        let old = match &old {
            Some(old) => old,
            None => {
                let shown = self.index.mirror_of(pod).unwrap_or_else(|| pod.clone());
                from_api = shown.status_or_default();
                &from_api
            }
        };
        let failures = self
            .failures
            .lock()
            .get(pod.uid())
            .cloned()
            .unwrap_or_default();
        let node = self.facts.get();
        let shown = self.index.mirror_of(pod).unwrap_or_else(|| pod.clone());
        let probes = self.prober.of_pod(&shown);
        if terminal {
            self.allocations.conditions.forget(pod.uid());
        }
        let runs = pod.phase() == "Running" && !terminal;
        let group = runs.then(|| self.runtime.cgroups.current(pod).ok());
        let mut status = generate(
            pod,
            &Input {
                observed,
                old,
                containers: Context {
                    runtime_name: &node.runtime_name,
                    failures: &failures,
                    recursive_read_only: node.recursive_read_only,
                    restarting: false,
                },
                readiness: &probes,
                host_ips: &node.host_ips,
                resize: &self.allocations.shown(pod.uid()),
                group: group.flatten().as_ref(),
                past_deadline: deadline_left(pod, old) == Some(Duration::ZERO),
                terminal,
            },
        );
        if status.reason.as_deref() == Some(PAST_DEADLINE) && old.reason != status.reason {
            let message = status.message.as_deref().unwrap_or_default();
            let events = &self.runtime.events;
            events.pod(pod, Kind::Normal, PAST_DEADLINE, message);
        }
        self.runtime.dra.show_health(pod, &mut status);
        if self.show_device_health {
            let devices = &self.runtime.topology.devices;
            devices.show_health(pod, &mut status);
        }
        if let Some(eviction) = self.evictions.lock().get(pod.uid()) {
            eviction.show(pod, &mut status);
        }
        let ran = old.phase.as_deref().is_some_and(|phase| phase != "Pending");
        let status = self.status.set(pod, status);
        if !ran && status.phase.as_deref() == Some("Running") {
            self.count_start(pod);
        }
        status
    }

    /// The pod runs, and did not before.
    fn count_start(&self, pod: &Pod) {
        let metrics = &self.runtime.metrics;
        if let Some(seen) = self.index.seen(pod.uid()) {
            metrics.pod_start.observe(seen.elapsed().as_secs_f64());
        }
        if let Some(created) = &pod.metadata.creation_timestamp {
            let took = Timestamp::now().duration_since(created.0);
            let total = metrics.pod_start_total.with_label_values::<&str>(&[]);
            total.observe(took.as_secs_f64().max(0.0));
        }
    }

    async fn sync(&self, pod: &Arc<Pod>, stop: &CancellationToken) -> Outcome {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            warn!(pod = %pod.full_name(), error = %error, "{what}");
            Outcome::Failed { again: None }
        };
        let mut observed = match self.observe(pod).await {
            Ok(observed) => observed,
            Err(error) => return failed("cannot see what the runtime has of a pod", &error),
        };
        self.follow_resize(pod, &observed).await;
        let status = self.show(pod, &observed, false);
        let conditions = status.conditions.iter().flatten();
        observed.restarting_all = conditions
            .filter(|condition| condition.status == "True")
            .any(|condition| condition.type_ == RESTARTING_ALL);
        // On the host's network, the status knows the addresses.
        observed.ips = status
            .pod_ips
            .iter()
            .flatten()
            .map(|ip| ip.ip.clone())
            .collect();
        if status.phase.as_deref().is_some_and(is_terminal_phase) {
            return Outcome::Synced {
                terminal: true,
                again: None,
            };
        }
        let node = self.facts.get();
        if let Some(why) = node
            .network_error
            .as_deref()
            .filter(|_| !pod.host_network())
        {
            let message = format!("network is not ready: {why}");
            self.runtime
                .events
                .pod(pod, Kind::Warning, "NetworkNotReady", &message);
            return Outcome::Failed {
                again: Some(Duration::from_secs(1)),
            };
        }
        self.runtime.objects.register(pod);
        if let Err(outcome) = self.prepare_ground(pod, &observed).await {
            return outcome;
        }
        let context = VolumeContext {
            host_ips: node.host_ips.clone(),
            allocatable: node.allocatable.clone(),
            labels: node
                .node
                .as_ref()
                .map(|node| node.metadata.labels.clone().unwrap_or_default()),
        };
        let prepared = tokio::select! {
            () = stop.cancelled() => return Outcome::Cancelled,
            volumes = self.volumes.prepare(pod, &context) => volumes,
        };
        let not_mounted = |error: &VolumeError| {
            let events = &self.runtime.events;
            events.pod(pod, Kind::Warning, "FailedMount", &error.to_string());
        };
        let volumes = match prepared {
            Ok(volumes) => volumes,
            Err(error) => {
                not_mounted(&error);
                return failed("cannot make a pod's volumes yet", &error);
            }
        };
        volumes.stale.iter().for_each(not_mounted);
        let secrets = self.pull_secrets(pod).await;
        self.prober.add_pod(pod);
        let services = match self.service_variables(pod).await {
            Ok(services) => services,
            Err(error) => return failed("cannot make a pod's environment yet", &error),
        };
        let synced = self
            .runtime
            .sync(
                pod,
                &observed,
                &Prepared {
                    volumes: &volumes.mounted,
                    secrets: &secrets,
                    services: &services,
                    host_ips: &node.host_ips,
                    allocatable: &node.allocatable,
                    recursive_read_only: node.recursive_read_only,
                },
                &self.prober,
                &|seen| {
                    self.show(pod, seen, false);
                },
                stop,
            )
            .await;
        synced.note(self.failures.lock().entry(pod.uid().into()).or_default());
        if synced.cancelled {
            return Outcome::Cancelled;
        }
        if let Some(error) = &synced.error {
            return failed("a pod cannot run yet", error);
        }
        self.note_resize(pod, &synced);
        if !synced.starts.is_empty() || synced.resized.is_some() {
            // Show what came of it without waiting for the runtime to tell.
            if let Ok(observed) = self.observe(pod).await {
                self.show(pod, &observed, false);
            }
        }
        let deadline = deadline_left(pod, &status);
        if synced.is_ok() {
            // Whether it is done, and what comes next, the next look tells.
            let more = synced.removed || synced.resized.is_some();
            return Outcome::Synced {
                terminal: false,
                again: more.then_some(Duration::ZERO).or(deadline),
            };
        }
        let again = [synced.retry_after, deadline].into_iter().flatten().min();
        Outcome::Failed { again }
    }

    /// Tells that a resize is in progress, or that it is done.
    async fn follow_resize(&self, pod: &Pod, observed: &Observed) {
        let (uid, generation) = (pod.uid(), pod.metadata.generation);
        let conditions = &self.allocations.conditions;
        if resize::in_progress(pod, observed) {
            conditions.set_in_progress(uid, "", "", generation, Timestamp::now());
        } else if let Some(generation) = conditions.clear_in_progress(uid) {
            let message = resize::message("Pod resize completed", pod, generation, "");
            let events = &self.runtime.events;
            events.pod(pod, Kind::Normal, "ResizeCompleted", &message);
            self.weigh_classes().await;
        }
    }

    /// Tells what went wrong with a resize.
    fn note_resize(&self, pod: &Pod, synced: &Synced) {
        let Some(Err(error)) = &synced.resized else {
            return;
        };
        let (generation, changed) = self.allocations.conditions.set_in_progress(
            pod.uid(),
            ERROR,
            error,
            pod.metadata.generation,
            Timestamp::now(),
        );
        if changed {
            let message = resize::message("Pod resize error", pod, generation, error);
            let events = &self.runtime.events;
            events.pod(pod, Kind::Warning, "ResizeError", &message);
        }
    }

    /// The pod's cgroup, its mirror, its directories.
    async fn prepare_ground(&self, pod: &Arc<Pod>, observed: &Observed) -> Result<(), Outcome> {
        let cgroups = &self.runtime.cgroups;
        if !cgroups.exists(pod) {
            // Containers outside of it, which some other kubelet made, cannot be moved in.
            let runs = observed.running().next().is_some();
            if runs && let Err(error) = self.runtime.kill_pod(pod, observed, None).await {
                warn!(pod = %pod.full_name(), %error, "cannot stop a pod that has no cgroup");
                return Err(Outcome::Failed { again: None });
            }
            if runs
                && !pod
                    .containers()
                    .iter()
                    .any(|c| can_restart(c, pod.pod_spec()))
            {
                return Err(Outcome::Synced {
                    terminal: false,
                    again: None,
                });
            }
            let own_cpus = self.runtime.topology.cpus.has_exclusive(pod);
            if let Err(error) = cgroups.ensure(pod, own_cpus).await {
                let message = format!("unable to ensure pod container exists: {error}");
                self.runtime
                    .events
                    .pod(pod, Kind::Warning, "FailedCreatePodContainer", &message);
                warn!(pod = %pod.full_name(), %error, "cannot make a pod's cgroup");
                return Err(Outcome::Failed { again: None });
            }
            if let Some(own) = &pod.pod_spec().resources
                && let Err(error) = self
                    .runtime
                    .given
                    .change(pod.uid(), |known| known.pod = Some(own.clone()))
            {
                warn!(pod = %pod.full_name(), %error, "cannot write down what a pod was given");
            }
            self.weigh_classes().await;
        }
        if let Some(mirrors) = self.mirrors.as_ref().filter(|_| pod.is_static()) {
            mirrors
                .reconcile(pod, self.index.mirror_of(pod).as_ref())
                .await;
        }
        if let Err(error) = make_pod_dirs(&self.runtime.settings.root.pod(pod.uid())) {
            let message = format!("error making pod data directories: {error}");
            self.runtime
                .events
                .pod(pod, Kind::Warning, "FailedMakePodDataDirectories", &message);
            return Err(Outcome::Failed { again: None });
        }
        Ok(())
    }

    /// Weighs the classes of pods by the pods that are to run now.
    async fn weigh_classes(&self) {
        let _turn = self.runtime.cgroups.weighing.lock().await;
        let all = self.index.all();
        let granted: Vec<_> = all
            .iter()
            .filter(|pod| !is_terminal_phase(pod.phase()))
            // No resize changes the class.
            .filter(|pod| qos_class(pod) == QosClass::Burstable)
            .map(|pod| self.allocations.granted(pod))
            .collect();
        if let Err(error) = self.runtime.cgroups.update_classes(&granted).await {
            warn!(%error, "cannot weigh the burstable pods");
        }
    }

    async fn pull_secrets(&self, pod: &Pod) -> Vec<Arc<Secret>> {
        let (mut secrets, mut missing) = (Vec::new(), Vec::new());
        for reference in pod
            .pod_spec()
            .image_pull_secrets
            .iter()
            .flatten()
            .filter(|r| !r.name.is_empty())
        {
            match self
                .runtime
                .objects
                .secret(pod.namespace(), &reference.name)
                .await
            {
                Ok(secret) => secrets.push(secret),
                Err(_) => missing.push(reference.name.as_str()),
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.runtime.events.pod(
                pod,
                Kind::Warning,
                "FailedToRetrieveImagePullSecret",
                &message,
            );
        }
        secrets
    }

    async fn service_variables(&self, pod: &Pod) -> Result<BTreeMap<String, String>, &'static str> {
        let Some(services) = &self.services else {
            return Ok(BTreeMap::new());
        };
        // A static pod may be what the API server is to come from: it takes what is known.
        if !pod.is_static()
            && tokio::time::timeout(SERVICES_WAIT, services.wait_synced())
                .await
                .is_err()
        {
            return Err("services have not yet been read at least once, cannot construct envvars");
        }
        let all = services.store().list();
        let links = pod.pod_spec().enable_service_links.unwrap_or(true);
        Ok(service_variables(
            all.iter().map(AsRef::as_ref),
            pod.namespace(),
            links,
        ))
    }

    async fn terminate(&self, pod: &Arc<Pod>, grace: Option<i64>) -> Outcome {
        let failed = |error: &dyn std::fmt::Display| {
            let message = format!("error killing pod: {error}");
            self.runtime
                .events
                .pod(pod, Kind::Warning, "FailedKillPod", &message);
            Outcome::Failed { again: None }
        };
        let observed = match self.observe(pod).await {
            Ok(observed) => observed,
            Err(error) => return failed(&error),
        };
        self.show(pod, &observed, false);
        self.prober.stop_liveness_and_startup(pod.uid());
        if let Err(error) = self.runtime.kill_pod(pod, &observed, grace).await {
            return failed(&error);
        }
        self.prober.remove_pod(pod.uid());
        let mut stopped = match self.observe(pod).await {
            Ok(stopped) => stopped,
            Err(error) => return failed(&error),
        };
        if let Some(running) = stopped
            .containers
            .iter()
            .find(|c| c.state == State::Running)
        {
            return failed(&format!(
                "container {} runs after it was stopped",
                running.name
            ));
        }
        // Before anyone hears that it has ended: its devices may then be given to others.
        if let Err(error) = self.runtime.dra.unprepare(pod).await {
            warn!(pod = %pod.full_name(), %error, "cannot give up the claims of a pod yet");
            return Outcome::Failed { again: None };
        }
        // The addresses it had are of interest still, and its sandbox has them no more.
        stopped.ips = observed.ips;
        self.show(pod, &stopped, true);
        debug!(pod = %pod.full_name(), "stopped");
        Outcome::Completed
    }

    async fn finish(&self, pod: &Arc<Pod>, orphan: bool) -> Outcome {
        let failed = |error: &dyn std::fmt::Display| {
            warn!(pod = %pod.full_name(), %error, "cannot clear a pod's remains away yet");
            Outcome::Failed { again: None }
        };
        if let Err(error) = self.volumes.tear_down(pod.uid()).await {
            return failed(&error);
        }
        self.runtime.objects.unregister(pod);
        if orphan {
            let known = self
                .runtime
                .cgroups
                .list()
                .into_iter()
                .filter(|(_, uid)| uid == pod.uid());
            for (class, uid) in known {
                if let Err(error) = self.runtime.cgroups.remove(class, &uid).await {
                    return failed(&error);
                }
            }
            return Outcome::Completed;
        }
        if let Err(error) = self.runtime.cgroups.remove(qos_class(pod), pod.uid()).await {
            return failed(&error);
        }
        self.failures.lock().remove(pod.uid());
        self.status.finish(pod);
        Outcome::Completed
    }

    async fn end_orphan(&self, pod: &Arc<Pod>) -> Outcome {
        let observed = self.observe(pod).await;
        let ended = match &observed {
            Ok(observed) => self.runtime.kill_orphan(observed).await,
            Err(error) => Err(error.clone()),
        };
        match ended {
            Ok(()) => Outcome::Completed,
            Err(error) => {
                warn!(pod = %pod.full_name(), %error, "cannot stop a pod that nobody asks for");
                Outcome::Failed { again: None }
            }
        }
    }

    /// Ends a pod that this node will not run: it has failed before it began.
    pub fn reject(&self, pod: &Arc<Pod>, reason: &str, message: &str) {
        self.runtime.events.pod(pod, Kind::Warning, reason, message);
        let status = PodStatus {
            phase: Some("Failed".into()),
            reason: Some(reason.into()),
            message: Some(format!("Pod was rejected: {message}")),
            qos_class: Some(qos_class(pod).as_str().into()),
            observed_generation: pod
                .metadata
                .generation
                .filter(|generation| *generation != 0),
            ..Default::default()
        };
        self.status.set(pod, status);
    }
}

/// How long the pod may still be active; `None` for ever.
fn deadline_left(pod: &Pod, status: &PodStatus) -> Option<Duration> {
    let seconds = pod.pod_spec().active_deadline_seconds?;
    let start = status.start_time.as_ref()?;
    let used = Timestamp::now().duration_since(start.0);
    let left = jiff::SignedDuration::from_secs(seconds) - used;
    Some(Duration::try_from(left).unwrap_or_default())
}
