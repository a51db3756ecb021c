//! The *plan* of a pod sync: from what a pod asks for and what the runtime holds, what to do.
//! Pure: no client, no clock, no probe of its own. The rules are upstream's `computePodActions`,
//! so that pods behave alike under either kubelet.

use grpc::cri;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::hash;
use super::observed::{ContainerStatus, PodStatus, State};
use super::resize_plan::{self, At, Resize};
use crate::pods::pod::{PodExt, is_sidecar, restarts_after_exit};
use crate::status::restart_all;

/// What a probe last said about a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Success,
    Failure,
    Unknown,
}

/// The probes' results, by container id. `None`: not probed (yet).
pub trait Probed {
    fn liveness(&self, container_id: &str) -> Option<Health>;
    fn startup(&self, container_id: &str) -> Option<Health>;
}

/// Why a container is killed; decides its grace period and explains itself in the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// Its definition changed.
    Changed,
    StartupProbe,
    LivenessProbe,
    FailedPostStart,
    /// All of the pod's containers begin anew.
    RestartAll,
    /// It has to restart to be given other resources.
    Resize,
    /// Its state cannot be told, or the pod goes as a whole.
    Unknown,
}

/// One container to kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    /// The text of the event.
    pub message: String,
    pub reason: KillReason,
}

/// One instance of a container to remove; first to be killed, where it may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remove {
    pub id: String,
    pub name: String,
    pub kill: bool,
}

/// What one sync is going to do, in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actions {
    /// Stop every container and the sandbox.
    pub kill_pod: bool,
    pub create_sandbox: bool,
    /// The sandbox to start containers in, where one exists.
    pub sandbox_id: Option<String>,
    /// Number of the sandbox to create, or of the one that exists.
    pub attempt: u32,
    pub kill: Vec<Kill>,
    /// Instances to remove, so that all containers can begin anew: the ones that caused it last.
    pub remove: Vec<Remove>,
    /// Indexes into the spec's lists, in starting order.
    pub start_ephemeral: Vec<usize>,
    pub start_init: Vec<usize>,
    /// Running containers that are to have other resources, those first that give some back.
    /// Done before regular containers start.
    pub resize_memory: Vec<Resize>,
    pub resize_cpu: Vec<Resize>,
    /// The pod's group is to be given other resources even where no running container is.
    pub resize_pod: bool,
    pub start: Vec<usize>,
}

impl Actions {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        !self.kill_pod
            && !self.create_sandbox
            && self.kill.is_empty()
            && self.remove.is_empty()
            && self.start_ephemeral.is_empty()
            && self.start_init.is_empty()
            && self.start.is_empty()
            && !self.resizes()
    }

    /// Whether anything is to be given other resources.
    pub fn resizes(&self) -> bool {
        self.resize_pod || !self.resize_memory.is_empty() || !self.resize_cpu.is_empty()
    }
}

/// Decides what to do for a pod that is meant to run.
pub fn plan(pod: &Pod, observed: &PodStatus, probed: &dyn Probed) -> Actions {
    let sandbox = sandbox_verdict(pod, observed);
    let mut actions = Actions {
        kill_pod: sandbox.renew,
        create_sandbox: sandbox.renew,
        sandbox_id: sandbox.id,
        attempt: sandbox.attempt,
        ..Actions::default()
    };
    if observed.restarting_all {
        actions.remove = plan_removal(pod, observed);
        return actions;
    }
    if sandbox.renew {
        plan_new_sandbox(pod, observed, &mut actions);
        return actions;
    }

    // An ephemeral container is started once, even before the pod is initialized.
    actions.start_ephemeral = (0..)
        .zip(pod.ephemeral_containers())
        .filter(|(_, c)| observed.newest(&c.name).is_none())
        .map(|(i, _)| i)
        .collect();

    let initialized = plan_init_containers(pod, observed, probed, &mut actions);
    if actions.kill_pod || !initialized {
        return actions;
    }

    let mut keep = 0;
    for (index, container) in pod.containers().iter().enumerate() {
        match observed.newest(&container.name) {
            Some(status) if status.state == State::Running => {
                let at = At::Regular(index);
                if keep_or_kill(pod, container, index, status, probed, &mut actions)
                    && resize_plan::container(pod, container, at, status, observed, &mut actions)
                {
                    keep += 1;
                }
            }
            status => {
                if !should_restart(container, pod, observed) {
                    continue;
                }
                actions.start.push(index);
                // It may be running after all: two instances would be worse than a kill too many.
                if let Some(status) = status.filter(|status| status.state == State::Unknown) {
                    actions.kill.push(kill_unknown("Container", status));
                }
            }
        }
    }
    if keep == 0 && actions.start.is_empty() {
        actions.kill_pod = true;
        // Sidecars do not keep a finished pod alive.
        actions.start_init.clear();
    }
    actions.resize_pod |= resize_plan::pod_changes(pod, observed);
    actions
}

