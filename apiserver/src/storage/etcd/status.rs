//! How etcd is: health checks, versions, the size of its database.
//!
//! What must not be here: `/healthz` paths and metric names' registration.

use std::time::Duration;

use futures::future::join_all;
use grpc::etcd::etcdserverpb as pb;
use pb::maintenance_client::MaintenanceClient;

use super::channel::Member;
use super::error::storage_error;
use super::{Etcd, with_leader};
use crate::storage::calls::Method;
use crate::storage::{Result, Storage, StorageError};

/// A hung member must not hang what reports on it.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// One member's own word.
#[derive(Debug, Clone)]
pub struct MemberStatus {
    pub version: String,
    /// The database file, in bytes (`apiserver_storage_size_bytes`).
    pub db_size: i64,
}

impl MemberStatus {
    /// Whether a watch may be asked how far it has come: from 3.4.31 and 3.5.13 on; before,
    /// the answer could overtake changes (etcd issues 15220 and 17507).
    pub fn supports_progress_requests(&self) -> bool {
        let core = self.version.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = core.split('.').map(|n| n.parse::<u32>().ok());
        let (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) = (
            numbers.next(),
            numbers.next(),
            numbers.next(),
            numbers.next(),
        ) else {
            return false;
        };
        let version = (major, minor, patch);
        version >= (3, 5, 13) || ((3, 4, 31)..(3, 5, 0)).contains(&version)
    }
}

impl Etcd {
    /// What `/healthz/etcd` asks: a quorum read of a key that need not exist, within `timeout`
    /// (upstream: 2 s).
    pub async fn check(&self, timeout: Duration) -> Result<()> {
        let key = format!("{}health", self.root);
        match tokio::time::timeout(timeout, self.get(&key, 0)).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(StorageError::Unavailable(format!(
                "etcd did not answer within {timeout:?}"
            ))),
        }
    }

    /// Reports the members' sizes every `interval` (`--etcd-db-metric-poll-interval`) until
    /// dropped. `first` is the number of the first of them among all servers' members.
    pub async fn monitor(&self, first: usize, interval: Duration) {
        loop {
            for (i, (_, status)) in self.statuses().await.into_iter().enumerate() {
                // -1: cannot be had.
                let size = status.map_or(-1, |status| status.db_size);
                self.metrics
                    .storage_size(&format!("etcd-{}", first + i), size);
            }
            tokio::time::sleep(interval).await;
        }
    }

    /// Every member's status, in the order of `--etcd-servers`.
    pub async fn statuses(&self) -> Vec<(String, Result<MemberStatus>)> {
        let all = self.members.all().iter();
        join_all(all.map(|member| async { (member.server.clone(), self.status_of(member).await) }))
            .await
    }

    pub(super) async fn status_of(&self, member: &Member) -> Result<MemberStatus> {
        let mut client = MaintenanceClient::new(member.channel.clone());
        let answer = client.status(with_leader(pb::StatusRequest {}));
        let answer = self.metrics.calls.unary(Method::Status, answer);
        let status = tokio::time::timeout(STATUS_TIMEOUT, answer)
            .await
            .map_err(|_| {
                StorageError::Unavailable(format!("etcd at {} did not answer", member.server))
            })?
            .map_err(|status| storage_error(&status, 0))?
            .into_inner();
        Ok(MemberStatus {
            version: status.version,
            db_size: status.db_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_requests_need_a_version_that_answers_them_right() {
        let supports = |version: &str| {
            MemberStatus {
                version: version.into(),
                db_size: 0,
            }
            .supports_progress_requests()
        };
        for good in [
            "3.4.31",
            "3.4.40",
            "3.5.13",
            "3.5.30",
            "3.6.0",
            "3.6.0-rc.1",
            "4.0.0",
        ] {
            assert!(supports(good), "{good}");
        }
        for bad in ["3.4.30", "3.5.0", "3.5.12", "3.3.9", "", "three", "3.5"] {
            assert!(!supports(bad), "{bad}");
        }
    }
}
