//! The rules that a history must keep. Pure.
//!
//! Writes: what was acknowledged happened, once, on the object that it was about, at
//! the revision that was told; what was refused did not; nothing happened that nobody
//! wanted; a write that begins after another was acknowledged has a higher revision.
//!
//! Reads: each shows a state that there was, recent enough for what was asked, and on
//! one connection never an older one than before.
//!
//! Watches: every change after the begin, once, in order, with the right type; a
//! bookmark never runs ahead; the last watch of each watcher reaches the end.
//!
//! What may be answered at all: `answers`.

use std::collections::{BTreeMap, HashMap};

use super::answers::answers;
use super::record::{
    Action, From, HALF, History, Kind, Outcome, Read, Revision, SELECTED, Semantics, Shown, Sort,
    State, Time, Told, Truth, VALUE, Watch, Write,
};

/// All objects at one revision.
type Objects = BTreeMap<String, (Revision, State)>;

/// A change and what was there before it.
struct Step<'a> {
    revision: Revision,
    key: &'a str,
    before: Option<(Revision, &'a State)>,
    after: Option<&'a State>,
    /// When somebody began to write this.
    invoked: Time,
}

/// Every rule that is broken, in words. None is what is wanted.
pub fn check(truth: &Truth, history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let mut steps = steps(truth, &mut broken);
    let known = writes(&mut steps, &history.writes, &mut broken);
    reads(truth, &steps, &history.reads, known, &mut broken);
    let begins: Vec<_> = steps.iter().map(|s| (s.revision, s.invoked)).collect();
    answers(history, &begins, &mut broken);
    for watch in &history.watches {
        if let Err(reason) = self::watch(truth, &steps, watch) {
            broken.push(format!(
                "watcher {} from {:?}: {reason}",
                watch.watcher, watch.from
            ));
        }
    }
    broken
}

fn steps<'a>(truth: &'a Truth, broken: &mut Vec<String>) -> Vec<Step<'a>> {
    let mut now: HashMap<&str, (Revision, &State)> = HashMap::new();
    for change in &truth.initial {
        if let Some(state) = &change.state {
            now.insert(&change.key, (change.revision, state));
        }
    }
    let mut last = 0;
    let mut steps = Vec::with_capacity(truth.changes.len());
    for change in &truth.changes {
        if change.revision <= last {
            broken.push(format!("etcd: {} comes after {last}", change.revision));
        }
        last = change.revision;
        let before = now.remove(&*change.key);
        if let Some(state) = &change.state {
            now.insert(&change.key, (change.revision, state));
        }
        steps.push(Step {
            revision: change.revision,
            key: &change.key,
            before,
            after: change.state.as_ref(),
            invoked: 0,
        });
    }
    steps
}

