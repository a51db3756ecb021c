//! [`Storage`] on etcd v3.
//!
//! Requests stay with one member until it fails them; what a member surely did not do is
//! repeated on the next, reads always are. Every write is one transaction: compare the key's mod
//! revision, put or delete, else read what is there (the shape that upstream's writes have).
//!
//! What must not be here: what keys and values mean.

mod channel;
pub mod compact;
mod error;
mod health;
mod lease;
mod status;
mod watch;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use grpc::etcd::etcdserverpb as pb;
use grpc::etcd::mvccpb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::request_op::Request as Op;
use prost::Message as _;
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::Channel;

pub use channel::{Transport, TransportError};
pub use compact::Compactor;
pub use health::Probe;

use super::calls::Method;
use super::metrics::Metrics;
use super::{KeyValue, Page, Result, Revision, Storage, StorageError, Watch, keys};
use channel::{Member, Members};
use error::{Fate, fate, storage_error};
use lease::Leases;

/// What a client of upstream's sends at most; etcd itself takes 1.5 MiB by default.
const MAX_SENT: usize = 2 << 20;
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long failed attempts are repeated: a member's restart, an election.
const RETRY_FOR: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(25);
const RETRY_MOST: Duration = Duration::from_millis(500);

/// etcd's members, as one store.
pub struct Etcd {
    members: Members,
    leases: Leases,
    /// Where the keys begin, with a slash at its end; for health checks and revisions.
    root: String,
    metrics: Arc<Metrics>,
}

/// Whether a request may be done twice. A lease that nobody uses expires, so granting two does
/// no harm.
fn may_repeat(method: Method) -> bool {
    !matches!(method, Method::Txn | Method::Compact)
}

impl Etcd {
    /// Connects when the first request comes. `prefix` is `--etcd-prefix`.
    pub fn new(
        transport: &Transport,
        prefix: &str,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TransportError> {
        Ok(Self {
            members: Members::new(transport)?,
            leases: Leases::default(),
            root: keys::Keys::new(prefix).root().to_owned(),
            metrics,
        })
    }

    /// Sends a request until it is answered, must not be repeated, or time is up.
    async fn call<T, F>(
        &self,
        method: Method,
        asked: Revision,
        send: impl Fn(Member) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let deadline = Instant::now() + RETRY_FOR;
        let mut wait = RETRY_FIRST;
        let mut tried = 0;
        loop {
            let member = self.members.current();
            // Pinned here: what wraps it moves a pointer.
            let call = pin!(send(member.clone()));
            let call = self.metrics.calls.unary(method, call);
            let answer = tokio::time::timeout(ATTEMPT_TIMEOUT, call).await;
            let status = match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => {
                    self.metrics.calls.handled(method, Code::DeadlineExceeded);
                    self.members.failed(&member);
                    return Err(StorageError::Unavailable(format!(
                        "etcd at {} did not answer within {} s",
                        member.server,
                        ATTEMPT_TIMEOUT.as_secs()
                    )));
                }
            };
            let again = match fate(&status) {
                Fate::Undone => true,
                Fate::Unknown => may_repeat(method),
                Fate::Final => return Err(storage_error(&status, asked)),
            };
            self.members.failed(&member);
            if !again || Instant::now() + wait > deadline {
                return Err(storage_error(&status, asked));
            }
            self.metrics.request_retry(status.code());
            tried += 1;
            // Every member gets its turn before the first is asked again.
            if tried % self.members.all().len() == 0 {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MOST);
            }
        }
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse> {
        let asked = revision(request.revision);
        let answer = self
            .call(Method::Range, asked, |member| {
                let request = with_leader(request.clone());
                async move { kv(member.channel).range(request).await }
            })
            .await;
        match answer {
            Err(StorageError::Future { .. }) => {
                let current = Storage::current_revision(self).await?;
                Err(StorageError::Future { asked, current })
            }
            answer => answer,
        }
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse> {
        if request.encoded_len() > MAX_SENT {
            return Err(StorageError::TooLarge);
        }
        self.call(Method::Txn, 0, |member| {
            let request = with_leader(request.clone());
            async move { kv(member.channel).txn(request).await }
        })
        .await
    }

    /// Compares the key's mod revision, does `op`, else reads the key.
    async fn write(
        &self,
        key: &str,
        expected: Revision,
        op: Op,
    ) -> Result<Result<Revision, Option<KeyValue>>> {
        let request = pb::TxnRequest {
            compare: vec![pb::Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Mod.into(),
                key: bytes(key),
                target_union: Some(TargetUnion::ModRevision(expected as i64)),
                range_end: Bytes::new(),
            }],
            success: vec![pb::RequestOp { request: Some(op) }],
            failure: vec![pb::RequestOp {
                request: Some(Op::RequestRange(pb::RangeRequest {
                    key: bytes(key),
                    ..Default::default()
                })),
            }],
        };
        let answer = self.txn(request).await?;
        if answer.succeeded {
            return Ok(Ok(header_revision(answer.header.as_ref())));
        }
        let current = answer
            .responses
            .into_iter()
            .find_map(|response| match response.response {
                Some(pb::response_op::Response::ResponseRange(range)) => Some(range),
                _ => None,
            })
            .and_then(|range| range.kvs.into_iter().find_map(key_value));
        Ok(Err(current))
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> Result<Result<Revision, Option<KeyValue>>> {
        let mut retried = false;
        loop {
            let lease = match ttl {
                Some(ttl) => self.lease(ttl).await?,
                None => 0,
            };
            let put = Op::RequestPut(pb::PutRequest {
                key: bytes(key),
                value: value.clone(),
                lease,
                ..Default::default()
            });
            match self.write(key, expected, put).await {
                // The lease went (etcd was restored, somebody revoked it): take another.
                Err(StorageError::Internal(message))
                    if lease != 0 && !retried && message.contains("lease not found") =>
                {
                    self.leases.forget(lease).await;
                    retried = true;
                }
                outcome => return outcome,
            }
        }
    }

    async fn lease(&self, ttl: Duration) -> Result<i64> {
        let grant = |seconds: u64| async move {
            let request = pb::LeaseGrantRequest {
                ttl: seconds as i64,
                id: 0,
            };
            let answer = self
                .call(Method::LeaseGrant, 0, |member| {
                    let request = with_leader(request);
                    async move { LeaseClient::new(member.channel).lease_grant(request).await }
                })
                .await?;
            Ok(answer.id)
        };
        self.leases
            .get(ttl, grant, |objects| self.metrics.lease_objects(objects))
            .await
    }

    /// Measures a request under upstream's operation names.
    fn timed<'a, T>(
        &'a self,
        operation: &'static str,
        key: &'a str,
        request: impl Future<Output = Result<T>> + 'a,
    ) -> impl Future<Output = Result<T>> + 'a {
        let start = Instant::now();
        request.inspect(move |outcome| {
            self.metrics.request(
                operation,
                key,
                start.elapsed(),
                outcome.as_ref().err().is_some_and(is_failure),
            );
        })
    }
}

