//! The clients of a round: they work until they are told to stop, come back after
//! every broken connection, and write down what they saw.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::objects::{object, path, read, revision};
use super::record::{
    Action, From, HALF, Kind, Outcome, Read, Revision, SELECTED, Semantics, Shown, State, Time,
    Told, VALUE, Watch, Write,
};
use crate::stand::http::{Ask, JSON, next};
use crate::stand::{Connection, Endpoint};

const MERGE: &str = "application/merge-patch+json";
/// A request that takes longer is given up: its outcome is not known.
const LIMIT: Duration = Duration::from_secs(15);
/// Before another try at a server that is gone.
const AGAIN: Duration = Duration::from_millis(5);

/// What all clients of a round share.
pub struct Round {
    /// The server.
    pub endpoint: Endpoint,
    /// The clock's zero.
    pub epoch: Instant,
    /// Set when writers and readers are to stop.
    pub stop: AtomicBool,
    /// The last revision of the round, once it is known; watchers stop when they are there.
    pub last: AtomicU64,
    /// Writes that were acknowledged so far.
    pub acknowledged: AtomicU64,
    /// Tells values apart, through all rounds.
    pub values: AtomicU64,
    /// Tells connections apart.
    pub sessions: AtomicU64,
    /// Watches that were answered 410.
    pub expired: AtomicU64,
    /// The highest revision that a reader or writer has seen.
    pub seen: AtomicU64,
    /// The revision before the round's first write.
    pub start: Revision,
}

