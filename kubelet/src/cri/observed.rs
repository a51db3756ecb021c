//! What the runtime was seen to hold for one pod: the *observe* side of a pod sync. Plain data,
//! converted once from CRI messages; nothing here talks to the runtime.

use grpc::cri;

use super::labels::{self, ContainerAnnotations};
use crate::allocation::PodResources;

/// A container's state as the runtime reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

impl State {
    /// The word that upstream's messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Unknown => "unknown",
        }
    }
}

impl From<cri::ContainerState> for State {
    fn from(state: cri::ContainerState) -> Self {
        match state {
            cri::ContainerState::ContainerCreated => Self::Created,
            cri::ContainerState::ContainerRunning => Self::Running,
            cri::ContainerState::ContainerExited => Self::Exited,
            cri::ContainerState::ContainerUnknown => Self::Unknown,
        }
    }
}

/// One instance of a container. Times are nanoseconds since the epoch, zero where unknown.
#[derive(Debug, Clone)]
pub struct ContainerStatus {
    /// The runtime's id, without the `containerd://` prefix.
    pub id: String,
    pub name: String,
    pub state: State,
    /// Hash of the spec it was made from; see [`super::hash`].
    pub hash: u64,
    pub restart_count: i32,
    pub image: String,
    pub image_ref: String,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub resources: Option<cri::LinuxContainerResources>,
    pub user: Option<cri::LinuxContainerUser>,
}

/// Everything the runtime holds for one pod.
#[derive(Debug, Clone, Default)]
pub struct PodStatus {
    /// Addresses of the newest ready sandbox, the primary first.
    pub ips: Vec<String>,
    /// Newest first.
    pub sandboxes: Vec<cri::PodSandboxStatus>,
    /// Newest first, of all sandboxes.
    pub containers: Vec<ContainerStatus>,
    /// Ids of the containers in the newest ready sandbox.
    pub active: Vec<String>,
    /// What the pod and its containers were given last, as this node wrote it down.
    pub given: PodResources,
    /// All containers are to be removed, and then to begin anew.
    pub restarting_all: bool,
}

impl PodStatus {
    /// The newest instance of the named container.
    pub fn newest(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().filter(|c| c.state == State::Running)
    }

    /// Whether the current sandbox has, or had, an instance of one of these containers.
    pub fn has_active(&self, mut names: impl Iterator<Item = impl AsRef<str>>) -> bool {
        names.any(|name| {
            self.containers
                .iter()
                .any(|c| c.name == name.as_ref() && self.active.contains(&c.id))
        })
    }
}

/// How far a termination message is taken, so that a container cannot fill etcd.
pub const MAX_TERMINATION_MESSAGE: usize = 4096;

/// Converts a runtime's container status. `message` completes the runtime's own one for a
/// container that ended (see [`super::termination`]).
pub fn container_status(
    status: cri::ContainerStatus,
    termination_message: Option<String>,
) -> ContainerStatus {
    let state = State::from(status.state());
    let annotations = ContainerAnnotations::read(&status.annotations);
    let exited = state == State::Exited;
    let mut message = if exited {
        status.message
    } else {
        String::new()
    };
    if let Some(more) = termination_message.filter(|m| !m.is_empty()) {
        if !message.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&more);
    }
    ContainerStatus {
        name: status
            .labels
            .get(labels::CONTAINER_NAME)
            .cloned()
            .unwrap_or_default(),
        id: status.id,
        state,
        hash: annotations.hash,
        restart_count: annotations.restart_count,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_ref: status.image_ref,
        started_at: if state == State::Created {
            0
        } else {
            status.started_at
        },
        finished_at: if exited { status.finished_at } else { 0 },
        exit_code: if exited { status.exit_code } else { 0 },
        reason: if exited { status.reason } else { String::new() },
        message,
        resources: status.resources.and_then(|r| r.linux),
        user: status.user.and_then(|u| u.linux),
    }
}

/// The sandbox's addresses, the primary first; none of a sandbox on the host network.
pub fn sandbox_ips(sandbox: &cri::PodSandboxStatus) -> Vec<String> {
    let Some(network) = &sandbox.network else {
        return Vec::new();
    };
    let all = std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|ip| &ip.ip));
    all.filter(|ip| !ip.is_empty()).cloned().collect()
}
