//! The pod conditions that the kubelet owns. Pure; transition times are set where a status is
//! stored (`merge.rs`).

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

use crate::cri::observed::PodStatus as Observed;
use crate::cri::plan::sandbox_verdict;
use crate::pods::pod::{PodExt, is_sidecar};

pub const READY: &str = "Ready";
pub const CONTAINERS_READY: &str = "ContainersReady";
pub const INITIALIZED: &str = "Initialized";
pub const SCHEDULED: &str = "PodScheduled";
pub const READY_TO_START: &str = "PodReadyToStartContainers";
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";
pub const RESTARTING_ALL: &str = "AllContainersRestarting";
pub const RESIZE_PENDING: &str = "PodResizePending";
pub const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

/// Whether the kubelet is the one who writes this condition.
pub fn is_kubelets(kind: &str) -> bool {
    [
        READY,
        CONTAINERS_READY,
        INITIALIZED,
        SCHEDULED,
        READY_TO_START,
        RESIZE_PENDING,
        RESIZE_IN_PROGRESS,
        RESTARTING_ALL,
    ]
    .contains(&kind)
}

/// A condition of the pod's current generation.
pub fn condition(
    pod: &Pod,
    kind: &str,
    status: bool,
    reason: &str,
    message: String,
) -> PodCondition {
    PodCondition {
        type_: kind.into(),
        status: if status { "True" } else { "False" }.into(),
        reason: (!reason.is_empty()).then(|| reason.into()),
        message: (!message.is_empty()).then_some(message),
        observed_generation: pod
            .metadata
            .generation
            .filter(|generation| *generation != 0),
        ..Default::default()
    }
}

fn status_of<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|status| status.name == name)
}

/// `[a b]`, as Go prints a list.
fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

/// Joins what is wrong; empty where nothing is.
fn messages(parts: [(&str, &[&str]); 2]) -> String {
    let wrong = parts.iter().filter(|(_, names)| !names.is_empty());
    wrong
        .map(|(what, names)| format!("{what}: {}", list(names)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// All containers that should run are ready.
pub fn containers_ready(
    pod: &Pod,
    kind: &str,
    statuses: &[ContainerStatus],
    phase: &str,
) -> PodCondition {
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = pod.init_containers().iter().filter(|c| is_sidecar(c));
    for container in sidecars.chain(pod.containers()) {
        match status_of(statuses, &container.name) {
            Some(status) if status.ready => {}
            Some(_) => unready.push(container.name.as_str()),
            None => unknown.push(container.name.as_str()),
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(pod, kind, false, "PodCompleted", String::new());
    }
    if phase == "Failed" {
        return condition(pod, kind, false, "PodFailed", String::new());
    }
    let wrong = messages([
        ("containers with unknown status", &unknown),
        ("containers with unready status", &unready),
    ]);
    if wrong.is_empty() {
        condition(pod, kind, true, "", wrong)
    } else {
        condition(pod, kind, false, "ContainersNotReady", wrong)
    }
}

/// The containers are ready, and so are the gates that others control. `conditions` are the pod's.
pub fn ready(
    pod: &Pod,
    statuses: &[ContainerStatus],
    phase: &str,
    conditions: &[PodCondition],
) -> PodCondition {
    let containers = containers_ready(pod, READY, statuses, phase);
    if containers.status != "True" {
        return containers;
    }
    let gates = pod
        .pod_spec()
        .readiness_gates
        .as_deref()
        .unwrap_or_default();
    let closed: Vec<String> = gates
        .iter()
        .filter_map(
            |gate| match conditions.iter().find(|c| c.type_ == gate.condition_type) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate {:?} does not exist.",
                    gate.condition_type
                )),
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate {:?} is not \"True\", but {}",
                    gate.condition_type, c.status
                )),
                Some(_) => None,
            },
        )
        .collect();
    if closed.is_empty() {
        containers
    } else {
        condition(
            pod,
            READY,
            false,
            "ReadinessGatesNotReady",
            closed.join(", "),
        )
    }
}

/// The init containers are done.
pub fn initialized(
    pod: &Pod,
    statuses: &[ContainerStatus],
    phase: &str,
    old: &[PodCondition],
) -> PodCondition {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in pod.init_containers() {
        let done = |status: &ContainerStatus| {
            if is_sidecar(container) {
                status.started == Some(true)
            } else {
                status.ready
            }
        };
        match status_of(statuses, &container.name) {
            Some(status) if done(status) => {}
            Some(_) => incomplete.push(container.name.as_str()),
            None => unknown.push(container.name.as_str()),
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(pod, INITIALIZED, true, "PodCompleted", String::new());
    }
    // Sidecars that restart do not undo it.
    let started = pod
        .containers()
        .iter()
        .filter_map(|c| status_of(statuses, &c.name))
        .any(|status| {
            status
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        });
    let wrong = messages([
        ("containers with unknown status", &unknown),
        ("containers with incomplete status", &incomplete),
    ]);
    let was = old
        .iter()
        .any(|c| c.type_ == INITIALIZED && c.status == "True");
    if started || wrong.is_empty() || was {
        condition(pod, INITIALIZED, true, "", String::new())
    } else {
        condition(pod, INITIALIZED, false, "ContainersNotInitialized", wrong)
    }
}

/// The sandbox and its network stand.
pub fn ready_to_start(pod: &Pod, observed: &Observed) -> PodCondition {
    condition(
        pod,
        READY_TO_START,
        !sandbox_verdict(pod, observed).renew,
        "",
        String::new(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"generation": 3},
            "spec": {
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
                "containers": [{"name": "a"}, {"name": "b"}],
                "readinessGates": [{"conditionType": "gate"}],
            },
        }))
        .unwrap()
    }

    fn status(name: &str, ready: bool, started: bool) -> ContainerStatus {
        ContainerStatus {
            name: name.into(),
            ready,
            started: Some(started),
            ..Default::default()
        }
    }

    #[test]
    fn readiness_says_what_is_missing() {
        let statuses = [
            status("i", true, false),
            status("s", true, true),
            status("a", false, true),
        ];
        let c = containers_ready(&pod(), CONTAINERS_READY, &statuses, "Running");
        assert_eq!(
            c.message.as_deref(),
            Some("containers with unknown status: [b], containers with unready status: [a]")
        );
        assert_eq!(c.observed_generation, Some(3));
        assert_eq!(
            containers_ready(&pod(), READY, &statuses, "Failed")
                .reason
                .as_deref(),
            Some("PodFailed")
        );
        let all = [
            status("i", true, false),
            status("s", true, true),
            status("a", true, true),
            status("b", true, true),
        ];
        assert_eq!(
            containers_ready(&pod(), READY, &all, "Running").status,
            "True"
        );
        let gated = ready(&pod(), &all, "Running", &[]);
        assert_eq!(gated.reason.as_deref(), Some("ReadinessGatesNotReady"));
        let open = PodCondition {
            type_: "gate".into(),
            status: "True".into(),
            ..Default::default()
        };
        assert_eq!(ready(&pod(), &all, "Running", &[open]).status, "True");
    }

    #[test]
    fn initialization() {
        let c = initialized(
            &pod(),
            &[status("i", true, false), status("s", false, false)],
            "Pending",
            &[],
        );
        assert_eq!(
            c.message.as_deref(),
            Some("containers with incomplete status: [s]")
        );
        let c = initialized(
            &pod(),
            &[status("i", true, false), status("s", false, true)],
            "Pending",
            &[],
        );
        assert_eq!((c.status.as_str(), c.message), ("True", None));
    }
}
