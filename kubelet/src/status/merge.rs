//! Storing and sending statuses: what stays the same between two of them, when they differ, and
//! what the API server is to have. Pure; time is passed in.

use jiff::{Timestamp, Unit};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};

use super::conditions::{self, is_kubelets};
use super::containers::{ended, terminated};
use super::restart_all;
use crate::pods::pod::{PodExt, is_sidecar, is_terminal_phase, restarts_after_exit};

/// All of a pod's containers' messages together, in bytes.
const MAX_MESSAGES: usize = 12 * 1024;

/// Completes a new status by the one before: transition times, start time, precision.
pub fn carry_over(pod: &Pod, old: &PodStatus, new: &mut PodStatus, now: Timestamp) {
    let old_conditions = old.conditions.as_deref().unwrap_or_default();
    for condition in new.conditions.iter_mut().flatten() {
        // Theirs begins anew with each reason.
        let of_resize = [conditions::RESIZE_PENDING, conditions::RESIZE_IN_PROGRESS];
        if of_resize.contains(&condition.type_.as_str()) {
            continue;
        }
        if is_kubelets(&condition.type_) || condition.type_ == conditions::DISRUPTION_TARGET {
            let before = old_conditions
                .iter()
                .find(|c| c.type_ == condition.type_ && c.status == condition.status);
            condition.last_transition_time = before
                .and_then(|c| c.last_transition_time.clone())
                .or(Some(Time(now)));
        }
    }
    new.start_time = old
        .start_time
        .clone()
        .or_else(|| new.start_time.take())
        .or(Some(Time(now)));
    new.observed_generation = new.observed_generation.max(old.observed_generation);
    normalize(pod, new);
}

/// Brings a status to the precision that the API keeps, so that equal statuses compare equal.
pub fn normalize(pod: &Pod, status: &mut PodStatus) {
    let containers =
        pod.containers().len() + pod.init_containers().len() + pod.ephemeral_containers().len();
    let message_limit = MAX_MESSAGES / containers.max(1);
    let seconds = |time: &mut Option<Time>| {
        if let Some(time) = time {
            time.0 = Timestamp::from_second(time.0.as_second()).unwrap_or(time.0);
        }
    };
    seconds(&mut status.start_time);
    for condition in status.conditions.iter_mut().flatten() {
        seconds(&mut condition.last_probe_time);
        seconds(&mut condition.last_transition_time);
    }
    let lists = [
        &mut status.container_statuses,
        &mut status.init_container_statuses,
        &mut status.ephemeral_container_statuses,
    ];
    for container in lists.into_iter().flatten().flatten() {
        for state in [&mut container.state, &mut container.last_state]
            .into_iter()
            .flatten()
        {
            if let Some(running) = &mut state.running {
                seconds(&mut running.started_at);
            }
            if let Some(ended) = &mut state.terminated {
                seconds(&mut ended.started_at);
                seconds(&mut ended.finished_at);
                if let Some(message) = &mut ended.message {
                    message.truncate(message.floor_char_boundary(message_limit));
                }
            }
        }
    }
}

/// Whether two normalized statuses are the same in everything that the kubelet writes.
pub fn same(a: &PodStatus, b: &PodStatus) -> bool {
    let ours = |status: &PodStatus| {
        let mut own = status.clone();
        let mut list: Vec<_> = own.conditions.take().unwrap_or_default();
        list.retain(|c| is_kubelets(&c.type_) || c.type_ == conditions::DISRUPTION_TARGET);
        list.sort_by(|a, b| a.type_.cmp(&b.type_));
        let list: Vec<_> = list
            .into_iter()
            .map(|c| {
                (
                    c.type_,
                    c.status,
                    c.reason,
                    c.message,
                    c.observed_generation,
                )
            })
            .collect();
        own.resource_claim_statuses = None;
        own.extended_resource_claim_status = None;
        own.node_allocatable_resource_claim_statuses = None;
        (own, list)
    };
    ours(a) == ours(b)
}

