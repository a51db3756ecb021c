//! What scheduling costs: workloads in the manner of upstream's `scheduler_perf`, each
//! scheduled by either scheduler in turns. The headline is the CPU time of the scheduler's
//! process per pod; beside it pods per second and memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::nodes::{each, each_of, node};
use super::objects::{delete, flags, pod_path, prepare};
use super::scheduler::Scheduler;
use super::watch::Changes;
use super::workloads::{CHURNED, NAMESPACE, Workload, ZONES, churned};
use crate::stand::http::{Ask, PROTOBUF};
use crate::stand::{Connection, Stand};

/// Measures the schedulers of one or two directories of binaries.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Directory with our kube-scheduler.
    pub ours: PathBuf,
    /// Directory with theirs; without it only ours is measured.
    pub theirs: Option<PathBuf>,
    /// Directory with the kube-apiserver; ours by default.
    #[arg(long)]
    pub api: Option<PathBuf>,
    #[arg(long, value_delimiter = ',')]
    pub workloads: Vec<Workload>,
    #[arg(long, value_delimiter = ',', default_value = "500,1000,5000")]
    pub nodes: Vec<usize>,
    /// Pods that are scheduled in each turn.
    #[arg(long, default_value_t = 2000)]
    pub pods: usize,
    /// How often each side is measured; the median counts.
    #[arg(long, default_value_t = 3)]
    pub pairs: usize,
    /// The pods are there before the scheduler is, which is measured from the first pod on that it
    /// has dealt with: what making them costs is no part of it.
    #[arg(long)]
    pub waiting: bool,
}

/// Pods that are being made at the same time: enough that a scheduler never waits for them.
const MAKING: usize = 256;

/// Between the comings and goings of [`Workload::Churn`].
const CHURN: Duration = Duration::from_secs(1);

/// One turn of one side.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Per pod.
    cpu: Duration,
    per_second: f64,
    /// Bytes, at most.
    memory: u64,
    /// Events that were written, per pod: who writes fewer has less to do.
    events: f64,
}

/// Measures and prints a table.
///
/// # Errors
///
/// When something does not come up, or pods are not scheduled.
pub async fn run(options: Options) -> Result<()> {
    let workloads = if options.workloads.is_empty() {
        Workload::all()
    } else {
        options.workloads.clone()
    };
    let sides: Vec<&PathBuf> = [Some(&options.ours), options.theirs.as_ref()]
        .into_iter()
        .flatten()
        .collect();
    println!(
        "{:<26} {:>6} {:>6}  {:>12} {:>12} {:>7}  {:>9} {:>9}  {:>8} {:>8}  {:>7} {:>7}",
        "workload",
        "nodes",
        "pods",
        "µs CPU/pod",
        "theirs",
        "ratio",
        "pods/s",
        "theirs",
        "MiB",
        "theirs",
        "events",
        "theirs"
    );
    for nodes in &options.nodes {
        let api = options.api.as_ref().unwrap_or(&options.ours);
        let stand = Stand::start(api, 1, &["--unsafe-no-fsync"], &flags()).await?;
        let connection = Arc::new(stand.endpoint.connect().await?);
        prepare(&connection, &[(NAMESPACE, "b")]).await?;
        each(0..*nodes, |i| {
            let ask = Ask::post("/api/v1/nodes", &node(i, ZONES));
            let connection = Arc::clone(&connection);
            async move { connection.success(&ask).await.map(drop) }
        })
        .await?;
        for workload in &workloads {
            let lasting = workload.lasting(workload.pods(options.pods, *nodes), *nodes);
            make(&connection, lasting).await?;
            let mut samples: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
            for _ in 0..options.pairs {
                for (side, bin) in sides.iter().enumerate() {
                    let turn = Turn {
                        stand: &stand,
                        connection: &connection,
                        workload: *workload,
                        nodes: *nodes,
                    };
                    let sample = turn.run(bin, &options).await?;
                    samples.entry(side).or_default().push(sample);
                }
            }
            let pods = workload.pods(options.pods, *nodes);
            row(*workload, *nodes, pods, &samples);
        }
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "shown to people")]
fn row(workload: Workload, nodes: usize, pods: usize, samples: &BTreeMap<usize, Vec<Sample>>) {
    let median = |side: usize, of: fn(&Sample) -> f64| -> Option<f64> {
        let mut values: Vec<f64> = samples.get(&side)?.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let cpu = |side| median(side, |s| s.cpu.as_secs_f64() * 1e6);
    let rate = |side| median(side, |s| s.per_second);
    let memory = |side| median(side, |s| s.memory as f64 / 1024.0 / 1024.0);
    let events = |side| {
        let events = median(side, |s| s.events);
        events.map_or("-".to_owned(), |v| format!("{v:.2}"))
    };
    let show = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.0}"));
    let ratio = cpu(1).zip(cpu(0)).map_or("-".to_owned(), |(theirs, ours)| {
        format!("{:.1}", theirs / ours)
    });
    println!(
        "{:<26} {nodes:>6} {pods:>6}  {:>12} {:>12} {ratio:>7}  {:>9} {:>9}  {:>8} {:>8}  {:>7} {:>7}",
        workload.name(),
        show(cpu(0)),
        show(cpu(1)),
        show(rate(0)),
        show(rate(1)),
        show(memory(0)),
        show(memory(1)),
        events(0),
        events(1),
    );
}

