//! *Apply*: ending containers and whole pods, in the order and with the grace they are due.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::CriError;
use super::hooks;
use super::observed::{PodStatus, State};
use super::plan::{Kill, KillReason};
use super::runtime::Runtime;
use crate::events::Kind;
use crate::pods::pod::{PodExt, is_sidecar};

/// No container is killed without a chance to notice.
const LEAST_GRACE: i64 = 2;

/// Seconds that a container has between being asked to stop and being killed. Pure.
pub fn grace(pod: &Pod, container: &Container, reason: KillReason) -> i64 {
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        return seconds;
    }
    let probe = match reason {
        KillReason::StartupProbe => container.startup_probe.as_ref(),
        KillReason::LivenessProbe => container.liveness_probe.as_ref(),
        _ => None,
    };
    let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
    own.or(pod.pod_spec().termination_grace_period_seconds)
        .unwrap_or(LEAST_GRACE)
}

/// Sidecars end after what they serve: each waits for the regular containers and for the sidecars
/// that were started after it.
struct Order {
    done: HashMap<String, CancellationToken>,
    before: HashMap<String, Vec<String>>,
}

impl Order {
    fn new<'a>(pod: &Pod, running: impl Iterator<Item = &'a str>) -> Self {
        let done = running
            .map(|name| (name.to_owned(), CancellationToken::new()))
            .collect();
        let regular: Vec<String> = pod.containers().iter().map(|c| c.name.clone()).collect();
        let mut before = HashMap::new();
        let mut later: Option<String> = None;
        for sidecar in pod.init_containers().iter().rev().filter(|c| is_sidecar(c)) {
            before.insert(
                sidecar.name.clone(),
                regular.iter().cloned().chain(later.take()).collect(),
            );
            later = Some(sidecar.name.clone());
        }
        Self { done, before }
    }

    /// Waits until `name` may go, at most so long. Containers that do not run hold nobody up.
    async fn turn(&self, name: &str, at_most: Duration) {
        let wait = async {
            for other in self.before.get(name).into_iter().flatten() {
                if let Some(done) = self.done.get(other) {
                    done.cancelled().await;
                }
            }
        };
        let _ = tokio::time::timeout(at_most, wait).await;
    }

    fn ended(&self, name: &str) {
        if let Some(done) = self.done.get(name) {
            done.cancel();
        }
    }
}

impl Runtime {
    /// Stops one container: its hook first, then the signal, then the kill.
    ///
    /// # Errors
    /// When the runtime cannot stop it.
    pub async fn kill_container(
        &self,
        pod: &Pod,
        kill: &Kill,
        pod_ip: &str,
        grace_override: Option<i64>,
    ) -> Result<(), CriError> {
        self.kill_in_order(pod, kill, pod_ip, grace_override, None)
            .await
    }

