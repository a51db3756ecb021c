//! The same comparison for claims of devices: random drivers, classes and claims, each shown
//! to two schedulers one after the other. Both must give the same devices on the same node,
//! or refuse in the same words. Of nodes that are as good any is drawn: theirs is then asked
//! for ours.

mod stories;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::objects::{delete, flags, pod_path};
use super::random::Random;
use super::scheduler::Scheduler;
use super::watch::Changes;
use crate::stand::http::{Ask, MERGE};
use crate::stand::{Connection, Stand};

/// Compares how the schedulers of two directories of binaries give devices to claims.
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
    #[arg(long, default_value_t = 20)]
    pub clusters: u64,
    /// Leave out the stories.
    #[arg(long)]
    pub no_stories: bool,
    /// Random pods for each.
    #[arg(long, default_value_t = 15)]
    pub pods: usize,
    /// The first cluster's seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Stop at so many differences.
    #[arg(long, default_value_t = 10)]
    pub stop: usize,
    /// Have schedulers log all they think, and keep the logs.
    #[arg(long)]
    pub verbose: bool,
}

const NAMESPACE: &str = "devices";
const API: &str = "/apis/resource.k8s.io/v1";
const DRIVERS: [&str; 2] = ["one.example.com", "two.example.com"];
const EXTENDED: &str = "example.com/device";
/// Schedulers have heard of nodes and slices by then; claims come before pods anyway.
const FOLLOW: Duration = Duration::from_millis(400);

/// What drivers and nodes there are.
struct World {
    nodes: Vec<Value>,
    classes: Vec<Value>,
    slices: Vec<Value>,
    /// Claims that have their devices before, and pods that hold them.
    residents: Vec<Probe>,
}

/// A pod and its claims.
struct Probe {
    pod: Value,
    claims: Vec<Value>,
}

/// What came of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
struct Outcome {
    node: Option<String>,
    /// Why it waits, and the reason of the condition.
    refused: Option<(String, String)>,
    /// What its claims have got.
    allocations: Vec<Value>,
    /// `status.extendedResourceClaimStatus`
    extended: Value,
}

fn device(random: &mut Random, name: &str) -> Value {
    let mut attributes = Map::new();
    let mut add = |name: &str, value: Value| {
        attributes.insert(name.to_owned(), value);
    };
    add("model", json!({"string": *random.pick(&["a", "b", "c"])}));
    add("size", json!({"int": random.between(0, 4)}));
    if random.percent(60) {
        add("ready", json!({"bool": random.percent(70)}));
    }
    if random.percent(60) {
        let version = *random.pick(&["1.0.0", "1.2.0", "2.0.0-rc.1"]);
        add("firmware", json!({"version": version}));
    }
    add(
        "shared.example.com/root",
        json!({"string": *random.pick(&["x", "y"])}),
    );
    let mut device = json!({"name": name, "attributes": attributes});
    if random.percent(70) {
        let mut memory = json!({"value": format!("{}Gi", random.between(1, 4) * 10)});
        if random.percent(25) {
            device["allowMultipleAllocations"] = true.into();
            if random.percent(60) {
                memory["requestPolicy"] = json!({
                    "default": "2Gi", "validRange": {"min": "2Gi", "step": "3Gi", "max": "8Gi"},
                });
            }
        }
        device["capacity"] = json!({"memory": memory});
    }
    if random.percent(20) {
        let effect = *random.pick(&["NoSchedule", "NoExecute"]);
        device["taints"] =
            json!([{"key": "k", "value": *random.pick(&["v", "w"]), "effect": effect}]);
    }
    device
}

fn devices(random: &mut Random, prefix: &str) -> Vec<Value> {
    let count = random.between(0, 4);
    (0..count)
        .map(|i| device(random, &format!("{prefix}{i}")))
        .collect()
}

fn slice(name: &str, driver: &str, pool: &Value, more: Value, devices: Vec<Value>) -> Value {
    let mut spec = json!({"driver": driver, "pool": pool, "devices": devices});
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
        "metadata": {"name": name}, "spec": spec,
    })
}

fn pool(name: &str, count: usize) -> Value {
    json!({"name": name, "generation": 1, "resourceSliceCount": count})
}

