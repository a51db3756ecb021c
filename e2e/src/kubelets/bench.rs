//! What a kubelet costs: pods that are started, and pods that only run; and how soon it tells of
//! containers that end. Both sides in turns, each on a node and a runtime of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::kubelet::Kubelet;
use super::runtime::Runtime;
use super::service;
use crate::scheduling::objects::delete;
use crate::stand::http::Ask;
use crate::stand::watch::Changes;
use crate::stand::{Connection, Stand};

/// Measures the kubelets of one or two directories of binaries.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Directory with our kubelet.
    pub ours: PathBuf,
    /// Directory with theirs; without it only ours is measured.
    pub theirs: Option<PathBuf>,
    /// Directory with the kube-apiserver; ours by default.
    #[arg(long)]
    pub api: Option<PathBuf>,
    #[arg(long, default_value_t = 110)]
    pub pods: usize,
    /// Seconds that the pods only run, after as many to come to rest.
    #[arg(long, default_value_t = 60)]
    pub idle: u64,
    /// Containers that end, one after the other.
    #[arg(long, default_value_t = 100)]
    pub changes: usize,
    /// How often each side is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    pub pairs: usize,
    /// A directory to leave the kubelets' logs in.
    #[arg(long)]
    pub logs: Option<PathBuf>,
}

const NAMESPACE: &str = "bench";
const PODS: &str = "/api/v1/namespaces/bench/pods";
/// Between containers that end.
const PACE: Duration = Duration::from_millis(50);
/// For what a kubelet must have done at last.
const PATIENCE: Duration = Duration::from_secs(600);

/// One turn of one side.
#[derive(Debug, Clone, Default)]
struct Sample {
    /// Of CPU, per pod that is started.
    start: Duration,
    /// Until all run.
    wall: Duration,
    /// Seconds of CPU per second at rest.
    idle: f64,
    /// Of the runtime, per second at rest.
    calls: f64,
    /// Bytes: the most while pods are started, and at rest.
    peak: u64,
    resident: u64,
    /// From the end of a container to the pod's status that says so.
    told: Vec<Duration>,
}

/// Measures and prints a table.
///
/// # Errors
///
/// When something does not come up, or pods do not run.
pub async fn run(options: Options) -> Result<()> {
    let api = options.api.as_ref().unwrap_or(&options.ours);
    let flags = ["--disable-admission-plugins=TaintNodesByCondition".to_owned()];
    let stand = Stand::start(api, 1, &["--unsafe-no-fsync"], &flags).await?;
    prepare(&stand, &stand.endpoint.connect().await?).await?;
    let sides = [
        Some(("ours", &options.ours)),
        options.theirs.as_ref().map(|t| ("theirs", t)),
    ];
    let mut samples: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
    for pair in 0..options.pairs {
        for (side, bin) in sides.iter().flatten() {
            let node = format!("{side}-{pair}");
            let sample = turn(&stand, bin, &node, &options).await;
            let sample = sample.with_context(|| node.clone())?;
            println!("{node}: {}", line(&sample));
            samples.entry(side).or_default().push(sample);
        }
    }
    table(&options, &samples);
    Ok(())
}

/// What controllers make elsewhere: a namespace, its account, and the authorities that its pods
/// are to trust.
async fn prepare(stand: &Stand, connection: &Connection) -> Result<()> {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let ca = std::fs::read_to_string(stand.pki.path("ca.crt"))?;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"},
        "data": {"ca.crt": ca},
    });
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"},
    });
    for (path, object) in [
        ("/api/v1/namespaces".to_owned(), namespace),
        (format!("/api/v1/namespaces/{NAMESPACE}/configmaps"), map),
        (
            format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"),
            account,
        ),
    ] {
        connection.success(&Ask::post(path, &object)).await?;
    }
    Ok(())
}

fn pod(node: &str, i: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("{node}-{i:04}"), "labels": {"app": "bench"}},
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "c", "image": "registry.example/pause:1",
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
            }],
        },
    })
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        let mut all = all.iter();
        all.any(|c| c["type"] == "Ready" && c["status"] == "True")
    })
}

async fn turn(stand: &Stand, bin: &Path, node: &str, options: &Options) -> Result<Sample> {
    let home = tempfile::tempdir()?;
    let socket = home.path().join("runtime.sock");
    let runtime = Arc::new(Runtime::new(home.path()));
    let serving = service::serve(&runtime, &socket)?;
    let mut kubelet = Kubelet::start(stand, bin, node, home.path(), &socket, options.pods)?;
    let work = measure(stand, &kubelet, &runtime, node, options);
    let sample = tokio::time::timeout(PATIENCE, work).await;
    if let Some(logs) = &options.logs {
        std::fs::create_dir_all(logs)?;
        std::fs::copy(&kubelet.log, logs.join(format!("{node}.log")))?;
    }
    kubelet.process.check()?;
    drop(kubelet);
    serving.abort();
    // A server closes a connection that asked nothing while the pods only ran.
    let connection = Arc::new(stand.endpoint.connect().await?);
    let deleting = stream::iter(0..options.pods).map(|i| {
        let path = format!("{PODS}/{node}-{i:04}");
        let connection = Arc::clone(&connection);
        async move { connection.ask(&delete(&path)).await.map(drop) }
    });
    deleting.buffer_unordered(16).try_collect::<()>().await?;
    connection
        .success(&Ask::delete(format!("/api/v1/nodes/{node}")))
        .await?;
    sample.context("it takes too long")?
}

