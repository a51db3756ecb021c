//! What health checks say of etcd. They are asked from outside and answer at once, so etcd is
//! probed beside them.
//!
//! What must not be here: `/healthz` paths.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Etcd;

/// A probe of etcd that repeats, and what it last found.
pub struct Probe {
    etcd: Arc<Etcd>,
    timeout: Duration,
    last: Mutex<Result<(), String>>,
}

impl Probe {
    /// `timeout` is `--etcd-healthcheck-timeout`: how long etcd may take, and how old an answer
    /// can be.
    pub fn new(etcd: Arc<Etcd>, timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            etcd,
            timeout,
            last: Mutex::new(Err("etcd client connection not yet established".into())),
        })
    }

    /// Probes until dropped.
    pub async fn run(self: Arc<Self>) {
        let mut healthy = None;
        loop {
            let found = self
                .etcd
                .check(self.timeout)
                .await
                .map_err(|error| format!("error getting data from etcd: {error}"));
            if healthy.replace(found.is_ok()) == Some(true)
                && let Err(error) = &found
            {
                tracing::warn!(%error, "etcd is not healthy");
            }
            *self.last.lock() = found;
            tokio::time::sleep(self.timeout).await;
        }
    }

    /// What the last probe found.
    pub fn check(&self) -> Result<(), String> {
        self.last.lock().clone()
    }
}