/// Devices that are parts of one.
fn partitions(random: &mut Random, driver: &str, node: &str) -> [Value; 2] {
    let name = format!("{node}-parts");
    let pool = pool(&name, 2);
    let here = json!({"nodeName": node});
    let mut counters = here.clone();
    counters["sharedCounters"] = json!([
        {"name": "whole", "counters": {"memory": {"value": "40Gi"}, "slots": {"value": "4"}}},
    ]);
    let count = random.between(1, 4);
    let parts = (0..count).map(|i| {
        let mut part = device(random, &format!("part{i}"));
        let size = random.between(1, 3);
        part["consumesCounters"] = json!([{"counterSet": "whole", "counters": {
            "memory": {"value": format!("{}Gi", size * 10)}, "slots": {"value": size.to_string()},
        }}]);
        part
    });
    let parts = parts.collect();
    let mut first = slice(
        &format!("{name}-counters"),
        driver,
        &pool,
        counters,
        Vec::new(),
    );
    if let Some(spec) = first["spec"].as_object_mut() {
        spec.remove("devices");
    }
    [
        first,
        slice(&format!("{name}-devices"), driver, &pool, here, parts),
    ]
}

fn world(random: &mut Random) -> World {
    let mut world = World {
        nodes: Vec::new(),
        classes: Vec::new(),
        slices: Vec::new(),
        residents: Vec::new(),
    };
    let class = |name: &str, spec: Value| {
        json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
            "metadata": {"name": name}, "spec": spec,
        })
    };
    let selects = |expression: &str| json!([{"cel": {"expression": expression}}]);
    let config = json!([{"opaque": {"driver": DRIVERS[0], "parameters": {"of": "class"}}}]);
    world.classes.push(class("any", json!({})));
    world.classes.push(class(
        "one",
        json!({
            "selectors": selects("device.driver == 'one.example.com'"),
            "extendedResourceName": EXTENDED, "config": config,
        }),
    ));
    world.classes.push(class(
        "large",
        json!({
            "selectors": selects("device.attributes[device.driver].size >= 2"),
        }),
    ));
    let nodes = random.between(1, 3);
    for n in 0..nodes {
        let name = format!("node-{n}");
        let mut allocatable = json!({"cpu": "64", "memory": "64Gi", "pods": "110"});
        if random.percent(20) {
            allocatable[EXTENDED] = "1".into();
        }
        world.nodes.push(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"name": name, "zone": if n % 2 == 0 { "a" } else { "b" }}},
            "status": {"allocatable": allocatable, "capacity": allocatable},
        }));
        for driver in DRIVERS {
            if random.percent(25) {
                continue;
            }
            let short = &driver[..3];
            let devices = devices(random, "dev-");
            let here = json!({"nodeName": name});
            // Some pools are not all there.
            let count = if random.percent(8) { 2 } else { 1 };
            let pool = pool(&name, count);
            let name = format!("{name}-{short}");
            world
                .slices
                .push(slice(&name, driver, &pool, here, devices));
        }
        if random.percent(30) {
            world.slices.extend(partitions(random, DRIVERS[0], &name));
        }
    }
    if random.percent(40) {
        let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
        let reach = json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [zone]}]}});
        let devices = devices(random, "net-");
        world.slices.push(slice(
            "zone-a",
            DRIVERS[1],
            &pool("zone-a", 1),
            reach,
            devices,
        ));
    }
    if random.percent(30) {
        let devices = devices(random, "far-");
        let all = json!({"allNodes": true});
        world.slices.push(slice(
            "anywhere",
            DRIVERS[1],
            &pool("anywhere", 1),
            all,
            devices,
        ));
    }
    let residents = random.between(0, 2);
    for i in 0..residents {
        let mut resident = probe(random, false);
        let node = format!("node-{}", random.below(nodes));
        resident.rename(&format!("resident-{i}"));
        resident.confine(&node);
        world.residents.push(resident);
    }
    world
}

