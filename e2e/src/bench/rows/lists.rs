//! Rows 1 to 3: lists of many pods in either form, and of those with a label.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::bench::measure::Work;
use crate::bench::scan::{ListScan, Seen};
use crate::bench::seed::{FANOUT_PODS, NAMESPACES};
use crate::bench::{Bench, Case, Headline};
use crate::stand::Connection;
use crate::stand::http::{Ask, JSON, PROTOBUF};

/// Pods that one sample reads, at least: some tenths of a second of work.
const READ: u64 = 150_000;
/// Lists of one sample of row 3.
const SELECTED: u64 = 20;

/// One list, scanned.
///
/// # Errors
///
/// When it is refused, or is no list.
pub async fn list(
    connection: &Connection,
    path: &str,
    accept: &'static str,
    digest: bool,
) -> Result<Seen> {
    let mut scan = ListScan::new(accept, digest);
    let ask = Ask::get(path).accept(accept);
    connection.stream(&ask, |chunk| scan.feed(chunk)).await?;
    scan.finish()
}

/// As many lists as asked for, one after the other.
pub(super) async fn lists(
    connection: &Connection,
    (path, items): (&str, u64),
    accept: &'static str,
    (count, digest): (u64, bool),
) -> Result<Work> {
    let mut work = Work::default();
    for _ in 0..count {
        let start = Instant::now();
        let seen = list(connection, path, accept, digest).await?;
        work.latencies.push(start.elapsed());
        ensure!(seen.items == items, "{} items of {items}", seen.items);
        // Two servers of the same data say the same, byte for byte.
        work.answer = format!("{} items, digest {:x}", seen.items, seen.digest);
        work.operations += 1;
    }
    Ok(work)
}

/// Measures what is wanted of rows 1, 2 and 3.
pub async fn run(bench: &mut Bench) -> Result<()> {
    let each = bench.options.pods / NAMESPACES.len() as u64;
    let all = bench.options.pods + FANOUT_PODS;
    let one = format!(
        "/api/v1/namespaces/{}/pods?resourceVersion=0",
        NAMESPACES[1]
    );
    let whole = "/api/v1/pods?resourceVersion=0".to_owned();
    let forms = [
        ("1", PROTOBUF, "protobuf", "LIST", 6.0),
        ("2", JSON, "JSON", "warm LIST", 6.0),
    ];
    for (row, accept, form, verb, goal) in forms {
        for (path, items) in [(&one, each), (&whole, all)] {
            if !bench.options.wants(row) {
                continue;
            }
            let mut case = Case::cpu(row, format!("{verb} of {items} pods, {form}"), goal);
            if row == "1" {
                case = case.also(Headline::Wall, 4.0);
            }
            bench
                .case(case, async |side, pair| {
                    let connection = side.connect().await?;
                    // The warm-up compares the sides to the last byte.
                    let (count, digest) = (READ.div_ceil(items), pair == 0);
                    side.api.settle().await?;
                    side.measure(async || {
                        lists(&connection, (path, items), accept, (count, digest)).await
                    })
                    .await
                })
                .await?;
        }
    }
    if bench.options.wants("2") {
        let case = Case {
            warm_up: false,
            ..Case::cpu("2", format!("cold LIST of {all} pods, JSON"), 3.0)
        };
        bench
            .case(case, async |side, _| {
                side.restart()?;
                side.api.ready(&side.endpoint).await?;
                side.api.settle().await?;
                let connection = side.connect().await?;
                side.measure(async || lists(&connection, (&whole, all), JSON, (1, false)).await)
                    .await
            })
            .await?;
    }
    if bench.options.wants("3") {
        let path = "/api/v1/pods?resourceVersion=0&labelSelector=bench%3Dhundredth-07";
        let items = bench.options.pods / 100 + FANOUT_PODS / 100;
        let what = format!("LIST by a label of {items} of {all} pods");
        bench
            .case(Case::cpu("3", what, 30.0), async |side, pair| {
                let connection = side.connect().await?;
                side.api.settle().await?;
                side.measure(async || {
                    lists(&connection, (path, items), PROTOBUF, (SELECTED, pair == 0)).await
                })
                .await
            })
            .await?;
    }
    Ok(())
}
