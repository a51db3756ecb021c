//! When etcd itself told of changes: from then on a delay is the API server's.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use http::{Request, header};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::proto::Message;
use super::scan::proto::{field, fields, number};
use crate::stand::http::next;

/// Bounds a wait for what does not come.
const LIMIT: Duration = Duration::from_secs(120);
/// In front of a message of gRPC: whether it is compressed (it is not), and its length.
const PREFIX: usize = 5;

/// A watch of etcd, by gRPC as an API server has one: the JSON gateway would tell later.
#[derive(Debug)]
pub struct Notices {
    answers: Incoming,
    rest: BytesMut,
}

impl Notices {
    /// Watches the keys of a prefix from now on.
    ///
    /// # Errors
    ///
    /// When nobody listens at the address (`host:port`), or etcd refuses.
    pub async fn open(address: &str, prefix: &str) -> Result<Self> {
        const CREATE_REQUEST: u64 = 1;
        const KEY: u64 = 1;
        const RANGE_END: u64 = 2;
        const CREATED: u64 = 3;
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().context("an empty prefix")? += 1;
        let create = Message::default().text(KEY, prefix).bytes(RANGE_END, &end);
        let create = Message::default().message(CREATE_REQUEST, create);
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(tcp)).await?;
        tokio::spawn(async move {
            // Whoever waits for an answer learns of its end.
            let _ = connection.await;
        });
        // etcd ends a watch whose requests end.
        let requests = stream::iter([Ok::<_, Infallible>(Frame::data(framed(create)))]);
        let request = Request::post(format!("http://{address}/etcdserverpb.Watch/Watch"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(StreamBody::new(requests.chain(stream::pending())))?;
        let answer = sender.send_request(request).await?;
        let mut notices = Self {
            answers: answer.into_body(),
            rest: BytesMut::new(),
        };
        let first = notices.message().await?;
        ensure!(number(&first, CREATED)? == Some(1), "etcd refuses to watch");
        Ok(notices)
    }

    /// The revisions of the next `count` changes, each with how long after `epoch` it came.
    ///
    /// # Errors
    ///
    /// When etcd ends the watch, or tells nothing for two minutes.
    pub async fn next(mut self, count: u64, epoch: Instant) -> Result<Vec<(u64, Duration)>> {
        const EVENTS: u64 = 11;
        const KEY_VALUE: u64 = 2;
        const MOD_REVISION: u64 = 3;
        let mut told = Vec::with_capacity(count as usize);
        while (told.len() as u64) < count {
            let message = self.message().await?;
            let now = epoch.elapsed();
            for event in fields(&message, EVENTS)? {
                let value = field(event, KEY_VALUE)?.context("an event without a key")?;
                let revision = number(value, MOD_REVISION)?.context("a key without a revision")?;
                told.push((revision, now));
            }
        }
        Ok(told)
    }

    async fn message(&mut self) -> Result<Bytes> {
        loop {
            if let Some(length) = self.rest.get(1..PREFIX) {
                let length = u32::from_be_bytes(length.try_into()?) as usize;
                if self.rest.len() >= PREFIX + length {
                    self.rest.advance(PREFIX);
                    return Ok(self.rest.split_to(length).freeze());
                }
            }
            let chunk = timeout(LIMIT, next(&mut self.answers)).await;
            let chunk = chunk.context("etcd tells nothing")??;
            (self.rest).extend_from_slice(&chunk.context("etcd ends the watch")?);
        }
    }
}

fn framed(message: Message) -> Bytes {
    let message = message.into_bytes();
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    framed.into()
}
