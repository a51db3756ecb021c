//! Which nodes get daemon pods and which pods go: pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::kinds::{Node, Pod};
use crate::workload::int_or_percent::{Round, scaled};
use crate::workload::node_fit;
use crate::workload::revisions::hash_label;

/// No more pods are created, or deleted, in one sync.
const BURST_REPLICAS: usize = 250;
/// The annotation that counts a DaemonSet's templates, and the label of pods that says which.
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
pub const GENERATION_LABEL: &str = "pod-template-generation";

/// Daemons run where others would not.
const TOLERATIONS: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";

/// Adds what every daemon pod tolerates.
pub fn add_tolerations(spec: &mut PodSpec) {
    let host_network = spec.host_network == Some(true);
    let network = host_network.then_some((NETWORK_UNAVAILABLE, "NoSchedule"));
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATIONS.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same = |t: &&mut Toleration| {
            t.key == toleration.key
                && t.effect == toleration.effect
                && t.operator == toleration.operator
                && t.value == toleration.value
        };
        match tolerations.iter_mut().find(same) {
            Some(found) => *found = toleration,
            None => tolerations.push(toleration),
        }
    }
}

/// The number of the DaemonSet's template, if it carries one.
pub fn template_generation(ds: &DaemonSet) -> Option<&str> {
    let annotation = ds
        .metadata
        .annotations
        .as_ref()?
        .get(GENERATION_ANNOTATION)?;
    annotation.parse::<i64>().ok().map(|_| annotation.as_str())
}

/// Failed daemon pods come back after a growing delay, by node: those of one DaemonSet, as long as
/// it is not changed.
#[derive(Debug, Default)]
pub struct FailedPods {
    /// UID and observed generation.
    of: (String, i64),
    delays: HashMap<String, (SignedDuration, Timestamp)>,
}

impl FailedPods {
    const INITIAL: SignedDuration = SignedDuration::from_secs(1);
    const MAX: SignedDuration = SignedDuration::from_secs(15 * 60);

    /// Forgets what does not count any more.
    fn begin(&mut self, ds: &DaemonSet, now: Timestamp) {
        let status = ds.status.as_ref();
        let generation = status.and_then(|s| s.observed_generation).unwrap_or(0);
        let uid = ds.metadata.uid.as_deref().unwrap_or_default();
        if (self.of.0.as_str(), self.of.1) != (uid, generation) {
            *self = Self {
                of: (uid.to_owned(), generation),
                delays: HashMap::new(),
            };
        }
        self.delays
            .retain(|_, (_, at)| now.duration_since(*at) < Self::MAX * 2);
    }

    /// How long a failed pod on this node must still stay; `None` lets it go, and lets the next
    /// one stay longer.
    fn wait(&mut self, node: &str, now: Timestamp) -> Option<SignedDuration> {
        let known = self.delays.get(node).copied();
        if let Some((delay, at)) = known {
            let left = delay - now.duration_since(at);
            if left.is_positive() {
                return Some(left);
            }
        }
        let delay = known.map_or(Self::INITIAL, |(delay, _)| (delay * 2).min(Self::MAX));
        self.delays.insert(node.to_owned(), (delay, now));
        None
    }
}

/// What is known of a DaemonSet.
pub struct Observed<'a> {
    pub ds: &'a DaemonSet,
    pub spec: &'a DaemonSetSpec,
    pub nodes: &'a [Arc<Node>],
    /// By the node they are on or bound for; those that have ended and are being deleted left out.
    pub pods: BTreeMap<String, Vec<Arc<Pod>>>,
    /// Of the current template's revision.
    pub hash: &'a str,
    pub now: Timestamp,
    pod_spec: PodSpec,
}

/// An event about the DaemonSet: whether a warning, reason, message.
pub type Event = (bool, &'static str, String);

/// Pods to make and to delete.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// Names of nodes.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    pub events: Vec<Event>,
    pub again_after: Option<Duration>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }

    fn limited(mut self) -> Self {
        self.create.truncate(BURST_REPLICAS);
        self.delete.truncate(BURST_REPLICAS);
        self
    }
}

