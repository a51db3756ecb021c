//! A container runtime that runs nothing: sandboxes and containers are entries of a table, run as
//! soon as they are asked for, and end when they are told to.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;
use tonic::Status;

use super::cri::{
    Container, ContainerConfig, ContainerEventResponse, ContainerEventType, ContainerState,
    ContainerStatus, PodSandbox, PodSandboxConfig, PodSandboxNetworkStatus, PodSandboxState,
    PodSandboxStatus,
};

/// The only image, whatever it is called.
pub const IMAGE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000001";
/// How many events may wait for who reads them.
const EVENTS: usize = 16 * 1024;

type Labels = HashMap<String, String>;

struct Sandbox {
    config: PodSandboxConfig,
    handler: String,
    created: i64,
    ready: bool,
    address: String,
}

struct Held {
    sandbox: String,
    config: ContainerConfig,
    log: PathBuf,
    created: i64,
    /// 0 when it has not.
    started: i64,
    finished: i64,
    exit_code: i32,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Held>,
    made: u64,
}

pub struct Runtime {
    /// Where its images are said to be.
    pub home: PathBuf,
    state: Mutex<State>,
    pub events: broadcast::Sender<ContainerEventResponse>,
    calls: AtomicU64,
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

fn missing(id: &str) -> Status {
    Status::not_found(format!("nothing has the ID {id:?}"))
}

fn has(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// What a list is to hold.
#[derive(Default)]
pub struct Wanted {
    pub id: String,
    pub sandbox: String,
    pub state: Option<i32>,
    pub labels: Labels,
}

impl Held {
    fn state(&self) -> ContainerState {
        match (self.started, self.finished) {
            (_, finished) if finished > 0 => ContainerState::ContainerExited,
            (0, _) => ContainerState::ContainerCreated,
            _ => ContainerState::ContainerRunning,
        }
    }

    fn status(&self, id: &str) -> ContainerStatus {
        let config = &self.config;
        let ended = self.finished > 0;
        let reason = match self.exit_code {
            _ if !ended => "",
            0 => "Completed",
            _ => "Error",
        };
        ContainerStatus {
            id: id.to_owned(),
            metadata: config.metadata.clone(),
            state: self.state().into(),
            created_at: self.created,
            started_at: self.started,
            finished_at: self.finished,
            exit_code: self.exit_code,
            image: config.image.clone(),
            image_ref: IMAGE.to_owned(),
            image_id: IMAGE.to_owned(),
            reason: reason.to_owned(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: self.log.display().to_string(),
            ..ContainerStatus::default()
        }
    }
}

impl Sandbox {
    fn state(&self) -> PodSandboxState {
        if self.ready {
            PodSandboxState::SandboxReady
        } else {
            PodSandboxState::SandboxNotready
        }
    }

    fn status(&self, id: &str) -> PodSandboxStatus {
        PodSandboxStatus {
            id: id.to_owned(),
            metadata: self.config.metadata.clone(),
            state: self.state().into(),
            created_at: self.created,
            network: Some(PodSandboxNetworkStatus {
                ip: self.address.clone(),
                ..PodSandboxNetworkStatus::default()
            }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.handler.clone(),
            ..PodSandboxStatus::default()
        }
    }
}

impl State {
    fn id(&mut self) -> (u64, String) {
        self.made += 1;
        (self.made, format!("{:064x}", self.made))
    }

    fn statuses(&self, sandbox: &str) -> Vec<ContainerStatus> {
        let of_it = (self.containers.iter()).filter(|(_, held)| held.sandbox == sandbox);
        of_it.map(|(id, held)| held.status(id)).collect()
    }
}

impl Runtime {
    pub fn new(home: &Path) -> Self {
        Self {
            home: home.to_owned(),
            state: Mutex::default(),
            events: broadcast::channel(EVENTS).0,
            calls: AtomicU64::new(0),
        }
    }

    /// Calls that were answered so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.state.lock().expect("no panic under the lock")
    }

    fn tell(&self, state: &State, id: &str, sandbox: &str, what: ContainerEventType) {
        let status = state.sandboxes.get(sandbox).map(|s| s.status(sandbox));
        // Nobody may listen.
        let _ = self.events.send(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: what.into(),
            created_at: now(),
            pod_sandbox_status: status,
            containers_statuses: state.statuses(sandbox),
        });
    }

    /// Containers that run, by the UIDs of their pods.
    pub fn running(&self) -> Vec<(String, String)> {
        let state = self.state.lock().expect("no panic under the lock");
        let running = state.containers.iter();
        let running = running.filter(|(_, c)| c.state() == ContainerState::ContainerRunning);
        running
            .filter_map(|(id, held)| {
                let sandbox = state.sandboxes.get(&held.sandbox)?;
                Some((sandbox.config.metadata.as_ref()?.uid.clone(), id.clone()))
            })
            .collect()
    }

    pub fn run_sandbox(&self, config: PodSandboxConfig, handler: String) -> String {
        let mut state = self.state();
        let (number, id) = state.id();
        let sandbox = Sandbox {
            config,
            handler,
            created: now(),
            ready: true,
            address: format!("10.89.{}.{}", number / 250 % 250, 1 + number % 250),
        };
        state.sandboxes.insert(id.clone(), sandbox);
        self.tell(&state, &id, &id, ContainerEventType::ContainerCreatedEvent);
        self.tell(&state, &id, &id, ContainerEventType::ContainerStartedEvent);
        id
    }

    /// It is no error when there is none.
    pub fn stop_sandbox(&self, id: &str) {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(sandbox) = state.sandboxes.get_mut(id) else {
            return;
        };
        if !std::mem::replace(&mut sandbox.ready, false) {
            return;
        }
        let of_it = (state.containers.iter()).filter(|(_, held)| held.sandbox == id);
        let of_it: Vec<String> = of_it.map(|(id, _)| id.clone()).collect();
        for container in of_it {
            self.end(state, &container, 137);
        }
        self.tell(state, id, id, ContainerEventType::ContainerStoppedEvent);
    }

    pub fn remove_sandbox(&self, id: &str) {
        self.stop_sandbox(id);
        let mut state = self.state();
        state.containers.retain(|_, held| held.sandbox != id);
        if state.sandboxes.contains_key(id) {
            self.tell(&state, id, id, ContainerEventType::ContainerDeletedEvent);
            state.sandboxes.remove(id);
        }
    }

    pub fn sandbox(&self, id: &str) -> Result<(PodSandboxStatus, Vec<ContainerStatus>), Status> {
        let state = self.state();
        let sandbox = state.sandboxes.get(id).ok_or_else(|| missing(id))?;
        Ok((sandbox.status(id), state.statuses(id)))
    }

    pub fn sandboxes(&self, wanted: &Wanted) -> Vec<PodSandbox> {
        let state = self.state();
        let fits = |(id, sandbox): &(&String, &Sandbox)| {
            (wanted.id.is_empty() || wanted.id == **id)
                && wanted.state.is_none_or(|s| s == i32::from(sandbox.state()))
                && has(&sandbox.config.labels, &wanted.labels)
        };
        let items = state.sandboxes.iter().filter(fits).map(|(id, sandbox)| {
            let status = sandbox.status(id);
            PodSandbox {
                id: status.id,
                metadata: status.metadata,
                state: status.state,
                created_at: status.created_at,
                labels: status.labels,
                annotations: status.annotations,
                runtime_handler: status.runtime_handler,
            }
        });
        items.collect()
    }

    pub fn create(&self, sandbox: &str, config: ContainerConfig) -> Result<String, Status> {
        let mut state = self.state();
        let of = (state.sandboxes.get(sandbox)).ok_or_else(|| missing(sandbox))?;
        let log = Path::new(&of.config.log_directory).join(&config.log_path);
        let (_, id) = state.id();
        let held = Held {
            sandbox: sandbox.to_owned(),
            config,
            log,
            created: now(),
            started: 0,
            finished: 0,
            exit_code: 0,
        };
        state.containers.insert(id.clone(), held);
        self.tell(
            &state,
            &id,
            sandbox,
            ContainerEventType::ContainerCreatedEvent,
        );
        Ok(id)
    }

    pub fn start(&self, id: &str) -> Result<(), Status> {
        let mut state = self.state();
        let held = state.containers.get_mut(id).ok_or_else(|| missing(id))?;
        held.started = now();
        std::fs::write(&held.log, "").map_err(|e| Status::internal(e.to_string()))?;
        let sandbox = held.sandbox.clone();
        self.tell(
            &state,
            id,
            &sandbox,
            ContainerEventType::ContainerStartedEvent,
        );
        Ok(())
    }

    /// Ends a container that runs; it is no error when none does.
    pub fn stop(&self, id: &str, exit_code: i32) {
        let mut state = self.state();
        self.end(&mut state, id, exit_code);
    }

    fn end(&self, state: &mut State, id: &str, exit_code: i32) {
        let Some(held) = state.containers.get_mut(id) else {
            return;
        };
        if held.state() != ContainerState::ContainerRunning {
            return;
        }
        held.finished = now();
        held.exit_code = exit_code;
        let sandbox = held.sandbox.clone();
        let what = ContainerEventType::ContainerStoppedEvent;
        self.tell(state, id, &sandbox, what);
    }

    pub fn remove(&self, id: &str) {
        let mut state = self.state();
        self.end(&mut state, id, 137);
        if let Some(held) = state.containers.remove(id) {
            let what = ContainerEventType::ContainerDeletedEvent;
            self.tell(&state, id, &held.sandbox, what);
        }
    }

    pub fn container(&self, id: &str) -> Result<ContainerStatus, Status> {
        let state = self.state();
        let held = state.containers.get(id).ok_or_else(|| missing(id))?;
        Ok(held.status(id))
    }

    pub fn containers(&self, wanted: &Wanted) -> Vec<Container> {
        let state = self.state();
        let fits = |(id, held): &(&String, &Held)| {
            (wanted.id.is_empty() || wanted.id == **id)
                && (wanted.sandbox.is_empty() || wanted.sandbox == held.sandbox)
                && wanted.state.is_none_or(|s| s == i32::from(held.state()))
                && has(&held.config.labels, &wanted.labels)
        };
        let containers = state.containers.iter().filter(fits).map(|(id, held)| {
            let status = held.status(id);
            Container {
                id: status.id,
                pod_sandbox_id: held.sandbox.clone(),
                metadata: status.metadata,
                image: status.image,
                image_ref: status.image_ref,
                image_id: status.image_id,
                state: status.state,
                created_at: status.created_at,
                labels: status.labels,
                annotations: status.annotations,
            }
        });
        containers.collect()
    }
}
