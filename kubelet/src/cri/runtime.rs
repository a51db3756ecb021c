//! *Apply*: makes a pod's sandbox and containers as planned. Every step can be repeated: whatever
//! fails or is cut short is found by the next observation and planned anew.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Api, Client};
use component::flags::GoDuration;
use grpc::cri;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::backoff::Backoff;
use super::client::{CriClient, CriError};
use super::dns::{ClusterDns, parse_resolv_conf};
use super::gc::{Collector, Need, Policy};
use super::limits::{self, LimitDefaults};
use super::observed::{PodStatus, State, sandbox_ips};
use super::plan::{Actions, Kill, KillReason, Probed, plan};
use super::sandbox::{self, SandboxInput};
use super::security::SecurityDefaults;
use super::start::StartError;
use super::{hosts, logs};
use crate::allocation::Record;
use crate::cgroups::PodCgroups;
use crate::dra::Dra;
use crate::events::{Events, Kind};
use crate::images::{Images, PullRequest};
use crate::metrics::Metrics;
use crate::pods::dirs::Root;
use crate::pods::pod::{PodExt, as_container, is_sidecar};
use crate::status::containers::StartFailures;
use crate::topology::Topology;
use crate::volumes::{Mounted, MountedVolumes, Objects};

/// Node-wide settings of the runtime room.
pub struct Settings {
    pub root: Root,
    /// `podLogsDir`.
    pub logs_root: String,
    /// `resolvConf`; empty for none.
    pub resolv_conf: String,
    pub dns: ClusterDns,
    pub limits: LimitDefaults,
    pub security: SecurityDefaults,
}

/// The runtime, and all that it takes to run a pod on it.
pub struct Runtime {
    pub client: CriClient,
    pub events: Arc<Events>,
    pub images: Images,
    pub cgroups: PodCgroups,
    pub settings: Settings,
    pub objects: Arc<Objects>,
    /// For runtime classes; `None` without an API server.
    pub api: Option<Client>,
    pub backoff: Mutex<Backoff>,
    pub collector: Collector,
    pub metrics: Arc<Metrics>,
    /// What pods and their containers were given last.
    pub given: Record,
    /// The claims of pods.
    pub dra: Arc<Dra>,
    /// What pods are given of the node's devices, CPUs and memory.
    pub topology: Arc<Topology>,
}

/// What a pod needs to be there before its containers can start.
pub struct Prepared<'a> {
    pub volumes: &'a MountedVolumes,
    pub secrets: &'a [Arc<Secret>],
    /// Variables that tell of services.
    pub services: &'a std::collections::BTreeMap<String, String>,
    pub host_ips: &'a [String],
    pub allocatable: &'a crate::resources::requests::ResourceList,
    pub recursive_read_only: bool,
}

/// How a sync went.
#[derive(Debug, Default)]
pub struct Synced {
    /// Containers whose start was tried: `None` succeeded.
    pub starts: HashMap<String, Option<(String, String)>>,
    /// What kept the sync as a whole from going on.
    pub error: Option<String>,
    /// When to try again what failed, at the latest.
    pub retry_after: Option<Duration>,
    /// The sync was given up because the pod is to end.
    pub cancelled: bool,
    /// Containers were removed, so that all can begin anew.
    pub removed: bool,
    /// How giving other resources went, where that was to be done.
    pub resized: Option<Result<(), String>>,
}

impl Synced {
    fn failed(error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::default()
        }
    }

    /// Brings a pod's record of failures up to date.
    pub fn note(&self, failures: &mut StartFailures) {
        for (name, failure) in &self.starts {
            match failure {
                Some(failure) => failures.insert(name.clone(), failure.clone()),
                None => failures.remove(name),
            };
        }
    }

    pub fn is_ok(&self) -> bool {
        self.error.is_none()
            && self.starts.values().all(Option::is_none)
            && !matches!(self.resized, Some(Err(_)))
    }
}

/// The sandbox to start containers in.
pub(super) struct Sandbox {
    pub id: String,
    pub config: cri::PodSandboxConfig,
    pub ips: Vec<String>,
    pub hostname: String,
    pub domain: String,
}

impl Runtime {
    /// Removes what no one needs any more ([`Collector::collect`]).
    ///
    /// # Errors
    /// When the runtime cannot be asked.
    pub async fn collect_dead(
        &self,
        logs_root: &Path,
        need: impl Fn(&str) -> Need,
        policy: Policy,
    ) -> Result<usize, CriError> {
        let collector = &self.collector;
        collector
            .collect(&self.client, logs_root, need, policy)
            .await
    }