const EXPRESSIONS: [&str; 8] = [
    "device.attributes[device.driver].model == 'a'",
    "device.attributes[device.driver].size in [1, 2, 3]",
    "has(device.attributes[device.driver].ready) && device.attributes[device.driver].ready",
    "device.attributes['shared.example.com'].root == 'x'",
    "device.attributes[device.driver].?firmware.orValue(semver('0.1.0')).isGreaterThan(semver('1.1.0'))",
    "'memory' in device.capacity[device.driver] && device.capacity[device.driver].memory.compareTo(quantity('20Gi')) >= 0",
    "cel.bind(a, device.attributes[device.driver], a.size > 0 || a.model.matches('^[bc]$'))",
    "!device.allowMultipleAllocations || device.attributes[device.driver].size % 2 == 0",
];

/// Those that fail for some devices.
const FAILING: [&str; 2] = [
    "device.attributes[device.driver].ready",
    "device.capacity[device.driver].memory.isLessThan(quantity('25Gi'))",
];

fn request(random: &mut Random, alternative: bool) -> Value {
    let class = *random.pick(&["any", "any", "one", "large"]);
    let mut request = json!({"deviceClassName": class});
    if random.percent(15) {
        request["allocationMode"] = "All".into();
    } else if random.percent(30) {
        request["count"] = random.between(1, 3).into();
    }
    let mut selectors = Vec::new();
    while random.percent(35) {
        let expression = match random.percent(8) {
            true => *random.pick(&FAILING),
            false => *random.pick(&EXPRESSIONS),
        };
        selectors.push(json!({"cel": {"expression": expression}}));
    }
    if !selectors.is_empty() {
        request["selectors"] = selectors.into();
    }
    if random.percent(40) {
        request["tolerations"] = match random.percent(50) {
            true => json!([{"operator": "Exists"}]),
            false => json!([{"key": "k", "operator": "Equal", "value": "v"}]),
        };
    }
    if random.percent(12) {
        let memory = format!("{}Gi", random.between(1, 25));
        request["capacity"] = json!({"requests": {"memory": memory}});
    }
    if !alternative && random.percent(8) {
        request["adminAccess"] = true.into();
    }
    request
}

fn claim(random: &mut Random) -> Value {
    let count = random.between(1, 2);
    let requests: Vec<Value> = (0..count)
        .map(|i| {
            let name = format!("r{i}");
            if random.percent(25) {
                let count = random.between(1, 3);
                let alternatives = (0..count).map(|j| {
                    let mut request = request(random, true);
                    request["name"] = format!("s{j}").into();
                    request
                });
                let alternatives: Vec<Value> = alternatives.collect();
                json!({"name": name, "firstAvailable": alternatives})
            } else {
                json!({"name": name, "exactly": request(random, false)})
            }
        })
        .collect();
    let mut devices = json!({"requests": requests});
    if random.percent(30) {
        let attribute = *random.pick(&["shared.example.com/root", "one.example.com/model"]);
        let kind = *random.pick(&["matchAttribute", "matchAttribute", "distinctAttribute"]);
        let mut constraint = json!({kind: attribute});
        if random.percent(40) {
            constraint["requests"] = json!(["r0"]);
        }
        devices["constraints"] = json!([constraint]);
    }
    if random.percent(30) {
        let mut config = json!({"opaque": {"driver": DRIVERS[1], "parameters": {"of": "claim"}}});
        if random.percent(50) {
            config["requests"] = json!(["r0"]);
        }
        devices["config"] = json!([config]);
    }
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": "", "namespace": NAMESPACE}, "spec": {"devices": devices},
    })
}

fn probe(random: &mut Random, extended: bool) -> Probe {
    let count = random.between(1, 2);
    let mut containers = vec![json!({"name": "c", "image": "i"})];
    let claims = if extended {
        containers.push(json!({"name": "d", "image": "i"}));
        for container in &mut containers {
            let amount = random.between(0, 2).to_string();
            let amounts = json!({EXTENDED: amount});
            container["resources"] = json!({"requests": amounts, "limits": amounts});
        }
        Vec::new()
    } else {
        (0..count).map(|_| claim(random)).collect()
    };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "", "namespace": NAMESPACE}, "spec": {"containers": containers},
    });
    Probe { pod, claims }
}

