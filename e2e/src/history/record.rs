//! What is written down while clients work. Times are nanoseconds since the start of
//! the round, all from one clock.

use std::collections::BTreeMap;

/// A revision of the store: the resourceVersion of what was written by it.
pub type Revision = u64;
/// Nanoseconds.
pub type Time = u64;

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
    /// The object's name.
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
    /// The object's name.
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

/// One watch, from its request to its end. The watcher's next one begins where this
/// one ended.
#[derive(Debug, Clone)]
pub struct Watch {
    /// For people.
    pub watcher: String,
    /// Whether only objects with the label are watched.
    pub selected: bool,
    /// Its begin.
    pub from: From,
    /// All that came.
    pub told: Vec<Told>,
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
    /// Of all watchers.
    pub watches: Vec<Watch>,
    /// How many of them were told that their begin is forgotten, and had to list.
    pub expired: u64,
}
