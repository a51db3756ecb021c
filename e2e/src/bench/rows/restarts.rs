//! Rows 12 to 14: what a server holds, how soon it is back, and what it costs idle.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::lists::list;
use crate::bench::measure::Sample;
use crate::bench::seed::{FANOUT, FANOUT_PODS};
use crate::bench::{Bench, Case, Headline};
use crate::stand::http::PROTOBUF;

/// Measures rows 12 and 13, with the same restarts.
pub async fn run(bench: &mut Bench) -> Result<()> {
    if !bench.options.wants("12") && !bench.options.wants("13") {
        return Ok(());
    }
    let pods = bench.options.pods + FANOUT_PODS;
    let restart = Case {
        headline: Headline::Wall,
        warm_up: false,
        ..Case::cpu("13", format!("restart to ready at {pods} pods"), 5.0)
    };
    let memory = Case {
        headline: Headline::Resident,
        warm_up: false,
        ..Case::cpu("12", format!("RSS at {pods} pods, after a restart"), 6.0)
    };
    let stored = bench.stored;
    bench
        .cases(vec![restart, memory], async |side, _| {
            let start = Instant::now();
            side.restart()?;
            side.api.ready(&side.endpoint).await?;
            // Ready is who answers rightly from the cache.
            let path = format!("/api/v1/namespaces/{FANOUT}/pods?resourceVersion=0");
            let seen = list(&side.connect().await?, &path, PROTOBUF, false).await?;
            let wall = start.elapsed();
            let restart = Sample {
                operations: 1,
                cpu: side.api.process().cpu()?,
                wall,
                resident: side.api.process().peak()?,
                answer: format!("{} pods", seen.items),
                ..Sample::default()
            };
            side.api.settle().await?;
            let memory = Sample {
                operations: 1,
                resident: side.api.process().resident()?,
                ..Sample::default()
            };
            Ok(vec![restart, memory])
        })
        .await?;
    let limit = stored * 13 / 10 + (64 << 20);
    bench.note(
        "12",
        format!(
            "{} MiB of pods are stored; 1.3 × that and 64 MiB is {} MiB",
            stored >> 20,
            limit >> 20
        ),
    );
    Ok(())
}

/// Measures the API server's part of row 14: on an empty store, all sides at once.
/// `e2e/idle` does all daemons of a cluster.
pub async fn idle(bench: &mut Bench) -> Result<()> {
    if !bench.options.wants("14") {
        return Ok(());
    }
    let seconds = bench.options.idle_seconds;
    let names = ["idle-ours", "idle-theirs"];
    let binaries = [
        Some(bench.options.ours.clone()),
        bench.options.theirs.clone(),
    ];
    let mut sides = Vec::new();
    for (name, bin) in names.into_iter().zip(binaries.into_iter().flatten()) {
        let mut side = bench.side(name, &bin)?;
        side.etcd.start().await?;
        side.api.start()?;
        side.api
            .ready(&side.endpoint)
            .await
            .context("an empty store")?;
        sides.push(side);
    }
    for side in &sides {
        side.api.settle().await?;
    }
    let before: Vec<_> = sides
        .iter()
        .map(|side| side.api.process().cpu())
        .collect::<Result<_>>()?;
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let elapsed = start.elapsed().as_secs_f64();
    let mut samples = Vec::new();
    for (side, before) in sides.iter().zip(before) {
        let process = side.api.process();
        samples.push(Sample {
            operations: seconds,
            cpu: (process.cpu()? - before).div_f64(elapsed),
            resident: process.resident()?,
            ..Sample::default()
        });
    }
    drop(sides);
    for (headline, goal) in [(Headline::Cpu, 5.0), (Headline::Resident, 8.0)] {
        let what = format!("kube-apiserver idle for {seconds} s; CPU per second");
        let case = Case {
            headline,
            warm_up: false,
            ..Case::cpu("14", what, goal)
        };
        bench.once(case, &samples);
    }
    Ok(())
}
