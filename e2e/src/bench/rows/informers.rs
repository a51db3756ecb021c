//! Row 11: informers that start, as client-go's do: a watch that begins with the state.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;

use crate::bench::measure::{Side, Work};
use crate::bench::scan::{Kind, WatchScan};
use crate::bench::seed::FANOUT_PODS;
use crate::bench::{Bench, Case, Headline};
use crate::stand::http::{Ask, PROTOBUF, next};

const PATH: &str = "/api/v1/pods?watch=true&sendInitialEvents=true\
    &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

/// Measures row 11.
pub async fn run(bench: &mut Bench) -> Result<()> {
    if !bench.options.wants("11") {
        return Ok(());
    }
    let pods = bench.options.pods + FANOUT_PODS;
    for clients in [1, 20] {
        let what = format!("{clients} informers start on {pods} pods; per informer");
        bench
            .case(
                Case::cpu("11", what, 8.0).also(Headline::Wall, 5.0),
                async |side, _| {
                    side.api.settle().await?;
                    side.measure(async || start(side, clients, pods).await)
                        .await
                },
            )
            .await?;
    }
    Ok(())
}

async fn start(side: &Side, clients: u64, pods: u64) -> Result<Work> {
    let mut starting = JoinSet::new();
    for _ in 0..clients {
        let endpoint = side.endpoint.clone();
        starting.spawn(async move {
            let began = Instant::now();
            let connection = endpoint.connect().await?;
            let accept = "application/vnd.kubernetes.protobuf;stream=watch";
            let mut answer = connection.open(&Ask::get(PATH).accept(accept)).await?;
            ensure!(answer.status().is_success(), "answered {}", answer.status());
            let mut scan = WatchScan::new(PROTOBUF);
            let (mut seen, mut newest, mut ended) = (0, 0, None);
            while ended.is_none() {
                let chunk = next(answer.body_mut())
                    .await?
                    .context("ended before the initial events did")?;
                scan.feed(&chunk, |event| {
                    match event.kind {
                        Kind::Added if ended.is_none() => {
                            seen += 1;
                            newest = newest.max(event.revision);
                        }
                        Kind::Bookmark(true) => ended = Some(event.revision),
                        other => ensure!(ended.is_some(), "an initial event {other:?}"),
                    }
                    Ok(())
                })?;
            }
            ensure!(seen == pods, "{seen} initial events of {pods}");
            ensure!(ended >= Some(newest), "the bookmark is older than an event");
            anyhow::Ok(began.elapsed())
        });
    }
    let mut work = Work {
        answer: format!("{pods} initial events"),
        operations: clients,
        ..Work::default()
    };
    while let Some(took) = starting.join_next().await {
        work.latencies.push(took??);
    }
    Ok(work)
}
