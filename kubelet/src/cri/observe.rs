//! *Observe*: what the runtime holds for a pod, read anew for every sync. Nothing is cached, so
//! nothing can be stale, and a restarted kubelet sees what the last one did.

use std::io::{Read, Seek, SeekFrom};

use grpc::cri;

use super::client::{CriClient, CriError, Of};
use super::labels::ContainerAnnotations;
use super::logs;
use super::observed::{self, MAX_TERMINATION_MESSAGE, PodStatus};
use crate::sys;

const MAX_TERMINATION_LINES: usize = 80;
const MAX_LOG_FALLBACK: usize = 2048;

/// Reads the pod's sandboxes and containers.
///
/// # Errors
/// When the runtime does not answer. What vanishes while it is read is left out.
pub async fn pod(client: &CriClient, uid: &str) -> Result<PodStatus, CriError> {
    let of = Of {
        pod_uid: Some(uid),
        running: false,
    };
    let (listed, containers) =
        futures::try_join!(client.list_sandboxes(of), client.list_containers(of))?;
    let mut status = PodStatus::default();
    for (i, sandbox) in listed.iter().enumerate() {
        // Of the older ones no more than their state matters, which the list has told.
        if i > 0 && sandbox.state() == cri::PodSandboxState::SandboxNotready {
            status.sandboxes.push(from_list(sandbox));
            continue;
        }
        let Some(sandbox) = client
            .sandbox_status(&sandbox.id)
            .await?
            .and_then(|response| response.status)
        else {
            continue;
        };
        if i == 0 && sandbox.state() == cri::PodSandboxState::SandboxReady {
            status.ips = observed::sandbox_ips(&sandbox);
            let active = containers.iter().filter(|c| c.pod_sandbox_id == sandbox.id);
            status.active = active.map(|c| c.id.clone()).collect();
        }
        status.sandboxes.push(sandbox);
    }
    for container in containers {
        if let Some(container) = client.container_status(&container.id).await? {
            let message = termination_message(&container);
            status
                .containers
                .push(observed::container_status(container, message));
        }
    }
    Ok(status)
}

fn from_list(sandbox: &cri::PodSandbox) -> cri::PodSandboxStatus {
    cri::PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: sandbox.metadata.clone(),
        state: sandbox.state,
        created_at: sandbox.created_at,
        ..Default::default()
    }
}

/// What the container left to say: its termination message file, or the end of its log where it
/// failed and its policy is `FallbackToLogsOnError`.
fn termination_message(status: &cri::ContainerStatus) -> Option<String> {
    if status.state() != cri::ContainerState::ContainerExited {
        return None;
    }
    let annotations = ContainerAnnotations::read(&status.annotations);
    let path = &annotations.termination_message_path;
    let mount = status
        .mounts
        .iter()
        .find(|mount| !path.is_empty() && mount.container_path == *path);
    let message = mount.and_then(|mount| read_end(&mount.host_path, MAX_TERMINATION_MESSAGE).ok());
    if let Some(message) = message.filter(|message| !message.is_empty()) {
        return Some(String::from_utf8_lossy(&message).into_owned());
    }
    let to_logs = annotations.termination_message_policy == "FallbackToLogsOnError";
    // One that could not even be started has logged nothing.
    if !to_logs || status.exit_code == 0 || status.reason == "ContainerCannotRun" {
        return None;
    }
    // A record is longer than its text: read some more than is kept.
    let log = read_end(&status.log_path, MAX_LOG_FALLBACK * 8).ok()?;
    let tail = logs::tail(&log, MAX_TERMINATION_LINES, MAX_LOG_FALLBACK);
    Some(String::from_utf8_lossy(&tail).into_owned())
}

/// At most the last `limit` bytes of a file.
fn read_end(path: &str, limit: usize) -> std::io::Result<Vec<u8>> {
    // What a container left may be anything: its volume may lie below the path.
    let mut file = sys::fs::open_regular(path.as_ref())?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit as u64)))?;
    let mut data = Vec::new();
    file.take(limit as u64).read_to_end(&mut data)?;
    Ok(data)
}
