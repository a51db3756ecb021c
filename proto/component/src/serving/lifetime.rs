//! How long a connection may do nothing, and how it ends. The times are those of Go's server.
//!
//! What must not be here: what is answered, nor what stops the server.

use std::future::{Future, poll_fn};
use std::io::{IoSlice, Result};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Body, BoxError, Limits};

/// What every HTTP/2 client says first: the preface and the head of its settings (RFC 9113, 3.4).
const GREETING: usize = 24 + 9;
/// It may take so long.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was told to end and has no requests may stay so long,
const LEAVE: Duration = Duration::from_secs(1);
/// and so long after its last answer, which a client may take slowly.
const TAKE: Duration = Duration::from_secs(10);
/// The socket of a connection that has ended is kept until the client has said nothing for so
/// long: what arrives after `close(2)` has the kernel throw away what is still to be sent.
const LINGER: Duration = Duration::from_secs(1);
/// And not longer than this.
const LINGER_AT_MOST: Duration = Duration::from_secs(60);

/// What a connection has been doing. Its requests may run in several tasks.
pub(super) struct Lifetime {
    http2: bool,
    head_timeout: Duration,
    idle_timeout: Duration,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Bytes of an HTTP/2 client's greeting.
    greeting: usize,
    /// Requests that are being answered.
    open: usize,
    /// When the last of them was.
    answered: Option<Instant>,
    /// When the first byte of a head came, over HTTP/1, where none is being answered.
    head: Option<Instant>,
    /// The socket is somebody else's now.
    upgraded: bool,
    /// An answer has ended the connection.
    ended: bool,
    /// When the client was told of an end.
    told: Option<Instant>,
}

/// What becomes of a connection at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The client is told that there will be no more answers.
    Tell,
    Abandon,
}

impl Lifetime {
    pub fn new(http2: bool, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            http2,
            head_timeout: limits.head_timeout,
            idle_timeout: limits.idle_timeout,
            began: Instant::now(),
            state: Mutex::default(),
        })
    }

    /// A request has come.
    pub fn request(self: &Arc<Self>) -> Open {
        let mut state = self.state.lock();
        state.head = None;
        state.open += 1;
        Open(self.clone())
    }

    /// Whether a request that comes now is too late: an answer has ended the connection.
    pub fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// An answer has ended the connection.
    pub fn end(&self) {
        self.state.lock().ended = true;
    }

    /// An answer has handed over the socket.
    pub fn upgrade(&self) {
        self.state.lock().upgraded = true;
    }

    /// What will become of the connection if nothing happens; `None` while a request is open.
    fn due(&self) -> Option<(Instant, Due)> {
        let state = self.state.lock();
        if self.http2 && state.greeting < GREETING {
            return Some((self.began + GREETING_TIMEOUT, Due::Abandon));
        }
        if state.open > 0 {
            return None;
        }
        let quiet = state.answered.unwrap_or(self.began);
        Some(if let Some(told) = state.told {
            ((told + LEAVE).max(quiet + TAKE), Due::Abandon)
        } else if let Some(head) = state.head {
            (head + self.head_timeout, Due::Abandon)
        } else if !self.http2 && state.answered.is_none() {
            (self.began + self.head_timeout, Due::Abandon)
        } else {
            (quiet + self.idle_timeout, Due::Tell)
        })
    }

    /// Bytes have come; true if it need not know of others.
    fn has_read(&self, bytes: usize) -> bool {
        let mut state = self.state.lock();
        if self.http2 {
            state.greeting += bytes;
        } else if state.open == 0 {
            state.head.get_or_insert_with(Instant::now);
        }
        state.upgraded || (self.http2 && state.greeting >= GREETING)
    }

    /// Drives a connection to its end, which is `None` where it was abandoned. It is told by
    /// `tell` to take no more requests, after `close` or when it was idle for too long.
    pub async fn of<C: Future>(
        self: Arc<Self>,
        connection: C,
        tell: fn(Pin<&mut C>),
        close: CancellationToken,
    ) -> Option<C::Output> {
        let mut connection = pin!(connection);
        let mut close = pin!(close.cancelled());
        let mut timer = pin!(sleep(self.head_timeout));
        let (mut asked, mut told) = (false, false);
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(output) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(output));
                }
                if !asked && close.as_mut().poll(cx).is_ready() {
                    // What was answered before goes out before.
                    asked = true;
                    continue;
                }
                let due = match asked && !told {
                    true => Due::Tell,
                    false => ready!(self.poll_due(timer.as_mut(), cx)),
                };
                match due {
                    Due::Abandon => return Poll::Ready(None),
                    Due::Tell => {
                        (asked, told) = (true, true);
                        self.state.lock().told = Some(Instant::now());
                        tell(connection.as_mut());
                    }
                }
            }
        })
        .await
    }

    /// What is due now. The timer is only moved where it would be too late: most times it fires
    /// there is another time by then.
    fn poll_due(&self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            let due = self.due();
            if let Some((at, _)) = due
                && at < timer.deadline()
            {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            match due {
                Some((at, due)) if at <= timer.deadline() => return Poll::Ready(due),
                Some((at, _)) => timer.as_mut().reset(at),
                None => timer.as_mut().reset(Instant::now() + self.head_timeout),
            }
        }
    }
}

