//! Requests are checked a namespace at a time, and all that wait for the same namespace
//! together: one write of each quota charges for all of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::quota::Quota;
use api::quota::check::{Refusal, Request, check};
use api::quota::config::LimitedResource;
use api::resources::ResourceList;
use parking_lot::Mutex;
use serde::Deserialize as _;
use serde_json::Value;
use tokio::sync::oneshot;

use super::super::text;
use super::{QuotaWriter, Status};
use crate::lookup::Lookup;

/// How often quotas are read again because somebody else wrote them.
const RETRIES: usize = 3;

const TIMEOUT: Duration = Duration::from_secs(10);

/// More quotas than this are not remembered: those that the cache has seen by then are dropped.
const REMEMBERED: usize = 1024;

/// Why a request is not let in.
#[derive(Debug)]
pub enum Denied {
    Refused(Refusal),
    Failed(Box<Status>),
}

struct Waiter {
    request: Request,
    dry_run: bool,
    done: oneshot::Sender<Result<(), Denied>>,
}

impl Waiter {
    fn finish(self, result: Result<(), Denied>) {
        // The client may have gone away.
        let _ = self.done.send(result);
    }
}

/// A quota with the tree that it was read from.
struct Loaded {
    quota: Quota,
    tree: Arc<Value>,
}

pub struct Batches {
    lookup: Arc<dyn Lookup>,
    writer: Arc<dyn QuotaWriter>,
    limited: Vec<LimitedResource>,
    /// By namespace; an entry is there as long as a task works on it.
    waiting: Mutex<HashMap<String, Vec<Waiter>>>,
    /// What has been written and may not be in the cache yet, by namespace and name.
    written: Mutex<HashMap<(String, String), Arc<Value>>>,
}

fn revision(quota: &Value) -> u64 {
    text(quota, "/metadata/resourceVersion")
        .parse()
        .unwrap_or(0)
}

impl Batches {
    pub fn new(
        lookup: Arc<dyn Lookup>,
        writer: Arc<dyn QuotaWriter>,
        limited: Vec<LimitedResource>,
    ) -> Self {
        Self {
            lookup,
            writer,
            limited,
            waiting: Mutex::default(),
            written: Mutex::default(),
        }
    }

    /// Whether no quota can have a say in a namespace.
    pub fn has_nothing(&self, namespace: &str) -> bool {
        self.limited.is_empty() && self.lookup.list("", "resourcequotas", namespace).is_empty()
    }

    /// Waits for the verdict on a request. When it may go ahead it has been charged for.
    pub async fn evaluate(
        self: &Arc<Self>,
        namespace: &str,
        request: Request,
        dry_run: bool,
    ) -> Result<(), Denied> {
        let (done, verdict) = oneshot::channel();
        let waiter = Waiter {
            request,
            dry_run,
            done,
        };
        let idle = {
            let mut waiting = self.waiting.lock();
            match waiting.get_mut(namespace) {
                Some(others) => {
                    others.push(waiter);
                    false
                }
                None => {
                    waiting.insert(namespace.to_owned(), vec![waiter]);
                    true
                }
            }
        };
        if idle {
            tokio::spawn(Arc::clone(self).work(namespace.to_owned()));
        }
        match tokio::time::timeout(TIMEOUT, verdict).await {
            Ok(Ok(verdict)) => verdict,
            _ => Err(Denied::Failed(Box::new(Status::internal(
                "resource quota evaluation timed out",
            )))),
        }
    }

    /// Works until nobody waits for the namespace.
    async fn work(self: Arc<Self>, namespace: String) {
        loop {
            let batch = {
                let mut waiting = self.waiting.lock();
                match waiting.get_mut(&namespace) {
                    Some(batch) if !batch.is_empty() => std::mem::take(batch),
                    _ => {
                        waiting.remove(&namespace);
                        return;
                    }
                }
            };
            self.decide(&namespace, batch).await;
        }
    }

