//! Two API servers on one etcd: that of the cluster and upstream's. What either
//! has written, both must read as equal JSON.
//!
//! Upstream's program is named by `FERROKUBE_UPSTREAM_APISERVER`; without one
//! there is nobody to compare with, and the test says so.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Command, Stdio};

use e2e::{Cluster, Namespace, until};
use serde_json::Value;

const PORT: u16 = 7443;

/// What is compared: kinds of the core and of other groups, written by clients and
/// by every daemon.
const RESOURCES: [&str; 13] = [
    "/api/v1/configmaps",
    "/api/v1/endpoints",
    "/api/v1/events",
    "/api/v1/namespaces",
    "/api/v1/nodes",
    "/api/v1/pods",
    "/api/v1/secrets",
    "/api/v1/serviceaccounts",
    "/api/v1/services",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/replicasets",
    "/apis/coordination.k8s.io/v1/leases",
    "/apis/discovery.k8s.io/v1/endpointslices",
];

const OBJECTS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {a: b}, annotations: {c: "d"}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      nodeSelector: {kubernetes.io/os: linux}
      tolerations: [{key: example.com/any, operator: Exists}]
      volumes:
      - {name: settings, configMap: {name: settings, items: [{key: colour, path: colour}]}}
      - {name: scratch, emptyDir: {medium: Memory, sizeLimit: 1500Ki}}
      containers:
      - name: demo
        image: ferrokube.local/demo:1
        ports: [{name: http, containerPort: 8080}]
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        resources: {requests: {cpu: 0.01, memory: 16Mi}, limits: {memory: 64M}}
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
        volumeMounts: [{name: settings, mountPath: /settings}, {name: scratch, mountPath: /scratch}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green}
binaryData: {raw: AAECAwQ=}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
type: example.com/key
stringData: {password: correct horse}
"#;

/// Upstream's server, ended with the value.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts `program` as the cluster's own API server was, on another port.
    fn start(program: &str) -> Self {
        let cluster = Cluster::get();
        let spec = cluster.read("run/kube-apiserver.spec");
        let flags: Vec<_> = spec
            .lines()
            .filter(|line| line.starts_with("--") && !line.starts_with("--secure-port="))
            .collect();
        let address = flags
            .iter()
            .find_map(|flag| flag.strip_prefix("--bind-address="))
            .expect("an address");
        let log = File::create(cluster.path("log/upstream-apiserver.log")).expect("a log");
        let child = Command::new(program)
            .args(&flags)
            .arg(format!("--secure-port={PORT}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let server = Self {
            child,
            url: format!("https://{address}:{PORT}"),
        };
        until("upstream's server to be ready", || {
            cluster
                .kubectl("get --raw /readyz --server")
                .args([&server.url])
                .run()
                .success()
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The objects of a list by uid.
fn list(uri: &str, server: Option<&Server>) -> Result<BTreeMap<String, Value>, String> {
    let mut kubectl = Cluster::get().kubectl("get --raw").args([uri]);
    if let Some(server) = server {
        kubectl = kubectl.args(["--server", &server.url]);
    }
    let list: Value =
        serde_json::from_str(&kubectl.run().success()?).map_err(|error| error.to_string())?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    Ok(items
        .into_iter()
        .map(|item| (item["metadata"]["uid"].to_string(), item))
        .collect())
}

/// Compares a list of both. Objects that change meanwhile are looked at again.
fn compare(uri: &str, server: &Server) -> usize {
    until(&format!("{uri} to be the same list on both"), || {
        let (ours, theirs) = (list(uri, None)?, list(uri, Some(server))?);
        if ours.keys().ne(theirs.keys()) {
            return Err(format!("{} and {} objects", ours.len(), theirs.len()));
        }
        for (uid, our) in &ours {
            let their = &theirs[uid];
            let revision = "/metadata/resourceVersion";
            if our.pointer(revision) != their.pointer(revision) {
                return Err(format!("{} changes", our["metadata"]["name"]));
            }
            // Of one revision there is one truth: no use in looking again.
            assert_eq!(
                our, their,
                "{uri}: the cluster's and upstream's reading differ"
            );
        }
        Ok(ours.len())
    })
}

#[test]
fn upstream_and_the_cluster_read_the_same() {
    let Ok(program) = std::env::var("FERROKUBE_UPSTREAM_APISERVER") else {
        eprintln!("NOT COMPARED: FERROKUBE_UPSTREAM_APISERVER names no program of upstream's");
        return;
    };
    let server = Server::start(&program);
    let ours = Namespace::new("interop-ours");
    ours.apply(OBJECTS);
    let theirs = Namespace::new("interop-theirs");
    theirs
        .kubectl("apply -f - --server")
        .args([&server.url])
        .stdin(OBJECTS)
        .ok();
    ours.await_rollout("web");
    theirs.await_rollout("web");

    let mut compared = 0;
    for uri in RESOURCES {
        let count = compare(uri, &server);
        assert!(count > 0, "nothing to compare in {uri}");
        compared += count;
    }
    println!(
        "{compared} objects of {} resources are equal",
        RESOURCES.len()
    );
}