async fn measure(
    stand: &Stand,
    kubelet: &Kubelet,
    runtime: &Runtime,
    node: &str,
    options: &Options,
) -> Result<Sample> {
    let mut nodes = Changes::follow(&stand.endpoint, "/api/v1/nodes").await?;
    loop {
        let (_, object) = nodes.next_at_all().await?;
        if object["metadata"]["name"] == node && is_ready(&object) {
            break;
        }
    }
    let mut changes = Changes::follow(&stand.endpoint, PODS).await?;
    let connection = Arc::new(stand.endpoint.connect().await?);
    let mut sample = Sample::default();
    let process = &kubelet.process;
    let (before, start) = (process.cpu()?, Instant::now());
    let creating = stream::iter(0..options.pods).map(|i| {
        let ask = Ask::post(PODS, &pod(node, i));
        let connection = Arc::clone(&connection);
        async move { connection.success(&ask).await.map(drop) }
    });
    let creating = creating.buffer_unordered(16).try_collect::<()>();
    let mut ready: BTreeMap<String, Value> = BTreeMap::new();
    let readying = async {
        while ready.len() < options.pods {
            let (_, object) = changes.next_at_all().await?;
            if object["spec"]["nodeName"] == node && is_ready(&object) {
                ready.insert(text(&object["metadata"]["uid"]), told_of(&object));
            }
        }
        anyhow::Ok(())
    };
    let (created, readied) = tokio::join!(creating, readying);
    created?;
    readied?;
    sample.wall = start.elapsed();
    sample.start = (process.cpu()? - before) / u32::try_from(options.pods)?;
    sample.peak = process.peak()?;

    let rest = Duration::from_secs(options.idle);
    tokio::time::sleep(rest).await;
    let (before, calls, start) = (process.cpu()?, runtime.calls(), Instant::now());
    tokio::time::sleep(rest).await;
    let took = start.elapsed().as_secs_f64();
    sample.idle = (process.cpu()? - before).as_secs_f64() / took;
    sample.calls = (runtime.calls() - calls) as f64 / took;
    sample.resident = process.resident()?;

    changes.drain();
    let running: Vec<_> = runtime
        .running()
        .into_iter()
        .take(options.changes)
        .collect();
    let mut ended: BTreeMap<String, Instant> = BTreeMap::new();
    let mut left = running.iter();
    let mut tick = tokio::time::interval(PACE);
    while sample.told.len() < running.len() {
        tokio::select! {
            _ = tick.tick(), if ended.len() < running.len() => {
                if let Some((uid, container)) = left.next() {
                    ended.insert(uid.clone(), Instant::now());
                    runtime.stop(container, 1);
                }
            }
            change = changes.next() => {
                let (_, object) = change.context("the end of a container is not told")?;
                let uid = text(&object["metadata"]["uid"]);
                let told = told_of(&object);
                let (Some(at), Some(before)) = (ended.get(&uid), ready.get(&uid)) else {
                    continue;
                };
                if told != *before {
                    sample.told.push(at.elapsed());
                    ready.remove(&uid);
                }
            }
        }
    }
    sample.told.sort();
    Ok(sample)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a pod's status says of its container.
fn told_of(pod: &Value) -> Value {
    let container = &pod["status"]["containerStatuses"][0];
    json!([
        container["containerID"],
        container["state"],
        container["restartCount"]
    ])
}

impl Sample {
    /// How long it took for so many of a hundred at most.
    fn percentile(&self, of: usize) -> f64 {
        let at = (self.told.len() * of / 100).min(self.told.len().saturating_sub(1));
        self.told.get(at).map_or(0.0, Duration::as_secs_f64)
    }
}

/// A figure, and how it is got.
type Figure = (&'static str, fn(&Sample) -> f64);

#[allow(clippy::cast_precision_loss, reason = "shown to people")]
const FIGURES: [Figure; 8] = [
    ("ms of CPU per pod started", |s| s.start.as_secs_f64() * 1e3),
    ("s until all run", |s| s.wall.as_secs_f64()),
    ("% of a core at rest", |s| s.idle * 100.0),
    ("calls of the runtime per s", |s| s.calls),
    ("MiB at most", |s| s.peak as f64 / 1024.0 / 1024.0),
    ("MiB at rest", |s| s.resident as f64 / 1024.0 / 1024.0),
    ("ms until an end is told, p50", |s| s.percentile(50) * 1e3),
    ("ms until an end is told, p99", |s| s.percentile(99) * 1e3),
];

fn line(sample: &Sample) -> String {
    let figures = FIGURES.map(|(name, of)| format!("{:.2} {name}", of(sample)));
    figures.join(", ")
}

fn table(options: &Options, samples: &BTreeMap<&str, Vec<Sample>>) {
    let median = |side: &str, of: fn(&Sample) -> f64| -> Option<f64> {
        let mut values: Vec<f64> = samples.get(side)?.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    println!(
        "\n{:<32} {:>10} {:>10} {:>8}",
        format!("{} pods", options.pods),
        "ours",
        "theirs",
        "ratio"
    );
    for (name, of) in FIGURES {
        let (ours, theirs) = (median("ours", of), median("theirs", of));
        let show = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
        let ratio = ours.zip(theirs).map(|(ours, theirs)| theirs / ours);
        let ratio = ratio.map_or("-".to_owned(), |r| format!("{r:.1}"));
        println!(
            "{name:<32} {:>10} {:>10} {ratio:>8}",
            show(ours),
            show(theirs)
        );
    }
}

/// Refuses what cannot be measured.
///
/// # Errors
///
/// When there is nothing to measure.
pub fn check(options: &Options) -> Result<()> {
    if options.pods == 0 || options.pairs == 0 || options.idle == 0 {
        bail!("pods, pairs and seconds at rest must be more than none");
    }
    Ok(())
}