    async fn decide(&self, namespace: &str, mut undecided: Vec<Waiter>) {
        let mut quotas = self.cached(namespace);
        for attempt in 0..=RETRIES {
            let before: Vec<Quota> = quotas.iter().map(|l| l.quota.clone()).collect();
            let mut running = before.clone();
            let mut charged = Vec::new();
            for waiter in undecided {
                match check(&running, &waiter.request, &self.limited) {
                    Err(refusal) => waiter.finish(Err(Denied::Refused(refusal))),
                    Ok(_) if waiter.dry_run => waiter.finish(Ok(())),
                    Ok(usage) if usage.iter().all(Option::is_none) => waiter.finish(Ok(())),
                    Ok(usage) => {
                        for (quota, used) in running.iter_mut().zip(usage) {
                            quota.status.used = used.or(quota.status.used.take());
                        }
                        charged.push(waiter);
                    }
                }
            }
            if charged.is_empty() {
                return;
            }
            let mut failed = Vec::new();
            let mut reason = None;
            for ((loaded, before), after) in quotas.iter().zip(&before).zip(&running) {
                if before.status.used() == after.status.used() {
                    continue;
                }
                let tree = with_used(&loaded.tree, after.status.used());
                match self.writer.write_status(tree).await {
                    Ok(written) => self.remember(written),
                    Err(status) => {
                        failed.push(after.metadata.name.clone());
                        reason = Some(status);
                    }
                }
            }
            match reason {
                None => {
                    charged.into_iter().for_each(|waiter| waiter.finish(Ok(())));
                    return;
                }
                Some(status) if attempt == RETRIES => {
                    for waiter in charged {
                        waiter.finish(Err(Denied::Failed(Box::new(status.clone()))));
                    }
                    return;
                }
                Some(_) => {}
            }
            // The others have been charged; once more against those that could not be.
            quotas = self.fresh(namespace, &failed).await;
            undecided = charged;
        }
    }

    /// The namespace's quotas as the cache has them, or as they were written here since.
    fn cached(&self, namespace: &str) -> Vec<Loaded> {
        let found = self.lookup.list("", "resourcequotas", namespace);
        let mut written = self.written.lock();
        found
            .into_iter()
            .filter_map(|tree| {
                let key = (
                    namespace.to_owned(),
                    text(&tree, "/metadata/name").to_owned(),
                );
                let newer = written.get(&key).filter(|w| revision(w) > revision(&tree));
                let Some(newer) = newer.cloned() else {
                    written.remove(&key);
                    return load(tree);
                };
                load(newer)
            })
            .collect()
    }

    /// These quotas as they are stored; without those that are gone.
    async fn fresh(&self, namespace: &str, names: &[String]) -> Vec<Loaded> {
        let mut loaded = Vec::new();
        for name in names {
            let found = self.lookup.get_fresh("", "resourcequotas", namespace, name);
            loaded.extend(found.await.ok().flatten().and_then(load));
        }
        loaded
    }

    fn remember(&self, quota: Value) {
        let key = (
            text(&quota, "/metadata/namespace").to_owned(),
            text(&quota, "/metadata/name").to_owned(),
        );
        let mut written = self.written.lock();
        if written.len() >= REMEMBERED {
            written.retain(|(namespace, name), quota| {
                let cached = self.lookup.get("", "resourcequotas", namespace, name);
                cached.is_some_and(|cached| revision(&cached) < revision(quota))
            });
        }
        written.insert(key, Arc::new(quota));
    }
}

fn load(tree: Arc<Value>) -> Option<Loaded> {
    match Quota::deserialize(&*tree) {
        Ok(quota) => Some(Loaded { quota, tree }),
        Err(error) => {
            tracing::error!(%error, "a resource quota cannot be read");
            None
        }
    }
}

fn with_used(tree: &Value, used: &ResourceList) -> Value {
    let mut tree = tree.clone();
    let used = used
        .iter()
        .map(|(name, q)| (name.clone(), q.to_string().into()));
    tree["status"]["used"] = Value::Object(used.collect());
    tree
}

#[cfg(test)]
mod tests {
    use api::quota::Evaluator;
    use api::quota::check::Change;
    use futures::future::BoxFuture;
    use meta::GroupResource;
    use serde_json::json;