/// Checks the writes. Returns what was known to somebody when: the times at which
/// acknowledgements came, with their revisions.
fn writes(
    steps: &mut [Step<'_>],
    writes: &[Write],
    broken: &mut Vec<String>,
) -> Vec<(Time, Revision)> {
    let mut by_value: HashMap<&str, usize> = HashMap::new();
    let mut by_deleted: HashMap<(&str, Revision), Vec<usize>> = HashMap::new();
    for (n, write) in writes.iter().enumerate() {
        match &write.action {
            Action::Create(state) | Action::Update(_, state) => {
                if let Some(value) = state.get(VALUE) {
                    by_value.insert(value, n);
                }
            }
            Action::Patch(_, value) | Action::Apply(_, value) => {
                by_value.insert(value, n);
            }
            Action::Delete(revision) => by_deleted
                .entry((&write.key, *revision))
                .or_default()
                .push(n),
        }
    }
    // The step that each write was.
    let mut happened: Vec<Option<Revision>> = vec![None; writes.len()];
    for step in steps {
        match attribute(step, writes, &by_value, &by_deleted) {
            Ok(n) => {
                step.invoked = writes[n].invoked;
                if let Some(earlier) = happened[n].replace(step.revision) {
                    broken.push(format!(
                        "{}: {:?} happened at {earlier} and again at {}",
                        step.key, writes[n].action, step.revision
                    ));
                }
            }
            Err(reason) => broken.push(format!("{} at {}: {reason}", step.key, step.revision)),
        }
    }
    let mut known = Vec::new();
    for (write, happened) in writes.iter().zip(&happened) {
        let Outcome::Acknowledged(told) = write.outcome else {
            continue;
        };
        match (happened, told) {
            (None, _) => broken.push(format!(
                "{}: {:?} was acknowledged ({told:?}) and is lost",
                write.key, write.action
            )),
            (Some(at), Some(told)) if *at != told => broken.push(format!(
                "{}: {:?} happened at {at} and was acknowledged as {told}",
                write.key, write.action
            )),
            (Some(at), _) => known.push((write.completed, *at)),
        }
    }
    let floor = Floor::new(known.clone());
    for (write, happened) in writes.iter().zip(&happened) {
        if let (Outcome::Acknowledged(_), Some(at)) = (&write.outcome, happened)
            && let Some(before) = floor.at(write.invoked)
            && *at <= before
        {
            broken.push(format!(
                "{}: {:?} began after {before} was acknowledged and is {at}",
                write.key, write.action
            ));
        }
    }
    known
}

/// Whose write a step was.
fn attribute(
    step: &Step<'_>,
    writes: &[Write],
    by_value: &HashMap<&str, usize>,
    by_deleted: &HashMap<(&str, Revision), Vec<usize>>,
) -> Result<usize, String> {
    let Some(after) = step.after else {
        let Some((before, _)) = step.before else {
            return Err("deleted when it was not there".into());
        };
        let wanted = by_deleted.get(&(step.key, before)).into_iter().flatten();
        let mut wanted = wanted.filter(|n| writes[**n].outcome != Outcome::Refused);
        // Two may have wanted it; one at most is told that it did it.
        let told = wanted
            .clone()
            .find(|n| matches!(writes[**n].outcome, Outcome::Acknowledged(_)));
        return told
            .or_else(|| wanted.next())
            .copied()
            .ok_or_else(|| format!("{before} was deleted, and nobody wanted that"));
    };
    let empty = State::new();
    let old = step.before.map_or(&empty, |(_, state)| state);
    let new: Vec<_> = after
        .iter()
        .filter(|(field, value)| *field != HALF && old.get(*field) != Some(value))
        .collect();
    let value = match new[..] {
        [(_, value)] => Some(value),
        // All of it is new.
        _ if step.before.is_none() => after.get(VALUE),
        _ => None,
    };
    let Some(value) = value else {
        return Err(format!(
            "{} values are new: {after:?} after {old:?}",
            new.len()
        ));
    };
    let n = *by_value
        .get(value.as_str())
        .ok_or_else(|| format!("{value}, which nobody wrote"))?;
    let write = &writes[n];
    if write.key != step.key {
        return Err(format!("{value}, which was for {}", write.key));
    }
    if write.outcome == Outcome::Refused {
        return Err(format!("{value}, which was refused"));
    }
    let right = match &write.action {
        Action::Create(state) => step.before.is_none() && state == after,
        Action::Update(base, state) => {
            // A lease that is gone is made again by an update, whatever that was to replace.
            let there = match step.before {
                Some((before, _)) => before == *base,
                None => Sort::Leases.has(step.key),
            };
            there && state == after
        }
        Action::Patch(field, value) => {
            let mut patched = old.clone();
            patched.insert(field.clone(), value.clone());
            step.before.is_some() && patched == *after
        }
        Action::Apply(field, value) => {
            let mut applied = old.clone();
            applied.insert(field.clone(), value.clone());
            applied == *after
        }
        Action::Delete(_) => false,
    };
    if right {
        Ok(n)
    } else {
        Err(format!(
            "{:?} made {after:?} of {:?}: an update is lost",
            write.action, step.before
        ))
    }
}

/// The highest revision that was known to anybody at a time.
struct Floor(Vec<(Time, Revision)>);

impl Floor {
    fn new(mut known: Vec<(Time, Revision)>) -> Self {
        known.sort_unstable();
        let mut highest = 0;
        for (_, revision) in &mut known {
            highest = highest.max(*revision);
            *revision = highest;
        }
        Self(known)
    }

    fn at(&self, time: Time) -> Option<Revision> {
        let after = self.0.partition_point(|(known, _)| *known < time);
        after.checked_sub(1).map(|n| self.0[n].1)
    }
}

fn reads(
    truth: &Truth,
    steps: &[Step<'_>],
    reads: &[Read],
    mut known: Vec<(Time, Revision)>,
    broken: &mut Vec<String>,
) {
    known.extend(reads.iter().filter_map(|read| {
        let revision = match &read.shown {
            Shown::List(revision, _) => *revision,
            Shown::Object(_, object) => object.as_ref()?.0,
        };
        Some((read.completed, revision))
    }));
    let floor = Floor::new(known);
    // Lists by revision, so that the truth is replayed once.
    let mut lists = Vec::new();
    // Each sort of objects may be behind by itself.
    let mut sessions: HashMap<(u64, Sort), Revision> = HashMap::new();
    for read in reads {
        let newest = floor.at(read.invoked).unwrap_or(0);
        let least = match read.semantics {
            Semantics::Consistent => newest,
            Semantics::NotOlderThan(revision) | Semantics::Exact(revision) => revision,
        };
        match &read.shown {
            Shown::List(revision, items) => {
                lists.push((*revision, read.sort, items));
                if *revision < least {
                    broken.push(format!(
                        "a {:?} list shows {revision}, {least} was known",
                        read.semantics
                    ));
                }
                if let Semantics::Exact(asked) = read.semantics {
                    if *revision != asked {
                        broken.push(format!("a list at {asked} shows {revision}"));
                    }
                } else {
                    let seen = sessions.entry((read.session, read.sort)).or_default();
                    if *revision < *seen {
                        broken.push(format!(
                            "session {} read {seen} and then {revision}",
                            read.session
                        ));
                    }
                    *seen = (*seen).max(*revision);
                }
            }
            Shown::Object(key, object) => {
                let window = (least, read.completed);
                if let Err(reason) = shown(truth, steps, key, object.as_ref(), window) {
                    broken.push(format!("a {:?} get of {key}: {reason}", read.semantics));
                }
            }
        }
    }
    lists.sort_by_key(|(revision, ..)| *revision);
    let mut replay = Replay::new(truth, steps);
    for (revision, sort, items) in lists {
        let state = of(sort, replay.until(revision));
        if let Some(difference) = difference(&state, items) {
            broken.push(format!("a list at {revision} shows {difference}"));
        }
    }
}

/// Whether an object was like this at some revision that is not before `least`, and
/// was not written later than the read.
fn shown(
    truth: &Truth,
    steps: &[Step<'_>],
    key: &str,
    object: Option<&(Revision, State)>,
    (least, completed): (Revision, Time),
) -> Result<(), String> {
    let initial = truth.initial.iter().find(|change| change.key == key);
    let mut now = initial.and_then(|change| Some((change.revision, change.state.as_ref()?)));
    let wanted = object.map(|(revision, state)| (*revision, state));
    let mut was = now == wanted;
    let mut began = 0;
    for step in steps.iter().filter(|step| step.key == key) {
        if now == wanted && step.revision > least && began <= completed {
            return Ok(());
        }
        now = step.after.map(|state| (step.revision, state));
        began = step.invoked;
        was |= now == wanted;
    }
    if now == wanted && began <= completed {
        return Ok(());
    }
    Err(if was {
        format!("{wanted:?} was over before {least}, or is of the future")
    } else {
        format!("{wanted:?} never was")
    })
}

/// The objects as time goes on.
struct Replay<'a> {
    objects: Objects,
    steps: std::iter::Peekable<std::slice::Iter<'a, Step<'a>>>,
}

impl<'a> Replay<'a> {
    fn new(truth: &Truth, steps: &'a [Step<'a>]) -> Self {
        let initial = truth.initial.iter().filter_map(|change| {
            let state = change.state.clone()?;
            Some((change.key.clone(), (change.revision, state)))
        });
        Self {
            objects: initial.collect(),
            steps: steps.iter().peekable(),
        }
    }

    fn until(&mut self, revision: Revision) -> &Objects {
        while let Some(step) = self.steps.next_if(|step| step.revision <= revision) {
            match step.after {
                Some(state) => self
                    .objects
                    .insert(step.key.to_owned(), (step.revision, state.clone())),
                None => self.objects.remove(step.key),
            };
        }
        &self.objects
    }
}

/// Those of a sort.
fn of(sort: Sort, objects: &Objects) -> Objects {
    let mut objects = objects.clone();
    objects.retain(|key, _| sort.has(key));
    objects
}

fn difference(right: &Objects, shown: &Objects) -> Option<String> {
    let keys = right.keys().chain(shown.keys());
    let key = keys
        .into_iter()
        .find(|key| right.get(*key) != shown.get(*key))?;
    Some(format!(
        "{key} as {:?} where it is {:?}",
        shown.get(key),
        right.get(key)
    ))
}

fn is_selected(state: &State) -> bool {
    state.get(HALF).is_some_and(|half| half == SELECTED)
}

/// What a watcher is told of a step, when it is told.
fn event<'a>(step: &Step<'a>, selected: bool) -> Option<(Kind, &'a State)> {
    let seen = |state: &&State| !selected || is_selected(state);
    let before = step.before.map(|(_, state)| state).filter(seen);
    match (before, step.after.filter(seen)) {
        (None, None) => None,
        (None, Some(after)) => Some((Kind::Added, after)),
        (Some(_), Some(after)) => Some((Kind::Modified, after)),
        (Some(before), None) => Some((Kind::Deleted, before)),
    }
}

