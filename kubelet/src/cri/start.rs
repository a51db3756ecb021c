//! *Apply*: starting one container: image, configuration, create, start, hook.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use grpc::cri;
use k8s_openapi::api::core::v1::{Container, Pod};
use tracing::warn;

use super::client::CriError;
use super::container::{self, ContainerInput};
use super::observed::PodStatus;
use super::plan::{Kill, KillReason};
use super::runtime::{Prepared, Runtime, Sandbox};
use super::security::ImageUser;
use super::{env, hooks, limits, logs};
use crate::cpus::CpuSet;
use crate::events::Kind;
use crate::images::{ImageError, PullRequest};
use crate::pods::pod::PodExt;
use crate::resources::downward::FieldContext;
use crate::volumes::mounts::{self, MountInput};

/// Why a container does not run: the reason and message of its waiting state.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct StartError {
    pub reason: &'static str,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl StartError {
    fn new(reason: &'static str, message: impl ToString) -> Self {
        Self {
            reason,
            message: message.to_string(),
            retry_after: None,
        }
    }
}

impl From<ImageError> for StartError {
    fn from(error: ImageError) -> Self {
        Self {
            reason: error.reason,
            message: error.message,
            retry_after: error.retry_after,
        }
    }
}

impl Runtime {
    #[allow(clippy::too_many_arguments)]
    pub(super) async fn start(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        target: Option<String>,
        observed: &PodStatus,
        prepared: &Prepared<'_>,
        sandbox: &Sandbox,
        image_volumes: &HashMap<String, Result<cri::ImageSpec, StartError>>,
    ) -> Result<(), StartError> {
        self.hold_back(pod, container, observed)?;
        let kind = if has(pod.init_containers(), container) {
            "init_container"
        } else if has(pod.containers(), container) {
            "container"
        } else {
            "ephemeral_container"
        };
        let tried = &self.metrics.started_containers;
        tried.with_label_values(&[kind]).inc();
        let images = images_of(container, image_volumes).inspect_err(|error| {
            let message = format!("Error: {}", error.reason);
            let name = &container.name;
            self.events
                .container(pod, name, Kind::Warning, "Failed", &message);
        })?;
        let started = self
            .start_now(pod, container, target, observed, prepared, sandbox, &images)
            .await;
        self.count_image_volumes(container, &images, &started);
        if let Err(error) = &started {
            let errors = &self.metrics.started_containers_errors;
            errors.with_label_values(&[kind, error.reason]).inc();
        }
        started
    }

    #[allow(clippy::too_many_arguments)]
    async fn start_now(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        target: Option<String>,
        observed: &PodStatus,
        prepared: &Prepared<'_>,
        sandbox: &Sandbox,
        images: &HashMap<String, cri::ImageSpec>,
    ) -> Result<(), StartError> {
        let name = container.name.as_str();
        let warn_event = |message: &str| {
            self.events.container(
                pod,
                name,
                Kind::Warning,
                "Failed",
                &format!("Error: {message}"),
            )
        };

        let request = PullRequest {
            pod,
            container: Some(container),
            image: container.image.as_deref().unwrap_or_default(),
            policy: container
                .image_pull_policy
                .as_deref()
                .unwrap_or("IfNotPresent"),
            secrets: prepared.secrets,
            sandbox: &sandbox.config,
        };
        let image_ref = self
            .images
            .ensure(&request)
            .await
            .map_err(StartError::from)
            .inspect_err(|error| warn_event(error.reason))?;

        let restart_count = match observed.newest(name) {
            Some(last) => last.restart_count + 1,
            None => restart_count_of_logs(&self.container_log_dir(pod, name)),
        };
        let (config, cpus) = self
            .configure(
                pod,
                container,
                target,
                observed,
                prepared,
                sandbox,
                images,
                image_ref,
                restart_count,
            )
            .await
            .inspect_err(|error| warn_event(&error.message))?;

        // No container id in events: it would make each of them another one.
        let told = |error: &CriError, id: &str| match id {
            "" => error.message.clone(),
            id => error.message.replace(id, name),
        };
        // Written down first: whoever finds the container knows what it was made with.
        self.container_given(pod, name, container.resources.as_ref());
        let id = self
            .client
            .create_container(&sandbox.id, config, sandbox.config.clone())
            .await
            .map_err(|error| {
                warn_event(&told(&error, ""));
                StartError::new("CreateContainerError", &error.message)
            })?;
        self.topology.cpus.started(pod.uid(), name, &id, cpus);
        self.topology.memory.started(pod, name);
        self.events
            .container(pod, name, Kind::Normal, "Created", "Container created");
        self.client.start_container(&id).await.map_err(|error| {
            warn_event(&told(&error, &id));
            StartError::new("RunContainerError", &error.message)
        })?;
        self.events
            .container(pod, name, Kind::Normal, "Started", "Container started");
        self.link_log(pod, name, &id, restart_count);
        self.post_start(pod, container, &id, sandbox).await
    }

