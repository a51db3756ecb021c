//! Container statuses as the API shows them, from what the runtime holds and what was shown
//! before. Pure.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser, Pod,
    ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{resources, restart_all};
use crate::cri::observed::{ContainerStatus as Observed, PodStatus, State};
use crate::cri::plan::{any_regular_created, should_restart};
use crate::pods::pod::{PodExt, as_container, is_sidecar};

/// Why a container could not be started: reason and message, by container name.
pub type StartFailures = HashMap<String, (String, String)>;

/// What container statuses depend on beside the runtime.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// `containerd`: the scheme of container ids.
    pub runtime_name: &'a str,
    pub failures: &'a StartFailures,
    /// The runtime can make mounts read-only to the bottom.
    pub recursive_read_only: bool,
    /// All containers are to begin anew, or are doing so.
    pub restarting: bool,
}

/// Which of a pod's lists of containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Init,
    Regular,
    Ephemeral,
}

/// The id that the API shows: `containerd://…`.
pub fn container_id(runtime_name: &str, id: &str) -> String {
    format!("{runtime_name}://{id}")
}

/// The runtime's id in an id that the API shows.
pub fn runtime_id(container_id: &str) -> &str {
    container_id
        .split_once("://")
        .map_or(container_id, |(_, id)| id)
}

/// Statuses of one list of the pod's containers: init containers in the spec's order, others by
/// name.
pub fn statuses(
    pod: &Pod,
    observed: &PodStatus,
    old: &[ContainerStatus],
    kind: Kind,
    context: &Context<'_>,
) -> Vec<ContainerStatus> {
    let specs: Vec<Container> = match kind {
        Kind::Init => pod.init_containers().to_vec(),
        Kind::Regular => pod.containers().to_vec(),
        Kind::Ephemeral => pod
            .ephemeral_containers()
            .iter()
            .map(as_container)
            .collect(),
    };
    let mut statuses: Vec<_> = specs
        .iter()
        .map(|spec| {
            let old = old.iter().find(|status| status.name == spec.name);
            let mut status = from_runtime(pod, spec, observed, old, context);
            complete(pod, spec, observed, kind, context, &mut status);
            status
        })
        .collect();
    if kind != Kind::Init {
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
    }
    statuses
}

/// The status before the runtime has anything to say.
fn initial(
    pod: &Pod,
    spec: &Container,
    old: Option<&ContainerStatus>,
    context: &Context<'_>,
) -> ContainerStatus {
    if let Some(old) = old.filter(|old| terminated(old).is_some()) {
        return old.clone();
    }
    let reason = if pod.init_containers().is_empty() {
        "ContainerCreating"
    } else {
        "PodInitializing"
    };
    ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        state: Some(waiting(reason, "")),
        volume_mounts: mounts(spec, context),
        restart_count: old.map(|old| old.restart_count).unwrap_or_default(),
        last_state: Some(
            old.and_then(|old| old.last_state.clone())
                .unwrap_or_default(),
        ),
        ..Default::default()
    }
}

fn from_runtime(
    pod: &Pod,
    spec: &Container,
    observed: &PodStatus,
    old: Option<&ContainerStatus>,
    context: &Context<'_>,
) -> ContainerStatus {
    let mut instances = observed.containers.iter().filter(|c| c.name == spec.name);
    let Some(newest) = instances.next() else {
        let mut status = initial(pod, spec, old, context);
        if context.restarting
            && let Some(old) = old
            && restart_all::show_removed(&mut status, old)
        {
            return status;
        }
        return forgotten(pod, status, old);
    };
    let given = observed.given.containers.get(&spec.name);
    let mut status = convert(spec, newest, given, old, context);
    if let Some(previous) = instances.next() {
        status.last_state = convert(spec, previous, given, old, context).state;
    }
    status
}

/// The runtime does not know a container that may have run before.
fn forgotten(
    pod: &Pod,
    mut status: ContainerStatus,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let ran = old
        .and_then(|old| old.state.as_ref())
        .is_some_and(|state| state.running.is_some());
    let unexplained = status
        .last_state
        .as_ref()
        .is_none_or(|last| last.terminated.is_none());
    if ran && unexplained {
        // Having run, the pod must not look as if it never started.
        status.last_state = Some(ended(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".into()),
            message: Some(
                "The container could not be located when the pod was deleted.  The container used to be Running".into(),
            ),
            exit_code: 137,
            ..Default::default()
        }));
        if !pod.is_deleting() {
            status.restart_count += 1;
        }
    }
    status
}

