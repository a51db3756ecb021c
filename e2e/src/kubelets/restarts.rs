//! A kubelet, and then the container runtime below it, are killed again and again under pods of
//! every kind, each time with one pod that has just come and one that is about to go. Containers,
//! mounts and readiness of the others stay what they were, and nothing is left when all are gone.
//!
//! On a cluster that `deploy/up` made, of anybody's binaries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::cluster::DEMO;
use crate::kubectl::Following;
use crate::wait::LIMIT;
use crate::{Cluster, Namespace, until};

/// Kills a node's daemons under pods that must not notice.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How often the kubelet is killed.
    #[arg(long, default_value_t = 100)]
    pub kubelet: usize,
    /// How often the container runtime is killed.
    #[arg(long, default_value_t = 20)]
    pub runtime: usize,
    /// Pods that stay.
    #[arg(long, default_value_t = 50)]
    pub pods: usize,
}

/// Where static pods come from, on every node.
const STATIC: &str = "/etc/kubernetes/manifests/restarts.json";
const SLEEP: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"];
/// Takes its time to end.
const LEAVES_SLOWLY: [&str; 3] = [
    "sh",
    "-c",
    "trap 'sleep 3; exit 0' TERM; sleep 100000 & wait",
];

fn container(name: &str, more: &Value) -> Value {
    let mut container = json!({"name": name, "image": DEMO[0], "command": SLEEP});
    merge(&mut container, more);
    container
}

fn merge(into: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

/// A kind of pod: its name, what its container has, and what its spec has.
fn kinds() -> Vec<(&'static str, Value, Value)> {
    let probe =
        |command: &str| json!({"exec": {"command": ["sh", "-c", command]}, "periodSeconds": 1});
    let init = |more: &Value| json!([container("first", more)]);
    let ends = json!({"command": ["true"]});
    let mounted = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
    vec![
        ("plain", json!({}), json!({})),
        (
            "sidecar",
            json!({}),
            json!({"initContainers": init(&json!({"restartPolicy": "Always"}))}),
        ),
        (
            "initialized",
            json!({}),
            json!({"initContainers": init(&ends)}),
        ),
        (
            "probed",
            json!({
                "startupProbe": probe("true"), "livenessProbe": probe("true"),
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                "command": ["/bin/demo-server"],
            }),
            json!({}),
        ),
        (
            "volumes",
            json!({"volumeMounts": [
                mounted("disk"), mounted("memory"), mounted("map"), mounted("secret"),
                mounted("projected"), mounted("host"),
                {"name": "disk", "mountPath": "/below", "subPath": "a/b"},
                {"name": "map", "mountPath": "/file", "subPath": "key"},
            ]}),
            json!({"volumes": [
                {"name": "disk", "emptyDir": {}},
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "map", "configMap": {"name": "map"}},
                {"name": "secret", "secret": {"secretName": "secret"}},
                {"name": "host", "hostPath": {"path": "/var/tmp"}},
                {"name": "projected", "projected": {"sources": [
                    {"configMap": {"name": "map"}}, {"secret": {"name": "secret"}},
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
                    {"downwardAPI": {"items": [
                        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
                    ]}},
                ]}},
            ]}),
        ),
        (
            "guaranteed",
            json!({
                "resources": {"limits": {"cpu": "20m", "memory": "20Mi"}},
                "lifecycle": {"postStart": {"exec": {"command": ["true"]}}},
            }),
            json!({}),
        ),
        ("on-host", json!({}), json!({"hostNetwork": true})),
        (
            "shared",
            json!({}),
            json!({"shareProcessNamespace": true, "hostname": "other"}),
        ),
        ("ended", ends.clone(), json!({"restartPolicy": "Never"})),
        // Its image cannot be had: a pull is under way, or waited for.
        (
            "pulled",
            json!({"image": "ferrokube.local/none:1"}),
            json!({}),
        ),
    ]
}

