//! Row 5: many watchers of objects that change.
//!
//! The changes are written to etcd, so that the server's work is the watches' and
//! nothing else. An event's delay begins when etcd tells the driver of the change, as it tells
//! the server: what etcd takes to write is the same for both sides. Writing waits for the slowest watcher once it is [`BEHIND`] events
//! behind: a machine that cannot follow lowers the rate, and no watch is ended for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::bench::measure::{Sample, Side, Work};
use crate::bench::notices::Notices;
use crate::bench::scan::{Kind, WatchScan};
use crate::bench::seed::{FANOUT, FANOUT_PODS, pod_key, pods_prefix};
use crate::bench::{Bench, Case, Headline};
use crate::stand::http::{Ask, JSON, PROTOBUF, next};

/// How far a watcher may be behind.
const BEHIND: u64 = 50;
/// Changes that a server sees before it is watched. Upstream's queues of a watcher hold about a
/// second of what has changed in the last 75 seconds, as far as it was counted (its history doubles
/// from 100): after so many they hold more than [`BEHIND`].
const CHANGES_BEFORE: u64 = 4000;
/// Events that all watchers of one sample get together, about.
const DELIVERIES: u64 = 200_000;
/// Ends a wait for events that do not come.
const LIMIT: Duration = Duration::from_secs(120);

/// Measures row 5.
pub async fn run(bench: &mut Bench) -> Result<()> {
    if !bench.options.wants("5") {
        return Ok(());
    }
    let rate = bench.options.rate;
    let mut cases: Vec<_> = bench
        .options
        .watchers
        .iter()
        .map(|watchers| (*watchers, PROTOBUF, "protobuf"))
        .collect();
    if cases.iter().any(|(watchers, ..)| *watchers == 100) {
        cases.push((100, JSON, "JSON"));
    }
    for (watchers, accept, form) in cases {
        let events = (DELIVERIES / watchers as u64).clamp(200, 4 * rate);
        let what = format!("{watchers} watchers × {rate} events/s, {form}; CPU per event written");
        bench
            .case(
                Case::cpu("5", what, 8.0).also(Headline::P99, 5.0),
                async |side, _| {
                    let load = Load {
                        watchers,
                        accept,
                        events,
                        rate,
                    };
                    watch(side, &load, async || Ok(())).await
                },
            )
            .await?;
    }
    Ok(())
}

/// What is watched.
#[derive(Debug, Clone)]
pub struct Load {
    /// How many watch, each on a connection of its own.
    pub watchers: usize,
    /// The form of the events.
    pub accept: &'static str,
    /// How many events there are.
    pub events: u64,
    /// How many of them in a second.
    pub rate: u64,
}

/// Lets watchers watch while events are written, checks that each got every one, once
/// and in order, and measures. `before` runs when all watches are open.
///
/// # Errors
///
/// When a watch is refused or ended, or one event is missing, doubled or out of place.
pub async fn watch(
    side: &Side,
    load: &Load,
    before: impl AsyncFnOnce() -> Result<()>,
) -> Result<Sample> {
    let gateway = side.gateway().await?;
    let values = values(side).await?;
    let epoch = Instant::now();
    let progress: Arc<Vec<AtomicU64>> =
        Arc::new((0..load.watchers).map(|_| AtomicU64::new(0)).collect());
    for _ in 0..CHANGES_BEFORE.div_ceil(FANOUT_PODS) {
        gateway.put_all(&values).await?;
    }
    let revision = gateway.revision().await?;
    let pods = format!("/api/v1/namespaces/{FANOUT}/pods");
    // A consistent list waits until the server has seen them.
    let (status, _) = (side.connect().await?)
        .ask(&Ask::get(format!("{pods}?limit=1")))
        .await?;
    ensure!(status.is_success(), "a list is answered {status}");
    let path = format!("{pods}?watch=true&resourceVersion={revision}");
    let mut watching = JoinSet::new();
    let events = load.events;
    for number in 0..load.watchers {
        let connection = side.connect().await?;
        let ask = Ask::get(&*path).accept(form(load.accept));
        let mut answer = connection.open(&ask).await?;
        ensure!(
            answer.status().is_success(),
            "a watch is answered {}",
            answer.status()
        );
        let progress = progress.clone();
        let mut scan = WatchScan::new(load.accept);
        watching.spawn(async move {
            let mut got: Vec<(u64, Duration)> = Vec::with_capacity(events as usize);
            while (got.len() as u64) < events {
                let chunk = next(answer.body_mut())
                    .await?
                    .context("the watch was ended")?;
                let now = epoch.elapsed();
                scan.feed(&chunk, |event| {
                    ensure!(event.kind == Kind::Modified, "an event {:?}", event.kind);
                    got.push((event.revision, now));
                    Ok(())
                })?;
                progress[number].store(got.len() as u64, Ordering::Relaxed);
            }
            // The connection has to outlive the body.
            drop(connection);
            anyhow::Ok(got)
        });
    }
    before().await?;
    let notices = Notices::open(&side.etcd.address(0), &pods_prefix(FANOUT)).await?;
    side.api.settle().await?;
    side.measure(async || {
        let told = tokio::spawn(notices.next(events, epoch));
        let mut written: Vec<u64> = Vec::new();
        let mut ticks = interval(Duration::from_secs(1) / load.rate as u32);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 0..events {
            ticks.tick().await;
            let start = Instant::now();
            while slowest(&progress) + BEHIND < n {
                ensure!(start.elapsed() < LIMIT, "a watcher does not go on");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let (key, value) = &values[(n % FANOUT_PODS) as usize];
            written.push(gateway.put(key, value).await?);
        }
        let told = told.await??;
        ensure!(
            revisions(&told).eq(written.iter().copied()),
            "etcd did not tell what was written, once and in order"
        );
        let mut latencies = Vec::with_capacity(load.watchers * written.len());
        while let Some(got) = timeout(LIMIT, watching.join_next())
            .await
            .context("events do not come")?
        {
            let got = got??;
            ensure!(
                revisions(&got).eq(written.iter().copied()),
                "a watcher did not get what was written, once and in order"
            );
            let delays = got.iter().zip(&told);
            // A server may well be told first.
            latencies.extend(delays.map(|((_, got), (_, told))| got.saturating_sub(*told)));
        }
        Ok(Work {
            operations: events,
            latencies,
            answer: "every event once and in order".into(),
        })
    })
    .await
}

fn revisions(events: &[(u64, Duration)]) -> impl Iterator<Item = u64> {
    events.iter().map(|(revision, _)| *revision)
}

fn form(accept: &'static str) -> &'static str {
    if accept == PROTOBUF {
        "application/vnd.kubernetes.protobuf;stream=watch"
    } else {
        accept
    }
}

fn slowest(progress: &[AtomicU64]) -> u64 {
    progress
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .min()
        .unwrap_or(u64::MAX)
}

/// The pods that change, as they are in etcd. To change is to be written again.
async fn values(side: &Side) -> Result<Vec<(String, Vec<u8>)>> {
    let gateway = side.gateway().await?;
    let mut values = Vec::new();
    for n in 0..FANOUT_PODS {
        let key = pod_key(FANOUT, n);
        let value = gateway.get(&key).await?;
        values.push((key, value));
    }
    Ok(values)
}
