//! What the suite is run against.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::task::JoinHandle;

use crate::storage::cache::{
    At, Cache, ListQuery, Options, ResourceCache, Selector, Start, WatchItem, WatchQuery,
    testing::definition,
};
use crate::storage::metrics::Metrics;
use crate::storage::{Change, Result, Revision, Storage, keys};

/// An object as a reader sees it: relative key, revision, value.
pub(super) type Seen = (String, Revision, String);

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Put(Seen),
    Gone(String, Revision),
}

pub(super) struct Page {
    pub(super) items: Vec<Seen>,
    pub(super) revision: Revision,
    pub(super) more: bool,
}

/// The pods of a store, read in one way or another. Writes always go to the store.
pub(super) trait Subject: Send + Sync {
    fn store(&self) -> &Arc<dyn Storage>;

    /// One pod now, or at a revision.
    fn get<'a>(&'a self, key: &'a str, at: Revision) -> BoxFuture<'a, Result<Option<Seen>>>;

    /// From a relative key on, at a revision (0: now).
    fn list<'a>(
        &'a self,
        start: &'a str,
        limit: usize,
        at: Revision,
    ) -> BoxFuture<'a, Result<Page>>;

    fn watch(&self, after: Revision) -> BoxFuture<'_, Result<BoxStream<'static, Result<Told>>>>;
}

pub(super) const PREFIX: &str = "/registry/pods/";

fn text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).expect("tests write text")
}

/// Straight from the store.
pub(super) struct Direct(pub(super) Arc<dyn Storage>);

impl Subject for Direct {
    fn store(&self) -> &Arc<dyn Storage> {
        &self.0
    }

    fn get<'a>(&'a self, key: &'a str, at: Revision) -> BoxFuture<'a, Result<Option<Seen>>> {
        Box::pin(async move {
            let found = self.0.get(&format!("{PREFIX}{key}"), at).await?;
            Ok(found.map(|kv| (key.to_owned(), kv.mod_revision, text(&kv.value))))
        })
    }

    fn list<'a>(
        &'a self,
        start: &'a str,
        limit: usize,
        at: Revision,
    ) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            let start = format!("{PREFIX}{start}");
            let end = keys::prefix_end(PREFIX);
            let at = match at {
                0 => self.0.current_revision().await?,
                at => at,
            };
            let page = self.0.range(&start, &end, limit, at).await?;
            let seen = |kv: crate::storage::KeyValue| {
                let key = kv.key[PREFIX.len()..].to_owned();
                (key, kv.mod_revision, text(&kv.value))
            };
            Ok(Page {
                items: page.items.into_iter().map(seen).collect(),
                revision: at,
                more: page.more,
            })
        })
    }

    fn watch(&self, after: Revision) -> BoxFuture<'_, Result<BoxStream<'static, Result<Told>>>> {
        Box::pin(async move {
            let watch = self.0.watch(PREFIX, after).await?;
            let told = watch.changes.filter_map(|change| async {
                let relative = |key: String| key[PREFIX.len()..].to_owned();
                Some(match change {
                    Ok(Change::Put(kv)) => Ok(Told::Put((
                        relative(kv.key),
                        kv.mod_revision,
                        text(&kv.value),
                    ))),
                    Ok(Change::Delete { key, revision }) => Ok(Told::Gone(relative(key), revision)),
                    Ok(Change::Progress(_)) => return None,
                    Err(error) => Err(error),
                })
            });
            Ok(told.boxed())
        })
    }
}

/// Through the cache.
pub(super) struct Cached {
    store: Arc<dyn Storage>,
    pub(super) cache: Arc<Cache>,
    pub(super) pods: Arc<ResourceCache>,
    writer: JoinHandle<()>,
}

impl Cached {
    pub(super) async fn new(store: Arc<dyn Storage>) -> Self {
        let options = Options {
            page_size: 10,
            ..Options::default()
        };
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
}

impl Drop for Cached {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

fn seen(object: &crate::storage::cache::Object) -> Seen {
    let bytes = text(object.bytes());
    let (version, value) = bytes.split_once('\n').expect("a resource version");
    assert_eq!(version, format!("rv={}", object.revision()));
    (object.key().to_owned(), object.revision(), value.to_owned())
}

impl Subject for Cached {
    fn store(&self) -> &Arc<dyn Storage> {
        &self.store
    }

    fn get<'a>(&'a self, key: &'a str, at: Revision) -> BoxFuture<'a, Result<Option<Seen>>> {
        Box::pin(async move {
            let at = if at == 0 { At::Latest } else { At::Exact(at) };
            Ok(self.pods.get(key, at).await?.map(|object| seen(&object)))
        })
    }

    fn list<'a>(
        &'a self,
        start: &'a str,
        limit: usize,
        at: Revision,
    ) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            let query = ListQuery {
                selector: &Selector::default(),
                at: if at == 0 { At::Latest } else { At::Exact(at) },
                limit,
                start,
            };
            let list = self.pods.list(&query).await?;
            Ok(Page {
                items: list.objects.iter().map(|object| seen(object)).collect(),
                revision: list.revision,
                more: list.more,
            })
        })
    }

    fn watch(&self, after: Revision) -> BoxFuture<'_, Result<BoxStream<'static, Result<Told>>>> {
        Box::pin(async move {
            let query = WatchQuery {
                selector: Selector::default(),
                start: Start::After(after),
                bookmarks: false,
            };
            let watch = self.pods.watch(query).await?;
            Ok(watch
                .map(|item| {
                    Ok(match item? {
                        WatchItem::Added(o) | WatchItem::Modified(o) => Told::Put(seen(&o)),
                        WatchItem::Deleted(o) => Told::Gone(o.key().to_owned(), o.revision()),
                        WatchItem::Bookmark { .. } => panic!("nobody asked for bookmarks"),
                    })
                })
                .boxed())
        })
    }
}