impl Round {
    fn now(&self) -> Time {
        self.epoch.elapsed().as_nanos() as Time
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn value(&self) -> String {
        format!("v{}", self.values.fetch_add(1, Ordering::Relaxed))
    }

    fn saw(&self, revision: Revision) {
        self.seen.fetch_max(revision, Ordering::Relaxed);
    }

    /// A connection, as soon as there is a server.
    async fn connect(&self) -> Connection {
        loop {
            let connecting = tokio::time::timeout(LIMIT, self.endpoint.connect());
            if let Ok(Ok(connection)) = connecting.await {
                return connection;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// A connection that is made again when it breaks.
struct Client<'a> {
    round: &'a Round,
    connection: Connection,
    session: u64,
}

impl<'a> Client<'a> {
    async fn new(round: &'a Round) -> Self {
        Self {
            round,
            connection: round.connect().await,
            session: round.sessions.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// An answer, if one comes.
    async fn ask(&mut self, ask: &Ask) -> Option<(StatusCode, Value)> {
        let answer = tokio::time::timeout(LIMIT, self.connection.ask(ask)).await;
        if let Ok(Ok((status, body))) = answer
            && let Ok(body) = serde_json::from_slice(&body)
        {
            return Some((status, body));
        }
        tokio::time::sleep(AGAIN).await;
        *self = Self::new(self.round).await;
        None
    }
}

/// Pseudo-random numbers (SplitMix64), so that a run can be had again.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below another.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Creates, updates, patches and deletes.
pub async fn write(round: &Round, number: u64, keys: u64, mut dice: Dice) -> Vec<Write> {
    let mut written = Vec::new();
    let mut client = Client::new(round).await;
    while !round.stopped() {
        tokio::time::sleep(Duration::from_millis(dice.below(20))).await;
        let key = format!("k{}", dice.below(keys));
        let Some((status, body)) = client.ask(&Ask::get(path(&key))).await else {
            continue;
        };
        let (action, ask) = match (status, read(&body)) {
            (StatusCode::OK, Ok((_, revision, state))) => {
                change(round, (number, &key), (revision, state), &mut dice)
            }
            (StatusCode::NOT_FOUND, _) => {
                let state: State = [
                    (VALUE.to_owned(), round.value()),
                    (HALF.to_owned(), half(&mut dice)),
                ]
                .into();
                let ask = Ask::post(path(""), &object(&key, &state, None));
                (Action::Create(state), ask)
            }
            // A server that is about to be gone, or has just come.
            _ => continue,
        };
        let invoked = round.now();
        let answer = client.ask(&ask).await;
        let completed = round.now();
        let outcome = match answer {
            Some((status, body)) if status.is_success() => {
                let told = match action {
                    Action::Delete(_) => None,
                    _ => revision(&body).ok(),
                };
                if let Some(told) = told {
                    round.saw(told);
                }
                round.acknowledged.fetch_add(1, Ordering::Relaxed);
                Outcome::Acknowledged(told)
            }
            // The server says that it is not done; of its own errors nobody knows.
            Some((status, _)) if status.is_client_error() => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        written.push(Write {
            key,
            action,
            invoked,
            completed,
            outcome,
        });
    }
    written
}

fn half(dice: &mut Dice) -> String {
    [SELECTED, "b"][dice.below(2) as usize].to_owned()
}

/// What to do with an object that is there.
fn change(
    round: &Round,
    (number, key): (u64, &str),
    (revision, state): (Revision, State),
    dice: &mut Dice,
) -> (Action, Ask) {
    match dice.below(10) {
        0 | 1 => {
            let body = json!({"preconditions": {"resourceVersion": revision.to_string()}});
            let ask = Ask::send(Method::DELETE, path(key), JSON, body.to_string());
            (Action::Delete(revision), ask)
        }
        2..=4 => {
            let (field, value) = (format!("w{number}"), round.value());
            let body = json!({"data": {&field: &value}});
            let ask = Ask::send(Method::PATCH, path(key), MERGE, body.to_string());
            (Action::Patch(field, value), ask)
        }
        _ => {
            let mut state = state;
            state.insert(VALUE.to_owned(), round.value());
            state.insert(HALF.to_owned(), half(dice));
            let body = object(key, &state, Some(revision));
            let ask = Ask::send(Method::PUT, path(key), JSON, body.to_string());
            (Action::Update(revision, state), ask)
        }
    }
}

/// Gets and lists, at every sort of revision.
pub async fn look(round: &Round, keys: u64, mut dice: Dice) -> Vec<Read> {
    let mut looked = Vec::new();
    let mut client = Client::new(round).await;
    while !round.stopped() {
        tokio::time::sleep(Duration::from_millis(10 + dice.below(30))).await;
        let seen = round.seen.load(Ordering::Relaxed).max(round.start);
        let semantics = match dice.below(5) {
            0 | 1 => Semantics::Consistent,
            2 => Semantics::NotOlderThan(0),
            3 => Semantics::NotOlderThan(seen),
            _ => Semantics::Exact(seen - dice.below(seen - round.start + 1)),
        };
        let query = match semantics {
            Semantics::Consistent => String::new(),
            Semantics::NotOlderThan(0) => "?resourceVersion=0".into(),
            Semantics::NotOlderThan(revision) => {
                format!("?resourceVersion={revision}&resourceVersionMatch=NotOlderThan")
            }
            Semantics::Exact(revision) => {
                format!("?resourceVersion={revision}&resourceVersionMatch=Exact")
            }
        };
        let one = semantics == Semantics::Consistent && dice.below(2) == 0;
        let key = format!("k{}", dice.below(keys));
        let ask = Ask::get(path(if one { &key } else { "" }) + &query);
        let session = client.session;
        let invoked = round.now();
        let answer = client.ask(&ask).await;
        let completed = round.now();
        let Some((status, body)) = answer else {
            continue;
        };
        let shown = match status {
            StatusCode::OK if one => {
                let Ok((_, revision, state)) = read(&body) else {
                    continue;
                };
                Shown::Object(key, Some((revision, state)))
            }
            StatusCode::NOT_FOUND if one => Shown::Object(key, None),
            StatusCode::OK => match list(&body) {
                Ok(shown) => shown,
                Err(_) => continue,
            },
            _ => continue,
        };
        if let Shown::List(revision, _) = &shown {
            round.saw(*revision);
        }
        looked.push(Read {
            session,
            semantics,
            invoked,
            completed,
            shown,
        });
    }
    looked
}

fn list(body: &Value) -> Result<Shown> {
    let mut items = std::collections::BTreeMap::new();
    for item in body["items"].as_array().into_iter().flatten() {
        let (key, revision, state) = read(item)?;
        items.insert(key, (revision, state));
    }
    Ok(Shown::List(revision(body)?, items))
}

/// How a watcher goes about it.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// Resumes where it was cut off.
    Resume,
    /// Begins at some earlier revision of the round, each time.
    Rewind,
    /// Begins with the state, each time.
    State,
}

/// How a watch ended.
enum End {
    /// The round's last event came.
    Complete,
    /// The connection broke, or the server had no time.
    Broken,
    /// The server no longer knows what was after the begin: the watcher has to list.
    Expired,
    /// Anything else is wrong.
    Wrong(anyhow::Error),
}

/// Watches until it is told the round's last revision.
pub async fn watch(
    round: &Round,
    name: String,
    manner: Manner,
    selected: bool,
    mut dice: Dice,
) -> Result<Vec<Watch>> {
    let mut watches = Vec::new();
    // Where it is, and the oldest revision that it may begin at.
    let (mut at, mut oldest) = (round.start, round.start);
    loop {
        let from = match manner {
            Manner::Resume => From::Revision(at),
            Manner::Rewind => From::Revision(at - dice.below(at - oldest + 1)),
            Manner::State => From::State,
        };
        let mut watch = Watch {
            watcher: name.clone(),
            selected,
            from,
            told: Vec::new(),
            last: false,
        };
        let end = follow(round, &mut watch).await.unwrap_or_else(End::Wrong);
        for told in &watch.told {
            at = at.max(told.revision());
        }
        watch.last = matches!(end, End::Complete);
        watches.push(watch);
        match end {
            End::Complete => return Ok(watches),
            End::Broken => {}
            End::Expired => {
                round.expired.fetch_add(1, Ordering::Relaxed);
                // As informers do.
                let list = Client::new(round).await.ask(&Ask::get(path(""))).await;
                if let Some((StatusCode::OK, body)) = list {
                    at = revision(&body)?;
                    oldest = at;
                }
            }
            End::Wrong(error) => bail!("watcher {name} from {from:?}: {error:#}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// One watch until it ends.
async fn follow(round: &Round, watch: &mut Watch) -> Result<End> {
    let begin = match watch.from {
        From::Revision(revision) => format!("resourceVersion={revision}"),
        From::State => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".into(),
    };
    let selector = if watch.selected {
        format!("&labelSelector={HALF}%3D{SELECTED}")
    } else {
        String::new()
    };
    let path = path("") + &format!("?watch=true&allowWatchBookmarks=true&{begin}{selector}");
    let connection = round.connect().await;
    let answer = tokio::time::timeout(LIMIT, connection.open(&Ask::get(path))).await;
    let Ok(Ok(mut answer)) = answer else {
        return Ok(End::Broken);
    };
    match answer.status() {
        status if status.is_success() => {}
        StatusCode::GONE => return Ok(End::Expired),
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            return Ok(End::Broken);
        }
        status => bail!("{status}"),
    }
    // With the state first, the last object may come before the state is complete.
    let mut begun = watch.from != From::State;
    let mut pending = Vec::new();
    let mut patience = std::pin::pin!(patience(round));
    let mut known = false;
    loop {
        let chunk = tokio::select! {
            chunk = next(answer.body_mut()) => chunk,
            () = ended(round), if !known => {
                // It may have come before it was known to be the last.
                known = true;
                let last = round.last.load(Ordering::Relaxed);
                if begun && watch.told.iter().any(|told| told.revision() >= last) {
                    return Ok(End::Complete);
                }
                continue;
            }
            // A server that is alive and does not tell the last event is in the wrong.
            () = &mut patience => bail!("the last event does not come"),
        };
        let Ok(Some(chunk)) = chunk else {
            return Ok(End::Broken);
        };
        pending.extend_from_slice(&chunk);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<_> = pending.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line)?;
            if event["type"] == "ERROR" {
                return match event["object"]["code"].as_u64() {
                    Some(410) => Ok(End::Expired),
                    Some(500..) => Ok(End::Broken),
                    _ => bail!("{event}"),
                };
            }
            let told = told(&event)?;
            let revision = told.revision();
            begun |= matches!(told, Told::Bookmark(_, true));
            watch.told.push(told);
            let last = round.last.load(Ordering::Relaxed);
            if last > 0 && revision >= last && begun {
                return Ok(End::Complete);
            }
        }
    }
}

/// Returns when the last revision is known.
async fn ended(round: &Round) {
    while round.last.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Returns long after that.
async fn patience(round: &Round) {
    ended(round).await;
    tokio::time::sleep(LIMIT).await;
}

fn told(event: &Value) -> Result<Told> {
    const END: &str = "k8s.io/initial-events-end";
    let object = &event["object"];
    let kind = match event["type"].as_str().unwrap_or_default() {
        "ADDED" => Kind::Added,
        "MODIFIED" => Kind::Modified,
        "DELETED" => Kind::Deleted,
        "BOOKMARK" => {
            let end = object["metadata"]["annotations"][END] == "true";
            return Ok(Told::Bookmark(revision(object)?, end));
        }
        other => bail!("{other} {object}"),
    };
    let (key, revision, state) = read(object)?;
    Ok(Told::Event(kind, key, revision, state))
}
