//! The pods' groups as a whole: the tree above them, and each pod's own.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Mutex;
use tracing::warn;

use super::{CgroupError, CgroupName, Driver, Hierarchy, Limits};
use crate::cri::limits::{cpu_quota, cpu_shares};
use crate::pods::pod::PodExt;
use crate::resources::qos::{QosClass, qos_class};
use crate::resources::requests::{container_limits, of, pod_limits, pod_requests};

/// Node-wide settings of pods' groups.
#[derive(Debug, Clone, Copy)]
pub struct PodLimits {
    /// `cpuCFSQuota`.
    pub cfs_quota: bool,
    /// `cpuCFSQuotaPeriod` in microseconds.
    pub cfs_period: i64,
    /// `podPidsLimit`; -1 is none.
    pub pids: i64,
}

/// The limits of one pod's group: what its containers may use together. Pure.
fn limits(pod: &Pod, settings: &PodLimits) -> Limits {
    let requests = pod_requests(pod, true);
    let limits = pod_limits(pod, true);
    let limited = |name: &str| {
        let own = pod
            .pod_spec()
            .resources
            .as_ref()
            .and_then(|r| r.limits.as_ref());
        let each = |c| of(container_limits(c), name) != 0;
        of(own, name) != 0
            || pod
                .containers()
                .iter()
                .chain(pod.init_containers())
                .all(each)
    };
    let amount = |list: &std::collections::BTreeMap<String, i64>, name: &str| {
        list.get(name).copied().unwrap_or_default()
    };
    let class = qos_class(pod);
    let shares = if class == QosClass::BestEffort {
        0
    } else {
        amount(&requests, "cpu")
    };
    let bounded =
        |name: &str| class == QosClass::Guaranteed || class == QosClass::Burstable && limited(name);
    let quota = if settings.cfs_quota {
        cpu_quota(amount(&limits, "cpu"), settings.cfs_period)
    } else {
        -1
    };
    Limits {
        cpu_shares: Some(cpu_shares(shares)),
        cpu_quota: bounded("cpu").then_some((quota, settings.cfs_period)),
        memory: bounded("memory").then(|| amount(&limits, "memory")),
        pids: (settings.pids > 0).then_some(settings.pids),
    }
}

/// The tree of pods' groups. Methods block on file operations, each of microseconds; those that
/// change it may wait for systemd.
#[derive(Debug, Clone)]
pub struct PodCgroups {
    pub hierarchy: Hierarchy,
    pub driver: Driver,
    pub names: CgroupName,
    pub settings: PodLimits,
    /// `cgroupsPerQOS`: without it pods have no groups of their own.
    pub per_qos: bool,
    /// Held while the classes are weighed, so that the weight that is set last is the newest.
    pub weighing: Arc<Mutex<()>>,
}

impl PodCgroups {
    /// Makes the tree above pods.
    ///
    /// # Errors
    /// When a group cannot be made.
    pub async fn start(&self) -> Result<(), CgroupError> {
        if !self.per_qos {
            return Ok(());
        }
        let (hierarchy, driver) = (&self.hierarchy, &self.driver);
        let unlimited = Limits::default();
        driver
            .ensure(hierarchy, self.names.all(), &unlimited)
            .await?;
        let least = Limits {
            cpu_shares: Some(cpu_shares(0)),
            ..Limits::default()
        };
        let best_effort = self.names.class(QosClass::BestEffort);
        driver.ensure(hierarchy, &best_effort, &least).await?;
        let burstable = self.names.class(QosClass::Burstable);
        driver
            .ensure(hierarchy, &burstable, &Limits::default())
            .await
    }

    /// Limits all pods together to what the node can give.
    ///
    /// # Errors
    /// When the kernel refuses it, as it does while they have more memory than that.
    pub async fn limit_all(&self, limits: &Limits) -> Result<(), CgroupError> {
        if !self.per_qos {
            return Ok(());
        }
        let group = self.names.all();
        let used = self.hierarchy.memory_usage(group);
        if let Some((limit, used)) = limits.memory.zip(used)
            && u64::try_from(limit).is_ok_and(|limit| limit < used)
        {
            // Version 2 of cgroups would take it, and kill.
            return Err(CgroupError::in_use(group, limit, used));
        }
        self.driver.update(&self.hierarchy, group, limits).await
    }

    /// Weighs the burstable class by what its pods request together.
    ///
    /// # Errors
    /// When the kernel refuses the weight.
    pub async fn update_classes(&self, active: &[Arc<Pod>]) -> Result<(), CgroupError> {
        if !self.per_qos {
            return Ok(());
        }
        let burstable = active
            .iter()
            .filter(|pod| qos_class(pod) == QosClass::Burstable);
        let requested: i64 = burstable
            .map(|pod| {
                pod_requests(pod, true)
                    .get("cpu")
                    .copied()
                    .unwrap_or_default()
            })
            .sum();
        let limits = Limits {
            cpu_shares: Some(cpu_shares(requested)),
            ..Limits::default()
        };
        let group = self.names.class(QosClass::Burstable);
        self.driver.update(&self.hierarchy, &group, &limits).await
    }

