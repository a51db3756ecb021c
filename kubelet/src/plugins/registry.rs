//! Takes plugins in whose sockets have appeared, and lets go of those whose sockets are gone. What
//! is to be done is decided by [`Known::plan`], purely; every registration is a task of its own, so
//! that a plugin that hangs holds up no other.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use grpc::plugins::registration::registration_client::RegistrationClient;
use grpc::plugins::registration::{InfoRequest, RegistrationStatus};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{info, warn};

use super::sockets::{self, Identity};
use super::{Handler, Plugin};
use crate::metrics::Metrics;

/// By kind of plugin.
pub type Handlers = HashMap<&'static str, Arc<dyn Handler>>;

/// Upstream's pauses after a registration that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(122);
/// How long a plugin may take to tell what it is, and to hear that it was taken.
const INFO_TIMEOUT: Duration = Duration::from_secs(1);
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// A change that the kernel does not tell of is seen after this.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why a plugin was not taken.
#[derive(Debug, Error)]
enum RegistrationError {
    #[error("no use of its socket: {0}")]
    Endpoint(#[from] grpc::EndpointError),
    #[error("failed to get plugin info using RPC GetInfo at socket {0}, err: {1}")]
    Info(String, tonic::Status),
    #[error("no handler registered for plugin type: {0} at socket {1}")]
    Kind(String, String),
    #[error("plugin validation failed with err: {0}")]
    Invalid(String),
    #[error("plugin registration failed with err: {0}")]
    Refused(String),
    #[error("failed to send registration status at socket {0}, err: {1}")]
    Notify(String, tonic::Status),
}

/// How far a socket's plugin has come.
#[derive(Debug, Clone, PartialEq)]
enum Stage {
    Registering,
    Registered(Plugin),
    Failed { again: Instant, pause: Duration },
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    identity: Identity,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Deregister(Plugin),
    Register(PathBuf, Identity),
}

/// The sockets that have been seen.
#[derive(Debug, Default)]
struct Known(BTreeMap<PathBuf, Entry>);

impl Known {
    /// What is to be done about the sockets that are there now; it counts as begun.
    fn plan(&mut self, seen: &BTreeMap<PathBuf, Identity>, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        self.0.retain(|path, entry| {
            let same = seen.get(path) == Some(&entry.identity);
            match &entry.stage {
                // What comes of it is waited for.
                Stage::Registering => true,
                Stage::Failed { .. } => same,
                Stage::Registered(plugin) => {
                    if !same {
                        steps.push(Step::Deregister(plugin.clone()));
                    }
                    same
                }
            }
        });
        for (path, identity) in seen {
            let due = match self.0.get(path).map(|entry| &entry.stage) {
                None => true,
                Some(Stage::Failed { again, .. }) => *again <= now,
                Some(Stage::Registering | Stage::Registered(_)) => false,
            };
            if due {
                steps.push(Step::Register(path.clone(), *identity));
            }
        }
        steps
    }

    fn begin(&mut self, path: &Path, identity: Identity) -> Duration {
        let pause = match self.0.get(path).map(|entry| &entry.stage) {
            Some(Stage::Failed { pause, .. }) => (*pause * 2).min(MAX_PAUSE),
            _ => FIRST_PAUSE,
        };
        let stage = Stage::Registering;
        self.0.insert(path.to_owned(), Entry { identity, stage });
        pause
    }

