//! The phase of a pod, from the statuses of its containers. Pure.

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod};

use super::restart_all;
use crate::pods::pod::{PodExt, is_sidecar, restarts_after_exit};

/// What a container is, as far as the phase cares.
enum Is<'a> {
    Running,
    /// Ended, or waiting after it ended.
    Stopped(&'a ContainerStateTerminated, bool),
    Waiting,
    Unknown,
}

fn is<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<(Is<'a>, &'a ContainerStatus)> {
    let status = statuses.iter().find(|status| status.name == name)?;
    let state = status.state.as_ref();
    let last = status
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let is = if state.is_some_and(|state| state.running.is_some()) {
        Is::Running
    } else if let Some(terminated) = state.and_then(|state| state.terminated.as_ref()) {
        Is::Stopped(terminated, true)
    } else if state.is_some_and(|state| state.waiting.is_some()) {
        last.map_or(Is::Waiting, |terminated| Is::Stopped(terminated, false))
    } else {
        Is::Unknown
    };
    Some((is, status))
}

/// `statuses` are those of init and regular containers. `terminal`: no container will be started
/// any more. `initialized`: a regular container has been started in the current sandbox.
pub fn phase(
    pod: &Pod,
    statuses: &[ContainerStatus],
    terminal: bool,
    initialized: bool,
) -> &'static str {
    let restarts = |c: &Container, ended: &ContainerStateTerminated| {
        restarts_after_exit(c, pod.pod_spec(), ended.exit_code) || restart_all::was_removed(ended)
    };

    let mut pending_init = 0;
    for container in pod.init_containers().iter().filter(|c| !is_sidecar(c)) {
        match is(statuses, &container.name) {
            Some((Is::Stopped(ended, _), _)) => {
                if ended.exit_code != 0 && !restarts(container, ended) {
                    return "Failed";
                }
            }
            _ => pending_init += 1,
        }
    }

    let (mut unknown, mut running, mut waiting, mut pending_sidecars) = (0, 0, 0, 0);
    for container in pod.init_containers().iter().filter(|c| is_sidecar(c)) {
        match is(statuses, &container.name) {
            Some((Is::Running, status)) => {
                running += 1;
                if status.started != Some(true) {
                    pending_sidecars += 1;
                }
            }
            // A sidecar that ended says nothing about the pod.
            Some((Is::Stopped(..), _)) => {}
            Some((Is::Waiting, _)) => {
                pending_sidecars += 1;
                waiting += 1;
            }
            Some((Is::Unknown, _)) => {
                pending_sidecars += 1;
                unknown += 1;
            }
            None => unknown += 1,
        }
    }

    let (mut stopped, mut for_good, mut succeeded) = (0, 0, 0);
    for container in pod.containers() {
        match is(statuses, &container.name) {
            Some((Is::Running, _)) => running += 1,
            Some((Is::Stopped(ended, now), _)) => {
                stopped += 1;
                if !restarts(container, ended) {
                    for_good += 1;
                }
                if now && ended.exit_code == 0 {
                    succeeded += 1;
                }
            }
            Some((Is::Waiting, _)) => waiting += 1,
            Some((Is::Unknown, _)) | None => unknown += 1,
        }
    }

    let outcome = if stopped == succeeded {
        "Succeeded"
    } else {
        "Failed"
    };
    if pending_init > 0 || (pending_sidecars > 0 && !initialized) || waiting > 0 {
        "Pending"
    } else if running > 0 && unknown == 0 {
        "Running"
    } else if running == 0 && stopped > 0 && unknown == 0 {
        if terminal && !pod.is_static() {
            outcome
        } else if stopped != for_good {
            // Between an end and the next start.
            "Running"
        } else {
            outcome
        }
    } else {
        "Pending"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(name: &str, state: &str) -> Value {
        let terminated = |code: i32| json!({"terminated": {"exitCode": code}});
        let (state, last) = match state.split_once(':').unwrap_or((state, "0")) {
            ("running", _) => (json!({"running": {}}), json!({})),
            ("exited", code) => (terminated(code.parse().unwrap()), json!({})),
            ("backoff", code) => (json!({"waiting": {}}), terminated(code.parse().unwrap())),
            _ => (json!({"waiting": {}}), json!({})),
        };
        json!({"name": name, "state": state, "lastState": last, "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "started": state["running"].is_object()})
    }

    fn run(
        policy: &str,
        init: &[&str],
        sidecars: &[&str],
        statuses: &str,
        terminal: bool,
    ) -> &'static str {
        let init = init.iter().map(|name| json!({"name": name}));
        let sidecars = sidecars
            .iter()
            .map(|name| json!({"name": name, "restartPolicy": "Always"}));
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "restartPolicy": policy,
            "initContainers": init.chain(sidecars).collect::<Vec<_>>(),
            "containers": [{"name": "a"}, {"name": "b"}],
        }}))
        .unwrap();
        let statuses: Vec<ContainerStatus> = statuses
            .split_whitespace()
            .map(|item| item.split_once('=').unwrap())
            .map(|(name, state)| serde_json::from_value(status(name, state)).unwrap())
            .collect();
        phase(&pod, &statuses, terminal, false)
    }

    #[test]
    fn phases() {
        for (policy, init, sidecars, statuses, terminal, want) in [
            ("Always", &[][..], &[][..], "", false, "Pending"),
            ("Always", &[], &[], "a=running b=waiting", false, "Pending"),
            ("Always", &[], &[], "a=running b=running", false, "Running"),
            (
                "Always",
                &[],
                &[],
                "a=running b=backoff:1",
                false,
                "Running",
            ),
            ("Always", &[], &[], "a=exited b=exited:1", false, "Running"),
            ("Always", &[], &[], "a=exited b=exited:1", true, "Failed"),
            (
                "OnFailure",
                &[],
                &[],
                "a=exited b=exited",
                false,
                "Succeeded",
            ),
            (
                "OnFailure",
                &[],
                &[],
                "a=exited b=exited:1",
                false,
                "Running",
            ),
            ("Never", &[], &[], "a=exited b=exited:1", false, "Failed"),
            ("Never", &[], &[], "a=exited b=running", false, "Running"),
            (
                "Never",
                &["i"],
                &[],
                "i=exited:1 a=waiting b=waiting",
                false,
                "Failed",
            ),
            (
                "Always",
                &["i"],
                &[],
                "i=backoff:1 a=waiting b=waiting",
                false,
                "Pending",
            ),
            (
                "Always",
                &["i"],
                &[],
                "i=running a=waiting b=waiting",
                false,
                "Pending",
            ),
            (
                "Never",
                &[],
                &["s"],
                "s=running a=exited b=exited",
                false,
                "Running",
            ),
            (
                "Never",
                &[],
                &["s"],
                "s=exited:1 a=exited b=exited",
                false,
                "Succeeded",
            ),
        ] {
            assert_eq!(
                run(policy, init, sidecars, statuses, terminal),
                want,
                "{policy} {statuses} {terminal}"
            );
        }
    }
}