    /// What the runtime is told as the parent of a pod's containers.
    pub fn parent(&self, pod: &Pod) -> String {
        if self.per_qos {
            self.names.pod(qos_class(pod), pod.uid())
        } else {
            self.names.all().to_owned()
        }
    }

    pub fn exists(&self, pod: &Pod) -> bool {
        !self.per_qos || self.hierarchy.exists(&self.parent(pod))
    }

    /// The limits of a pod's group. With `own_cpus` some of its containers have CPUs alone, which
    /// they may use all the time.
    pub fn limits(&self, pod: &Pod, own_cpus: bool) -> Limits {
        let settings = PodLimits {
            cfs_quota: self.settings.cfs_quota && !own_cpus,
            ..self.settings
        };
        limits(pod, &settings)
    }

    /// Makes a pod's group.
    ///
    /// # Errors
    /// When it cannot be made or its limits are refused.
    pub async fn ensure(&self, pod: &Pod, own_cpus: bool) -> Result<(), CgroupError> {
        if !self.per_qos {
            return Ok(());
        }
        let limits = self.limits(pod, own_cpus);
        let group = self.parent(pod);
        self.driver.ensure(&self.hierarchy, &group, &limits).await
    }

    /// Changes some of the limits of a pod's group.
    ///
    /// # Errors
    /// When one of them is refused.
    pub async fn update(&self, pod: &Pod, limits: &Limits) -> Result<(), CgroupError> {
        if !self.per_qos {
            return Ok(());
        }
        let group = self.parent(pod);
        self.driver.update(&self.hierarchy, &group, limits).await
    }

    /// The limits that a pod's group has; none where pods have no groups.
    ///
    /// # Errors
    /// When the group is not there.
    pub fn current(&self, pod: &Pod) -> Result<Limits, CgroupError> {
        if !self.per_qos {
            return Ok(Limits::default());
        }
        self.hierarchy.limits(&self.parent(pod))
    }

    /// Bytes of memory that a pod uses; `None` where that cannot be told.
    pub fn memory_usage(&self, pod: &Pod) -> Option<u64> {
        self.per_qos
            .then(|| self.hierarchy.memory_usage(&self.parent(pod)))?
    }

    /// Bytes of a pod's working set; `None` where that cannot be told.
    pub fn working_set(&self, pod: &Pod) -> Option<u64> {
        self.per_qos
            .then(|| self.hierarchy.working_set(&self.parent(pod)))?
    }

    /// Processes of a pod; none where pods have no groups.
    pub fn processes(&self, pod: &Pod) -> usize {
        match self.per_qos {
            true => self.hierarchy.processes(&self.parent(pod)).len(),
            false => 0,
        }
    }

    /// The memory that all pods together may have, and the working set of all, in bytes; `None`
    /// where they are not limited.
    pub fn memory_of_all(&self) -> Option<(u64, u64)> {
        let group = self.per_qos.then(|| self.names.all())?;
        let limit = self.hierarchy.memory_limit(group)?;
        Some((limit, self.hierarchy.working_set(group)?))
    }

    /// Removes a pod's group, and first kills what the runtime left running in it.
    ///
    /// # Errors
    /// When processes remain: try again later.
    pub async fn remove(&self, class: QosClass, uid: &str) -> Result<(), CgroupError> {
        if !self.per_qos {
            return Ok(());
        }
        let group = self.names.pod(class, uid);
        for pid in self.hierarchy.processes(&group) {
            warn!(
                pid,
                cgroup = group,
                "killing a process that outlived its pod"
            );
            crate::sys::process::kill(pid);
        }
        self.driver.remove(&self.hierarchy, &group).await
    }

    /// Every pod that has a group: class and uid.
    pub fn list(&self) -> Vec<(QosClass, String)> {
        if !self.per_qos {
            return Vec::new();
        }
        let classes = [
            QosClass::Guaranteed,
            QosClass::Burstable,
            QosClass::BestEffort,
        ];
        let of_class = |class| {
            let children = self.hierarchy.children(&self.names.class(class));
            children
                .into_iter()
                .filter_map(move |name| Some((class, self.names.uid(&name)?)))
        };
        classes.into_iter().flat_map(of_class).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pods_limits() {
        let settings = PodLimits {
            cfs_quota: true,
            cfs_period: 100_000,
            pids: -1,
        };
        let of = |containers| {
            let pod: Pod =
                serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap();
            limits(&pod, &settings)
        };
        let full = json!({"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}});
        let bare = json!({"name": "b"});
        assert_eq!(
            of(json!([full])),
            Limits {
                cpu_shares: Some(1024),
                cpu_quota: Some((100_000, 100_000)),
                memory: Some(1 << 30),
                pids: None
            }
        );
        assert_eq!(
            of(json!([full, bare])),
            Limits {
                cpu_shares: Some(1024),
                ..Limits::default()
            }
        );
        assert_eq!(
            of(json!([bare])),
            Limits {
                cpu_shares: Some(2),
                ..Limits::default()
            }
        );
    }
}
