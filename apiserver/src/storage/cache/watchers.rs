//! Who is told of a change.
//!
//! A watcher waits in one bucket, the narrowest that its selector allows: one object, one value
//! of an indexed field, one namespace, all. A change looks only into the buckets that it can
//! concern, so a thousand kubelets watching their own pods cost nothing for other nodes' pods.
//! Queues are bounded in bytes: who does not read is cut off, never waited for.
//!
//! What must not be here: history, encodings.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::history::Event;
use super::object::Object;
use super::selector::{FieldRef, Selector};
use super::{Definition, Revision};
use crate::storage::StorageError;

/// How a change looks through a selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Added,
    Modified,
    Deleted,
}

impl Seen {
    /// `None`: the change is not seen at all.
    pub(super) fn through(selector: &Selector, event: &Event) -> Option<Self> {
        let matches = |object: &Option<Arc<Object>>| {
            object
                .as_ref()
                .is_some_and(|object| selector.matches(object))
        };
        match (matches(&event.previous), matches(&event.object)) {
            (false, true) => Some(Self::Added),
            (true, true) => Some(Self::Modified),
            (true, false) => Some(Self::Deleted),
            (false, false) => None,
        }
    }
}

/// What waits for a watcher.
pub(super) enum Queued {
    Event(Seen, Arc<Event>),
    Bookmark(Revision),
}

/// Why a watcher gets nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Too slow, or the resource is gone: the client may resume where it was.
    Closed,
    /// Changes were lost: the client must list again.
    Lost { oldest: Revision },
}

impl End {
    pub(super) fn error(self, asked: Revision) -> Option<StorageError> {
        match self {
            Self::Closed => None,
            Self::Lost { oldest } => Some(StorageError::Compacted { asked, oldest }),
        }
    }
}

/// Whether a modification from one state to the other means nothing to who watches.
pub type MeansNothing = Box<dyn Fn(&Object, &Object) -> bool + Send + Sync>;

/// A watcher's queue, between the cache's writer and the watcher's stream.
pub(super) struct Channel {
    pub(super) selector: Selector,
    pub(super) bookmarks: bool,
    /// Changes up to here are not sent: the watch asked to begin later.
    after: Revision,
    /// Modifications that are not queued.
    passed_over: OnceLock<MeansNothing>,
    /// Bytes that may wait.
    limit: usize,
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Queued>,
    bytes: usize,
    end: Option<End>,
}

/// A queued change costs this and its object's bytes, though all watchers share those: it is
/// what a socket would have to take.
const ITEM: usize = 64;

fn cost(event: &Event) -> usize {
    ITEM + event.subject().map_or(0, |object| object.bytes().len())
}

impl Channel {
    pub(super) fn new(selector: Selector, bookmarks: bool, after: Revision, limit: usize) -> Self {
        Self {
            selector,
            bookmarks,
            after,
            passed_over: OnceLock::new(),
            limit,
            queue: Mutex::default(),
            waker: AtomicWaker::new(),
        }
    }

    pub(super) fn pass_over(&self, means_nothing: MeansNothing) {
        // Set twice, the first holds.
        let _ = self.passed_over.set(means_nothing);
    }

    fn passes_over(&self, event: &Event) -> bool {
        match (self.passed_over.get(), &event.previous, &event.object) {
            (Some(means_nothing), Some(before), Some(after)) => means_nothing(before, after),
            _ => false,
        }
    }

    fn offer(&self, event: &Arc<Event>) -> Offer {
        if event.revision <= self.after {
            return Offer::Ignored;
        }
        let Some(seen) = Seen::through(&self.selector, event) else {
            return Offer::Ignored;
        };
        if seen == Seen::Modified && self.passes_over(event) {
            return Offer::Ignored;
        }
        let mut queue = self.queue.lock();
        queue.bytes += cost(event);
        if queue.bytes > self.limit {
            drop(queue);
            self.end(End::Closed);
            return Offer::CutOff;
        }
        queue.items.push_back(Queued::Event(seen, event.clone()));
        drop(queue);
        self.waker.wake();
        Offer::Taken
    }

