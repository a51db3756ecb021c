//! The part of the plan that is about running containers that are to have other resources
//! (KEP-1287). Pure; applied in `resize.rs`.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::observed::{ContainerStatus, PodStatus, State};
use super::plan::{Actions, Kill, KillReason};
use crate::allocation::resize::Given;
use crate::pods::pod::PodExt;

/// A running container that is to be given other resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resize {
    pub id: String,
    pub name: String,
    pub from: Given,
    pub to: Given,
}

/// Where a container stands in the pod's spec.
#[derive(Debug, Clone, Copy)]
pub enum At {
    Init(usize),
    Regular(usize),
}

/// Plans what a running container needs, if anything. False where it has to restart for it.
pub fn container(
    pod: &Pod,
    container: &Container,
    at: At,
    status: &ContainerStatus,
    observed: &PodStatus,
    actions: &mut Actions,
) -> bool {
    if status.state != State::Running {
        return true;
    }
    let to = Given::wanted(pod, container);
    let from = Given::last(&observed.given, status, to);
    if from == to {
        return true;
    }
    let restarts = |resource: &str| {
        let policies = container.resize_policy.iter().flatten();
        policies
            .filter(|policy| policy.resource_name == resource)
            .any(|policy| policy.restart_policy == "RestartContainer")
    };
    let memory = (from.memory_limit, from.memory_request) != (to.memory_limit, to.memory_request);
    let cpu = (from.cpu_limit, from.cpu_request) != (to.cpu_limit, to.cpu_request);
    if memory && restarts("memory") || cpu && restarts("cpu") {
        actions.kill.push(Kill {
            id: status.id.clone(),
            name: status.name.clone(),
            message: format!("Container {} resize requires restart", container.name),
            reason: KillReason::Resize,
        });
        match at {
            At::Init(index) => actions.start_init.push(index),
            At::Regular(index) => actions.start.push(index),
        }
        actions.resize_pod = true;
        return false;
    }
    let resize = Resize {
        id: status.id.clone(),
        name: container.name.clone(),
        from,
        to,
    };
    // Limits decide about the order, requests only where no limit changes.
    let grows = |limits: (i64, i64), requests: (i64, i64)| {
        let (old, new) = if limits.0 == limits.1 {
            requests
        } else {
            limits
        };
        new > old
    };
    if memory {
        let grows = grows(
            (from.memory_limit, to.memory_limit),
            (from.memory_request, to.memory_request),
        );
        insert(&mut actions.resize_memory, resize.clone(), grows);
    }
    if cpu {
        let grows = grows(
            (from.cpu_limit, to.cpu_limit),
            (from.cpu_request, to.cpu_request),
        );
        insert(&mut actions.resize_cpu, resize, grows);
    }
    true
}

/// Those that give something back go before those that take.
fn insert(list: &mut Vec<Resize>, resize: Resize, grows: bool) {
    let at = if grows { list.len() } else { 0 };
    list.insert(at, resize);
}

/// Whether the pod as a whole is to be given something else than it was.
pub fn pod_changes(pod: &Pod, observed: &PodStatus) -> bool {
    let of = |resources| Given::of(None, resources);
    of(pod.pod_spec().resources.as_ref()) != of(observed.given.pod.as_ref())
}
