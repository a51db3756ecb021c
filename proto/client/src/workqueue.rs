//! [`Queue`]: the keys that a controller still has to look at.
//!
//! As client-go's rate limiting queue: a key is in the queue once, however often it is added;
//! it is never handed out twice at the same time; added while it is worked on, it comes
//! again afterwards. Failing keys come back after an exponentially growing delay.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::rate_limit::TokenBucket;

/// What queues hold: an [`ObjectKey`](crate::ObjectKey), or whatever names a piece of work.
pub trait Key: Clone + Eq + Hash + Send + Sync + 'static {}
impl<T: Clone + Eq + Hash + Send + Sync + 'static> Key for T {}

/// How long a failing key waits, as client-go's default controller rate limiter.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// Delay after the first failure; it doubles with every further one.
    pub base: Duration,
    pub max: Duration,
    /// Retries of all keys together: per second, and at once.
    pub overall: (f64, u32),
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(5),
            max: Duration::from_secs(1000),
            overall: (10.0, 100),
        }
    }
}

/// A queue of keys. Cheap to clone; clones are the same queue.
pub struct Queue<T: Key> {
    shared: Arc<Shared<T>>,
}

impl<T: Key> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

struct Shared<T: Key> {
    state: Mutex<State<T>>,
    changed: Notify,
    backoff: Backoff,
    bucket: TokenBucket,
    metrics: Option<QueueMetrics>,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Everything in `ready`, and what is to come back after it has been worked on.
    dirty: HashMap<T, Instant>,
    processing: HashMap<T, Instant>,
    /// By the time they become ready, then by order.
    delayed: BTreeMap<(Instant, u64), T>,
    delayed_at: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
    stopping: bool,
}

