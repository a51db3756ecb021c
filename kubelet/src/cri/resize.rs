//! *Apply*: gives running containers, and their pod's group, other resources.
//!
//! No container may have more than its pod: the pod's group grows before its containers do, and
//! shrinks after them. What fails is found by the next observation and planned anew.

use std::time::Instant;

use grpc::cri;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use tracing::{debug, warn};

use super::client::CriError;
use super::limits;
use super::observed::PodStatus;
use super::plan::Actions;
use super::resize_plan::Resize;
use super::runtime::Runtime;
use crate::allocation::resize::Given;
use crate::cgroups::Limits;
use crate::pods::pod::PodExt;
use crate::resources::requests::{ResourceList, of, quantity};

/// Memory and CPU are changed one after the other: one may grow and the other shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Memory,
    Cpu,
}

/// The pod's group: what it has, what it is to have, and whose it is.
struct Group<'a> {
    pod: &'a Pod,
    sandbox_id: &'a str,
    current: Limits,
    wanted: Limits,
}

impl Runtime {
    /// Does the plan's resizes. An error is what people are told.
    pub(super) async fn resize(
        &self,
        pod: &Pod,
        observed: &PodStatus,
        actions: &Actions,
    ) -> Result<(), String> {
        let begun = Instant::now();
        let result = self.resize_now(pod, observed, actions).await;
        let success = if result.is_ok() { "true" } else { "false" };
        let duration = &self.metrics.resizes.duration;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        duration.with_label_values(&[success]).observe(took);
        if let Err(error) = &result {
            warn!(pod = %pod.full_name(), error, "cannot give a pod what it was granted yet");
        }
        result
    }

    async fn resize_now(
        &self,
        pod: &Pod,
        observed: &PodStatus,
        actions: &Actions,
    ) -> Result<(), String> {
        let current = self.cgroups.current(pod).map_err(|error| {
            let pod = pod.description();
            format!("unable to get pod cgroup config for pod {pod:?}: {error}")
        })?;
        let mut group = Group {
            pod,
            sandbox_id: actions.sandbox_id.as_deref().unwrap_or_default(),
            current,
            wanted: self
                .cgroups
                .limits(pod, self.topology.cpus.has_exclusive(pod)),
        };
        if !actions.resize_memory.is_empty() || actions.resize_pod {
            self.check_memory(&group, observed, &actions.resize_memory)
                .await?;
            self.resize_one(&mut group, Resource::Memory, &actions.resize_memory)
                .await?;
        }
        if !actions.resize_cpu.is_empty() || actions.resize_pod {
            // What was changed above is what the container has by now.
            let changed = |resize: &Resize| Resize {
                from: Given {
                    memory_limit: resize.to.memory_limit,
                    memory_request: resize.to.memory_request,
                    ..resize.from
                },
                ..resize.clone()
            };
            let list: Vec<_> = actions.resize_cpu.iter().map(changed).collect();
            self.resize_one(&mut group, Resource::Cpu, &list).await?;
        }
        Ok(())
    }

    async fn resize_one(
        &self,
        group: &mut Group<'_>,
        resource: Resource,
        containers: &[Resize],
    ) -> Result<(), String> {
        // No limit is the largest. A limit that is not wanted any more stays: nothing but the end
        // of the pod takes it away.
        let unlimited = |amount: i64| if amount < 0 { i64::MAX } else { amount };
        let (current, wanted) = (&group.current, &group.wanted);
        let (limit, shares) = match resource {
            Resource::Memory => {
                let old = current.memory.map_or(i64::MAX, unlimited);
                let new = wanted.memory.map_or(old, unlimited);
                let partial = Limits {
                    memory: wanted.memory,
                    ..Limits::default()
                };
                ((old, new, partial), None)
            }
            Resource::Cpu => {
                let old = current.cpu_quota.map_or(i64::MAX, |(q, _)| unlimited(q));
                let new = wanted.cpu_quota.map_or(old, |(q, _)| unlimited(q));
                let partial = Limits {
                    cpu_quota: wanted.cpu_quota,
                    ..Limits::default()
                };
                let shares = Limits {
                    cpu_shares: wanted.cpu_shares,
                    ..Limits::default()
                };
                let (old_shares, new_shares) = (
                    current.cpu_shares.unwrap_or_default(),
                    wanted.cpu_shares.unwrap_or_default(),
                );
                ((old, new, partial), Some((old_shares, new_shares, shares)))
            }
        };
        let (old, new, limit) = limit;
        if new > old {
            self.set_group(group, &limit).await?;
        }
        if let Some((old, new, shares)) = shares.as_ref().filter(|(old, new, _)| new > old) {
            debug!(old, new, "the pod's shares grow");
            self.set_group(group, shares).await?;
        }
        for container in containers {
            self.resize_container(group.pod, container, resource)
                .await?;
        }
        if let Some((_, _, shares)) = shares.as_ref().filter(|(old, new, _)| new < old) {
            self.set_group(group, shares).await?;
        }
        if new < old {
            self.set_group(group, &limit).await?;
        }
        self.pod_given(group.pod, resource);
        Ok(())
    }

