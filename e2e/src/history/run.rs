//! Rounds: a server and an etcd, clients at work, kills, and the check at the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::check;
use super::clients::{Dice, Manner, Round, Watcher, look, watch, write};
use super::objects::{NAMESPACE, prefix, stored};
use super::record::{
    Action, Answer, Change, History, Life, Outcome, Request, Revision, Sort, Truth, Write,
};
use super::wire::Wire;
use crate::stand::etcd::Gateway;
use crate::stand::http::Ask;
use crate::stand::{Etcd, Stand};

/// Writes that must succeed between two kills: each kill is one under load.
const BETWEEN: u64 = 20;
/// How long these may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Who watches in each round.
const WATCHERS: [(Manner, Sort, bool, Wire); 9] = {
    use Manner::{Resume, Rewind, State};
    use Sort::{ConfigMaps, Leases};
    use Wire::{Json, Protobuf};
    [
        (Resume, ConfigMaps, false, Json),
        (Resume, ConfigMaps, false, Protobuf),
        (Resume, Leases, false, Protobuf),
        (Resume, Leases, true, Json),
        (Rewind, ConfigMaps, false, Protobuf),
        (Rewind, Leases, true, Json),
        (State, Leases, false, Protobuf),
        (State, ConfigMaps, true, Json),
        (State, ConfigMaps, false, Protobuf),
    ]
};