impl<'a> Observed<'a> {
    pub fn new(
        ds: &'a DaemonSet,
        spec: &'a DaemonSetSpec,
        nodes: &'a [Arc<Node>],
        pods: impl IntoIterator<Item = Arc<Pod>>,
        hash: &'a str,
        now: Timestamp,
    ) -> Self {
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in pods {
            if pod.is_terminal() && pod.is_deleting() {
                continue;
            }
            if let Some(node) = pod.target_node() {
                by_node.entry(node.to_owned()).or_default().push(pod);
            }
        }
        by_node.values_mut().for_each(|pods| pods.sort_by_key(age));
        let mut pod_spec = spec.template.spec.clone().unwrap_or_default();
        add_tolerations(&mut pod_spec);
        Self {
            ds,
            spec,
            nodes,
            pods: by_node,
            hash,
            now,
            pod_spec,
        }
    }

    /// Whether a daemon pod should run on the node, and whether one that is there may stay.
    pub fn fits(&self, node: &Node) -> (bool, bool) {
        fits(&self.pod_spec, node)
    }

    fn available(&self, pod: &Pod) -> bool {
        pod.is_available(self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        let labels = &pod.metadata.labels;
        let hash = !self.hash.is_empty() && hash_label(Some(labels)) == self.hash;
        let generation = template_generation(self.ds);
        hash || (generation.is_some()
            && labels.get(GENERATION_LABEL).map(String::as_str) == generation)
    }

    fn desired(&self) -> i32 {
        self.nodes.iter().filter(|n| self.fits(n).0).count() as i32
    }
}

/// As [`Observed::fits`], for a template's pod spec with [`add_tolerations`].
pub fn fits(pod_spec: &PodSpec, node: &Node) -> (bool, bool) {
    let pinned = pod_spec.node_name.as_deref().filter(|n| !n.is_empty());
    let elsewhere = pinned.is_some_and(|n| n != &*node.metadata.name);
    if elsewhere || !node_fit::selects(pod_spec, node) {
        return (false, false);
    }
    let tolerations = pod_spec.tolerations.as_deref().unwrap_or_default();
    let tolerates = |effects: &[&str]| {
        let mut taints = node
            .spec
            .taints
            .iter()
            .filter(|t| effects.contains(&&*t.effect));
        taints.all(|t| node_fit::tolerated(tolerations, t))
    };
    let stays = tolerates(&["NoExecute"]);
    (stays && tolerates(&["NoSchedule"]), stays)
}

/// Assigned before unassigned, then the oldest first.
fn age(
    pod: &Arc<Pod>,
) -> (
    bool,
    Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    Box<str>,
) {
    let meta = &pod.metadata;
    (
        pod.spec.node_name.is_empty(),
        meta.creation_timestamp.clone(),
        meta.name.clone(),
    )
}

fn rolling(spec: &DaemonSetSpec) -> Option<&k8s_openapi::api::apps::v1::RollingUpdateDaemonSet> {
    let strategy = spec.update_strategy.as_ref()?;
    let is_rolling = strategy
        .type_
        .as_deref()
        .is_none_or(|t| t == "RollingUpdate");
    strategy.rolling_update.as_ref().filter(|_| is_rolling)
}

fn surge(spec: &DaemonSetSpec, total: i32) -> i32 {
    let value = rolling(spec).and_then(|r| r.max_surge.as_ref());
    value.and_then(|v| scaled(v, total, Round::Up)).unwrap_or(0)
}

fn unavailable(spec: &DaemonSetSpec, total: i32) -> i32 {
    let value = rolling(spec).map(|r| r.max_unavailable.clone().unwrap_or(IntOrString::Int(1)));
    value
        .and_then(|v| scaled(&v, total, Round::Up))
        .unwrap_or(0)
}

/// Whether pods are replaced by the controller rather than when somebody deletes them.
pub fn rolls(spec: &DaemonSetSpec) -> bool {
    let kind = spec
        .update_strategy
        .as_ref()
        .and_then(|s| s.type_.as_deref());
    kind.is_none_or(|t| t == "RollingUpdate")
}

/// One pod on each node that should have one, none elsewhere; failed ones go.
pub fn manage(observed: &Observed, failed: &mut FailedPods) -> Changes {
    failed.begin(observed.ds, observed.now);
    let mut changes = Changes::default();
    for node in observed.nodes {
        let name = &*node.metadata.name;
        let (should_run, may_stay) = observed.fits(node);
        match observed.pods.get(name) {
            None if should_run => changes.create.push(name.to_owned()),
            None => {}
            Some(pods) if may_stay => {
                keep_one(observed, name, should_run, pods, failed, &mut changes)
            }
            Some(pods) => changes
                .delete
                .extend(pods.iter().filter(|p| !p.is_deleting()).cloned()),
        }
    }
    // Bound for a node that does not exist any more: the scheduler would try for ever.
    for (name, pods) in &observed.pods {
        if !observed.nodes.iter().any(|n| *n.metadata.name == **name) {
            changes
                .delete
                .extend(pods.iter().filter(|p| p.spec.node_name.is_empty()).cloned());
        }
    }
    changes.limited()
}

fn keep_one(
    observed: &Observed,
    node: &str,
    should_run: bool,
    pods: &[Arc<Pod>],
    failed: &mut FailedPods,
    changes: &mut Changes,
) {
    let mut running = Vec::new();
    for pod in pods.iter().filter(|p| !p.is_deleting()) {
        let full = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
        match &*pod.status.phase {
            "Failed" => {
                if let Some(wait) = failed.wait(node, observed.now) {
                    let wait = Duration::try_from(wait).unwrap_or_default();
                    changes.again_after = Some(changes.again_after.map_or(wait, |w| w.min(wait)));
                    continue;
                }
                let message =
                    format!("Found failed daemon pod {full} on node {node}, will try to kill it");
                changes.events.push((true, "FailedDaemonPod", message));
                changes.delete.push(Arc::clone(pod));
            }
            "Succeeded" => {
                let message = format!(
                    "Found succeeded daemon pod {full} on node {node}, will try to delete it"
                );
                changes.events.push((false, "SucceededDaemonPod", message));
                changes.delete.push(Arc::clone(pod));
            }
            _ => running.push(pod),
        }
    }
    if surge(observed.spec, 1) == 0 {
        changes.delete.extend(running.into_iter().skip(1).cloned());
        return;
    }
    if running.is_empty() && should_run {
        changes.create.push(node.to_owned());
    }
    if running.len() <= 1 {
        return;
    }
    // While surging one old and one new may run; the old one goes as soon as it is of no use.
    let (mut new, mut old) = (None, None);
    for pod in running {
        let slot = if hash_label(Some(&pod.metadata.labels)) == observed.hash {
            &mut new
        } else {
            &mut old
        };
        match slot {
            None => *slot = Some(pod),
            Some(_) => changes.delete.push(Arc::clone(pod)),
        }
    }
    if let (Some(new), Some(old)) = (new, old)
        && (!old.is_ready() || observed.available(new))
    {
        changes.delete.push(Arc::clone(old));
    }
}

/// One step of replacing pods of earlier templates.
pub fn roll(observed: &Observed) -> Changes {
    let desired = observed.desired();
    let mut max_unavailable = unavailable(observed.spec, desired);
    let max_surge = surge(observed.spec, desired);
    if desired > 0 && max_unavailable == 0 && max_surge == 0 {
        max_unavailable = 1;
    }
    let changes = if max_surge == 0 {
        roll_in_place(observed, max_unavailable)
    } else {
        roll_with_surge(observed, max_surge, desired)
    };
    changes.limited()
}

/// The new and the old pod on a node.
type NewAndOld<'p> = (Option<&'p Arc<Pod>>, Option<&'p Arc<Pod>>);

/// `Err` if there are more than one of a sort.
fn new_and_old<'p>(observed: &Observed, pods: &'p [Arc<Pod>]) -> Result<NewAndOld<'p>, ()> {
    let (mut new, mut old) = (None, None);
    for pod in pods.iter().filter(|p| !p.is_deleting()) {
        let slot = if observed.is_updated(pod) {
            &mut new
        } else {
            &mut old
        };
        if slot.replace(pod).is_some() {
            return Err(());
        }
    }
    Ok((new, old))
}

