//! What a scenario came to: objects and events as lines that can be compared, each of which
//! says what it is about.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::mirror::Mirror;
use super::names::Names;

/// What was seen at one point of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight {
    pub label: String,
    pub lines: BTreeSet<String>,
}

/// What was seen in all of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    pub sights: Vec<Sight>,
    /// Waits that were in vain.
    pub vain: Vec<String>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scrutiny {
    /// Objects with who manages their fields, and events.
    All,
    /// Objects alone: a manager that was killed may tell an event twice or never, and owns
    /// fields by other requests.
    Objects,
}

/// Taken from when a manager, which may have died since, saw the pods and Services before.
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What of an object says nothing about it.
const PASSED_OVER: [&str; 5] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "selfLink",
];

/// What there is now.
pub fn see(mirror: &Mirror, scope: &str, label: &str, scrutiny: Scrutiny) -> Sight {
    let names = Names::of(scope, &mirror.known(scope));
    let mut objects: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for (kind, object) in mirror.all(scope) {
        if is_noise(kind, &object) {
            continue;
        }
        let mut copy = object.as_ref().clone();
        conceal(kind, &mut copy);
        let mut copy = names.value(&copy);
        let title = match copy["metadata"]["namespace"].as_str() {
            Some("NS") | None => format!("{kind}/{}", words(&copy["metadata"]["name"])),
            Some(other) => format!("{kind}/{other}/{}", words(&copy["metadata"]["name"])),
        };
        let mut lines = Vec::new();
        if scrutiny == Scrutiny::All {
            managers(
                &names.value(&object["metadata"]["managedFields"]),
                &mut lines,
            );
        }
        if let Some(fields) = copy["metadata"].as_object_mut() {
            fields.retain(|field, _| !PASSED_OVER.contains(&field.as_str()));
        }
        flatten(&copy, String::new(), &mut lines);
        if scrutiny == Scrutiny::Objects {
            lines.retain(|line| !line.contains(LAST_CHANGE));
        }
        lines.sort();
        objects.entry(title).or_default().push(lines);
    }
    let mut sight = Sight {
        label: label.to_owned(),
        ..Sight::default()
    };
    for (title, mut same) in objects {
        same.sort();
        for (i, lines) in same.into_iter().enumerate() {
            let title = if i == 0 {
                title.clone()
            } else {
                format!("{title}({})", i + 1)
            };
            sight
                .lines
                .extend(lines.iter().map(|line| format!("{title} {line}")));
        }
    }
    if scrutiny == Scrutiny::All {
        sight.lines.extend(told(mirror, scope, &names));
    } else {
        // No more pods than without faults: none was made twice. Those of a rollout are more or
        // fewer, as it goes.
        let bounded = |owner: &str| owner.starts_with("Job/") || owner.starts_with("StatefulSet/");
        let peaks = mirror.peaks(scope).into_iter();
        let peaks = peaks.filter(|(owner, _)| bounded(owner));
        let most =
            peaks.map(|(owner, most)| format!("{} had pods at once: {most}", names.text(&owner)));
        sight.lines.extend(most);
    }
    sight
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What every namespace has, and what belongs to the stand.
fn is_noise(kind: &str, object: &Value) -> bool {
    let name = words(&object["metadata"]["name"]);
    kind == "ConfigMap" && name == "kube-root-ca.crt"
}

/// Values that the API server draws.
fn conceal(kind: &str, object: &mut Value) {
    if kind == "Service" {
        let spec = &mut object["spec"];
        if spec["clusterIP"]
            .as_str()
            .is_some_and(|ip| ip.contains('.'))
        {
            spec["clusterIP"] = "DRAWN".into();
            spec["clusterIPs"] = "DRAWN".into();
        }
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            if port.get("nodePort").is_some() {
                port["nodePort"] = "DRAWN".into();
            }
        }
    }
    if kind == "Secret" && object["type"] == "kubernetes.io/service-account-token" {
        for (_, value) in object["data"].as_object_mut().into_iter().flatten() {
            *value = "DRAWN".into();
        }
    }
    if kind == "ReplicaSet" && !object["metadata"]["ownerReferences"].is_null() {
        object["metadata"]["generation"] = "STEPS".into();
        object["status"]["observedGeneration"] = "STEPS".into();
    }
    if kind == "Pod"
        && let Some(volumes) = object["spec"]["volumes"].as_array_mut()
    {
        // Those of a StatefulSet's claims come in any order.
        volumes.sort_by(|a, b| words(&a["name"]).cmp(words(&b["name"])));
    }
    if kind == "EndpointSlice" {
        object["metadata"]["generation"] = "STEPS".into();
    }
    if kind == "CertificateSigningRequest" {
        // Of the administrator, whose certificate is each stand's own.
        object["spec"]["extra"] = Value::Null;
    }
    if kind == "ClusterTrustBundle" {
        object["spec"]["trustBundle"] = "DRAWN".into();
    }
    if kind == "HorizontalPodAutoscaler" {
        let conditions = object["status"]["conditions"].as_array_mut();
        for condition in conditions.into_iter().flatten() {
            condition["message"] = names_in_order(words(&condition["message"])).into();
        }
    }
    if let Some(certificate) = object.pointer_mut("/status/certificate") {
        *certificate = "DRAWN".into();
    }
    if let Some(request) = object.pointer_mut("/spec/request") {
        *request = "DRAWN".into();
    }
}