impl<T: Key> State<T> {
    fn add(&mut self, key: T, metrics: Option<&QueueMetrics>) -> bool {
        if self.stopping || self.dirty.contains_key(&key) {
            return false;
        }
        if let Some(m) = metrics {
            m.adds.inc();
        }
        self.dirty.insert(key.clone(), Instant::now());
        if self.processing.contains_key(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Moves what is due to `ready`; returns when the next one will be.
    fn wake_due(&mut self, metrics: Option<&QueueMetrics>) -> Option<Instant> {
        let now = Instant::now();
        loop {
            let (&(at, sequence), _) = self.delayed.first_key_value()?;
            if at > now {
                return Some(at);
            }
            if let Some(key) = self.delayed.remove(&(at, sequence)) {
                self.delayed_at.remove(&key);
                self.add(key, metrics);
            }
        }
    }
}

impl<T: Key> Queue<T> {
    /// A queue with upstream's default delays and without metrics.
    pub fn new() -> Self {
        Self::with(Backoff::default(), None)
    }

    pub fn with(backoff: Backoff, metrics: Option<QueueMetrics>) -> Self {
        let watched = metrics.as_ref().map(|m| Arc::clone(&m.watched));
        let queue = Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    ready: VecDeque::new(),
                    dirty: HashMap::new(),
                    processing: HashMap::new(),
                    delayed: BTreeMap::new(),
                    delayed_at: HashMap::new(),
                    failures: HashMap::new(),
                    sequence: 0,
                    stopping: false,
                }),
                changed: Notify::new(),
                bucket: TokenBucket::new(backoff.overall.0, backoff.overall.1),
                backoff,
                metrics,
            }),
        };
        if let Some(watched) = watched {
            let shared: Arc<dyn Unfinished> = queue.shared.clone();
            watched.lock().push(Arc::downgrade(&shared));
        }
        queue
    }

    fn metrics(&self) -> Option<&QueueMetrics> {
        self.shared.metrics.as_ref()
    }

    /// Asks for `key` to be looked at.
    pub fn add(&self, key: T) {
        let mut state = self.shared.state.lock();
        if state.add(key, self.metrics()) {
            self.update_depth(&state);
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// Adds `key` after a delay. If it is waiting already, the earlier time counts. What is
    /// further off than the clock can tell never comes.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let Some(at) = Instant::now().checked_add(delay) else {
            return;
        };
        let mut state = self.shared.state.lock();
        if state.stopping {
            return;
        }
        if let Some(m) = self.metrics() {
            m.retries.inc();
        }
        if let Some(known) = state.delayed_at.get(&key).copied() {
            if known.0 <= at {
                return;
            }
            state.delayed.remove(&known);
        }
        state.sequence += 1;
        let place = (at, state.sequence);
        state.delayed.insert(place, key.clone());
        state.delayed_at.insert(key, place);
        drop(state);
        // Whoever waits has to wait for another time now.
        self.shared.changed.notify_one();
    }

    /// Adds `key` after the delay that its failures so far call for.
    pub fn add_rate_limited(&self, key: T) {
        let overall = self.shared.bucket.reserve();
        let failures = {
            let mut state = self.shared.state.lock();
            let n = state.failures.entry(key.clone()).or_insert(0);
            *n = n.saturating_add(1);
            *n - 1
        };
        let backoff = &self.shared.backoff;
        let own = backoff
            .base
            .saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX));
        self.add_after(key, own.min(backoff.max).max(overall));
    }

    /// Forgets the failures of `key`.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// Failures of `key` since it was last forgotten.
    pub fn failures(&self, key: &T) -> u32 {
        self.shared
            .state
            .lock()
            .failures
            .get(key)
            .copied()
            .unwrap_or(0)
    }

    /// Keys that are ready to be handed out.
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refuses further keys and lets [`Queue::next`] return `None` once nothing is ready.
    pub fn shut_down(&self) {
        let mut state = self.shared.state.lock();
        state.stopping = true;
        state.delayed.clear();
        state.delayed_at.clear();
        drop(state);
        self.shared.changed.notify_waiters();
        self.shared.changed.notify_one();
    }

    /// The next key, as soon as there is one; `None` after [`Queue::shut_down`]. Cancel safe.
    pub async fn next(&self) -> Option<Work<T>> {
        loop {
            let notified = self.shared.changed.notified();
            let due = {
                let mut state = self.shared.state.lock();
                let due = state.wake_due(self.metrics());
                if let Some(key) = state.ready.pop_front() {
                    let added = state.dirty.remove(&key);
                    state.processing.insert(key.clone(), Instant::now());
                    self.update_depth(&state);
                    if let (Some(m), Some(added)) = (self.metrics(), added) {
                        m.queue_duration.observe(added.elapsed().as_secs_f64());
                    }
                    let more = !state.ready.is_empty() || !state.delayed.is_empty();
                    drop(state);
                    if more {
                        // Notifications do not add up, so pass it on.
                        self.shared.changed.notify_one();
                    }
                    return Some(Work {
                        queue: self.clone(),
                        key,
                    });
                }
                if state.stopping {
                    drop(state);
                    self.shared.changed.notify_one();
                    return None;
                }
                due
            };
            match due {
                None => notified.await,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, notified).await;
                }
            }
        }
    }

    fn done(&self, key: &T) {
        let mut state = self.shared.state.lock();
        if let (Some(m), Some(since)) = (self.metrics(), state.processing.remove(key)) {
            m.work_duration.observe(since.elapsed().as_secs_f64());
        }
        state.processing.remove(key);
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            self.update_depth(&state);
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    fn update_depth(&self, state: &State<T>) {
        if let Some(m) = self.metrics() {
            m.depth.set(state.ready.len() as i64);
        }
    }

    /// Runs `workers` tasks that hand keys to `sync` until `stop`, then waits for those under
    /// way. A failure is logged and the key comes back after its delay.
    ///
    /// This is a controller's main loop: `sync` gets a key, observes, plans and applies.
    pub async fn run<F, Fut, E>(&self, workers: usize, stop: &CancellationToken, sync: F)
    where
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Requeue, E>> + Send,
        E: fmt::Display,
        T: fmt::Debug,
    {
        let sync = Arc::new(sync);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..workers.max(1) {
            let (queue, sync) = (self.clone(), Arc::clone(&sync));
            tasks.spawn(async move {
                while let Some(work) = queue.next().await {
                    match sync(work.key().clone()).await {
                        Ok(requeue) => work.finish(requeue),
                        Err(err) => {
                            tracing::warn!(key = ?work.key(), %err, "sync failed, trying again");
                            work.retry();
                        }
                    }
                }
            });
        }
        stop.cancelled().await;
        self.shut_down();
        while let Some(result) = tasks.join_next().await {
            if let Err(err) = result {
                tracing::error!(%err, "a worker died");
            }
        }
    }
}

/// Work under way, which only shows when it is asked for.
trait Unfinished: Send + Sync {
    fn update(&self);
}

impl<T: Key> Unfinished for Shared<T> {
    fn update(&self) {
        if let Some(m) = &self.metrics {
            let state = self.state.lock();
            let ages = state
                .processing
                .values()
                .map(|since| since.elapsed().as_secs_f64());
            let (sum, longest) = ages.fold((0.0, 0.0f64), |(s, l), age| (s + age, l.max(age)));
            m.unfinished.set(sum);
            m.longest.set(longest);
        }
    }
}

type Watched = Arc<Mutex<Vec<Weak<dyn Unfinished>>>>;

