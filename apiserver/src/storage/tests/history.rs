//! Many writers at once, then the books are checked: every acknowledged write is in the history
//! once, in order, and every list is the history up to its revision.

use std::collections::{BTreeMap, HashMap};

use futures::future::join_all;

use super::subject::{Subject, Told};
use super::suite::{create, delete, next, replay, update};
use crate::storage::{Revision, StorageError};

const WRITERS: usize = 8;
const WRITES: usize = 40;
const KEYS: usize = 5;

/// What a writer was promised.
#[derive(Default)]
struct Acknowledged {
    /// By revision: the key and what it then holds.
    writes: BTreeMap<Revision, (String, Option<String>)>,
}

pub(super) async fn concurrent_writers(subject: &dyn Subject) {
    let start = subject.store().current_revision().await.unwrap();
    let mut watch = subject.watch(start).await.unwrap();
    let lists = async {
        let mut lists = Vec::new();
        for _ in 0..30 {
            lists.push(subject.list("hist/", 0, 0).await.unwrap());
            tokio::task::yield_now().await;
        }
        lists
    };
    let writers = join_all((0..WRITERS).map(|writer| write(subject, writer)));
    let (outcomes, lists) = futures::join!(writers, lists);

    let mut acknowledged = BTreeMap::new();
    for outcome in outcomes {
        for (revision, write) in outcome.writes {
            let twice = acknowledged.insert(revision, write);
            assert!(twice.is_none(), "two writes of one revision");
        }
    }
    let mut changes = Vec::new();
    let last = *acknowledged.keys().last().unwrap();
    loop {
        let change = next(&mut watch).await;
        let revision = match &change {
            Told::Put((_, revision, _)) | Told::Gone(_, revision) => *revision,
        };
        changes.push(change);
        if revision >= last {
            break;
        }
    }
    // Exactly what was acknowledged, in order.
    let told: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Told::Put((key, revision, value)) => (*revision, (key.clone(), Some(value.clone()))),
            Told::Gone(key, revision) => (*revision, (key.clone(), None)),
        })
        .collect();
    assert_eq!(told, acknowledged.into_iter().collect::<Vec<_>>());
    // Each list is a state that there was.
    for list in lists {
        let state = list
            .items
            .into_iter()
            .filter(|item| item.0.starts_with("hist/"))
            .map(|(key, revision, value)| (key, (revision, value)))
            .collect::<BTreeMap<_, _>>();
        assert_eq!(
            state,
            replay(&changes, list.revision),
            "at {}",
            list.revision
        );
    }
    // And can be had again.
    let mut middle = start;
    while middle < last {
        let list = subject.list("hist/", 0, middle).await.unwrap();
        let items: HashMap<_, _> = list.items.into_iter().map(|i| (i.0, i.1)).collect();
        for (key, (revision, _)) in replay(&changes, middle) {
            assert_eq!(items.get(&key), Some(&revision), "{key} at {middle}");
        }
        middle += 37;
    }
}

/// Creates, updates and deletes keys that the others write to as well.
async fn write(subject: &dyn Subject, writer: usize) -> Acknowledged {
    let mut acknowledged = Acknowledged::default();
    for n in 0..WRITES {
        let key = format!("hist/{}", (writer + n) % KEYS);
        let value = format!("writer={writer}\nn={n}");
        loop {
            let current = subject.get(&key, 0).await.unwrap();
            let (outcome, value) = match current {
                None => (create(subject, &key, &value).await, Some(value.clone())),
                Some((_, revision, _)) if n % 7 == 3 => {
                    (delete(subject, &key, revision).await, None)
                }
                Some((_, revision, _)) => (
                    update(subject, &key, &value, revision).await,
                    Some(value.clone()),
                ),
            };
            match outcome {
                Ok(revision) => {
                    acknowledged.writes.insert(revision, (key, value));
                    break;
                }
                // Somebody was faster.
                Err(
                    StorageError::Conflict { .. }
                    | StorageError::Exists(_)
                    | StorageError::NotFound(_),
                ) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    acknowledged
}
