//! Leader election over a `Lease`: upstream's algorithm, so that our daemons and upstream's
//! can be candidates for the same lease.
//!
//! Clocks of different machines are never compared: a lease has expired when its record has
//! not changed for the lease's duration *as seen from here*. A leader that cannot renew
//! within the renew deadline, which is shorter, must stop at once: the process ends, and until it
//! has ended its clients write nothing (`fence`).
//!
//! ```no_run
//! # async fn f(client: client::Client, stop: tokio_util::sync::CancellationToken) {
//! use client::leader_election::{Config, Outcome, default_identity};
//!
//! let config = Config::new("kube-system", "kube-scheduler", default_identity());
//! let outcome = client::leader_election::run(&client, config, stop, |leading| async move {
//!     // Works until `leading` is cancelled: by `stop`, or because the lease was lost.
//!     leading.cancelled().await;
//! })
//! .await;
//! if outcome == Outcome::Lost {
//!     std::process::exit(1);
//! }
//! # }
//! ```

mod candidate;

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::client::Client;
use crate::error::{Result, optional};
use crate::events::{EventType, Recorder, reference};
use crate::fence::Fence;

pub use candidate::{Candidacy, Candidate};

/// How much longer than the retry period upstream's candidates may wait: what the times have to
/// allow for.
const JITTER: f64 = 1.2;

/// Candidates look at the lease after some such part of the retry period, not all at once. They
/// see a renewal no later than that, and are there when the lease expires: it is taken over no
/// later than its duration and one retry period after its last renewal.
const LOOK: Range<f64> = 0.6..0.9;

/// Which lease, and how.
#[derive(Clone)]
pub struct Config {
    pub namespace: String,
    pub name: String,
    /// Unique among candidates; see [`default_identity`].
    pub identity: String,
    /// How long others wait for a leader that does not renew.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up. Less than the lease's duration.
    pub renew_deadline: Duration,
    /// Time between attempts.
    pub retry_period: Duration,
    /// Give the lease up when stopped, so that the next leader need not wait.
    pub release_on_stop: bool,
    /// Where to report who became leader.
    pub recorder: Option<Recorder>,
    /// Told whether we lead: upstream's `leader_election_master_status`.
    pub status: Option<prometheus::IntGauge>,
    /// Told of each renewal.
    pub watchdog: Watchdog,
    /// The API server says whose the lease is ([`Candidacy`]): it is renewed, not taken.
    pub coordinated: bool,
}

impl Config {
    /// Upstream's times: 15 s, 10 s, 2 s.
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            release_on_stop: true,
            recorder: None,
            status: None,
            watchdog: Watchdog::default(),
            coordinated: false,
        }
    }

    /// What is wrong with the times, in upstream's words.
    pub fn validate(&self) -> std::result::Result<(), String> {
        if self.lease_duration <= self.renew_deadline {
            return Err("leaseDuration must be greater than renewDeadline".to_owned());
        }
        if self.renew_deadline <= self.retry_period.mul_f64(JITTER) {
            return Err("renewDeadline must be greater than retryPeriod*JitterFactor".to_owned());
        }
        if self.lease_duration < Duration::from_secs(1) {
            return Err("leaseDuration must be greater than zero".to_owned());
        }
        if self.renew_deadline.is_zero() {
            return Err("renewDeadline must be greater than zero".to_owned());
        }
        if self.retry_period.is_zero() {
            return Err("retryPeriod must be greater than zero".to_owned());
        }
        if self.identity.is_empty() {
            return Err("Lock identity is empty".to_owned());
        }
        Ok(())
    }
}

/// `<hostname>_<uuid>`, as upstream's daemons are called.
pub fn default_identity() -> String {
    let bits: u128 = rand::random();
    // RFC 9562, version 4.
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let uuid = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-");
    format!("{}_{uuid}", hostname())
}

/// The host's name; `localhost` if it cannot be told.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name.to_owned()
    }
}

/// Whether a leader still renews: upstream's health check `leaderElection`. Who does not lead is
/// well. Cheap to clone.
#[derive(Clone, Default)]
pub struct Watchdog(Arc<Mutex<Option<Overdue>>>);

