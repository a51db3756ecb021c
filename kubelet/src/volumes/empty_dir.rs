//! emptyDir: a directory of the pod's own, on disk or in memory. Also the ground that the files
//! of configMap, secret, downwardAPI and projected volumes stand on.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};

use crate::pods::pod::PodExt;
use crate::resources::requests::{container_limits, of, pod_limits, value};
use crate::sys::mount;

/// Where the bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    Disk,
    /// At most so many bytes, where there is a limit.
    Memory {
        size: Option<u64>,
    },
}

/// Makes the directory, open to everyone; a memory-backed one is mounted. True if it was made now.
///
/// # Errors
/// When it cannot be made or mounted.
pub fn set_up(path: &Path, medium: Medium) -> io::Result<bool> {
    let existed = path.is_dir();
    fs::create_dir_all(path)?;
    let ready = match medium {
        Medium::Disk => existed,
        Medium::Memory { .. } => existed && mount::begins_file_system(path),
    };
    if ready {
        return Ok(false);
    }
    fs::set_permissions(path, PermissionsExt::from_mode(0o777))?;
    if let Medium::Memory { size } = medium {
        mount::tmpfs(path, size, None)?;
    }
    Ok(true)
}

/// How large a volume in memory may grow: what the pod may use, or the volume's own smaller limit.
/// `allocatable` is the node's memory for pods, in bytes.
pub fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, allocatable: i64) -> Option<u64> {
    let own = pod.pod_spec().resources.as_ref();
    let limited = of(own.and_then(|own| own.limits.as_ref()), "memory") > 0
        || pod
            .containers()
            .iter()
            .chain(pod.init_containers())
            .all(|c| of(container_limits(c), "memory") > 0);
    let pod_limit = limited
        .then(|| pod_limits(pod, true).get("memory").copied())
        .flatten();
    let own = source.size_limit.as_ref().map(value);
    let smallest = [Some(allocatable), pod_limit, own]
        .into_iter()
        .flatten()
        .filter(|size| *size > 0)
        .min()?;
    u64::try_from(smallest).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn directories_are_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert!(set_up(&path, Medium::Disk).unwrap());
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o7777,
            0o777
        );
        assert!(!set_up(&path, Medium::Disk).unwrap());
    }

    #[test]
    fn the_smallest_limit_counts() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "c", "resources": {"limits": {"memory": "1Gi"}}}]}}))
        .unwrap();
        let source = |limit: &str| EmptyDirVolumeSource {
            size_limit: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(
                limit.into(),
            )),
            ..Default::default()
        };
        assert_eq!(memory_size(&pod, &source("1Mi"), 1 << 40), Some(1 << 20));
        assert_eq!(memory_size(&pod, &source("2Gi"), 1 << 40), Some(1 << 30));
        assert_eq!(memory_size(&pod, &source("2Gi"), 1 << 10), Some(1 << 10));
    }
}
