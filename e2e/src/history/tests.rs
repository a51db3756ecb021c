//! A good history passes; each bad one is found, and found for what is wrong with it.

use super::check;
use super::record::{
    Action, Answer, Asked, Change, From, History, Kind, Life, Outcome, Read, Request, Revision,
    Semantics, Shown, Sort, State, Told, Truth, Watch, Write,
};

const SORT: Sort = Sort::ConfigMaps;

fn state(fields: &[(&str, &str)]) -> State {
    let pairs = fields.iter();
    pairs
        .map(|(field, value)| ((*field).to_owned(), (*value).to_owned()))
        .collect()
}

fn change(revision: Revision, key: &str, state: Option<State>) -> Change {
    Change {
        revision,
        key: SORT.key(key),
        state,
    }
}

fn write(key: &str, action: Action, at: u64, outcome: Outcome) -> Write {
    Write {
        key: SORT.key(key),
        action,
        invoked: at,
        completed: at + 5,
        outcome,
    }
}

fn event(kind: Kind, key: &str, revision: Revision, state: State) -> Told {
    Told::Event(kind, SORT.key(key), revision, state)
}

fn first() -> State {
    state(&[("value", "v1"), ("half", "a")])
}

fn second() -> State {
    state(&[("value", "v2"), ("half", "b")])
}

fn patched() -> State {
    state(&[("value", "v2"), ("half", "b"), ("w0", "v3")])
}

fn other() -> State {
    state(&[("value", "v4"), ("half", "a")])
}

fn list(
    at: u64,
    revision: Revision,
    semantics: Semantics,
    items: &[(&str, Revision, State)],
) -> Read {
    let items = items
        .iter()
        .map(|(key, revision, state)| (SORT.key(key), (*revision, state.clone())));
    Read {
        sort: SORT,
        session: 1,
        semantics,
        invoked: at,
        completed: at + 1,
        shown: Shown::List(revision, items.collect()),
    }
}

fn get(at: u64, key: &str, object: Option<(Revision, State)>) -> Read {
    Read {
        sort: SORT,
        session: 2,
        semantics: Semantics::Consistent,
        invoked: at,
        completed: at + 1,
        shown: Shown::Object(SORT.key(key), object),
    }
}

const SECOND: u64 = 1_000_000_000;

/// A request that took two seconds.
fn asked(request: Request, answer: Answer, invoked: u64) -> Asked {
    Asked {
        request,
        answer,
        invoked,
        completed: invoked + 2 * SECOND,
    }
}

/// k is created at 10, updated at 11, patched at 13, deleted at 15; l is created at 14.
fn good() -> (Truth, History) {
    let truth = Truth {
        initial: Vec::new(),
        changes: vec![
            change(10, "k", Some(first())),
            change(11, "k", Some(second())),
            change(13, "k", Some(patched())),
            change(14, "l", Some(other())),
            change(15, "k", None),
        ],
        last: 15,
    };
    let patch = Action::Patch("w0".into(), "v3".into());
    let told = |revision| Outcome::Acknowledged(Some(revision));
    let refused = state(&[("value", "v9"), ("half", "a")]);
    let writes = vec![
        write("k", Action::Create(first()), 0, told(10)),
        write("k", Action::Update(10, second()), 10, told(11)),
        write("k", Action::Update(10, refused), 20, Outcome::Refused),
        write("k", patch, 20, Outcome::Unknown),
        write("l", Action::Create(other()), 30, told(14)),
        write("k", Action::Delete(13), 40, Outcome::Acknowledged(None)),
    ];
    let reads = vec![
        get(2, "k", None),
        get(7, "k", Some((10, first()))),
        list(16, 12, Semantics::Consistent, &[("k", 11, second())]),
        list(
            37,
            14,
            Semantics::NotOlderThan(12),
            &[("k", 13, patched()), ("l", 14, other())],
        ),
        list(38, 10, Semantics::Exact(10), &[("k", 10, first())]),
        list(50, 15, Semantics::Consistent, &[("l", 14, other())]),
    ];
    let watch = |selected, from, told, last| Watch {
        watcher: "w".into(),
        sort: SORT,
        selected,
        from,
        told,
        opened: true,
        answer: if last { Answer::Done } else { Answer::Broken },
        invoked: 9 * SECOND,
        completed: 12 * SECOND,
        last,
    };
    let watches = vec![
        watch(
            false,
            From::Revision(9),
            vec![
                event(Kind::Added, "k", 10, first()),
                event(Kind::Modified, "k", 11, second()),
                Told::Bookmark(12, false),
            ],
            false,
        ),
        watch(
            false,
            From::Revision(12),
            vec![
                event(Kind::Modified, "k", 13, patched()),
                event(Kind::Added, "l", 14, other()),
                event(Kind::Deleted, "k", 15, patched()),
            ],
            true,
        ),
        watch(
            true,
            From::Revision(9),
            vec![
                event(Kind::Added, "k", 10, first()),
                event(Kind::Deleted, "k", 11, first()),
                event(Kind::Added, "l", 14, other()),
            ],
            true,
        ),
        watch(
            false,
            From::State,
            vec![
                event(Kind::Added, "k", 11, second()),
                event(Kind::Modified, "k", 13, patched()),
                Told::Bookmark(13, true),
                event(Kind::Added, "l", 14, other()),
                event(Kind::Deleted, "k", 15, patched()),
            ],
            true,
        ),
    ];
    let history = History {
        writes,
        reads,
        watches,
        asked: vec![
            asked(Request::Get, Answer::Missing, 2 * SECOND),
            asked(Request::Apply, Answer::Conflict, 2 * SECOND),
            asked(Request::Update, Answer::Busy(503), 9 * SECOND),
            asked(Request::List, Answer::Broken, 11 * SECOND),
            asked(
                Request::Watch(From::Revision(8)),
                Answer::Expired,
                20 * SECOND,
            ),
            asked(Request::Exact(11), Answer::Expired, 100 * SECOND),
        ],
        lives: vec![
            Life {
                killed: 0,
                ready: 0,
                revision: 7,
            },
            Life {
                killed: 10 * SECOND,
                ready: 11 * SECOND,
                revision: 9,
            },
        ],
    };
    (truth, history)
}

