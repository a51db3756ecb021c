//! How much room there is in volumes, and how much of it is taken, asked when somebody wants to know,
//! and not more often than once a minute.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Volume};
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

/// Volumes that are file systems of their own.
const FILE_SYSTEMS: [&str; 3] = [
    "kubernetes.io~local-volume",
    "kubernetes.io~nfs",
    "kubernetes.io~iscsi",
];
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

fn number(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// Of a volume's directory on a file system that it shares with others: all that is below it is
/// looked at, which may take its time.
fn of_directory(path: &Path) -> Option<Usage> {
    let (used, inodes_used) = sys::fs::taken(path).ok()?;
    Some(Usage {
        used: number(used),
        inodes_used: number(inodes_used),
        ..of_file_system(path)?
    })
}

/// As which the kubelet itself makes a volume's directory.
fn own_plugin(volume: &Volume) -> Option<&'static str> {
    match volume {
        v if v.empty_dir.is_some() => Some("empty-dir"),
        v if v.config_map.is_some() => Some("configmap"),
        v if v.secret.is_some() => Some("secret"),
        v if v.projected.is_some() => Some("projected"),
        v if v.downward_api.is_some() => Some("downward-api"),
        _ => None,
    }
}

/// Of a file system of its own.
fn of_file_system(path: &Path) -> Option<Usage> {
    let usage = sys::fs::usage(path).ok()?;
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
            if let Some(plugin) = own_plugin(volume) {
                let path = self.root.pod(uid).volume(plugin, &volume.name);
                // One that no container mounts is not there.
                let usage = tokio::task::spawn_blocking(move || of_directory(&path)).await;
                stats.extend(usage.ok().flatten().map(|usage| VolumeStats {
                    name: volume.name.clone(),
                    claim: None,
                    usage,
                }));
                continue;
            }
            let Some(Mounted::Path { path, .. }) = self.provided_path(uid, &volume.name) else {
                continue;
            };
            let dir = path.parent().unwrap_or(&path);
            let kind = |path: &Path, kind: &str| path.parent().is_some_and(|p| p.ends_with(kind));
            let usage = if kind(dir, "kubernetes.io~csi") {
                let name = dir.file_name().unwrap_or_default().to_string_lossy();
                self.csi.usage(uid, &name).await
            } else if FILE_SYSTEMS.iter().any(|plugin| kind(&path, plugin)) {
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
