//! The cache on a fake store, with paused time: what etcd's timing would make slow or random.
//!
//! What is true of etcd and the cache alike is in `storage::tests`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::task::JoinHandle;

use super::testing::definition;
use super::*;
use crate::storage::fake::Fake;
use crate::storage::{Storage, StorageError};

/// A cache of pods that runs on a fake store until it is dropped.
struct Rig {
    store: Arc<Fake>,
    cache: Arc<Cache>,
    pods: Arc<ResourceCache>,
    writer: JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

fn options() -> Options {
    Options {
        page_size: 3,
        ..Options::default()
    }
}

impl Rig {
    async fn new(seed: &[(&str, &str)]) -> Self {
        Self::with(options(), seed).await
    }

    async fn with(options: Options, seed: &[(&str, &str)]) -> Self {
        let store = Fake::new();
        for (key, value) in seed {
            store.put(&format!("/registry/{key}"), value);
        }
        let cache = Cache::new(store.clone(), options, Metrics::unregistered());
        let pods = cache.register(definition("pods", true));
        let writer = tokio::spawn(cache.clone().run());
        cache.synced().await;
        Self {
            store,
            cache,
            pods,
            writer,
        }
    }

    /// Writes a pod and waits for the cache to see it.
    async fn put(&self, key: &str, value: &str) -> Revision {
        let revision = self.store.put(&format!("/registry/pods/{key}"), value);
        self.cache.wait_for(revision).await.unwrap();
        revision
    }

    async fn remove(&self, key: &str) -> Revision {
        let revision = self.store.remove(&format!("/registry/pods/{key}"));
        self.cache.wait_for(revision).await.unwrap();
        revision
    }

    async fn list(&self, selector: &Selector, at: At) -> Result<List> {
        let query = ListQuery {
            selector,
            at,
            limit: 0,
            start: "",
        };
        self.pods.list(&query).await
    }

    async fn watch(&self, selector: Selector, start: Start) -> Result<Watcher> {
        let query = WatchQuery {
            selector,
            start,
            bookmarks: false,
        };
        self.pods.watch(query).await
    }