fn watch(truth: &Truth, steps: &[Step<'_>], watch: &Watch) -> Result<(), String> {
    let mut told = watch.told.iter();
    let from = match watch.from {
        From::Revision(revision) => revision,
        From::State => match initial(truth, steps, watch, &mut told)? {
            Some(revision) => revision,
            // Cut off before its end: nothing was promised.
            None if !watch.last => return Ok(()),
            None => return Err("the initial events do not end".into()),
        },
    };
    let mut expected = steps
        .iter()
        .filter(|step| step.revision > from && watch.sort.has(step.key))
        .filter_map(|step| Some((step, event(step, watch.selected)?)))
        .peekable();
    let mut last = from;
    for told in told {
        match told {
            Told::Bookmark(revision, _) => {
                if *revision < last {
                    return Err(format!("a bookmark at {revision} after {last}"));
                }
                if let Some((step, _)) = expected.peek()
                    && step.revision <= *revision
                {
                    return Err(format!(
                        "a bookmark at {revision} before the event {}",
                        step.revision
                    ));
                }
                last = *revision;
            }
            Told::Event(kind, key, revision, state) => {
                let Some((step, (right, content))) = expected.next() else {
                    return Err(format!("{kind:?} {key} at {revision} never happened"));
                };
                if *revision > step.revision {
                    return Err(format!("{} is skipped, {revision} follows", step.revision));
                }
                if *revision < step.revision {
                    return Err(format!(
                        "{kind:?} {key} at {revision} is repeated, late or made up, {} is next",
                        step.revision
                    ));
                }
                if (*kind, key.as_str(), state) != (right, step.key, content) {
                    return Err(format!(
                        "{kind:?} {key} {state:?} at {revision} is {right:?} {} {content:?}",
                        step.key
                    ));
                }
                last = *revision;
            }
        }
    }
    match expected.peek() {
        Some((step, _)) if watch.last => Err(format!("{} never came", step.revision)),
        _ => Ok(()),
    }
}

/// Reads the initial events and their end, and returns the revision that it states.
fn initial<'t>(
    truth: &Truth,
    steps: &[Step<'_>],
    watch: &Watch,
    told: &mut impl Iterator<Item = &'t Told>,
) -> Result<Option<Revision>, String> {
    let mut objects = Objects::new();
    for told in told {
        match told {
            Told::Event(Kind::Deleted, key, ..) => {
                objects.remove(key);
            }
            Told::Event(_, key, revision, state) => {
                objects.insert(key.clone(), (*revision, state.clone()));
            }
            Told::Bookmark(_, false) => {}
            Told::Bookmark(revision, true) => {
                let mut replay = Replay::new(truth, steps);
                let mut right = of(watch.sort, replay.until(*revision));
                right.retain(|_, (_, state)| !watch.selected || is_selected(state));
                return match difference(&right, &objects) {
                    None => Ok(Some(*revision)),
                    Some(difference) => Err(format!("the state at {revision} has {difference}")),
                };
            }
        }
    }
    Ok(None)
}