/// Autoscalers of the same pods are named in any order.
fn names_in_order(message: &str) -> String {
    let listed = message.split_once("multiple HPAs: [");
    let Some((before, names)) = listed.and_then(|(b, n)| Some((b, n.strip_suffix(']')?))) else {
        return message.to_owned();
    };
    let mut names: Vec<&str> = names.split(' ').collect();
    names.sort_unstable();
    format!("{before}multiple HPAs: [{}]", names.join(" "))
}

/// Who manages what.
fn managers(entries: &Value, lines: &mut Vec<String>) {
    for entry in entries.as_array().into_iter().flatten() {
        let of = |field: &str| words(&entry[field]).to_owned();
        let who = format!(
            "{} {} {}",
            of("manager"),
            of("operation"),
            of("subresource")
        );
        let mut fields = Vec::new();
        flatten(&entry["fieldsV1"], String::new(), &mut fields);
        lines.extend(fields.iter().map(|f| format!("managed by {who}: {f}")));
    }
}

/// One line for each value at the leaves.
fn flatten(value: &Value, path: String, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            // References may bear the revision of what they refer to.
            let fields = fields
                .iter()
                .filter(|(field, _)| *field != "resourceVersion");
            for (field, value) in fields {
                flatten(value, format!("{path}.{field}"), lines);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                flatten(item, format!("{path}[{i}]"), lines);
            }
        }
        leaf => lines.push(format!("{path} = {leaf}")),
    }
}

/// For each object and who speaks of it what was told, in the order of its reasons. Trouble is
/// told as often as it is met, and counts once. What is told in a row for one reason has no
/// order: pods are made and deleted at the same time.
fn told(mirror: &Mirror, scope: &str, names: &Names) -> BTreeSet<String> {
    let mut by_object: BTreeMap<(String, String, String), Vec<Told>> = BTreeMap::new();
    for event in mirror.events(scope) {
        let of = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or("");
        let title = names.text(&format!(
            "{}/{}",
            of("/involvedObject/kind"),
            of("/involvedObject/name")
        ));
        let who = match of("/source/component") {
            "" => of("/reportingComponent"),
            component => component,
        };
        let uid = of("/involvedObject/uid").to_owned();
        let told = Told {
            reason: format!("{} {}", of("/type"), of("/reason")),
            message: message(of("/reason"), &names.message(of("/message"))),
        };
        let trouble = of("/type") != "Normal";
        let all = by_object.entry((title, who.to_owned(), uid)).or_default();
        // Who looks at an old copy misses a job that he has just deleted himself.
        let deleted = |job: &str| {
            let told = format!("Deleted job {job}");
            all.iter().any(|before| before.message == told)
        };
        let missing = told.message.strip_prefix("Active job went missing: ");
        if missing.is_some_and(deleted) {
            continue;
        }
        if !(trouble && all.contains(&told)) {
            all.push(told);
        }
    }
    // Objects of the same words may come in any order.
    let mut all: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for ((title, who, _), told) in by_object {
        // A DaemonSet goes on with a node as soon as its pod is ready: in no order at all.
        let steps = |told: &Told| title.starts_with("DaemonSet/") && told.is_step();
        let runs = told.chunk_by(|a, b| a.reason == b.reason || steps(a) && steps(b));
        let lines = runs.flat_map(|run| {
            let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
            for told in run {
                let key = (told.reason.as_str(), told.message.as_str());
                *counts.entry(key).or_default() += 1;
            }
            let counted = counts.into_iter().map(|((reason, message), count)| {
                let often = match count {
                    1 => String::new(),
                    // How many steps there are depends on who is faster.
                    _ if message.contains("replica set") => String::new(),
                    count => format!(" ({count} times)"),
                };
                format!("{reason}: {message}{often}")
            });
            counted.collect::<Vec<_>>()
        });
        let lines = lines.collect();
        all.entry(format!("{title} told by {who}"))
            .or_default()
            .push(lines);
    }
    let mut told = BTreeSet::new();
    for (title, mut same) in all {
        same.sort();
        for (i, lines) in same.iter().enumerate() {
            for (n, line) in lines.iter().enumerate() {
                told.insert(format!("event of {title}({}) {:02}: {line}", i + 1, n + 1));
            }
        }
    }
    told
}

