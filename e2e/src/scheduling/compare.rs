//! The comparison: two schedulers under names of their own over one API server, shown the
//! same random clusters and pods one after the other.
//!
//! Where neither finds a node, the words must be the same: every reason with its count.
//! Where both preempt, so must the node and the victims be. Where both find a node it may be
//! another one only if theirs would take it as well: then the two scored it alike (of equal
//! ones any is drawn), which is seen by asking theirs again, or ours scored it otherwise,
//! which is counted.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::generate::{self, Cluster, NAMESPACES};
use super::objects::{delete, flags, patch_status, pod_path, prepare};
use super::random::Random;
use super::scheduler::Scheduler;
use super::watch::Changes;
use crate::stand::http::Ask;
use crate::stand::{Connection, Stand};

/// Compares the schedulers of two directories of binaries.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Directory with our kube-scheduler.
    pub ours: PathBuf,
    /// Directory with theirs.
    pub theirs: PathBuf,
    /// Directory with the kube-apiserver; theirs by default.
    #[arg(long)]
    pub api: Option<PathBuf>,
    /// Random clusters.
    #[arg(long, default_value_t = 250)]
    pub clusters: u64,
    /// Random pods for each.
    #[arg(long, default_value_t = 40)]
    pub pods: usize,
    /// The first cluster's seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Stop at so many differences.
    #[arg(long, default_value_t = 20)]
    pub stop: usize,
    /// Tell of pods that got another node, and have schedulers log all they think.
    #[arg(long)]
    pub verbose: bool,
}

/// What came of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Outcome {
    /// The first condition that says why it waits.
    message: Option<String>,
    /// Where it was nominated to go.
    nominated: Option<String>,
    victims: BTreeSet<String>,
    node: Option<String>,
}

/// How often what was seen.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    preempted: usize,
    same: usize,
    equal: usize,
    otherwise: usize,
    different: usize,
}

struct Run {
    stand: Stand,
    connection: Connection,
    changes: Changes,
    ours: Scheduler,
    theirs: Scheduler,
    tally: Tally,
    number: usize,
    verbose: bool,
}

/// How often theirs is asked again before its draws are thought to be exhausted.
const DRAWS: usize = 2;
/// Node and service caches of schedulers follow within this; pods come in order anyway.
const FOLLOW: Duration = Duration::from_millis(250);
/// Victims have gone when nothing has happened for so long.
const QUIET: Duration = Duration::from_secs(3);

/// Runs it and prints what was seen.
///
/// # Errors
///
/// When the stand does not come up, or the schedulers differ.
pub async fn run(options: Options) -> Result<()> {
    let api = options.api.as_ref().unwrap_or(&options.theirs);
    let stand = Stand::start(api, 1, &["--unsafe-no-fsync"], &flags()).await?;
    let connection = stand.endpoint.connect().await?;
    prepare(&connection, &NAMESPACES).await?;
    for (namespace, _) in NAMESPACES {
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        connection.ask(&Ask::post(path, &account)).await?;
    }
    let changes = Changes::follow(&stand.endpoint, "/api/v1/pods").await?;
    let log = if options.verbose { 10 } else { 2 };
    let ours = Scheduler::start(&stand, &options.ours, "ours", log)?;
    let theirs = Scheduler::start(&stand, &options.theirs, "theirs", log)?;
    let mut run = Run {
        stand,
        connection,
        changes,
        ours,
        theirs,
        tally: Tally::default(),
        number: 0,
        verbose: options.verbose,
    };
    let mut done = 0;
    for seed in options.seed..options.seed + options.clusters {
        let mut random = Random::new(seed);
        let cluster = generate::cluster(&mut random);
        run.build(&cluster).await?;
        for i in 0..options.pods {
            let pod = generate::pod(&mut random, "probe");
            let told = run.compare(&cluster, &pod).await;
            let told = match told {
                Ok(told) => told,
                Err(error) => {
                    let home = run.stand.keep();
                    let what = format!("seed {seed}, pod {i}; logs are in {}", home.display());
                    return Err(error.context(what));
                }
            };
            if let Some(difference) = told {
                run.tally.different += 1;
                println!("DIFFERENT: seed {seed}, pod {i}: {difference}\n  {pod}");
            }
            done += 1;
            if run.tally.different >= options.stop {
                break;
            }
        }
        run.clear(&cluster).await?;
        if seed % 10 == 0 || run.tally.different >= options.stop {
            println!("{done} pods: {:?}", run.tally);
        }
        if run.tally.different >= options.stop {
            break;
        }
    }
    println!("{done} pods: {:?}", run.tally);
    if run.tally.different > 0 || options.verbose {
        let home = run.stand.keep();
        bail!(
            "{} differences; logs are in {}",
            run.tally.different,
            home.display()
        );
    }
    Ok(())
}