    pub(super) fn bookmark(&self, revision: Revision) {
        if revision <= self.after {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.end.is_some() {
            return;
        }
        match queue.items.back_mut() {
            Some(Queued::Bookmark(last)) => *last = revision,
            _ => queue.items.push_back(Queued::Bookmark(revision)),
        }
        drop(queue);
        self.waker.wake();
    }

    /// What waits is dropped: the client would only fall further behind.
    fn end(&self, end: End) {
        let mut queue = self.queue.lock();
        queue.end.get_or_insert(end);
        let dropped = std::mem::take(&mut queue.items);
        drop(queue);
        drop(dropped);
        self.waker.wake();
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Queued, End>> {
        // First the waker, then the queue: what comes between wakes.
        self.waker.register(cx.waker());
        let mut queue = self.queue.lock();
        if let Some(item) = queue.items.pop_front() {
            if let Queued::Event(_, event) = &item {
                queue.bytes -= cost(event);
            }
            return Poll::Ready(Ok(item));
        }
        match queue.end {
            Some(end) => Poll::Ready(Err(end)),
            None => Poll::Pending,
        }
    }
}

enum Offer {
    Ignored,
    Taken,
    CutOff,
}

type Bucket = Vec<Arc<Channel>>;

/// One resource's watchers.
#[derive(Default)]
pub(super) struct Watchers {
    all: Bucket,
    by_namespace: HashMap<Box<str>, Bucket>,
    by_key: HashMap<Box<str>, Bucket>,
    /// The indexed fields that are watched for, with their values.
    by_field: Vec<(usize, HashMap<Box<str>, Bucket>)>,
}

/// What became of a change.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dispatched {
    pub(super) taken: usize,
    pub(super) cut_off: usize,
}

impl Watchers {
    pub(super) fn add(&mut self, definition: &Definition, channel: Arc<Channel>) {
        self.with_bucket(definition, &channel.selector.clone(), |bucket| {
            bucket.push(channel);
        });
    }

    pub(super) fn remove(&mut self, definition: &Definition, channel: &Arc<Channel>) {
        self.with_bucket(definition, &channel.selector, |bucket| {
            bucket.retain(|other| !Arc::ptr_eq(other, channel));
        });
    }

    fn with_bucket(
        &mut self,
        definition: &Definition,
        selector: &Selector,
        work: impl FnOnce(&mut Bucket),
    ) {
        let whole_key =
            !selector.name.is_empty() && (!definition.namespaced || !selector.namespace.is_empty());
        if whole_key {
            let key = crate::storage::keys::relative(&selector.namespace, &selector.name);
            in_bucket(&mut self.by_key, &key, work);
        } else if let Some((field, value)) = indexed_term(definition, selector) {
            let place = self.by_field.iter().position(|(f, _)| *f == field);
            let place = place.unwrap_or_else(|| {
                self.by_field.push((field, HashMap::new()));
                self.by_field.len() - 1
            });
            in_bucket(&mut self.by_field[place].1, value, work);
        } else if !selector.namespace.is_empty() {
            in_bucket(&mut self.by_namespace, &selector.namespace, work);
        } else {
            work(&mut self.all);
        }
    }

    /// Tells whom it concerns.
    pub(super) fn dispatch(&mut self, event: &Arc<Event>) -> Dispatched {
        let mut done = Dispatched::default();
        let Some(subject) = event.subject() else {
            return done;
        };
        tell(&mut self.all, event, &mut done);
        tell_in(
            &mut self.by_namespace,
            subject.namespace(),
            event,
            &mut done,
        );
        tell_in(&mut self.by_key, subject.key(), event, &mut done);
        for (field, values) in &mut self.by_field {
            let now = event.object.as_ref().map(|object| object.field(*field));
            let before = event.previous.as_ref().map(|object| object.field(*field));
            if let Some(now) = now {
                tell_in(values, now, event, &mut done);
            }
            if let Some(before) = before.filter(|before| now != Some(before)) {
                tell_in(values, before, event, &mut done);
            }
        }
        done
    }

    pub(super) fn bookmark(&self, revision: Revision) {
        for channel in self.iter().filter(|channel| channel.bookmarks) {
            channel.bookmark(revision);
        }
    }

    /// Ends every watch.
    pub(super) fn end(&mut self, end: End) {
        for channel in self.iter() {
            channel.end(end);
        }
        *self = Self::default();
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Channel>> {
        let fields = self.by_field.iter().flat_map(|(_, values)| values.values());
        std::iter::once(&self.all)
            .chain(self.by_namespace.values())
            .chain(self.by_key.values())
            .chain(fields)
            .flatten()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.iter().count()
    }
}

/// The term on an indexed field that must be equal to something.
pub(super) fn indexed_term<'s>(
    definition: &Definition,
    selector: &'s Selector,
) -> Option<(usize, &'s str)> {
    selector.fields.iter().find_map(|term| match term.field {
        FieldRef::Selectable(i) if term.equals && definition.fields[i].indexed => {
            Some((i, term.value.as_str()))
        }
        _ => None,
    })
}

fn in_bucket(buckets: &mut HashMap<Box<str>, Bucket>, key: &str, work: impl FnOnce(&mut Bucket)) {
    let bucket = buckets.entry(key.into()).or_default();
    work(bucket);
    if bucket.is_empty() {
        buckets.remove(key);
    }
}

fn tell_in(
    buckets: &mut HashMap<Box<str>, Bucket>,
    key: &str,
    event: &Arc<Event>,
    done: &mut Dispatched,
) {
    if let Some(bucket) = buckets.get_mut(key) {
        tell(bucket, event, done);
    }
}

fn tell(bucket: &mut Bucket, event: &Arc<Event>, done: &mut Dispatched) {
    bucket.retain(|channel| match channel.offer(event) {
        Offer::Ignored => true,
        Offer::Taken => {
            done.taken += 1;
            true
        }
        Offer::CutOff => {
            done.cut_off += 1;
            false
        }
    });
}