struct Overdue {
    at: Instant,
    lease: String,
}

impl Watchdog {
    /// How long after the lease's end a leader, which should have ended by then, may still be
    /// found here.
    const TOLERANCE: Duration = Duration::from_secs(20);

    /// What is wrong, in upstream's words.
    pub fn check(&self) -> std::result::Result<(), String> {
        match &*self.0.lock() {
            Some(overdue) if Instant::now() > overdue.at => Err(format!(
                "failed election to renew leadership on lease {}",
                overdue.lease
            )),
            _ => Ok(()),
        }
    }

    fn renewed(&self, config: &Config) {
        *self.0.lock() = Some(Overdue {
            at: Instant::now() + config.lease_duration + Self::TOLERANCE,
            lease: config.name.clone(),
        });
    }

    fn ended(&self) {
        *self.0.lock() = None;
    }
}

/// How [`run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As asked. What led has ended; the lease is given up.
    Stopped,
    /// The lease could not be renewed, another may lead already. The process must end.
    Lost,
}

/// Waits until we are leader, then runs `lead` until `stop`, or until the lease is lost. In
/// either case `lead`'s token is cancelled. On a stop `lead` is waited for before the lease is
/// given up; on a loss it is dropped where it stands.
pub async fn run<F, Fut>(
    client: &Client,
    config: Config,
    stop: CancellationToken,
    lead: F,
) -> Outcome
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    elect(Elector::new(client, config), stop, lead).await
}

/// As [`run`], over a lease that is not reached by a client: nothing keeps a former leader from
/// writing but that it is told to stop.
pub async fn run_over<L, F, Fut>(
    leases: L,
    config: Config,
    stop: CancellationToken,
    lead: F,
) -> Outcome
where
    L: Leases,
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let elector = Elector {
        leases,
        config,
        observed: None,
        fence: Arc::default(),
    };
    elect(elector, stop, lead).await
}

async fn elect<L, F, Fut>(mut elector: Elector<L>, stop: CancellationToken, lead: F) -> Outcome
where
    L: Leases,
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    if stop.run_until_cancelled(elector.acquire()).await.is_none() {
        return Outcome::Stopped;
    }
    let fence = Arc::clone(&elector.fence);
    elector.report(true);
    let leading = CancellationToken::new();
    let mut lead = std::pin::pin!(lead(leading.clone()));
    let outcome = {
        let mut renew = std::pin::pin!(elector.renew());
        tokio::select! {
            () = &mut renew => Outcome::Lost,
            () = stop.cancelled() => {
                leading.cancel();
                // The lease is kept up while the work comes to its end.
                tokio::select! {
                    () = &mut lead => Outcome::Stopped,
                    () = &mut renew => Outcome::Lost,
                }
            }
            () = &mut lead => Outcome::Stopped,
        }
    };
    leading.cancel();
    elector.report(false);
    if outcome == Outcome::Stopped {
        fence.remove();
        if elector.config.release_on_stop {
            elector.release().await;
        }
    }
    outcome
}

/// What is known of the lease.
struct Observed {
    lease: Lease,
    /// When its record was first seen to be so.
    at: Instant,
}

/// What to do about a lease.
#[derive(Debug, PartialEq)]
enum Plan {
    Create(LeaseSpec),
    Update(LeaseSpec),
    /// Somebody else's, and not expired.
    Held(String),
}

/// Where leases are kept.
pub trait Leases: Send + Sync {
    /// `None`: there is no such lease.
    fn get(&self, name: &str) -> impl Future<Output = Result<Option<Lease>>> + Send;
    fn create(&self, lease: &Lease) -> impl Future<Output = Result<Lease>> + Send;
    /// Fails if the lease is not of the resourceVersion that it is based on.
    fn replace(&self, lease: &Lease) -> impl Future<Output = Result<Lease>> + Send;
}

impl Leases for Api<Lease> {
    async fn get(&self, name: &str) -> Result<Option<Lease>> {
        optional(Self::get(self, name).await)
    }