impl Run {
    async fn build(&mut self, cluster: &Cluster) -> Result<()> {
        let connection = &self.connection;
        try_join_all(
            cluster
                .nodes
                .iter()
                .map(async |node| connection.success(&Ask::post("/api/v1/nodes", node)).await),
        )
        .await?;
        for service in &cluster.services {
            let path = format!("/api/v1/namespaces/{}/services", namespace(service));
            connection.success(&Ask::post(path, service)).await?;
        }
        for (budget, allowed) in &cluster.budgets {
            let path = format!(
                "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
                namespace(budget)
            );
            connection
                .success(&Ask::post(path.as_str(), budget))
                .await?;
            let status = json!({
                "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
                "expectedPods": 1, "observedGeneration": 1,
            });
            let path = format!("{path}/{}", name(budget));
            connection.success(&patch_status(&path, &status)).await?;
        }
        // One after the other: they start at different times.
        for i in 0..cluster.pods.len() {
            self.start(cluster, i).await?;
        }
        tokio::time::sleep(FOLLOW).await;
        self.changes.drain();
        Ok(())
    }

    /// Creates a pod that has its node, and says since when it runs.
    async fn start(&self, cluster: &Cluster, i: usize) -> Result<()> {
        let pod = &cluster.pods[i];
        let path = format!("/api/v1/namespaces/{}/pods", namespace(pod));
        self.connection.success(&Ask::post(path, pod)).await?;
        let status = json!({
            "phase": "Running",
            "startTime": format!("2026-01-01T{:02}:{:02}:00Z", i / 60, i % 60),
        });
        let path = pod_path(namespace(pod), name(pod));
        self.connection
            .success(&patch_status(&path, &status))
            .await?;
        Ok(())
    }

    async fn clear(&mut self, cluster: &Cluster) -> Result<()> {
        let connection = &self.connection;
        for pod in &cluster.pods {
            let path = pod_path(namespace(pod), name(pod));
            connection.ask(&delete(&path)).await?;
        }
        for service in &cluster.services {
            let path = format!(
                "/api/v1/namespaces/{}/services/{}",
                namespace(service),
                name(service)
            );
            connection.success(&Ask::delete(path)).await?;
        }
        for (budget, _) in &cluster.budgets {
            let path = format!(
                "/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{}",
                namespace(budget),
                name(budget)
            );
            connection.success(&Ask::delete(path)).await?;
        }
        for node in &cluster.nodes {
            let path = format!("/api/v1/nodes/{}", name(node));
            connection.success(&Ask::delete(path)).await?;
        }
        Ok(())
    }