/// Whether a container that ended for good is shown as not ended, which must never be sent.
pub fn illegal_transition(pod: &Pod, old: &PodStatus, new: &PodStatus) -> Option<String> {
    if pod
        .pod_spec()
        .restart_policy
        .as_deref()
        .is_none_or(|policy| policy == "Always")
        || restart_all::possible(pod)
    {
        return None;
    }
    let lists = [
        (
            pod.containers(),
            &old.container_statuses,
            &new.container_statuses,
        ),
        (
            pod.init_containers(),
            &old.init_container_statuses,
            &new.init_container_statuses,
        ),
    ];
    for (specs, old, new) in lists {
        for old in old.iter().flatten() {
            let (Some(ended), Some(spec)) =
                (terminated(old), specs.iter().find(|c| c.name == old.name))
            else {
                continue;
            };
            let may_run_again =
                is_sidecar(spec) || restarts_after_exit(spec, pod.pod_spec(), ended.exit_code);
            let revived = new
                .iter()
                .flatten()
                .any(|new| new.name == old.name && terminated(new).is_none());
            if revived && !may_run_again {
                return Some(old.name.clone());
            }
        }
    }
    None
}

/// The last status of a pod whose containers and volumes are gone: nothing is left running, and
/// the phase is final.
pub fn finish(pod: &Pod, status: &PodStatus) -> PodStatus {
    let mut status = status.clone();
    let lost = || {
        ended(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            exit_code: 137,
            ..Default::default()
        })
    };
    let end = |list: &mut [ContainerStatus]| {
        for container in list
            .iter_mut()
            .filter(|container| terminated(container).is_none())
        {
            container.state = Some(lost());
        }
    };
    if has_initialized(pod)
        && let Some(list) = &mut status.container_statuses
    {
        end(list);
    }
    // Init containers after the last one that was reached never ran.
    if let Some(list) = &mut status.init_container_statuses {
        let waiting = |state: &Option<ContainerState>| {
            state.as_ref().is_some_and(|state| state.waiting.is_some())
        };
        let last_ended = |c: &ContainerStatus| {
            c.last_state
                .as_ref()
                .is_some_and(|state| state.terminated.is_some())
        };
        let reached = list
            .iter()
            .rposition(|c| !waiting(&c.state) || last_ended(c))
            .unwrap_or(0);
        let count = (reached + 1).min(list.len());
        end(&mut list[..count]);
    }
    if !pod.is_static() && !status.phase.as_deref().is_some_and(is_terminal_phase) {
        status.phase = Some("Failed".into());
    }
    status
}

fn has_initialized(pod: &Pod) -> bool {
    if pod.init_containers().is_empty() {
        return true;
    }
    let Some(status) = &pod.status else {
        return false;
    };
    let ran = |c: &ContainerStatus| {
        c.last_state
            .as_ref()
            .is_some_and(|s| s.terminated.is_some())
            || c.state.as_ref().is_some_and(|s| s.waiting.is_none())
    };
    if status.container_statuses.iter().flatten().any(ran) {
        return true;
    }
    let last = status.init_container_statuses.iter().flatten().last();
    last.is_some_and(|last| {
        let sidecar = pod
            .init_containers()
            .iter()
            .any(|c| c.name == last.name && is_sidecar(c));
        let succeeded = |state: &Option<ContainerState>| {
            state
                .as_ref()
                .and_then(|s| s.terminated.as_ref())
                .is_some_and(|ended| ended.exit_code == 0)
        };
        if sidecar {
            last.started == Some(true) && last.state.as_ref().is_some_and(|s| s.running.is_some())
        } else {
            succeeded(&last.state) || succeeded(&last.last_state)
        }
    })
}