/// Spoils the good history and expects exactly what is said of it.
#[track_caller]
fn expect(spoil: impl FnOnce(&mut Truth, &mut History), reason: &str) {
    let (mut truth, mut history) = good();
    spoil(&mut truth, &mut history);
    let broken = check(&truth, &history);
    assert!(
        broken.iter().any(|text| text.contains(reason)),
        "{reason:?} is not in {broken:#?}"
    );
}

#[test]
fn a_good_history_passes() {
    let (truth, history) = good();
    assert_eq!(check(&truth, &history), Vec::<String>::new());
}

#[test]
fn what_was_there_before_is_known() {
    let (mut truth, mut history) = good();
    truth.initial = truth.changes.drain(..1).collect();
    history.writes.remove(0);
    history.reads.remove(0);
    history
        .watches
        .retain(|watch| watch.from != From::Revision(9));
    assert_eq!(check(&truth, &history), Vec::<String>::new());
}

#[test]
fn acknowledged_writes_that_are_lost() {
    expect(
        |truth, _| drop(truth.changes.remove(3)),
        "was acknowledged (Some(14)) and is lost",
    );
    expect(
        |truth, _| drop(truth.changes.pop()),
        "was acknowledged (None) and is lost",
    );
    expect(
        |_, history| history.writes[4].outcome = Outcome::Acknowledged(Some(12)),
        "happened at 14 and was acknowledged as 12",
    );
}

#[test]
fn writes_that_nobody_wanted() {
    expect(
        |_, history| drop(history.writes.remove(4)),
        "v4, which nobody wrote",
    );
    expect(
        |_, history| history.writes[4].outcome = Outcome::Refused,
        "v4, which was refused",
    );
    expect(
        |_, history| history.writes[5].outcome = Outcome::Refused,
        "13 was deleted, and nobody wanted that",
    );
    expect(
        |_, history| history.writes[5].action = Action::Delete(11),
        "13 was deleted, and nobody wanted that",
    );
    expect(
        |_, history| history.writes[4].key = SORT.key("m"),
        "which was for configmaps/m",
    );
}

#[test]
fn writes_that_happen_twice() {
    expect(
        |truth, _| {
            truth.changes.push(change(16, "l", None));
            truth.changes.push(change(17, "l", Some(other())));
        },
        "happened at 14 and again at 17",
    );
}

#[test]
fn lost_updates() {
    // An update of a state that is no longer the current one.
    expect(
        |_, history| history.writes[1].action = Action::Update(9, second()),
        "an update is lost",
    );
    // A patch that takes another writer's field away.
    expect(
        |truth, _| truth.changes[2].state = Some(state(&[("w0", "v3"), ("half", "b")])),
        "an update is lost",
    );
}

