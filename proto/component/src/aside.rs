//! Work that would keep a thread of the runtime for long, such as reading a body of megabytes:
//! there are few of them, and whoever else waits for this one shall not have to.
//!
//! What must not be here: which work that is.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

/// To read, check or write more bytes than this takes a millisecond or more.
pub const LONG: usize = 128 << 10;

/// How long one task may work in pieces before it gives way to the others.
pub const TURN: Duration = Duration::from_millis(1);

/// Lets other tasks go on, those included that only the sockets know of, before this one is
/// polled again. Who wakes itself comes before what the runtime has yet to ask the kernel for.
pub fn give_way<T>(cx: &mut Context<'_>) -> Poll<T> {
    let asked = pin!(tokio::task::yield_now()).poll(cx);
    debug_assert!(asked.is_pending());
    Poll::Pending
}

/// As [`give_way`]; goes on afterwards.
pub async fn others_first() {
    let mut gave_way = false;
    std::future::poll_fn(|cx| match std::mem::replace(&mut gave_way, true) {
        false => give_way(cx),
        true => Poll::Ready(()),
    })
    .await;
}

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

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

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

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn who_gives_way_does_not_come_before_what_has_arrived() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let gives_way = tokio::spawn(async move {
            let read = tokio::spawn(async move { near.read_u8().await.unwrap() });
            tokio::task::yield_now().await; // until it waits for the socket
            far.write_u8(7).await.unwrap();
            let mut turns = 0;
            while !read.is_finished() {
                turns += 1;
                others_first().await;
            }
            turns
        });
        assert!(gives_way.await.unwrap() <= 3);
    }
}