    async fn create(&self, lease: &Lease) -> Result<Lease> {
        Self::create(self, lease).await
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease> {
        Self::replace(self, lease).await
    }
}

struct Elector<L> {
    leases: L,
    config: Config,
    observed: Option<Observed>,
    /// Of all clients of the leader.
    fence: Arc<Fence>,
}

impl Elector<Api<Lease>> {
    fn new(client: &Client, config: Config) -> Self {
        // A request must not hang for longer than the deadline allows for another one.
        let timeout = (config.renew_deadline / 2).max(Duration::from_secs(1));
        Self {
            leases: Api::namespaced(&client.with_timeout(timeout), &config.namespace),
            config,
            observed: None,
            fence: client.fence().clone(),
        }
    }
}

impl<L: Leases> Elector<L> {
    fn describe(&self) -> String {
        format!("{}/{}", self.config.namespace, self.config.name)
    }

    async fn acquire(&mut self) {
        tracing::info!(lock = %self.describe(), "Attempting to acquire leader lease...");
        loop {
            if self.try_once().await {
                tracing::info!(lock = %self.describe(), "Successfully acquired lease");
                return;
            }
            tokio::time::sleep(self.until_next_look()).await;
        }
    }

    /// No longer than until the lease that another holds expires.
    fn until_next_look(&self) -> Duration {
        let look = self.config.retry_period.mul_f64(rand::random_range(LOOK));
        let left = self.observed.as_ref().map(|observed| {
            let duration = self.duration(observed);
            duration.saturating_sub(observed.at.elapsed())
        });
        left.filter(|left| !left.is_zero())
            .map_or(look, |left| look.min(left))
    }

    /// Renews until that fails for the length of the deadline.
    async fn renew(&mut self) {
        let (retry, deadline) = (self.config.retry_period, self.config.renew_deadline);
        loop {
            let attempts = async {
                while !self.try_once().await {
                    tokio::time::sleep(retry).await;
                }
            };
            if tokio::time::timeout(deadline, attempts).await.is_err() {
                tracing::error!(lock = %self.describe(), "Failed to renew lease");
                return;
            }
            tokio::time::sleep(retry).await;
        }
    }

    /// Whether we are leader after it.
    async fn try_once(&mut self) -> bool {
        let started = std::time::Instant::now();
        match self.attempt().await {
            Ok(leading) => {
                if leading {
                    self.fence.open_until(started, self.config.renew_deadline);
                    self.config.watchdog.renewed(&self.config);
                }
                leading
            }
            Err(err) => {
                tracing::error!(%err, lock = %self.describe(), "cannot acquire or renew the lease");
                false
            }
        }
    }

    async fn attempt(&mut self) -> Result<bool> {
        // Most often nobody has touched it since we did.
        if let Some(observed) = &self.observed
            && self.is_ours(&observed.lease)
            && !self.expired(observed)
        {
            let mut lease = observed.lease.clone();
            lease.spec = Some(self.record(lease.spec.as_ref()));
            match self.leases.replace(&lease).await {
                Ok(lease) => {
                    self.observe(lease);
                    return Ok(true);
                }
                Err(err) => tracing::debug!(%err, "the lease was not as expected"),
            }
        }
        let current = self.leases.get(&self.config.name).await?;
        match &current {
            Some(current) => self.observe(current.clone()),
            None if self.config.coordinated => return Ok(false),
            None => {}
        }
        let lease = match self.plan() {
            Plan::Held(holder) => {
                tracing::debug!(lock = %self.describe(), holder, "lease is held by another");
                return Ok(false);
            }
            Plan::Create(spec) if current.is_none() => {
                let metadata = ObjectMeta {
                    name: Some(self.config.name.clone()),
                    namespace: Some(self.config.namespace.clone()),
                    ..ObjectMeta::default()
                };
                self.leases
                    .create(&Lease {
                        metadata,
                        spec: Some(spec),
                    })
                    .await?
            }
            Plan::Create(spec) | Plan::Update(spec) => {
                let mut lease = current.unwrap_or_default();
                lease.spec = Some(spec);
                self.leases.replace(&lease).await?
            }
        };
        self.observe(lease);
        Ok(true)
    }

