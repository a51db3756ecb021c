//! Coalesces the small writes of an HTTP/2 connection.
//!
//! Many requests share a connection, and h2 flushes whenever one of them has something to say:
//! with 64 in flight that is a system call (and a TLS record) for each. So on a connection that
//! has just been written to, small writes wait until every task that is ready has run and may
//! have added its own. grpc-go does the same by yielding before it flushes.
//!
//! What must not be here: timers. Nothing waits for what is not ready yet.

use std::future::Future as _;
use std::io::{IoSlice, Result};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that wait at most. Larger writes are worth a system call.
const MOST: usize = 16 << 10;
/// Who has been written to so shortly ago may be written to again at once. On a connection that
/// says something now and then, waiting would be in vain and cost a turn of its task.
const SHORTLY: Duration = Duration::from_micros(500);

/// A connection whose writer flushes again whenever its task is woken, as h2 does.
pub struct Coalesced<S> {
    stream: S,
    waiting: BytesMut,
    turn: Turn,
    /// When something was written for the last time.
    last: Option<Instant>,
}

impl<S> Coalesced<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            waiting: BytesMut::new(),
            turn: Turn::default(),
            last: None,
        }
    }

    /// Whether a write of so many bytes shall wait.
    fn takes(&mut self, length: usize) -> bool {
        if self.waiting.len() + length > MOST {
            return false;
        }
        if !self.waiting.is_empty() {
            return true;
        }
        let now = Instant::now();
        let last = self.last.replace(now);
        last.is_some_and(|last| now - last < SHORTLY)
    }
}

impl<S: AsyncWrite + Unpin> Coalesced<S> {
    /// Passes on what waits.
    fn release(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        self.turn.end();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Coalesced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let length = slices.iter().map(|slice| slice.len()).sum();
        if this.takes(length) {
            slices
                .iter()
                .for_each(|s| this.waiting.extend_from_slice(s));
            return Poll::Ready(Ok(length));
        }
        ready!(this.release(cx))?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if !this.waiting.is_empty() && this.turn.poll(cx).is_pending() {
            // Whoever flushes is woken when the turn is over, and flushes again.
            return Poll::Ready(Ok(()));
        }
        ready!(this.release(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        ready!(this.release(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Coalesced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

/// A turn of the runtime's thread: over when all tasks that were ready have run.
struct Turn {
    begun: bool,
    over: Arc<Over>,
    waker: Waker,
}

impl Default for Turn {
    fn default() -> Self {
        let over = Arc::new(Over::default());
        Self {
            begun: false,
            waker: Waker::from(over.clone()),
            over,
        }
    }
}

impl Turn {
    /// Begins a turn, unless one has begun; ready when it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.over.task.register(cx.waker());
        if !self.begun {
            self.begun = true;
            self.over.is.store(false, Ordering::Release);
            // tokio keeps the waker of who yields until there is nothing else to run.
            let yielding = pin!(tokio::task::yield_now());
            let _ = yielding.poll(&mut Context::from_waker(&self.waker));
        }
        match self.over.is.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn end(&mut self) {
        self.begun = false;
    }
}

#[derive(Default)]
struct Over {
    is: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Over {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// What it is written, by write.
    #[derive(Default)]
    struct Wire(Vec<Vec<u8>>);

    impl AsyncWrite for Wire {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize>> {
            self.0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn send(stream: &mut Coalesced<Wire>, sizes: &[usize]) {
        for size in sizes {
            stream.write_all(&vec![0; *size]).await.unwrap();
            stream.flush().await.unwrap();
        }
    }

    fn sizes(stream: &mut Coalesced<Wire>) -> Vec<usize> {
        let writes = std::mem::take(&mut stream.stream.0);
        writes.iter().map(Vec::len).collect()
    }

    /// A stream that has just been written to.
    async fn busy() -> Coalesced<Wire> {
        let mut stream = Coalesced::new(Wire::default());
        send(&mut stream, &[1]).await;
        assert_eq!(sizes(&mut stream), [1]);
        stream.last = Some(Instant::now() + Duration::from_secs(1));
        stream
    }

    #[tokio::test]
    async fn what_follows_shortly_goes_out_together_when_the_turn_is_over() {
        let mut stream = busy().await;
        send(&mut stream, &[2, 3, 4]).await;
        assert_eq!(sizes(&mut stream), [0; 0]);
        tokio::task::yield_now().await;
        stream.flush().await.unwrap();
        assert_eq!(sizes(&mut stream), [9]);
    }

    #[tokio::test]
    async fn the_end_of_the_turn_wakes_who_flushes() {
        let mut stream = busy().await;
        send(&mut stream, &[2]).await;
        let task = std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut stream).poll_flush(cx).is_ready());
            match stream.waiting.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        task.await;
        assert_eq!(sizes(&mut stream), [2]);
    }

    #[tokio::test]
    async fn more_than_may_wait_does_not() {
        let mut stream = busy().await;
        send(&mut stream, &[MOST, 2, MOST + 1]).await;
        assert_eq!(sizes(&mut stream), [MOST, 2, MOST + 1]);
    }

    #[tokio::test]
    async fn what_stands_alone_does_not_wait() {
        let mut stream = busy().await;
        stream.last = Instant::now().checked_sub(2 * SHORTLY);
        send(&mut stream, &[2]).await;
        assert_eq!(sizes(&mut stream), [2]);
    }

    #[tokio::test]
    async fn nothing_is_lost_in_a_shutdown() {
        let mut stream = busy().await;
        send(&mut stream, &[2, 3]).await;
        stream.shutdown().await.unwrap();
        assert_eq!(sizes(&mut stream), [5]);
    }
}
