//! The periodic compaction that API servers share through one key.
//!
//! The key's version is a logical clock: whoever advances it compacts to the revision that was
//! current one interval before, everybody else only reads it. So history is kept for one to
//! two intervals however many API servers run, upstream's among them.
//!
//! What must not be here: what becomes of watches that compaction cuts off.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grpc::etcd::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request as Op;
use pb::response_op::Response;

use super::{Etcd, bytes, header_revision, kv, with_leader};
use crate::storage::calls::Method;
use crate::storage::{Result, Revision};

/// Upstream's, outside of `--etcd-prefix`.
const KEY: &str = "compact_rev_key";

/// What a turn of the clock came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// There was nothing to compact to yet.
    First,
    /// This server has compacted to the revision.
    Ours(Revision),
    /// Another server has, or is about to.
    Theirs(Revision),
}

/// One API server's part in compacting.
pub struct Compactor {
    etcd: Arc<Etcd>,
    /// The key's version when it was last seen.
    clock: i64,
    /// etcd's revision then: what the next compaction goes to.
    revision: Revision,
}

impl Compactor {
    pub fn new(etcd: Arc<Etcd>) -> Self {
        Self {
            etcd,
            clock: 0,
            revision: 0,
        }
    }

    /// Compacts every `interval` (`--etcd-compaction-interval`) until dropped, and tells
    /// `compacted` what is gone, whoever compacted it.
    pub async fn run(mut self, interval: Duration, compacted: impl Fn(Revision)) {
        loop {
            tokio::time::sleep(interval).await;
            match self.step().await {
                Ok(Turn::Ours(revision)) => {
                    tracing::debug!(revision, "compacted etcd");
                    compacted(revision);
                }
                Ok(Turn::Theirs(revision)) => compacted(revision),
                Ok(Turn::First) => {}
                Err(error) => tracing::warn!(%error, "cannot compact etcd; trying again later"),
            }
        }
    }

    /// One turn of the clock.
    pub async fn step(&mut self) -> Result<Turn> {
        let answer = self.etcd.txn(self.advance()).await?;
        let now = header_revision(answer.header.as_ref());
        if !answer.succeeded {
            self.revision = now;
            let stored = answer
                .responses
                .iter()
                .find_map(|response| match &response.response {
                    Some(Response::ResponseRange(range)) => range.kvs.first(),
                    _ => None,
                });
            self.clock = stored.map_or(0, |kv| kv.version);
            let revision = stored.and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse().ok());
            return Ok(match revision {
                None | Some(0) => Turn::First,
                Some(revision) => Turn::Theirs(revision),
            });
        }
        self.clock += 1;
        let target = std::mem::replace(&mut self.revision, now);
        if target == 0 {
            return Ok(Turn::First);
        }
        let request = pb::CompactionRequest {
            revision: target as i64,
            physical: false,
        };
        self.etcd
            .call(Method::Compact, target, |member| {
                let request = with_leader(request);
                async move { kv(member.channel).compact(request).await }
            })
            .await?;
        Ok(Turn::Ours(target))
    }

    fn advance(&self) -> pb::TxnRequest {
        pb::TxnRequest {
            compare: vec![pb::Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Version.into(),
                key: bytes(KEY),
                target_union: Some(TargetUnion::Version(self.clock)),
                range_end: Bytes::new(),
            }],
            success: vec![pb::RequestOp {
                request: Some(Op::RequestPut(pb::PutRequest {
                    key: bytes(KEY),
                    value: self.revision.to_string().into(),
                    ..Default::default()
                })),
            }],
            failure: vec![pb::RequestOp {
                request: Some(Op::RequestRange(pb::RangeRequest {
                    key: bytes(KEY),
                    ..Default::default()
                })),
            }],
        }
    }
}
