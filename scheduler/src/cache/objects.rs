//! What the plugins ask of the cluster beside nodes and pods, each kind slim and by what it
//! is asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::{ObjectKey, SlimMeta, slim_kind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use meta::labels::Selector;
use serde::Deserialize;

use crate::model::Template;

type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    pub metadata: SlimMeta,
}
slim_kind!(Namespace, "", "v1", "Namespace", "namespaces", cluster);

/// A Service or ReplicationController: selects by equality.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Service {
    pub metadata: SlimMeta,
    pub spec: EqualitySpec,
}
slim_kind!(Service, "", "v1", "Service", "services", namespaced);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReplicationController {
    pub metadata: SlimMeta,
    pub spec: EqualitySpec,
}
slim_kind!(
    ReplicationController,
    "",
    "v1",
    "ReplicationController",
    "replicationcontrollers",
    namespaced
);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EqualitySpec {
    pub selector: Labels,
}

/// A workload that selects by a `LabelSelector`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReplicaSet {
    pub metadata: SlimMeta,
    pub spec: SelectorSpec,
}
slim_kind!(
    ReplicaSet,
    "apps",
    "v1",
    "ReplicaSet",
    "replicasets",
    namespaced
);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StatefulSet {
    pub metadata: SlimMeta,
    pub spec: SelectorSpec,
}
slim_kind!(
    StatefulSet,
    "apps",
    "v1",
    "StatefulSet",
    "statefulsets",
    namespaced
);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SelectorSpec {
    pub selector: Option<LabelSelector>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PodDisruptionBudget {
    pub metadata: SlimMeta,
    pub spec: SelectorSpec,
    pub status: BudgetStatus,
}
slim_kind!(
    PodDisruptionBudget,
    "policy",
    "v1",
    "PodDisruptionBudget",
    "poddisruptionbudgets",
    namespaced
);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetStatus {
    pub disruptions_allowed: i32,
    /// Names of pods whose eviction has been let through already.
    pub disrupted_pods: BTreeMap<String, serde::de::IgnoredAny>,
}

/// How many disruptions of which pods are allowed.
#[derive(Debug, Clone)]
pub struct Budget {
    pub namespace: Box<str>,
    pub selector: Selector,
    pub allowed: i32,
    pub disrupted: Vec<String>,
}

/// All budgets.
#[derive(Debug, Default)]
pub struct Budgets {
    all: HashMap<ObjectKey, Arc<Budget>>,
    changes: u64,
}

impl Budgets {
    /// `None`: there is none of this name, or it selects nothing that can be told.
    pub fn put(&mut self, key: ObjectKey, budget: Option<Budget>) {
        match budget {
            Some(budget) => self.all.insert(key, Arc::new(budget)),
            None => self.all.remove(&key),
        };
        self.changes += 1;
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.all.values()
    }

    /// How often they have changed.
    pub fn version(&self) -> u64 {
        self.changes
    }
}

impl Budget {
    pub fn new(budget: &PodDisruptionBudget) -> Option<Self> {
        Some(Self {
            namespace: budget.metadata.namespace.clone(),
            selector: Selector::from_label_selector(budget.spec.selector.as_ref()).ok()?,
            allowed: budget.status.disruptions_allowed,
            disrupted: budget.status.disrupted_pods.keys().cloned().collect(),
        })
    }
}

/// Whose pods a workload's selector selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workload {
    ReplicationController,
    ReplicaSet,
    StatefulSet,
}

impl Workload {
    fn of(owner: &crate::model::pod::Owner) -> Option<Self> {
        match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => Some(Self::ReplicationController),
            ("apps/v1", "ReplicaSet") => Some(Self::ReplicaSet),
            ("apps/v1", "StatefulSet") => Some(Self::StatefulSet),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
pub struct Objects {
    namespaces: HashMap<Box<str>, Labels>,
    /// Selectors of Services, by namespace.
    services: HashMap<Box<str>, HashMap<ObjectKey, Labels>>,
    workloads: HashMap<(Workload, ObjectKey), Selector>,
    /// How often Services and workloads of a namespace have changed.
    versions: HashMap<Box<str>, u64>,
    pub budgets: Budgets,
}

static NONE: Labels = Labels::new();

impl Objects {
    /// The labels of a namespace; none if it is not known.
    pub fn namespace(&self, name: &str) -> &Labels {
        self.namespaces.get(name).unwrap_or(&NONE)
    }

    /// Whether the labels have changed.
    pub fn put_namespace(&mut self, namespace: &Namespace) -> bool {
        let labels = &namespace.metadata.labels;
        let name = namespace.metadata.name.clone();
        self.namespaces.insert(name, labels.clone()).as_ref() != Some(labels)
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Another number whenever [`Objects::siblings`] may have another answer for pods of a
    /// namespace.
    pub fn version(&self, namespace: &str) -> u64 {
        self.versions.get(namespace).copied().unwrap_or(0)
    }

    fn touch(&mut self, namespace: &str) {
        *self.versions.entry(namespace.into()).or_default() += 1;
    }

    pub fn put_service(&mut self, key: ObjectKey, service: &Service) {
        self.touch(&service.metadata.namespace);
        let namespace = self
            .services
            .entry(service.metadata.namespace.clone())
            .or_default();
        if service.spec.selector.is_empty() {
            namespace.remove(&key);
        } else {
            namespace.insert(key, service.spec.selector.clone());
        }
    }

    pub fn remove_service(&mut self, key: &ObjectKey) {
        self.touch(key.namespace());
        if let Some(namespace) = self.services.get_mut(key.namespace()) {
            namespace.remove(key);
        }
    }

    pub fn put_workload(&mut self, workload: Workload, key: ObjectKey, selector: Selector) {
        self.touch(key.namespace());
        self.workloads.insert((workload, key), selector);
    }

    pub fn remove_workload(&mut self, workload: Workload, key: &ObjectKey) {
        self.touch(key.namespace());
        self.workloads.remove(&(workload, key.clone()));
    }

    /// Selects the pods that belong together with this one: by the Services that select it
    /// and the workload that made it. Empty when there are none.
    pub fn siblings(&self, pod: &Template) -> Selector {
        let mut equal = Labels::new();
        for selector in self.services.get(&pod.namespace).into_iter().flatten() {
            let selects = selector
                .1
                .iter()
                .all(|(k, v)| pod.labels.get(k).is_some_and(|have| have == v));
            if selects {
                equal.extend(selector.1.clone());
            }
        }
        let mut selector = Selector::from_set(&equal);
        let workload = pod.owner.as_ref().and_then(|owner| {
            let key = ObjectKey::new(&pod.namespace, &owner.name);
            self.workloads.get(&(Workload::of(owner)?, key))
        });
        for requirement in workload.into_iter().flat_map(Selector::requirements) {
            selector = selector.and(requirement.clone());
        }
        selector
    }
}