    /// Changes the pod's group. The runtime hears of it first and may refuse.
    async fn set_group(&self, group: &mut Group<'_>, limits: &Limits) -> Result<(), String> {
        let merged = Limits {
            cpu_shares: limits.cpu_shares.or(group.current.cpu_shares),
            cpu_quota: limits.cpu_quota.or(group.current.cpu_quota),
            memory: limits.memory.or(group.current.memory),
            pids: None,
        };
        self.tell_sandbox(group, &merged).await.map_err(|error| {
            format!(
                "failed to notify runtime for UpdatePodSandboxResources; resize rejected: \
                 updatePodSandboxResources failed for sanboxID {:?}: {error}",
                group.sandbox_id
            )
        })?;
        if let Err(error) = self.cgroups.update(group.pod, limits).await {
            if let Err(error) = self.tell_sandbox(group, &group.current).await {
                warn!(pod = %group.pod.full_name(), %error, "cannot tell the runtime that a pod's group stays as it was");
            }
            return Err(error.to_string());
        }
        group.current = merged;
        Ok(())
    }

    /// Not every runtime wants to know.
    async fn tell_sandbox(&self, group: &Group<'_>, limits: &Limits) -> Result<(), CriError> {
        if group.sandbox_id.is_empty() {
            return Ok(());
        }
        let overhead = group.pod.pod_spec().overhead.as_ref();
        let without = |amount: i64, name: &str| amount - of(overhead, name);
        let mut resources = cri::LinuxContainerResources::default();
        if let Some(shares) = limits.cpu_shares {
            let milli = without(limits::shares_to_milli(shares), "cpu");
            resources.cpu_shares = if of(overhead, "cpu") == 0 {
                shares
            } else {
                limits::cpu_shares(milli.max(0))
            };
        }
        if let Some((quota, period)) = limits.cpu_quota {
            resources.cpu_period = period;
            resources.cpu_quota = if quota > 0 {
                quota - limits::cpu_quota(of(overhead, "cpu"), period)
            } else {
                quota
            };
        }
        if let Some(memory) = limits.memory {
            resources.memory_limit_in_bytes = without(memory, "memory");
        }
        let request = cri::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: group.sandbox_id.to_owned(),
            overhead: Some(limits::overhead(group.pod, &self.settings.limits)),
            resources: Some(resources),
        };
        match self.client.update_sandbox_resources(request).await {
            Err(error) if !is_unimplemented(&error) => Err(error),
            _ => Ok(()),
        }
    }

    async fn resize_container(
        &self,
        pod: &Pod,
        resize: &Resize,
        resource: Resource,
    ) -> Result<(), String> {
        let Some(mut container) = pod.container_spec(&resize.name) else {
            return Ok(());
        };
        let (from, to) = (resize.from, resize.to);
        let now = match resource {
            Resource::Memory => Given {
                memory_limit: to.memory_limit,
                memory_request: to.memory_request,
                ..from
            },
            Resource::Cpu => Given {
                cpu_limit: to.cpu_limit,
                cpu_request: to.cpu_request,
                ..from
            },
        };
        let list = |cpu: i64, memory: i64| -> ResourceList {
            [("cpu", cpu), ("memory", memory)]
                .into_iter()
                .map(|(name, amount)| (name.to_owned(), quantity(name, amount)))
                .collect()
        };
        // Huge pages cannot be resized, and must not be forgotten over it.
        let keep = |old: Option<ResourceList>, new: ResourceList| {
            let mut list = old.unwrap_or_default();
            list.extend(new);
            Some(list)
        };
        let old = container.resources.take().unwrap_or_default();
        container.resources = Some(ResourceRequirements {
            limits: keep(old.limits, list(now.cpu_limit, now.memory_limit)),
            requests: keep(old.requests, list(now.cpu_request, now.memory_request)),
            claims: old.claims,
        });
        let mut linux = limits::container(pod, &container, &self.settings.limits);
        let cpus = &self.topology.cpus;
        if cpus.exclusive(pod.uid(), &container.name).is_some() {
            limits::unlimited_cpu(&mut linux);
        }
        debug!(pod = %pod.full_name(), container = resize.name, ?now, "giving a container other resources");
        self.client
            .update_container_resources(&resize.id, linux)
            .await
            .map_err(|error| error.to_string())?;
        self.container_given(pod, &container.name, container.resources.as_ref());
        Ok(())
    }

    /// Writes down what a container has been given, the pod's limits where it has none.
    pub(super) fn container_given(
        &self,
        pod: &Pod,
        name: &str,
        resources: Option<&ResourceRequirements>,
    ) {
        let mut given = resources.cloned().unwrap_or_default();
        let own = pod.pod_spec().resources.as_ref();
        for name in ["cpu", "memory"] {
            let limit = own.and_then(|own| own.limits.as_ref()?.get(name));
            if of(given.limits.as_ref(), name) == 0
                && let Some(limit) =
                    limit.filter(|_| of(own.and_then(|r| r.limits.as_ref()), name) != 0)
            {
                let limits = given.limits.get_or_insert_default();
                limits.insert(name.into(), limit.clone());
            }
        }
        let written = self.given.change(pod.uid(), |pod| {
            pod.containers.insert(name.to_owned(), given);
        });
        if let Err(error) = written {
            warn!(pod = %pod.full_name(), container = name, %error, "cannot write down what a container was given");
        }
    }

    fn pod_given(&self, pod: &Pod, resource: Resource) {
        let Some(wanted) = &pod.pod_spec().resources else {
            return;
        };
        let name = match resource {
            Resource::Memory => "memory",
            Resource::Cpu => "cpu",
        };
        let copy = |from: &Option<ResourceList>, to: &mut Option<ResourceList>| {
            if let Some(quantity) = from.as_ref().and_then(|list| list.get(name)) {
                let list = to.get_or_insert_default();
                list.insert(name.into(), quantity.clone());
            }
        };
        let written = self.given.change(pod.uid(), |known| {
            let given = known.pod.get_or_insert_default();
            copy(&wanted.requests, &mut given.requests);
            copy(&wanted.limits, &mut given.limits);
        });
        if let Err(error) = written {
            warn!(pod = %pod.full_name(), %error, "cannot write down what a pod was given");
        }
    }

    /// A limit below what is used now would kill. Best effort: usage may grow any time.
    async fn check_memory(
        &self,
        group: &Group<'_>,
        observed: &PodStatus,
        containers: &[Resize],
    ) -> Result<(), String> {
        let mut wrong = Vec::new();
        let pod_limit = group.wanted.memory.filter(|new| {
            let old = group.current.memory.unwrap_or(i64::MAX);
            *new >= 0 && (old < 0 || *new < old)
        });
        if let Some(limit) = pod_limit {
            match self.cgroups.memory_usage(group.pod) {
                None => wrong.push("missing pod memory usage".to_owned()),
                Some(used) if used >= limit.unsigned_abs() => wrong.push(format!(
                    "attempting to set pod memory limit ({limit}) below current usage ({used})"
                )),
                Some(_) => {}
            }
        }
        let shrinks = |resize: &&Resize| {
            let (old, new) = (resize.from.memory_limit, resize.to.memory_limit);
            new != 0 && (old == 0 || new < old)
        };
        for resize in containers.iter().filter(shrinks) {
            let (name, limit) = (&resize.name, resize.to.memory_limit);
            // Gone meanwhile: nothing to check.
            if observed.newest(name).is_none_or(|c| c.id != resize.id) {
                continue;
            }
            let stats = self.client.stats_of_container(&resize.id).await;
            let used = stats
                .ok()
                .flatten()
                .and_then(|stats| Some(stats.memory?.usage_bytes?.value));
            match used {
                None => wrong.push(format!("missing container {name:?} memory usage")),
                Some(used) if used >= limit.unsigned_abs() => wrong.push(format!(
                    "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                )),
                Some(_) => {}
            }
        }
        match wrong.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            many => Err(format!(
                "cannot decrease memory limits: [{}]",
                many.join(", ")
            )),
        }
    }
}

/// containerd 2.2 says it in words only.
fn is_unimplemented(error: &CriError) -> bool {
    error.code == tonic::Code::Unimplemented
        || error.code == tonic::Code::Unknown && error.message.contains("not implemented")
}
