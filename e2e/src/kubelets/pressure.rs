//! A node runs short of memory, of disk and of process ids, on purpose and within bounds: pods are
//! evicted one after the other until there is enough again, and the node says what it is short of
//! for as long as it is.
//!
//! On a cluster that `deploy/up` made, of anybody's binaries. The first node should have no other
//! pods: what they use counts.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cluster::DEMO;
use crate::kubectl::Following;
use crate::{Cluster, Namespace, until};

/// Has a node run short of something.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Of what; of each by default.
    #[arg(long, value_delimiter = ',')]
    pub of: Vec<Resource>,
}

/// What a node runs short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Resource {
    Memory,
    Disk,
    Pids,
}

/// Of memory and disk: what all pods may have, and what of it must stay free. Mebibytes.
const ROOM: usize = 820;
const FREE: usize = 300;
/// Process ids that may be taken before too few are left.
const PROCESSES: i64 = 1600;
/// How long a node says that it is short of something after it no longer is.
const TRANSITION: Duration = Duration::from_secs(30);
/// For kubelets that measure every now and then what pods use.
const MEASURED: Duration = Duration::from_secs(30);
/// In which more pods would go, if more had to.
const QUIET: Duration = Duration::from_secs(20);

/// As the node sees it: what tells containers to begin.
const SIGNS: &str = "/var/tmp/pressure";
const KUBELET: &str = "/var/lib/kubelet";
const SMALL: &str = "/var/tmp/small";

/// A pod, and how it adds to what is short.
struct Part {
    name: &'static str,
    class: &'static str,
    /// What it asks for, and what it takes: mebibytes, or processes.
    asks: usize,
    takes: usize,
    /// Which sign it waits for.
    sign: &'static str,
}

const fn part(name: &'static str, class: &'static str, asks: usize, takes: usize) -> Part {
    Part {
        name,
        class,
        asks,
        takes,
        sign: "first",
    }
}

impl Resource {
    const fn condition(self) -> &'static str {
        match self {
            Resource::Memory => "MemoryPressure",
            Resource::Disk => "DiskPressure",
            Resource::Pids => "PIDPressure",
        }
    }

    /// What comes at first does not suffice; the last part is the drop too many. Two must go: what
    /// takes most of those that ask for less than they take, after those of a lower priority.
    fn parts(self) -> [Part; 4] {
        let last = |part| Part {
            sign: "last",
            ..part
        };
        match self {
            Resource::Memory | Resource::Disk => [
                part("within", "", 260, 200),
                part("low", "low", 0, 60),
                part("much", "", 0, 180),
                last(part("little", "", 0, 160)),
            ],
            Resource::Pids => [
                part("few", "", 0, 200),
                part("low", "low", 0, 300),
                part("many", "", 0, 700),
                last(part("above", "high", 0, 800)),
            ],
        }
    }

    fn evicted(self) -> [&'static str; 2] {
        match self {
            Resource::Memory | Resource::Disk => ["low", "much"],
            Resource::Pids => ["low", "many"],
        }
    }

    fn pod(self, part: &Part, node: &str) -> Value {
        let Part {
            name,
            class,
            asks,
            takes,
            sign,
        } = part;
        let take = match self {
            Resource::Memory | Resource::Disk => {
                format!("head -c {} /dev/zero > /data/file", takes << 20)
            }
            Resource::Pids => format!("for i in $(seq {takes}); do sleep 100000 & done"),
        };
        let command =
            format!("until [ -e /signs/{sign} ]; do sleep 0.2; done; {take}; exec sleep 100000");
        let medium = match self {
            Resource::Memory => json!({"medium": "Memory"}),
            _ => json!({}),
        };
        let resources = match (self, asks) {
            (_, 0) | (Resource::Pids, _) => json!({}),
            (Resource::Memory, asks) => json!({"requests": {"memory": format!("{asks}Mi")}}),
            (Resource::Disk, asks) => {
                json!({"requests": {"ephemeral-storage": format!("{asks}Mi")}})
            }
        };
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "nodeName": node, "priorityClassName": class_name(class),
                "terminationGracePeriodSeconds": 1, "restartPolicy": "Never",
                "tolerations": [{"operator": "Exists"}], "automountServiceAccountToken": false,
                "containers": [{
                    "name": "main", "image": DEMO[0], "command": ["sh", "-c", command],
                    "resources": resources,
                    "volumeMounts": [
                        {"name": "data", "mountPath": "/data"},
                        {"name": "signs", "mountPath": "/signs"},
                    ],
                }],
                "volumes": [
                    {"name": "data", "emptyDir": medium},
                    {"name": "signs", "hostPath": {"path": SIGNS}},
                ],
            },
        })
    }
}