#[test]
fn revisions_that_do_not_grow() {
    expect(
        |truth, _| truth.changes.swap(3, 4),
        "etcd: 14 comes after 15",
    );
    // Acknowledged before the other began, and has the higher revision.
    expect(
        |_, history| {
            (history.writes[4].invoked, history.writes[4].completed) = (1, 2);
        },
        "began after 14 was acknowledged and is 11",
    );
}

#[test]
fn reads_of_the_past() {
    expect(
        |_, history| history.reads[2] = list(16, 10, Semantics::Consistent, &[("k", 10, first())]),
        "shows 10, 11 was known",
    );
    expect(
        |_, history| history.reads[1] = get(16, "k", Some((10, first()))),
        "was over before 11",
    );
    expect(
        |_, history| history.reads[1] = get(7, "k", None),
        "was over before 10",
    );
    expect(
        |_, history| {
            history.reads[3] = list(37, 11, Semantics::NotOlderThan(12), &[("k", 11, second())]);
        },
        "shows 11, 12 was known",
    );
    // Each by itself is allowed.
    expect(
        |_, history| {
            let old = Semantics::NotOlderThan(0);
            history.reads.push(list(
                60,
                14,
                old,
                &[("k", 13, patched()), ("l", 14, other())],
            ));
        },
        "session 1 read 15 and then 14",
    );
    expect(
        |_, history| history.reads[4].semantics = Semantics::Exact(9),
        "a list at 9 shows 10",
    );
}

#[test]
fn reads_of_what_never_was() {
    expect(
        |_, history| history.reads[1] = get(7, "k", Some((10, second()))),
        "never was",
    );
    // Parts of two states.
    expect(
        |_, history| {
            let mixed = [("k", 11, second()), ("l", 14, other())];
            history.reads[3] = list(37, 14, Semantics::NotOlderThan(12), &mixed);
        },
        "a list at 14 shows configmaps/k as",
    );
    expect(
        |_, history| history.reads[5] = list(50, 15, Semantics::Consistent, &[]),
        "a list at 15 shows configmaps/l as None",
    );
}

#[test]
fn events_that_are_skipped_repeated_or_out_of_order() {
    expect(
        |_, history| drop(history.watches[0].told.remove(0)),
        "10 is skipped, 11 follows",
    );
    expect(
        |_, history| history.watches[0].told.swap(0, 1),
        "10 is skipped, 11 follows",
    );
    expect(
        |_, history| {
            let again = history.watches[1].told[0].clone();
            history.watches[1].told.insert(1, again);
        },
        "at 13 is repeated, late or made up, 14 is next",
    );
    expect(
        |_, history| {
            let again = history.watches[1].told[2].clone();
            history.watches[1].told.push(again);
        },
        "never happened",
    );
}

#[test]
fn events_that_are_wrong() {
    expect(
        |_, history| history.watches[1].told[1] = event(Kind::Modified, "l", 14, other()),
        "is Added configmaps/l",
    );
    expect(
        |_, history| history.watches[1].told[1] = event(Kind::Added, "l", 14, first()),
        "is Added configmaps/l",
    );
    // No longer selected is gone.
    expect(
        |_, history| history.watches[2].told[1] = event(Kind::Modified, "k", 11, second()),
        "is Deleted configmaps/k",
    );
}

#[test]
fn bookmarks_that_run_ahead() {
    expect(
        |_, history| history.watches[0].told.swap(1, 2),
        "a bookmark at 12 before the event 11",
    );
    expect(
        |_, history| history.watches[0].told[2] = Told::Bookmark(9, false),
        "a bookmark at 9 after 11",
    );
}

#[test]
fn initial_events_that_are_not_the_state() {
    expect(
        |_, history| drop(history.watches[3].told.drain(..2)),
        "the state at 13 has configmaps/k as None",
    );
    expect(
        |_, history| {
            let never = event(Kind::Added, "l", 14, other());
            history.watches[3].told.insert(0, never);
        },
        "the state at 13 has configmaps/l as",
    );
    expect(
        |_, history| history.watches[3].told.truncate(2),
        "the initial events do not end",
    );
}

#[test]
fn watches_that_do_not_reach_the_end() {
    expect(
        |_, history| drop(history.watches[1].told.pop()),
        "15 never came",
    );
    expect(
        |_, history| drop(history.watches[2].told.pop()),
        "14 never came",
    );
}

