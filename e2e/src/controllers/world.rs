//! The words that scenarios are written in: objects come, change and go, pods live as they
//! are told to, values are waited for, and what has come of it is seen.
//!
//! Nothing here fails: a refused request and a wait in vain are part of what came of it.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::kinds::Kind;
use super::kubelet::{self, End};
use super::mirror::is_active;
use super::names::Names;
use super::outcome::{self, Outcome};
use super::side::{NO_ZONE, NODES, Side};
use crate::stand::http::{Ask, JSON, MERGE, STRATEGIC};

/// How long a value is waited for, and how much longer when the manager is killed all the time.
const PATIENCE: Duration = Duration::from_secs(40);
const PATIENCE_WHEN_KILLED: u32 = 6;
/// Who has waited for so long is given lives of some length: first to see the end of what a
/// manager does when it starts, then of what it counts for minutes.
const MERCY: [(Duration, Duration); 2] = [
    (Duration::from_secs(20), Duration::from_secs(20)),
    (Duration::from_secs(90), Duration::MAX),
];

/// One scenario's namespace of one side. Clones share it.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    side: Arc<Side>,
    namespace: String,
    /// Nothing may have changed for so long before anything is seen.
    quiet: Duration,
    outcome: Mutex<Outcome>,
    /// Whether kubelets do by themselves what is asked of them.
    kubelets: AtomicBool,
    over: AtomicBool,
}

/// Its containers may still run.
fn is_alive(pod: &Value) -> bool {
    pod["status"]["phase"] != "Succeeded" && pod["status"]["phase"] != "Failed"
}

/// What becomes of what an object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Foreground,
    Background,
    Orphan,
}

impl World {
    /// A namespace with its service account.
    pub async fn make(side: &Arc<Side>, namespace: &str, quiet: Duration) -> Self {
        let world = Self(Arc::new(Inner {
            side: Arc::clone(side),
            namespace: namespace.to_owned(),
            quiet,
            outcome: Mutex::default(),
            kubelets: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }));
        world.namespace_too("").await;
        let playing = world.clone();
        tokio::spawn(async move { playing.play().await });
        world
    }

