//! The stream of one watch: the state it began with, the changes since, then its queue.
//!
//! What must not be here: how items are written to a client.

use std::collections::vec_deque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use component::aside::{TURN, give_way};

use super::history::Event;
use super::resource::ResourceCache;
use super::tree::Cursor;
use super::watchers::{Channel, MeansNothing, Queued, Seen};
use super::{Result, Revision, WatchItem};

/// After how many objects or changes the clock is looked at: most selectors are quicker than a
/// clock, but one of a thousand terms is not.
const LOOKS: usize = 8;

/// When looking began.
struct Turn(Instant);

impl Turn {
    fn is_over(&self, looked_at: usize) -> bool {
        looked_at.is_multiple_of(LOOKS) && self.0.elapsed() >= TURN
    }
}

/// A watch's items. Dropping it ends the watch.
pub struct Watcher {
    pub(super) resource: Arc<ResourceCache>,
    pub(super) channel: Arc<Channel>,
    /// The state that the watch began with.
    pub(super) state: Option<Cursor>,
    /// Close the state with a bookmark.
    pub(super) marked: bool,
    /// The revision of the state, or that the watch resumes after.
    pub(super) began: Revision,
    /// The changes between the revision asked for and the first that is queued.
    pub(super) backlog: vec_deque::IntoIter<Arc<Event>>,
    pub(super) ended: bool,
}

/// Asks for bookmarks of one watch.
pub struct Marker {
    resource: Arc<ResourceCache>,
    channel: Arc<Channel>,
}

impl Marker {
    /// Has a bookmark follow what is queued.
    pub fn mark(&self) {
        self.resource.mark(&self.channel);
    }
}

impl Watcher {
    pub fn marker(&self) -> Marker {
        Marker {
            resource: self.resource.clone(),
            channel: self.channel.clone(),
        }
    }

    /// How many get the same changes, to judge by the last one of the resource.
    pub fn fan_out(&self) -> usize {
        self.resource.told()
    }

    /// Whether there is more to send that does not wait for a change.
    pub fn lags(&self) -> bool {
        self.state.is_some() || self.backlog.len() > 0
    }

    /// Says, once, which modifications the watcher need not be woken for.
    pub fn passing_over(self, means_nothing: MeansNothing) -> Self {
        self.channel.pass_over(means_nothing);
        self
    }

    fn item(&self, seen: Seen, event: &Event) -> Option<WatchItem> {
        Some(match seen {
            Seen::Added => WatchItem::Added(event.object.clone()?),
            Seen::Modified => WatchItem::Modified(event.object.clone()?),
            Seen::Deleted => {
                WatchItem::Deleted(event.gone(&*self.resource.definition().ingest)?.clone())
            }
        })
    }
}

impl futures::Stream for Watcher {
    type Item = Result<WatchItem>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let turn = Turn(Instant::now());
        if let Some(state) = &mut this.state {
            let selector = &this.channel.selector;
            for looked_at in 1.. {
                let Some(object) = state.next() else {
                    break;
                };
                if selector.matches(&object) {
                    return Poll::Ready(Some(Ok(WatchItem::Added(object))));
                }
                if turn.is_over(looked_at) {
                    return give_way(cx);
                }
            }
            this.state = None;
            if this.marked {
                return Poll::Ready(Some(Ok(WatchItem::Bookmark {
                    revision: this.began,
                    initial_events_end: true,
                })));
            }
        }
        for looked_at in 1.. {
            let Some(event) = this.backlog.next() else {
                break;
            };
            if let Some(seen) = Seen::through(&this.channel.selector, &event)
                && let Some(item) = this.item(seen, &event)
            {
                return Poll::Ready(Some(Ok(item)));
            }
            if turn.is_over(looked_at) {
                return give_way(cx);
            }
        }
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            match ready!(this.channel.poll(cx)) {
                Ok(Queued::Event(seen, event)) => {
                    if let Some(item) = this.item(seen, &event) {
                        return Poll::Ready(Some(Ok(item)));
                    }
                }
                Ok(Queued::Bookmark(revision)) => {
                    return Poll::Ready(Some(Ok(WatchItem::Bookmark {
                        revision,
                        initial_events_end: false,
                    })));
                }
                Err(end) => {
                    this.ended = true;
                    return Poll::Ready(end.error(this.began).map(Err));
                }
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.resource.forget(&self.channel);
    }
}