/// What is measured, and where.
struct Turn<'a> {
    stand: &'a Stand,
    connection: &'a Arc<Connection>,
    workload: Workload,
    nodes: usize,
}

impl Turn<'_> {
    async fn run(&self, bin: &Path, options: &Options) -> Result<Sample> {
        let &Turn {
            stand,
            connection,
            workload,
            nodes,
        } = self;
        let before = workload.before(nodes);
        create(connection, before.clone()).await?;
        let pods = workload.pods(options.pods, nodes);
        let made: Vec<Value> = (0..pods).map(|i| workload.pod(i, nodes)).collect();
        let mut settling = Settling::begin(stand, workload, pods).await?;
        let sample = match options.waiting {
            true => self.waiting(bin, made, &mut settling).await?,
            false => self.coming(bin, made, &mut settling).await?,
        };
        let names = (0..pods).map(|i| format!("p-{i:06}"));
        let old = (0..before.len()).map(|i| format!("old-{i:06}"));
        each(names.chain(old).chain(["warm".to_owned()]), |name| {
            let ask = delete(&pod_path(NAMESPACE, &name));
            let connection = Arc::clone(connection);
            async move { connection.ask(&ask).await.map(drop) }
        })
        .await?;
        Ok(sample)
    }

    /// The pods come while the scheduler runs.
    async fn coming(
        &self,
        bin: &Path,
        made: Vec<Value>,
        settling: &mut Settling,
    ) -> Result<Sample> {
        let mut scheduler = Scheduler::start(self.stand, bin, "default-scheduler", 0)?;
        warm_up(self.stand, self.connection).await?;
        forget_events(self.connection).await?;
        let pods = made.len();
        let (cpu, began) = (scheduler.process.cpu()?, Instant::now());
        let creating = {
            let connection = Arc::clone(self.connection);
            tokio::spawn(async move { create(&connection, made).await })
        };
        self.settle(settling, pods).await?;
        let took = began.elapsed();
        creating.await??;
        self.sample(&mut scheduler, cpu, took, pods).await
    }

    /// The pods wait for the scheduler.
    async fn waiting(
        &self,
        bin: &Path,
        made: Vec<Value>,
        settling: &mut Settling,
    ) -> Result<Sample> {
        let pods = made.len();
        create(self.connection, made).await?;
        forget_events(self.connection).await?;
        let mut scheduler = Scheduler::start(self.stand, bin, "default-scheduler", 0)?;
        settling.until(1).await?;
        let (cpu, began) = (scheduler.process.cpu()?, Instant::now());
        self.settle(settling, pods).await?;
        let took = began.elapsed();
        self.sample(&mut scheduler, cpu, took, pods).await
    }

    async fn settle(&self, settling: &mut Settling, pods: usize) -> Result<()> {
        if self.workload != Workload::Churn {
            return settling.until(pods).await;
        }
        tokio::select! {
            done = settling.until(pods) => done?,
            broken = churn(self.connection) => broken?,
        }
        clear(self.connection).await
    }

    /// What a scheduler used for so many pods.
    async fn sample(
        &self,
        scheduler: &mut Scheduler,
        cpu: Duration,
        took: Duration,
        pods: usize,
    ) -> Result<Sample> {
        let used = until_quiet(scheduler).await?.saturating_sub(cpu);
        let memory = scheduler.process.peak()?;
        scheduler.process.stop()?;
        let events = count_events(self.connection).await?;
        #[allow(clippy::cast_precision_loss, reason = "shown to people")]
        Ok(Sample {
            cpu: used / u32::try_from(pods.max(1))?,
            per_second: pods as f64 / took.as_secs_f64(),
            memory,
            events: events as f64 / pods.max(1) as f64,
        })
    }
}

/// Pods that are measured, and which of them are bound, or refused where none fits.
struct Settling {
    changes: Changes,
    workload: Workload,
    settled: Vec<bool>,
    count: usize,
}

