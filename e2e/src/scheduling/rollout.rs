//! How long a cluster takes to have its pods run: API server, controller manager and
//! scheduler of one directory of binaries, kubelets that are played, and Deployments that are
//! created all at once. Wall time is the headline; beside it what each process used.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::{Value, json};

use super::nodes::{self, each};
use super::scheduler::Scheduler;
use super::watch::Changes;
use crate::stand::http::Ask;
use crate::stand::process::Process;
use crate::stand::{Connection, Stand, free_ports};
use crate::wait;

/// Measures how long Deployments take to be available.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Directory with our binaries.
    pub ours: PathBuf,
    /// Directory with theirs; without it only ours is measured.
    pub theirs: Option<PathBuf>,
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    pub nodes: Vec<usize>,
    #[arg(long, default_value_t = 1)]
    pub deployments: usize,
    /// Of each Deployment.
    #[arg(long, default_value_t = 1000)]
    pub replicas: usize,
    /// How long a pod takes to run.
    #[arg(long, default_value_t = 0)]
    pub start_milliseconds: u64,
    /// How often each side is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    pub pairs: usize,
}

/// A rollout that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(15 * 60);

const NAMESPACE: &str = "rollout";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/rollout/deployments";
/// The daemons that are measured.
const DAEMONS: [&str; 3] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

/// What one rollout came to; processes in the order of [`DAEMONS`].
struct Sample {
    wall: Duration,
    cpu: [Duration; 3],
    /// Peak of resident memory in bytes.
    memory: [u64; 3],
}

/// Measures and prints.
///
/// # Errors
///
/// When a daemon does not come up, or pods do not run.
pub async fn run(options: Options) -> Result<()> {
    let sides: Vec<&PathBuf> = [Some(&options.ours), options.theirs.as_ref()]
        .into_iter()
        .flatten()
        .collect();
    println!(
        "{} Deployments of {} pods; ours, theirs and theirs by ours",
        options.deployments, options.replicas
    );
    for nodes in &options.nodes {
        let mut samples: Vec<Vec<Sample>> = sides.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.pairs {
            for (side, bin) in sides.iter().enumerate() {
                samples[side].push(rollout(bin, *nodes, &options).await?);
            }
        }
        report(*nodes, &samples);
    }
    Ok(())
}