/// Every instance of every container, regular ones before init containers.
fn plan_removal(pod: &Pod, observed: &PodStatus) -> Vec<Remove> {
    let (mut targets, mut causes) = (Vec::new(), Vec::new());
    for container in pod.containers().iter().chain(pod.init_containers()) {
        let instances = observed.containers.iter();
        for status in instances.filter(|status| status.name == container.name) {
            let exited = status.state == State::Exited;
            let remove = Remove {
                id: status.id.clone(),
                name: status.name.clone(),
                kill: !exited,
            };
            if exited && restart_all::triggered_by(container, status.exit_code) {
                causes.push(remove);
            } else {
                targets.push(remove);
            }
        }
    }
    targets.append(&mut causes);
    targets
}

/// Whether the pod needs another sandbox, and the number it would have.
pub struct SandboxVerdict {
    pub renew: bool,
    pub attempt: u32,
    pub id: Option<String>,
}

/// A sandbox does when it is the only ready one, the newest, on the right network, and has an
/// address if it should.
pub fn sandbox_verdict(pod: &Pod, observed: &PodStatus) -> SandboxVerdict {
    let Some(newest) = observed.sandboxes.first() else {
        return SandboxVerdict {
            renew: true,
            attempt: 0,
            id: None,
        };
    };
    let attempt = newest.metadata.as_ref().map_or(0, |m| m.attempt);
    let renew = |id: Option<String>| SandboxVerdict {
        renew: true,
        attempt: attempt + 1,
        id,
    };
    let is_ready = |s: &cri::PodSandboxStatus| s.state() == cri::PodSandboxState::SandboxReady;

    if observed.sandboxes.iter().filter(|s| is_ready(s)).count() > 1 || !is_ready(newest) {
        return renew(Some(newest.id.clone()));
    }
    let network = newest
        .linux
        .as_ref()
        .and_then(|linux| linux.namespaces.as_ref()?.options.as_ref())
        .map_or(cri::NamespaceMode::Pod, |options| options.network());
    let wanted = if pod.host_network() {
        cri::NamespaceMode::Node
    } else {
        cri::NamespaceMode::Pod
    };
    if network != wanted {
        return renew(None);
    }
    if !pod.host_network()
        && newest
            .network
            .as_ref()
            .is_some_and(|network| network.ip.is_empty())
    {
        return renew(Some(newest.id.clone()));
    }
    SandboxVerdict {
        renew: false,
        attempt,
        id: Some(newest.id.clone()),
    }
}

fn plan_new_sandbox(pod: &Pod, observed: &PodStatus, actions: &mut Actions) {
    // A pod that never restarts and has run needs no sandbox any more. Where no container was
    // ever made, the sandbox itself failed, and is tried again.
    if !pod.restarts_on_failure() && actions.attempt != 0 && !observed.containers.is_empty() {
        actions.create_sandbox = false;
        return;
    }
    let succeeded = |c: &Container| {
        observed
            .newest(&c.name)
            .is_some_and(|s| s.state == State::Exited && s.exit_code == 0)
    };
    let pod_policy = pod.pod_spec().restart_policy.as_deref();
    let start: Vec<usize> = (0..)
        .zip(pod.containers())
        .filter(|(_, c)| {
            let once_done = c.restart_policy.as_deref().or(pod_policy) == Some("OnFailure");
            !(once_done && succeeded(c))
        })
        .map(|(i, _)| i)
        .collect();
    if start.is_empty() && any_regular_created(pod, observed) {
        actions.create_sandbox = false;
        return;
    }
    if pod.init_containers().is_empty() {
        actions.start = start;
    } else {
        actions.start_init = vec![0];
    }
}

/// Whether any regular container was ever made, so that initialization must have been complete.
pub fn any_regular_created(pod: &Pod, observed: &PodStatus) -> bool {
    pod.containers().iter().any(|c| {
        observed
            .newest(&c.name)
            .is_some_and(|s| s.state != State::Unknown)
    })
}

/// Whether a container that does not run is to be started (again).
pub fn should_restart(container: &Container, pod: &Pod, observed: &PodStatus) -> bool {
    if pod.is_deleting() {
        return false;
    }
    match observed.newest(&container.name) {
        None => true,
        Some(status) => match status.state {
            State::Running => false,
            State::Unknown | State::Created => true,
            State::Exited => restarts_after_exit(container, pod.pod_spec(), status.exit_code),
        },
    }
}

/// Judges a running regular container. True to keep it.
fn keep_or_kill(
    pod: &Pod,
    container: &Container,
    index: usize,
    status: &ContainerStatus,
    probed: &dyn Probed,
    actions: &mut Actions,
) -> bool {
    // A running container has no exit code for its rules to look at: only the policy counts.
    let mut restart = container
        .restart_policy
        .as_deref()
        .map_or_else(|| pod.restarts_on_failure(), |policy| policy != "Never");
    let (what, reason) = if changed(container, status) {
        restart = true;
        ("definition changed", KillReason::Changed)
    } else if probed.liveness(&status.id) == Some(Health::Failure) {
        ("failed liveness probe", KillReason::LivenessProbe)
    } else if probed.startup(&status.id) == Some(Health::Failure) {
        ("failed startup probe", KillReason::StartupProbe)
    } else {
        return true;
    };
    let mut message = format!("Container {} {what}", container.name);
    if restart {
        message.push_str(", will be restarted");
        actions.start.push(index);
    }
    actions.kill.push(Kill {
        id: status.id.clone(),
        name: status.name.clone(),
        message,
        reason,
    });
    false
}

