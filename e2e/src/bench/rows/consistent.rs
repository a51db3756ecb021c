//! Row 4: consistent lists of something small while something else is written. Every list follows
//! a write: one that finds nothing new has nothing to wait for, and how many do would be left to
//! chance.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::time::{MissedTickBehavior, interval};

use crate::bench::measure::{Side, Work};
use crate::bench::scan::{JsonList, json_string};
use crate::bench::seed::{CONFIG_MAPS, NAMESPACES};
use crate::bench::{Bench, Case, Headline};
use crate::stand::http::Ask;

/// Lists of one sample.
const LISTS: u64 = 100;
/// Writes meanwhile: two hundred a second.
const EVERY: Duration = Duration::from_millis(5);

/// Measures row 4.
pub async fn run(bench: &mut Bench) -> Result<()> {
    if !bench.options.wants("4") {
        return Ok(());
    }
    let case = Case {
        headline: Headline::P50,
        ..Case::cpu(
            "4",
            format!("consistent LIST of {CONFIG_MAPS} config maps, leases are written"),
            20.0,
        )
    };
    bench
        .case(case, async |side, _| {
            let connection = side.connect().await?;
            let stop = AtomicBool::new(false);
            let written = AtomicU64::new(0);
            let path = format!("/api/v1/namespaces/{}/configmaps", NAMESPACES[0]);
            let reading = async {
                let sample = side
                    .measure(async || {
                        let mut work = Work::default();
                        let mut last = 0;
                        let mut promised = 0;
                        for _ in 0..LISTS {
                            promised = later(&written, promised).await;
                            let start = Instant::now();
                            let body = connection.success(&Ask::get(&*path)).await?;
                            work.latencies.push(start.elapsed());
                            let mut scan = JsonList::new(false);
                            scan.feed(&body)?;
                            ensure!(scan.finish()?.items == CONFIG_MAPS, "items are missing");
                            let revision: u64 = json_string(&body, "resourceVersion")
                                .context("no resourceVersion")?
                                .parse()?;
                            ensure!(
                                revision >= promised.max(last),
                                "a consistent list at {revision}, after {promised} was written and {last} read"
                            );
                            last = revision;
                            work.operations += 1;
                        }
                        work.answer = "all consistent".into();
                        Ok(work)
                    })
                    .await;
                stop.store(true, Ordering::Relaxed);
                sample
            };
            let (sample, wrote) = tokio::join!(reading, write(side, &stop, &written));
            wrote?;
            sample
        })
        .await
}

/// The revision of a write after `last`.
async fn later(written: &AtomicU64, last: u64) -> u64 {
    loop {
        match written.load(Ordering::Relaxed) {
            now if now > last => return now,
            _ => tokio::time::sleep(EVERY / 10).await,
        }
    }
}

async fn write(side: &Side, stop: &AtomicBool, written: &AtomicU64) -> Result<()> {
    let gateway = side.gateway().await?;
    let key = format!("/registry/leases/{}/other", NAMESPACES[0]);
    let value = gateway.get(&key).await?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        written.store(gateway.put(&key, &value).await?, Ordering::Relaxed);
    }
    Ok(())
}