fn nodes_and_pods<'o>(observed: &'o Observed) -> BTreeMap<&'o str, &'o [Arc<Pod>]> {
    let wanted = observed.nodes.iter().filter(|n| observed.fits(n).0);
    let mut all: BTreeMap<&str, &[Arc<Pod>]> = wanted
        .map(|n| (&*n.metadata.name, &[] as &[Arc<Pod>]))
        .collect();
    all.extend(
        observed
            .pods
            .iter()
            .map(|(n, p)| (n.as_str(), p.as_slice())),
    );
    all
}

fn roll_in_place(observed: &Observed, max_unavailable: i32) -> Changes {
    let mut missing = 0;
    let (mut useless, mut candidates) = (Vec::new(), Vec::new());
    for pods in nodes_and_pods(observed).values() {
        match new_and_old(observed, pods) {
            Err(()) | Ok((None, None) | (Some(_), Some(_))) => missing += 1,
            Ok((Some(new), None)) => missing += i32::from(!observed.available(new)),
            Ok((None, Some(old))) if !observed.available(old) => {
                useless.push(Arc::clone(old));
                missing += 1;
            }
            Ok((None, Some(old))) => candidates.push(Arc::clone(old)),
        }
    }
    let room = usize::try_from(max_unavailable - missing).unwrap_or(0);
    candidates.truncate(room);
    useless.append(&mut candidates);
    Changes {
        delete: useless,
        ..Changes::default()
    }
}