    fn select(&self, namespace: &str, labels: &str, fields: &str) -> Selector {
        let labels = meta::labels::Selector::parse(labels).unwrap();
        let fields = meta::fields::Selector::parse(fields).unwrap();
        Selector::new(self.pods.definition(), namespace, labels, &fields).unwrap()
    }
}

fn names(list: &List) -> Vec<&str> {
    list.objects.iter().map(|object| object.key()).collect()
}

/// What a watch says, in short: `+a@5`, `~a@6`, `-a@7`, `b@9` for a bookmark.
fn short(item: &WatchItem) -> String {
    match item {
        WatchItem::Added(o) => format!("+{o:?}"),
        WatchItem::Modified(o) => format!("~{o:?}"),
        WatchItem::Deleted(o) => format!("-{o:?}"),
        WatchItem::Bookmark {
            revision,
            initial_events_end,
        } => format!(
            "{}@{revision}",
            if *initial_events_end { "end" } else { "b" }
        ),
    }
}

/// All that a watch has to say now.
fn ready(watcher: &mut Watcher) -> Vec<String> {
    let mut items = Vec::new();
    while let Some(Some(item)) = watcher.next().now_or_never() {
        items.push(short(&item.unwrap()));
    }
    items
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_key_order_with_their_revision() {
    let rig = Rig::new(&[
        ("pods/b/2", ""),
        ("pods/a/1", ""),
        ("pods/b/1", ""),
        ("pods/b-c/1", ""),
        ("other/x", ""),
    ])
    .await;
    let all = rig.list(&Selector::default(), At::Any).await.unwrap();
    assert_eq!(names(&all), ["a/1", "b-c/1", "b/1", "b/2"]);
    assert_eq!(all.revision, 6);
    let b = rig.list(&rig.select("b", "", ""), At::Any).await.unwrap();
    assert_eq!(names(&b), ["b/1", "b/2"]);
    let one = rig.select("", "", "metadata.name=1,metadata.namespace=b");
    assert_eq!(names(&rig.list(&one, At::Any).await.unwrap()), ["b/1"]);
    // A name in every namespace.
    let ones = rig.select("", "", "metadata.name=1");
    for at in [At::Any, At::Exact(6)] {
        let found = rig.list(&ones, at).await.unwrap();
        assert_eq!(names(&found), ["a/1", "b-c/1", "b/1"]);
    }
    let none = rig.select("", "", "metadata.name=3");
    assert!(rig.list(&none, At::Any).await.unwrap().objects.is_empty());
    let both = rig.select("a", "", "metadata.namespace=b");
    assert!(rig.list(&both, At::Any).await.unwrap().objects.is_empty());
}

#[tokio::test(start_paused = true)]
async fn pages_continue_one_state() {
    let rig = Rig::new(&[]).await;
    for n in 0..7 {
        rig.put(&format!("ns/{n}"), "app=web").await;
    }
    let everything = Selector::default();
    let labelled = rig.select("", "app=web", "");
    for (selector, counts) in [(&everything, true), (&labelled, false)] {
        let mut query = ListQuery {
            selector,
            at: At::Latest,
            limit: 3,
            start: "",
        };
        let first = rig.pods.list(&query).await.unwrap();
        assert_eq!(names(&first), ["ns/0", "ns/1", "ns/2"]);
        assert!(first.more);
        assert_eq!(first.remaining, counts.then_some(4));
        // Neither a deletion nor a creation shows on the later pages.
        rig.remove("ns/4").await;
        rig.put("ns/5a", "app=web").await;
        query.at = At::Exact(first.revision);
        query.start = "ns/2\0";
        let second = rig.pods.list(&query).await.unwrap();
        assert_eq!(names(&second), ["ns/3", "ns/4", "ns/5"]);
        assert_eq!((second.more, second.revision), (true, first.revision));
        query.start = "ns/5\0";
        let third = rig.pods.list(&query).await.unwrap();
        assert_eq!(names(&third), ["ns/6"]);
        assert_eq!((third.more, third.remaining), (false, None));
        rig.put("ns/4", "app=web").await;
        rig.remove("ns/5a").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_page_may_have_a_successor() {
    let rig = Rig::new(&[]).await;
    for (name, labels) in [("a", "v=1"), ("b", "v=2"), ("c", "v=1"), ("d", "v=2")] {
        rig.put(&format!("ns/{name}"), labels).await;
    }
    // Twice: by then an index may know the label.
    for (labels, limit, more) in [
        ("v=1", 2, true),
        ("v=2", 2, false),
        ("v=1", 3, false),
        ("v=1", 2, true),
        ("v=2", 2, false),
    ] {
        let selector = rig.select("", labels, "");
        let query = ListQuery {
            selector: &selector,
            at: At::Latest,
            limit,
            start: "",
        };
        let list = rig.pods.list(&query).await.unwrap();
        assert_eq!(list.objects.len(), 2);
        assert_eq!(
            (list.more, list.remaining),
            (more, None),
            "{labels} {limit}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_history_has_forgotten_is_read_from_the_store() {
    let rig = Rig::new(&[]).await;
    let old = rig.put("ns/a", "v=1").await;
    rig.put("ns/a", "v=2").await;
    rig.put("ns/b", "v=1").await;
    rig.pods.shrink_history_to(0);
    let everything = Selector::default();
    let list = rig.list(&everything, At::Exact(old)).await.unwrap();
    assert_eq!(names(&list), ["ns/a"]);
    assert_eq!(list.revision, old);
    assert_eq!(list.objects[0].labels().get("v"), Some("1"));
    let found = rig.pods.get("ns/a", At::Exact(old)).await.unwrap().unwrap();
    assert_eq!(found.revision(), old);
    rig.store.compact(old + 1);
    let gone = rig.list(&everything, At::Exact(old)).await;
    assert!(matches!(gone, Err(StorageError::Compacted { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_is_compacted_is_gone_for_lists() {
    let rig = Rig::new(&[]).await;
    let old = rig.put("ns/a", "v=1").await;
    let new = rig.put("ns/a", "v=2").await;
    let everything = Selector::default();
    rig.store.compact(new);
    assert!(rig.list(&everything, At::Exact(old)).await.is_ok());
    rig.cache.compacted(new);
    let gone = rig.list(&everything, At::Exact(old)).await;
    assert!(matches!(gone, Err(StorageError::Compacted { .. })));
    assert!(rig.list(&everything, At::Exact(new)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn objects_enter_and_leave_selectors() {
    let rig = Rig::new(&[]).await;
    let selector = rig.select("ns", "app=web", "");
    let start = rig.cache.revision();
    let mut live = rig
        .watch(selector.clone(), Start::After(start))
        .await
        .unwrap();
    rig.put("ns/a", "app=db").await;
    let entered = rig.put("ns/a", "app=web").await;
    let changed = rig.put("ns/a", "app=web\nv=2").await;
    let left = rig.put("ns/a", "app=db").await;
    rig.put("other/a", "app=web").await;
    rig.put("ns/b", "app=web").await;
    let gone = rig.remove("ns/b").await;
    rig.remove("ns/a").await;
    let expected = [
        format!("+ns/a@{entered}"),
        format!("~ns/a@{changed}"),
        format!("-ns/a@{left}"),
        format!("+ns/b@{}", gone - 1),
        format!("-ns/b@{gone}"),
    ];
    assert_eq!(ready(&mut live), expected);
    // The same out of history.
    let mut resumed = rig
        .watch(selector.clone(), Start::After(start))
        .await
        .unwrap();
    assert_eq!(ready(&mut resumed), expected);
    let mut later = rig.watch(selector, Start::After(changed)).await.unwrap();
    let left_item = later.next().await.unwrap().unwrap();
    let WatchItem::Deleted(object) = &left_item else {
        panic!("{left_item:?}");
    };
    // As it was before, at the revision of the change.
    assert_eq!(object.labels().get("app"), Some("web"));
    let bytes = format!("rv={left}\napp=web\nv=2");
    assert_eq!(object.bytes(), bytes.as_bytes());
}

#[tokio::test(start_paused = true)]
async fn watchers_of_a_node_hear_of_their_pods_only() {
    let rig = Rig::new(&[("pods/ns/old", "node=n1")]).await;
    let on = |node: &str| rig.select("", "", &format!("spec.nodeName={node}"));
    let state = Start::State {
        at: At::Latest,
        marked: true,
    };
    let mut n1 = rig.watch(on("n1"), state).await.unwrap();
    let mut n2 = rig.watch(on("n2"), state).await.unwrap();
    let rev = rig.cache.revision();
    assert_eq!(
        ready(&mut n1),
        [format!("+ns/old@{rev}"), format!("end@{rev}")]
    );
    assert_eq!(ready(&mut n2), [format!("end@{rev}")]);
    let pending = rig.put("ns/a", "").await;
    let bound = rig.put("ns/a", "node=n2").await;
    assert_eq!(ready(&mut n1), [""; 0]);
    assert_eq!(ready(&mut n2), [format!("+ns/a@{bound}")]);
    assert_eq!(bound, pending + 1);
    // Real pods do not move; the index follows all the same.
    let moved = rig.put("ns/a", "node=n1").await;
    assert_eq!(ready(&mut n1), [format!("+ns/a@{moved}")]);
    assert_eq!(ready(&mut n2), [format!("-ns/a@{moved}")]);
    let list = rig.list(&on("n1"), At::Latest).await.unwrap();
    assert_eq!(names(&list), ["ns/a", "ns/old"]);
    assert!(
        rig.list(&on("n2"), At::Any)
            .await
            .unwrap()
            .objects
            .is_empty()
    );
    let not = rig.select("", "", "spec.nodeName!=n1");
    assert!(rig.list(&not, At::Any).await.unwrap().objects.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_one_object_by_name() {
    let rig = Rig::new(&[("pods/ns/a", ""), ("pods/ns/b", "")]).await;
    let start = Start::State {
        at: At::Any,
        marked: false,
    };
    let selector = rig.select("ns", "", "metadata.name=a");
    let mut watch = rig.watch(selector, start).await.unwrap();
    rig.put("ns/b", "").await;
    let gone = rig.remove("ns/a").await;
    assert_eq!(
        ready(&mut watch),
        ["+ns/a@2".into(), format!("-ns/a@{gone}")]
    );
    assert_eq!(rig.pods.watchers(), 1);
    drop(watch);
    assert_eq!(rig.pods.watchers(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_cut_off() {
    let options = Options {
        watcher_bytes: 4000,
        ..options()
    };
    let rig = Rig::with(options, &[]).await;
    let start = Start::After(rig.cache.revision());
    let mut slow = rig.watch(Selector::default(), start).await.unwrap();
    let mut fast = rig.watch(Selector::default(), start).await.unwrap();
    let value = format!("v={}", "x".repeat(1000));
    let mut seen = 0;
    for n in 0..5 {
        rig.put(&format!("ns/{n}"), &value).await;
        seen += ready(&mut fast).len();
    }
    assert_eq!(seen, 5);
    assert_eq!(rig.pods.watchers(), 1);
    // No error: the client resumes where it was.
    assert!(slow.next().await.is_none());
    assert!(fast.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn history_is_bounded_in_bytes_and_spares_the_quiet() {
    let options = Options {
        history_bytes: 20_000,
        ..options()
    };
    let rig = Rig::with(options, &[]).await;
    let nodes = rig.cache.register(definition("nodes", false));
    let start = rig.cache.revision();
    let quiet = rig.store.put("/registry/nodes/n", "");
    for _ in 0..100 {
        rig.put("ns/a", &format!("v={}", "x".repeat(500))).await;
    }
    assert!(rig.pods.history_bytes() + nodes.history_bytes() <= 20_000);
    let too_old = rig.watch(Selector::default(), Start::After(start)).await;
    assert!(matches!(too_old, Err(StorageError::Compacted { .. })));
    let query = WatchQuery {
        selector: Selector::default(),
        start: Start::After(start),
        bookmarks: false,
    };
    let mut watch = nodes.watch(query).await.unwrap();
    assert_eq!(ready(&mut watch), [format!("+n@{quiet}")]);
}

#[tokio::test(start_paused = true)]
async fn history_ages() {
    let options = Options {
        history_least: 1,
        ..options()
    };
    let rig = Rig::with(options, &[]).await;
    let start = rig.cache.revision();
    rig.put("ns/a", "").await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let kept = rig.put("ns/b", "").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let old = rig.watch(Selector::default(), Start::After(start)).await;
    assert!(matches!(old, Err(StorageError::Compacted { .. })));
    let start = Start::After(kept - 1);
    let mut watch = rig.watch(Selector::default(), start).await.unwrap();
    assert_eq!(ready(&mut watch), [format!("+ns/b@{kept}")]);
}

#[tokio::test(start_paused = true)]
async fn modifications_that_mean_nothing_are_passed_over() {
    let rig = Rig::new(&[("pods/ns/a", "v=1")]).await;
    let start = Start::Now;
    let watch = rig.watch(Selector::default(), start).await.unwrap();
    let mut watch = watch.passing_over(Box::new(|before: &Object, after: &Object| {
        before.bytes().len() == after.bytes().len()
    }));
    rig.put("ns/a", "v=2").await;
    let longer = rig.put("ns/a", "v=longer").await;
    let created = rig.put("ns/b", "v=longer").await;
    assert_eq!(
        ready(&mut watch),
        [format!("~ns/a@{longer}"), format!("+ns/b@{created}")]
    );
}

#[tokio::test(start_paused = true)]
async fn bookmarks_tell_the_revision() {
    let rig = Rig::new(&[("pods/ns/a", "")]).await;
    let query = WatchQuery {
        selector: rig.select("none", "", ""),
        start: Start::Now,
        bookmarks: true,
    };
    let mut watch = rig.pods.watch(query).await.unwrap();
    let revision = rig.put("ns/b", "").await;
    let bookmark = watch.next().await.unwrap().unwrap();
    assert_eq!(short(&bookmark), format!("b@{revision}"));
    // Those that nobody has read yet become one.
    let revision = rig.put("ns/b", "v=2").await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(ready(&mut watch), [format!("b@{revision}")]);
    // Or when they are asked for.
    let revision = rig.put("ns/b", "v=3").await;
    let seen = At::NotOlderThan(revision);
    rig.list(&rig.select("none", "", ""), seen).await.unwrap();
    watch.marker().mark();
    assert_eq!(ready(&mut watch), [format!("b@{revision}")]);
}

#[tokio::test(start_paused = true)]
async fn consistent_reads_ask_for_progress_past_other_keys() {
    let rig = Rig::new(&[("pods/ns/a", "")]).await;
    let elsewhere = rig.store.put("compact_rev_key", "1");
    let list = rig.list(&Selector::default(), At::Latest).await.unwrap();
    assert_eq!(list.revision, elsewhere);
    assert_eq!(rig.cache.revision(), elsewhere);
}

#[tokio::test(start_paused = true)]
async fn an_etcd_without_progress_requests_answers_itself() {
    let rig = Rig::new(&[("pods/ns/a", "")]).await;
    rig.store.refuse_progress();
    rig.store.break_watches();
    let before = rig.put("ns/b", "").await;
    let elsewhere = rig.store.put("compact_rev_key", "1");
    let list = rig.list(&Selector::default(), At::Latest).await.unwrap();
    assert_eq!(names(&list), ["ns/a", "ns/b"]);
    assert_eq!(list.revision, elsewhere);
    assert_eq!(rig.cache.revision(), before);
    let found = rig.pods.get("ns/b", At::Latest).await.unwrap().unwrap();
    assert_eq!(found.revision(), before);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_does_not_come_is_too_large() {
    let rig = Rig::new(&[]).await;
    let current = rig.cache.revision();
    let start = tokio::time::Instant::now();
    let list = rig.list(&Selector::default(), At::NotOlderThan(1000)).await;
    assert!(matches!(list, Err(StorageError::Future { asked: 1000, current: c }) if c == current));
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_resumes_without_a_gap() {
    let rig = Rig::new(&[]).await;
    let start = Start::After(rig.cache.revision());
    let mut watch = rig.watch(Selector::default(), start).await.unwrap();
    let first = rig.put("ns/a", "").await;
    rig.store.break_watches();
    let second = rig.put("ns/a", "v=2").await;
    assert_eq!(
        ready(&mut watch),
        [format!("+ns/a@{first}"), format!("~ns/a@{second}")]
    );
}

#[tokio::test(start_paused = true)]
async fn lost_history_ends_watches_with_410() {
    let rig = Rig::new(&[("pods/ns/a", "")]).await;
    let mut watch = rig.watch(Selector::default(), Start::Now).await.unwrap();
    let seen = rig.cache.revision();
    // Nobody runs between these: the writer finds the history gone.
    rig.store.break_watches();
    rig.store.remove("/registry/pods/ns/a");
    let last = rig.store.put("/registry/pods/ns/b", "");
    rig.store.compact(last);
    let end = watch.next().await.unwrap();
    assert!(
        matches!(end, Err(StorageError::Compacted { .. })),
        "{end:?}"
    );
    assert!(watch.next().await.is_none());
    rig.cache.wait_for(last).await.unwrap();
    let list = rig.list(&Selector::default(), At::Any).await.unwrap();
    assert_eq!(names(&list), ["ns/b"]);
    let resumed = rig.watch(Selector::default(), Start::After(seen)).await;
    assert!(matches!(resumed, Err(StorageError::Compacted { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_restored_etcd_is_believed() {
    let rig = Rig::new(&[("pods/ns/a", "")]).await;
    let backup = rig.cache.revision();
    rig.put("ns/b", "").await;
    rig.put("ns/c", "").await;
    let mut watch = rig.watch(Selector::default(), Start::Now).await.unwrap();
    rig.store.restore(backup);
    let end = watch.next().await.unwrap();
    assert!(
        matches!(end, Err(StorageError::Compacted { .. })),
        "{end:?}"
    );
    let list = rig.list(&Selector::default(), At::Latest).await.unwrap();
    assert_eq!((names(&list), list.revision), (vec!["ns/a"], backup));
    let again = rig.put("ns/d", "").await;
    assert_eq!(again, backup + 1);
    let list = rig.list(&Selector::default(), At::Latest).await.unwrap();
    assert_eq!(names(&list), ["ns/a", "ns/d"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_skipped() {
    let rig = Rig::new(&[("pods/ns/bad", "not a label"), ("pods/ns/a", "")]).await;
    let mut watch = rig.watch(Selector::default(), Start::Now).await.unwrap();
    rig.put("ns/worse", "again not").await;
    rig.put("ns/a", "broken too").await;
    let fine = rig.put("ns/b", "").await;
    rig.remove("ns/bad").await;
    assert_eq!(ready(&mut watch), [format!("+ns/b@{fine}")]);
    let list = rig.list(&Selector::default(), At::Any).await.unwrap();
    assert_eq!(names(&list), ["ns/a", "ns/b"]);
}

#[tokio::test(start_paused = true)]
async fn a_revision_is_applied_whole() {
    let rig = Rig::new(&[]).await;
    let start = rig.cache.revision();
    let first = "/registry/pods/ns/a";
    let second = "/registry/pods/ns/b";
    let both = rig.store.put_all(&[(first, Some("")), (second, Some(""))]);
    rig.cache.wait_for(both).await.unwrap();
    let gone = rig.store.put_all(&[(first, None), (second, None)]);
    rig.cache.wait_for(gone).await.unwrap();
    let expected = [
        format!("+ns/a@{both}"),
        format!("+ns/b@{both}"),
        format!("-ns/a@{gone}"),
        format!("-ns/b@{gone}"),
    ];
    let mut watch = rig
        .watch(Selector::default(), Start::After(start))
        .await
        .unwrap();
    assert_eq!(ready(&mut watch), expected);
    let middle = rig.list(&Selector::default(), At::Exact(both)).await;
    assert_eq!(names(&middle.unwrap()), ["ns/a", "ns/b"]);
}

#[tokio::test(start_paused = true)]
async fn resources_come_at_run_time() {
    let rig = Rig::new(&[("example.com/tabs/ns/a", "v=1")]).await;
    let changed = rig.store.put("/registry/example.com/tabs/ns/b", "");
    rig.store.put("/registry/example.com/tabs/ns/c", "");
    let removed = rig.store.remove("/registry/example.com/tabs/ns/c");
    rig.cache.wait_for(removed).await.unwrap();
    let tabs = rig.cache.register(Definition {
        storage_prefix: "example.com/tabs".into(),
        ..definition("tabs", true)
    });
    let everything = Selector::default();
    let query = ListQuery {
        selector: &everything,
        at: At::Any,
        limit: 0,
        start: "",
    };
    let list = tabs.list(&query).await.unwrap();
    assert_eq!(names(&list), ["ns/a", "ns/b"]);
    assert_eq!(list.objects[1].revision(), changed);
    let follow = WatchQuery {
        selector: Selector::default(),
        start: Start::After(list.revision),
        bookmarks: false,
    };
    let mut watch = tabs.watch(follow).await.unwrap();
    let more = rig.store.put("/registry/example.com/tabs/ns/d", "");
    rig.cache.wait_for(more).await.unwrap();
    assert_eq!(ready(&mut watch), [format!("+ns/d@{more}")]);
}

#[tokio::test(start_paused = true)]
async fn encodings_are_made_once_and_stay_in_their_budget() {
    let options = Options {
        encoding_bytes: 250,
        ..options()
    };
    let rig = Rig::with(
        options,
        &[("pods/ns/a", ""), ("pods/ns/b", ""), ("pods/ns/c", "")],
    )
    .await;
    let list = rig.list(&Selector::default(), At::Any).await.unwrap();
    let mut made = 0;
    let mut encode = |object: &Arc<Object>, id: u32| {
        let bytes = object.encoding(id, |_| {
            made += 1;
            Ok::<_, ()>(Bytes::from(vec![0; 100]))
        });
        assert_eq!(bytes.unwrap().len(), 100);
        made
    };
    let [a, b, c] = &list.objects[..] else {
        panic!("three pods");
    };
    assert_eq!(encode(a, 1), 1);
    assert_eq!(encode(a, 1), 1);
    assert_eq!(encode(a, 2), 2);
    // Over the budget: the first goes, with all of its forms.
    assert_eq!(encode(b, 1), 3);
    assert_eq!(encode(b, 1), 3);
    assert_eq!(encode(a, 1), 4);
    assert_eq!(encode(c, 1), 5);
    assert_eq!(encode(b, 1), 6);
}

#[tokio::test]
async fn reads_wait_for_the_first_fill() {
    let store = Fake::new();
    store.put("/registry/pods/ns/a", "");
    let cache = Cache::new(store.clone(), options(), Metrics::unregistered());
    let pods = cache.register(definition("pods", true));
    let get = tokio::spawn({
        let pods = pods.clone();
        async move { pods.get("ns/a", At::Any).await }
    });
    let writer = tokio::spawn(cache.clone().run());
    assert!(get.await.unwrap().unwrap().is_some());
    let key = "/registry/pods/ns/a";
    let revision = store.delete(key, 2).await.unwrap();
    let gone = pods.get("ns/a", At::NotOlderThan(revision)).await.unwrap();
    assert!(gone.is_none());
    writer.abort();
}

#[tokio::test(start_paused = true)]
async fn what_this_server_has_written_is_read_once() {
    let rig = Rig::new(&[]).await;
    let revision = rig.put("ns/first", "a=b").await;
    let next = revision + 1;
    // The answer comes before etcd tells of the write, or after.
    let before = rig.pods.written("ns/a", b"a=b", next).unwrap();
    assert_eq!(rig.put("ns/a", "a=b").await, next);
    let list = rig.list(&Selector::default(), At::Any).await.unwrap();
    assert!(
        list.objects
            .iter()
            .any(|object| Arc::ptr_eq(object, &before))
    );
    let after = rig.pods.written("ns/a", b"a=b", next).unwrap();
    assert!(Arc::ptr_eq(&after, &before));
}
