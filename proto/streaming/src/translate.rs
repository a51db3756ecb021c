//! A remote command over a WebSocket (`v5.channel.k8s.io`), run by somebody who speaks SPDY
//! (`v4.channel.k8s.io`).
//!
//! To the client, a message's first byte is its channel: 0 to 4 are stdin, stdout, stderr, the
//! outcome and the terminal's size; 255 says that the channel of the next byte has ended. To
//! the other side every channel is a stream of its own.
//!
//! What must not be here: how the other side is reached.

use std::future::ready;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt, Stream, StreamExt};
use meta::Status;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::spdy::{self, Frame};
use crate::websocket::io_error;

/// The streams that the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// A terminal: it has a size, and no output for errors of its own.
    pub tty: bool,
}

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const OUTCOME: u8 = 3;
const RESIZE: u8 = 4;
const END_OF: u8 = 255;

/// The connection behind is kept alive, and found dead, by a ping this often; as upstream.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A client that neither sends nor is sent anything for so long has gone; as upstream.
const IDLE: Duration = Duration::from_secs(4 * 3600);
/// How long an outcome may take to be sent; as upstream.
const WRITE_OUTCOME: Duration = Duration::from_secs(10);
/// Messages on their way to the command. Few: what a command does not read must not pile up.
const QUEUE: usize = 8;

/// A channel's stream on the other side.
fn stream_of(channel: u8) -> u32 {
    match channel {
        OUTCOME => 1,
        STDIN => 3,
        STDOUT => 5,
        STDERR => 7,
        _ => 9,
    }
}

/// What the client says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Data(u8, Bytes),
    End(u8),
    Nothing,
}

fn said(mut message: Bytes) -> io::Result<Said> {
    match *message {
        [] => Ok(Said::Nothing),
        [END_OF, channel] if channel <= RESIZE => Ok(Said::End(channel)),
        [END_OF, ..] => Err(io::Error::other("a close signal that names no channel")),
        [channel, ..] => Ok(Said::Data(channel, message.split_off(1))),
    }
}

/// How a command ended, from what the stream of errors said: an HTTP status code for metrics,
/// and what the client is told.
fn outcome(message: &[u8]) -> (u16, Value) {
    let internal = |text: String| failure(&Status::internal(text));
    if message.is_empty() {
        return success();
    }
    let status: Value = match serde_json::from_slice(message) {
        Ok(status) => status,
        Err(e) => {
            let said = String::from_utf8_lossy(message);
            return internal(format!("error stream protocol error: {e} in {said:?}"));
        }
    };
    let text = status["message"].as_str().unwrap_or_default().to_owned();
    match status["status"].as_str() {
        Some("Success") => return success(),
        Some("Failure") if status["reason"] == "NonZeroExitCode" => {}
        Some("Failure") => return internal(text),
        _ => return internal("error stream protocol error: unknown error".to_owned()),
    }
    let causes = status["details"]["causes"].as_array();
    let code = causes.into_iter().flatten().find_map(|cause| {
        let code = cause["message"].as_str()?;
        (cause["reason"] == "ExitCode").then_some(code)
    });
    let Some(code) = code else {
        return internal("error stream protocol error: no ExitCode cause given".to_owned());
    };
    if code.parse::<u8>().is_err() {
        return internal(format!(
            "error stream protocol error: invalid exit code value {code:?}"
        ));
    }
    let status = json!({
        "metadata": {},
        "status": "Failure",
        "message": format!(
            "command terminated with non-zero exit code: command terminated with exit code {code}"
        ),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code}]},
    });
    (200, status)
}

fn success() -> (u16, Value) {
    (200, json!({"metadata": {}, "status": "Success"}))
}

/// Statuses on the channel do not say their kind.
fn failure(status: &Status) -> (u16, Value) {
    let mut value = serde_json::to_value(status).expect("a Status is JSON");
    if let Some(object) = value.as_object_mut() {
        object.remove("kind");
        object.remove("apiVersion");
    }
    (u16::try_from(status.code).unwrap_or(500), value)
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut message = Vec::with_capacity(data.len() + 1);
    message.push(channel);
    message.extend_from_slice(data);
    Message::Binary(message.into())
}

