//! The stream of one watch: the state it began with, the changes since, then its queue.
//!
//! What must not be here: how items are written to a client.

use std::collections::vec_deque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::history::Event;
use super::resource::ResourceCache;
use super::tree::Cursor;
use super::watchers::{Channel, MeansNothing, Queued, Seen};
use super::{Result, Revision, WatchItem};

/// How many objects or changes are looked at before others get their turn: selectors of a
/// thousand terms take long.
const LOOKS: usize = 64;

fn give_way<T>(cx: &Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
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

impl Watcher {
    /// How many get the same changes, to judge by the last one of the resource.
    pub fn fan_out(&self) -> usize {
        self.resource.told()
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
        if let Some(state) = &mut this.state {
            let selector = &this.channel.selector;
            let mut looked_at = 0;
            let found = state.find(|object| {
                looked_at += 1;
                looked_at > LOOKS || selector.matches(object)
            });
            match found {
                Some(object) if looked_at <= LOOKS || selector.matches(&object) => {
                    return Poll::Ready(Some(Ok(WatchItem::Added(object))));
                }
                Some(_) => return give_way(cx),
                None => {}
            }
            this.state = None;
            if this.marked {
                return Poll::Ready(Some(Ok(WatchItem::Bookmark {
                    revision: this.began,
                    initial_events_end: true,
                })));
            }
        }
        for looked_at in 0.. {
            let Some(event) = this.backlog.next() else {
                break;
            };
            if let Some(seen) = Seen::through(&this.channel.selector, &event)
                && let Some(item) = this.item(seen, &event)
            {
                return Poll::Ready(Some(Ok(item)));
            }
            if looked_at == LOOKS {
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