impl<T: Key> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// What is to become of a key that was worked on without failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Requeue {
    /// Nothing, until something changes.
    #[default]
    No,
    /// Look at it again after a while.
    After(Duration),
    /// Look at it again after the delay for failures, without it being reported as one.
    Backoff,
}

/// A key that is being worked on. Dropping it ends the work, so that the key can come again.
pub struct Work<T: Key> {
    queue: Queue<T>,
    key: T,
}

impl<T: Key> Work<T> {
    pub fn key(&self) -> &T {
        &self.key
    }

    /// The work went well.
    pub fn finish(self, requeue: Requeue) {
        match requeue {
            Requeue::No => self.queue.forget(&self.key),
            Requeue::After(delay) => {
                self.queue.forget(&self.key);
                self.queue.add_after(self.key.clone(), delay);
            }
            Requeue::Backoff => self.queue.add_rate_limited(self.key.clone()),
        }
    }

    /// The work failed: the key comes back after its delay.
    pub fn retry(self) {
        self.queue.add_rate_limited(self.key.clone());
    }
}

impl<T: Key> Drop for Work<T> {
    fn drop(&mut self) {
        self.queue.done(&self.key);
    }
}

/// The metrics of all queues of a process, under upstream's names with the label `name`.
#[derive(Clone)]
pub struct MetricsProvider {
    depth: IntGaugeVec,
    adds: IntCounterVec,
    queue_duration: HistogramVec,
    work_duration: HistogramVec,
    unfinished: GaugeVec,
    longest: GaugeVec,
    retries: IntCounterVec,
    watched: Watched,
}

/// One queue's metrics, made by [`MetricsProvider::queue`].
pub struct QueueMetrics {
    depth: IntGauge,
    adds: IntCounter,
    queue_duration: Histogram,
    work_duration: Histogram,
    unfinished: Gauge,
    longest: Gauge,
    retries: IntCounter,
    watched: Watched,
}

