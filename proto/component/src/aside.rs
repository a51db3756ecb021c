//! Work that would keep a thread of the runtime for long, such as reading a body of megabytes:
//! there are few of them, and whoever else waits for this one shall not have to.
//!
//! What must not be here: which work that is.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// To read, check or write more bytes than this takes a millisecond or more.
pub const LONG: usize = 128 << 10;

/// Does work; another thread runs the other tasks of this one meanwhile. To let another thread go
/// on costs some twenty microseconds, which is worth it only where the work `is_long`.
pub fn aside<T>(is_long: bool, work: impl FnOnce() -> T) -> T {
    if is_long {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

pin_project! {
    /// A future that is polled [`aside`].
    pub struct Aside<F> {
        #[pin]
        future: F,
        is_long: bool,
    }
}

impl<F> Aside<F> {
    pub fn new(future: F, is_long: bool) -> Self {
        Self { future, is_long }
    }
}

impl<F: Future> Future for Aside<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        aside(*this.is_long, || this.future.poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_go_on() {
        let long = async {
            let (send, receive) = mpsc::channel();
            tokio::spawn(async move { send.send(7) });
            // With one thread this would wait for ever.
            receive.recv()
        };
        assert_eq!(tokio::spawn(Aside::new(long, true)).await.unwrap(), Ok(7));
    }
}