fn report(nodes: usize, samples: &[Vec<Sample>]) {
    let row = |what: &str, unit: &str, of: &dyn Fn(&Sample) -> f64| {
        let median = |samples: &Vec<Sample>| {
            let mut values: Vec<f64> = samples.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let values: Vec<f64> = samples.iter().map(median).collect();
        let shown: Vec<String> = values.iter().map(|v| format!("{v:>10.2}")).collect();
        let ratio = match values[..] {
            [ours, theirs] => format!("{:>8.1}", theirs / ours),
            _ => String::new(),
        };
        println!(
            "{nodes:>6} nodes  {what:<30} {unit:<4} {} {ratio}",
            shown.join(" ")
        );
    };
    row("wall", "s", &|s| s.wall.as_secs_f64());
    for (i, daemon) in DAEMONS.iter().enumerate() {
        row(&format!("CPU {daemon}"), "s", &|s| s.cpu[i].as_secs_f64());
        #[allow(clippy::cast_precision_loss, reason = "shown to people")]
        row(&format!("peak {daemon}"), "MiB", &|s| {
            s.memory[i] as f64 / 1024.0 / 1024.0
        });
    }
}

async fn rollout(bin: &Path, count: usize, options: &Options) -> Result<Sample> {
    let stand = Stand::start(bin, 1, &["--unsafe-no-fsync"], &[]).await?;
    let connection = Arc::new(stand.endpoint.connect().await?);
    let scheduler = Scheduler::start(&stand, bin, "default-scheduler", 0)?;
    let manager = manager(&stand, bin)?;
    let playing = nodes::Options {
        count,
        port: stand.api.port,
        pki: stand.pki.path(""),
        start_milliseconds: options.start_milliseconds,
        zones: 10,
    };
    let measured = measure(
        &stand,
        &connection,
        [&manager, &scheduler.process],
        options,
        count,
    );
    tokio::select! {
        sample = measured => sample,
        ended = nodes::run(playing) => {
            ended?;
            anyhow::bail!("the kubelets have ended")
        }
    }
}

async fn measure(
    stand: &Stand,
    connection: &Arc<Connection>,
    others: [&Process; 2],
    options: &Options,
    count: usize,
) -> Result<Sample> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
    });
    let ask = Ask::post("/api/v1/namespaces", &namespace);
    connection.success(&ask).await?;
    wait::until_async("the nodes and the service account", async || {
        is_ready(connection, count).await.map_err(|e| e.to_string())
    })
    .await;

    let daemons = [stand.api.process(), others[0], others[1]];
    let mut before = [Duration::ZERO; 3];
    for (daemon, before) in daemons.iter().zip(&mut before) {
        *before = daemon.cpu()?;
        daemon.forget_peak()?;
    }
    let mut changes = Changes::follow(&stand.endpoint, DEPLOYMENTS).await?;
    let began = Instant::now();
    each(0..options.deployments, |i| {
        let ask = Ask::post(DEPLOYMENTS, &deployment(i, options.replicas));
        let connection = Arc::clone(connection);
        async move { connection.success(&ask).await.map(drop) }
    })
    .await?;
    let mut available: HashMap<String, u64> = HashMap::new();
    let wanted = u64::try_from(options.deployments * options.replicas)?;
    while available.values().sum::<u64>() < wanted {
        // A server that has more to do than it can may say nothing for long.
        let change = tokio::time::timeout_at((began + LONGEST).into(), changes.next_at_all());
        let seen: u64 = available.values().sum();
        let (_, object) = change
            .await
            .with_context(|| format!("{seen} of {wanted} pods are available"))??;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let now = object["status"]["availableReplicas"].as_u64();
        available.insert(name.to_owned(), now.unwrap_or_default());
    }
    let wall = began.elapsed();
    let mut sample = Sample {
        wall,
        cpu: [Duration::ZERO; 3],
        memory: [0; 3],
    };
    for (i, daemon) in daemons.iter().enumerate() {
        sample.cpu[i] = daemon.cpu()?.saturating_sub(before[i]);
        sample.memory[i] = daemon.peak()?;
    }
    Ok(sample)
}

/// Whether every node may be used and pods may be made.
async fn is_ready(connection: &Connection, count: usize) -> Result<()> {
    let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default");
    connection.success(&Ask::get(account)).await?;
    let nodes = connection.json(&Ask::get("/api/v1/nodes")).await?;
    let untainted = |node: &&Value| node["spec"]["taints"].is_null();
    let nodes = nodes["items"].as_array().into_iter().flatten();
    let usable = nodes.filter(untainted).count();
    anyhow::ensure!(usable == count, "{usable} of {count} nodes are usable");
    Ok(())
}

fn deployment(i: usize, replicas: usize) -> Value {
    let labels = json!({"app": format!("d-{i:05}")});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": format!("d-{i:05}"), "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "registry.example/pause:1",
                    "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}}}]},
            },
        },
    })
}

/// The controller manager with its default periods and workers, and without rate limits of
/// its client.
fn manager(stand: &Stand, bin: &Path) -> Result<Process> {
    let home = stand.home();
    let pem = |file: &str| stand.pki.path(file).display().to_string();
    let [port] = free_ports()?;
    let arguments = [
        // Written by the scheduler's start.
        format!("--kubeconfig={}", home.join("admin.conf").display()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", home.join("manager-certs").display()),
        "--leader-elect=false".to_owned(),
        format!("--root-ca-file={}", pem("ca.crt")),
        format!("--service-account-private-key-file={}", pem("sa.key")),
        "--kube-api-qps=10000".to_owned(),
        "--kube-api-burst=10000".to_owned(),
    ];
    let binary = bin.join("kube-controller-manager");
    let log = home.join("kube-controller-manager.log");
    Process::start(&binary, &arguments, &log)
        .with_context(|| format!("{} does not start", binary.display()))
}