fn pod(name: &str, node: &str, in_container: &Value, in_spec: &Value) -> Value {
    let mut spec = json!({
        "nodeName": node, "terminationGracePeriodSeconds": 10,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container("main", in_container)],
    });
    merge(&mut spec, in_spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Where a kind of pod comes to rest.
fn has_settled(pod: &Value) -> bool {
    match text(pod, "/metadata/name") {
        name if name.starts_with("ended-") => pod["status"]["phase"] == "Succeeded",
        name if name.starts_with("pulled-") => {
            text(pod, "/status/containerStatuses/0/state/waiting/reason").ends_with("Pull")
                || text(pod, "/status/containerStatuses/0/state/waiting/reason")
                    .ends_with("BackOff")
        }
        _ => is_ready(pod),
    }
}

/// What must stay of a pod: who it is, and its containers.
fn lasting(pod: &Value) -> Value {
    let of = |list: &str| -> Vec<Value> {
        let statuses = pod["status"][list].as_array().into_iter().flatten();
        let kept = statuses.map(|s| {
            let running = &s["state"]["running"]["startedAt"];
            json!([s["name"], s["containerID"], s["restartCount"], running])
        });
        kept.collect()
    };
    // Upstream's kubelet forgets the address of a pod that had ended before it began.
    let over = pod["status"]["phase"] == "Succeeded";
    let address = Some(&pod["status"]["podIP"]).filter(|_| !over);
    json!([
        pod["metadata"]["uid"],
        address,
        of("initContainerStatuses"),
        of("containerStatuses"),
    ])
}

/// A node with the pods that stay on it.
struct Scene {
    cluster: &'static Cluster,
    namespace: Namespace,
    node: String,
    /// Of all pods that ever were.
    uids: BTreeSet<String>,
    readiness: [Following; 2],
    told: [usize; 2],
}

/// What must not change.
#[derive(Debug, PartialEq)]
struct Sight {
    pods: BTreeMap<String, Value>,
    /// Lines of the node's mount table, by what is mounted where and the mount's number.
    mounts: BTreeSet<(String, String)>,
}

impl Scene {
    fn new(pods: usize) -> Self {
        let cluster = Cluster::get();
        let namespace = Namespace::new("restarts");
        let node = cluster.nodes().remove(0);
        namespace.apply(
            &json!({"apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map"}, "data": {"key": "value"}},
                {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"}, "stringData": {"key": "value"}},
            ]})
            .to_string(),
        );
        let kinds = kinds();
        let items: Vec<Value> = (0..pods)
            .map(|i| {
                let (kind, in_container, in_spec) = &kinds[i % kinds.len()];
                pod(&format!("{kind}-{i}"), &node, in_container, in_spec)
            })
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        namespace.apply(&list.to_string());
        let mut fixed = pod("static", &node, &json!({}), &json!({}));
        fixed["metadata"]["namespace"] = namespace.name.clone().into();
        let script = format!("cat > {STATIC} <<'END'\n{fixed}\nEND");
        cluster.in_node(&node, &["sh", "-c", &script]);
        until("all pods to settle", || {
            let list = namespace.get("pods")?;
            let pods = list["items"].as_array().into_iter().flatten();
            let waiting: Vec<&str> = pods
                .clone()
                .filter(|p| !has_settled(p))
                .map(|p| text(p, "/metadata/name"))
                .collect();
            if waiting.is_empty() && pods.count() > items.len() {
                Ok(())
            } else {
                Err(format!("{waiting:?} have not"))
            }
        });
        let ready = r#"{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}"#;
        let output = format!("jsonpath={ready}");
        let readiness = [
            namespace
                .kubectl("get pods --watch -o")
                .args([&output])
                .follow(),
            cluster
                .kubectl("get node")
                .args([&node])
                .words("--watch -o")
                .args([&output])
                .follow(),
        ];
        Self {
            cluster,
            namespace,
            node,
            uids: BTreeSet::new(),
            readiness,
            told: [0; 2],
        }
    }

    fn see(&mut self) -> Result<Sight, String> {
        let list = self.namespace.get("pods")?;
        let items: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
        self.uids.extend(items.iter().map(|p| {
            // The directory of a static pod has the name of what its file says.
            let own = p["metadata"]["annotations"]["kubernetes.io/config.hash"].as_str();
            own.unwrap_or(text(p, "/metadata/uid")).to_owned()
        }));
        let stay = items
            .iter()
            .filter(|p| !text(p, "/metadata/name").starts_with("passing-"));
        let pods: BTreeMap<String, Value> = stay
            .map(|p| (text(p, "/metadata/name").to_owned(), lasting(p)))
            .collect();
        let uids: Vec<&str> = pods.values().map(|p| text(p, "/0")).collect();
        let table = self
            .cluster
            .in_node(&self.node, &["cat", "/proc/self/mountinfo"]);
        let mounts = table.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (id, at) = (words.next()?, words.nth(3)?);
            let is_of = uids.iter().any(|uid| at.contains(uid));
            is_of.then(|| (at.to_owned(), id.to_owned()))
        });
        Ok(Sight {
            mounts: mounts.collect(),
            pods,
        })
    }

    /// Pods that stay, and the node, that were told to be not ready since this was last asked.
    fn flaps(&mut self) -> Vec<String> {
        let mut flaps = Vec::new();
        for (following, told) in self.readiness.iter_mut().zip(&mut self.told) {
            let lines = following.so_far();
            let new = &lines[(*told).min(lines.len())..];
            let waits = ["passing-", "ended-", "pulled-"];
            let flap = |line: &&String| {
                !line.ends_with(" True") && !waits.iter().any(|name| line.starts_with(name))
            };
            flaps.extend(new.iter().filter(flap).cloned());
            *told = lines.len();
        }
        flaps
    }

    /// Kills a daemon while one pod comes and another goes.
    fn kill(&self, daemon: &str, round: usize) {
        let new = format!("passing-{round}");
        let passing = pod(
            &new,
            &self.node,
            &json!({"command": LEAVES_SLOWLY}),
            &json!({}),
        );
        if round > 0 {
            let old = format!("passing-{}", round - 1);
            self.namespace
                .kubectl("delete pod --wait=false")
                .args([&old])
                .ok();
        }
        self.namespace.apply(&passing.to_string());
        self.cluster.kill(&format!("{daemon}@{}", self.node));
        self.namespace.await_ready(&new);
        if round > 0 {
            let old = format!("passing-{}", round - 1);
            until(&format!("{old} to be gone"), || {
                match self.namespace.get(&format!("pod {old}")) {
                    Ok(pod) => Err(pod["status"].to_string()),
                    Err(_) => Ok(()),
                }
            });
        }
    }

    /// Removes everything; returns what is left on the node.
    fn leave(self) -> Vec<String> {
        let Self {
            cluster,
            namespace,
            node,
            uids,
            ..
        } = self;
        cluster.in_node(&node, &["rm", STATIC]);
        let name = namespace.name.clone();
        drop(namespace);
        until("the namespace to be gone", || {
            let gone = cluster.kubectl("get namespace").args([&name]).run();
            if gone.code == Some(0) {
                Err(gone.stdout)
            } else {
                Ok(())
            }
        });

        let ctr = cluster.path("bin/ctr").display().to_string();
        let filter = format!("labels.\"io.kubernetes.pod.namespace\"=={name}");
        let looks: [&[&str]; 4] = [
            &[
                &ctr,
                "--namespace",
                "k8s.io",
                "containers",
                "list",
                "--quiet",
                &filter,
            ],
            &["ls", "/var/lib/kubelet/pods"],
            &["cat", "/proc/self/mountinfo"],
            &["find", "/sys/fs/cgroup", "-type", "d", "-name", "pod*"],
        ];
        let left = || -> Vec<String> {
            let of = |(i, look): (usize, &&[&str])| -> Vec<String> {
                let seen = cluster.in_node(&node, look);
                let ours = |line: &&str| i == 0 || uids.iter().any(|uid| line.contains(uid));
                seen.lines().filter(ours).map(str::to_owned).collect()
            };
            looks.iter().enumerate().flat_map(of).collect()
        };
        // What has ended is collected once a minute.
        let start = Instant::now();
        while !left().is_empty() && start.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_secs(1));
        }
        left()
    }
}

