//! What is written down while clients work. Times are nanoseconds since the start of
//! the round, all from one clock.

use std::collections::BTreeMap;

/// A revision of the store: the resourceVersion of what was written by it.
pub type Revision = u64;
/// Nanoseconds.
pub type Time = u64;

/// The kinds of objects that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sort {
    /// Patched by merge patches.
    ConfigMaps,
    /// Patched by server-side apply.
    Leases,
}

impl Sort {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::ConfigMaps, Self::Leases];

    /// The resource's name.
    pub fn plural(self) -> &'static str {
        match self {
            Self::ConfigMaps => "configmaps",
            Self::Leases => "leases",
        }
    }

    /// What tells an object of this name from all others.
    pub fn key(self, name: &str) -> String {
        format!("{}/{name}", self.plural())
    }

    /// Whether a key is of this sort.
    pub fn has(self, key: &str) -> bool {
        let rest = key.strip_prefix(self.plural());
        rest.is_some_and(|rest| rest.starts_with('/'))
    }
}

/// What an object holds: the fields of its data, and its label [`HALF`] under that name.
pub type State = BTreeMap<String, String>;

/// The label that a selector of the watchers is about, and the value that it selects.
pub const HALF: &str = "half";
/// The field that a create or an update gives its new value.
pub const VALUE: &str = "value";
/// See [`HALF`].
pub const SELECTED: &str = "a";

/// What one write did to one key; no state when it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of this write.
    pub revision: Revision,
    /// The object's, see [`Sort::key`].
    pub key: String,
    /// What it holds since then.
    pub state: Option<State>,
}

/// What etcd says.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// What there was when the round began.
    pub initial: Vec<Change>,
    /// Every write of the round.
    pub changes: Vec<Change>,
    /// The last one's revision; nothing is written after it.
    pub last: Revision,
}

/// What a writer wanted. Every value is written once only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A new object of this state.
    Create(State),
    /// Another state in place of that of a revision.
    Update(Revision, State),
    /// One field set to a value, whatever else there is.
    Patch(String, String),
    /// The same by a manager that applies no other field; the object is made if there is none.
    Apply(String, String),
    /// The object of a revision deleted.
    Delete(Revision),
}

/// What a writer was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// That it is done, and by which revision (deletes are not told).
    Acknowledged(Option<Revision>),
    /// That it is not done.
    Refused,
    /// Nothing that can be relied on.
    Unknown,
}

/// One write, as its writer saw it.
#[derive(Debug, Clone)]
pub struct Write {
    /// The object's, see [`Sort::key`].
    pub key: String,
    /// What was wanted.
    pub action: Action,
    /// When it was sent.
    pub invoked: Time,
    /// When the answer came.
    pub completed: Time,
    /// What the answer was.
    pub outcome: Outcome,
}

/// Which state a read may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Semantics {
    /// The newest one (no resourceVersion).
    Consistent,
    /// Any that is not older than a revision.
    NotOlderThan(Revision),
    /// That of a revision.
    Exact(Revision),
}

/// What a read showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// One object, or none: revision and state.
    Object(String, Option<(Revision, State)>),
    /// All of them, at a revision.
    List(Revision, BTreeMap<String, (Revision, State)>),
}

/// One read that was answered.
#[derive(Debug, Clone)]
pub struct Read {
    /// Of which objects.
    pub sort: Sort,
    /// Reads of one connection, hence of one server process, in their order.
    pub session: u64,
    /// What was asked for.
    pub semantics: Semantics,
    /// When it was sent.
    pub invoked: Time,
    /// When the answer came.
    pub completed: Time,
    /// The answer.
    pub shown: Shown,
}

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// New to the watcher.
    Added,
    /// Known to it.
    Modified,
    /// Gone, or no longer selected.
    Deleted,
}

/// What a watcher got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A change.
    Event(Kind, String, Revision, State),
    /// How far the watch is; `true` when the initial events end with it.
    Bookmark(Revision, bool),
}

impl Told {
    /// The revision of the event or bookmark.
    pub fn revision(&self) -> Revision {
        let (Self::Event(_, _, revision, _) | Self::Bookmark(revision, _)) = self;
        *revision
    }
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// After a revision.
    Revision(Revision),
    /// With the state (`sendInitialEvents`).
    State,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// One object.
    Get,
    /// All of them, in a state that is not too old.
    List,
    /// All of them at a revision.
    Exact(Revision),
    /// See [`Action`].
    Create,
    /// See [`Action`].
    Update,
    /// See [`Action`].
    Patch,
    /// See [`Action`].
    Apply,
    /// See [`Action`].
    Delete,
    /// See [`Watch`].
    Watch(From),
}

/// How a request was answered. Every one is in one of these classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With success, and what came could be read. For a watch: until its reader wanted no more.
    Done,
    /// 404 for an object.
    Missing,
    /// 409.
    Conflict,
    /// 410: that revision is forgotten.
    Expired,
    /// 429 or a status of the 500s: the server cannot, for now.
    Busy(u16),
    /// Not at all, or not to its end.
    Broken,
    /// With anything else, in words.
    Wrong(String),
}

/// One request and its answer.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What for.
    pub request: Request,
    /// How it was answered.
    pub answer: Answer,
    /// When it was sent.
    pub invoked: Time,
    /// When the answer ended.
    pub completed: Time,
}

/// What lies between two kills.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// When the kill was that it follows.
    pub killed: Time,
    /// When all was well again.
    pub ready: Time,
    /// The store's revision then: whoever came up cannot have begun to remember later.
    pub revision: Revision,
}

/// One watch, from its request to its end. The watcher's next one begins where this
/// one ended.
#[derive(Debug, Clone)]
pub struct Watch {
    /// For people.
    pub watcher: String,
    /// Which objects are watched.
    pub sort: Sort,
    /// Whether only objects with the label are watched.
    pub selected: bool,
    /// Its begin.
    pub from: From,
    /// All that came.
    pub told: Vec<Told>,
    /// Whether it was answered with events at all.
    pub opened: bool,
    /// How it was answered, or ended.
    pub answer: Answer,
    /// When it was sent.
    pub invoked: Time,
    /// When it ended.
    pub completed: Time,
    /// Whether it went on until the end of the round.
    pub last: bool,
}

/// Everything that clients wrote down in one round.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Of all writers.
    pub writes: Vec<Write>,
    /// Of all readers.
    pub reads: Vec<Read>,
    /// Of all watchers, each one's in their order.
    pub watches: Vec<Watch>,
    /// Every request but the watches.
    pub asked: Vec<Asked>,
    /// In their order; the first begins with the round.
    pub lives: Vec<Life>,
}

impl History {
    /// Every request, watches too.
    pub fn requests(&self) -> impl Iterator<Item = Asked> {
        let watches = self.watches.iter().map(|watch| Asked {
            request: Request::Watch(watch.from),
            answer: watch.answer.clone(),
            invoked: watch.invoked,
            completed: watch.completed,
        });
        self.asked.iter().cloned().chain(watches)
    }
}
