//! A systemd and a logind at the other end of a socket, for tests.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::net::UnixStream as Pipe;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::UnixStream;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{OwnedFd, OwnedObjectPath, OwnedValue};
use zbus::{Connection, Guid, connection, fdo, interface};

type Properties = Vec<(String, OwnedValue)>;

/// What systemd and logind have been told.
#[derive(Default)]
struct State {
    units: BTreeMap<String, Vec<String>>,
    jobs: u32,
    /// The other ends of the inhibitors' descriptors, and what they were asked for with.
    inhibitors: Vec<(Pipe, [String; 4])>,
    /// Microseconds.
    delay: u64,
    /// Where logind reads its configuration.
    configuration: Option<PathBuf>,
}

type Shared = Arc<Mutex<State>>;

struct Systemd(Shared);

fn shown(properties: Properties) -> impl Iterator<Item = String> {
    let number = |value: &OwnedValue| u64::try_from(value).ok();
    properties
        .into_iter()
        .filter_map(move |(name, value)| Some(format!("{name}={}", number(&value)?)))
}

impl Systemd {
    fn job(&self) -> (u32, OwnedObjectPath) {
        let mut state = self.0.lock();
        state.jobs += 1;
        let path = format!("/org/freedesktop/systemd1/job/{}", state.jobs);
        (state.jobs, OwnedObjectPath::try_from(path).unwrap())
    }
}

/// As systemd calls its errors.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.systemd1")]
enum Refusal {
    #[zbus(error)]
    ZBus(zbus::Error),
    UnitExists(String),
    NoSuchUnit(String),
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    async fn start_transient_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        name: String,
        _mode: String,
        properties: Properties,
        _others: Vec<(String, Properties)>,
    ) -> Result<OwnedObjectPath, Refusal> {
        if self.0.lock().units.contains_key(&name) {
            return Err(Refusal::UnitExists(name));
        }
        let failed = name.starts_with("bad");
        if !failed {
            let properties = shown(properties).collect();
            self.0.lock().units.insert(name.clone(), properties);
        }
        let (id, job) = self.job();
        let result = if failed { "failed" } else { "done" };
        // Before the answer: whoever waits for it must have listened before.
        Self::job_removed(&emitter, id, job.clone(), name, result.into()).await?;
        Ok(job)
    }

    async fn stop_unit(
        &self,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        name: String,
        _mode: String,
    ) -> Result<OwnedObjectPath, Refusal> {
        if self.0.lock().units.remove(&name).is_none() {
            return Err(Refusal::NoSuchUnit(name));
        }
        let (id, job) = self.job();
        Self::job_removed(&emitter, id, job.clone(), name, "done".into()).await?;
        Ok(job)
    }

    fn reset_failed_unit(&self, name: String) -> Result<(), Refusal> {
        Err(Refusal::NoSuchUnit(name))
    }

    fn set_unit_properties(
        &self,
        name: String,
        _runtime: bool,
        properties: Properties,
    ) -> Result<(), Refusal> {
        let mut state = self.0.lock();
        let Some(unit) = state.units.get_mut(&name) else {
            return Err(Refusal::NoSuchUnit(name));
        };
        unit.extend(shown(properties));
        Ok(())
    }

    /// The only unit that is killed is logind, for it to read its configuration.
    fn kill_unit(&self, name: String, _whom: String, signal: i32) {
        assert_eq!((name.as_str(), signal), ("systemd-logind.service", 1));
        let mut state = self.0.lock();
        let file = state
            .configuration
            .as_ref()
            .unwrap()
            .join("99-kubelet.conf");
        let text = std::fs::read_to_string(file).unwrap();
        let seconds = text.trim().rsplit('=').next().unwrap();
        state.delay = seconds.parse::<u64>().unwrap() * 1_000_000;
    }

    #[zbus(property)]
    fn version(&self) -> String {
        "252.39-1~deb12u1".into()
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

struct Login(Shared);

#[interface(name = "org.freedesktop.login1.Manager")]
impl Login {
    fn inhibit(
        &self,
        what: String,
        who: String,
        why: String,
        mode: String,
    ) -> fdo::Result<OwnedFd> {
        let (own, theirs) = Pipe::pair().map_err(|error| fdo::Error::Failed(error.to_string()))?;
        own.set_nonblocking(true).unwrap();
        self.0.lock().inhibitors.push((own, [what, who, why, mode]));
        Ok(std::os::fd::OwnedFd::from(theirs).into())
    }

    #[zbus(property, name = "InhibitDelayMaxUSec")]
    fn delay(&self) -> u64 {
        self.0.lock().delay
    }

    #[zbus(signal)]
    async fn prepare_for_shutdown(emitter: &SignalEmitter<'_>, begins: bool) -> zbus::Result<()>;
}

/// A machine that systemd runs.
pub struct Machine {
    /// The end that a kubelet has.
    pub connection: Connection,
    own: Connection,
    state: Shared,
}

impl Machine {
    pub async fn start() -> Self {
        let state = Shared::default();
        state.lock().delay = 5_000_000;
        let (own, theirs) = UnixStream::pair().unwrap();
        let guid = Guid::try_from("0123456789abcdef0123456789abcdef").unwrap();
        let own = connection::Builder::unix_stream(own)
            .server(guid)
            .unwrap()
            .p2p()
            .serve_at("/org/freedesktop/systemd1", Systemd(state.clone()))
            .unwrap()
            .serve_at("/org/freedesktop/login1", Login(state.clone()))
            .unwrap();
        let theirs = connection::Builder::unix_stream(theirs).p2p();
        let (own, connection) = tokio::try_join!(own.build(), theirs.build()).unwrap();
        Self {
            connection,
            own,
            state,
        }
    }

    /// Where logind reads its configuration.
    pub fn configure(&self, directory: PathBuf) {
        self.state.lock().configuration = Some(directory);
    }

    /// The numbers that a unit has been told.
    pub fn unit(&self, name: &str) -> Option<Vec<String>> {
        self.state.lock().units.get(name).cloned()
    }

    /// What the inhibitors that are held were asked for with.
    pub fn inhibitors(&self) -> Vec<[String; 4]> {
        let mut state = self.state.lock();
        // A descriptor that is closed has come to its end.
        state
            .inhibitors
            .retain_mut(|(pipe, _)| pipe.read(&mut [0]).is_err());
        state
            .inhibitors
            .iter()
            .map(|(_, why)| why.clone())
            .collect()
    }

    /// Tells that the machine goes down, or does not.
    pub async fn shut_down(&self, begins: bool) {
        let emitter = SignalEmitter::new(&self.own, "/org/freedesktop/login1").unwrap();
        Login::prepare_for_shutdown(&emitter, begins).await.unwrap();
    }
}