    /// Does what the plan says for a pod that is meant to run. `sandbox_ready` hears of a new
    /// sandbox before images are pulled, which may take long. Given up between two steps once
    /// `stop` is cancelled.
    pub async fn sync(
        &self,
        pod: &Arc<Pod>,
        observed: &PodStatus,
        prepared: &Prepared<'_>,
        probed: &dyn ProbedSync,
        sandbox_ready: &(dyn Fn(&PodStatus) + Send + Sync),
        stop: &CancellationToken,
    ) -> Synced {
        let actions = plan(pod, observed, probed);
        if !actions.is_empty() {
            tracing::debug!(pod = %pod.full_name(), ?actions, "syncing");
        }
        if actions.create_sandbox && actions.sandbox_id.is_some() {
            self.events.pod(
                pod,
                Kind::Normal,
                "SandboxChanged",
                "Pod sandbox changed, it will be killed and re-created.",
            );
        }
        if let Err(error) = self.end(pod, observed, &actions).await {
            return Synced::failed(error.to_string());
        }
        if stop.is_cancelled() {
            return Synced {
                cancelled: true,
                ..Synced::default()
            };
        }
        let starts_any = !(actions.start.is_empty()
            && actions.start_init.is_empty()
            && actions.start_ephemeral.is_empty());
        if !actions.create_sandbox && !starts_any {
            let resized = if actions.resizes() && !actions.kill_pod {
                Some(self.resize(pod, observed, &actions).await)
            } else {
                None
            };
            return Synced {
                resized,
                removed: !actions.remove.is_empty(),
                ..Synced::default()
            };
        }
        let sandbox = match self.sandbox(pod, observed, &actions, sandbox_ready).await {
            Ok(sandbox) => sandbox,
            Err(_) if stop.is_cancelled() => {
                return Synced {
                    cancelled: true,
                    ..Synced::default()
                };
            }
            Err(error) => return Synced::failed(error),
        };
        self.start_all(pod, observed, &actions, prepared, &sandbox, stop)
            .await
    }

    /// What has to end before anything starts.
    async fn end(
        &self,
        pod: &Pod,
        observed: &PodStatus,
        actions: &Actions,
    ) -> Result<(), CriError> {
        if actions.kill_pod {
            self.kill_pod(pod, observed, None).await?;
        } else {
            let pod_ip = observed.ips.first().map_or("", String::as_str);
            for kill in &actions.kill {
                self.kill_container(pod, kill, pod_ip, None).await?;
            }
            for old in &actions.remove {
                let kill = Kill {
                    id: old.id.clone(),
                    name: old.name.clone(),
                    message: "killing".into(),
                    reason: KillReason::RestartAll,
                };
                if old.kill {
                    self.kill_container(pod, &kill, pod_ip, Some(0)).await?;
                }
                self.client.remove_container(&old.id).await?;
            }
        }
        // In a new sandbox initialization begins anew; otherwise the last run of each init
        // container is kept to be looked at.
        let keep = usize::from(!actions.create_sandbox);
        for init in pod.init_containers() {
            let ended = observed.containers.iter().filter(|c| {
                c.name == init.name
                    && (actions.create_sandbox || matches!(c.state, State::Exited | State::Unknown))
            });
            for old in ended.skip(keep) {
                if let Err(error) = self.client.remove_container(&old.id).await {
                    warn!(pod = %pod.full_name(), container = init.name, %error, "cannot remove an old init container yet");
                }
            }
        }
        Ok(())
    }

