//! Removing what is dead: old instances of containers, sandboxes, logs of pods that are gone.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use grpc::cri;
use tracing::{debug, warn};

use super::client::{CriClient, CriError, Of};
use super::{labels, logs};

/// How many dead instances are kept.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Of one container of a pod that exists.
    pub per_container: usize,
    /// Of all together; `None`: no limit.
    pub total: Option<usize>,
}

/// What is needed of what the runtime has of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It runs, or people may look at what is left of it.
    All,
    /// It has ended, and there is no room for more than its logs.
    Logs,
    /// The node has nothing to do with it any more.
    Nothing,
}

/// The containers to remove, by id, and the sandboxes that are needed no more once these are gone.
/// Pure. Both lists are the newest first.
fn plan(
    containers: &[cri::Container],
    sandboxes: &[cri::PodSandbox],
    need: impl Fn(&str) -> Need,
    policy: Policy,
) -> (Vec<String>, Vec<String>) {
    let exists = |uid: &str| need(uid) == Need::All;
    let uid = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get(labels::POD_UID).cloned().unwrap_or_default()
    };
    let mut removed: HashSet<&str> = HashSet::new();
    let mut kept: Vec<&cri::Container> = Vec::new();
    let mut instances: HashMap<(String, String), usize> = HashMap::new();
    for container in containers {
        let name = container
            .labels
            .get(labels::CONTAINER_NAME)
            .cloned()
            .unwrap_or_default();
        if container.state() == cri::ContainerState::ContainerRunning {
            continue;
        }
        let uid = uid(&container.labels);
        let limit = if exists(&uid) {
            policy.per_container
        } else {
            0
        };
        let count = instances.entry((uid, name)).or_default();
        *count += 1;
        // One that was made and not started yet is about to be.
        let fresh =
            container.state() == cri::ContainerState::ContainerCreated && *count == 1 && limit > 0;
        if *count > limit && !fresh {
            removed.insert(&container.id);
        } else {
            kept.push(container);
        }
    }
    if let Some(total) = policy.total {
        removed.extend(
            kept.iter()
                .skip(total)
                .map(|container| container.id.as_str()),
        );
    }
    let occupied: HashSet<&str> = containers
        .iter()
        .filter(|container| !removed.contains(container.id.as_str()))
        .map(|container| container.pod_sandbox_id.as_str())
        .collect();
    let mut newest: HashSet<String> = HashSet::new();
    let idle = sandboxes.iter().filter(|sandbox| {
        let uid = uid(&sandbox.labels);
        let is_newest = newest.insert(uid.clone());
        let ready = sandbox.state() == cri::PodSandboxState::SandboxReady;
        let needed = occupied.contains(sandbox.id.as_str()) || is_newest && exists(&uid);
        !ready && !needed
    });
    let idle = idle.map(|sandbox| sandbox.id.clone()).collect();
    (removed.into_iter().map(str::to_owned).collect(), idle)
}

/// Who removes what is dead: one at a time. Many pods may go at once, and two who remove the same
/// are not only twice the work: containerd 2.1 crashes where a container is to be removed whose
/// sandbox has just gone.
#[derive(Debug, Default)]
pub struct Collector {
    turn: tokio::sync::Mutex<()>,
}