    /// A further namespace of the scenario, or with no suffix the first.
    pub async fn namespace_too(&self, suffix: &str) {
        let name = self.name(suffix);
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
        });
        self.create(object).await;
        let mirror = &self.0.side.mirror;
        self.until("a service account", |w| {
            let account = mirror.get(w.scope(), "ServiceAccount", &name, "default");
            account.is_some()
        })
        .await;
    }

    fn scope(&self) -> &str {
        self.0.namespace.as_str()
    }

    /// The scenario's namespace.
    pub fn namespace(&self) -> &str {
        self.scope()
    }

    /// A name for what has no namespace, and for further namespaces.
    pub fn name(&self, suffix: &str) -> String {
        if suffix.is_empty() {
            return self.scope().to_owned();
        }
        format!("{}-{suffix}", self.scope())
    }

    fn path(&self, kind: &str, name: &str) -> String {
        let kind = Kind::named(kind);
        format!("{}/{name}", kind.in_namespace(self.scope()))
    }

    async fn ask(&self, ask: Ask) -> Option<Value> {
        let what = format!("{ask}");
        let answer = match self.0.side.connection.ask(&ask).await {
            Ok((status, body)) => {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                if status.is_success() {
                    return Some(body);
                }
                body["message"].as_str().unwrap_or_default().to_owned()
            }
            Err(error) => error.to_string(),
        };
        self.vain(&format!("{what}: {answer}"));
        None
    }

    /// Something that should have been.
    pub fn vain(&self, what: &str) {
        let known = self.0.side.mirror.known(self.scope());
        let what = Names::of(self.scope(), &known).text(what);
        let mut outcome = self.0.outcome.lock().expect("no panic under the lock");
        outcome.vain.push(what);
    }

    // Objects.

    /// Creates an object; those with a namespace in the scenario's unless they say another.
    pub async fn create(&self, object: Value) {
        let kind = Kind::named(object["kind"].as_str().unwrap_or_default());
        let namespace = object["metadata"]["namespace"].as_str();
        let path = kind.in_namespace(namespace.unwrap_or(self.scope()));
        self.ask(Ask::post(path, &object)).await;
    }

    /// Creates an object of a kind that is not watched.
    pub async fn create_at(&self, path: &str, object: &Value) {
        self.ask(Ask::post(path, object)).await;
    }

    /// Merges into an object.
    pub async fn patch(&self, kind: &str, name: &str, patch: Value) {
        let path = self.path(kind, name);
        self.ask(Ask::send(Method::PATCH, path, MERGE, patch.to_string()))
            .await;
    }

    /// Merges into the status of an object.
    pub async fn patch_status(&self, kind: &str, name: &str, status: Value) {
        let path = format!("{}/status", self.path(kind, name));
        let patch = json!({"status": status});
        self.ask(Ask::send(Method::PATCH, path, MERGE, patch.to_string()))
            .await;
    }

    /// Merges into what is at a path.
    pub async fn merge_at(&self, path: &str, patch: Value) {
        self.ask(Ask::send(Method::PATCH, path, MERGE, patch.to_string()))
            .await;
    }

    /// Deletes an object.
    pub async fn delete(&self, kind: &str, name: &str, propagation: Propagation) {
        let body = json!({
            "kind": "DeleteOptions", "apiVersion": "v1",
            "propagationPolicy": format!("{propagation:?}"),
        });
        let path = self.path(kind, name);
        self.ask(Ask::send(Method::DELETE, path, JSON, body.to_string()))
            .await;
    }

    /// What is at a path; null when nothing is.
    pub async fn at(&self, path: &str) -> Value {
        let answer = self.0.side.connection.ask(&Ask::get(path)).await;
        match answer {
            Ok((status, body)) if status.is_success() => {
                serde_json::from_slice(&body).unwrap_or_default()
            }
            _ => Value::Null,
        }
    }

    /// Deletes what is at a path.
    pub async fn delete_at(&self, path: &str) {
        self.ask(Ask::delete(path)).await;
    }

    /// The certificate of the stand's authority, as PEM.
    pub fn authority(&self) -> String {
        let file = self.0.side.stand.pki.path("ca.crt");
        std::fs::read_to_string(file).unwrap_or_default()
    }

    /// Asks a subresource.
    pub async fn post(&self, kind: &str, name: &str, subresource: &str, body: Value) {
        let path = format!("{}/{subresource}", self.path(kind, name));
        self.ask(Ask::post(path, &body)).await;
    }

    /// An object as it was seen last.
    pub fn get(&self, kind: &str, name: &str) -> Option<Arc<Value>> {
        let namespace = if Kind::named(kind).namespaced {
            self.scope()
        } else {
            ""
        };
        let mirror = &self.0.side.mirror;
        mirror.get(self.scope(), kind, namespace, name)
    }

    pub fn list(&self, kind: &str) -> Vec<Arc<Value>> {
        self.0.side.mirror.list(self.scope(), kind)
    }

    /// A field of an object; null when there is none.
    pub fn field(&self, kind: &str, name: &str, pointer: &str) -> Value {
        let object = self.get(kind, name);
        let field = object.as_ref().and_then(|o| o.pointer(pointer));
        field.cloned().unwrap_or_default()
    }

    // Waiting and seeing.

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.until_for(self.patience(), what, holds).await;
    }

    fn patience(&self) -> Duration {
        match self.0.side.gate {
            Some(_) => PATIENCE * PATIENCE_WHEN_KILLED,
            None => PATIENCE,
        }
    }

    /// Waits until something holds, but not longer than that.
    pub async fn until_for(&self, limit: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changes = self.0.side.mirror.changes(self.scope());
        let waiting = async {
            while !holds(self) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        };
        if tokio::time::timeout(limit, self.with_mercy(waiting))
            .await
            .is_err()
        {
            self.vain(what);
        }
    }

    /// Waits for this; the manager's life is spared when it takes long.
    async fn with_mercy(&self, waiting: impl Future<Output = ()>) {
        let Some(gate) = &self.0.side.gate else {
            return waiting.await;
        };
        let (start, mut waiting) = (Instant::now(), pin!(waiting));
        let mut spared = Vec::new();
        for (waited, life) in MERCY {
            if timeout_at(start + waited, &mut waiting).await.is_ok() {
                return;
            }
            spared.push(gate.spare(life));
        }
        waiting.await;
    }

    /// Waits until a field is this; no field is null, 0 or "".
    pub async fn until_field(&self, kind: &str, name: &str, pointer: &str, value: Value) {
        let wanted = |seen: Value| seen == value || seen.is_null() && (value == 0 || value == "");
        let what = format!("{kind}/{name} {pointer} to be {value}");
        self.until(&what, |w| {
            w.get(kind, name).is_some() && wanted(w.field(kind, name, pointer))
        })
        .await;
    }

    /// Waits until a condition is true.
    pub async fn until_condition(&self, kind: &str, name: &str, ty: &str) {
        let what = format!("{kind}/{name} to be {ty}");
        self.until(&what, |w| w.has_condition(kind, name, ty)).await;
    }

    pub fn has_condition(&self, kind: &str, name: &str, ty: &str) -> bool {
        let conditions = self.field(kind, name, "/status/conditions");
        let mut conditions = conditions.as_array().into_iter().flatten();
        conditions.any(|c| c["type"] == ty && c["status"] == "True")
    }

    pub async fn until_gone(&self, kind: &str, name: &str) {
        let what = format!("{kind}/{name} to be gone");
        self.until(&what, |w| w.get(kind, name).is_none()).await;
    }

    /// Waits for so many pods that neither ended nor end.
    pub async fn until_pods(&self, count: usize) {
        let what = format!("{count} pods");
        self.until(&what, |w| w.pods().len() == count).await;
    }

    /// Waits until an event of a reason was told.
    pub async fn until_event(&self, reason: &str) {
        let what = format!("the event {reason}");
        let mirror = &self.0.side.mirror;
        self.until(&what, |w| {
            let events = mirror.events(w.scope());
            events.iter().any(|e| e["reason"] == reason)
        })
        .await;
    }

    /// Waits until nothing more happens.
    pub async fn rest(&self) {
        let mirror = &self.0.side.mirror;
        let waiting = async {
            // What was asked last is about to be seen.
            tokio::time::sleep(self.0.quiet).await;
            loop {
                // A manager that has just begun has not had its say.
                let quiet = mirror.quiet(self.scope()).min(self.0.side.lives_for());
                if quiet >= self.0.quiet {
                    return;
                }
                tokio::time::sleep(self.0.quiet - quiet).await;
            }
        };
        let waiting = self.with_mercy(waiting);
        if tokio::time::timeout(self.patience(), waiting)
            .await
            .is_err()
        {
            self.vain("rest");
        }
    }

    /// Lets time pass that controllers count.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Sees all objects and events once nothing more happens.
    pub async fn see(&self, label: &str) {
        self.rest().await;
        let side = &self.0.side;
        let sight = outcome::see(&side.mirror, self.scope(), label, side.scrutiny);
        let mut outcome = self.0.outcome.lock().expect("no panic under the lock");
        outcome.sights.push(sight);
    }

    // Pods.

    /// Pods that neither ended nor end, by name.
    pub fn pods(&self) -> Vec<Arc<Value>> {
        let mut pods = self.list("Pod");
        pods.retain(|pod| is_active(pod));
        pods
    }

    /// Pods that were told to end and are still there.
    pub fn ending(&self) -> Vec<Arc<Value>> {
        let mut pods = self.list("Pod");
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_string());
        pods
    }

    /// From now on kubelets run what is pending and end what is to end.
    pub fn kubelets(&self) {
        self.0.kubelets.store(true, Ordering::Relaxed);
        self.nudge();
    }

    /// From now on pods stay as they are.
    pub fn no_kubelets(&self) {
        self.0.kubelets.store(false, Ordering::Relaxed);
    }

    fn nudge(&self) {
        let connected = self.clone();
        tokio::spawn(async move { connected.play_once().await });
    }

    async fn play(&self) {
        let mut changes = self.0.side.mirror.changes(self.scope());
        while !self.0.over.load(Ordering::Relaxed) {
            if self.0.kubelets.load(Ordering::Relaxed) {
                self.play_once().await;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn play_once(&self) {
        for pod in self.list("Pod") {
            if pod["metadata"]["deletionTimestamp"].is_string() {
                // Who holds a pod back wants to know how it ended.
                let held = !pod["metadata"]["finalizers"].is_null();
                if held && is_alive(&pod) {
                    self.end(&pod, 137).await;
                }
                if pod["metadata"]["deletionGracePeriodSeconds"] != 0 {
                    self.kill(&pod).await;
                }
            } else if pod["status"]["phase"] == "Pending" {
                self.run(&pod).await;
            }
        }
    }

    /// Where a pod is.
    fn pod_path(&self, pod: &Value) -> String {
        let of = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        format!("/api/v1/namespaces/{}/pods/{}", of("namespace"), of("name"))
    }

    /// Does something about a pod that may be gone by then.
    async fn about(&self, ask: Ask) {
        // The next sight tells what came of it.
        let _ = self.0.side.connection.ask(&ask).await;
    }

    async fn tell_status(&self, pod: &Value, status: &Value) {
        let path = format!("{}/status", self.pod_path(pod));
        let patch = json!({"metadata": {"uid": pod["metadata"]["uid"]}, "status": status});
        self.about(Ask::send(Method::PATCH, path, STRATEGIC, patch.to_string()))
            .await;
    }

    /// Gives a pod its node.
    pub async fn bind(&self, pod: &Value, node: &str) {
        let body = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let path = format!("{}/binding", self.pod_path(pod));
        self.about(Ask::post(path, &body)).await;
    }

    /// A pod gets its node and runs, ready.
    pub async fn run(&self, pod: &Value) {
        self.run_as(pod, true, 0).await;
    }

    /// A pod gets its node and runs, ready or not, with containers that were restarted.
    pub async fn run_as(&self, pod: &Value, ready: bool, restarts: i32) {
        if pod["spec"]["nodeName"].is_null() {
            self.bind(pod, kubelet::node_of(pod, NODES[0])).await;
        }
        let ip = match pod["status"]["podIP"].as_str() {
            Some(ip) => ip.to_owned(),
            None => self.0.side.address(),
        };
        let status = kubelet::running(pod, &ip, ready, restarts);
        self.tell_status(pod, &status).await;
    }

    /// Every pod that waits runs.
    pub async fn run_all(&self) {
        for pod in self.pods() {
            if pod["status"]["phase"] != "Running" {
                self.run(&pod).await;
            }
        }
    }

    /// A pod ends with an exit code.
    pub async fn end(&self, pod: &Value, exit: i32) {
        self.end_with(
            pod,
            End {
                exit,
                conditions: &[],
            },
        )
        .await;
    }

    pub async fn end_with(&self, pod: &Value, end: End<'_>) {
        if pod["spec"]["nodeName"].is_null() {
            self.bind(pod, kubelet::node_of(pod, NODES[0])).await;
        }
        self.tell_status(pod, &kubelet::ended(pod, end)).await;
    }

    /// A pod is gone at once.
    pub async fn kill(&self, pod: &Value) {
        let body = json!({
            "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0,
            "preconditions": {"uid": pod["metadata"]["uid"]},
        });
        let path = self.pod_path(pod);
        self.about(Ask::send(Method::DELETE, path, JSON, body.to_string()))
            .await;
    }

    /// Every pod that was told to end is gone.
    pub async fn kill_ending(&self) {
        for pod in self.ending() {
            self.kill(&pod).await;
        }
    }

    // Nodes.

    /// Waits until no other scenario has zones of its own, and keeps the others waiting.
    pub async fn zones(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.side.zones.lock().await
    }

    /// A node of this scenario alone: its name begins with the namespace, which is its label
    /// `scenario` as well. A label that is null is none.
    pub async fn node(&self, suffix: &str, labels: Value, taints: Value) {
        let name = self.name(suffix);
        // Nodes of a zone that fall ill one after the other are treated one after the other.
        let mut all = json!({
            "scenario": self.scope(), "topology.kubernetes.io/zone": self.scope(), NO_ZONE: "",
        });
        for (key, value) in labels.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        if let Some(all) = all.as_object_mut() {
            all.retain(|_, value| !value.is_null());
        }
        // Its lease is there first: a node without one looks dead.
        let _ = self.0.side.revive(&name).await;
        self.create(kubelet::node(&name, &all, &taints)).await;
    }

    /// A node is heard of no more.
    pub fn silence(&self, suffix: &str) {
        self.0.side.silence(&self.name(suffix));
    }

    /// A node says that it is ready, or not.
    pub async fn node_ready(&self, suffix: &str, ready: bool) {
        let name = self.name(suffix);
        let _ = self.0.side.revive(&name).await;
        let path = format!("/api/v1/nodes/{name}/status");
        let status = json!({"conditions": [kubelet::node_condition("Ready", ready)]});
        let patch = json!({"status": status});
        self.ask(Ask::send(Method::PATCH, path, STRATEGIC, patch.to_string()))
            .await;
    }

    // The end.

    /// What came of it; what is left is removed in the background.
    pub fn finish(self) -> Outcome {
        let outcome = std::mem::take(&mut *self.0.outcome.lock().expect("no panic"));
        tokio::spawn(async move { self.clean().await });
        outcome
    }

    async fn clean(&self) {
        let mirror = &self.0.side.mirror;
        self.kubelets();
        for (kind, object) in mirror.all(self.scope()) {
            let kind = Kind::named(kind);
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if !kind.namespaced {
                if kind.name == "Node" {
                    self.0.side.silence(name);
                }
                let path = format!("{}/{name}", kind.collection());
                self.about(Ask::delete(path.as_str())).await;
                if kind.name != "Namespace" && !object["metadata"]["finalizers"].is_null() {
                    let patch = json!({"metadata": {"finalizers": null}});
                    self.about(Ask::send(Method::PATCH, path, MERGE, patch.to_string()))
                        .await;
                }
            }
        }
        let gone = |w: &Self| w.list("Namespace").is_empty();
        self.until("the namespace to be gone", gone).await;
        self.0.over.store(true, Ordering::Relaxed);
        mirror.forget(self.scope());
    }
}
