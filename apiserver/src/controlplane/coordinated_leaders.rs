//! Who leads, where components let the API server say it (coordinated leader election,
//! KEP-4355): candidates tell their versions, are asked whether they are there, and the one of
//! the oldest version is written into the lease. It renews the lease itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::leader_election::{self, Leases, default_identity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::coordination::v1beta1::LeaseCandidate;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use meta::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::local::Local;

const GROUP: &str = "coordination.k8s.io";
const LEASES: &str = "leases";
const CANDIDATES: &str = "leasecandidates";
/// The lease of the API server that says who leads.
const OWN_NAMESPACE: &str = "kube-system";
const OWN_LEASE: &str = "leader-election-controller";
const OLDEST: &str = "OldestEmulationVersion";

/// How often elections go on.
const STEP: Duration = Duration::from_secs(1);
/// How long candidates have to answer, and for how long an answer counts.
const ELECTION: SignedDuration = SignedDuration::from_secs(5);
/// Of a new leader, who then renews for as long as it likes.
const FIRST_TERM: i32 = 5;
/// After which a candidate that says nothing is none.
const VALID: SignedDuration = SignedDuration::from_mins(30);

/// The times of the API servers' own election (`--coordinated-leadership-*`).
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

/// Runs elections for as long as this server leads the others, until `stop`.
pub(super) async fn run(local: Arc<Local>, times: Times, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let config = leader_election::Config {
            lease_duration: times.lease_duration,
            renew_deadline: times.renew_deadline,
            retry_period: times.retry_period,
            ..leader_election::Config::new(OWN_NAMESPACE, OWN_LEASE, default_identity())
        };
        let own = OwnLease(local.clone());
        let lead = |leading: CancellationToken| steps(local.clone(), leading);
        leader_election::run_over(own, config, stop.clone(), lead).await;
    }
}

async fn steps(local: Arc<Local>, leading: CancellationToken) {
    let mut tick = tokio::time::interval(STEP);
    while leading.run_until_cancelled(tick.tick()).await.is_some() {
        if let Err(error) = step(&local, Timestamp::now()).await {
            tracing::warn!(%error, "electing leaders, trying again");
        }
    }
}

/// Looks at every lease that somebody stands for.
async fn step(local: &Local, now: Timestamp) -> Result<(), Status> {
    let mut standing: BTreeMap<(String, String), Vec<LeaseCandidate>> = BTreeMap::new();
    for candidate in local.list(GROUP, CANDIDATES, "", "").await? {
        let candidate: LeaseCandidate = match typed(candidate) {
            Ok(candidate) => candidate,
            // It stands for one lease; the others have leaders all the same.
            Err(error) => {
                tracing::warn!(%error, "a candidate that cannot be read stands for nothing");
                continue;
            }
        };
        let namespace = candidate.metadata.namespace.clone().unwrap_or_default();
        if is_over(&candidate, now) {
            let name = candidate.metadata.name.as_deref().unwrap_or_default();
            collect(local, &namespace, name, now).await?;
            continue;
        }
        let lease = candidate.spec.lease_name.clone();
        standing
            .entry((namespace, lease))
            .or_default()
            .push(candidate);
    }
    for ((namespace, name), candidates) in standing {
        let lease = local.get(GROUP, LEASES, &namespace, &name).await?;
        let lease: Result<Option<Lease>, Status> = lease.map(typed).transpose();
        let (lease, act) = match lease
            .map_err(|e| e.to_string())
            .and_then(|lease| Ok((plan(lease.as_ref(), &candidates, now)?, lease)))
        {
            Ok((act, lease)) => (lease, act),
            Err(why) => {
                tracing::warn!(namespace, name, why, "nobody can be elected");
                continue;
            }
        };
        let about = (namespace.as_str(), name.as_str());
        match apply(local, about, lease, &candidates, act, now).await {
            // Somebody wrote meanwhile; the next step sees what.
            Err(e) if e.is_conflict() || e.is_already_exists() || e.is_not_found() => {}
            done => done?,
        }
    }
    Ok(())
}

/// A candidate that has been silent for long, by what the cache has, goes if it is so.
async fn collect(local: &Local, namespace: &str, name: &str, now: Timestamp) -> Result<(), Status> {
    let fresh = local.get(GROUP, CANDIDATES, namespace, name).await?;
    let Some(fresh) = fresh.map(typed::<LeaseCandidate>).transpose()? else {
        return Ok(());
    };
    if !is_over(&fresh, now) {
        return Ok(());
    }
    match local.delete(GROUP, CANDIDATES, namespace, name).await {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(()),
    }
}