impl Collector {
    /// Removes what no one needs any more. How many containers went.
    ///
    /// # Errors
    /// When the runtime cannot be asked.
    pub async fn collect(
        &self,
        client: &CriClient,
        logs_root: &Path,
        need: impl Fn(&str) -> Need,
        policy: Policy,
    ) -> Result<usize, CriError> {
        let _turn = self.turn.lock().await;
        let (containers, sandboxes) = futures::try_join!(
            client.list_containers(Of::default()),
            client.list_sandboxes(Of::default())
        )?;
        let (dead, idle) = plan(&containers, &sandboxes, &need, policy);
        let mut gone: HashSet<&str> = HashSet::new();
        for id in &dead {
            debug!(container = id, "removing a dead container");
            match client.remove_container(id).await {
                Ok(()) => drop(gone.insert(id)),
                Err(error) => warn!(container = id, %error, "cannot remove a dead container"),
            }
        }
        let left = || containers.iter().filter(|c| !gone.contains(c.id.as_str()));
        let occupied: HashSet<&str> = left().map(|c| c.pod_sandbox_id.as_str()).collect();
        for id in idle.iter().filter(|id| !occupied.contains(id.as_str())) {
            // The pod was told to go while it was started. containerd would keep a container that
            // is made while its sandbox goes, and crash when that is to be removed.
            if client.is_creating_in(id) {
                continue;
            }
            debug!(sandbox = id, "removing an idle sandbox");
            let removed = match client.stop_sandbox(id).await {
                Ok(()) => client.remove_sandbox(id).await,
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                warn!(sandbox = id, %error, "cannot remove an idle sandbox");
            }
        }
        let left: HashSet<&String> = left()
            .filter_map(|c| c.labels.get(labels::POD_UID))
            .collect();
        remove_logs(logs_root, |uid| {
            need(uid) != Need::Nothing || left.contains(&uid.to_owned())
        });
        Ok(gone.len())
    }
}

/// Removes logs of pods that are gone, and links to logs that are.
fn remove_logs(logs_root: &Path, keep: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(logs_root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !keep(logs::uid_of_directory(&name.to_string_lossy()))
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            warn!(path = %entry.path().display(), %error, "cannot remove a pod's logs");
        }
    }
    for entry in fs::read_dir(logs::CONTAINERS_DIR)
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) && !path.exists() {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, uid: &str, name: &str, state: cri::ContainerState) -> cri::Container {
        let labels = [(labels::POD_UID, uid), (labels::CONTAINER_NAME, name)];
        cri::Container {
            id: id.into(),
            pod_sandbox_id: format!("sb-{uid}"),
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            state: state.into(),
            ..Default::default()
        }
    }

    fn sandbox(id: &str, uid: &str, state: cri::PodSandboxState) -> cri::PodSandbox {
        let labels = [(labels::POD_UID.to_owned(), uid.to_owned())].into();
        cri::PodSandbox {
            id: id.into(),
            labels,
            state: state.into(),
            ..Default::default()
        }
    }

    #[test]
    fn the_living_keep_their_last_dead() {
        use cri::ContainerState::{ContainerExited as Exited, ContainerRunning as Running};
        use cri::PodSandboxState::{SandboxNotready as NotReady, SandboxReady as Ready};
        let containers = [
            container("a3", "a", "c", Running),
            container("a2", "a", "c", Exited),
            container("a1", "a", "c", Exited),
            container("g1", "gone", "c", Exited),
            container("o1", "other", "c", Exited),
        ];
        let sandboxes = [
            sandbox("sb-a", "a", Ready),
            sandbox("old-a", "a", NotReady),
            sandbox("sb-gone", "gone", NotReady),
            sandbox("sb-other", "other", NotReady),
            sandbox("done", "done", NotReady),
        ];
        let need = |uid: &str| match uid {
            "a" | "other" | "done" => Need::All,
            _ => Need::Nothing,
        };
        let (mut dead, mut idle) = plan(
            &containers,
            &sandboxes,
            need,
            Policy {
                per_container: 1,
                total: None,
            },
        );
        dead.sort();
        idle.sort();
        assert_eq!(dead, ["a1", "g1"]);
        assert_eq!(idle, ["old-a", "sb-gone"]);
        let (dead, _) = plan(
            &containers,
            &sandboxes,
            need,
            Policy {
                per_container: 1,
                total: Some(1),
            },
        );
        assert!(dead.contains(&"o1".to_owned()));
        // Where there is no room, what has ended leaves no more than its logs.
        let scarce = |uid: &str| match uid {
            "a" => Need::All,
            _ => Need::Logs,
        };
        let policy = Policy {
            per_container: 1,
            total: None,
        };
        let (mut dead, mut idle) = plan(&containers, &sandboxes, scarce, policy);
        dead.sort();
        idle.sort();
        assert_eq!(dead, ["a1", "g1", "o1"]);
        assert_eq!(idle, ["done", "old-a", "sb-gone", "sb-other"]);
    }
}