/// Serves a command to a client whose WebSocket stands. `dial` leads to who runs it, over a
/// connection that was upgraded to SPDY and [`REMOTE_COMMAND_V4`](crate::REMOTE_COMMAND_V4).
///
/// The answer is an HTTP status code for metrics.
pub async fn translate<C, B>(
    mut client: WebSocketStream<C>,
    streams: Streams,
    dial: impl Future<Output = Result<B, Status>>,
) -> u16
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite,
{
    // Tells the client that the connection stands.
    let lowest = match streams {
        Streams { stdout: true, .. } => STDOUT,
        Streams { stderr: true, .. } => STDERR,
        _ => OUTCOME,
    };
    if client.send(message(lowest, &[])).await.is_err() {
        return 400;
    }
    let (code, status) = match dial.await {
        Ok(backend) => {
            let (mut to_client, mut from_client) = client.split();
            let ended = run(&mut to_client, &mut from_client, streams, backend).await;
            client = crate::whole(to_client, from_client);
            ended
        }
        Err(status) => failure(&status),
    };
    let status = status.to_string();
    let told = client.send(message(OUTCOME, status.as_bytes()));
    // As long as upstream tries.
    if !matches!(tokio::time::timeout(WRITE_OUTCOME, told).await, Ok(Ok(()))) {
        tracing::debug!("a client left before its command's outcome");
    }
    crate::part(client).await;
    code
}

