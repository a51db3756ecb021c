//! Resource quotas: what an object costs, which quotas it falls under, and whether it fits.
//!
//! Two daemons must agree on it: the API server checks each write (`check`), the controller
//! manager recounts (`total`). An [`Evaluator`] knows one resource; one file each.
//!
//! What must not be here: where quotas and objects come from, and writing usage back.

pub mod check;
pub mod config;
mod pods;
pub mod resource_claims;
pub mod scopes;
mod services;
mod volume_claims;

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::{Quantity, quantity::Format};
use serde::Deserialize;
use serde_json::Value;

use crate::resources::{self, ResourceList};
use resource_claims::{Claim, DeviceClasses, Owners};
use scopes::{Facts, Requirement, ScopeError};

pub use pods::{Pod, lacks};
pub use services::Service;
pub use volume_claims::VolumeClaim;

/// Why an object cannot be measured.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MeasureError(String);

/// A quota, as far as checking and counting go.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Quota {
    pub metadata: Meta,
    pub spec: Spec,
    pub status: Status,
}

/// The metadata that decides what an object costs, and who it is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    /// RFC 3339 in UTC, which sorts as text.
    pub creation_timestamp: String,
    pub deletion_timestamp: Option<Timestamp>,
    pub deletion_grace_period_seconds: Option<i64>,
    pub annotations: BTreeMap<String, String>,
    pub owner_references: Vec<OwnerReference>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub hard: ResourceList,
    pub scopes: Vec<String>,
    pub scope_selector: ScopeSelector,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeSelector {
    pub match_expressions: Vec<Requirement>,
}

/// `hard` and `used` tell absent from empty: absent means that nobody has counted yet.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    pub hard: Option<ResourceList>,
    pub used: Option<ResourceList>,
}

impl Spec {
    /// Every scope that an object must be in to be counted.
    pub fn requirements(&self) -> Vec<Requirement> {
        let plain = self.scopes.iter().map(|scope| Requirement::exists(scope));
        plain
            .chain(self.scope_selector.match_expressions.iter().cloned())
            .collect()
    }
}

impl Status {
    pub fn hard(&self) -> &ResourceList {
        const NONE: &ResourceList = &ResourceList::new();
        self.hard.as_ref().unwrap_or(NONE)
    }

    pub fn used(&self) -> &ResourceList {
        const NONE: &ResourceList = &ResourceList::new();
        self.used.as_ref().unwrap_or(NONE)
    }
}

/// What an object costs, and what decides whether a quota counts it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// What it costs as long as it is charged for.
    usage: ResourceList,
    /// What is left of that afterwards.
    after: ResourceList,
    /// From then on it is not charged any more.
    until: Option<Timestamp>,
    facts: Facts,
}

impl Measured {
    fn plain(usage: ResourceList) -> Self {
        Self {
            usage,
            ..Self::default()
        }
    }

    /// The cost at a time.
    pub fn usage(&self, now: Timestamp) -> Cow<'_, ResourceList> {
        match self.until {
            Some(until) if now > until => Cow::Borrowed(&self.after),
            _ => Cow::Borrowed(&self.usage),
        }
    }

    /// Whether it is in a scope.
    pub fn is_in(&self, scope: &Requirement) -> Result<bool, ScopeError> {
        self.facts.are_in(scope)
    }

    /// Whether it is charged for in full at a time; a pod that has ended is not.
    pub fn is_charged(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now <= until)
    }

    /// Whether no quota can tell the two apart at a time.
    pub fn counts_like(&self, other: &Measured, now: Timestamp) -> bool {
        self.facts == other.facts && self.usage(now) == other.usage(now)
    }
}

/// Adds up what objects cost that are in all of the scopes. Every one of `names` is in the sum.
pub fn total<'a>(
    names: &[String],
    scopes: &[Requirement],
    objects: impl Iterator<Item = Cow<'a, Measured>>,
    now: Timestamp,
) -> ResourceList {
    let mut sum: ResourceList = names.iter().map(|n| (n.clone(), count(0))).collect();
    for object in objects {
        let mut counts = true;
        for scope in scopes {
            match object.is_in(scope) {
                Ok(is_in) => counts &= is_in,
                // No quota can have such a scope and be valid.
                Err(_) => return sum,
            }
        }
        if counts {
            resources::add(&mut sum, &object.usage(now));
        }
    }
    sum.retain(|name, _| names.contains(name));
    sum
}