    async fn sandbox(
        &self,
        pod: &Pod,
        observed: &PodStatus,
        actions: &Actions,
        sandbox_ready: &(dyn Fn(&PodStatus) + Send + Sync),
    ) -> Result<Sandbox, String> {
        let (hostname, domain) = hosts::hostname_and_domain(pod, &self.settings.dns.domain)
            .map_err(|e| e.to_string())?;
        let config = self
            .sandbox_config(pod, actions.attempt, &hostname, &domain)
            .map_err(|why| {
                format!(
                    "GeneratePodSandboxConfig for pod {:?} failed: {why}",
                    pod.description()
                )
            })?;
        if !actions.create_sandbox {
            let id = actions.sandbox_id.clone().unwrap_or_default();
            return Ok(Sandbox {
                id,
                config,
                ips: observed.ips.clone(),
                hostname,
                domain,
            });
        }
        self.metrics.started_pods.inc();
        let failed = |error: String| {
            self.metrics.started_pods_errors.inc();
            self.events.pod(
                pod,
                Kind::Warning,
                "FailedCreatePodSandBox",
                &format!("Failed to create pod sandbox: {error}"),
            );
            format!(
                "failed to \"CreatePodSandbox\" for {:?}: {error}",
                pod.description()
            )
        };
        if let Err(error) = self.dra.prepare(pod).await {
            let message =
                format!("Failed to prepare dynamic resources: prepare dynamic resources: {error}");
            self.events.pod(
                pod,
                Kind::Warning,
                "FailedPrepareDynamicResources",
                &message,
            );
            return Err(message);
        }
        std::fs::create_dir_all(&config.log_directory)
            .map_err(|error| failed(error.to_string()))?;
        let handler = self.runtime_handler(pod).await.map_err(failed)?;
        let timer = self.metrics.run_sandbox.with_label_values(&[&handler]);
        let timer = timer.start_timer();
        let id = self.client.run_sandbox(config.clone(), &handler).await;
        timer.observe_duration();
        let id = id.map_err(|error| {
            let errors = &self.metrics.run_sandbox_errors;
            errors.with_label_values(&[&handler]).inc();
            failed(error.to_string())
        })?;

        let status = self
            .client
            .sandbox_status(&id)
            .await
            .map_err(|error| error.to_string());
        let status = match status.map(|response| response.and_then(|response| response.status)) {
            Ok(Some(status)) => status,
            other => {
                let why = other.err().unwrap_or_else(|| "it is gone".into());
                let message = format!("Unable to get pod sandbox status: {why}");
                self.events
                    .pod(pod, Kind::Warning, "FailedPodSandBoxStatus", &message);
                return Err(message);
            }
        };
        let ips = if pod.host_network() {
            observed.ips.clone()
        } else {
            sandbox_ips(&status)
        };
        let mut seen = observed.clone();
        seen.ips.clone_from(&ips);
        for old in &mut seen.sandboxes {
            old.set_state(cri::PodSandboxState::SandboxNotready);
        }
        seen.sandboxes.insert(0, status);
        sandbox_ready(&seen);
        Ok(Sandbox {
            id,
            config,
            ips,
            hostname,
            domain,
        })
    }

    fn sandbox_config(
        &self,
        pod: &Pod,
        attempt: u32,
        hostname: &str,
        domain: &str,
    ) -> Result<cri::PodSandboxConfig, String> {
        let host_dns = match self.settings.resolv_conf.as_str() {
            "" => cri::DnsConfig::default(),
            path => parse_resolv_conf(
                &std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
            ),
        };
        let dns = self.settings.dns.of_pod(pod, host_dns);
        for (reason, message) in dns.warnings {
            self.events.pod(pod, Kind::Warning, reason, &message);
        }
        let input = SandboxInput {
            attempt,
            dns: dns.config,
            hostname: hosts::kernel_hostname(pod, hostname, domain)
                .map_err(|error| error.to_string())?,
            cgroup_parent: self.cgroups.parent(pod),
            logs_root: &self.settings.logs_root,
            limits: &self.settings.limits,
        };
        let mut config = sandbox::config(pod, input).map_err(|error| error.to_string())?;
        let resources = config
            .linux
            .as_mut()
            .and_then(|linux| linux.resources.as_mut());
        if let Some(resources) = resources.filter(|_| self.topology.cpus.has_exclusive(pod)) {
            limits::unlimited_cpu(resources);
        }
        Ok(config)
    }

