//! A pod's status as this node sees it, from everything that was observed. Pure.

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};

use super::conditions::{self, condition};
use super::containers::{self, Context, Kind};
use super::phase::phase;
use super::{resources, restart_all};
use crate::cgroups::Limits;
use crate::cri::observed::PodStatus as Observed;
use crate::pods::pod::{PodExt, is_sidecar, is_terminal_phase};
use crate::resources::qos::qos_class;

/// The probes' verdict on containers.
pub trait Readiness {
    /// Whether a running container has started: its startup probe, if any, has succeeded.
    fn started(&self, container: &Container, status: &ContainerStatus) -> bool;
    /// Whether a running, started container is ready.
    fn ready(&self, container: &Container, status: &ContainerStatus) -> bool;
}

/// What a status is made from, beside the pod.
pub struct Input<'a> {
    pub observed: &'a Observed,
    /// The last status made here, or the API's where there is none.
    pub old: &'a PodStatus,
    pub containers: Context<'a>,
    pub readiness: &'a dyn Readiness,
    /// The node's addresses, the primary first.
    pub host_ips: &'a [String],
    /// The pod has been active for as long as it may.
    pub past_deadline: bool,
    /// The conditions that tell of a resize.
    pub resize: &'a [PodCondition],
    /// The limits that the pod's group has, of a pod that runs.
    pub group: Option<&'a Limits>,
    /// No container will be started any more.
    pub terminal: bool,
}

/// Reason of a pod that was ended because of its deadline.
pub const PAST_DEADLINE: &str = "DeadlineExceeded";