fn count(n: i64) -> Quantity {
    Quantity::new(n, Format::DecimalSI)
}

/// `count/deployments.apps`
pub fn object_count(group: &str, resource: &str) -> String {
    match group {
        "" => format!("count/{resource}"),
        group => format!("count/{resource}.{group}"),
    }
}

/// Knows what objects of one resource cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluator {
    Pods,
    Services,
    VolumeClaims,
    ResourceClaims,
    /// Everything else costs one of itself, under one or two names.
    Count {
        names: Vec<String>,
    },
}

/// What must be known besides the object.
pub struct Surroundings<'a> {
    pub classes: &'a DeviceClasses,
    pub owners: &'a dyn Owners,
}

/// Resources that quotas never count.
pub fn is_ignored(group: &str, resource: &str) -> bool {
    match group {
        "" => matches!(resource, "bindings" | "componentstatuses" | "events"),
        "events.k8s.io" => resource == "events",
        "authentication.k8s.io" => matches!(resource, "tokenreviews" | "selfsubjectreviews"),
        "authorization.k8s.io" => matches!(
            resource,
            "subjectaccessreviews"
                | "selfsubjectaccessreviews"
                | "localsubjectaccessreviews"
                | "selfsubjectrulesreviews"
        ),
        _ => false,
    }
}

impl Evaluator {
    /// The evaluator of a resource.
    pub fn of(group: &str, resource: &str) -> Evaluator {
        match (group, resource) {
            ("", "pods") => Evaluator::Pods,
            ("", "services") => Evaluator::Services,
            ("", "persistentvolumeclaims") => Evaluator::VolumeClaims,
            ("resource.k8s.io", "resourceclaims") => Evaluator::ResourceClaims,
            _ => {
                let mut names = vec![object_count(group, resource)];
                let alias = [
                    "configmaps",
                    "resourcequotas",
                    "replicationcontrollers",
                    "secrets",
                ];
                if group.is_empty() && alias.contains(&resource) {
                    names.push(resource.to_owned());
                }
                Evaluator::Count { names }
            }
        }
    }

    /// Which of these names this resource is counted under.
    pub fn matching<'a>(
        &self,
        names: impl Iterator<Item = &'a String>,
        classes: &DeviceClasses,
    ) -> Vec<String> {
        let counted = |name: &&String| match self {
            Evaluator::Pods => pods::counts(name),
            Evaluator::Services => services::counts(name),
            Evaluator::VolumeClaims => volume_claims::counts(name),
            Evaluator::ResourceClaims => resource_claims::counts(name, classes),
            Evaluator::Count { names } => names.contains(name),
        };
        names.filter(counted).cloned().collect()
    }

    /// Whether scopes mean anything for objects of this resource.
    pub fn has_scopes(&self) -> bool {
        matches!(self, Evaluator::Pods | Evaluator::VolumeClaims)
    }

    /// What an object costs.
    pub fn measure(
        &self,
        object: &Value,
        around: &Surroundings<'_>,
    ) -> Result<Measured, MeasureError> {
        Ok(match self {
            Evaluator::Pods => read::<Pod>(object)?.measure(),
            Evaluator::Services => read::<Service>(object)?.measure(),
            Evaluator::VolumeClaims => read::<VolumeClaim>(object)?.measure(),
            Evaluator::ResourceClaims => {
                let claim = read::<Claim>(object)?;
                claim.measure(around)
            }
            Evaluator::Count { .. } => self.one(),
        })
    }

    /// What any object costs that is only counted.
    pub fn one(&self) -> Measured {
        match self {
            Evaluator::Count { names } => {
                Measured::plain(names.iter().map(|n| (n.clone(), count(1))).collect())
            }
            _ => Measured::default(),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(object: &Value) -> Result<T, MeasureError> {
    T::deserialize(object).map_err(|e| MeasureError(e.to_string()))
}

#[cfg(test)]
mod tests;