    async fn kill_in_order(
        &self,
        pod: &Pod,
        kill: &Kill,
        pod_ip: &str,
        grace_override: Option<i64>,
        order: Option<&Order>,
    ) -> Result<(), CriError> {
        let container = pod.container_spec(&kill.name).unwrap_or_default();
        let mut left = grace_override.unwrap_or_else(|| grace(pod, &container, kill.reason));
        self.events
            .container(pod, &kill.name, Kind::Normal, "Killing", &kill.message);

        let pre_stop = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        if let Some(handler) = pre_stop.filter(|_| left > 0) {
            let started = Instant::now();
            let hook = hooks::run(&self.client, handler, &container, &kill.id, pod_ip);
            match tokio::time::timeout(seconds(left), hook).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    warn!(pod = %pod.full_name(), container = kill.name, error, "preStop hook failed");
                    self.events.container(
                        pod,
                        &kill.name,
                        Kind::Warning,
                        "FailedPreStopHook",
                        "PreStopHook failed",
                    );
                }
                Err(_) => {
                    info!(pod = %pod.full_name(), container = kill.name, "preStop hook not completed in grace period")
                }
            }
            left -= i64::try_from(started.elapsed().as_secs()).unwrap_or(left);
        }
        if let Some(order) = order.filter(|_| left > 0) {
            let started = Instant::now();
            order.turn(&kill.name, seconds(left)).await;
            left -= i64::try_from(started.elapsed().as_secs()).unwrap_or(left);
        }
        let result = self
            .client
            .stop_container(&kill.id, left.max(LEAST_GRACE))
            .await;
        if let Some(order) = order.filter(|_| result.is_ok()) {
            order.ended(&kill.name);
        }
        result
    }

    /// Stops all of a pod's containers, then its sandboxes, which releases its network.
    ///
    /// # Errors
    /// When anything of it could not be stopped.
    pub async fn kill_pod(
        &self,
        pod: &Pod,
        observed: &PodStatus,
        grace_override: Option<i64>,
    ) -> Result<(), CriError> {
        let alive: Vec<_> = observed
            .containers
            .iter()
            .filter(|c| matches!(c.state, State::Running | State::Unknown))
            .collect();
        let has_sidecars = pod.init_containers().iter().any(is_sidecar);
        let order = has_sidecars.then(|| Order::new(pod, alive.iter().map(|c| c.name.as_str())));
        let pod_ip = observed.ips.first().map_or("", String::as_str);
        let kills: Vec<_> = alive
            .iter()
            .map(|c| Kill {
                id: c.id.clone(),
                name: c.name.clone(),
                message: format!("Stopping container {}", c.name),
                reason: KillReason::Unknown,
            })
            .collect();
        let each = kills
            .iter()
            .map(|kill| self.kill_in_order(pod, kill, pod_ip, grace_override, order.as_ref()));
        join_all(each)
            .await
            .into_iter()
            .collect::<Result<(), _>>()?;
        self.stop_sandboxes(observed).await
    }

    /// Stops everything of a pod that nobody asks for any more, and of which no more is known.
    ///
    /// # Errors
    /// When anything of it could not be stopped.
    pub async fn kill_orphan(&self, observed: &PodStatus) -> Result<(), CriError> {
        let alive = observed
            .containers
            .iter()
            .filter(|c| matches!(c.state, State::Running | State::Unknown));
        let each = alive.map(|c| self.client.stop_container(&c.id, LEAST_GRACE));
        join_all(each)
            .await
            .into_iter()
            .collect::<Result<(), _>>()?;
        self.stop_sandboxes(observed).await
    }

    async fn stop_sandboxes(&self, observed: &PodStatus) -> Result<(), CriError> {
        let each = observed
            .sandboxes
            .iter()
            .map(|sandbox| self.client.stop_sandbox(&sandbox.id));
        join_all(each).await.into_iter().collect()
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "spec": {
                "terminationGracePeriodSeconds": 30,
                "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}, {"name": "t", "restartPolicy": "Always"}],
                "containers": [{"name": "c", "livenessProbe": {"terminationGracePeriodSeconds": 5}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn graces() {
        let mut p = pod();
        let c = p.containers()[0].clone();
        assert_eq!(grace(&p, &c, KillReason::Unknown), 30);
        assert_eq!(grace(&p, &c, KillReason::LivenessProbe), 5);
        p.metadata.deletion_grace_period_seconds = Some(1);
        assert_eq!(grace(&p, &c, KillReason::LivenessProbe), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn sidecars_go_last_and_backwards() {
        let order = Order::new(&pod(), ["s", "t", "c"].into_iter());
        assert_eq!(order.before["t"], ["c"]);
        assert_eq!(order.before["s"], ["c", "t"]);
        let long = Duration::from_secs(100);
        let wait_t = order.turn("t", long);
        tokio::pin!(wait_t);
        assert!(futures::poll!(&mut wait_t).is_pending());
        order.ended("c");
        wait_t.await;
        let started = tokio::time::Instant::now();
        order.turn("s", Duration::from_secs(7)).await;
        assert_eq!(started.elapsed().as_secs(), 7, "not for ever");
        order.ended("t");
        order.turn("s", long).await;
    }
}