fn differences(before: &Sight, after: &Sight) -> Vec<String> {
    let mut found = Vec::new();
    for (name, was) in &before.pods {
        match after.pods.get(name) {
            Some(is) if is == was => {}
            is => found.push(format!("{name} was {was} and is {is:?}")),
        }
    }
    let gone = before.mounts.difference(&after.mounts);
    found.extend(gone.map(|(at, id)| format!("mount {id} at {at} is gone")));
    let new = after.mounts.difference(&before.mounts);
    found.extend(new.map(|(at, id)| format!("mount {id} at {at} is new")));
    found
}

/// Kills, and prints what it changed.
///
/// # Errors
///
/// When anything has changed or was left.
pub fn run(options: &Options) -> Result<()> {
    let mut scene = Scene::new(options.pods);
    let before = scene.see().map_err(anyhow::Error::msg)?;
    println!(
        "{} pods that stay, {} mounts of theirs",
        before.pods.len(),
        before.mounts.len()
    );
    scene.flaps();
    let daemons = [
        ("kubelet", options.kubelet),
        ("containerd", options.runtime),
    ];
    let (mut round, mut wrong) = (0, 0);
    let mut told = BTreeSet::new();
    for (daemon, times) in daemons {
        for _ in 0..times {
            scene.kill(daemon, round);
            let after = scene.see().map_err(anyhow::Error::msg)?;
            let mut found = differences(&before, &after);
            // What goes on being different is told once.
            found.retain(|line| told.insert(line.clone()));
            found.extend(
                scene
                    .flaps()
                    .into_iter()
                    .map(|line| format!("not ready: {line}")),
            );
            found
                .iter()
                .for_each(|line| println!("round {round}, {daemon}: {line}"));
            wrong += found.len();
            round += 1;
        }
        println!("{daemon}: killed {times} times, {wrong} differences so far");
    }
    let left = scene.leave();
    left.iter().for_each(|line| println!("left: {line}"));
    println!("{} left on the node", left.len());
    if wrong + left.len() > 0 {
        bail!("{wrong} differences, {} left", left.len());
    }
    Ok(())
}
