//! Gathers a watch's events where many watch the same: a write to a socket costs more than
//! all else that an event costs, so it shall carry more than one.
//!
//! The first event after a quiet time goes out at once. What follows it closely waits, the
//! longer the more watch, and never longer than [`LONGEST`]. All who watch one resource are
//! written to in the same bursts: the server wakes once for all of them, and has the same
//! events to write to each (see [`super::batches`]).
//!
//! What must not be here: what the events are.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

/// Between two bursts, for every watcher there is: all of them together are written to about
/// 2,500 times a second, up to where [`LONGEST`] is reached.
const PER_WATCHER: Duration = Duration::from_micros(400);
/// Where the pauses would be shorter, none is made: with a dozen who watch, gathering saves
/// little and is most of an event's delay.
const SHORTEST: Duration = Duration::from_millis(5);
/// Longer pauses save next to nothing, and are most of an event's delay.
const LONGEST: Duration = Duration::from_millis(24);

/// The bursts of all who watch one resource.
#[derive(Debug, Default)]
pub struct Bursts(Mutex<Burst>);

#[derive(Debug, Default)]
struct Burst {
    /// Counts them from 1.
    number: u64,
    began: Option<Instant>,
}

impl Bursts {
    /// The burst that who took part in `last` may take part in now: one that is going on, or one
    /// that begins because the last began `window` ago. Otherwise, when the next may begin.
    fn join(&self, last: u64, window: Duration) -> Result<u64, Instant> {
        let mut burst = self.0.lock();
        let now = Instant::now();
        match burst.began.map(|began| began + window) {
            Some(next) if now < next && burst.number <= last => return Err(next),
            Some(next) if now < next => {}
            _ => {
                burst.number += 1;
                burst.began = Some(now);
            }
        }
        Ok(burst.number)
    }
}

/// A stream of events whose bursts are kept apart.
pub struct Paced<S, F> {
    events: S,
    /// How many streams get the same events.
    watchers: F,
    bursts: Arc<Bursts>,
    /// The last one in which there was something to send.
    last: u64,
    in_burst: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S, F> Paced<S, F>
where
    S: Stream + Unpin,
    F: Fn(&S) -> usize + Unpin,
{
    pub fn new(events: S, watchers: F, bursts: Arc<Bursts>) -> Self {
        Self {
            events,
            watchers,
            bursts,
            last: 0,
            in_burst: false,
            pause: None,
        }
    }

    /// The burst to send in, or when the next one may begin.
    fn join(&self) -> Result<u64, Instant> {
        let watchers = u32::try_from((self.watchers)(&self.events)).unwrap_or(u32::MAX);
        let window = PER_WATCHER.saturating_mul(watchers).min(LONGEST);
        if window < SHORTEST {
            return Ok(self.last);
        }
        self.bursts.join(self.last, window)
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
        }
        let mut burst = this.last;
        while !this.in_burst {
            match this.join() {
                Ok(number) => {
                    burst = number;
                    break;
                }
                Err(due) => {
                    // Nobody is told of events meanwhile; they are there when the pause is over.
                    let mut pause = Box::pin(tokio::time::sleep_until(due));
                    if pause.as_mut().poll(cx).is_pending() {
                        this.pause = Some(pause);
                        return Poll::Pending;
                    }
                }
            }
        }
        let polled = Pin::new(&mut this.events).poll_next(cx);
        this.in_burst = polled.is_ready();
        if this.in_burst {
            this.last = burst;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::sync::mpsc::{self, UnboundedSender};
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    type Chunks = Pin<Box<dyn Stream<Item = Vec<u32>>>>;

    fn paced(watchers: usize, bursts: &Arc<Bursts>) -> (UnboundedSender<u32>, Chunks) {
        let (send, receive) = mpsc::unbounded_channel();
        let events = UnboundedReceiverStream::new(receive);
        let paced = Paced::new(events, move |_: &_| watchers, bursts.clone());
        (send, Box::pin(paced.ready_chunks(8)))
    }

    /// How long the second of two events that come one after the other takes.
    async fn second(watchers: usize) -> Duration {
        let (send, mut events) = paced(watchers, &Arc::default());
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
        assert_eq!(second(10).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_written_to_in_the_same_bursts() {
        let bursts = Arc::default();
        let (to_one, mut one) = paced(1000, &bursts);
        let (to_other, mut other) = paced(1000, &bursts);
        let began = Instant::now();
        to_one.send(1).unwrap();
        one.next().await;
        tokio::time::advance(LONGEST / 3).await;
        // Who comes late to a burst need not wait for the next one.
        to_other.send(1).unwrap();
        other.next().await;
        assert_eq!(began.elapsed(), LONGEST / 3);
        to_one.send(2).unwrap();
        to_other.send(2).unwrap();
        one.next().await;
        other.next().await;
        assert_eq!(began.elapsed(), LONGEST);
    }
}
