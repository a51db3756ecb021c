//! The cluster under test: where it keeps things, its processes, and a namespace
//! per test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::until;

/// The image of `deploy/images`, in two versions that differ only by name.
pub const DEMO: [&str; 2] = ["ferrokube.local/demo:1", "ferrokube.local/demo:2"];

/// A cluster that `deploy/up` made.
#[derive(Debug)]
pub struct Cluster {
    state: PathBuf,
}

impl Cluster {
    /// The cluster at `$FERROKUBE_STATE`, by default the checkout's `.up`.
    ///
    /// # Panics
    ///
    /// When none runs there: a scenario is never skipped quietly.
    pub fn get() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(|| {
            let default = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join(".up");
            let state = std::env::var_os("FERROKUBE_STATE").map_or(default, PathBuf::from);
            assert!(
                state.join("kubeconfig/admin.conf").exists() && state.join("run").exists(),
                "no cluster at {}: run `deploy/test`, or `deploy/up --profile dev --no-demo --old-kubectl --workers 1` first",
                state.display()
            );
            Self { state }
        })
    }

    /// A path below the cluster's state directory.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.state.join(relative)
    }

    /// A file below the state directory.
    pub fn read(&self, relative: &str) -> String {
        let path = self.path(relative);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// `kubectl` as the administrator, in no particular namespace.
    pub fn kubectl(&self, arguments: &str) -> Kubectl {
        Kubectl::new(self, "kubectl").words(arguments)
    }

    /// The names of all nodes, the first one first.
    pub fn nodes(&self) -> Vec<String> {
        let nodes = self
            .kubectl("get nodes -o jsonpath={.items[*].metadata.name}")
            .ok();
        let mut nodes: Vec<_> = nodes.split_whitespace().map(str::to_owned).collect();
        nodes.sort();
        nodes
    }

    /// The InternalIP of a node.
    pub fn node_ip(&self, node: &str) -> String {
        let path = r#"jsonpath={.status.addresses[?(@.type=="InternalIP")].address}"#;
        self.kubectl("get node").args([node, "-o", path]).ok()
    }

    /// Whether this cluster runs a daemon. Upstream has no cloud-controller-manager
    /// for bare metal; a cluster of its binaries runs without.
    pub fn runs(&self, daemon: &str) -> bool {
        self.path(&format!("run/{daemon}.pid")).exists()
    }

    /// The pid of a daemon (`kube-apiserver`, `kubelet@node1`, ...) that runs.
    pub fn pid(&self, daemon: &str) -> Result<i32, String> {
        let record = fs::read_to_string(self.path(&format!("run/{daemon}.pid")))
            .map_err(|error| format!("{daemon} was never started: {error}"))?;
        let mut words = record.split_whitespace();
        let (Some(pid), Some(started)) = (words.next(), words.next()) else {
            return Err(format!("{daemon} is recorded as {record:?}"));
        };
        // The start time is field 22; field 2 is a name in parentheses.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_err(|_| format!("{daemon} does not run"))?;
        let now = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(19));
        if now != Some(started) {
            return Err(format!("{daemon} does not run"));
        }
        pid.parse()
            .map_err(|_| format!("{daemon} is recorded as {record:?}"))
    }

    /// `kill -9` of a daemon. Returns once its supervisor has started another.
    pub fn kill(&self, daemon: &str) {
        let old = self.pid(daemon).unwrap_or_else(|error| panic!("{error}"));
        kill(Pid::from_raw(old), Signal::SIGKILL).expect("a kill");
        until(&format!("{daemon} to be started again"), || {
            match self.pid(daemon) {
                Ok(pid) if pid != old => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// A command inside the namespaces of a node.
    pub fn in_node(&self, node: &str, command: &[&str]) -> String {
        let init = self.pid(node).unwrap_or_else(|error| panic!("{error}"));
        let output = Command::new("nsenter")
            .args([
                "--target",
                &init.to_string(),
                "--mount",
                "--uts",
                "--ipc",
                "--net",
                "--pid",
                "--",
            ])
            .args(command)
            .output()
            .expect("nsenter");
        assert!(
            output.status.success(),
            "{command:?} in {node}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A namespace of a test's own, deleted with the value.
#[derive(Debug)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    cluster: &'static Cluster,
}

impl Namespace {
    /// Makes a namespace whose name begins with `theme`, and waits until pods can
    /// be made in it: that is, until its service account is there.
    pub fn new(theme: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let cluster = Cluster::get();
        // The pid tells tests apart (each is a process), the count what one makes.
        let name = format!(
            "{theme}-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        cluster.kubectl("create namespace").args([&name]).ok();
        let namespace = Self { name, cluster };
        until("the default service account", || {
            namespace
                .kubectl("get serviceaccount default")
                .run()
                .success()
        });
        namespace
    }

    /// `kubectl` as the administrator, in this namespace.
    pub fn kubectl(&self, arguments: &str) -> Kubectl {
        self.cluster
            .kubectl("")
            .args(["--namespace", &self.name])
            .words(arguments)
    }

    /// `kubectl apply -f -`.
    pub fn apply(&self, manifest: &str) -> String {
        self.kubectl("apply -f -").stdin(manifest).ok()
    }

    /// An object as JSON; an error when there is none.
    pub fn get(&self, object: &str) -> Result<Value, String> {
        let json = self
            .kubectl("get -o json")
            .args(object.split(' '))
            .run()
            .success()?;
        serde_json::from_str(&json).map_err(|error| format!("{error} in {json}"))
    }

    /// Waits until the value at a JSON pointer of an object is as expected.
    #[track_caller]
    pub fn await_value(&self, object: &str, pointer: &str, expected: impl Into<Value>) -> Value {
        let expected = expected.into();
        until(&format!("{pointer} of {object} to be {expected}"), || {
            let value = self.get(object)?;
            let seen = value.pointer(pointer).unwrap_or(&Value::Null);
            if *seen == expected {
                Ok(value)
            } else {
                Err(format!("{seen}, with status {}", value["status"]))
            }
        })
    }

    /// Waits until a deployment's rollout is complete.
    #[track_caller]
    pub fn await_rollout(&self, deployment: &str) {
        let deployment = format!("deployment/{deployment}");
        until(&format!("the rollout of {deployment}"), || {
            let all = self
                .kubectl("rollout status --timeout=1s")
                .args([&deployment])
                .run()
                .success();
            all.map_err(|error| {
                format!(
                    "{error}; pods: {}",
                    self.kubectl("get pods -o wide").run().stdout
                )
            })
        });
    }

    /// Waits until a pod is Ready and returns it.
    #[track_caller]
    pub fn await_ready(&self, pod: &str) -> Value {
        until(&format!("pod {pod} to be ready"), || {
            let value = self.get(&format!("pod {pod}"))?;
            let conditions = value["status"]["conditions"].as_array();
            let ready = conditions
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            if ready {
                Ok(value)
            } else {
                Err(value["status"].to_string())
            }
        })
    }

    /// Waits until a pod's phase is as given and returns the pod.
    #[track_caller]
    pub fn await_phase(&self, pod: &str, phase: &str) -> Value {
        self.await_value(&format!("pod {pod}"), "/status/phase", phase)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What failed stays, to be looked at.
        if !std::thread::panicking() {
            self.cluster
                .kubectl("delete namespace --wait=false")
                .args([&self.name])
                .ok();
        }
    }
}
