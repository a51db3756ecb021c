//! Restarting a pod in place (KEP-5532): a container that ends in a way that its rules name makes
//! all of them begin anew, in the same sandbox. Pure.
//!
//! It is a matter of two steps, each of which a kubelet may die in: every container is removed,
//! and once none is left they are started as if the pod were new. The condition tells which.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    Pod, PodCondition, PodStatus,
};

use super::conditions::{RESTARTING_ALL, condition};
use super::containers::ended;
use crate::cri::observed::{PodStatus as Observed, State};
use crate::pods::pod::{PodExt, matching_action};

/// The action of a rule.
pub const ACTION: &str = "RestartAllContainers";
/// Reason of containers that were removed for it.
pub const REASON: &str = "RestartingAllContainers";
const MESSAGE: &str = "The container is removed because RestartAllContainers in place";

fn all(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.init_containers().iter().chain(pod.containers())
}

/// Whether some container's end could ever restart all.
pub fn possible(pod: &Pod) -> bool {
    all(pod)
        .flat_map(|c| c.restart_policy_rules.iter().flatten())
        .any(|rule| rule.action == ACTION)
}

/// Whether an end with this exit code restarts all.
pub fn triggered_by(container: &Container, exit_code: i32) -> bool {
    matching_action(container, exit_code) == Some(ACTION)
}

/// Whether all are to restart, or are doing so. `old` is the status shown last.
pub fn asked(pod: &Pod, observed: &Observed, old: &PodStatus) -> bool {
    let shown = old.conditions.iter().flatten();
    let begun = |c: &PodCondition| c.type_ == RESTARTING_ALL && c.status == "True";
    let triggers = |container: &Container| {
        observed.newest(&container.name).is_some_and(|status| {
            status.state == State::Exited && triggered_by(container, status.exit_code)
        })
    };
    possible(pod) && (shown.into_iter().any(begun) || all(pod).any(triggers))
}

/// The condition; `None` for pods that no end could restart as a whole.
pub fn of_pod(
    pod: &Pod,
    observed: &Observed,
    old: &PodStatus,
    phase: &str,
) -> Option<PodCondition> {
    if !possible(pod) {
        return None;
    }
    let of = |status, reason, message: &str| {
        Some(condition(
            pod,
            RESTARTING_ALL,
            status,
            reason,
            message.into(),
        ))
    };
    match phase {
        "Succeeded" => return of(false, "PodCompleted", ""),
        "Failed" => return of(false, "PodFailed", ""),
        _ => {}
    }
    let removed = all(pod).all(|c| observed.newest(&c.name).is_none());
    if asked(pod, observed, old) && !removed {
        of(
            true,
            "RestartAllContainersStarted",
            "container exited with restart policy rule",
        )
    } else {
        of(false, "", "")
    }
}

/// The status of a container that was removed for it. False where it had not even begun.
pub fn show_removed(status: &mut ContainerStatus, old: &ContainerStatus) -> bool {
    if old.state.as_ref().is_some_and(|s| s.waiting.is_some()) {
        return false;
    }
    status.state = Some(ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(REASON.into()),
            message: Some(MESSAGE.into()),
        }),
        ..Default::default()
    });
    status.last_state = Some(ended(ContainerStateTerminated {
        reason: Some(REASON.into()),
        message: Some(MESSAGE.into()),
        exit_code: 137,
        ..Default::default()
    }));
    status.restart_count = old.restart_count + 1;
    true
}

/// Whether it was removed to begin anew, so that its end is no end.
pub fn was_removed(ended: &ContainerStateTerminated) -> bool {
    ended.reason.as_deref() == Some(REASON)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"restartPolicy": "Never", "containers": [
            {"name": "a", "restartPolicy": "Never", "restartPolicyRules": [
                {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]},
            {"name": "b"},
        ]}}))
        .unwrap()
    }

    fn observed(exit_code: Option<i32>) -> Observed {
        let status = |name: &str, state, exit_code| {
            let labels = [(
                crate::cri::labels::CONTAINER_NAME.to_owned(),
                name.to_owned(),
            )];
            let mut status = grpc::cri::ContainerStatus {
                labels: labels.into(),
                exit_code,
                ..Default::default()
            };
            status.set_state(state);
            crate::cri::observed::container_status(status, None)
        };
        use grpc::cri::ContainerState::{ContainerExited, ContainerRunning};
        let containers = exit_code.map(|code| {
            vec![
                status("a", ContainerExited, code),
                status("b", ContainerRunning, 0),
            ]
        });
        Observed {
            containers: containers.unwrap_or_default(),
            ..Default::default()
        }
    }

    #[test]
    fn in_two_steps() {
        let pod = pod();
        let of = |observed: &Observed, old: &PodStatus| {
            of_pod(&pod, observed, old, "Running").unwrap().status
        };
        let mut old = PodStatus::default();
        assert_eq!(of(&observed(Some(1)), &old), "False");
        assert_eq!(of(&observed(Some(42)), &old), "True");
        old.conditions = Some(vec![
            of_pod(&pod, &observed(Some(42)), &old, "Running").unwrap(),
        ]);
        // The culprit is gone, the others are not: go on.
        let mut half = observed(Some(42));
        half.containers.remove(0);
        assert_eq!(of(&half, &old), "True");
        assert_eq!(of(&observed(None), &old), "False");
        let plain: Pod =
            serde_json::from_value(json!({"spec": {"containers": [{"name": "a"}]}})).unwrap();
        assert!(of_pod(&plain, &observed(Some(42)), &old, "Running").is_none());
    }
}