/// A request that is being answered, until this is dropped.
pub(super) struct Open(Arc<Lifetime>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.open -= 1;
        if state.open == 0 {
            state.answered = Some(Instant::now());
        }
    }
}

/// The body of an answer; its request is open as long.
pub(super) struct Answer {
    body: Body,
    /// Ends the connection, once the head of the answer is on its way: some clients take none
    /// after a GOAWAY (curl 7).
    last: Option<DropGuard>,
    _open: Open,
}

impl Answer {
    pub fn new(body: Body, open: Open) -> Self {
        Self {
            body,
            last: None,
            _open: open,
        }
    }

    /// The connection ends with this answer.
    pub fn is_last(&mut self, end: CancellationToken) {
        self.last = Some(end.drop_guard());
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, BoxError>>> {
        drop(self.last.take());
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's bytes.
pub(super) struct Watched<S> {
    stream: S,
    lifetime: Arc<Lifetime>,
    /// The lifetime need not know of what is read any more.
    knows_enough: bool,
    lingers: Option<Linger>,
}

/// The last of a socket: nothing more will be written.
struct Linger {
    quiet: Pin<Box<Sleep>>,
    until: Instant,
}

impl<S> Watched<S> {
    pub fn new(stream: S, lifetime: Arc<Lifetime>) -> Self {
        Self {
            stream,
            lifetime,
            knows_enough: false,
            lingers: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let bytes = into.filled().len() - before;
        if bytes > 0 && !self.knows_enough {
            self.knows_enough = self.lifetime.has_read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Says that there will be no more, and waits for the client to have it all.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let linger = match &mut this.lingers {
            Some(linger) => linger,
            none => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                // Who has the socket may still read from it.
                if this.lifetime.state.lock().upgraded {
                    return Poll::Ready(Ok(()));
                }
                none.insert(Linger {
                    quiet: Box::pin(sleep(LINGER)),
                    until: Instant::now() + LINGER_AT_MOST,
                })
            }
        };
        let mut scratch = [std::mem::MaybeUninit::uninit(); 4096];
        loop {
            let mut scratch = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut this.stream).poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(())) if !scratch.filled().is_empty() => {
                    let now = Instant::now();
                    if now >= linger.until {
                        return Poll::Ready(Ok(()));
                    }
                    let quiet = linger.quiet.as_mut();
                    quiet.reset(linger.until.min(now + LINGER));
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return linger.quiet.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures::task::noop_waker_ref;
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// A connection that ends when it is told to, unless it is stubborn.
    struct Connection {
        told: Arc<AtomicBool>,
        stubborn: bool,
    }

    impl Future for Connection {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            match !self.stubborn && self.told.load(Ordering::Relaxed) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }
    }

    fn tell(connection: Pin<&mut Connection>) {
        connection.told.store(true, Ordering::Relaxed);
    }

    /// After how many seconds the connection ends, and whether it was told to and did.
    async fn lasts_for(
        lifetime: Arc<Lifetime>,
        stubborn: bool,
        close: CancellationToken,
    ) -> (u64, bool) {
        let began = Instant::now();
        let told = Arc::new(AtomicBool::new(false));
        let connection = Connection { told, stubborn };
        let ended = lifetime.of(connection, tell, close).await;
        (began.elapsed().as_secs(), ended.is_some())
    }

    fn lifetime(http2: bool) -> Arc<Lifetime> {
        Lifetime::new(http2, &Limits::default())
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_abandoned() {
        let never = CancellationToken::new;
        assert_eq!(lasts_for(lifetime(true), false, never()).await, (10, false));
        assert_eq!(
            lasts_for(lifetime(false), false, never()).await,
            (32, false)
        );
        let half = lifetime(true);
        half.has_read(GREETING - 1);
        assert_eq!(lasts_for(half, false, never()).await, (10, false));
        let greeted = lifetime(true);
        greeted.has_read(GREETING);
        assert_eq!(lasts_for(greeted, false, never()).await, (90, true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_idle_is_told_to_end() {
        for http2 in [false, true] {
            let lifetime = lifetime(http2);
            lifetime.has_read(GREETING);
            let (one, other) = (lifetime.request(), lifetime.request());
            let lasts = tokio::spawn(lasts_for(lifetime, false, CancellationToken::new()));
            sleep(Duration::from_secs(1000)).await;
            drop(one);
            sleep(Duration::from_secs(1000)).await;
            drop(other);
            assert_eq!(lasts.await.unwrap(), (2090, true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_not_idleness() {
        let lifetime = lifetime(false);
        drop(lifetime.request());
        let lasts = tokio::spawn(lasts_for(lifetime.clone(), false, CancellationToken::new()));
        let (near, mut far) = duplex(100);
        let mut watched = Watched::new(near, lifetime);
        sleep(Duration::from_secs(80)).await;
        far.write_all(b"GE").await.unwrap();
        watched.read_u8().await.unwrap();
        sleep(Duration::from_secs(20)).await;
        watched.read_u8().await.unwrap();
        assert!(!lasts.is_finished());
        sleep(Duration::from_secs(13)).await;
        assert!(lasts.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_leave_is_left() {
        let lifetime = lifetime(true);
        lifetime.has_read(GREETING);
        let request = lifetime.request();
        let close = CancellationToken::new();
        let lasts = tokio::spawn(lasts_for(lifetime.clone(), true, close.clone()));
        sleep(Duration::from_secs(5)).await;
        close.cancel();
        sleep(Duration::from_secs(95)).await;
        drop(request);
        // Nothing polls it when the request ends: that is seen by the timer.
        let (seconds, ended) = lasts.await.unwrap();
        assert!((110..110 + 32).contains(&seconds) && !ended, "{seconds}");

        let idle = self::lifetime(true);
        idle.has_read(GREETING);
        sleep(TAKE).await;
        let close = CancellationToken::new();
        close.cancel();
        assert_eq!(lasts_for(idle, true, close).await, (1, false));
    }

    #[tokio::test]
    async fn the_last_answer_begins_before_the_end() {
        let end = CancellationToken::new();
        let mut answer = Answer::new(crate::serving::full("last"), lifetime(true).request());
        answer.is_last(end.clone());
        assert!(!end.is_cancelled());
        answer.frame().await.unwrap().unwrap();
        assert!(end.is_cancelled());

        let end = CancellationToken::new();
        let mut empty = Answer::new(crate::serving::full(""), lifetime(true).request());
        empty.is_last(end.clone());
        drop(empty);
        assert!(end.is_cancelled());
    }

    /// A connection that has ended, and the client's side of it.
    async fn ended(upgraded: bool) -> (Watched<DuplexStream>, DuplexStream) {
        let lifetime = lifetime(true);
        if upgraded {
            lifetime.upgrade();
        }
        let (near, mut far) = duplex(100);
        let mut watched = Watched::new(near, lifetime);
        watched.write_all(b"last").await.unwrap();
        let _ = Pin::new(&mut watched).poll_shutdown(&mut Context::from_waker(noop_waker_ref()));
        let mut last = String::new();
        far.read_to_string(&mut last).await.unwrap();
        assert_eq!(last, "last");
        (watched, far)
    }

    #[tokio::test(start_paused = true)]
    async fn the_socket_stays_until_the_client_is_done() {
        let (mut watched, mut far) = ended(false).await;
        let began = Instant::now();
        let shutdown = tokio::spawn(async move {
            watched.shutdown().await.unwrap();
            watched
        });
        for _ in 0..3 {
            sleep(Duration::from_millis(900)).await;
            far.write_all(&[0; 50]).await.unwrap();
        }
        let _watched = shutdown.await.unwrap();
        assert_eq!(began.elapsed().as_millis() / 100, 37);

        let (mut watched, far) = ended(false).await;
        drop(far);
        let began = Instant::now();
        watched.shutdown().await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);

        let (mut watched, mut far) = ended(false).await;
        let began = Instant::now();
        let talks = tokio::spawn(async move {
            while far.write_all(&[0; 50]).await.is_ok() {
                sleep(Duration::from_millis(900)).await;
            }
        });
        watched.shutdown().await.unwrap();
        assert_eq!(began.elapsed(), LINGER_AT_MOST);
        drop(watched);
        talks.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_the_socket_reads_what_comes() {
        let (mut watched, mut far) = ended(true).await;
        far.write_all(b"more").await.unwrap();
        watched.shutdown().await.unwrap();
        let mut more = [0; 4];
        watched.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"more");
    }
}
