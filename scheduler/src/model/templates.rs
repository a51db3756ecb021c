//! The kinds of pods that there are: whether a pod is of one that is known.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use client::ObjectKey;

use super::pod::{claims, concerns_scheduling, effective, image_volumes};
use super::{Pod, PodInfo, PodSpec, Template};

/// What a pod must have in common with a kind's first to be of its kind, beside what the
/// [`Template`] keeps anyway.
#[derive(Debug)]
pub struct Likeness {
    spec: PodSpec,
    volumes: bool,
    images: Vec<String>,
}

impl Likeness {
    pub fn of(pod: &Pod, spec: &PodSpec) -> Self {
        Self {
            spec: PodSpec {
                node_name: String::new(),
                scheduling_gates: Vec::new(),
                volumes: Vec::new(),
                ..spec.clone()
            },
            volumes: pod.spec.volumes.iter().any(concerns_scheduling),
            images: image_volumes(&pod.spec).map(str::to_owned).collect(),
        }
    }
}

/// Whether specs are alike in all that a kind has in common.
fn alike(a: &PodSpec, b: &PodSpec) -> bool {
    let PodSpec {
        node_name: _,
        scheduling_gates: _,
        volumes: _,
        scheduler_name,
        priority,
        preemption_policy,
        containers,
        init_containers,
        overhead,
        resources,
        node_selector,
        affinity,
        tolerations,
        topology_spread_constraints,
        host_network,
        host_users,
        resource_claims,
        scheduling_group,
    } = a;
    // What differs most often comes first.
    *affinity == b.affinity
        && *containers == b.containers
        && *priority == b.priority
        && *node_selector == b.node_selector
        && *topology_spread_constraints == b.topology_spread_constraints
        && *tolerations == b.tolerations
        && *scheduler_name == b.scheduler_name
        && *preemption_policy == b.preemption_policy
        && *init_containers == b.init_containers
        && *overhead == b.overhead
        && *resources == b.resources
        && *host_network == b.host_network
        && *host_users == b.host_users
        && *resource_claims == b.resource_claims
        && *scheduling_group == b.scheduling_group
}

impl Template {
    /// Whether the pod is of this kind, as far as can be told without writing it out.
    fn is_of(&self, pod: &Pod, spec: &PodSpec) -> bool {
        let owner = (pod.metadata.owner_references.iter()).find(|o| o.controller == Some(true));
        let same_owner = match (&self.owner, owner) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                a.name == b.name && a.kind == b.kind && a.api_version == b.api_version
            }
            _ => false,
        };
        same_owner
            && self.namespace == pod.metadata.namespace
            && self.labels == pod.metadata.labels
            && alike(&self.likeness.spec, spec)
            && self.likeness.volumes == pod.spec.volumes.iter().any(concerns_scheduling)
            && image_volumes(&pod.spec).eq(self.likeness.images.iter().map(String::as_str))
    }
}

/// How many kinds are tried before a pod is written out to look its kind up: pods come by
/// the workload, and a few workloads come at a time; the zone that a pod has come to is one
/// of its labels.
const RECENT: usize = 16;

/// The kinds of pods that there are.
#[derive(Debug, Default)]
pub struct Templates {
    /// Whether pods are members of groups (the feature GenericWorkload).
    groups: bool,
    known: HashMap<Box<[u8]>, Weak<Template>>,
    /// Those that pods were of lately.
    recent: VecDeque<Arc<Template>>,
    /// How many there may be before those that nobody has any more are dropped.
    limit: usize,
    next: u32,
}

impl Templates {
    /// `groups` is whether pods are members of groups.
    pub fn new(groups: bool) -> Self {
        Self {
            groups,
            ..Self::default()
        }
    }

    /// A pod that nothing is known of.
    pub fn pod(&mut self, pod: &Pod) -> Arc<PodInfo> {
        self.version(pod, None)
    }

    /// A version of a pod; `before` is the one that came before, if there was one.
    pub fn version(&mut self, pod: &Pod, before: Option<&PodInfo>) -> Arc<PodInfo> {
        Arc::new(PodInfo {
            key: before.map_or_else(
                || ObjectKey::new(&pod.metadata.namespace, &pod.metadata.name),
                |before| before.key.clone(),
            ),
            uid: pod.metadata.uid.clone(),
            version: pod.metadata.resource_version.parse().unwrap_or(0),
            template: self.template(pod, before.map(|before| &before.template)),
            node_name: pod.spec.node_name.as_str().into(),
            nominated: pod.status.nominated_node_name.as_str().into(),
            gates: pod
                .spec
                .scheduling_gates
                .iter()
                .map(|gate| gate.name.clone())
                .collect(),
            volumes: pod
                .spec
                .volumes
                .iter()
                .filter(|v| concerns_scheduling(v))
                .cloned()
                .collect(),
            claims: claims(pod),
            terminal: matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            generation: pod.metadata.generation,
            start_time: pod.status.start_time.as_ref().map(|t| t.0),
            conditions: pod.status.conditions.clone(),
        })
    }

    fn template(&mut self, pod: &Pod, before: Option<&Arc<Template>>) -> Arc<Template> {
        let spec = effective(pod);
        let mut likely = before.into_iter().chain(&self.recent);
        if let Some(known) = likely.find(|template| template.is_of(pod, &spec)) {
            return Arc::clone(known);
        }
        let template = self.look_up(pod, &spec);
        if self.recent.len() == RECENT {
            self.recent.pop_back();
        }
        self.recent.push_front(Arc::clone(&template));
        template
    }

    /// The kind that a pod is of, by what it is when it is written out.
    fn look_up(&mut self, pod: &Pod, spec: &PodSpec) -> Arc<Template> {
        let owner = (pod.metadata.owner_references.iter()).find(|o| o.controller == Some(true));
        let owner = owner.map(|o| (&o.api_version, &o.kind, &o.name));
        let volumes = pod.spec.volumes.iter().any(concerns_scheduling);
        let images: Vec<&str> = image_volumes(&pod.spec).collect();
        let key = serde_json::to_vec(&(
            &pod.metadata.namespace,
            &pod.metadata.labels,
            owner,
            volumes,
            images,
            spec,
        ))
        .unwrap_or_default();
        if let Some(known) = self.known.get(&*key).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() > self.limit {
            self.known.retain(|_, template| template.strong_count() > 0);
            self.limit = (2 * self.known.len()).max(1024);
        }
        self.next += 1;
        let template = Arc::new(Template::new(self.next, pod, spec, self.groups));
        self.known.insert(key.into(), Arc::downgrade(&template));
        template
    }
}