/// A conflict is an answer, not an error of etcd's.
fn is_failure(error: &StorageError) -> bool {
    !matches!(
        error,
        StorageError::Conflict { .. } | StorageError::Exists(_) | StorageError::NotFound(_)
    )
}

impl Storage for Etcd {
    fn get<'a>(
        &'a self,
        key: &'a str,
        revision: Revision,
    ) -> BoxFuture<'a, Result<Option<KeyValue>>> {
        Box::pin(self.timed("get", key, async move {
            let request = pb::RangeRequest {
                key: bytes(key),
                limit: 1,
                revision: revision as i64,
                ..Default::default()
            };
            let answer = self.range(request).await?;
            Ok(answer.kvs.into_iter().find_map(key_value))
        }))
    }

    fn range<'a>(
        &'a self,
        start: &'a str,
        end: &'a str,
        limit: usize,
        revision: Revision,
    ) -> BoxFuture<'a, Result<Page>> {
        Box::pin(self.timed("list", start, async move {
            let request = pb::RangeRequest {
                key: bytes(start),
                range_end: bytes(end),
                limit: limit as i64,
                revision: revision as i64,
                ..Default::default()
            };
            let answer = self.range(request).await?;
            Ok(Page {
                items: answer.kvs.into_iter().filter_map(key_value).collect(),
                more: answer.more,
                count: answer.count as u64,
            })
        }))
    }

    fn create<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<Revision>> {
        Box::pin(self.timed("create", key, async move {
            self.put(key, value, 0, ttl)
                .await?
                .map_err(|_| StorageError::Exists(key.to_owned()))
        }))
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<Revision>> {
        Box::pin(self.timed("update", key, async move {
            self.put(key, value, expected, ttl)
                .await?
                .map_err(|current| StorageError::Conflict { current })
        }))
    }

    fn delete<'a>(&'a self, key: &'a str, expected: Revision) -> BoxFuture<'a, Result<Revision>> {
        Box::pin(self.timed("delete", key, async move {
            let delete = Op::RequestDeleteRange(pb::DeleteRangeRequest {
                key: bytes(key),
                ..Default::default()
            });
            match self.write(key, expected, delete).await? {
                Ok(revision) => Ok(revision),
                Err(None) => Err(StorageError::NotFound(key.to_owned())),
                Err(current) => Err(StorageError::Conflict { current }),
            }
        }))
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<Watch>> {
        Box::pin(self.open_watch(prefix, after))
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        Box::pin(async move {
            // A quorum read that finds nothing and so costs little.
            let request = pb::RangeRequest {
                key: bytes(&self.root),
                count_only: true,
                ..Default::default()
            };
            let answer = self.range(request).await?;
            Ok(header_revision(answer.header.as_ref()))
        })
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

/// A member that has lost its leader refuses such a request at once, and another is asked.
fn with_leader<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(
        "hasleader",
        tonic::metadata::MetadataValue::from_static("true"),
    );
    request
}

fn bytes(key: &str) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}

fn revision(etcds: i64) -> Revision {
    etcds.max(0) as Revision
}

fn header_revision(header: Option<&pb::ResponseHeader>) -> Revision {
    header.map_or(0, |header| revision(header.revision))
}

/// `None` for a key that is no text, which nothing of Kubernetes' ever wrote.
fn key_value(kv: mvccpb::KeyValue) -> Option<KeyValue> {
    Some(KeyValue {
        key: String::from_utf8(kv.key.into()).ok()?,
        value: kv.value,
        mod_revision: revision(kv.mod_revision),
    })
}