    /// Remembers the lease, and the time if its record has changed.
    fn observe(&mut self, lease: Lease) {
        let at = match &self.observed {
            Some(old) if old.lease.spec == lease.spec => old.at,
            _ => Instant::now(),
        };
        self.observed = Some(Observed { lease, at });
    }

    fn plan(&self) -> Plan {
        let Some(observed) = &self.observed else {
            return Plan::Create(self.record(None));
        };
        let spec = observed.lease.spec.as_ref();
        let holder = spec
            .and_then(|s| s.holder_identity.as_deref())
            .unwrap_or_default();
        let ours = self.is_ours(&observed.lease);
        let free = if self.config.coordinated {
            // Another is to lead: the term ends when the lease does.
            let preferred = spec.and_then(|s| s.preferred_holder.as_deref());
            ours && !self.expired(observed) && preferred.unwrap_or_default().is_empty()
        } else {
            holder.is_empty() || ours || self.expired(observed)
        };
        if !free {
            return Plan::Held(holder.to_owned());
        }
        Plan::Update(self.record(spec))
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        let holder = lease
            .spec
            .as_ref()
            .and_then(|s| s.holder_identity.as_deref());
        holder == Some(self.config.identity.as_str())
    }

    fn expired(&self, observed: &Observed) -> bool {
        observed.at.elapsed() >= self.duration(observed)
    }

    /// The holder's own duration, as upstream's candidates read it.
    fn duration(&self, observed: &Observed) -> Duration {
        let seconds = observed
            .lease
            .spec
            .as_ref()
            .and_then(|s| s.lease_duration_seconds);
        match seconds.and_then(|s| u64::try_from(s).ok()) {
            Some(seconds) => Duration::from_secs(seconds),
            None => self.config.lease_duration,
        }
    }

