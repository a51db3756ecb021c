//! CPU and memory limits in the kernel's terms, for containers and sandboxes. Pure.

use grpc::cri::{HugepageLimit, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pods::pod::PodExt;
use crate::resources::qos::oom_score_adj;
use crate::resources::requests::{self, container_limits, container_requests, of};

const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// Below this the kernel refuses a quota (microseconds).
const MIN_QUOTA: i64 = 1000;
/// The kernel's usual period (microseconds).
pub const DEFAULT_PERIOD: i64 = 100_000;

/// Node-wide settings that limits depend on.
#[derive(Debug, Clone)]
pub struct LimitDefaults {
    /// `cpuCFSQuota`: CPU limits are enforced.
    pub cfs_quota: bool,
    /// `cpuCFSQuotaPeriod` in microseconds.
    pub cfs_period: i64,
    /// The node's memory in bytes.
    pub node_memory: i64,
    /// `singleProcessOOMKill: false` on cgroup v2: an OOM kills the whole container.
    pub oom_kills_group: bool,
    /// Huge page sizes of this node, as `2MB`, `1GB`.
    pub hugepage_sizes: Vec<String>,
    /// Whether swap is accounted, so that it must be limited.
    pub swap: bool,
}

impl Default for LimitDefaults {
    fn default() -> Self {
        Self {
            cfs_quota: true,
            cfs_period: DEFAULT_PERIOD,
            node_memory: 0,
            oom_kills_group: false,
            hugepage_sizes: Vec::new(),
            swap: false,
        }
    }
}

/// CFS shares of so many thousandths of a CPU.
pub fn cpu_shares(milli: i64) -> i64 {
    if milli == 0 {
        MIN_SHARES
    } else {
        (milli * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
    }
}

/// CFS quota in microseconds per period; zero is no limit.
pub fn cpu_quota(milli: i64, period: i64) -> i64 {
    if milli == 0 {
        0
    } else {
        (milli * period / 1000).max(MIN_QUOTA)
    }
}

/// Thousandths of a CPU that so many shares stand for.
pub fn shares_to_milli(shares: i64) -> i64 {
    (shares * 1000).div_ceil_i(1024)
}

/// Thousandths of a CPU that a quota stands for; zero where there is none.
pub fn quota_to_milli(quota: i64, period: i64) -> i64 {
    if quota > 0 && period > 0 {
        quota * 1000 / period
    } else {
        0
    }
}

trait DivCeil {
    fn div_ceil_i(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    fn div_ceil_i(self, by: i64) -> i64 {
        (self + by - 1).div_euclid(by)
    }
}

fn linux(
    request: Option<i64>,
    cpu_limit: i64,
    memory: i64,
    defaults: &LimitDefaults,
) -> LinuxContainerResources {
    let mut resources = LinuxContainerResources {
        cpu_shares: cpu_shares(request.unwrap_or(cpu_limit)),
        memory_limit_in_bytes: memory,
        ..Default::default()
    };
    if defaults.cfs_quota {
        resources.cpu_period = defaults.cfs_period;
        resources.cpu_quota = cpu_quota(cpu_limit, defaults.cfs_period);
    }
    if defaults.oom_kills_group {
        resources
            .unified
            .insert("memory.oom.group".into(), "1".into());
    }
    resources
}

/// A container's limits. Where it has none of its own, the pod's apply.
pub fn container(
    pod: &Pod,
    container: &Container,
    defaults: &LimitDefaults,
) -> LinuxContainerResources {
    let pod_limits = pod
        .pod_spec()
        .resources
        .as_ref()
        .and_then(|r| r.limits.as_ref());
    let limit = |name: &str| match of(container_limits(container), name) {
        0 => of(pod_limits, name),
        own => own,
    };
    let request = container_requests(container)
        .filter(|r| r.contains_key("cpu"))
        .map(|r| of(Some(r), "cpu"));
    let mut resources = linux(request, limit("cpu"), limit("memory"), defaults);
    resources.oom_score_adj = oom_score_adj(pod, container, defaults.node_memory);
    if defaults.swap {
        // No swap: memory and swap together may be no more than memory.
        resources.memory_swap_limit_in_bytes = resources.memory_limit_in_bytes;
    }
    resources.hugepage_limits = defaults
        .hugepage_sizes
        .iter()
        .map(|size| {
            let name = hugepage_resource(size);
            HugepageLimit {
                page_size: size.clone(),
                limit: u64::try_from(limit(&name)).unwrap_or_default(),
            }
        })
        .collect();
    resources
}

/// `2MB` is the kernel's name of what pods call `hugepages-2Mi`.
fn hugepage_resource(size: &str) -> String {
    let text = size.strip_suffix('B').unwrap_or(size);
    format!("hugepages-{text}i")
}

/// Who has CPUs alone may use all of them, all the time.
pub fn unlimited_cpu(resources: &mut LinuxContainerResources) {
    if resources.cpu_period != 0 {
        resources.cpu_quota = -1;
    }
}

/// What the containers of a pod may use together, told to runtimes that size a sandbox up front.
pub fn sandbox(pod: &Pod, defaults: &LimitDefaults) -> LinuxContainerResources {
    let request = requests::pod_requests(pod, false);
    let limit = requests::pod_limits(pod, false);
    let limit = |name: &str| limit.get(name).copied().unwrap_or_default();
    linux(
        request.get("cpu").copied(),
        limit("cpu"),
        limit("memory"),
        defaults,
    )
}

/// What the sandbox itself uses: the runtime class's overhead, request and limit alike.
pub fn overhead(pod: &Pod, defaults: &LimitDefaults) -> LinuxContainerResources {
    match &pod.pod_spec().overhead {
        None => LinuxContainerResources::default(),
        Some(list) => linux(
            Some(of(Some(list), "cpu")),
            of(Some(list), "cpu"),
            of(Some(list), "memory"),
            defaults,
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kernel_terms() {
        assert_eq!(
            [0, 1, 100, 1000, 999_999].map(cpu_shares),
            [2, 2, 102, 1024, 262_144]
        );
        assert_eq!(
            [0, 1, 500, 2000].map(|milli| cpu_quota(milli, DEFAULT_PERIOD)),
            [0, 1000, 50_000, 200_000]
        );
        assert_eq!(shares_to_milli(102), 100);
        assert_eq!(quota_to_milli(50_000, 100_000), 500);
        assert_eq!(hugepage_resource("2MB"), "hugepages-2Mi");
    }

    #[test]
    fn limits_of_a_container() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "resources": {"limits": {"memory": "1Gi"}},
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "1"}}}, {"name": "d"}],
        }}))
        .unwrap();
        let defaults = LimitDefaults {
            node_memory: 1 << 34,
            hugepage_sizes: vec!["2MB".into()],
            ..Default::default()
        };
        let c = container(&pod, &pod.containers()[0], &defaults);
        assert_eq!(
            (c.cpu_shares, c.cpu_quota, c.memory_limit_in_bytes),
            (256, 100_000, 1 << 30)
        );
        assert_eq!(c.hugepage_limits[0].limit, 0);
        let d = container(&pod, &pod.containers()[1], &defaults);
        assert_eq!((d.cpu_shares, d.cpu_quota), (2, 0));
        assert_eq!(sandbox(&pod, &defaults).cpu_shares, 256);
        assert_eq!(
            overhead(&pod, &defaults),
            LinuxContainerResources::default()
        );
    }
}