fn convert(
    spec: &Container,
    seen: &Observed,
    given: Option<&ResourceRequirements>,
    old: Option<&ContainerStatus>,
    context: &Context<'_>,
) -> ContainerStatus {
    let id = container_id(context.runtime_name, &seen.id);
    let mut status = ContainerStatus {
        name: seen.name.clone(),
        restart_count: seen.restart_count,
        image: seen.image.clone(),
        image_id: seen.image_ref.clone(),
        container_id: Some(id.clone()),
        volume_mounts: old
            .and_then(|old| old.volume_mounts.clone())
            .or_else(|| mounts(spec, context)),
        last_state: Some(ContainerState::default()),
        allocated_resources: spec.resources.as_ref().and_then(|r| r.requests.clone()),
        resources: Some(resources::of_container(spec, seen, given, old, &id)),
        user: seen.user.as_ref().map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: Some(user.supplemental_groups.clone()),
            }),
        }),
        ..Default::default()
    };
    if let Some(old) = old {
        status.restart_count = status.restart_count.max(old.restart_count);
        let last = old
            .last_state
            .as_ref()
            .and_then(|last| last.terminated.as_ref());
        let known = if old.container_id != status.container_id {
            terminated(old).or(last)
        } else {
            last
        };
        if let Some(known) = known {
            status.last_state = Some(ended(known.clone()));
        }
    }
    status.state = Some(match seen.state {
        State::Running => {
            if let Some(old) = old
                .filter(|old| terminated(old).is_some() && old.restart_count >= seen.restart_count)
            {
                status.restart_count = old.restart_count + 1;
            }
            if let Some(old) = old {
                // A restarted kubelet has no probe results yet; what was started stays started.
                status.started = old
                    .started
                    .filter(|_| old.container_id == status.container_id);
            }
            let started_at = Some(time(seen.started_at));
            ContainerState {
                running: Some(ContainerStateRunning { started_at }),
                ..Default::default()
            }
        }
        State::Exited => ended(ContainerStateTerminated {
            exit_code: seen.exit_code,
            reason: text(&seen.reason),
            message: text(&seen.message),
            started_at: Some(time(seen.started_at)),
            finished_at: Some(time(seen.finished_at)),
            container_id: Some(id),
            ..Default::default()
        }),
        State::Unknown
            if old
                .and_then(|old| old.state.as_ref())
                .is_some_and(|state| state.running.is_some()) =>
        {
            status.restart_count = old.map_or(0, |old| old.restart_count) + 1;
            let reason = if context.restarting {
                restart_all::REASON
            } else {
                "ContainerStatusUnknown"
            };
            ended(ContainerStateTerminated {
                reason: Some(reason.into()),
                message: Some(
                    "The container could not be located when the pod was terminated".into(),
                ),
                exit_code: 137,
                ..Default::default()
            })
        }
        State::Created | State::Unknown => waiting("", ""),
    });
    status
}

/// Adds what the kubelet knows beyond the runtime: init containers that must have completed, and
/// why a container is not being started.
fn complete(
    pod: &Pod,
    spec: &Container,
    observed: &PodStatus,
    kind: Kind,
    context: &Context<'_>,
    status: &mut ContainerStatus,
) {
    if kind == Kind::Init {
        let newest = observed.newest(&spec.name);
        if newest.is_some_and(|s| s.state == State::Exited && s.exit_code == 0) {
            return;
        }
        let is_waiting = status
            .state
            .as_ref()
            .is_some_and(|state| state.waiting.is_some());
        if newest.is_none() && any_regular_created(pod, observed) && !is_sidecar(spec) && is_waiting
        {
            status.state = Some(ended(ContainerStateTerminated {
                reason: Some("Completed".into()),
                message: Some(
                    "Unable to get init container status from container runtime and pod has been initialized, treat \
                     it as exited normally"
                        .into(),
                ),
                ..Default::default()
            }));
            return;
        }
    }
    if !should_restart(spec, pod, observed) {
        return;
    }
    if let Some((reason, message)) = context.failures.get(&spec.name) {
        if let Some(ended_before) = terminated(status).cloned() {
            status.last_state = Some(ended(ended_before));
        }
        status.state = Some(waiting(reason, message));
    }
}

fn mounts(spec: &Container, context: &Context<'_>) -> Option<Vec<VolumeMountStatus>> {
    let mounts = spec
        .volume_mounts
        .as_deref()
        .filter(|mounts| !mounts.is_empty())?;
    let status = |mount: &k8s_openapi::api::core::v1::VolumeMount| {
        let read_only = mount.read_only == Some(true);
        let recursive = match mount.recursive_read_only.as_deref() {
            Some("Enabled") => true,
            Some("IfPossible") => context.recursive_read_only,
            _ => false,
        };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only
                .then(|| if recursive { "Enabled" } else { "Disabled" }.into()),
            ..Default::default()
        }
    };
    Some(mounts.iter().map(status).collect())
}

pub fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

pub fn ended(terminated: ContainerStateTerminated) -> ContainerState {
    ContainerState {
        terminated: Some(terminated),
        ..Default::default()
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: text(reason),
        message: text(message),
    };
    ContainerState {
        waiting: Some(waiting),
        ..Default::default()
    }
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn time(nanoseconds: i64) -> Time {
    Time(Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
#[path = "containers_tests.rs"]
mod tests;
