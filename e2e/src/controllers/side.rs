//! One manager with everything it needs: a stand, nodes that are alive, and a mirror.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use http::Method;
use serde_json::json;

use super::gate::{Gate, Lives};
use super::kubelet;
use super::manager::Manager;
use super::mirror::Mirror;
use super::outcome::Scrutiny;
use crate::stand::http::{Ask, MERGE};
use crate::stand::{Connection, Stand};

/// How often the played kubelets renew their leases.
const BEAT: Duration = Duration::from_secs(2);
/// How long a manager may take to do its first work.
const FIRST: Duration = Duration::from_secs(60);
/// What is off by default and scenarios are about: feature gates, APIs, and a controller.
pub const GATES: &str = "--feature-gates=StorageVersionMigrator=true,ClusterTrustBundle=true,StorageVersionAPI=true,DRAResourcePoolStatus=true";
const APIS: &str = "--runtime-config=storagemigration.k8s.io/v1beta1=true,certificates.k8s.io/v1beta1=true,internal.apiserver.k8s.io/v1alpha1=true,resource.k8s.io/v1alpha3=true";
pub const CONTROLLERS: &str = "--controllers=*,selinux-warning-controller";
/// Nodes that all scenarios share.
pub const NODES: [&str; 3] = ["node1", "node2", "node3"];
/// Nodes with this label take no part where endpoints are shared out among zones. All have it
/// but those of scenarios about that: it is done by all nodes that there are.
pub const NO_ZONE: &str = "node-role.kubernetes.io/control-plane";
/// Leases of nodes.
pub const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

pub struct Side {
    pub stand: Stand,
    pub connection: Connection,
    pub mirror: Arc<Mirror>,
    pub manager: Mutex<Manager>,
    pub scrutiny: Scrutiny,
    /// Between the manager and the API server.
    pub gate: Option<Arc<Gate>>,
    /// When the manager began its present life.
    born: Mutex<Instant>,
    /// Held by the scenario whose nodes are the zones that there are.
    pub zones: tokio::sync::Mutex<()>,
    /// Whose kubelets are alive.
    alive: Mutex<BTreeSet<String>>,
    addresses: AtomicU32,
}

impl Side {
    /// Starts everything; `api` and `bin` are directories of binaries. With `lives` the
    /// manager is behind a gate that ends them.
    ///
    /// # Errors
    ///
    /// When something does not come up.
    pub async fn start(api: &Path, bin: &Path, lives: Option<Lives>) -> Result<Arc<Self>> {
        let flags = [GATES, APIS].map(str::to_owned);
        let stand = Stand::start(api, 1, &["--unsafe-no-fsync"], &flags).await?;
        let connection = stand.endpoint.connect().await?;
        let mirror = Mirror::follow(&stand.endpoint).await?;
        let gate = match lives {
            Some(lives) => Some(Gate::open(&stand, lives).await?),
            None => None,
        };
        let port = gate.as_ref().map_or(stand.api.port, |gate| gate.port);
        let manager = Manager::new(&stand, bin, port, lives.is_none())?;
        let side = Arc::new(Self {
            stand,
            connection,
            mirror,
            manager: Mutex::new(manager),
            scrutiny: if lives.is_some() {
                Scrutiny::Objects
            } else {
                Scrutiny::All
            },
            gate,
            born: Mutex::new(Instant::now()),
            zones: tokio::sync::Mutex::default(),
            alive: Mutex::default(),
            addresses: AtomicU32::new(0),
        });
        for name in NODES {
            let node = kubelet::node(name, &json!({NO_ZONE: ""}), &json!([]));
            side.connection
                .success(&Ask::post("/api/v1/nodes", &node))
                .await?;
            side.revive(name).await?;
        }
        let beating = Arc::downgrade(&side);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(BEAT).await;
                let Some(side) = beating.upgrade() else {
                    return;
                };
                let alive = side.alive.lock().expect("no panic under the lock").clone();
                // When one fails the next beat is near.
                let beats = alive.iter().map(|node| side.beat(node));
                futures::future::join_all(beats).await;
            }
        });
        side.manager.lock().expect("no panic").start()?;
        Ok(side)
    }

    /// Waits until the manager works: `default` has its service account.
    ///
    /// # Errors
    ///
    /// When it does not, or has ended.
    pub async fn ready(&self) -> Result<()> {
        let path = "/api/v1/namespaces/default/serviceaccounts/default";
        let waiting = async {
            while !self.connection.ask(&Ask::get(path)).await?.0.is_success() {
                self.check()?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(FIRST, waiting)
            .await
            .context("the manager does nothing")?
    }

    /// Kills the manager, and starts it again.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn kill_and_start(&self) -> Result<()> {
        let mut manager = self.manager.lock().expect("no panic");
        manager.kill();
        if let Some(gate) = &self.gate {
            gate.reopen();
        }
        manager.start()?;
        *self.born.lock().expect("no panic under the lock") = Instant::now();
        Ok(())
    }

    /// How long the manager's present life has lasted.
    pub fn lives_for(&self) -> Duration {
        self.born.lock().expect("no panic under the lock").elapsed()
    }

    /// Fails when the manager has ended by itself.
    ///
    /// # Errors
    ///
    /// With the end of its log.
    pub fn check(&self) -> Result<()> {
        self.manager.lock().expect("no panic").check()
    }

    /// The kubelet of a node begins to renew its lease.
    ///
    /// # Errors
    ///
    /// When the API server cannot be reached.
    pub async fn revive(&self, node: &str) -> Result<()> {
        self.beat(node).await?;
        let mut alive = self.alive.lock().expect("no panic under the lock");
        alive.insert(node.to_owned());
        Ok(())
    }

    /// The kubelet of a node is heard of no more.
    pub fn silence(&self, node: &str) {
        let mut alive = self.alive.lock().expect("no panic under the lock");
        alive.remove(node);
    }

    async fn beat(&self, node: &str) -> Result<()> {
        let lease = kubelet::lease(node);
        let path = format!("{LEASES}/{node}");
        // Leases are not replaced without saying which.
        let renewed = json!({"spec": lease["spec"]});
        let ask = Ask::send(Method::PATCH, path, MERGE, renewed.to_string());
        let (status, _) = self.connection.ask(&ask).await?;
        if status == http::StatusCode::NOT_FOUND {
            self.connection.ask(&Ask::post(LEASES, &lease)).await?;
        }
        Ok(())
    }

    /// An address for a pod.
    pub fn address(&self) -> String {
        let n = self.addresses.fetch_add(1, Ordering::Relaxed) + 1;
        // No address is the beginning of another.
        let (a, b) = (100 + n / 100 % 100, 100 + n % 100);
        format!("10.{}.{a}.{b}", 100 + n / 10_000)
    }
}
