//! The tasks of HTTP/2 streams.
//!
//! After each chunk of a body hyper asks h2 for room for the next, and h2 tells whoever waits
//! for room that there is some: the stream's own task, which is running. The runtime would queue
//! the task again and, as there is work in the queue, wake another thread for it: a switch of
//! threads for each event of a watch. So a task that is woken while it runs runs on at once.
//!
//! What must not be here: what a stream does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt as _;
use futures::task::AtomicWaker;
use hyper::rt::Executor;
use pin_project_lite::pin_project;

use crate::panics::Contained;

/// Spawns streams as tasks of the runtime that it is called in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // Bodies are made while they are sent. A stream that panicked is dropped, and so reset.
        let stream = Contained::new(stream).map(drop);
        tokio::spawn(RunsOn::new(stream));
    }
}

/// How often a future that is woken while it runs is polled again before others get their turn.
const AGAIN: usize = 2;

pin_project! {
    /// A future that is polled again where it was woken while it ran.
    struct RunsOn<F> {
        #[pin]
        future: F,
        wakes: Arc<Wakes>,
        waker: Waker,
    }
}

impl<F> RunsOn<F> {
    fn new(future: F) -> Self {
        let wakes = Arc::new(Wakes::default());
        Self {
            future,
            waker: Waker::from(wakes.clone()),
            wakes,
        }
    }
}

impl<F: Future> Future for RunsOn<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        this.wakes.task.register(cx.waker());
        for _ in 0..=AGAIN {
            this.wakes.state.store(RUNNING, Ordering::Release);
            let polled = (this.future.as_mut()).poll(&mut Context::from_waker(this.waker));
            let woken = this.wakes.state.swap(WAITING, Ordering::AcqRel) == WOKEN;
            if polled.is_ready() || !woken {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
/// Running, and woken meanwhile.
const WOKEN: u8 = 2;

/// Who wakes the future: its task only where it does not run.
#[derive(Default)]
struct Wakes {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                (state != WAITING).then_some(WOKEN)
            });
        if woken.is_err() {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::task::{ArcWake, waker};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU8);

    impl ArcWake for Count {
        fn wake_by_ref(this: &Arc<Self>) {
            this.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls once; says how often its task was woken for it.
    fn poll<F: Future + Unpin>(future: &mut F) -> (Poll<F::Output>, u8) {
        let count = Arc::new(Count::default());
        let polled = future.poll_unpin(&mut Context::from_waker(&waker(count.clone())));
        (polled, count.0.load(Ordering::Relaxed))
    }

    #[test]
    fn what_is_woken_while_it_runs_runs_on() {
        let mut polls = 0;
        let mut future = RunsOn::new(poll_fn(|cx| {
            polls += 1;
            if polls == 1 {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        }));
        assert_eq!(poll(&mut future), (Poll::Pending, 0));
        assert_eq!(polls, 2);
    }

    #[test]
    fn what_never_has_enough_gives_way() {
        let mut polls = 0;
        let mut future = RunsOn::new(poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert_eq!(poll(&mut future), (Poll::Pending, 1));
        assert_eq!(polls, 1 + AGAIN);
    }

    #[tokio::test]
    async fn what_is_woken_while_it_waits_runs_again() {
        let (send, receive) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(RunsOn::new(receive));
        tokio::task::yield_now().await;
        send.send(7).unwrap();
        assert_eq!(task.await.unwrap(), Ok(7));
    }
}