/// The name of a priority class of ours; none for the default.
fn class_name(class: &str) -> Value {
    match class {
        "" => Value::Null,
        class => format!("pressure-{class}").into(),
    }
}

/// A node whose kubelet is told other limits while this lives.
struct Node {
    cluster: &'static Cluster,
    name: String,
    config: PathBuf,
    before: String,
    /// Whether the kubelet's directory is a small file system.
    is_small: bool,
}

impl Node {
    fn new(cluster: &'static Cluster, of: Resource) -> Result<Self> {
        let name = cluster.nodes().remove(0);
        let config = cluster.path(&format!("config/kubelet-{name}.yaml"));
        let before = fs::read_to_string(&config)?;
        let mut node = Self {
            cluster,
            name,
            config,
            before,
            is_small: false,
        };
        node.run(&format!("rm -rf {SIGNS}; mkdir -p {SIGNS}"));
        let limits = node.limits(of)?;
        if of == Resource::Disk {
            node.run(&format!(
                "mkdir -p {SMALL} && mount -t tmpfs -o size={ROOM}m small {SMALL} && \
                 cp -ax {KUBELET}/. {SMALL} && mount --bind {SMALL} {KUBELET} && \
                 mount --make-rshared {KUBELET}"
            ));
            node.is_small = true;
        }
        let (kept, _) = node
            .before
            .split_once("evictionHard:")
            .context("a configuration without evictionHard")?;
        let transition = TRANSITION.as_secs();
        let text = format!("{kept}evictionPressureTransitionPeriod: {transition}s\n{limits}");
        fs::write(&node.config, text)?;
        node.restart();
        Ok(node)
    }

    /// What its kubelet is to keep free.
    fn limits(&self, of: Resource) -> Result<String> {
        let path = format!("/api/v1/nodes/{}", self.name);
        Ok(match of {
            // What pods may have of memory is bounded, whatever else the machine does.
            Resource::Memory => {
                let node: Value = self.ask(&path)?;
                let capacity = node["status"]["capacity"]["memory"].as_str();
                let kibibytes = capacity.and_then(|text| text.strip_suffix("Ki")?.parse().ok());
                let kibibytes: usize = kibibytes.context("a capacity in Ki")?;
                let reserved = kibibytes - ROOM * 1024;
                format!(
                    "systemReserved: {{memory: {reserved}Ki}}\n\
                     evictionHard: {{memory.available: {FREE}Mi}}\n"
                )
            }
            Resource::Disk => format!("evictionHard: {{nodefs.available: {FREE}Mi}}\n"),
            Resource::Pids => {
                let summary: Value = self.ask(&format!("{path}/proxy/stats/summary"))?;
                let of = |field: &str| summary["node"]["rlimit"][field].as_i64();
                let (most, now) = of("maxpid")
                    .zip(of("curproc"))
                    .context("no count of pids")?;
                format!(
                    "evictionHard: {{pid.available: \"{}\"}}\n",
                    most - now - PROCESSES
                )
            }
        })
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let answer = self.cluster.kubectl("get --raw").args([path]).ok();
        Ok(serde_json::from_str(&answer)?)
    }

    fn run(&self, script: &str) {
        self.cluster.in_node(&self.name, &["sh", "-c", script]);
    }

    /// A new kubelet, and its word that it runs.
    fn restart(&self) {
        self.cluster.kill(&format!("kubelet@{}", self.name));
        until("the kubelet to serve", || {
            let path = format!("/api/v1/nodes/{}/proxy/configz", self.name);
            let get = self.cluster.kubectl("get --raw").args([path]);
            get.run().success().map(drop)
        });
    }

