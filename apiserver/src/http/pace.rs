//! Gathers a watch's events where many watch the same: a write to a socket costs more than
//! all else that an event costs, so it shall carry more than one.
//!
//! The first event after a quiet time goes out at once. What follows it closely waits, the
//! longer the more watch, and never longer than [`LONGEST`].
//!
//! What must not be here: what the events are.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::time::{Instant, Sleep};

/// Between two writes to one watcher, for every watcher there is: all of them together are
/// written to about 3,000 times a second, up to where [`LONGEST`] is reached.
const PER_WATCHER: Duration = Duration::from_micros(300);
/// The runtime's timers are no finer.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(30);

/// A stream of events whose bursts are kept apart.
pub struct Paced<S, F> {
    events: S,
    /// How many streams get the same events.
    watchers: F,
    /// When the last burst ended.
    sent: Option<Instant>,
    in_burst: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S, F> Paced<S, F>
where
    S: Stream + Unpin,
    F: Fn(&S) -> usize + Unpin,
{
    pub fn new(events: S, watchers: F) -> Self {
        Self {
            events,
            watchers,
            sent: None,
            in_burst: false,
            pause: None,
        }
    }

    /// When the next burst may begin, if not now.
    fn due(&self) -> Option<Instant> {
        let watchers = u32::try_from((self.watchers)(&self.events)).unwrap_or(u32::MAX);
        let window = PER_WATCHER.saturating_mul(watchers).min(LONGEST);
        if window < SHORTEST {
            return None;
        }
        let due = self.sent? + window;
        (due > Instant::now()).then_some(due)
    }
}

impl<S, F> Stream for Paced<S, F>
where
    S: Stream + Unpin,
    F: Fn(&S) -> usize + Unpin,
{
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        } else if !this.in_burst
            && let Some(due) = this.due()
        {
            // Nobody is told of events meanwhile; they are there when the pause is over.
            let mut pause = Box::pin(tokio::time::sleep_until(due));
            if pause.as_mut().poll(cx).is_pending() {
                this.pause = Some(pause);
                return Poll::Pending;
            }
        }
        let polled = Pin::new(&mut this.events).poll_next(cx);
        match polled {
            Poll::Ready(_) => this.in_burst = true,
            Poll::Pending if this.in_burst => {
                this.in_burst = false;
                this.sent = Some(Instant::now());
            }
            Poll::Pending => {}
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    /// How long the second of two events that come one after the other takes.
    async fn second(watchers: usize) -> Duration {
        let (send, receive) = mpsc::unbounded_channel();
        let mut events = Paced::new(UnboundedReceiverStream::new(receive), move |_: &_| watchers)
            .ready_chunks(8);
        send.send(1).unwrap();
        assert_eq!(events.next().await, Some(vec![1]));
        let began = Instant::now();
        send.send(2).unwrap();
        send.send(3).unwrap();
        assert_eq!(events.next().await, Some(vec![2, 3]));
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn where_many_watch_events_are_gathered() {
        assert_eq!(second(1000).await, LONGEST);
        assert_eq!(second(20).await, 20 * PER_WATCHER);
    }

    #[tokio::test(start_paused = true)]
    async fn where_few_watch_nobody_waits() {
        assert_eq!(second(1).await, Duration::ZERO);
    }
}
