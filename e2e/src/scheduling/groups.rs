//! The comparison for groups of pods: two schedulers under names of their own over one API
//! server, shown the same random clusters and PodGroups one after the other, with gangs
//! alone, with placements, and with preemption for groups.
//!
//! Pods of a group are alike, so that it does not matter which of them comes first: how many
//! get a node, in which words the others and the group are refused, and how important those
//! are who leave must be the same.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::objects::{delete, flags, patch_status, pod_path, prepare};
use super::random::Random;
use super::scheduler::Scheduler;
use super::watch::Changes;
use crate::stand::http::{Ask, MERGE};
use crate::stand::{Connection, Stand};

/// Compares what schedulers of two directories of binaries do with groups of pods.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Directory with our kube-scheduler.
    pub ours: PathBuf,
    /// Directory with theirs.
    pub theirs: PathBuf,
    /// Directory with the kube-apiserver; theirs by default.
    #[arg(long)]
    pub api: Option<PathBuf>,
    /// Random clusters, each with one group, for each set of features.
    #[arg(long, default_value_t = 60)]
    pub clusters: u64,
    /// The first cluster's seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Stop at so many differences.
    #[arg(long, default_value_t = 10)]
    pub stop: usize,
}

const NAMESPACE: &str = "red";
const GROUPS: &str = "/apis/scheduling.k8s.io/v1alpha2/namespaces/red/podgroups";
const PODS: &str = "/api/v1/namespaces/red/pods";
const HOST: &str = "kubernetes.io/hostname";
/// Caches of schedulers follow within this.
const FOLLOW: Duration = Duration::from_millis(250);
/// Nothing more comes of a group when nothing has happened for so long.
const QUIET: Duration = Duration::from_secs(3);
/// How often theirs is asked again before its draws are thought to be exhausted.
const DRAWS: usize = 3;

/// What is compared under which features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Gangs,
    Placements,
    Preemption,
}

impl Mode {
    fn gates(self) -> String {
        let more = match self {
            Self::Gangs => "",
            Self::Placements => ",TopologyAwareWorkloadScheduling=true",
            Self::Preemption => ",WorkloadAwarePreemption=true",
        };
        format!("--feature-gates=GenericWorkload=true,GangScheduling=true{more}")
    }
}

/// A cluster, and a group that is to be scheduled in it.
#[derive(Debug, Clone)]
struct Case {
    nodes: Vec<Value>,
    /// Groups that are there.
    groups: Vec<Value>,
    /// Pods that have their nodes.
    there: Vec<Value>,
    group: Value,
    /// All of one kind.
    pods: Vec<Value>,
}

/// What came of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Outcome {
    scheduled: bool,
    /// What was said of the group first.
    message: String,
    bound: usize,
    /// What was said of pods without a node first.
    refused: Vec<String>,
    /// Priorities of pods that left.
    victims: Vec<i64>,
}

/// How often what was seen.
#[derive(Debug, Default)]
struct Tally {
    scheduled: usize,
    refused: usize,
    preempted: usize,
    /// The same only when theirs had drawn again.
    equal: usize,
    different: usize,
}

struct Run {
    connection: Connection,
    pods: Changes,
    groups: Changes,
    ours: Scheduler,
    theirs: Scheduler,
    tally: Tally,
}

/// Runs it and prints what was seen.
///
/// # Errors
///
/// When the stand does not come up, or the schedulers differ.
pub async fn run(options: Options) -> Result<()> {
    let api = options.api.as_ref().unwrap_or(&options.theirs);
    let mut more = flags();
    more.push("--runtime-config=scheduling.k8s.io/v1alpha2=true".into());
    more.push(format!(
        "{},TopologyAwareWorkloadScheduling=true,WorkloadAwarePreemption=true",
        Mode::Gangs.gates()
    ));
    let stand = Stand::start(api, 1, &["--unsafe-no-fsync"], &more).await?;
    let connection = stand.endpoint.connect().await?;
    prepare(&connection, &[(NAMESPACE, "r")]).await?;
    let mut different = 0;
    for mode in [Mode::Gangs, Mode::Placements, Mode::Preemption] {
        let gates = [mode.gates()];
        let mut run = Run {
            connection: stand.endpoint.connect().await?,
            pods: Changes::follow(&stand.endpoint, PODS).await?,
            groups: Changes::follow(&stand.endpoint, GROUPS).await?,
            ours: Scheduler::start_with(&stand, &options.ours, "ours", 2, &gates)?,
            theirs: Scheduler::start_with(&stand, &options.theirs, "theirs", 2, &gates)?,
            tally: Tally::default(),
        };
        for seed in options.seed..options.seed + options.clusters {
            let case = case(&mut Random::new(seed), mode);
            let told = run.compare(&case).await;
            if let Some(told) = told.with_context(|| format!("{mode:?}, seed {seed}: {case:?}"))? {
                run.tally.different += 1;
                println!("DIFFERENT: {mode:?}, seed {seed}: {told}\n  {case:?}");
            }
            if different + run.tally.different >= options.stop {
                break;
            }
        }
        println!("{mode:?}: {:?}", run.tally);
        different += run.tally.different;
        run.ours.process.stop()?;
        run.theirs.process.stop()?;
    }
    if different > 0 {
        let home = stand.keep();
        bail!("{different} differences; logs are in {}", home.display());
    }
    Ok(())
}