/// What is done about a lease.
#[derive(Debug, PartialEq)]
enum Act {
    Nothing,
    /// Asks these candidates, by their places, whether they are there, and waits for answers.
    Ask(BTreeSet<usize>),
    /// By this strategy; `None`: it is not ours to say who.
    Elect {
        strategy: String,
        holder: Option<String>,
    },
}

fn plan(
    lease: Option<&Lease>,
    candidates: &[LeaseCandidate],
    now: Timestamp,
) -> Result<Act, String> {
    if !is_needed(lease, candidates, now)? {
        return Ok(Act::Nothing);
    }
    let within = |at: Option<Timestamp>| at.is_some_and(|at| now.duration_since(at) < ELECTION);
    let mut ask = BTreeSet::new();
    let mut waits = false;
    for (place, candidate) in candidates.iter().enumerate() {
        let (asked, renewed) = (asked(candidate), renewed(candidate));
        let silent = asked.is_some() && renewed < asked;
        if silent && within(asked) {
            waits = true;
        } else if !within(renewed) && !silent {
            ask.insert(place);
        }
    }
    if waits || !ask.is_empty() {
        return Ok(Act::Ask(ask));
    }
    let there: Vec<_> = candidates.iter().filter(|c| within(renewed(c))).collect();
    if there.is_empty() {
        return Err("no available candidates".to_owned());
    }
    let strategy = strategy(&there)?;
    let holder = (strategy == OLDEST).then(|| oldest(&there)).flatten();
    if strategy == OLDEST && holder.is_none() {
        return Err("no candidate says of which version it is".to_owned());
    }
    Ok(Act::Elect { strategy, holder })
}

/// Whether the lease is free, has another holder than the best, or candidates have been silent
/// for so long that they might be forgotten.
fn is_needed(
    lease: Option<&Lease>,
    candidates: &[LeaseCandidate],
    now: Timestamp,
) -> Result<bool, String> {
    let Some(spec) = lease.and_then(|l| l.spec.as_ref()) else {
        return Ok(true);
    };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if holder.is_empty() || has_ended(spec, now) {
        return Ok(true);
    }
    let silent =
        |c: &LeaseCandidate| renewed(c).is_some_and(|at| now.duration_since(at) > VALID / 2);
    if candidates.iter().any(silent) {
        return Ok(true);
    }
    let all: Vec<_> = candidates.iter().collect();
    if strategy(&all)? != OLDEST {
        return Ok(false);
    }
    Ok(oldest(&all).is_some_and(|best| best != holder))
}