#[derive(PartialEq, Eq)]
struct Told {
    reason: String,
    message: String,
}

impl Told {
    fn is_step(&self) -> bool {
        self.reason == "Normal SuccessfulCreate" || self.reason == "Normal SuccessfulDelete"
    }
}

/// Through which sizes a ReplicaSet goes depends on who is faster.
fn message(reason: &str, message: &str) -> String {
    match (reason, message.split_once(" from ")) {
        ("ScalingReplicaSet", Some((what, _))) => what.to_owned(),
        _ => names_in_order(message),
    }
}

/// What a line is about.
fn title(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// Lines of objects that only one side has, put as one each.
fn whole(
    has: &BTreeSet<String>,
    lacks: &BTreeSet<String>,
    lines: Vec<(&'static str, &String)>,
) -> Vec<(&'static str, String)> {
    let titles: BTreeSet<&str> = lacks.iter().map(|line| title(line)).collect();
    let mut put = Vec::new();
    for (sign, line) in lines {
        let title = title(line);
        if titles.contains(title) || !title.contains('/') {
            put.push((sign, line.clone()));
        } else if !put
            .iter()
            .any(|(_, had)| had.starts_with(&format!("{title}:")))
        {
            let of = has.iter().filter(|line| self::title(line) == title);
            let status = of.filter(|line| line.contains(" .status.phase"));
            let status = status.map(|line| &line[title.len()..]);
            let status: String = status.collect();
            put.push((sign, format!("{title}: the whole object{status}")));
        }
    }
    put
}

impl Outcome {
    /// What this has and the other does not, and the reverse, in words.
    pub fn differences(&self, ours: &Self) -> Vec<String> {
        let mut all = Vec::new();
        for (theirs, ours) in self.sights.iter().zip(&ours.sights) {
            let gone = theirs.lines.difference(&ours.lines).map(|l| ("-", l));
            let come = ours.lines.difference(&theirs.lines).map(|l| ("+", l));
            let (gone, come) = (
                whole(&theirs.lines, &ours.lines, gone.collect()),
                whole(&ours.lines, &theirs.lines, come.collect()),
            );
            let mut lines: Vec<_> = gone.into_iter().chain(come).collect();
            lines.sort_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
            if !lines.is_empty() {
                all.push(format!("  {}:", theirs.label));
                all.extend(
                    lines
                        .iter()
                        .map(|(sign, line)| format!("    {sign} {line}")),
                );
            }
        }
        if self.sights.len() != ours.sights.len() {
            let (theirs, ours) = (self.sights.len(), ours.sights.len());
            all.push(format!("  sights: {theirs} of theirs, {ours} of ours"));
        }
        // Both may be refused, or wait for what does not come.
        if self.vain != ours.vain {
            for (sign, side) in [("-", self), ("+", ours)] {
                let vain = side.vain.iter();
                all.extend(vain.map(|vain| format!("    {sign} in vain: {vain}")));
            }
        }
        all
    }
}
