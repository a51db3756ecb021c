//! The suite. Each case leaves its own namespace behind; a case may write to any other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::history;
use super::process::Member;
use super::subject::{Cached, Direct, PREFIX, Subject, Told};
use crate::storage::fake::Fake;
use crate::storage::{Result, Revision, Storage, StorageError};

/// How long a value that must come may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn create(subject: &dyn Subject, key: &str, value: &str) -> Result<Revision> {
    let value = Bytes::copy_from_slice(value.as_bytes());
    let store = subject.store();
    store.create(&format!("{PREFIX}{key}"), value, None).await
}

pub(super) async fn update(
    subject: &dyn Subject,
    key: &str,
    value: &str,
    expected: Revision,
) -> Result<Revision> {
    let value = Bytes::copy_from_slice(value.as_bytes());
    let key = format!("{PREFIX}{key}");
    subject.store().update(&key, value, expected, None).await
}

pub(super) async fn delete(
    subject: &dyn Subject,
    key: &str,
    expected: Revision,
) -> Result<Revision> {
    let key = format!("{PREFIX}{key}");
    subject.store().delete(&key, expected).await
}

async fn everything(subject: &dyn Subject) {
    creates(subject).await;
    updates(subject).await;
    deletes(subject).await;
    reads_what_was_written(subject).await;
    pages(subject).await;
    old_revisions(subject).await;
    watches(subject).await;
    future(subject).await;
    history::concurrent_writers(subject).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd() {
    let member = Member::single(&[]);
    everything(&Direct(member.client().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_on_etcd() {
    let member = Member::single(&[]);
    everything(&Cached::new(member.client().await).await).await;
}

/// So that what is tested on the fake is worth something.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fake() {
    everything(&Direct(Fake::new())).await;
    everything(&Cached::new(Fake::new()).await).await;
}

async fn creates(subject: &dyn Subject) {
    assert_eq!(subject.get("create/a", 0).await.unwrap(), None);
    let revision = create(subject, "create/a", "v=1").await.unwrap();
    let found = subject.get("create/a", 0).await.unwrap();
    assert_eq!(found, Some(("create/a".into(), revision, "v=1".into())));
    let again = create(subject, "create/a", "v=2").await;
    assert!(matches!(again, Err(StorageError::Exists(key)) if key == "/registry/pods/create/a"));
    let found = subject.get("create/a", 0).await.unwrap();
    assert_eq!(found, Some(("create/a".into(), revision, "v=1".into())));
}

async fn updates(subject: &dyn Subject) {
    let missing = update(subject, "update/a", "v=0", 1).await;
    assert!(matches!(
        missing,
        Err(StorageError::Conflict { current: None })
    ));
    let first = create(subject, "update/a", "v=1").await.unwrap();
    let second = update(subject, "update/a", "v=2", first).await.unwrap();
    assert!(second > first);
    // The conflict brings what the caller needs to try again.
    let stale = update(subject, "update/a", "v=3", first).await;
    let Err(StorageError::Conflict {
        current: Some(current),
    }) = stale
    else {
        panic!("{stale:?}");
    };
    assert_eq!(current.mod_revision, second);
    assert_eq!(current.key, "/registry/pods/update/a");
    assert_eq!(&current.value[..], b"v=2");
    let found = subject.get("update/a", 0).await.unwrap().unwrap();
    assert_eq!((found.1, found.2.as_str()), (second, "v=2"));
}

async fn deletes(subject: &dyn Subject) {
    let missing = delete(subject, "delete/a", 1).await;
    assert!(matches!(missing, Err(StorageError::NotFound(_))));
    let first = create(subject, "delete/a", "v=1").await.unwrap();
    let second = update(subject, "delete/a", "v=2", first).await.unwrap();
    let stale = delete(subject, "delete/a", first).await;
    assert!(
        matches!(stale, Err(StorageError::Conflict { current: Some(kv) }) if kv.mod_revision == second)
    );
    let gone = delete(subject, "delete/a", second).await.unwrap();
    assert!(gone > second);
    assert_eq!(subject.get("delete/a", 0).await.unwrap(), None);
    create(subject, "delete/a", "v=3").await.unwrap();
}

async fn reads_what_was_written(subject: &dyn Subject) {
    let mut revision = create(subject, "rw/a", "v=0").await.unwrap();
    for n in 1..50 {
        let value = format!("v={n}");
        revision = update(subject, "rw/a", &value, revision).await.unwrap();
        let found = subject.get("rw/a", 0).await.unwrap();
        assert_eq!(found, Some(("rw/a".into(), revision, value)));
        // A key that no watch of ours sees makes the newest revision.
        if n % 10 == 0 {
            let foreign = format!("/elsewhere/{}", uuid::Uuid::new_v4());
            let store = subject.store();
            let newest = store.create(&foreign, Bytes::new(), None).await.unwrap();
            assert!(subject.list("", 0, 0).await.unwrap().revision >= newest);
        }
    }
}

async fn pages(subject: &dyn Subject) {
    for n in 0..25 {
        create(subject, &format!("pages/{n:02}"), "").await.unwrap();
    }
    let all = subject.list("pages/", 0, 0).await.unwrap();
    let all_pages = || all.items.iter().filter(|item| item.0.starts_with("pages/"));
    assert_eq!(all_pages().count(), 25);
    assert!(all.items.is_sorted());
    let mut got = Vec::new();
    let mut start = "pages/".to_owned();
    let mut at = 0;
    loop {
        let page = subject.list(&start, 7, at).await.unwrap();
        if at == 0 {
            at = page.revision;
            // What happens after the first page is not on the others.
            create(subject, "pages/00a", "").await.unwrap();
            create(subject, "pages/24a", "").await.unwrap();
            let (key, revision, _) = &all.items[10];
            delete(subject, key, *revision).await.unwrap();
        }
        assert_eq!(page.revision, at);
        let last = page.items.last().unwrap().0.clone();
        got.extend(page.items);
        start = format!("{last}\0");
        if !page.more {
            break;
        }
        assert_eq!(got.len() % 7, 0);
    }
    got.retain(|item| item.0.starts_with("pages/"));
    assert_eq!(got, all_pages().cloned().collect::<Vec<_>>());
}

async fn old_revisions(subject: &dyn Subject) {
    let first = create(subject, "old/a", "v=1").await.unwrap();
    let second = update(subject, "old/a", "v=2", first).await.unwrap();
    let third = delete(subject, "old/a", second).await.unwrap();
    for (at, value) in [
        (first - 1, None),
        (first, Some("v=1")),
        (second, Some("v=2")),
        (third, None),
    ] {
        let found = subject.get("old/a", at).await.unwrap();
        assert_eq!(found.as_ref().map(|item| item.2.as_str()), value, "at {at}");
        let page = subject.list("old/a", 1, at).await.unwrap();
        assert_eq!(page.revision, at);
        let listed = page.items.first().filter(|item| item.0 == "old/a");
        assert_eq!(listed, found.as_ref(), "at {at}");
    }
}

async fn watches(subject: &dyn Subject) {
    let first = create(subject, "watch/a", "v=1").await.unwrap();
    let mut live = subject.watch(first).await.unwrap();
    let second = update(subject, "watch/a", "v=2", first).await.unwrap();
    let other = create(subject, "watch/b", "").await.unwrap();
    let third = delete(subject, "watch/a", second).await.unwrap();
    let fourth = create(subject, "watch/a", "v=3").await.unwrap();
    let put = |key: &str, revision, value: &str| Told::Put((key.into(), revision, value.into()));
    let expected = [
        put("watch/a", second, "v=2"),
        put("watch/b", other, ""),
        Told::Gone("watch/a".into(), third),
        put("watch/a", fourth, "v=3"),
    ];
    let mut resumed = subject.watch(second).await.unwrap();
    for told in &expected {
        assert_eq!(next(&mut live).await, *told);
    }
    for told in &expected[1..] {
        assert_eq!(next(&mut resumed).await, *told);
    }
}

pub(super) async fn next<S>(stream: &mut S) -> Told
where
    S: futures::Stream<Item = Result<Told>> + Unpin,
{
    tokio::time::timeout(PATIENCE, stream.next())
        .await
        .expect("a change comes")
        .expect("the watch lives")
        .expect("the watch is sound")
}

async fn future(subject: &dyn Subject) {
    let now = subject.store().current_revision().await.unwrap();
    let asked = now + 1_000_000;
    let list = subject.list("", 0, asked).await.map(|page| page.items);
    let Err(StorageError::Future {
        asked: named,
        current,
    }) = list
    else {
        panic!("{list:?}");
    };
    assert_eq!(named, asked);
    assert!(current >= now);
}

/// What the state must be after some changes, for cases that replay them.
pub(super) fn replay(changes: &[Told], until: Revision) -> BTreeMap<String, (Revision, String)> {
    let mut state = BTreeMap::new();
    for change in changes {
        match change {
            Told::Put((key, revision, value)) if *revision <= until => {
                state.insert(key.clone(), (*revision, value.clone()));
            }
            Told::Gone(key, revision) if *revision <= until => {
                state.remove(key);
            }
            _ => {}
        }
    }
    state
}

/// A cache that lives as long as a test.
pub(super) async fn cached(store: Arc<dyn Storage>) -> Cached {
    Cached::new(store).await
}