/// Makes the status. Transition times and the start time are completed when it is stored.
pub fn generate(pod: &Pod, input: &Input<'_>) -> PodStatus {
    let Input { observed, old, .. } = input;
    let context = Context {
        restarting: restart_all::asked(pod, observed, old),
        ..input.containers
    };
    let old_list = |list: &Option<Vec<ContainerStatus>>, kind| {
        let old = list.as_deref().unwrap_or_default();
        containers::statuses(pod, observed, old, kind, &context)
    };
    let mut regular = old_list(&old.container_statuses, Kind::Regular);
    let mut init = old_list(&old.init_container_statuses, Kind::Init);
    let ephemeral = old_list(&old.ephemeral_container_statuses, Kind::Ephemeral);

    let all: Vec<_> = init.iter().chain(&regular).cloned().collect();
    let initialized = observed.has_active(pod.containers().iter().map(|c| &c.name));
    let mut phase = phase(pod, &all, input.terminal, initialized).to_owned();
    let old_phase = old.phase.clone().unwrap_or_default();
    // A pod that has ended stays ended, whatever the runtime says.
    for ended in [old_phase.as_str(), pod.phase()] {
        if is_terminal_phase(ended) && !is_terminal_phase(&phase) {
            phase = ended.to_owned();
        }
    }
    if is_terminal_phase(pod.phase()) {
        phase = pod.phase().to_owned();
    }

    let mut status = PodStatus {
        qos_class: Some(qos_class(pod).as_str().into()),
        ..Default::default()
    };
    if phase == old_phase {
        let api = pod.status.as_ref();
        status.reason = old
            .reason
            .clone()
            .or_else(|| api.and_then(|s| s.reason.clone()));
        status.message = old
            .message
            .clone()
            .or_else(|| api.and_then(|s| s.message.clone()));
    }

    // However its containers end then: the pod has failed, unless it had ended before.
    let old_reason = old.reason.as_deref();
    if input.past_deadline && (!is_terminal_phase(&old_phase) || old_reason == Some(PAST_DEADLINE))
    {
        phase = "Failed".to_owned();
        status.reason = Some(PAST_DEADLINE.into());
        status.message =
            Some("Pod was active on the node longer than the specified deadline".into());
    }

    probe(pod, &mut init, &mut regular, input.readiness);
    let all: Vec<_> = init.iter().chain(&regular).cloned().collect();

    let theirs = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut list: Vec<_> = theirs
        .filter(|c| !conditions::is_kubelets(&c.type_))
        .cloned()
        .collect();
    if !input.terminal {
        list.extend_from_slice(input.resize);
    }
    let old_conditions = old.conditions.as_deref().unwrap_or_default();
    if let Some(disrupted) = old_conditions
        .iter()
        .find(|c| c.type_ == conditions::DISRUPTION_TARGET)
    {
        list.retain(|c| c.type_ != disrupted.type_);
        list.push(disrupted.clone());
    }
    list.push(conditions::ready_to_start(pod, observed));
    list.push(conditions::initialized(pod, &all, &phase, old_conditions));
    list.push(conditions::ready(pod, &all, &phase, &list));
    list.push(conditions::containers_ready(
        pod,
        conditions::CONTAINERS_READY,
        &all,
        &phase,
    ));
    list.push(condition(
        pod,
        conditions::SCHEDULED,
        true,
        "",
        String::new(),
    ));
    list.extend(restart_all::of_pod(pod, observed, old, &phase));

    let ended = is_terminal_phase(&phase);
    addresses(pod, observed, old, ended, input.host_ips, &mut status);
    status.allocated_resources = resources::allocated(pod);
    status.resources = Some(resources::of_pod(pod, input.group));
    status.conditions = Some(list);
    status.container_statuses = some(regular);
    status.init_container_statuses = some(init);
    status.ephemeral_container_statuses = some(ephemeral);
    status.observed_generation = pod
        .metadata
        .generation
        .filter(|generation| *generation != 0);
    status.phase = Some(phase);
    status
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// Sets `started` and `ready`.
fn probe(
    pod: &Pod,
    init: &mut [ContainerStatus],
    regular: &mut [ContainerStatus],
    readiness: &dyn Readiness,
) {
    let is_running = |status: &ContainerStatus| {
        status
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    };
    let judge = |container: &Container, status: &mut ContainerStatus| {
        let started = is_running(status) && readiness.started(container, status);
        status.started = Some(started);
        status.ready = started && readiness.ready(container, status);
    };
    for status in regular {
        if let Some(container) = pod.containers().iter().find(|c| c.name == status.name) {
            judge(container, status);
        }
    }
    for status in init {
        let Some(container) = pod.init_containers().iter().find(|c| c.name == status.name) else {
            continue;
        };
        if is_sidecar(container) {
            judge(container, status);
        } else {
            status.started = Some(is_running(status));
            status.ready = containers::terminated(status).is_some_and(|ended| ended.exit_code == 0);
        }
    }
}

fn addresses(
    pod: &Pod,
    observed: &Observed,
    old: &PodStatus,
    ended: bool,
    host_ips: &[String],
    status: &mut PodStatus,
) {
    let v6_first = host_ips.first().is_some_and(|ip| ip.contains(':'));
    // One address of each family, the node's own family first.
    let of_family = |v6: bool| {
        observed
            .ips
            .iter()
            .find(|ip| ip.contains(':') == v6)
            .cloned()
    };
    let mut ips: Vec<String> = [of_family(v6_first), of_family(!v6_first)]
        .into_iter()
        .flatten()
        .collect();
    // The sandbox of a pod that has ended has none any more; the pod keeps those it had.
    if pod.host_network() || ended && ips.is_empty() {
        ips = old
            .pod_ips
            .iter()
            .flatten()
            .map(|ip| ip.ip.clone())
            .collect();
    }
    if pod.host_network() {
        for ip in host_ips {
            if ips.is_empty() || ips.len() == 1 && ips[0].contains(':') != ip.contains(':') {
                ips.push(ip.clone());
            }
        }
    }
    status.pod_ip = ips.first().cloned();
    status.pod_ips = some(ips.into_iter().map(|ip| PodIP { ip }).collect());
    status.host_ip = host_ips.first().cloned();
    status.host_ips = some(
        host_ips
            .iter()
            .map(|ip| HostIP { ip: ip.clone() })
            .collect(),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cri::observed::{ContainerStatus as Seen, State};

    struct Always;
    impl Readiness for Always {
        fn started(&self, _: &Container, _: &ContainerStatus) -> bool {
            true
        }
        fn ready(&self, _: &Container, _: &ContainerStatus) -> bool {
            true
        }
    }

    #[test]
    fn a_running_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 2},
            "spec": {"containers": [{"name": "c", "image": "img"}]},
            "status": {"phase": "Pending", "conditions": [{"type": "theirs", "status": "True"}]},
        }))
        .unwrap();
        let seen = Seen {
            id: "1".into(),
            name: "c".into(),
            state: State::Running,
            hash: 0,
            restart_count: 0,
            image: "img".into(),
            image_ref: "img@sha256:1".into(),
            started_at: 1,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            resources: None,
            user: None,
        };
        let observed = Observed {
            containers: vec![seen],
            ips: vec!["fd00::1".into(), "10.0.0.1".into()],
            ..Default::default()
        };
        let failures = Default::default();
        let input = Input {
            observed: &observed,
            old: &pod.status_or_default(),
            containers: Context {
                runtime_name: "containerd",
                failures: &failures,
                recursive_read_only: false,
                restarting: false,
            },
            readiness: &Always,
            host_ips: &["192.168.0.1".into()],
            past_deadline: false,
            resize: &[],
            group: None,
            terminal: false,
        };
        let status = generate(&pod, &input);
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
        assert_eq!(status.pod_ips.unwrap().len(), 2);
        let kinds: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .map(|c| format!("{}={}", c.type_, c.status))
            .collect();
        assert_eq!(
            kinds,
            [
                "theirs=True",
                "PodReadyToStartContainers=False",
                "Initialized=True",
                "Ready=True",
                "ContainersReady=True",
                "PodScheduled=True"
            ]
        );
        assert_eq!(status.observed_generation, Some(2));
        assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    }

    #[test]
    fn past_its_deadline_a_pod_fails_however_its_containers_end() {
        let pod = |phase: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "n", "uid": "u"},
                "spec": {"containers": [], "restartPolicy": "Never"}, "status": {"phase": phase},
            }))
            .unwrap()
        };
        let (observed, failures) = Default::default();
        let of = |old: &PodStatus| {
            let input = Input {
                observed: &observed,
                old,
                containers: Context {
                    runtime_name: "containerd",
                    failures: &failures,
                    recursive_read_only: false,
                    restarting: false,
                },
                readiness: &Always,
                host_ips: &[],
                past_deadline: true,
                resize: &[],
                group: None,
                terminal: true,
            };
            let status = generate(&pod("Running"), &input);
            assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"), "it had that");
            (status.phase.unwrap(), status.reason.unwrap_or_default())
        };
        let failed = ("Failed".to_owned(), PAST_DEADLINE.to_owned());
        let mut old = PodStatus {
            phase: Some("Running".into()),
            pod_ips: Some(vec![PodIP {
                ip: "10.0.0.1".into(),
            }]),
            ..Default::default()
        };
        assert_eq!(of(&old), failed);
        old.phase = Some(failed.0.clone());
        old.reason = Some(failed.1.clone());
        assert_eq!(of(&old), failed, "and stays failed");
        old.phase = Some("Succeeded".into());
        old.reason = None;
        assert_eq!(of(&old).0, "Succeeded", "it was done before");
    }
}