async fn run<C, B>(
    to_client: &mut SplitSink<WebSocketStream<C>, Message>,
    from_client: &mut SplitStream<WebSocketStream<C>>,
    streams: Streams,
    backend: B,
) -> (u16, Value)
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite,
{
    let (from_backend, mut to_backend) = tokio::io::split(backend);
    let (queue, mut queued) = mpsc::channel::<BytesMut>(QUEUE);
    let mut opened = BytesMut::new();
    let mut writer = spdy::Writer::default();
    let stderr = streams.stderr && !streams.tty;
    for (channel, name, is_asked_for) in [
        (OUTCOME, "error", true),
        (STDIN, "stdin", streams.stdin),
        (STDOUT, "stdout", streams.stdout),
        (STDERR, "stderr", stderr),
        (RESIZE, "resize", streams.tty),
    ] {
        if is_asked_for {
            writer.open(stream_of(channel), &[("streamtype", name)], &mut opened);
        }
    }
    let writes = async {
        to_backend.write_all(&opened).await?;
        to_backend.flush().await?;
        while let Some(frames) = queued.recv().await {
            to_backend.write_all(&frames).await?;
            to_backend.flush().await?;
        }
        Ok(())
    };
    let (heard, last) = watch::channel(Instant::now());
    let mut to_client = to_client.with(|message| {
        heard.send_replace(Instant::now());
        ready(Ok::<_, tungstenite::Error>(message))
    });
    let from_client = from_client.inspect(|_| {
        heard.send_replace(Instant::now());
    });
    let reads = outward(
        spdy::Reader::new(from_backend),
        &mut to_client,
        &queue,
        streams.stdout,
        stderr,
    );
    let client = inward(from_client, &queue, streams);
    let idle = async {
        loop {
            let until = *last.borrow() + IDLE;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    };
    let pings = async {
        let mut tick = tokio::time::interval(PING_INTERVAL);
        tick.tick().await;
        let mut id = 1_u32;
        loop {
            tick.tick().await;
            let mut frame = BytesMut::new();
            spdy::ping(id, &mut frame);
            id = id.wrapping_add(2);
            // Where the other side does not read, one more ping helps nobody.
            let _ = queue.try_send(frame);
        }
    };
    let ended: io::Result<Vec<u8>> = tokio::select! {
        ended = reads => ended,
        // The command may go on; nobody is there to see it.
        gone = client => gone.map(|()| Vec::new()),
        broken = writes => broken.map(|()| Vec::new()),
        () = pings => Ok(Vec::new()),
        () = idle => Err(io::ErrorKind::TimedOut.into()),
    };
    match ended {
        Ok(message) => outcome(&message),
        Err(e) => failure(&Status::internal(e)),
    }
}

/// What the client sends, until it leaves.
async fn inward(
    mut client: impl Stream<Item = tungstenite::Result<Message>> + Unpin,
    queue: &mpsc::Sender<BytesMut>,
    streams: Streams,
) -> io::Result<()> {
    let is_open = |channel| match channel {
        STDIN => streams.stdin,
        RESIZE => streams.tty,
        _ => false,
    };
    while let Some(message) = client.next().await {
        let bytes = match message.map_err(io_error)? {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return Ok(()),
            _ => continue,
        };
        let mut frames = BytesMut::new();
        match said(bytes)? {
            Said::Data(channel, bytes) if is_open(channel) => {
                spdy::data(stream_of(channel), &bytes, &mut frames);
            }
            Said::End(channel) if is_open(channel) => spdy::end(stream_of(channel), &mut frames),
            _ => continue,
        }
        if queue.send(frames).await.is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
    Ok(())
}

/// What the command says, until it has ended: what came on the stream of errors.
async fn outward<R>(
    mut backend: spdy::Reader<R>,
    client: &mut (impl Sink<Message, Error = tungstenite::Error> + Unpin),
    queue: &mpsc::Sender<BytesMut>,
    mut stdout: bool,
    mut stderr: bool,
) -> io::Result<Vec<u8>>
where
    R: AsyncRead + Unpin,
{
    let mut errors = Vec::new();
    let mut ended = false;
    while stdout || stderr || !ended {
        let lost = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (stream, is_last) = match backend.next().await?.ok_or_else(lost)? {
            Frame::Data {
                stream,
                data,
                is_last,
            } => {
                for channel in [STDOUT, STDERR] {
                    if stream == stream_of(channel) && !data.is_empty() {
                        let sent = client.send(message(channel, &data)).await;
                        sent.map_err(io_error)?;
                    }
                }
                if stream == stream_of(OUTCOME) {
                    errors.extend_from_slice(&data);
                }
                (stream, is_last)
            }
            Frame::Reply { stream, is_last } => (stream, is_last),
            Frame::Reset { stream } => (stream, true),
            // Ours come back with odd numbers.
            Frame::Ping(id) if id % 2 == 0 => {
                let mut frame = BytesMut::new();
                spdy::ping(id, &mut frame);
                let _ = queue.try_send(frame);
                continue;
            }
            Frame::Ping(_) | Frame::GoAway | Frame::Other => continue,
        };
        if is_last {
            stdout &= stream != stream_of(STDOUT);
            stderr &= stream != stream_of(STDERR);
            ended |= stream == stream_of(OUTCOME);
        }
    }
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::{goodbye, websocket};

    const ALL: Streams = Streams {
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };

    /// A client, a runtime's end, and the code that comes of it.
    async fn served(
        streams: Streams,
    ) -> (
        WebSocketStream<DuplexStream>,
        DuplexStream,
        tokio::task::JoinHandle<u16>,
    ) {
        let (near, far) = tokio::io::duplex(4096);
        let (backend, runtime) = tokio::io::duplex(4096);
        let code = tokio::spawn(async move {
            let client = websocket::server(far).await;
            translate(client, streams, async { Ok(backend) }).await
        });
        let client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        (client, runtime, code)
    }

    async fn next(client: &mut WebSocketStream<DuplexStream>) -> Vec<u8> {
        match client.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_command_reads_its_input_to_the_end_and_says_how_it_ended() {
        let (mut client, runtime, code) = served(ALL).await;
        assert_eq!(next(&mut client).await, [STDOUT]);
        let (from, mut to) = tokio::io::split(runtime);
        let mut from = spdy::Reader::new(from);
        for _ in 0..4 {
            // Streams that are opened are none of this reader's concern.
            assert_eq!(from.next().await.unwrap(), Some(Frame::Other));
        }
        client.send(message(STDIN, b"abc")).await.unwrap();
        client
            .send(Message::Binary(vec![END_OF, STDIN].into()))
            .await
            .unwrap();
        let input = |data: &'static [u8], is_last| Frame::Data {
            stream: stream_of(STDIN),
            data: Bytes::from_static(data),
            is_last,
        };
        assert_eq!(from.next().await.unwrap(), Some(input(b"abc", false)));
        assert_eq!(from.next().await.unwrap(), Some(input(b"", true)));

        let mut out = BytesMut::new();
        spdy::ping(2, &mut out);
        to.write_all(&out.split()).await.unwrap();
        assert_eq!(from.next().await.unwrap(), Some(Frame::Ping(2)));
        spdy::data(stream_of(STDERR), b"oh", &mut out);
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        spdy::data(stream_of(OUTCOME), failed, &mut out);
        for channel in [STDOUT, STDERR, OUTCOME] {
            spdy::end(stream_of(channel), &mut out);
        }
        to.write_all(&out).await.unwrap();
        assert_eq!(next(&mut client).await, b"\x02oh");
        let told = next(&mut client).await;
        assert_eq!(told[0], OUTCOME);
        let told: Value = serde_json::from_slice(&told[1..]).unwrap();
        assert_eq!(told["reason"], "NonZeroExitCode");
        assert_eq!(told["details"]["causes"][0]["message"], "3");
        assert_eq!(client.next().await.unwrap().unwrap(), goodbye());
        drop(client);
        assert_eq!(code.await.unwrap(), 200);
    }

    #[tokio::test]
    async fn who_cannot_be_reached_is_told_on_the_channel() {
        let (near, far) = tokio::io::duplex(4096);
        let code = tokio::spawn(async move {
            let client = websocket::server(far).await;
            let dial = async { Err::<DuplexStream, _>(Status::internal("nobody there")) };
            translate(client, ALL, dial).await
        });
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        assert_eq!(next(&mut client).await, [STDOUT]);
        let told = next(&mut client).await;
        let told: Value = serde_json::from_slice(&told[1..]).unwrap();
        assert_eq!(told["message"], "Internal error occurred: nobody there");
        assert_eq!(told.get("kind"), None);
        drop(client);
        assert_eq!(code.await.unwrap(), 500);
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_no_success() {
        let (mut client, runtime, code) = served(ALL).await;
        assert_eq!(next(&mut client).await, [STDOUT]);
        drop(runtime);
        let told = next(&mut client).await;
        let told: Value = serde_json::from_slice(&told[1..]).unwrap();
        assert_eq!(told["status"], "Failure");
        drop(client);
        assert_eq!(code.await.unwrap(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_silent_for_hours_has_gone() {
        let (mut client, mut runtime, code) = served(ALL).await;
        let started = Instant::now();
        let read = tokio::spawn(async move {
            let mut pings = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut runtime, &mut pings).await;
        });
        assert_eq!(next(&mut client).await, [STDOUT]);
        tokio::time::sleep(IDLE / 2).await;
        client.send(message(STDIN, b"abc")).await.unwrap();
        let told = next(&mut client).await;
        let told: Value = serde_json::from_slice(&told[1..]).unwrap();
        assert_eq!(told["status"], "Failure");
        assert!(started.elapsed() >= IDLE / 2 * 3);
        drop(client);
        assert_eq!(code.await.unwrap(), 500);
        read.await.unwrap();
    }

    #[test]
    fn outcomes() {
        assert_eq!(outcome(b"").1["status"], "Success");
        assert_eq!(outcome(br#"{"status":"Success"}"#).0, 200);
        let (code, status) = outcome(br#"{"status":"Failure","message":"no such thing"}"#);
        assert_eq!(code, 500);
        assert_eq!(status["message"], "Internal error occurred: no such thing");
        assert_eq!(outcome(b"garbage").0, 500);
    }

    #[test]
    fn the_clients_messages() {
        let of = |bytes: &'static [u8]| said(Bytes::from_static(bytes)).ok();
        assert_eq!(of(b""), Some(Said::Nothing));
        assert_eq!(of(b"\x00a"), Some(Said::Data(0, Bytes::from_static(b"a"))));
        assert_eq!(of(b"\xff\x00"), Some(Said::End(0)));
        assert_eq!(of(b"\xff"), None);
        assert_eq!(of(b"\xff\x09"), None);
    }
}
