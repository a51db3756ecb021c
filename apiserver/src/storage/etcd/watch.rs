//! One etcd watch on a prefix as a stream of [`Change`]s.
//!
//! Large revisions arrive in fragments and are put together; all changes of a response are
//! followed by a [`Change::Progress`] at the last one's revision, since etcd never splits a
//! revision over responses. (The header's revision is no such promise: a watcher that lags gets
//! the store's current one with its oldest changes.)
//!
//! What must not be here: beginning again after an error, which needs to know what the reader
//! has seen.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use grpc::etcd::etcdserverpb as pb;
use grpc::etcd::mvccpb;
use mvccpb::event::EventType;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Streaming};

use super::error::storage_error;
use super::{Etcd, bytes, header_revision, key_value, revision, with_leader};
use crate::storage::calls::Method;
use crate::storage::metrics::Metrics;
use crate::storage::{Change, Result, Revision, StorageError, Watch, keys};

type Requests = mpsc::UnboundedSender<pb::WatchRequest>;

impl Etcd {
    pub(super) async fn open_watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        let member = self.members.current();
        let opened = self.try_watch(prefix, after).await;
        if let Err(StorageError::Unavailable(_)) = opened {
            self.members.failed(&member);
        }
        opened
    }

    async fn try_watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        let member = self.members.current();
        let can_ask = self.status_of(&member).await?.supports_progress_requests();
        let (requests, outgoing) = mpsc::unbounded_channel();
        let create = pb::WatchCreateRequest {
            key: bytes(prefix),
            range_end: keys::range_end(prefix).into(),
            start_revision: after as i64 + 1,
            progress_notify: true,
            fragment: true,
            ..Default::default()
        };
        let sent = send(&requests, RequestUnion::CreateRequest(create));
        debug_assert!(sent, "the receiver is alive");
        let metrics = self.metrics.clone();
        metrics.calls.started(Method::Watch);
        metrics.calls.sent(Method::Watch);
        let mut answers = WatchClient::new(member.channel.clone())
            .max_decoding_message_size(usize::MAX)
            .watch(with_leader(UnboundedReceiverStream::new(outgoing)))
            .await
            .inspect_err(|status| metrics.calls.handled(Method::Watch, status.code()))
            .map_err(|status| storage_error(&status, after))?
            .into_inner();
        let first = next(&mut answers, after, &metrics).await?;
        if let Some(error) = canceled(&first, after) {
            return Err(error);
        }
        let reader = Reader {
            answers,
            requests: requests.clone(),
            metrics: metrics.clone(),
            after,
            fragments: Vec::new(),
            ready: VecDeque::new(),
            ended: false,
        };
        let requests = Arc::new(requests);
        Ok(Watch {
            changes: stream::unfold(reader, |mut reader| async move {
                let change = reader.next().await?;
                Some((change, reader))
            })
            .boxed(),
            request_progress: can_ask.then(|| {
                Box::new(move || {
                    // A stream that has ended says so to its reader.
                    let request = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                    if send(&requests, request) {
                        metrics.calls.sent(Method::Watch);
                    }
                }) as Box<dyn Fn() + Send + Sync>
            }),
        })
    }
}

fn send(requests: &Requests, request: RequestUnion) -> bool {
    requests
        .send(pb::WatchRequest {
            request_union: Some(request),
        })
        .is_ok()
}

struct Reader {
    answers: Streaming<pb::WatchResponse>,
    /// Keeps the request side of the stream open.
    #[allow(dead_code)]
    requests: Requests,
    metrics: Arc<Metrics>,
    after: Revision,
    fragments: Vec<mvccpb::Event>,
    ready: VecDeque<Change>,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<Change>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            if self.ended {
                return None;
            }
            match next(&mut self.answers, self.after, &self.metrics).await {
                Ok(answer) => {
                    if let Some(error) = canceled(&answer, self.after) {
                        self.ended = true;
                        return Some(Err(error));
                    }
                    self.take(answer);
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }

    fn take(&mut self, answer: pb::WatchResponse) {
        if answer.events.is_empty() && !answer.fragment && self.fragments.is_empty() {
            if !answer.created {
                let progress = header_revision(answer.header.as_ref());
                self.ready.push_back(Change::Progress(progress));
            }
            return;
        }
        self.fragments.extend(answer.events);
        if answer.fragment {
            return;
        }
        let mut last = 0;
        for event in self.fragments.drain(..) {
            let deleted = event.r#type() == EventType::Delete;
            let Some(kv) = event.kv else { continue };
            last = revision(kv.mod_revision);
            self.ready.extend(key_value(kv).map(|kv| {
                if deleted {
                    Change::Delete {
                        key: kv.key,
                        revision: last,
                    }
                } else {
                    Change::Put(kv)
                }
            }));
        }
        self.ready.push_back(Change::Progress(last));
    }
}

async fn next(
    answers: &mut Streaming<pb::WatchResponse>,
    after: Revision,
    metrics: &Metrics,
) -> Result<pb::WatchResponse> {
    let answer = answers.message().await;
    match answer {
        Ok(Some(answer)) => {
            metrics.calls.received(Method::Watch);
            Ok(answer)
        }
        Ok(None) => {
            metrics.calls.handled(Method::Watch, Code::Ok);
            Err(StorageError::Unavailable("etcd ended the watch".into()))
        }
        Err(status) => {
            metrics.calls.handled(Method::Watch, status.code());
            Err(storage_error(&status, after))
        }
    }
}

fn canceled(answer: &pb::WatchResponse, after: Revision) -> Option<StorageError> {
    if answer.compact_revision > 0 {
        return Some(StorageError::Compacted {
            asked: after,
            oldest: revision(answer.compact_revision),
        });
    }
    answer.canceled.then(|| {
        StorageError::Unavailable(format!(
            "etcd cancelled the watch: {}",
            answer.cancel_reason
        ))
    })
}