    /// The runtime's name of the pod's runtime class; empty for the default.
    async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let Some(name) = pod
            .pod_spec()
            .runtime_class_name
            .as_deref()
            .filter(|name| !name.is_empty())
        else {
            return Ok(String::new());
        };
        let api = self
            .api
            .as_ref()
            .ok_or_else(|| format!("no API server to look up RuntimeClass {name:?}"))?;
        let class = Api::<RuntimeClass>::all(api).get(name).await;
        class
            .map(|class| class.handler)
            .map_err(|error| format!("failed to get RuntimeClass {name:?}: {error}"))
    }

    async fn start_all(
        &self,
        pod: &Arc<Pod>,
        observed: &PodStatus,
        actions: &Actions,
        prepared: &Prepared<'_>,
        sandbox: &Sandbox,
        stop: &CancellationToken,
    ) -> Synced {
        let mut synced = Synced::default();
        let images = self.image_volumes(pod, prepared, sandbox).await;
        let ephemeral: Vec<_> = pod
            .ephemeral_containers()
            .iter()
            .map(|e| (as_container(e), e.target_container_name.clone()))
            .collect();
        let plain = |index: &usize, of: &[k8s_openapi::api::core::v1::Container]| {
            of.get(*index).cloned().map(|c| (c, None))
        };
        let first = actions
            .start_ephemeral
            .iter()
            .filter_map(|i| ephemeral.get(*i).cloned())
            .chain(
                actions
                    .start_init
                    .iter()
                    .filter_map(|i| plain(i, pod.init_containers())),
            );
        let regular = actions
            .start
            .iter()
            .filter_map(|i| plain(i, pod.containers()));
        // A place in the row: before what starts next, the pod has to have room for it.
        let resize = actions.resizes().then_some(None);
        let steps = first.map(Some).chain(resize).chain(regular.map(Some));
        for step in steps {
            let Some((container, target)) = step else {
                synced.resized = Some(self.resize(pod, observed, actions).await);
                continue;
            };
            if stop.is_cancelled() {
                synced.cancelled = true;
                break;
            }
            let started = tokio::select! {
                // A pull may take long; what the runtime does on our behalf ends with the call.
                () = stop.cancelled() => {
                    synced.cancelled = true;
                    break;
                }
                started = self.start(pod, &container, target, observed, prepared, sandbox, &images) => started,
            };
            let failure = started.err();
            if let Some(StartError {
                retry_after: Some(after),
                ..
            }) = &failure
            {
                synced.retry_after =
                    Some(synced.retry_after.map_or(*after, |other| other.min(*after)));
            }
            let is_init = pod
                .init_containers()
                .iter()
                .any(|c| c.name == container.name);
            let ends_sync = failure.is_some() && is_init && !is_sidecar(&container);
            let failure = failure.map(|error| (error.reason.to_owned(), error.message));
            synced.starts.insert(container.name.clone(), failure);
            if ends_sync {
                break;
            }
        }
        synced
    }

    async fn image_volumes(
        &self,
        pod: &Pod,
        prepared: &Prepared<'_>,
        sandbox: &Sandbox,
    ) -> HashMap<String, Result<cri::ImageSpec, StartError>> {
        let mut images = HashMap::new();
        for (name, volume) in prepared.volumes {
            let Mounted::Image {
                reference,
                pull_policy,
            } = volume
            else {
                continue;
            };
            let request = PullRequest {
                pod,
                container: None,
                image: reference,
                policy: pull_policy,
                secrets: prepared.secrets,
                sandbox: &sandbox.config,
            };
            let pulled = self.images.ensure(&request).await;
            let spec = pulled.map(|image| cri::ImageSpec {
                image,
                user_specified_image: reference.clone(),
                annotations: pod.metadata.annotations.clone().unwrap_or_default(),
                ..Default::default()
            });
            images.insert(name.clone(), spec.map_err(StartError::from));
        }
        images
    }

    /// Holds a container back that failed not long ago. Counts a step of the back-off otherwise.
    pub(super) fn hold_back(
        &self,
        pod: &Pod,
        container: &k8s_openapi::api::core::v1::Container,
        observed: &PodStatus,
    ) -> Result<(), StartError> {
        let last = observed
            .containers
            .iter()
            .find(|c| c.name == container.name && c.state == State::Exited);
        let Some(last) = last else { return Ok(()) };
        let ended =
            Timestamp::from_nanosecond(last.finished_at.into()).unwrap_or(Timestamp::UNIX_EPOCH);
        // What is changed in the spec starts with a clean slate.
        let key = format!(
            "{}/{}/{:?}/{:?}",
            pod.uid(),
            container.name,
            container.image,
            container.resources
        );
        let now = Timestamp::now();
        let mut backoff = self.backoff.lock();
        if !backoff.in_backoff_since(&key, ended, now) {
            backoff.next(&key, ended, now);
            return Ok(());
        }
        let delay = backoff.get(&key);
        drop(backoff);
        let (name, pod_name) = (&container.name, pod.description());
        let event = format!("Back-off restarting failed container {name} in pod {pod_name}");
        self.events
            .container(pod, name, Kind::Warning, "BackOff", &event);
        let since = Duration::try_from(now.duration_since(ended)).unwrap_or_default();
        Err(StartError {
            reason: "CrashLoopBackOff",
            message: format!(
                "back-off {} restarting failed container={name} pod={pod_name}",
                GoDuration::from_std(delay)
            ),
            retry_after: Some(delay.saturating_sub(since)),
        })
    }

    /// Where a container's logs lie.
    pub(super) fn container_log_dir(&self, pod: &Pod, container: &str) -> PathBuf {
        PathBuf::from(logs::pod_directory(&self.settings.logs_root, pod)).join(container)
    }
}

/// [`Probed`], readable from any thread.
pub trait ProbedSync: Probed + Send + Sync {}
impl<T: Probed + Send + Sync> ProbedSync for T {}