fn object(api: &str, kind: &str, name: &str, rest: Value) -> Value {
    let mut object = rest;
    object["apiVersion"] = api.into();
    object["kind"] = kind.into();
    object["metadata"]["name"] = name.into();
    object
}

fn group(name: &str, spec: Value) -> Value {
    let api = "scheduling.k8s.io/v1alpha2";
    object(api, "PodGroup", name, json!({ "spec": spec }))
}

fn pod(name: &str, group: Option<&str>, milli: usize, priority: i64) -> Value {
    let mut spec = json!({
        "terminationGracePeriodSeconds": 0,
        "priorityClassName": format!("p{priority}"),
        "containers": [{
            "name": "c", "image": "i",
            "resources": {"requests": {"cpu": format!("{milli}m")}},
        }],
    });
    if let Some(group) = group {
        spec["schedulingGroup"] = json!({"podGroupName": group});
    }
    object("v1", "Pod", name, json!({ "spec": spec }))
}

fn case(random: &mut Random, mode: Mode) -> Case {
    let mut case = Case {
        nodes: Vec::new(),
        groups: Vec::new(),
        there: Vec::new(),
        group: Value::Null,
        pods: Vec::new(),
    };
    if mode == Mode::Preemption && random.percent(60) {
        let spec = json!({
            "schedulingPolicy": {"basic": {}},
            "disruptionMode": *random.pick(&["Pod", "PodGroup"]),
            "priorityClassName": *random.pick(&["p10", "p50"]),
        });
        case.groups.push(group("there", spec));
    }
    let racks = random.between(1, 3);
    for i in 0..random.between(1, 8) {
        let name = format!("n{i}");
        let mut labels = json!({HOST: name});
        if random.percent(90) {
            labels["rack"] = format!("r{}", random.below(racks)).into();
        }
        let cores = random.between(1, 3);
        let room = json!({"cpu": cores.to_string(), "memory": "8Gi", "pods": "20"});
        let rest = json!({
            "metadata": {"labels": labels},
            "status": {"allocatable": room, "capacity": room},
        });
        case.nodes.push(object("v1", "Node", &name, rest));
        for j in 0..random.between(0, cores) {
            // Without preemption for groups nobody is less important than the group.
            let priority = match mode {
                Mode::Preemption => *random.pick(&[10, 50]),
                _ => 1000,
            };
            let member = (!case.groups.is_empty() && random.percent(40)).then_some("there");
            let milli = *random.pick(&[500, 1000]);
            let mut pod = pod(&format!("there-{i}-{j}"), member, milli, priority);
            pod["spec"]["nodeName"] = format!("n{i}").into();
            case.there.push(pod);
        }
    }
    let size = random.between(1, 7);
    let policy = match random.percent(80) {
        true => json!({"gang": {"minCount": random.between(1, size)}}),
        false => json!({"basic": {}}),
    };
    let mut spec = json!({"schedulingPolicy": policy});
    if mode == Mode::Placements && random.percent(80) {
        spec["schedulingConstraints"] = json!({"topology": [{"key": "rack"}]});
    }
    if mode == Mode::Preemption {
        spec["priorityClassName"] = "p100".into();
    }
    case.group = group("group", spec);
    let milli = *random.pick(&[500, 1000, 2000]);
    let apart = random.percent(25);
    for i in 0..size {
        let mut pod = pod(&format!("pod-{i}"), Some("group"), milli, 100);
        if apart {
            pod["metadata"]["labels"] = json!({"app": "apart"});
            let term = json!({
                "topologyKey": HOST,
                "labelSelector": {"matchLabels": {"app": "apart"}},
            });
            pod["spec"]["affinity"] = json!({"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [term],
            }});
        }
        case.pods.push(pod);
    }
    case
}

impl Run {
    /// What is different, if anything is.
    async fn compare(&mut self, case: &Case) -> Result<Option<String>> {
        let (ours, theirs) = (self.ours.name.clone(), self.theirs.name.clone());
        let mine = self.probe(case, &ours).await.context("ours")?;
        let mut seen = Vec::new();
        for draw in 0..DRAWS {
            let their = self.probe(case, &theirs).await.context("theirs")?;
            if their == mine {
                self.tally.equal += usize::from(draw > 0);
                match (mine.victims.is_empty(), mine.scheduled) {
                    (false, _) => self.tally.preempted += 1,
                    (true, true) => self.tally.scheduled += 1,
                    (true, false) => self.tally.refused += 1,
                }
                return Ok(None);
            }
            seen.push(their);
        }
        Ok(Some(format!("ours {mine:?}, theirs {seen:?}")))
    }

