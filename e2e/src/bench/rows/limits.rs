//! Two promises besides the rows: many lists at once do not multiply what is stored in
//! memory, and watchers that do not read do not slow those who do.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use super::fanout::{Load, watch};
use super::lists::list;
use crate::bench::measure::{Sample, Side, Work};
use crate::bench::seed::{FANOUT, FANOUT_PODS};
use crate::bench::{Bench, Case, Headline};
use crate::stand::http::{Ask, JSON, PROTOBUF, TABLE};

/// Lists at once.
const LISTS: u64 = 50;
/// More than the data that the server may have.
const ALLOWANCE: u64 = 512 << 20;
/// Watchers that read, and those that do not.
const READING: usize = 900;
const STALLED: usize = 100;
/// Events per second, few enough for one machine to be driver and server.
const RATE: u64 = 20;
const EVENTS: u64 = 200;

/// Measures what is wanted of both.
pub async fn run(bench: &mut Bench) -> Result<()> {
    if bench.options.wants("heap") {
        let pods = bench.options.pods + FANOUT_PODS;
        for (accept, form) in [(PROTOBUF, "protobuf"), (JSON, "JSON"), (TABLE, "tables")] {
            let case = Case {
                row: "heap",
                what: format!("{LISTS} LISTs of {pods} pods at once, {form}"),
                headline: Headline::Resident,
                goal: None,
                also: None,
                warm_up: false,
            };
            bench
                .case(case, async |side, _| {
                    side.restart()?;
                    side.api.ready(&side.endpoint).await?;
                    side.api.settle().await?;
                    side.measure(async || many(side, accept, pods).await).await
                })
                .await?;
        }
        bench.note(
            "heap",
            format!(
                "{} MiB are stored; with {} MiB allowed besides, that is {} MiB",
                bench.stored >> 20,
                ALLOWANCE >> 20,
                (bench.stored + ALLOWANCE) >> 20
            ),
        );
    }
    if bench.options.wants("stalled") {
        let case = |what: String| Case {
            row: "stalled",
            what,
            headline: Headline::P99,
            goal: None,
            also: None,
            warm_up: true,
        };
        let cases = vec![
            case(format!("{READING} watchers, {RATE} events/s")),
            case(format!(
                "{READING} watchers, {RATE} events/s, {STALLED} more that do not read"
            )),
        ];
        bench
            .cases(cases, async |side, _| stalled(side).await)
            .await?;
    }
    Ok(())
}

async fn many(side: &Side, accept: &'static str, pods: u64) -> Result<Work> {
    let mut lists = JoinSet::new();
    for _ in 0..LISTS {
        let connection = side.connect().await?;
        lists.spawn(async move {
            list(&connection, "/api/v1/pods?resourceVersion=0", accept, false).await
        });
    }
    while let Some(seen) = lists.join_next().await {
        let items = seen??.items;
        ensure!(items == pods, "{items} items of {pods}");
    }
    Ok(Work {
        operations: LISTS,
        answer: format!("{pods} items each"),
        ..Work::default()
    })
}

/// The same watchers alone, and then beside those that do not read.
async fn stalled(side: &mut Side) -> Result<Vec<Sample>> {
    let load = Load {
        watchers: READING,
        accept: PROTOBUF,
        events: EVENTS,
        rate: RATE,
    };
    let alone = watch(side, &load, async || Ok(())).await?;
    let mut held = Vec::new();
    let path = format!("/api/v1/namespaces/{FANOUT}/pods?watch=true&resourceVersion=0");
    for _ in 0..STALLED {
        let connection = side.endpoint.connect_narrow().await?;
        let answer = connection.open(&Ask::get(&*path).accept(PROTOBUF)).await?;
        ensure!(
            answer.status().is_success(),
            "a watch is answered {}",
            answer.status()
        );
        held.push((connection, answer));
    }
    // Their windows are full with the initial events.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let beside = watch(side, &load, async || Ok(())).await?;
    drop(held);
    Ok(vec![alone, beside])
}
