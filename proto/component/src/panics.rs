//! What a panic ends: the process, unless it is in work that is contained.
//!
//! A background task that is gone would be missed by nobody; a process that is gone is started
//! again. But what one client asks for must not be an outage for all, nor must one stored object:
//! requests and the reading of stored values are contained, as upstream's handlers recover.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// The work panicked. What was said is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("panicked")]
pub struct Panicked;

impl From<Box<dyn Any + Send>> for Panicked {
    fn from(payload: Box<dyn Any + Send>) -> Self {
        // It may panic when it is dropped.
        std::mem::forget(payload);
        Self
    }
}

/// From now on a panic that is not contained ends the process.
pub(crate) fn end_the_process() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        if !CONTAINED.get() {
            std::process::abort();
        }
    }));
}

/// Does work whose panic shall end nothing else. What it shares with others must be in order
/// whenever it panics.
///
/// # Errors
///
/// When it panicked.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let before = CONTAINED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(before);
    Ok(done?)
}

pin_project! {
    /// [`contain`]s a future. It is not polled again after a panic.
    pub struct Contained<F> {
        #[pin]
        future: F,
    }
}

impl<F> Contained<F> {
    pub fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F: Future> Future for Contained<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match contain(|| self.project().future.poll(cx)) {
            Ok(polled) => polled.map(Ok),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_ends_alone() {
        assert_eq!(contain(|| 1), Ok(1));
        assert_eq!(contain(|| -> u8 { panic!("as it should") }), Err(Panicked));
        let future = async {
            tokio::task::yield_now().await;
            panic!("as it should");
        };
        let ended: Result<(), _> = Contained::new(future).await;
        assert_eq!(ended, Err(Panicked));
        assert!(!CONTAINED.get());
    }
}