impl Probe {
    /// Names the pod, and its claims after it.
    fn rename(&mut self, name: &str) {
        self.pod["metadata"]["name"] = name.into();
        let mut uses = Vec::new();
        for (i, claim) in self.claims.iter_mut().enumerate() {
            let claim_name = format!("{name}-{i}");
            uses.push(json!({"name": format!("c{i}"), "resourceClaimName": claim_name}));
            claim["metadata"]["name"] = claim_name.into();
        }
        if !uses.is_empty() {
            self.pod["spec"]["resourceClaims"] = uses.into();
        }
    }

    fn confine(&mut self, node: &str) {
        let here = json!({"key": "metadata.name", "operator": "In", "values": [node]});
        self.pod["spec"]["affinity"] = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [here]}],
            },
        }});
    }
}

struct Run {
    stand: Stand,
    connection: Connection,
    changes: Changes,
    number: usize,
    /// Where parts were given otherwise.
    parts: usize,
}

/// Runs it and prints what was seen.
///
/// # Errors
///
/// When the stand does not come up, or the schedulers differ.
pub async fn run(options: Options) -> Result<()> {
    let api = options.api.as_ref().unwrap_or(&options.theirs);
    let stand = Stand::start(api, 1, &["--unsafe-no-fsync"], &flags()).await?;
    let connection = stand.endpoint.connect().await?;
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"resource.kubernetes.io/admin-access": "true"}},
    });
    let ask = Ask::post("/api/v1/namespaces", &namespace);
    connection.success(&ask).await?;
    let changes = Changes::follow(&stand.endpoint, "/api/v1/pods").await?;
    let log = if options.verbose { 7 } else { 2 };
    let _ours = Scheduler::start(&stand, &options.ours, "ours", log)?;
    let _theirs = Scheduler::start(&stand, &options.theirs, "theirs", log)?;
    let mut run = Run {
        stand,
        connection,
        changes,
        number: 0,
        parts: 0,
    };
    let (mut placed, mut refused, mut failed, mut different) = (0, 0, 0, 0);
    if !options.no_stories {
        different += run.stories().await?;
    }
    'all: for seed in options.seed..options.seed + options.clusters {
        let mut random = Random::new(seed);
        let world = world(&mut random);
        run.build(&world).await?;
        for i in 0..options.pods {
            let extended = random.percent(12);
            let mut probe = probe(&mut random, extended);
            let told = run.compare(&mut probe, world.nodes.len()).await;
            let (outcome, difference) = match told {
                Ok(told) => told,
                Err(error) => {
                    let home = run.stand.keep();
                    let what = format!("seed {seed}, pod {i}; logs are in {}", home.display());
                    return Err(error.context(what));
                }
            };
            match (&outcome.node, &outcome.refused) {
                (Some(_), _) => placed += 1,
                (_, Some((reason, _))) if reason == "SchedulerError" => failed += 1,
                _ => refused += 1,
            }
            if let Some(difference) = difference {
                different += 1;
                println!("DIFFERENT: seed {seed}, pod {i}: {difference}");
                probe
                    .claims
                    .iter()
                    .for_each(|claim| println!("  {}", claim["spec"]));
                println!("  {}", probe.pod["spec"]);
            }
            if different >= options.stop {
                break 'all;
            }
        }
        run.clear(&world).await?;
    }
    println!("{placed} placed, {refused} refused, {failed} failed; {different} differently");
    println!("parts of devices given otherwise: {}", run.parts);
    if different > 0 || options.verbose {
        let home = run.stand.keep();
        bail!("{different} differences; logs are in {}", home.display());
    }
    Ok(())
}

fn claim_path(name: &str) -> String {
    format!("{API}/namespaces/{NAMESPACE}/resourceclaims/{name}")
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|s| !s.is_empty()).map(str::to_owned)
}

/// What of an allocation both must agree about.
fn agreed(allocation: &Value) -> Value {
    let mut allocation = allocation.clone();
    if let Some(fields) = allocation.as_object_mut() {
        fields.remove("allocationTimestamp");
    }
    let results = allocation["devices"]["results"].as_array_mut();
    for result in results.into_iter().flatten() {
        if !result["shareID"].is_null() {
            result["shareID"] = "DRAWN".into();
        }
    }
    allocation
}

