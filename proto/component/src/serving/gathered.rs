//! Lets the frames of one HTTP/2 body share a write to the socket.
//!
//! h2 cuts a body into frames of 16 KiB and flushes after each, so that each would be a TLS
//! record and a system call of its own, and these cost more than all else that sending costs.
//! A full frame announces another one: what follows is waited for, within the same turn of the
//! connection's task.
//!
//! What must not be here: timers. Nothing is held back longer than until the task's next turn.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The smallest size of a full frame (RFC 9113, 4.2), and the one that clients ask for.
const FRAME: usize = 16 << 10;
/// Never held for longer than until there is so much: what rustls takes at once.
const MOST: usize = 64 << 10;

pub struct Gathered<S> {
    stream: S,
    /// Other protocols than HTTP/2 flush when they mean it.
    enabled: bool,
    held: Vec<u8>,
    /// How much of `held` has been written.
    written: usize,
    /// The last write was a full frame, and nobody has flushed since.
    announced: bool,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub fn new(stream: S, enabled: bool) -> Self {
        Self {
            stream,
            enabled,
            held: Vec::new(),
            written: 0,
            announced: false,
        }
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.written < self.held.len() {
            let left = &self.held[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
        }
        self.written = 0;
        // Connections are many, and most are quiet.
        self.held = Vec::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let length = slices.iter().map(|s| s.len()).sum::<usize>();
        if this.held.len() >= MOST {
            ready!(this.drain(cx))?;
        }
        if this.held.is_empty() && (length < FRAME || !this.enabled) {
            return Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        }
        this.held.reserve(length);
        for slice in slices {
            this.held.extend_from_slice(slice);
        }
        this.announced = length >= FRAME;
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.announced) && this.held.len() < MOST {
            // Should nothing follow, the next turn flushes.
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(this.drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        ready!(this.drain(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Takes everything and remembers it write by write.
    #[derive(Default)]
    struct Socket {
        writes: Vec<Vec<u8>>,
        flushes: usize,
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize>> {
            self.writes.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes and flushes frames of these sizes, as h2 does; the sizes of the writes.
    async fn sent(enabled: bool, frames: &[usize]) -> Vec<usize> {
        let mut gathered = Gathered::new(Socket::default(), enabled);
        let mut all = Vec::new();
        for (i, size) in frames.iter().enumerate() {
            let frame = vec![i as u8; *size];
            gathered.write_all(&frame).await.unwrap();
            gathered.flush().await.unwrap();
            all.extend(frame);
        }
        gathered.flush().await.unwrap();
        assert!(gathered.held.is_empty());
        assert!(gathered.stream.flushes > 0);
        assert_eq!(gathered.stream.writes.concat(), all);
        gathered.stream.writes.iter().map(Vec::len).collect()
    }

    #[tokio::test]
    async fn full_frames_wait_for_what_follows() {
        assert_eq!(sent(true, &[100, 200]).await, [100, 200]);
        assert_eq!(sent(true, &[FRAME, 100, 200]).await, [FRAME + 100, 200]);
        assert_eq!(sent(true, &[FRAME, FRAME]).await, [2 * FRAME]);
        let long = [FRAME; 6];
        assert_eq!(sent(true, &long).await, [MOST, 2 * FRAME]);
        assert_eq!(sent(false, &[FRAME, 100]).await, [FRAME, 100]);
    }

    #[tokio::test]
    async fn nothing_is_lost_in_a_shutdown() {
        let mut gathered = Gathered::new(Socket::default(), true);
        gathered.write_all(&[1; FRAME]).await.unwrap();
        gathered.flush().await.unwrap();
        assert!(gathered.stream.writes.is_empty());
        gathered.shutdown().await.unwrap();
        assert_eq!(gathered.stream.writes.concat().len(), FRAME);
    }
}