impl MetricsProvider {
    /// Registers the metrics.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(format!("workqueue_{name}"), help);
        let buckets = prometheus::exponential_buckets(1e-8, 10.0, 10)?;
        let histogram = |name: &str, help: &str| {
            let opts = HistogramOpts::new(format!("workqueue_{name}"), help);
            HistogramVec::new(opts.buckets(buckets.clone()), &["name"])
        };
        let provider = Self {
            depth: IntGaugeVec::new(opts("depth", "Current depth of workqueue"), &["name"])?,
            adds: IntCounterVec::new(
                opts("adds_total", "Total number of adds handled by workqueue"),
                &["name"],
            )?,
            queue_duration: histogram(
                "queue_duration_seconds",
                "How long in seconds an item stays in workqueue before being requested.",
            )?,
            work_duration: histogram(
                "work_duration_seconds",
                "How long in seconds processing an item from workqueue takes.",
            )?,
            unfinished: GaugeVec::new(
                opts(
                    "unfinished_work_seconds",
                    "Seconds of work that is in progress and not yet part of work_duration. Large values hint at stuck workers.",
                ),
                &["name"],
            )?,
            longest: GaugeVec::new(
                opts(
                    "longest_running_processor_seconds",
                    "How many seconds the longest running processor of the workqueue has been running.",
                ),
                &["name"],
            )?,
            retries: IntCounterVec::new(
                opts(
                    "retries_total",
                    "Total number of retries handled by workqueue",
                ),
                &["name"],
            )?,
            watched: Watched::default(),
        };
        registry.register(Box::new(provider.depth.clone()))?;
        registry.register(Box::new(provider.adds.clone()))?;
        registry.register(Box::new(provider.queue_duration.clone()))?;
        registry.register(Box::new(provider.work_duration.clone()))?;
        registry.register(Box::new(provider.unfinished.clone()))?;
        registry.register(Box::new(provider.longest.clone()))?;
        registry.register(Box::new(provider.retries.clone()))?;
        Ok(provider)
    }

    /// Brings the gauges of unfinished work up to date; to be called before metrics are gathered.
    pub fn update_unfinished(&self) {
        let mut watched = self.watched.lock();
        watched.retain(|queue| match queue.upgrade() {
            Some(queue) => {
                queue.update();
                true
            }
            None => false,
        });
    }

    /// The metrics of the queue `name`.
    pub fn queue(&self, name: &str) -> QueueMetrics {
        let name = &[name];
        QueueMetrics {
            depth: self.depth.with_label_values(name),
            adds: self.adds.with_label_values(name),
            queue_duration: self.queue_duration.with_label_values(name),
            work_duration: self.work_duration.with_label_values(name),
            unfinished: self.unfinished.with_label_values(name),
            longest: self.longest.with_label_values(name),
            retries: self.retries.with_label_values(name),
            watched: Arc::clone(&self.watched),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use tokio::time::advance;

    async fn next(q: &Queue<&'static str>) -> Option<&'static str> {
        tokio::time::timeout(Duration::from_millis(1), q.next())
            .await
            .ok()
            .flatten()
            .map(|w| *w.key())
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_queued_once_and_in_order() {
        let q = Queue::new();
        for k in ["a", "b", "a", "c", "b"] {
            q.add(k);
        }
        assert_eq!(q.len(), 3);
        assert_eq!(next(&q).await, Some("a"));
        assert_eq!(next(&q).await, Some("b"));
        assert_eq!(next(&q).await, Some("c"));
        assert_eq!(next(&q).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_never_worked_on_twice_at_once() {
        let q = Queue::new();
        q.add("a");
        let work = q.next().await.unwrap();
        q.add("a");
        q.add("a");
        assert_eq!(next(&q).await, None);
        drop(work);
        assert_eq!(next(&q).await, Some("a"));
        assert_eq!(next(&q).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn delays_are_kept_and_the_earlier_wins() {
        let q = Queue::new();
        q.add_after("late", Duration::from_secs(60));
        q.add_after("a", Duration::from_secs(10));
        q.add_after("a", Duration::from_secs(5));
        q.add_after("a", Duration::from_secs(20));
        let start = Instant::now();
        assert_eq!(q.next().await.map(|w| *w.key()), Some("a"));
        assert_eq!(start.elapsed().as_secs(), 5);
        assert_eq!(q.next().await.map(|w| *w.key()), Some("late"));
        assert_eq!(start.elapsed().as_secs(), 60);
        assert_eq!(next(&q).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_without_end_is_none() {
        let q = Queue::new();
        q.add_after("never", Duration::from_secs(i64::MAX.unsigned_abs()));
        q.add_after("never", Duration::MAX);
        assert_eq!(next(&q).await, None);
        q.add_after("never", Duration::from_secs(1));
        assert_eq!(q.next().await.map(|w| *w.key()), Some("never"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_worker_notices_an_earlier_key() {
        let q = Queue::new();
        q.add_after("late", Duration::from_secs(60));
        let waiter = tokio::spawn({
            let q = q.clone();
            async move { q.next().await.map(|w| *w.key()) }
        });
        tokio::task::yield_now().await;
        q.add_after("soon", Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(waiter.await.unwrap(), Some("soon"));
        assert_eq!(start.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_longer() {
        let q = Queue::new();
        q.add("a");
        for want in [5, 10, 20, 40] {
            let work = q.next().await.unwrap();
            let start = Instant::now();
            work.retry();
            let again = q.next().await.unwrap();
            let waited = start.elapsed().as_millis();
            assert!((want..want + 3).contains(&waited), "{waited} for {want}");
            q.add("a");
            drop(again);
        }
        assert_eq!(q.failures(&"a"), 4);
        q.next().await.unwrap().finish(Requeue::No);
        assert_eq!(q.failures(&"a"), 0);
        for _ in 0..40 {
            q.add_rate_limited("b");
        }
        advance(Duration::from_secs(1001)).await;
        assert_eq!(next(&q).await, Some("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn workers_share_the_keys_and_stop() {
        let q = Queue::new();
        let stop = CancellationToken::new();
        let seen = Arc::new(Mutex::new(HashSet::new()));
        for k in 0..100u32 {
            q.add(k);
        }
        let run = tokio::spawn({
            let (q, stop, seen) = (q.clone(), stop.clone(), Arc::clone(&seen));
            async move {
                q.run(4, &stop, move |key| {
                    let seen = Arc::clone(&seen);
                    async move {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        match seen.lock().insert(key) {
                            true if key % 10 == 0 => Err("once more"),
                            true => Ok(Requeue::No),
                            false if key % 10 == 0 => Ok(Requeue::No),
                            false => panic!("{key} came twice"),
                        }
                    }
                })
                .await;
            }
        });
        while seen.lock().len() < 100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.cancel();
        run.await.unwrap();
        assert!(q.next().await.is_none());
        q.add(1);
        assert!(q.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_have_upstreams_names() {
        let registry = Registry::new();
        let provider = MetricsProvider::register(&registry).unwrap();
        let q = Queue::with(Backoff::default(), Some(provider.queue("deployment")));
        q.add("a");
        q.add("b");
        let work = q.next().await.unwrap();
        advance(Duration::from_secs(3)).await;
        provider.update_unfinished();
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "workqueue_adds_total{name=\"deployment\"} 2",
            "workqueue_depth{name=\"deployment\"} 1",
            "workqueue_unfinished_work_seconds{name=\"deployment\"} 3",
            "workqueue_queue_duration_seconds_count{name=\"deployment\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop(work);
    }
}
