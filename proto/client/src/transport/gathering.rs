//! A stream that many small requests leave together.
//!
//! HTTP/2 puts frames into one buffer until it is full or there are no more, but payloads
//! from some size on it rather passes on in place, each with a write, a TLS record and a
//! system call of its own. The size is four times larger for streams that cannot write from
//! several places at once, and then it is about that of the largest requests of a daemon.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

/// Does all that the stream does but [`Write::poll_write_vectored`].
pub struct Gathering<S>(pub S);

impl<S: Read + Unpin> Read for Gathering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: Write + Unpin> Write for Gathering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: Connection> Connection for Gathering<S> {
    fn connected(&self) -> Connected {
        self.0.connected()
    }
}
