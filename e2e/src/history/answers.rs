//! The rules of what may be answered at all. Pure.
//!
//! A server that was not killed answers: it is neither busy nor gone. It answers what can be
//! read, with success or with a refusal that belongs to the request. It has not forgotten a
//! revision unless that is older than itself, or old. Watchers get on: most watches are
//! granted, and every watcher sees the end.

use std::collections::{BTreeMap, HashMap};

use super::record::{Answer, Asked, From, History, Life, Request, Revision, Time};

/// After all was well again, what was under way may still fail.
const GRACE: Time = 2_000_000_000;
/// Upstream's servers keep changes for longer than this (75 s, and compact etcd after minutes).
const KEPT: Time = 60_000_000_000;
/// So many watches of one watcher tell whether enough are granted: a third of those that begin
/// at revisions, because who is refused lists, and is not refused there.
const ENOUGH: usize = 9;
const SHARE: usize = 3;

/// Adds every rule that is broken, in words. `begins` says when somebody began to write each
/// revision, in the order of revisions.
pub fn answers(history: &History, begins: &[(Revision, Time)], broken: &mut Vec<String>) {
    for asked in history.requests() {
        if let Err(reason) = one(history, begins, &asked) {
            broken.push(format!(
                "{:?} from {} to {} ms: {reason}",
                asked.request,
                asked.invoked / 1_000_000,
                asked.completed / 1_000_000
            ));
        }
    }
    let mut granted: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut last: HashMap<&str, bool> = HashMap::new();
    for watch in &history.watches {
        last.insert(&watch.watcher, watch.last);
        let (opened, all) = granted.entry(&watch.watcher).or_default();
        if matches!(watch.from, From::Revision(_))
            && (watch.opened || watch.answer == Answer::Expired)
        {
            *opened += usize::from(watch.opened);
            *all += 1;
        }
    }
    for (watcher, (opened, all)) in granted {
        if all >= ENOUGH && opened * SHARE < all {
            broken.push(format!(
                "watcher {watcher}: {opened} watches of {all} were granted"
            ));
        }
        if !last[watcher] {
            broken.push(format!("watcher {watcher} never came to the end"));
        }
    }
}

fn one(history: &History, begins: &[(Revision, Time)], asked: &Asked) -> Result<(), String> {
    let right = match (&asked.answer, asked.request) {
        (Answer::Done, _)
        | (Answer::Missing, Request::Get | Request::Update | Request::Patch | Request::Delete)
        | (
            Answer::Conflict,
            Request::Create | Request::Update | Request::Patch | Request::Apply | Request::Delete,
        ) => true,
        (Answer::Expired, Request::Watch(From::Revision(revision))) => {
            revision < begin(history, asked) || age(begins, revision, asked.completed) > KEPT
        }
        // A list at a revision can be had of etcd.
        (Answer::Expired, Request::Exact(revision)) => {
            age(begins, revision, asked.completed) > KEPT
        }
        (Answer::Busy(_) | Answer::Broken, _) => in_trouble(history, asked),
        _ => false,
    };
    match &asked.answer {
        _ if right => Ok(()),
        Answer::Busy(_) | Answer::Broken => {
            Err(format!("{:?}, and nobody was killed", asked.answer))
        }
        Answer::Expired => Err(format!(
            "Expired, and the server remembers since {} at the latest",
            begin(history, asked)
        )),
        other => Err(format!("{other:?}")),
    }
}

/// The lives in which a request may have been answered.
fn lives<'h>(history: &'h History, asked: &Asked) -> impl Iterator<Item = &'h Life> {
    let ends = history.lives[1.min(history.lives.len())..]
        .iter()
        .map(|life| life.killed)
        .chain([Time::MAX]);
    let (from, to) = (asked.invoked, asked.completed);
    let lives = history.lives.iter().zip(ends);
    lives.filter_map(move |(life, end)| (life.killed <= to && from <= end).then_some(life))
}

/// The latest revision at which who answered can have begun.
fn begin(history: &History, asked: &Asked) -> Revision {
    let revisions = lives(history, asked).map(|life| life.revision);
    revisions.max().unwrap_or(0)
}

fn in_trouble(history: &History, asked: &Asked) -> bool {
    // The first begins with the round, by no kill.
    let mut kills = history.lives.iter().skip(1);
    kills.any(|life| life.killed <= asked.completed && asked.invoked <= life.ready + GRACE)
}

/// For how long a revision has no longer been the newest.
fn age(begins: &[(Revision, Time)], revision: Revision, now: Time) -> Time {
    let next = begins.partition_point(|(at, _)| *at <= revision);
    begins
        .get(next)
        .map_or(0, |(_, begin)| now.saturating_sub(*begin))
}