    use super::*;

    /// One quota of two secrets, whose stored state runs ahead of the cache.
    struct World {
        stored: Mutex<Value>,
        cached: Arc<Value>,
        writes: Mutex<usize>,
    }

    fn quota(used: &str, revision: u64) -> Value {
        json!({
            "metadata": {"name": "q", "namespace": "n", "resourceVersion": revision.to_string()},
            "spec": {"hard": {"secrets": "3"}},
            "status": {"hard": {"secrets": "3"}, "used": {"secrets": used}},
        })
    }

    impl Lookup for World {
        fn get(&self, _: &str, _: &str, _: &str, _: &str) -> Option<Arc<Value>> {
            Some(self.cached.clone())
        }
        fn list(&self, _: &str, _: &str, _: &str) -> Vec<Arc<Value>> {
            vec![self.cached.clone()]
        }
        fn get_fresh<'a>(
            &'a self,
            _: &'a str,
            _: &'a str,
            _: &'a str,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Option<Arc<Value>>, Status>> {
            let stored = self.stored.lock().clone();
            Box::pin(async move { Ok(Some(Arc::new(stored))) })
        }
    }

    impl QuotaWriter for World {
        fn write_status<'a>(&'a self, mut quota: Value) -> BoxFuture<'a, Result<Value, Status>> {
            *self.writes.lock() += 1;
            let mut stored = self.stored.lock();
            let result = if revision(&quota) == revision(&stored) {
                let next = revision(&quota) + 1;
                quota["metadata"]["resourceVersion"] = json!(next.to_string());
                *stored = quota.clone();
                Ok(quota)
            } else {
                let resource = GroupResource::new("", "resourcequotas");
                Err(Status::conflict(&resource, "q", "changed"))
            };
            Box::pin(async move { result })
        }
    }

    fn request() -> Request {
        let evaluator = Evaluator::of("", "secrets");
        Request {
            group: String::new(),
            resource: "secrets".into(),
            new: evaluator.one(),
            evaluator,
            change: Change::Create,
            is_status: false,
            lacks: Default::default(),
            classes: Default::default(),
            now: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn world(stored: Value, cached: Value) -> (Arc<World>, Arc<Batches>) {
        let world = Arc::new(World {
            stored: Mutex::new(stored),
            cached: Arc::new(cached),
            writes: Mutex::default(),
        });
        let batches = Batches::new(world.clone(), world.clone(), Vec::new());
        (world, Arc::new(batches))
    }

    #[tokio::test]
    async fn those_who_wait_together_are_charged_together() {
        let (world, batches) = world(quota("1", 5), quota("1", 5));
        let all = (0..4).map(|_| batches.evaluate("n", request(), false));
        let verdicts = futures::future::join_all(all).await;
        assert_eq!(verdicts.iter().filter(|v| v.is_ok()).count(), 2);
        assert_eq!(world.stored.lock()["status"]["used"]["secrets"], "3");
        assert!(*world.writes.lock() <= 2);
        // The cache still says 1; what was written is remembered.
        let refused = batches.evaluate("n", request(), false).await.unwrap_err();
        let Denied::Refused(Refusal::Forbidden(why)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(
            why,
            "exceeded quota: q, requested: secrets=1, used: secrets=3, limited: secrets=3"
        );
    }

    #[tokio::test]
    async fn a_conflict_is_tried_again_with_what_is_stored() {
        let (world, batches) = world(quota("2", 9), quota("1", 5));
        batches.evaluate("n", request(), false).await.unwrap();
        assert_eq!(world.stored.lock()["status"]["used"]["secrets"], "3");
        assert_eq!(*world.writes.lock(), 2);
    }

    #[tokio::test]
    async fn dry_runs_are_checked_and_not_charged() {
        let (world, batches) = world(quota("2", 5), quota("2", 5));
        batches.evaluate("n", request(), true).await.unwrap();
        assert_eq!(*world.writes.lock(), 0);
        let (_, batches) = self::world(quota("3", 5), quota("3", 5));
        assert!(batches.evaluate("n", request(), true).await.is_err());
    }
}