/// Whether parts of a device are given. Theirs forgets to give counters back of a part that
/// it tried and did not take (for its taints, or a constraint), and finds too few of them
/// from then on.
fn has_parts(outcome: &Outcome) -> bool {
    outcome.allocations.iter().any(|allocation| {
        let results = allocation["devices"]["results"].as_array();
        let mut names = results.into_iter().flatten().map(|r| text(&r["device"]));
        names.any(|name| name.is_some_and(|name| name.starts_with("part")))
    })
}

impl Outcome {
    /// What a pod says.
    fn see(&mut self, pod: &Value) {
        self.node = text(&pod["spec"]["nodeName"]);
        self.extended = pod["status"]["extendedResourceClaimStatus"].clone();
        let conditions = pod["status"]["conditions"].as_array();
        let refused = conditions
            .into_iter()
            .flatten()
            .find(|c| c["type"] == "PodScheduled" && c["status"] == "False");
        if let Some(condition) = refused {
            let of = |field: &str| text(&condition[field]).unwrap_or_default();
            self.refused = Some((of("reason"), of("message")));
        }
    }
}

impl Run {
    /// Plays all stories before both; how many end differently.
    async fn stories(&mut self) -> Result<usize> {
        let nodes = (0..2).map(|n| {
            let name = format!("node-{n}");
            let room = json!({"cpu": "64", "memory": "64Gi", "pods": "110"});
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": {"name": name}},
                "status": {"allocatable": room, "capacity": room},
            })
        });
        let world = World {
            nodes: nodes.collect(),
            classes: Vec::new(),
            slices: Vec::new(),
            residents: Vec::new(),
        };
        self.build(&world).await?;
        let mut different = 0;
        for (which, story) in stories::ALL.iter().enumerate() {
            let ours = stories::play(self, "ours", which).await?;
            let theirs = stories::play(self, "theirs", which).await?;
            if ours == theirs {
                println!("same: {story}");
                continue;
            }
            different += 1;
            println!("DIFFERENT: {story}");
            ours.iter().for_each(|line| println!("  ours   {line}"));
            theirs.iter().for_each(|line| println!("  theirs {line}"));
        }
        self.clear(&world).await?;
        Ok(different)
    }

    async fn build(&mut self, world: &World) -> Result<()> {
        let connection = &self.connection;
        let nodes = world
            .nodes
            .iter()
            .map(|node| ("/api/v1/nodes".to_owned(), node));
        let classes = world.classes.iter();
        let classes = classes.map(|class| (format!("{API}/deviceclasses"), class));
        let slices = world.slices.iter();
        let slices = slices.map(|slice| (format!("{API}/resourceslices"), slice));
        for (path, object) in nodes.chain(classes).chain(slices) {
            let ask = Ask::post(path, object);
            let made = connection.success(&ask).await;
            made.with_context(|| object.to_string())?;
        }
        tokio::time::sleep(FOLLOW).await;
        self.changes.drain();
        for resident in &world.residents {
            let name = resident.pod["metadata"]["name"]
                .as_str()
                .unwrap_or_default();
            self.show(resident, name, "theirs").await?;
        }
        Ok(())
    }

    async fn clear(&mut self, world: &World) -> Result<()> {
        for resident in &world.residents {
            self.remove(resident).await?;
        }
        let all = [
            ("/api/v1/nodes".to_owned(), &world.nodes),
            (format!("{API}/deviceclasses"), &world.classes),
            (format!("{API}/resourceslices"), &world.slices),
        ];
        for (path, objects) in all {
            for object in objects {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let ask = Ask::delete(format!("{path}/{name}"));
                self.connection.success(&ask).await?;
            }
        }
        tokio::time::sleep(FOLLOW).await;
        Ok(())
    }

    /// What ours does, and what is different, if anything is.
    async fn compare(
        &mut self,
        probe: &mut Probe,
        nodes: usize,
    ) -> Result<(Outcome, Option<String>)> {
        let mine = self.probe(probe, "ours").await?;
        let mut their = self.probe(probe, "theirs").await?;
        if let (Some(node), Some(_)) = (&mine.node, &their.node)
            && mine != their
        {
            let mut same = Probe {
                pod: probe.pod.clone(),
                claims: probe.claims.clone(),
            };
            same.confine(node);
            their = self.probe(&mut same, "theirs").await?;
        }
        // Of several nodes where it fails, any may be the first.
        let failed = |outcome: &Outcome| {
            let refused = outcome.refused.as_ref();
            refused.is_some_and(|(reason, _)| reason == "SchedulerError")
        };
        let alike = mine == their
            || (nodes > 1 && failed(&mine) && failed(&their))
            || (has_parts(&mine)
                && their
                    .refused
                    .as_ref()
                    .is_none_or(|r| r.0 == "Unschedulable"));
        if mine != their && has_parts(&mine) {
            self.parts += 1;
        }
        let difference = (!alike).then(|| format!("ours {mine:?}, theirs {their:?}"));
        Ok((mine, difference))
    }

    async fn probe(&mut self, probe: &mut Probe, scheduler: &str) -> Result<Outcome> {
        self.number += 1;
        let name = format!("probe-{}", self.number);
        probe.rename(&name);
        let mut outcome = self.show(probe, &name, scheduler).await?;
        let unname = |text: &str| text.replace(&name, "probe");
        if let Some((_, message)) = &mut outcome.refused {
            *message = unname(message);
        }
        self.remove(probe).await?;
        Ok(outcome)
    }

    /// Creates a pod and its claims, and waits for what comes of them.
    async fn show(&mut self, probe: &Probe, name: &str, scheduler: &str) -> Result<Outcome> {
        for claim in &probe.claims {
            let path = format!("{API}/namespaces/{NAMESPACE}/resourceclaims");
            let made = self.connection.success(&Ask::post(path, claim)).await;
            made.with_context(|| claim.to_string())?;
        }
        let mut pod = probe.pod.clone();
        pod["spec"]["schedulerName"] = scheduler.into();
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        self.connection.success(&Ask::post(path, &pod)).await?;
        let mut outcome = Outcome::default();
        loop {
            let next = self.changes.next().await;
            let (_, object) = next.with_context(|| format!("{scheduler}: {pod}"))?;
            if object["metadata"]["name"] != name {
                continue;
            }
            outcome.see(&object);
            if outcome.node.is_some() || outcome.refused.is_some() {
                break;
            }
        }
        let mut claims: Vec<String> = Vec::new();
        for claim in &probe.claims {
            claims.extend(text(&claim["metadata"]["name"]));
        }
        claims.extend(text(&outcome.extended["resourceClaimName"]));
        for claim in claims {
            let claim = self.connection.json(&Ask::get(claim_path(&claim))).await?;
            outcome
                .allocations
                .push(agreed(&claim["status"]["allocation"]));
        }
        if !outcome.extended.is_null() {
            outcome.extended["resourceClaimName"] = "MADE".into();
        }
        Ok(outcome)
    }

    /// Puts everything back.
    async fn remove(&mut self, probe: &Probe) -> Result<()> {
        let pod = probe.pod["metadata"]["name"].as_str().unwrap_or_default();
        self.connection
            .success(&delete(&pod_path(NAMESPACE, pod)))
            .await?;
        let path = format!("{API}/namespaces/{NAMESPACE}/resourceclaims");
        let claims = self.connection.json(&Ask::get(path)).await?;
        let claims = claims["items"].as_array().cloned().unwrap_or_default();
        for claim in claims {
            let name = text(&claim["metadata"]["name"]).unwrap_or_default();
            if !name.starts_with(&format!("{pod}-")) {
                continue;
            }
            let path = claim_path(&name);
            let nothing = json!({"status": {"allocation": null, "reservedFor": null}});
            let status = format!("{path}/status");
            let patch = |path: String, body: &Value| {
                Ask::send(http::Method::PATCH, path, MERGE, body.to_string())
            };
            self.connection.success(&patch(status, &nothing)).await?;
            let free = json!({"metadata": {"finalizers": null}});
            self.connection.success(&patch(path.clone(), &free)).await?;
            self.connection.success(&delete(&path)).await?;
        }
        Ok(())
    }
}