#[test]
fn answers_that_do_not_belong_to_their_requests() {
    for (request, answer, reason) in [
        (
            Request::List,
            Answer::Missing,
            "List from 2000 to 4000 ms: Missing",
        ),
        (
            Request::Apply,
            Answer::Missing,
            "Apply from 2000 to 4000 ms: Missing",
        ),
        (Request::Get, Answer::Conflict, "Conflict"),
        (Request::List, Answer::Expired, "Expired"),
        (Request::Watch(From::State), Answer::Expired, "Expired"),
        (Request::Get, Answer::Wrong("garbled".into()), "garbled"),
    ] {
        expect(
            |_, history| history.asked[0] = asked(request, answer, 2 * SECOND),
            reason,
        );
    }
}

#[test]
fn servers_that_are_busy_or_gone_without_a_reason() {
    for at in [2, 14] {
        expect(
            |_, history| history.asked[2] = asked(Request::Update, Answer::Busy(503), at * SECOND),
            "Busy(503), and nobody was killed",
        );
    }
    expect(
        |_, history| history.asked[3] = asked(Request::List, Answer::Broken, 2 * SECOND),
        "Broken, and nobody was killed",
    );
    // A watch that ends by itself.
    expect(
        |_, history| {
            let watch = &mut history.watches[0];
            (watch.invoked, watch.completed) = (20 * SECOND, 30 * SECOND);
        },
        "Broken, and nobody was killed",
    );
}

#[test]
fn revisions_that_are_forgotten_too_soon() {
    let watch = |revision| Request::Watch(From::Revision(revision));
    // The second life begins at 9.
    expect(
        |_, history| history.asked[4].request = watch(9),
        "the server remembers since 9",
    );
    // Asked while the first, of 7, was there.
    expect(
        |_, history| history.asked[4] = asked(watch(8), Answer::Expired, 2 * SECOND),
        "the server remembers since 7",
    );
    expect(
        |_, history| history.asked[5].completed = 50 * SECOND,
        "Exact(11) from 100000 to 50000 ms: Expired",
    );
}

#[test]
fn watches_that_are_not_granted() {
    let refused = |history: &mut History, times| {
        let mut watch = history.watches[0].clone();
        watch.from = From::Revision(8);
        watch.told.clear();
        (watch.opened, watch.answer) = (false, Answer::Expired);
        (watch.invoked, watch.completed) = (20 * SECOND, 21 * SECOND);
        history.watches.splice(0..0, vec![watch; times]);
    };
    // Three are granted.
    let (truth, mut history) = good();
    refused(&mut history, 6);
    assert_eq!(check(&truth, &history), Vec::<String>::new());
    expect(
        |_, history| refused(history, 7),
        "watcher w: 3 watches of 10 were granted",
    );
    expect(
        |_, history| history.watches.truncate(1),
        "watcher w never came to the end",
    );
}

#[test]
fn applied_fields_are_added_or_begin_an_object() {
    let apply = |field: &str, value: &str| Action::Apply(field.into(), value.into());
    let (truth, mut history) = good();
    history.writes[3].action = apply("w0", "v3");
    assert_eq!(check(&truth, &history), Vec::<String>::new());
    // Another field than the one that was applied.
    expect(
        |_, history| history.writes[3].action = apply("w1", "v3"),
        "an update is lost",
    );
}

#[test]
fn updates_make_leases_and_no_config_maps() {
    let make = |sort: Sort| {
        let (mut truth, mut history) = good();
        let state = state(&[("value", "v5"), ("w0", "v3"), ("half", "a")]);
        let mut made = change(16, "l", Some(state.clone()));
        let mut update = write("l", Action::Update(3, state), 60, Outcome::Unknown);
        (made.key, update.key) = (sort.key("n"), sort.key("n"));
        truth.changes.push(made);
        history.writes.push(update);
        history
            .watches
            .iter_mut()
            .for_each(|watch| watch.last = false);
        let broken = check(&truth, &history);
        broken.iter().any(|text| text.contains("an update is lost"))
    };
    assert!(!make(Sort::Leases));
    assert!(make(Sort::ConfigMaps));
}

#[test]
fn sorts_are_told_apart() {
    // A list and a watch of others show nothing of these.
    expect(
        |_, history| history.reads[5].sort = Sort::Leases,
        "a list at 15 shows configmaps/l",
    );
    expect(
        |_, history| history.watches[1].sort = Sort::Leases,
        "Modified configmaps/k at 13 never happened",
    );
    // Each sort may be behind by itself.
    let (truth, mut history) = good();
    let mut read = list(60, 12, Semantics::NotOlderThan(0), &[]);
    read.sort = Sort::Leases;
    history.reads.push(read);
    assert_eq!(check(&truth, &history), Vec::<String>::new());
}
