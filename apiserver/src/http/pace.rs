//! Gathers a watch's events where many watch the same: a write to a socket costs more than
//! all else that an event costs, so it shall carry more than one.
//!
//! Time is cut into slots, the longer the more watch, and a watcher is written to once in each.
//! What comes when it has not been written to in this slot goes out at once; what comes later
//! waits for the next slot. Watchers whose slots begin together have the same events to send,
//! which are put together once (see [`super::batches`]); but were all of them to begin together,
//! the last would wait until all others are written to. So they are dealt out to [`PHASES`].
//!
//! What must not be here: what the events are.

use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::time::{Instant, Sleep};

use crate::storage::cache::Watcher;

/// Where slots would be shorter, there are none: with a dozen who watch, gathering saves
/// little and is most of an event's delay.
const SHORTEST: Duration = Duration::from_millis(5);
/// Parts of a slot in which slots begin.
const PHASES: u32 = 4;

/// How long a slot is where one watches.
const UNIT: Duration = Duration::from_micros(1200);

/// How long a slot is where so many watch. The square root keeps both in bounds, how often all
/// of them together are written to (8,300 times a second for a hundred, 26,000 for a thousand)
/// and how long an event waits (12 ms, 38 ms).
fn slot_length(watchers: usize) -> Duration {
    UNIT.mul_f64((watchers as f64).sqrt())
}

/// When the clock of slots began. Where exactly does not matter, only that it is one for all.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Deals out the phases.
#[derive(Debug, Default)]
pub struct Phases(AtomicU32);

impl Phases {
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) % PHASES
    }
}

/// The beginning of the slot of this length and phase in which `now` lies.
fn slot(now: Instant, length: Duration, phase: u32) -> Instant {
    let shifted = now - *EPOCH + length - length * phase / PHASES;
    let into = shifted.as_nanos() % length.as_nanos();
    now - Duration::from_nanos(into as u64)
}

/// Events that may be gathered.
pub trait Events: Stream + Unpin {
    /// How many streams get the same.
    fn watchers(&self) -> usize;

    /// Whether there are more already: pending, it only gives way to others.
    fn lags(&self) -> bool;
}

impl Events for Watcher {
    fn watchers(&self) -> usize {
        self.fan_out()
    }

    fn lags(&self) -> bool {
        self.lags()
    }
}

/// A stream of events that are gathered.
pub struct Paced<S> {
    events: S,
    phase: u32,
    /// When there was something to send for the last time.
    last: Option<Instant>,
    /// Everything that waits is sent.
    sending: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S: Events> Paced<S> {
    pub fn new(events: S, phases: &Phases) -> Self {
        Self {
            events,
            phase: phases.next(),
            last: None,
            sending: false,
            pause: None,
        }
    }

    /// When the next slot begins, if this one has been used.
    fn due(&self, now: Instant, length: Duration) -> Option<Instant> {
        let began = slot(now, length, self.phase);
        (self.last? >= began).then(|| began + length)
    }
}

impl<S: Events> Stream for Paced<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.get_mut();
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let length = slot_length(this.events.watchers());
        // Where there are no slots nobody asks what time it is.
        let now = if this.sending || length < SHORTEST {
            None
        } else {
            let now = Instant::now();
            if let Some(due) = this.due(now, length) {
                // Nobody is told of events meanwhile; they are there when the pause is over.
                let mut pause = Box::pin(tokio::time::sleep_until(due));
                if pause.as_mut().poll(cx).is_pending() {
                    this.pause = Some(pause);
                    return Poll::Pending;
                }
            }
            Some(now)
        };
        let polled = Pin::new(&mut this.events).poll_next(cx);
        this.sending = polled.is_ready() || this.events.lags();
        if this.sending && now.is_some() {
            this.last = now;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

    use super::*;

    type Chunks = Pin<Box<dyn Stream<Item = Vec<u32>>>>;

    /// So many get these numbers. A zero stands for nothing that can be told yet.
    struct Numbers(UnboundedReceiver<u32>, usize);

    impl Stream for Numbers {
        type Item = u32;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u32>> {
            match ready!(self.0.poll_recv(cx)) {
                Some(0) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                number => Poll::Ready(number),
            }
        }
    }

    impl Events for Numbers {
        fn watchers(&self) -> usize {
            self.1
        }

        fn lags(&self) -> bool {
            !self.0.is_empty()
        }
    }

    fn paced(watchers: usize, phases: &Phases) -> (UnboundedSender<u32>, Chunks) {
        let (send, receive) = mpsc::unbounded_channel();
        let paced = Paced::new(Numbers(receive, watchers), phases);
        (send, Box::pin(paced.ready_chunks(8)))
    }

    /// To where a slot of this length and phase begins.
    async fn to_slot(length: Duration, phase: u32) {
        let began = slot(Instant::now(), length, phase);
        tokio::time::sleep_until(began + length).await;
    }

    #[tokio::test(start_paused = true)]
    async fn where_many_watch_events_are_gathered() {
        for (watchers, length) in [(100, 12), (1000, 38), (25, 6)] {
            let length = Duration::from_millis(length);
            let (send, mut events) = paced(watchers, &Phases::default());
            to_slot(slot_length(watchers), 0).await;
            let began = Instant::now();
            send.send(1).unwrap();
            assert_eq!(events.next().await, Some(vec![1]));
            assert_eq!(began.elapsed(), Duration::ZERO);
            send.send(2).unwrap();
            send.send(3).unwrap();
            assert_eq!(events.next().await, Some(vec![2, 3]));
            assert_eq!(began.elapsed(), length, "{watchers}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_gives_way_does_not_wait_for_a_slot() {
        let (send, mut events) = paced(100, &Phases::default());
        let began = Instant::now();
        for number in [1, 0, 2, 0, 0, 3] {
            send.send(number).unwrap();
        }
        for number in 1..=3 {
            assert_eq!(events.next().await, Some(vec![number]));
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn where_few_watch_nobody_waits() {
        for watchers in [1, 10, 17] {
            let (send, mut events) = paced(watchers, &Phases::default());
            let began = Instant::now();
            for n in 1..4 {
                send.send(n).unwrap();
                assert_eq!(events.next().await, Some(vec![n]));
            }
            assert_eq!(began.elapsed(), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn some_begin_together_and_others_between() {
        let length = slot_length(400);
        let phases = Phases::default();
        let mut all: Vec<_> = (0..=PHASES).map(|_| paced(400, &phases)).collect();
        to_slot(length, 0).await;
        let began = Instant::now();
        let waiting = all.iter_mut().map(|(send, events)| async move {
            send.send(1).unwrap();
            assert_eq!(events.next().await, Some(vec![1]));
            send.send(2).unwrap();
            assert_eq!(events.next().await, Some(vec![2]));
            began.elapsed()
        });
        let mut after = futures::future::join_all(waiting).await;
        after.sort_unstable();
        let parts = [1, 2, 3, 4, 4];
        assert_eq!(after, parts.map(|n| length * n / PHASES));
    }
}