fn roll_with_surge(observed: &Observed, max_surge: i32, desired: i32) -> Changes {
    let (mut surging, mut available) = (0, 0);
    let mut changes = Changes::default();
    let (mut candidates, mut unwanted) = (Vec::new(), Vec::new());
    let should_run = |name: &str| {
        observed
            .nodes
            .iter()
            .any(|n| &*n.metadata.name == name && observed.fits(n).0)
    };
    for (node, pods) in nodes_and_pods(observed) {
        let Ok((new, old)) = new_and_old(observed, pods) else {
            surging += 1;
            continue;
        };
        available += i32::from(old.or(new).is_some_and(|p| observed.available(p)));
        match (new, old) {
            (_, None) => {}
            (Some(new), Some(old)) => {
                if observed.available(new) {
                    changes.delete.push(Arc::clone(old));
                } else {
                    surging += 1;
                }
            }
            (None, Some(old)) if !observed.available(old) => {
                if should_run(node) {
                    changes.create.push(node.to_owned());
                } else {
                    changes.delete.push(Arc::clone(old));
                }
            }
            (None, Some(old)) if !should_run(node) => unwanted.push(Arc::clone(old)),
            (None, Some(_)) => candidates.push(node.to_owned()),
        }
    }
    let spare = usize::try_from(available - desired).unwrap_or(0);
    changes.delete.extend(unwanted.into_iter().take(spare));
    let room = usize::try_from(max_surge - surging).unwrap_or(0);
    changes.create.extend(candidates.into_iter().take(room));
    changes
}

/// The status from nodes and pods.
pub fn status(observed: &Observed, observe_generation: bool) -> DaemonSetStatus {
    let old = observed.ds.status.clone().unwrap_or_default();
    let mut s = DaemonSetStatus {
        collision_count: old.collision_count,
        conditions: old.conditions,
        observed_generation: if observe_generation {
            observed.ds.metadata.generation.filter(|g| *g != 0)
        } else {
            old.observed_generation
        },
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for node in observed.nodes {
        let pod = observed
            .pods
            .get(&*node.metadata.name)
            .and_then(|p| p.first());
        match (observed.fits(node).0, pod) {
            (true, pod) => {
                s.desired_number_scheduled += 1;
                let Some(pod) = pod else { continue };
                s.current_number_scheduled += 1;
                s.number_ready += i32::from(pod.is_ready());
                available += i32::from(observed.available(pod));
                updated += i32::from(observed.is_updated(pod));
            }
            (false, Some(_)) => s.number_misscheduled += 1,
            (false, None) => {}
        }
    }
    let nonzero = |n: i32| Some(n).filter(|n| *n != 0);
    s.number_available = nonzero(available);
    s.updated_number_scheduled = nonzero(updated);
    s.number_unavailable = nonzero(s.desired_number_scheduled - available);
    s
}