    /// Makes a cluster with a group, waits for what comes of it, and takes all away.
    async fn probe(&mut self, case: &Case, scheduler: &str) -> Result<Outcome> {
        let connection = self.connection.clone();
        let make = async |path: &str, objects: &[Value]| {
            let made = objects.iter();
            let made = made.map(async |o| connection.success(&Ask::post(path, o)).await);
            try_join_all(made).await
        };
        make("/api/v1/nodes", &case.nodes).await?;
        make(GROUPS, &case.groups).await?;
        for (i, pod) in case.there.iter().enumerate() {
            // One after the other: they start at different times.
            connection.success(&Ask::post(PODS, pod)).await?;
            let start = format!("2026-01-01T{:02}:{:02}:00Z", i / 60, i % 60);
            let status = json!({"phase": "Running", "startTime": start});
            let path = pod_path(NAMESPACE, name(pod));
            connection.success(&patch_status(&path, &status)).await?;
        }
        tokio::time::sleep(FOLLOW).await;
        self.pods.drain();
        self.groups.drain();
        let mut pods = case.pods.clone();
        for pod in &mut pods {
            pod["spec"]["schedulerName"] = scheduler.into();
        }
        make(PODS, &pods).await?;
        // The group comes last, so that all of its pods are there when it is looked at.
        tokio::time::sleep(FOLLOW).await;
        connection.success(&Ask::post(GROUPS, &case.group)).await?;
        let outcome = self.follow(case).await;
        self.clear(case).await?;
        outcome
    }

    /// What comes of the group.
    async fn follow(&mut self, case: &Case) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut told = false;
        let mut refused: Vec<Option<String>> = vec![None; case.pods.len()];
        let mut bound = vec![false; case.pods.len()];
        loop {
            let next = tokio::select! {
                next = self.pods.next() => Some((true, next)),
                next = self.groups.next() => Some((false, next)),
                () = tokio::time::sleep(QUIET) => None,
            };
            let Some((of_pod, next)) = next else {
                break;
            };
            let (kind, object) = next?;
            let conditions = object["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            if !of_pod {
                let condition = conditions.find(|c| c["type"] == "PodGroupScheduled");
                if let Some(condition) = condition.filter(|_| name(&object) == "group") {
                    outcome.scheduled = condition["status"] == "True";
                    if !told {
                        outcome.message = text(&condition["message"]);
                    }
                    told = true;
                }
            } else if kind == "DELETED" {
                let there = case.there.iter();
                let mut victim = there.filter(|pod| name(pod) == name(&object));
                if victim.next().is_some() {
                    let priority = object["spec"]["priority"].as_i64();
                    outcome.victims.extend(priority);
                }
            } else if let Some(at) = case.pods.iter().position(|p| name(p) == name(&object)) {
                bound[at] |= object["spec"]["nodeName"].is_string();
                let condition = conditions
                    .find(|c| c["type"] == "PodScheduled" && c["status"] == "False")
                    .map(|condition| text(&condition["message"]));
                let first = &mut refused[at];
                *first = first.take().or(condition);
            }
            let settled = refused.iter().zip(&bound).all(|(r, b)| r.is_some() || *b);
            // Others may yet leave for a group that has been refused, and make room for it.
            let at_once = outcome.scheduled && outcome.message.is_empty();
            if told && settled && (at_once || !preempts(case)) {
                break;
            }
        }
        outcome.bound = bound.iter().filter(|b| **b).count();
        outcome.refused = refused.into_iter().flatten().collect();
        outcome.refused.sort();
        outcome.victims.sort_unstable();
        if case.group["spec"]["schedulingConstraints"].is_object() && !outcome.scheduled {
            // Which placement comes first, and gives the words, is drawn.
            outcome.refused.clear();
        }
        Ok(outcome)
    }

    async fn clear(&mut self, case: &Case) -> Result<()> {
        let connection = &self.connection;
        for pod in case.pods.iter().chain(&case.there) {
            let path = pod_path(NAMESPACE, name(pod));
            connection.ask(&delete(&path)).await?;
        }
        for group in case.groups.iter().chain([&case.group]) {
            let path = format!("{GROUPS}/{}", name(group));
            // Nobody is there who would let it go.
            let free = json!({"metadata": {"finalizers": null}}).to_string();
            let free = Ask::send(http::Method::PATCH, path.as_str(), MERGE, free);
            connection.ask(&free).await?;
            connection.ask(&Ask::delete(path)).await?;
        }
        for node in &case.nodes {
            let path = format!("/api/v1/nodes/{}", name(node));
            connection.success(&Ask::delete(path)).await?;
        }
        Ok(())
    }
}

/// Whether others may have to leave for the group.
fn preempts(case: &Case) -> bool {
    case.group["spec"]["priorityClassName"].is_string()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