impl Settling {
    async fn begin(stand: &Stand, workload: Workload, pods: usize) -> Result<Self> {
        // Whoever looks on shall not be what is measured: of most pods it is enough that they are
        // bound.
        let changes = match workload {
            Workload::Unschedulable => Changes::follow(&stand.endpoint, PODS).await?,
            _ => {
                let bound = format!("{PODS}?fieldSelector=spec.nodeName!%3D");
                Changes::follow_metadata(&stand.endpoint, &bound).await?
            }
        };
        Ok(Self {
            changes,
            workload,
            settled: vec![false; pods],
            count: 0,
        })
    }

    /// Waits until so many are.
    async fn until(&mut self, wanted: usize) -> Result<()> {
        while self.count < wanted {
            let (_, pod) = self.changes.next().await?;
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let Some(i) = name
                .strip_prefix("p-")
                .and_then(|n| n.parse::<usize>().ok())
            else {
                continue;
            };
            let refused = pod["status"]["conditions"]
                .as_array()
                .is_some_and(|c| c.iter().any(|c| c["reason"] == "Unschedulable"));
            // Of all other workloads only those that are bound are seen.
            let done = self.workload != Workload::Unschedulable || refused;
            if done && !std::mem::replace(&mut self.settled[i], true) {
                self.count += 1;
            }
        }
        Ok(())
    }
}

/// The CPU time that a scheduler has used when nothing is left to do: events go out later
/// than what they tell of.
async fn until_quiet(scheduler: &Scheduler) -> Result<Duration> {
    const LOOK: Duration = Duration::from_millis(250);
    let limit = Instant::now() + Duration::from_secs(60);
    let mut used = scheduler.process.cpu()?;
    loop {
        tokio::time::sleep(2 * LOOK).await;
        let before = std::mem::replace(&mut used, scheduler.process.cpu()?);
        if used.saturating_sub(before) < LOOK / 10 || Instant::now() >= limit {
            return Ok(used);
        }
    }
}

const PODS: &str = "/api/v1/pods";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/bench/events";

async fn forget_events(connection: &Connection) -> Result<()> {
    connection.success(&delete(EVENTS)).await.map(drop)
}

async fn count_events(connection: &Connection) -> Result<usize> {
    let answer = connection.success(&Ask::get(EVENTS)).await?;
    let list: Value = serde_json::from_slice(&answer)?;
    Ok(list["items"].as_array().map_or(0, Vec::len))
}

async fn create(connection: &Arc<Connection>, pods: Vec<Value>) -> Result<()> {
    each_of(MAKING, pods, |pod| {
        let ask = Ask::post(format!("/api/v1/namespaces/{NAMESPACE}/pods"), &pod).accept(PROTOBUF);
        let connection = Arc::clone(connection);
        async move { connection.success(&ask).await.map(drop) }
    })
    .await
}

async fn make(connection: &Arc<Connection>, objects: Vec<(String, Value)>) -> Result<()> {
    each(objects, |(path, object)| {
        let connection = Arc::clone(connection);
        async move {
            connection
                .success(&Ask::post(path, &object))
                .await
                .map(drop)
        }
    })
    .await
}

/// Makes a node, a pod that would have to preempt and fits nowhere, and a Service, and
/// deletes them again, until it is ended.
async fn churn(connection: &Connection) -> Result<()> {
    let mut tick = tokio::time::interval(CHURN);
    loop {
        for (path, object) in churned() {
            tick.tick().await;
            connection.success(&Ask::post(path, &object)).await?;
        }
        tick.tick().await;
        clear(connection).await?;
    }
}

/// Deletes what of it is there.
async fn clear(connection: &Connection) -> Result<()> {
    for (path, _) in churned() {
        connection
            .ask(&delete(&format!("{path}/{CHURNED}")))
            .await?;
    }
    Ok(())
}

/// Waits until the scheduler schedules.
async fn warm_up(stand: &Stand, connection: &Arc<Connection>) -> Result<()> {
    let mut changes = Changes::follow(&stand.endpoint, PODS).await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "warm", "namespace": NAMESPACE},
        "spec": {
            "containers": [{"name": "c", "image": "registry.example/pause:1"}],
            "terminationGracePeriodSeconds": 0,
        },
    });
    create(connection, vec![pod]).await?;
    loop {
        let (kind, pod) = changes.next().await?;
        if pod["metadata"]["name"] != "warm" {
            continue;
        }
        if kind == "DELETED" {
            bail!("the first pod is gone");
        }
        if pod["spec"]["nodeName"].is_string() {
            return Ok(());
        }
    }
}