/// What the API server is to hold: ours over `api`, which is what it holds now, with what others
/// write left alone. A terminal phase is held back while containers may still run.
pub fn for_api(
    pod: &Pod,
    api: &PodStatus,
    ours: &PodStatus,
    may_run: bool,
    now: Timestamp,
) -> PodStatus {
    let mut merged = ours.clone();
    let ending = !api.phase.as_deref().is_some_and(is_terminal_phase)
        && merged.phase.as_deref().is_some_and(is_terminal_phase);

    let theirs = api
        .conditions
        .iter()
        .flatten()
        .filter(|c| !is_kubelets(&c.type_))
        .cloned();
    let mut list: Vec<_> = theirs.collect();
    for condition in ours.conditions.iter().flatten() {
        if is_kubelets(&condition.type_) {
            list.push(condition.clone());
        } else if condition.type_ == conditions::DISRUPTION_TARGET && ending && !may_run {
            list.retain(|c| c.type_ != condition.type_);
            list.push(condition.clone());
        }
    }
    merged.conditions = Some(list);
    merged
        .resource_claim_statuses
        .clone_from(&api.resource_claim_statuses);
    merged
        .extended_resource_claim_status
        .clone_from(&api.extended_resource_claim_status);
    merged
        .node_allocatable_resource_claim_statuses
        .clone_from(&api.node_allocatable_resource_claim_statuses);

    if ending && may_run {
        merged.phase.clone_from(&api.phase);
        merged.reason.clone_from(&api.reason);
        merged.message.clone_from(&api.message);
    }
    // A pod that has ended is not ready, whatever its last probes said.
    if let Some(phase) = merged
        .phase
        .clone()
        .filter(|phase| is_terminal_phase(phase))
    {
        let reason = if phase == "Failed" {
            "PodFailed"
        } else {
            "PodCompleted"
        };
        for condition in merged.conditions.iter_mut().flatten() {
            let readiness = matches!(
                condition.type_.as_str(),
                conditions::READY | conditions::CONTAINERS_READY
            );
            if readiness && condition.status == "True" {
                *condition = conditions::condition(
                    pod,
                    &condition.type_.clone(),
                    false,
                    reason,
                    String::new(),
                );
                condition.last_transition_time = Some(Time(now.round(Unit::Second).unwrap_or(now)));
            }
        }
    }
    merged
}

/// A strategic merge patch from `old` to `new`; `None` where nothing differs. It names the pod's
/// uid, so that it cannot hit a later pod of the same name.
///
/// # Errors
/// When a status does not serialize, which no status does.
pub fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> serde_json::Result<Option<Value>> {
    let (Value::Object(old), Value::Object(new)) =
        (serde_json::to_value(old)?, serde_json::to_value(new)?)
    else {
        return Ok(None);
    };
    let mut status = Map::new();
    for (field, value) in &new {
        if old.get(field) == Some(value) {
            continue;
        }
        match merge_key(field) {
            Some(key) => merge_list(field, key, old.get(field), value, &mut status),
            None => {
                // Maps merge: what is gone from them must be said.
                let mut value = value.clone();
                if let Some(before) = old.get(field) {
                    null_missing(before, &mut value);
                }
                status.insert(field.clone(), value);
            }
        }
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        status.insert(field.clone(), Value::Null);
    }
    if status.is_empty() {
        return Ok(None);
    }
    Ok(Some(json!({"metadata": {"uid": uid}, "status": status})))
}

/// Lists of a pod's status that a strategic merge patch merges by key; the others it replaces.
fn merge_key(field: &str) -> Option<&'static str> {
    match field {
        "conditions" => Some("type"),
        "podIPs" | "hostIPs" => Some("ip"),
        "resourceClaimStatuses" => Some("name"),
        _ => None,
    }
}

fn merge_list(
    field: &str,
    key: &str,
    old: Option<&Value>,
    new: &Value,
    status: &mut Map<String, Value>,
) {
    let items = |list: Option<&Value>| list.and_then(Value::as_array).cloned().unwrap_or_default();
    let (old, new) = (items(old), items(Some(new)));
    let find =
        |list: &[Value], item: &Value| list.iter().find(|other| other[key] == item[key]).cloned();
    let mut patch = Vec::new();
    for item in &new {
        match find(&old, item) {
            Some(before) if before == *item => {}
            before => {
                let mut item = item.clone();
                if let Some(before) = before {
                    null_missing(&before, &mut item);
                }
                patch.push(item);
            }
        }
    }
    for gone in old.iter().filter(|item| find(&new, item).is_none()) {
        patch.push(json!({"$patch": "delete", key: gone[key]}));
    }
    if !patch.is_empty() {
        status.insert(field.to_owned(), Value::Array(patch));
    }
    let order: Vec<_> = new.iter().map(|item| json!({key: item[key]})).collect();
    status.insert(format!("$setElementOrder/{field}"), Value::Array(order));
}

/// Adds `null` for every field that `before` has and `value` lacks, down to the leaves.
fn null_missing(before: &Value, value: &mut Value) {
    let (Value::Object(before), Value::Object(value)) = (before, value) else {
        return;
    };
    for (field, old) in before {
        match value.get_mut(field) {
            Some(new) => null_missing(old, new),
            None => {
                value.insert(field.clone(), Value::Null);
            }
        }
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