async fn apply(
    local: &Local,
    (namespace, name): (&str, &str),
    lease: Option<Lease>,
    candidates: &[LeaseCandidate],
    act: Act,
    now: Timestamp,
) -> Result<(), Status> {
    match act {
        Act::Nothing => {}
        Act::Ask(places) => {
            for place in places {
                let mut asked = candidates[place].clone();
                asked.spec.ping_time = Some(MicroTime(now));
                let asked = tree(&asked)?;
                local.update(GROUP, CANDIDATES, namespace, asked).await?;
            }
        }
        Act::Elect { strategy, holder } => {
            let old = lease.as_ref().and_then(|l| l.spec.as_ref());
            let Some(spec) = elected(old, &strategy, holder, now) else {
                return Ok(());
            };
            tracing::info!(namespace, name, holder = spec.holder_identity, "elected");
            let is_new = lease.is_none();
            let mut lease = lease.unwrap_or_else(|| Lease {
                metadata: ObjectMeta {
                    namespace: Some(namespace.to_owned()),
                    name: Some(name.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: None,
            });
            lease.spec = Some(spec);
            let lease = tree(&lease)?;
            match is_new {
                true => local.create(GROUP, LEASES, namespace, lease).await?,
                false => local.update(GROUP, LEASES, namespace, lease).await?,
            };
        }
    }
    Ok(())
}

/// What the lease says after an election; `None`: what it said before. Whose term has not ended
/// is told who comes next, and renews no more.
fn elected(
    old: Option<&LeaseSpec>,
    strategy: &str,
    holder: Option<String>,
    now: Timestamp,
) -> Option<LeaseSpec> {
    let mut spec = old.cloned().unwrap_or_default();
    spec.strategy = Some(strategy.to_owned());
    let current = spec.holder_identity.clone().unwrap_or_default();
    let free = current.is_empty() || has_ended(&spec, now);
    if old.is_none() || (free && holder.as_ref().is_some_and(|h| *h != current)) {
        spec.holder_identity = holder;
        spec.preferred_holder = None;
        spec.acquire_time = None;
        spec.renew_time = Some(MicroTime(now));
        spec.lease_duration_seconds = Some(FIRST_TERM);
    } else if holder.as_ref().is_some_and(|h| *h != current) {
        spec.preferred_holder = holder;
    }
    (Some(&spec) != old).then_some(spec)
}

fn renewed(candidate: &LeaseCandidate) -> Option<Timestamp> {
    candidate.spec.renew_time.as_ref().map(|t| t.0)
}

fn asked(candidate: &LeaseCandidate) -> Option<Timestamp> {
    candidate.spec.ping_time.as_ref().map(|t| t.0)
}

fn is_over(candidate: &LeaseCandidate, now: Timestamp) -> bool {
    renewed(candidate).is_none_or(|at| now.duration_since(at) > VALID)
}

fn has_ended(spec: &LeaseSpec, now: Timestamp) -> bool {
    let renewed = spec.renew_time.as_ref().map(|t| t.0);
    let (Some(renewed), Some(holds)) = (renewed, spec.lease_duration_seconds) else {
        return true;
    };
    now.duration_since(renewed) > SignedDuration::from_secs(holds.into())
}

type Version = [u64; 3];

/// What stands before any `-` or `+` of a semantic version; parts that are left out are 0.
fn version(text: &str) -> Option<Version> {
    let core = text.split(['-', '+']).next()?;
    let mut version = Version::default();
    let mut parts = core.trim().trim_start_matches('v').split('.');
    for place in &mut version {
        match parts.next() {
            Some(part) => *place = part.parse().ok()?,
            None => break,
        }
    }
    parts.next().is_none().then_some(version)
}

fn emulated(candidate: &LeaseCandidate) -> Option<Version> {
    version(candidate.spec.emulation_version.as_deref()?)
}

/// The strategy that the candidates of the newest version ask for.
fn strategy(candidates: &[&LeaseCandidate]) -> Result<String, String> {
    let binary = |c: &LeaseCandidate| version(&c.spec.binary_version).unwrap_or_default();
    let newest = candidates.iter().map(|c| binary(c)).max();
    let mut asked = candidates
        .iter()
        .filter(|c| Some(binary(c)) == newest)
        .map(|c| &c.spec.strategy);
    let first = asked.next().ok_or("no candidates")?;
    match asked.find(|other| *other != first) {
        Some(other) => Err(format!(
            "candidates of the same version ask for {first:?} and for {other:?}"
        )),
        None => Ok(first.clone()),
    }
}

/// The candidate that emulates the oldest version; among equals the one whose own is the
/// oldest, and which has stood the longest.
fn oldest(candidates: &[&LeaseCandidate]) -> Option<String> {
    let rank = |c: &&&LeaseCandidate| {
        let since = c.metadata.creation_timestamp.as_ref().map(|t| t.0);
        Some((emulated(c)?, version(&c.spec.binary_version)?, since))
    };
    let known = candidates.iter().filter(|c| rank(c).is_some());
    known.min_by_key(rank)?.metadata.name.clone()
}

fn typed<T: DeserializeOwned>(object: Value) -> Result<T, Status> {
    serde_json::from_value(object).map_err(|e| Status::internal(e.to_string()))
}

fn tree(object: &impl Serialize) -> Result<Value, Status> {
    serde_json::to_value(object).map_err(|e| Status::internal(e.to_string()))
}

/// The API servers' own lease.
struct OwnLease(Arc<Local>);

impl Leases for OwnLease {
    async fn get(&self, name: &str) -> Result<Option<Lease>, client::Error> {
        let found = self.0.get(GROUP, LEASES, OWN_NAMESPACE, name).await?;
        Ok(found.map(typed).transpose()?)
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, client::Error> {
        let object = tree(lease)?;
        let made = self.0.create(GROUP, LEASES, OWN_NAMESPACE, object).await?;
        Ok(typed(made)?)
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, client::Error> {
        let object = tree(lease)?;
        let stored = self.0.update(GROUP, LEASES, OWN_NAMESPACE, object).await?;
        Ok(typed(stored)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_000_000;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn micro(second: Option<i64>) -> Value {
        second.map_or(Value::Null, |s| json!(MicroTime(time(s))))
    }

    /// Of an emulated version; renewed and asked so many seconds before now.
    fn candidate(name: &str, emulates: &str, renewed: i64, asked: Option<i64>) -> LeaseCandidate {
        let object = json!({
            "metadata": {"name": name, "creationTimestamp": "2026-11-23T10:00:00Z"},
            "spec": {
                "leaseName": "l", "binaryVersion": "1.36.2", "emulationVersion": emulates,
                "strategy": OLDEST, "renewTime": micro(Some(NOW - renewed)),
                "pingTime": micro(asked.map(|a| NOW - a)),
            },
        });
        serde_json::from_value(object).unwrap()
    }

    fn lease(holder: &str, renewed: i64) -> Lease {
        let object = json!({"spec": {
            "holderIdentity": holder, "leaseDurationSeconds": 15, "strategy": OLDEST,
            "renewTime": micro(Some(NOW - renewed)),
        }});
        serde_json::from_value(object).unwrap()
    }

    fn act(lease: Option<Lease>, candidates: &[LeaseCandidate]) -> Act {
        plan(lease.as_ref(), candidates, time(NOW)).unwrap()
    }

    fn elects(holder: &str) -> Act {
        Act::Elect {
            strategy: OLDEST.to_owned(),
            holder: Some(holder.to_owned()),
        }
    }

    #[test]
    fn the_oldest_version_leads() {
        let both = [
            candidate("new", "1.36.0", 1, None),
            candidate("old", "1.35", 2, None),
        ];
        assert_eq!(act(None, &both), elects("old"));
        assert_eq!(act(Some(lease("old", 3)), &both), Act::Nothing);
        // Another holds it: both are there, and the better one is next.
        assert_eq!(act(Some(lease("new", 3)), &both), elects("old"));
        assert_eq!(act(Some(lease("old", 16)), &both), elects("old"));
        assert_eq!(act(Some(lease("", 1)), &both), elects("old"));
    }

    #[test]
    fn who_is_silent_is_asked_once() {
        let idle = |asked| [candidate("a", "1.36", 100, asked)];
        assert_eq!(act(None, &idle(None)), Act::Ask(BTreeSet::from([0])));
        assert_eq!(act(None, &idle(Some(200))), Act::Ask(BTreeSet::from([0])));
        assert_eq!(act(None, &idle(Some(2))), Act::Ask(BTreeSet::new()));
        assert!(plan(None, &idle(Some(9)), time(NOW)).is_err());
        // Who has not answered does not keep the others.
        let others = [
            candidate("gone", "1.35", 100, Some(9)),
            candidate("here", "1.36", 3, Some(4)),
        ];
        assert_eq!(act(None, &others), elects("here"));
        // A leader is not enough for a candidate that might be forgotten.
        let long = [candidate("a", "1.36", 16 * 60, None)];
        let asks = Act::Ask(BTreeSet::from([0]));
        assert_eq!(act(Some(lease("a", 1)), &long), asks);
    }

    #[test]
    fn a_term_is_not_cut_short() {
        let holder = |to: &str, lease: &Lease| {
            elected(lease.spec.as_ref(), OLDEST, Some(to.to_owned()), time(NOW))
        };
        let next = holder("b", &lease("a", 3)).unwrap();
        assert_eq!(next.holder_identity.as_deref(), Some("a"));
        assert_eq!(next.preferred_holder.as_deref(), Some("b"));
        let after = holder("b", &lease("a", 16)).unwrap();
        assert_eq!(after.holder_identity.as_deref(), Some("b"));
        assert_eq!(after.renew_time.map(|t| t.0), Some(time(NOW)));
        assert_eq!(after.lease_duration_seconds, Some(FIRST_TERM));
        assert_eq!(holder("a", &lease("a", 3)), None);
        let first = elected(None, "other", None, time(NOW)).unwrap();
        assert_eq!(
            (first.holder_identity, first.strategy.as_deref()),
            (None, Some("other"))
        );
    }

    #[test]
    fn versions_are_read_with_tolerance() {
        assert_eq!(version("1.36"), Some([1, 36, 0]));
        assert_eq!(version("v1.36.2-alpha.1+x"), Some([1, 36, 2]));
        assert_eq!(version("1.36.2.3"), None);
        assert_eq!(version("new"), None);
        let mut strange = candidate("a", "new", 1, None);
        assert!(plan(None, std::slice::from_ref(&strange), time(NOW)).is_err());
        strange.spec.strategy = "mine".to_owned();
        let by_others = Act::Elect {
            strategy: "mine".to_owned(),
            holder: None,
        };
        assert_eq!(act(None, &[strange]), by_others);
    }
}
