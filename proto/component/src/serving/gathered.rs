//! Lets the frames of one HTTP/2 body share a write to the socket.
//!
//! h2 cuts a body into frames of 16 KiB and flushes after each, so that each would be a system
//! call of its own, and these cost more than all else that sending costs. A full frame announces
//! another one: what follows is waited for, within the same turn of the connection's task.
//! Meanwhile it waits where it is no copy: encrypted, in front of a socket that takes nothing.
//!
//! What must not be here: timers. Nothing is held back longer than until the task's next turn.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// The smallest size of a full frame (RFC 9113, 4.2), and the one that clients ask for.
const FRAME: usize = 16 << 10;
/// More is not held. With the frame that exceeds it, it is what rustls holds at most.
const MOST: usize = 48 << 10;

/// What is under TLS.
pub struct Corked<S> {
    stream: S,
    /// Writes are not taken. Nobody is woken for them: only [`Gathered`] corks, and not for longer
    /// than it writes.
    corked: bool,
}

impl<S> Corked<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            corked: false,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        if self.corked {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        if self.corked {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

/// A connection of HTTP/2 after the TLS handshake.
pub struct Gathered<S> {
    stream: TlsStream<Corked<S>>,
    /// Bytes that wait, before encryption.
    held: usize,
    /// The last write was a full frame, and nobody has flushed since.
    announced: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathered<S> {
    pub fn new(stream: TlsStream<Corked<S>>) -> Self {
        Self {
            stream,
            held: 0,
            announced: false,
        }
    }

    /// Encrypts and holds back; nothing if TLS holds all it can.
    fn hold(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        self.stream.get_mut().0.corked = true;
        let taken = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.stream.get_mut().0.corked = false;
        taken
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
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
        let full = length >= FRAME;
        let hold = (full || this.held > 0) && this.held < MOST;
        if hold && let Poll::Ready(taken) = this.hold(cx, slices) {
            let taken = taken?;
            this.held += taken;
            this.announced = full && taken == length;
            return Poll::Ready(Ok(taken));
        }
        // What is held goes out before it.
        this.held = 0;
        this.announced = false;
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.announced) && this.held < MOST {
            // Should nothing follow, the next turn flushes.
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        this.held = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector, client};

    use super::*;

    /// Counts the writes that reach it.
    struct Socket(DuplexStream, Arc<AtomicUsize>);

    impl AsyncWrite for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize>> {
            let taken = Pin::new(&mut self.0).poll_write(cx, bytes);
            self.1
                .fetch_add(usize::from(taken.is_ready()), Ordering::Relaxed);
            taken
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<Result<usize>> {
            let taken = Pin::new(&mut self.0).poll_write_vectored(cx, slices);
            self.1
                .fetch_add(usize::from(taken.is_ready()), Ordering::Relaxed);
            taken
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    impl AsyncRead for Socket {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, into)
        }
    }

    /// Both ends of a connection whose wire takes so many bytes, and a count of the writes to it.
    async fn connected(
        wire: usize,
    ) -> (
        Gathered<Socket>,
        client::TlsStream<DuplexStream>,
        Arc<AtomicUsize>,
    ) {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let serving = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                key.signing_key.serialize_der().try_into().unwrap(),
            )
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        let asking = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = duplex(wire);
        let writes = Arc::new(AtomicUsize::new(0));
        let socket = Corked::new(Socket(near, writes.clone()));
        let name = "localhost".try_into().unwrap();
        let (server, client) = tokio::join!(
            TlsAcceptor::from(Arc::new(serving)).accept(socket),
            TlsConnector::from(Arc::new(asking)).connect(name, far),
        );
        (Gathered::new(server.unwrap()), client.unwrap(), writes)
    }

    /// Writes and flushes frames of these sizes, as h2 does; how often the socket is written to.
    async fn sent(frames: &[usize]) -> usize {
        let (mut gathered, mut client, writes) = connected(1 << 20).await;
        writes.store(0, Ordering::Relaxed);
        let mut all = Vec::new();
        for (i, size) in frames.iter().enumerate() {
            let frame = vec![i as u8; *size];
            gathered.write_all(&frame).await.unwrap();
            gathered.flush().await.unwrap();
            all.extend(frame);
        }
        gathered.flush().await.unwrap();
        let mut got = vec![0; all.len()];
        client.read_exact(&mut got).await.unwrap();
        assert!(got == all, "frames arrive otherwise than they were sent");
        writes.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn full_frames_wait_for_what_follows() {
        assert_eq!(sent(&[100, 200]).await, 2);
        assert_eq!(sent(&[FRAME, 100, 200]).await, 2);
        assert_eq!(sent(&[FRAME, FRAME]).await, 1);
        assert_eq!(sent(&[FRAME; 6]).await, 2);
    }

    #[tokio::test]
    async fn a_slow_reader_gets_everything() {
        let (mut gathered, mut client, _) = connected(4000).await;
        let writing = async {
            for n in 0..40 {
                gathered
                    .write_all(&vec![n; FRAME + 100 * n as usize])
                    .await
                    .unwrap();
                gathered.flush().await.unwrap();
            }
            gathered.shutdown().await.unwrap();
        };
        let reading = async {
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            got
        };
        let ((), got) = tokio::join!(writing, reading);
        let all: Vec<u8> = (0..40)
            .flat_map(|n| vec![n; FRAME + 100 * n as usize])
            .collect();
        assert!(got == all);
    }

    #[tokio::test]
    async fn nothing_is_lost_in_a_shutdown() {
        let (mut gathered, mut client, writes) = connected(1 << 20).await;
        let before = writes.load(Ordering::Relaxed);
        gathered.write_all(&[1; FRAME]).await.unwrap();
        gathered.flush().await.unwrap();
        assert_eq!(writes.load(Ordering::Relaxed), before);
        gathered.shutdown().await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [1; FRAME]);
    }
}