fn changed(container: &Container, status: &ContainerStatus) -> bool {
    hash::container(container) != status.hash
}

fn kill_unknown(kind: &str, status: &ContainerStatus) -> Kill {
    Kill {
        id: status.id.clone(),
        name: status.name.clone(),
        message: format!(
            "{kind} is in {:?} state, try killing it before restart",
            status.state.as_str()
        ),
        reason: KillReason::Unknown,
    }
}

/// Plans the init containers, sidecars among them. True once the pod is initialized.
///
/// The list is walked backwards: the runtime may have forgotten finished init containers, and the
/// last one that it knows of tells how far initialization got.
fn plan_init_containers(
    pod: &Pod,
    observed: &PodStatus,
    probed: &dyn Probed,
    actions: &mut Actions,
) -> bool {
    let inits = pod.init_containers();
    if inits.is_empty() {
        return true;
    }
    // Of an exited regular container one cannot tell whether it belongs to this sandbox.
    let mut initialized = pod.containers().iter().any(|c| {
        observed
            .newest(&c.name)
            .is_some_and(|s| matches!(s.state, State::Created | State::Running))
    });
    // Whether some container after the one looked at has been reached.
    let mut reached = initialized;

    for (index, container) in inits.iter().enumerate().rev() {
        let Some(status) = observed.newest(&container.name) else {
            if reached && is_sidecar(container) {
                actions.start_init.push(index);
            }
            continue;
        };
        if reached && !is_sidecar(container) {
            continue;
        }
        let last = index == inits.len() - 1;
        match status.state {
            // Made but not started: the runtime failed in between.
            State::Created => actions.start_init.push(index),
            State::Running => {
                if is_sidecar(container) {
                    let keep = plan_running_sidecar(
                        container,
                        index,
                        last,
                        status,
                        probed,
                        &mut initialized,
                        reached,
                        actions,
                    );
                    if keep {
                        let at = At::Init(index);
                        resize_plan::container(pod, container, at, status, observed, actions);
                    }
                } else {
                    let at = At::Init(index);
                    resize_plan::container(pod, container, at, status, observed, actions);
                }
            }
            State::Exited if is_sidecar(container) => actions.start_init.push(index),
            State::Exited => {
                if status.exit_code != 0 || status.reason == "OOMKilled" {
                    if !should_restart(container, pod, observed) {
                        return init_failed(actions);
                    }
                    actions.start_init.push(index);
                } else if last {
                    initialized = true;
                } else {
                    actions.start_init.push(index + 1);
                }
            }
            State::Unknown => {
                let restarts = container
                    .restart_policy
                    .as_deref()
                    .map_or_else(|| pod.restarts_on_failure(), |policy| policy != "Never");
                if !restarts {
                    return init_failed(actions);
                }
                actions.kill.push(kill_unknown("Init container", status));
                actions.start_init.push(index);
            }
        }
        reached = true;
    }
    if !reached {
        actions.start_init.push(0);
    }
    actions.start_init.reverse();
    initialized
}

/// An init container failed for good: the pod ends.
fn init_failed(actions: &mut Actions) -> bool {
    actions.kill_pod = true;
    actions.start_init.clear();
    false
}

/// True where it runs on and nothing is waited for.
#[allow(clippy::too_many_arguments)]
fn plan_running_sidecar(
    container: &Container,
    index: usize,
    last: bool,
    status: &ContainerStatus,
    probed: &dyn Probed,
    initialized: &mut bool,
    reached: bool,
    actions: &mut Actions,
) -> bool {
    let restart = |actions: &mut Actions, what: &str, reason: KillReason| {
        actions.kill.push(Kill {
            id: status.id.clone(),
            name: container.name.clone(),
            message: format!("Init container {} {what}", container.name),
            reason,
        });
        actions.start_init.push(index);
        false
    };
    if container.startup_probe.is_some() {
        match probed.startup(&status.id) {
            Some(Health::Success) => {}
            Some(Health::Failure) => {
                return restart(actions, "failed startup probe", KillReason::StartupProbe);
            }
            Some(Health::Unknown) | None => return false,
        }
    }
    // It has started: what comes after it may.
    if last {
        *initialized = true;
    } else if !reached {
        actions.start_init.push(index + 1);
    }
    if changed(container, status) {
        return restart(actions, "definition changed", KillReason::Changed);
    }
    match container
        .liveness_probe
        .as_ref()
        .map(|_| probed.liveness(&status.id))
    {
        Some(Some(Health::Failure)) => {
            restart(actions, "failed liveness probe", KillReason::LivenessProbe)
        }
        // Not probed yet.
        Some(None) => false,
        _ => true,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