    /// What is different, if anything is.
    async fn compare(&mut self, cluster: &Cluster, pod: &Value) -> Result<Option<String>> {
        let ours = self.ours.name.clone();
        let theirs = self.theirs.name.clone();
        let mine = self.probe(cluster, pod, &ours).await?;
        let mut seen: Vec<Outcome> = Vec::new();
        for _ in 0..DRAWS {
            let their = self.probe(cluster, pod, &theirs).await?;
            if their == mine {
                match (&mine.nominated, &mine.message) {
                    (Some(_), _) => self.tally.preempted += 1,
                    (None, Some(_)) => self.tally.refused += 1,
                    _ if seen.is_empty() => self.tally.same += 1,
                    _ => self.tally.equal += 1,
                }
                return Ok(None);
            }
            // Only who has a choice may choose otherwise the next time.
            let chose = |o: &Outcome| o.node.is_some() && o.message == mine.message;
            let hopeful = chose(&their) && mine.node.is_some();
            seen.push(their);
            if !hopeful {
                break;
            }
        }
        let their = &seen[0];
        if let (None, Some(node), Some(_)) = (&mine.message, &mine.node, &their.node) {
            let only = confined(pod, node);
            let checked = self.probe(cluster, &only, &theirs).await?;
            // A confined pod counts other nodes: one that spreads cannot be asked so.
            let spreads = pod["spec"]["topologySpreadConstraints"].is_array();
            if spreads || checked.node.as_ref() == Some(node) {
                self.tally.otherwise += 1;
                if self.verbose {
                    let nodes: Vec<_> = seen.iter().map(|o| o.node.as_deref()).collect();
                    println!("otherwise: ours {node}, theirs {nodes:?}: {pod}");
                }
                return Ok(None);
            }
        }
        Ok(Some(format!("ours {mine:?}, theirs {seen:?}")))
    }

    /// Creates a pod, waits for what comes of it, and puts everything back.
    async fn probe(&mut self, cluster: &Cluster, pod: &Value, scheduler: &str) -> Result<Outcome> {
        self.number += 1;
        let namespace = namespace(pod).to_owned();
        let probe = format!("probe-{}", self.number);
        let mut pod = pod.clone();
        pod["metadata"]["name"] = probe.as_str().into();
        pod["spec"]["schedulerName"] = scheduler.into();
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        self.connection.success(&Ask::post(path, &pod)).await?;
        let mut outcome = Outcome::default();
        loop {
            let next = if outcome.nominated.is_some() {
                // Not every hint of theirs lets a pod go when its victims have gone.
                match tokio::time::timeout(QUIET, self.changes.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                }
            } else {
                self.changes.next().await
            };
            let (kind, object) =
                next.with_context(|| format!("{scheduler} and {probe}, after {outcome:?}"))?;
            let this = name(&object);
            if this != probe {
                if kind == "DELETED" && !this.starts_with("probe-") {
                    outcome.victims.insert(this.to_owned());
                }
                continue;
            }
            let text = |value: &Value| value.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
            outcome.node = text(&object["spec"]["nodeName"]);
            let nominated = text(&object["status"]["nominatedNodeName"]);
            if outcome.nominated.is_none() {
                outcome.nominated = nominated;
            }
            let conditions = object["status"]["conditions"].as_array();
            let refused = conditions
                .into_iter()
                .flatten()
                .find(|c| c["type"] == "PodScheduled" && c["status"] == "False");
            if let Some(condition) = refused
                && outcome.message.is_none()
            {
                outcome.message = text(&condition["message"]);
            }
            let waits = outcome.message.is_some() && outcome.nominated.is_none();
            if outcome.node.is_some() || waits {
                break;
            }
        }
        let path = pod_path(&namespace, &probe);
        self.connection.success(&delete(&path)).await?;
        if outcome.nominated.is_some() {
            // Where it ends up is up to what else there is room for by then.
            outcome.node = None;
        }
        loop {
            let (kind, object) = self.changes.next().await?;
            if kind == "DELETED" && name(&object) == probe {
                break;
            }
        }
        if !outcome.victims.is_empty() {
            let back: HashMap<&str, usize> = cluster
                .pods
                .iter()
                .enumerate()
                .map(|(i, pod)| (name(pod), i))
                .collect();
            for victim in &outcome.victims {
                if let Some(i) = back.get(victim.as_str()) {
                    self.start(cluster, *i).await?;
                }
            }
        }
        Ok(outcome)
    }
}

/// The same pod, for one node only.
fn confined(pod: &Value, node: &str) -> Value {
    let mut pod = pod.clone();
    let here = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    let required = &mut pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match required["nodeSelectorTerms"].as_array_mut() {
        Some(terms) => {
            for term in terms {
                match term["matchFields"].as_array_mut() {
                    Some(fields) => fields.push(here.clone()),
                    None => term["matchFields"] = json!([here]),
                }
            }
        }
        None => *required = json!({"nodeSelectorTerms": [{"matchFields": [here]}]}),
    }
    pod
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}
