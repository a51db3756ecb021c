//! How much room there is in the volumes that others provide, asked when somebody wants to know,
//! and not more often than once a minute.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use super::claims::claim_of;
use super::csi::Usage;
use super::manager::{Mounted, Volumes};
use crate::pods::pod::PodExt;
use crate::sys;

/// One volume of a pod.
#[derive(Debug, Clone)]
pub struct VolumeStats {
    pub name: String,
    /// The claim behind it.
    pub claim: Option<String>,
    pub usage: Usage,
}

/// Upstream's `volumeStatsAggPeriod`.
const FRESH: Duration = Duration::from_secs(60);

/// What was told last, by pod.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashMap<String, (Instant, Vec<VolumeStats>)>>);

impl Told {
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

/// Of a file system that the node itself has mounted.
fn of_file_system(path: &Path) -> Option<Usage> {
    let usage = sys::fs::usage(path).ok()?;
    let number = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    Some(Usage {
        available: number(usage.available),
        capacity: number(usage.capacity),
        used: number(usage.used),
        inodes: number(usage.inodes),
        inodes_free: number(usage.inodes_free),
        inodes_used: number(usage.inodes.saturating_sub(usage.inodes_free)),
    })
}

impl Volumes {
    /// A pod's volumes, those that can be told of.
    pub async fn stats(&self, pod: &Pod) -> Vec<VolumeStats> {
        let uid = pod.uid();
        if let Some((at, stats)) = self.told.0.lock().get(uid)
            && at.elapsed() < FRESH
        {
            return stats.clone();
        }
        let mut stats = Vec::new();
        for volume in pod.pod_spec().volumes.iter().flatten() {
            let Some(Mounted::Path { path, .. }) = self.provided_path(uid, &volume.name) else {
                continue;
            };
            let dir = path.parent().unwrap_or(&path);
            let kind = |path: &Path, kind: &str| path.parent().is_some_and(|p| p.ends_with(kind));
            let usage = if kind(dir, "kubernetes.io~csi") {
                let name = dir.file_name().unwrap_or_default().to_string_lossy();
                self.csi.usage(uid, &name).await
            } else if kind(&path, "kubernetes.io~local-volume") {
                of_file_system(&path)
            } else {
                None
            };
            stats.extend(usage.map(|usage| VolumeStats {
                name: volume.name.clone(),
                claim: claim_of(pod, volume).map(|(claim, _, _)| claim),
                usage,
            }));
        }
        if !stats.is_empty() {
            let entry = (Instant::now(), stats.clone());
            self.told.0.lock().insert(uid.to_owned(), entry);
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_tells() {
        let usage = of_file_system(Path::new("/")).unwrap();
        assert!(usage.capacity > 0 && usage.used <= usage.capacity);
        assert_eq!(of_file_system(Path::new("/does/not/exist")), None);
    }
}