    fn sign(&self, sign: &str) {
        self.run(&format!("touch {SIGNS}/{sign}"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        fs::write(&self.config, &self.before).expect("the configuration as it was");
        self.run(&format!("rm -rf {SIGNS}"));
        if self.is_small {
            self.run(&format!(
                "umount -l {KUBELET}; umount -l {SMALL}; rmdir {SMALL}"
            ));
        }
        self.restart();
    }
}

/// Follows whether a node is in a condition: `True` and `False`, as they come.
fn follow(cluster: &Cluster, node: &str, condition: &str) -> Following {
    // A `range` would print once only.
    let path = format!(r#"{{.status.conditions[?(@.type=="{condition}")].status}}{{"\n"}}"#);
    let get = cluster.kubectl("get node").args([node]);
    get.args(["--watch", "-o", &format!("jsonpath={path}")])
        .follow()
}

/// Pods that have been evicted, in order, and what they were told.
fn evicted(namespace: &Namespace) -> Result<Vec<(String, Value)>, String> {
    let list = namespace.get("pods")?;
    let pods = list["items"].as_array().into_iter().flatten();
    let mut gone: Vec<(String, String, Value)> = pods
        .filter(|pod| pod["status"]["reason"] == "Evicted" && pod["metadata"]["name"] != "late")
        .map(|pod| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let conditions = pod["status"]["conditions"].as_array();
            let disrupted = conditions
                .into_iter()
                .flatten()
                .find(|c| c["type"] == "DisruptionTarget");
            let at = disrupted.map(|c| text(&c["lastTransitionTime"]));
            let told = json!({
                "phase": pod["status"]["phase"], "message": pod["status"]["message"],
                "disrupted": disrupted.map(|c| json!([c["status"], c["reason"], c["message"]])),
            });
            (at.unwrap_or_default(), text(&pod["metadata"]["name"]), told)
        })
        .collect();
    gone.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(gone
        .into_iter()
        .map(|(_, name, told)| (name, told))
        .collect())
}

/// One node, short of one thing; what went otherwise than it should.
fn press(cluster: &'static Cluster, of: Resource) -> Result<Vec<String>> {
    let namespace = Namespace::new("pressure");
    let node = Node::new(cluster, of)?;
    let condition = of.condition();
    let mut said = follow(cluster, &node.name, condition);
    let parts = of.parts();
    let pods: Vec<Value> = parts.iter().map(|part| of.pod(part, &node.name)).collect();
    namespace.apply(&json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string());
    for part in &parts {
        namespace.await_ready(part.name);
    }
    node.sign("first");
    let mut wrong = Vec::new();
    std::thread::sleep(MEASURED);
    for (name, told) in evicted(&namespace).map_err(anyhow::Error::msg)? {
        wrong.push(format!("{name} went too soon: {told}"));
    }
    let start = Instant::now();
    node.sign("last");
    said.line(|line| line == "True");
    println!("{condition} after {:.1} s", start.elapsed().as_secs_f64());
    // What asks for nothing is not let in while memory is short, nor anything where others are.
    let late = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late"},
        "spec": {
            "nodeName": node.name, "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": DEMO[0], "command": ["sleep", "100000"]}],
        },
    });
    namespace.apply(&late.to_string());
    let late = namespace.await_phase("late", "Failed");
    println!(
        "late: {}",
        json!([late["status"]["reason"], late["status"]["message"]])
    );
    let expected = of.evicted();
    let gone = until("two pods to be evicted", || {
        let gone = evicted(&namespace)?;
        match gone.len() >= expected.len() {
            true => Ok(gone),
            false => Err(format!("{gone:?}")),
        }
    });
    println!("all gone after {:.1} s", start.elapsed().as_secs_f64());
    for (name, told) in &gone {
        println!("{name}: {told}");
        let events = namespace
            .kubectl("get events -o jsonpath={range.items[*]}{.type}{\"/\"}{.reason}{\":\"}{.message}{\"\\n\"}{end}")
            .args([format!("--field-selector=involvedObject.name={name}")])
            .ok();
        let evicted = events.lines().filter(|line| line.contains("Evicted"));
        evicted.for_each(|line| println!("  {line}"));
    }
    std::thread::sleep(QUIET);
    let gone = evicted(&namespace).map_err(anyhow::Error::msg)?;
    let order: Vec<&str> = gone.iter().map(|(name, _)| name.as_str()).collect();
    if order != expected {
        wrong.push(format!("{order:?} went, and not {expected:?}"));
    }
    let start = Instant::now();
    let still = said.so_far().last().is_some_and(|line| line == "True");
    if !still {
        wrong.push(format!("{condition} went at once"));
    }
    said.line(|line| line == "False");
    println!(
        "{condition} went {:.1} s after that",
        start.elapsed().as_secs_f64()
    );
    // Nothing of them is left for who comes next.
    namespace.kubectl("delete pods --all").ok();
    Ok(wrong)
}

/// Presses, and prints who went.
///
/// # Errors
///
/// When others went than should have, or the node said something else.
pub fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::get();
    for (class, value) in [("low", -10), ("high", 10)] {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": value,
            "metadata": {"name": class_name(class)},
        });
        cluster.kubectl("apply -f -").stdin(&class.to_string()).ok();
    }
    let all = [Resource::Memory, Resource::Disk, Resource::Pids];
    let of = match options.of.is_empty() {
        true => &all[..],
        false => &options.of,
    };
    let mut wrong = 0;
    for resource in of {
        println!("short of {resource:?}:");
        for line in press(cluster, *resource)? {
            println!("WRONG: {line}");
            wrong += 1;
        }
    }
    if wrong > 0 {
        bail!("{wrong} things went wrong");
    }
    Ok(())
}