    /// Our record, following `old`.
    fn record(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(jiff::Timestamp::now()));
        let ours = old
            .is_some_and(|s| s.holder_identity.as_deref() == Some(self.config.identity.as_str()));
        let transitions = old.map_or(0, |s| s.lease_transitions.unwrap_or(0));
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(self.config.lease_duration.as_secs() as i32),
            renew_time: now.clone(),
            acquire_time: if ours {
                // Who hands leases out leaves it to the holder.
                old.and_then(|s| s.acquire_time.clone()).or(now)
            } else {
                now
            },
            lease_transitions: Some(match old {
                Some(_) if !ours => transitions + 1,
                _ => transitions,
            }),
            strategy: old.and_then(|s| s.strategy.clone()).filter(|_| ours),
            ..LeaseSpec::default()
        }
    }

    async fn release(&mut self) {
        let Ok(Some(mut lease)) = self.leases.get(&self.config.name).await else {
            return;
        };
        if !self.is_ours(&lease) {
            return;
        }
        let now = Some(MicroTime(jiff::Timestamp::now()));
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            renew_time: now.clone(),
            acquire_time: now,
            lease_transitions: lease.spec.and_then(|s| s.lease_transitions),
            ..LeaseSpec::default()
        });
        match self.leases.replace(&lease).await {
            Ok(_) => tracing::info!(lock = %self.describe(), "released the lease"),
            Err(err) => tracing::warn!(%err, lock = %self.describe(), "cannot release the lease"),
        }
    }

    fn report(&self, leading: bool) {
        if let Some(status) = &self.config.status {
            status.set(leading.into());
        }
        if !leading {
            self.config.watchdog.ended();
        }
        if let (Some(recorder), Some(observed)) = (&self.config.recorder, &self.observed) {
            let what = if leading {
                "became leader"
            } else {
                "stopped leading"
            };
            let message = format!("{} {what}", self.config.identity);
            let about = reference(&observed.lease);
            recorder.event(&about, EventType::Normal, "LeaderElection", &message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_does_not_renew_is_not_well() {
        let config = Config::new("kube-system", "x", "me");
        let watchdog = config.watchdog.clone();
        assert_eq!(watchdog.check(), Ok(()));
        watchdog.renewed(&config);
        tokio::time::advance(Duration::from_secs(35)).await;
        assert_eq!(watchdog.check(), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(watchdog.check().is_err());
        watchdog.ended();
        assert_eq!(watchdog.check(), Ok(()));
    }

    fn elector(identity: &str) -> Elector<Api<Lease>> {
        let client = Client::new(crate::Config::new("http://127.0.0.1:1")).unwrap();
        Elector::new(&client, Config::new("kube-system", "x", identity))
    }

    fn lease(holder: &str, transitions: i32) -> Lease {
        let time = MicroTime("2026-01-01T00:00:00Z".parse().unwrap());
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: Some(15),
                acquire_time: Some(time.clone()),
                renew_time: Some(time),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_candidate_is_there_when_the_lease_expires() {
        let mut e = elector("me");
        let retry = e.config.retry_period;
        assert!(e.until_next_look() < retry);
        e.observe(lease("other", 3));
        tokio::time::advance(Duration::from_millis(14_500)).await;
        assert_eq!(e.until_next_look(), Duration::from_millis(500));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(e.until_next_look() > retry / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_handed_out_is_not_taken() {
        let mut e = elector("me");
        e.config.coordinated = true;
        e.observe(lease("other", 3));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(e.plan(), Plan::Held("other".into()));
        e.observe(lease("me", 3));
        assert!(matches!(e.plan(), Plan::Update(s) if s.lease_transitions == Some(3)));
        let mut ending = lease("me", 3);
        ending.spec.as_mut().unwrap().preferred_holder = Some("other".into());
        e.observe(ending);
        assert_eq!(e.plan(), Plan::Held("me".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_expires_by_our_own_clock() {
        let mut e = elector("me");
        assert!(matches!(e.plan(), Plan::Create(s) if s.lease_transitions == Some(0)));
        // Its times are long past, but we have only just seen it.
        e.observe(lease("other", 3));
        assert_eq!(e.plan(), Plan::Held("other".into()));
        tokio::time::advance(Duration::from_secs(14)).await;
        e.observe(lease("other", 3));
        assert_eq!(e.plan(), Plan::Held("other".into()));
        tokio::time::advance(Duration::from_secs(1)).await;
        let Plan::Update(spec) = e.plan() else {
            panic!()
        };
        assert_eq!(spec.holder_identity.as_deref(), Some("me"));
        assert_eq!(spec.lease_transitions, Some(4));
        // It was renewed after all.
        let mut renewed = lease("other", 3);
        renewed.spec.as_mut().unwrap().renew_time = Some(MicroTime(jiff::Timestamp::now()));
        e.observe(renewed);
        assert_eq!(e.plan(), Plan::Held("other".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_lease_keeps_its_acquire_time() {
        let mut e = elector("me");
        e.observe(lease("me", 2));
        let Plan::Update(spec) = e.plan() else {
            panic!()
        };
        assert_eq!(spec.lease_transitions, Some(2));
        assert_eq!(spec.acquire_time, lease("me", 2).spec.unwrap().acquire_time);
        assert_ne!(spec.renew_time, spec.acquire_time);
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_lease_is_free() {
        let mut e = elector("me");
        e.observe(lease("", 2));
        assert!(matches!(e.plan(), Plan::Update(s) if s.lease_transitions == Some(3)));
    }

    #[test]
    fn identities_and_times() {
        let identity = default_identity();
        let (host, uuid) = identity.rsplit_once('_').unwrap();
        assert!(!host.is_empty() && uuid.len() == 36 && uuid.as_bytes()[14] == b'4');
        assert_ne!(identity, default_identity());
        let mut config = Config::new("n", "x", "i");
        assert!(config.validate().is_ok());
        config.renew_deadline = config.lease_duration;
        assert_eq!(
            config.validate().unwrap_err(),
            "leaseDuration must be greater than renewDeadline"
        );
    }
}
