//! The clients of a round: they work until they are told to stop, come back after
//! every broken connection, and write down what they saw.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;

use super::objects::{Object, kind, path};
use super::record::{
    Action, Answer, Asked, From, HALF, Outcome, Read, Request, Revision, SELECTED, Semantics,
    Shown, Sort, State, Time, Told, VALUE, Watch, Write,
};
use super::wire::{Event, Wire};
use crate::stand::http::{APPLY, Ask, MERGE, next};
use crate::stand::{Connection, Endpoint};

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
    /// The last revision of the round of each sort, once it is known; watchers stop when they
    /// are there.
    pub last: [AtomicU64; Sort::ALL.len()],
    /// Writes that were acknowledged so far.
    pub acknowledged: AtomicU64,
    /// Tells values apart, through all rounds.
    pub values: AtomicU64,
    /// Tells connections apart.
    pub sessions: AtomicU64,
    /// Every request but the watches.
    pub asked: Mutex<Vec<Asked>>,
    /// The highest revision that a reader or writer has seen.
    pub seen: AtomicU64,
    /// The revision before the round's first write.
    pub start: Revision,
}

impl Round {
    /// The time.
    pub fn now(&self) -> Time {
        self.epoch.elapsed().as_nanos() as Time
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn last(&self, sort: Sort) -> Revision {
        self.last[sort as usize].load(Ordering::Relaxed)
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
    wire: Wire,
    connection: Connection,
    session: u64,
}

/// What came of a request.
struct Answered<T> {
    answer: Answer,
    /// What was read, of those that are [`Answer::Done`].
    read: Option<T>,
    invoked: Time,
    completed: Time,
}

impl<'a> Client<'a> {
    async fn new(round: &'a Round, wire: Wire) -> Self {
        Self {
            round,
            wire,
            connection: round.connect().await,
            session: round.sessions.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Asks, reads the answer with `read` if it is a success, and writes down what it was.
    async fn ask<T>(
        &mut self,
        request: Request,
        ask: Ask,
        read: impl FnOnce(Wire, &[u8]) -> Result<T>,
    ) -> Answered<T> {
        let ask = ask.accept(self.wire.media());
        let invoked = self.round.now();
        let answer = tokio::time::timeout(LIMIT, self.connection.ask(&ask)).await;
        let completed = self.round.now();
        let (answer, read) = match answer {
            Ok(Ok((status, body))) if status.is_success() => match read(self.wire, &body) {
                Ok(read) => (Answer::Done, Some(read)),
                Err(error) => (wrong(&ask, status, &body, &error), None),
            },
            Ok(Ok((status, body))) => (refusal(self.wire, &ask, status, &body), None),
            _ => (Answer::Broken, None),
        };
        let asked = Asked {
            request,
            answer: answer.clone(),
            invoked,
            completed,
        };
        self.round
            .asked
            .lock()
            .expect("no holder panics")
            .push(asked);
        if answer == Answer::Broken {
            tokio::time::sleep(AGAIN).await;
            *self = Self::new(self.round, self.wire).await;
        }
        Answered {
            answer,
            read,
            invoked,
            completed,
        }
    }
}

fn wrong(ask: &Ask, status: StatusCode, body: &[u8], why: &anyhow::Error) -> Answer {
    let body = String::from_utf8_lossy(&body[..body.len().min(300)]);
    Answer::Wrong(format!("{ask}: {status}, {why:#}: {body}"))
}

/// An answer that is no success.
fn refusal(wire: Wire, ask: &Ask, status: StatusCode, body: &[u8]) -> Answer {
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Answer::Busy(status.as_u16());
    }
    // Whoever refuses says so in the form that was asked for.
    match (status, wire.status(body)) {
        (StatusCode::NOT_FOUND, Ok(_)) => Answer::Missing,
        (StatusCode::CONFLICT, Ok(_)) => Answer::Conflict,
        (StatusCode::GONE, Ok(_)) => Answer::Expired,
        (_, Ok((_, message))) => Answer::Wrong(format!("{ask}: {status}, {message}")),
        (_, Err(error)) => wrong(ask, status, body, &error),
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

/// What a writer is about to do.
struct Plan {
    request: Request,
    action: Action,
    ask: Ask,
}

/// Creates, updates, patches and deletes.
pub async fn write(round: &Round, number: u64, keys: u64, mut dice: Dice) -> Vec<Write> {
    let mut written = Vec::new();
    let mut client = Client::new(round, Wire::of(number)).await;
    while !round.stopped() {
        tokio::time::sleep(Duration::from_millis(dice.below(20))).await;
        let sort = Sort::ALL[dice.below(2) as usize];
        let name = format!("k{}", dice.below(keys));
        let ask = Ask::get(path(sort, &name));
        let got = client.ask(Request::Get, ask, |wire, body| wire.read(sort, body));
        let got = got.await;
        let writer = Writer {
            round,
            number,
            sort,
            name: &name,
            wire: client.wire,
        };
        let plan = match (got.answer, got.read) {
            (_, Some(object)) => writer.change(object, &mut dice),
            (Answer::Missing, _) => writer.begin(&mut dice),
            // A server that is about to be gone, or has just come.
            _ => continue,
        };
        let deletes = plan.request == Request::Delete;
        let answered = client
            .ask(plan.request, plan.ask, |wire, body| match deletes {
                true => {
                    let (word, _) = wire.status(body)?;
                    anyhow::ensure!(word == "Success", "{word}");
                    Ok(None)
                }
                false => Ok(Some(wire.read(sort, body)?.revision)),
            })
            .await;
        let outcome = match (&answered.answer, answered.read) {
            (_, Some(told)) => {
                if let Some(told) = told {
                    round.saw(told);
                }
                round.acknowledged.fetch_add(1, Ordering::Relaxed);
                Outcome::Acknowledged(told)
            }
            // The server says that it is not done; of its own errors nobody knows.
            (Answer::Missing | Answer::Conflict, _) => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        written.push(Write {
            key: sort.key(&name),
            action: plan.action,
            invoked: answered.invoked,
            completed: answered.completed,
            outcome,
        });
    }
    written
}

fn half(dice: &mut Dice) -> String {
    [SELECTED, "b"][dice.below(2) as usize].to_owned()
}

/// A writer at one object.
struct Writer<'a> {
    round: &'a Round,
    number: u64,
    sort: Sort,
    name: &'a str,
    wire: Wire,
}

impl Writer<'_> {
    /// What to do where there is no object.
    fn begin(&self, dice: &mut Dice) -> Plan {
        if self.sort == Sort::Leases && dice.below(3) == 0 {
            return self.patch();
        }
        let state: State = [
            (VALUE.to_owned(), self.round.value()),
            (HALF.to_owned(), half(dice)),
        ]
        .into();
        let body = self.wire.object(self.sort, self.name, &state, None);
        let ask = self.send(Method::POST, "", self.wire.media(), body);
        Plan {
            request: Request::Create,
            action: Action::Create(state),
            ask,
        }
    }

    /// What to do with an object that is there.
    fn change(&self, object: Object, dice: &mut Dice) -> Plan {
        let Object {
            revision,
            mut state,
            ..
        } = object;
        let media = self.wire.media();
        match dice.below(10) {
            0 | 1 => {
                let body = self.wire.only_at(revision);
                Plan {
                    request: Request::Delete,
                    action: Action::Delete(revision),
                    ask: self.send(Method::DELETE, self.name, media, body),
                }
            }
            2..=4 => self.patch(),
            _ => {
                state.insert(VALUE.to_owned(), self.round.value());
                state.insert(HALF.to_owned(), half(dice));
                let body = self
                    .wire
                    .object(self.sort, self.name, &state, Some(revision));
                Plan {
                    request: Request::Update,
                    action: Action::Update(revision, state),
                    ask: self.send(Method::PUT, self.name, media, body),
                }
            }
        }
    }

    /// One field of its own.
    fn patch(&self) -> Plan {
        let (field, value) = (format!("w{}", self.number), self.round.value());
        match self.sort {
            Sort::ConfigMaps => {
                let body = json!({"data": {&field: &value}});
                let ask = self.send(Method::PATCH, self.name, MERGE, body.to_string().into());
                Plan {
                    request: Request::Patch,
                    action: Action::Patch(field, value),
                    ask,
                }
            }
            Sort::Leases => {
                let (api_version, kind) = kind(self.sort);
                let body = json!({
                    "apiVersion": api_version, "kind": kind,
                    "metadata": {"name": self.name, "annotations": {&field: &value}},
                });
                let query = format!("{}?force=true&fieldManager={field}", self.name);
                let ask = self.send(Method::PATCH, &query, APPLY, body.to_string().into());
                Plan {
                    request: Request::Apply,
                    action: Action::Apply(field, value),
                    ask,
                }
            }
        }
    }

    fn send(&self, method: Method, name: &str, media: &'static str, body: Bytes) -> Ask {
        Ask::send(method, path(self.sort, name), media, body)
    }
}

/// Gets and lists, at every sort of revision.
pub async fn look(round: &Round, number: u64, keys: u64, mut dice: Dice) -> Vec<Read> {
    let mut looked = Vec::new();
    let mut client = Client::new(round, Wire::of(number)).await;
    while !round.stopped() {
        tokio::time::sleep(Duration::from_millis(10 + dice.below(30))).await;
        let sort = Sort::ALL[dice.below(2) as usize];
        let seen = round.seen.load(Ordering::Relaxed).max(round.start);
        let semantics = match dice.below(5) {
            0 | 1 => Semantics::Consistent,
            2 => Semantics::NotOlderThan(0),
            3 => Semantics::NotOlderThan(seen),
            _ => Semantics::Exact(seen - dice.below(seen - round.start + 1)),
        };
        let (request, query) = match semantics {
            Semantics::Consistent => (Request::List, String::new()),
            Semantics::NotOlderThan(0) => (Request::List, "?resourceVersion=0".into()),
            Semantics::NotOlderThan(revision) => {
                let query =
                    format!("?resourceVersion={revision}&resourceVersionMatch=NotOlderThan");
                (Request::List, query)
            }
            Semantics::Exact(revision) => {
                let query = format!("?resourceVersion={revision}&resourceVersionMatch=Exact");
                (Request::Exact(revision), query)
            }
        };
        let session = client.session;
        let name = format!("k{}", dice.below(keys));
        let one = semantics == Semantics::Consistent && dice.below(2) == 0;
        let answered = if one {
            let key = sort.key(&name);
            let ask = Ask::get(path(sort, &name));
            let read = |wire: Wire, body: &[u8]| {
                let object = wire.read(sort, body)?;
                Ok(Shown::Object(
                    object.key,
                    Some((object.revision, object.state)),
                ))
            };
            let mut answered = client.ask(Request::Get, ask, read).await;
            if answered.answer == Answer::Missing {
                answered.read = Some(Shown::Object(key, None));
            }
            answered
        } else {
            let ask = Ask::get(path(sort, "") + &query);
            let read = |wire: Wire, body: &[u8]| wire.list(sort, body);
            client.ask(request, ask, read).await
        };
        let Some(shown) = answered.read else {
            continue;
        };
        if let Shown::List(revision, _) = &shown {
            round.saw(*revision);
        }
        looked.push(Read {
            sort,
            session,
            semantics,
            invoked: answered.invoked,
            completed: answered.completed,
            shown,
        });
    }
    looked
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

/// A watcher.
#[derive(Debug, Clone, Copy)]
pub struct Watcher {
    pub manner: Manner,
    pub sort: Sort,
    /// Only objects with the label.
    pub selected: bool,
    pub wire: Wire,
}

impl std::fmt::Display for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            manner,
            sort,
            selected,
            wire,
        } = self;
        let selected = if *selected { " selected" } else { "" };
        write!(f, "{manner:?} {}{selected} {wire:?}", sort.plural())
    }
}

/// Watches until it is told the round's last revision, or that does not come.
pub async fn watch(round: &Round, watcher: Watcher, mut dice: Dice) -> Vec<Watch> {
    let mut watches = Vec::new();
    let name = watcher.to_string();
    // Where it is, and the oldest revision that it may begin at.
    let (mut at, mut oldest) = (round.start, round.start);
    let mut patience = std::pin::pin!(patience(round, watcher.sort));
    loop {
        let from = match watcher.manner {
            Manner::Resume => From::Revision(at),
            Manner::Rewind => From::Revision(at - dice.below(at - oldest + 1)),
            Manner::State => From::State,
        };
        let mut watch = Watch {
            watcher: name.clone(),
            sort: watcher.sort,
            selected: watcher.selected,
            from,
            told: Vec::new(),
            opened: false,
            answer: Answer::Broken,
            invoked: round.now(),
            completed: 0,
            last: false,
        };
        let late = tokio::select! {
            end = follow(round, watcher.wire, &mut watch) => {
                watch.answer = end;
                false
            }
            // A server that is alive and does not tell the last event is in the wrong.
            () = &mut patience => true,
        };
        watch.completed = round.now();
        for told in &watch.told {
            at = at.max(told.revision());
        }
        watch.last = watch.answer == Answer::Done;
        let expired = watch.answer == Answer::Expired;
        let last = watch.last || late;
        watches.push(watch);
        if last {
            return watches;
        }
        if expired {
            // As informers do.
            let mut client = Client::new(round, watcher.wire).await;
            let ask = Ask::get(path(watcher.sort, ""));
            let read = |wire: Wire, body: &[u8]| wire.list(watcher.sort, body);
            if let Some(Shown::List(revision, _)) = client.ask(Request::List, ask, read).await.read
            {
                at = revision;
                oldest = at;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// One watch until it ends, and how it did: [`Answer::Done`] when the round's last event came.
async fn follow(round: &Round, wire: Wire, watch: &mut Watch) -> Answer {
    let begin = match watch.from {
        From::Revision(revision) => format!("resourceVersion={revision}"),
        From::State => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".into(),
    };
    let selector = if watch.selected {
        format!("&labelSelector={HALF}%3D{SELECTED}")
    } else {
        String::new()
    };
    let path = path(watch.sort, "");
    let path = format!("{path}?watch=true&allowWatchBookmarks=true&{begin}{selector}");
    let connection = round.connect().await;
    // Nobody is asked before there is somebody.
    watch.invoked = round.now();
    let ask = Ask::get(path).accept(wire.stream());
    let answer = tokio::time::timeout(LIMIT, connection.open(&ask)).await;
    let Ok(Ok(mut answer)) = answer else {
        return Answer::Broken;
    };
    let status = answer.status();
    if !status.is_success() {
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = next(answer.body_mut()).await {
            body.extend_from_slice(&chunk);
        }
        return refusal(wire, &ask, status, &body);
    }
    // With the state first, the last object may come before the state is complete.
    let mut begun = watch.from != From::State;
    let mut pending = Vec::new();
    let mut known = false;
    loop {
        let chunk = tokio::select! {
            chunk = next(answer.body_mut()) => chunk,
            () = ended(round, watch.sort), if !known => {
                // It may have come before it was known to be the last.
                known = true;
                let last = round.last(watch.sort);
                if begun && watch.told.iter().any(|told| told.revision() >= last) {
                    return Answer::Done;
                }
                continue;
            }
        };
        let Ok(Some(chunk)) = chunk else {
            return Answer::Broken;
        };
        pending.extend_from_slice(&chunk);
        while let Some(end) = wire.frame(&pending) {
            let frame: Vec<_> = pending.drain(..end).collect();
            let told = match wire.event(watch.sort, &frame) {
                Ok(Event::Told(told)) => told,
                Ok(Event::Error(410, _)) => return Answer::Expired,
                Ok(Event::Error(code @ (429 | 500..), _)) => return Answer::Busy(code),
                Ok(Event::Error(_, why)) => return Answer::Wrong(format!("{ask}: {why}")),
                Err(error) => return wrong(&ask, status, &frame, &error),
            };
            let revision = told.revision();
            begun |= matches!(told, Told::Bookmark(_, true));
            watch.opened = true;
            watch.told.push(told);
            let last = round.last(watch.sort);
            if last > 0 && revision >= last && begun {
                return Answer::Done;
            }
        }
    }
}

/// Returns when the last revision is known.
async fn ended(round: &Round, sort: Sort) {
    while round.last(sort) == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Returns long after that.
async fn patience(round: &Round, sort: Sort) {
    ended(round, sort).await;
    tokio::time::sleep(LIMIT).await;
}