    #[allow(clippy::too_many_arguments)]
    async fn configure(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        target: Option<String>,
        observed: &PodStatus,
        prepared: &Prepared<'_>,
        sandbox: &Sandbox,
        images: &HashMap<String, cri::ImageSpec>,
        image_ref: String,
        restart_count: i32,
    ) -> Result<(cri::ContainerConfig, CpuSet), StartError> {
        let wrong =
            |error: &dyn std::fmt::Display| StartError::new("CreateContainerConfigError", error);
        let target_id = match target.filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => {
                let status = observed.newest(&name);
                Some(
                    status
                        .ok_or_else(|| wrong(&format!("unable to find target container {name}")))?
                        .id
                        .clone(),
                )
            }
        };
        let own = self.topology.devices.options(pod, container).await;
        let own = own.map_err(|e| wrong(&e))?;
        let sources = self.objects.for_environment(pod, container).await;
        let fields = FieldContext {
            pod_ips: &sandbox.ips,
            host_ips: prepared.host_ips,
            allocatable: Some(prepared.allocatable),
        };
        let mut env = env::environment(pod, container, &fields, prepared.services, &sources)
            .map_err(|e| wrong(&e))?;
        // What the pod says itself counts.
        let mut more = own.env;
        more.retain(|name, _| env.iter().all(|(known, _)| known != name));
        env.splice(0..0, more);
        let dir = self.settings.root.pod(pod.uid());
        let volumes = mounts::of_container(
            pod,
            container,
            &MountInput {
                dir: &dir,
                volumes: prepared.volumes,
                images,
                env: &env,
                pod_ips: &sandbox.ips,
                hostname: &sandbox.hostname,
                domain: &sandbox.domain,
                recursive_read_only: prepared.recursive_read_only,
            },
        )
        .map_err(|e| wrong(&e))?;
        fs::create_dir_all(self.container_log_dir(pod, &container.name)).map_err(|e| wrong(&e))?;
        let image_user = self.image_user(&image_ref).await.map_err(|e| wrong(&e))?;
        let claimed = self.dra.cdi_devices(pod, container);
        let claimed = claimed.map_err(|e| wrong(&e))?;
        let blocks = mounts::devices_of_container(container, prepared.volumes);
        let blocks = blocks.map_err(|e| wrong(&e))?;
        let input = ContainerInput {
            restart_count,
            image_ref,
            image_user,
            env,
            mounts: [own.mounts, volumes].concat(),
            devices: [own.devices, blocks].concat(),
            annotations: own.annotations,
            cdi_devices: [claimed, own.cdi_devices].concat(),
            target_id,
            security: &self.settings.security,
            limits: &self.settings.limits,
        };
        let mut config = container::config(pod, container, input).map_err(|e| wrong(&e))?;
        let resources = config
            .linux
            .as_mut()
            .and_then(|linux| linux.resources.as_mut());
        let cpus = resources.map(|resources| self.pin(pod, &container.name, resources));
        Ok((config, cpus.unwrap_or_default()))
    }

    /// Puts a container on its CPUs and its memory.
    fn pin(&self, pod: &Pod, name: &str, resources: &mut cri::LinuxContainerResources) -> CpuSet {
        let (uid, topology) = (pod.uid(), &self.topology);
        let cpus = topology.cpus.of(uid, name);
        resources.cpuset_cpus = cpus.to_string();
        resources.cpuset_mems = topology.memory.nodes_of(uid, name);
        if topology.cpus.exclusive(uid, name).is_some() {
            limits::unlimited_cpu(resources);
        }
        cpus
    }

    fn count_image_volumes(
        &self,
        container: &Container,
        images: &HashMap<String, cri::ImageSpec>,
        started: &Result<(), StartError>,
    ) {
        let metrics = &self.metrics;
        let asked = images.len() as u64;
        metrics.image_volumes_requested.inc_by(asked);
        let refused = |error: &StartError| {
            error.reason == "CreateContainerError"
                && error.message.starts_with("ImageVolumeMountFailed")
        };
        let counter = match started {
            Err(error) if refused(error) => &metrics.image_volumes_errors,
            _ => &metrics.image_volumes_mounted,
        };
        let mounts = container.volume_mounts.iter().flatten();
        let mounted = mounts.filter(|mount| images.contains_key(&mount.name));
        counter.inc_by(mounted.count() as u64);
    }

    async fn image_user(&self, image_ref: &str) -> Result<ImageUser, CriError> {
        let spec = cri::ImageSpec {
            image: image_ref.to_owned(),
            ..Default::default()
        };
        Ok(match self.client.image_status(spec).await? {
            Some(cri::Image { uid: Some(uid), .. }) => ImageUser::Id(uid.value),
            Some(cri::Image { username, .. }) if !username.is_empty() => ImageUser::Name(username),
            _ => ImageUser::Id(0),
        })
    }

    /// Log collectors look for logs by pod and container name in one directory.
    fn link_log(&self, pod: &Pod, container: &str, id: &str, restart_count: i32) {
        let log = self
            .container_log_dir(pod, container)
            .join(format!("{restart_count}.log"));
        let link = Path::new(logs::CONTAINERS_DIR).join(logs::link_name(
            pod.name(),
            pod.namespace(),
            container,
            id,
        ));
        if let Err(error) = std::os::unix::fs::symlink(&log, &link)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            warn!(link = %link.display(), %error, "cannot link a container's log");
        }
    }

    async fn post_start(
        &self,
        pod: &Pod,
        container: &Container,
        id: &str,
        sandbox: &Sandbox,
    ) -> Result<(), StartError> {
        let Some(handler) = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.as_ref())
        else {
            return Ok(());
        };
        let pod_ip = sandbox.ips.first().map_or("", String::as_str);
        let Err(error) = hooks::run(&self.client, handler, container, id, pod_ip).await else {
            return Ok(());
        };
        warn!(pod = %pod.full_name(), container = container.name, error, "postStart hook failed");
        self.events.container(
            pod,
            &container.name,
            Kind::Warning,
            "FailedPostStartHook",
            "PostStartHook failed",
        );
        let kill = Kill {
            id: id.to_owned(),
            name: container.name.clone(),
            message: "FailedPostStartHook".into(),
            reason: KillReason::FailedPostStart,
        };
        if let Err(error) = self.kill_container(pod, &kill, pod_ip, None).await {
            warn!(pod = %pod.full_name(), container = container.name, %error, "cannot kill a container whose postStart hook failed");
        }
        Err(StartError::new("PostStartHookError", error))
    }
}

/// The images that this container mounts. One that could not be pulled keeps it from starting.
fn images_of(
    container: &Container,
    volumes: &HashMap<String, Result<cri::ImageSpec, StartError>>,
) -> Result<HashMap<String, cri::ImageSpec>, StartError> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .filter_map(|mount| {
            let image = volumes.get(&mount.name)?.clone();
            Some(image.map(|image| (mount.name.clone(), image)))
        })
        .collect()
}

fn has(list: &[Container], container: &Container) -> bool {
    list.iter().any(|c| c.name == container.name)
}

fn restart_count_of_logs(directory: &Path) -> i32 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    logs::next_restart_count(names.iter().map(String::as_str))
}