/// The command line of `e2e/history`.
#[derive(Debug, Clone, Parser)]
#[command(name = "e2e/history")]
pub struct Options {
    /// Directory with a kube-apiserver.
    pub bin: PathBuf,
    /// What is killed.
    #[arg(long, value_enum, default_value_t = Victim::Apiserver)]
    pub victim: Victim,
    /// How often.
    #[arg(long, default_value_t = 1000)]
    pub kills: u64,
    /// After how many kills the books are checked.
    #[arg(long, default_value_t = 50)]
    pub round: u64,
    /// Concurrent writers.
    #[arg(long, default_value_t = 8)]
    pub writers: u64,
    /// Concurrent readers.
    #[arg(long, default_value_t = 3)]
    pub readers: u64,
    /// Objects that all of them write to.
    #[arg(long, default_value_t = 12)]
    pub keys: u64,
    /// Makes the choices of clients repeatable (not their timing).
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Further flags of the API server; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    pub flag: Vec<String>,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Victim {
    /// The API server; etcd has one member.
    Apiserver,
    /// The leader of an etcd of three.
    EtcdLeader,
    /// Nobody.
    Nobody,
}

/// Runs all rounds and prints a line for each.
///
/// # Errors
///
/// When a rule is broken, with every such case; or when nothing works any more.
pub async fn run(options: Options) -> Result<()> {
    let members = if options.victim == Victim::EtcdLeader {
        3
    } else {
        1
    };
    // Elections in a fifth of the usual time.
    let timing = ["--heartbeat-interval=20", "--election-timeout=200"];
    let mut stand = Stand::start(&options.bin, members, &timing, &options.flag).await?;
    let connection = stand.endpoint.connect().await?;
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    let ask = Ask::post("/api/v1/namespaces", &namespace);
    connection.success(&ask).await?;
    drop(connection);

    let (mut kills, mut values, mut bad) = (0, 0, 0);
    let mut total = [0; 4];
    while kills < options.kills || options.victim == Victim::Nobody && kills == 0 {
        let now = options.round.min(options.kills - kills);
        let start = Instant::now();
        let (truth, history) = round(&options, &mut stand, now, &mut values, kills).await?;
        kills += now.max(1);
        let broken = check(&truth, &history);
        let events: usize = history.watches.iter().map(|watch| watch.told.len()).sum();
        let outcomes = history.writes.iter().map(|write| &write.outcome);
        let acknowledged = outcomes
            .filter(|outcome| matches!(outcome, Outcome::Acknowledged(_)))
            .count();
        println!(
            "{kills} kills: {acknowledged} writes acknowledged, {} reads, {} watches with {events} events, {:.0} s: {}",
            history.reads.len(),
            history.watches.len(),
            start.elapsed().as_secs_f64(),
            if broken.is_empty() {
                "ok".to_owned()
            } else {
                format!("{} broken", broken.len())
            },
        );
        for line in classes(&history) {
            println!("  {line}");
        }
        for (sum, more) in total.iter_mut().zip([
            acknowledged,
            history.reads.len(),
            history.watches.len(),
            events,
        ]) {
            *sum += more;
        }
        for reason in broken.iter().take(20) {
            println!("  {reason}");
        }
        bad += broken.len();
    }
    println!(
        "{kills} kills in all: {} acknowledged writes, {} reads, {} watches, {} events, {bad} rules broken",
        total[0], total[1], total[2], total[3]
    );
    if bad > 0 {
        let kept = stand.keep();
        bail!("{bad} rules are broken; logs are in {}", kept.display());
    }
    Ok(())
}

async fn round(
    options: &Options,
    stand: &mut Stand,
    kills: u64,
    values: &mut u64,
    before: u64,
) -> Result<(Truth, History)> {
    let gateway = alive(&stand.etcd).await?;
    let initial = everything(&gateway).await?;
    let start = gateway.revision().await?;
    let round = Arc::new(Round {
        endpoint: stand.endpoint.clone(),
        epoch: Instant::now(),
        stop: AtomicBool::new(false),
        last: Default::default(),
        acknowledged: AtomicU64::new(0),
        values: AtomicU64::new(*values),
        sessions: AtomicU64::new(0),
        asked: Default::default(),
        seen: AtomicU64::new(start),
        start,
    });
    let mut dice = Dice(options.seed.wrapping_add(before));
    let mut fresh = || Dice(dice.below(u64::MAX));
    let (mut writers, mut readers, mut watchers) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    for number in 0..options.writers {
        let (round, keys, dice) = (round.clone(), options.keys, fresh());
        writers.spawn(async move { write(&round, number, keys, dice).await });
    }
    for number in 0..options.readers {
        let (round, keys, dice) = (round.clone(), options.keys, fresh());
        readers.spawn(async move { look(&round, number, keys, dice).await });
    }
    for (manner, sort, selected, wire) in WATCHERS {
        let (round, dice) = (round.clone(), fresh());
        let watcher = Watcher {
            manner,
            sort,
            selected,
            wire,
        };
        watchers.spawn(async move { watch(&round, watcher, dice).await });
    }

    let mut lives = vec![Life {
        killed: 0,
        ready: 0,
        revision: start,
    }];
    for _ in 0..kills {
        progress(&round, stand).await?;
        tokio::time::sleep(Duration::from_millis(fresh().below(60))).await;
        let killed = round.now();
        match options.victim {
            Victim::Apiserver => {
                stand.api.kill();
                stand.api.start()?;
                stand.api.ready(&stand.endpoint).await?;
            }
            Victim::EtcdLeader => {
                let leader = leader(&stand.etcd).await?;
                stand.etcd.kill(leader);
                // Those who are left are two of three: they go on.
                progress(&round, stand).await?;
                stand.etcd.start_member(leader)?;
                stand.etcd.ready(leader).await?;
            }
            Victim::Nobody => continue,
        }
        let ready = round.now();
        let revision = alive(&stand.etcd).await?.revision().await?;
        lives.push(Life {
            killed,
            ready,
            revision,
        });
    }
    for _ in 0..3 {
        progress(&round, stand).await?;
    }

    round.stop.store(true, Ordering::Relaxed);
    let mut history = History {
        lives,
        ..History::default()
    };
    while let Some(writes) = writers.join_next().await {
        history.writes.extend(writes?);
    }
    while let Some(reads) = readers.join_next().await {
        history.reads.extend(reads?);
    }
    history.reads.sort_by_key(|read| read.completed);
    *values = round.values.load(Ordering::Relaxed);
    let mut last = 0;
    for sort in Sort::ALL {
        last = end(&round, sort, &mut history, values).await?;
        round.last[sort as usize].store(last, Ordering::Relaxed);
    }
    while let Some(watches) = watchers.join_next().await {
        history.watches.extend(watches?);
    }
    history.asked = std::mem::take(&mut round.asked.lock().expect("no holder panics"));
    let mut all = Vec::new();
    for sort in Sort::ALL {
        // A watch takes its connection with it.
        let gateway = alive(&stand.etcd).await?;
        let last = round.last[sort as usize].load(Ordering::Relaxed);
        all.extend(changes(&gateway, sort, start, last).await?);
    }
    all.sort_by_key(|change| change.revision);
    let truth = Truth {
        initial,
        changes: all,
        last,
    };
    Ok((truth, history))
}

/// Waits until some more writes are acknowledged.
async fn progress(round: &Round, stand: &mut Stand) -> Result<()> {
    let from = round.acknowledged.load(Ordering::Relaxed);
    let start = Instant::now();
    while round.acknowledged.load(Ordering::Relaxed) < from + BETWEEN {
        stand.api.check()?;
        ensure!(start.elapsed() < LIMIT, "nothing is written any more");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Writes the round's last object of a sort, one that every watcher of it is told of.
async fn end(
    round: &Round,
    sort: Sort,
    history: &mut History,
    values: &mut u64,
) -> Result<Revision> {
    use super::objects::{path, revision, to_json};
    use super::record::{HALF, SELECTED, State, VALUE};
    let name = format!("end-{}", *values);
    *values += 1;
    let state: State = [
        (VALUE.to_owned(), format!("v{}", *values - 1)),
        (HALF.to_owned(), SELECTED.to_owned()),
    ]
    .into();
    let connection = round.endpoint.connect().await?;
    let invoked = round.now();
    let ask = Ask::post(path(sort, ""), &to_json(sort, &name, &state, None));
    let body = connection.json(&ask).await?;
    let revision = revision(&body)?;
    history.writes.push(Write {
        key: sort.key(&name),
        action: Action::Create(state),
        invoked,
        completed: round.now(),
        outcome: Outcome::Acknowledged(Some(revision)),
    });
    Ok(revision)
}

/// A member that answers.
async fn alive(etcd: &Etcd) -> Result<Gateway> {
    for n in 0..3 {
        if let Ok(gateway) = etcd.gateway(n).await {
            return Ok(gateway);
        }
    }
    bail!("no member of etcd answers")
}

/// Who leads, once somebody does.
async fn leader(etcd: &Etcd) -> Result<usize> {
    let start = Instant::now();
    loop {
        match etcd.leader().await {
            Ok(leader) => return Ok(leader),
            Err(error) if start.elapsed() > LIMIT => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn change(sort: Sort, event: &Value) -> Result<Change> {
    let kv = &event["kv"];
    let key = BASE64.decode(kv["key"].as_str().context("a key")?)?;
    let key = String::from_utf8(key)?;
    let revision = kv["mod_revision"].as_str().context("a revision")?;
    let state = if event["type"] == "DELETE" {
        None
    } else {
        let value = kv["value"].as_str().context("a value")?;
        Some(stored(sort, &BASE64.decode(value)?)?)
    };
    let name = key.strip_prefix(&prefix(sort)).context("its prefix")?;
    Ok(Change {
        revision: revision.parse()?,
        key: sort.key(name),
        state,
    })
}

fn range(sort: Sort) -> Value {
    let begin = prefix(sort);
    let mut end = begin.clone().into_bytes();
    *end.last_mut().expect("not empty") += 1;
    json!({"key": BASE64.encode(begin), "range_end": BASE64.encode(end)})
}

/// All objects that there are.
async fn everything(gateway: &Gateway) -> Result<Vec<Change>> {
    let mut all = Vec::new();
    for sort in Sort::ALL {
        let answer = gateway.ask("/v3/kv/range", &range(sort)).await?;
        for kv in answer["kvs"].as_array().into_iter().flatten() {
            all.push(change(sort, &json!({"kv": kv}))?);
        }
    }
    Ok(all)
}

/// Every change of a sort after a revision, up to another.
async fn changes(
    gateway: &Gateway,
    sort: Sort,
    start: Revision,
    last: Revision,
) -> Result<Vec<Change>> {
    let mut request = range(sort);
    request["start_revision"] = (start + 1).to_string().into();
    let mut changes: Vec<Change> = Vec::new();
    gateway
        .watch(&json!({"create_request": request}), |answer| {
            ensure!(
                answer["result"]["canceled"] != true,
                "etcd cancels: {answer}"
            );
            for event in answer["result"]["events"].as_array().into_iter().flatten() {
                changes.push(change(sort, event)?);
            }
            Ok(changes.last().is_some_and(|change| change.revision >= last))
        })
        .await?;
    Ok(changes)
}

/// How requests were answered: a line for each sort of them, with the classes of answers and
/// how many there were of each.
fn classes(history: &History) -> Vec<String> {
    let mut counts: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for asked in history.requests() {
        let request = match asked.request {
            Request::Get => "get",
            Request::List => "list",
            Request::Exact(_) => "list at a revision",
            Request::Create => "create",
            Request::Update => "update",
            Request::Patch => "merge patch",
            Request::Apply => "apply",
            Request::Delete => "delete",
            Request::Watch(_) => "watch",
        };
        let class = match asked.answer {
            Answer::Wrong(_) => "wrong".to_owned(),
            Answer::Busy(status) => status.to_string(),
            other => format!("{other:?}").to_lowercase(),
        };
        *counts.entry(request).or_default().entry(class).or_default() += 1;
    }
    let line = |(request, classes): (&str, BTreeMap<String, u64>)| {
        let classes = classes
            .iter()
            .map(|(class, count)| format!("{count} {class}"));
        format!("{request}: {}", classes.collect::<Vec<_>>().join(", "))
    };
    counts.into_iter().map(line).collect()
}