    /// When a registration is to be tried again.
    fn due(&self) -> Option<Instant> {
        let again = |entry: &Entry| match entry.stage {
            Stage::Failed { again, .. } => Some(again),
            _ => None,
        };
        self.0.values().filter_map(again).min()
    }
}

struct Done {
    path: PathBuf,
    pause: Duration,
    result: Result<Plugin, RegistrationError>,
}

/// The directory of sockets and who is asked about them.
pub struct Registry {
    dir: PathBuf,
    handlers: Arc<Handlers>,
    metrics: Arc<Metrics>,
}

impl Registry {
    pub fn new(dir: PathBuf, handlers: Handlers, metrics: Arc<Metrics>) -> Self {
        Self {
            dir,
            handlers: Arc::new(handlers),
            metrics,
        }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let changed = Arc::new(Notify::new());
        let mut watcher = None;
        let mut known = Known::default();
        let mut running: JoinSet<Done> = JoinSet::new();
        loop {
            // Someone may have removed it since.
            if watcher.is_none() || !self.dir.is_dir() {
                if let Err(error) = fs::create_dir_all(&self.dir) {
                    warn!(path = %self.dir.display(), %error, "cannot make the directory of plugins' sockets");
                }
                watcher = sockets::watch(&self.dir, changed.clone());
            }
            let seen = sockets::find(&self.dir);
            for step in known.plan(&seen, Instant::now()) {
                match step {
                    Step::Deregister(plugin) => self.deregister(&plugin),
                    Step::Register(path, identity) => {
                        let pause = known.begin(&path, identity);
                        let handlers = self.handlers.clone();
                        running.spawn(async move {
                            let result = register(&path, &handlers).await;
                            Done {
                                path,
                                pause,
                                result,
                            }
                        });
                    }
                }
            }
            self.count(&known, &seen);
            let pause = known.due().map_or(LOOK_EVERY, |due| {
                due.saturating_duration_since(Instant::now())
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed.notified() => {}
                () = tokio::time::sleep(pause.min(LOOK_EVERY)) => {}
                Some(done) = running.join_next() => {
                    if let Ok(done) = done {
                        note(&mut known, done);
                    }
                }
            }
        }
    }

    fn deregister(&self, plugin: &Plugin) {
        info!(
            plugin = plugin.name,
            kind = plugin.kind,
            "a plugin has gone"
        );
        if let Some(handler) = self.handlers.get(plugin.kind.as_str()) {
            handler.deregister(plugin);
        }
    }

    fn count(&self, known: &Known, seen: &BTreeMap<PathBuf, Identity>) {
        let plugins = &self.metrics.plugins.total;
        plugins.reset();
        for path in seen.keys() {
            let labels = [&path.to_string_lossy(), "desired_state_of_world"];
            plugins.with_label_values(&labels).set(1);
        }
        let registered = |entry: &Entry| matches!(entry.stage, Stage::Registered(_));
        for (path, _) in known.0.iter().filter(|(_, entry)| registered(entry)) {
            let labels = [&path.to_string_lossy(), "actual_state_of_world"];
            plugins.with_label_values(&labels).set(1);
        }
    }
}

fn note(known: &mut Known, done: Done) {
    let Some(entry) = known.0.get_mut(&done.path) else {
        return;
    };
    let pause = done.pause;
    entry.stage = match done.result {
        Ok(plugin) => {
            info!(
                plugin = plugin.name,
                kind = plugin.kind,
                endpoint = plugin.endpoint,
                "a plugin is there"
            );
            Stage::Registered(plugin)
        }
        Err(error) => {
            warn!(path = %done.path.display(), %error, "RegisterPlugin error");
            let again = Instant::now() + pause;
            Stage::Failed { again, pause }
        }
    };
}

async fn register(path: &Path, handlers: &Handlers) -> Result<Plugin, RegistrationError> {
    let socket = path.to_string_lossy().into_owned();
    let mut client = RegistrationClient::new(grpc::connect_unix(&socket)?);
    let mut request = tonic::Request::new(InfoRequest {});
    request.set_timeout(INFO_TIMEOUT);
    let info = client.get_info(request).await;
    let info = info
        .map_err(|status| RegistrationError::Info(socket.clone(), status))?
        .into_inner();
    let plugin = Plugin {
        kind: info.r#type,
        name: info.name,
        endpoint: match info.endpoint.as_str() {
            "" => socket.clone(),
            endpoint => endpoint.to_owned(),
        },
        versions: info.supported_versions,
    };
    let taken = take(&plugin, &socket, handlers).await;
    let told = notify(&mut client, taken.as_ref().err()).await;
    taken?;
    if let Err(status) = told {
        if let Some(handler) = handlers.get(plugin.kind.as_str()) {
            handler.deregister(&plugin);
        }
        return Err(RegistrationError::Notify(socket, status));
    }
    Ok(plugin)
}

async fn take(plugin: &Plugin, socket: &str, handlers: &Handlers) -> Result<(), RegistrationError> {
    let handler = handlers
        .get(plugin.kind.as_str())
        .ok_or_else(|| RegistrationError::Kind(plugin.kind.clone(), socket.to_owned()))?;
    handler
        .validate(plugin)
        .map_err(RegistrationError::Invalid)?;
    let registered = handler.register(plugin).await;
    registered.map_err(RegistrationError::Refused)
}

async fn notify(
    client: &mut RegistrationClient<Channel>,
    error: Option<&RegistrationError>,
) -> Result<(), tonic::Status> {
    let mut request = tonic::Request::new(RegistrationStatus {
        plugin_registered: error.is_none(),
        error: error.map_or_else(String::new, |error| {
            format!("RegisterPlugin error -- {error}")
        }),
    });
    request.set_timeout(NOTIFY_TIMEOUT);
    client.notify_registration_status(request).await.map(drop)
}

#[cfg(test)]
mod tests;
