//! Whether a write fits the quotas of its namespace, and what it leaves of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use meta::Quantity;

use super::config::LimitedResource;
use super::resource_claims::DeviceClasses;
use super::scopes::Requirement;
use super::{Evaluator, Measured, Quota};
use crate::resources::{self, ResourceList};

/// A write, measured.
#[derive(Debug, Clone)]
pub struct Request {
    pub group: String,
    pub resource: String,
    pub evaluator: Evaluator,
    pub change: Change,
    /// Status is a report: it is counted, but not refused.
    pub is_status: bool,
    pub new: Measured,
    /// What containers of a pod do not say ([`super::lacks`]).
    pub lacks: BTreeMap<String, BTreeSet<String>>,
    pub classes: DeviceClasses,
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Create,
    /// From what it was before.
    Update(Box<Measured>),
}

/// Why a write is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 403 with this reason.
    #[error("{0}")]
    Forbidden(String),
    /// An error that has no reason of its own.
    #[error("{0}")]
    Failed(String),
}

fn forbidden<T>(why: String) -> Result<T, Refusal> {
    Err(Refusal::Forbidden(why))
}

/// A quota that counts the object.
struct Covering<'a> {
    index: usize,
    quota: &'a Quota,
    delta: ResourceList,
}

/// Checks a write against all quotas of its namespace. Returns each quota's usage once the write
/// is done; `None` where it does not change.
pub fn check(
    quotas: &[Quota],
    request: &Request,
    limited: &[LimitedResource],
) -> Result<Vec<Option<ResourceList>>, Refusal> {
    let evaluator = &request.evaluator;
    let unchanged = || quotas.iter().map(|_| None).collect();
    let Ok(limited_scopes) = in_scopes(request, limited.iter().flat_map(|l| &l.match_scopes))
    else {
        return Ok(unchanged());
    };
    let usage = request.new.usage(request.now);
    let limited_names = limited_by_default(request, &usage, limited);

    let mut restricted = BTreeSet::new();
    let mut covered_scopes = Vec::new();
    let mut covering = Vec::new();
    for (index, quota) in quotas.iter().enumerate() {
        let name = &quota.metadata.name;
        let scopes = quota.spec.requirements();
        let matched = in_scopes(request, scopes.iter()).map_err(|why| {
            Refusal::Failed(format!("error matching scopes of quota {name}, err: {why}"))
        })?;
        let all_match = matched.len() == scopes.len();
        covered_scopes.extend(matched);
        let names = evaluator.matching(quota.status.hard().keys(), &request.classes);
        if names.is_empty() || !all_match {
            continue;
        }
        if let Some(why) = missing(request, &names) {
            return forbidden(format!("failed quota: {name}: {why}"));
        }
        let uncounted = |n: &String| !quota.status.used().contains_key(n);
        if names.iter().any(uncounted) {
            let names = sorted(names).join(",");
            return forbidden(format!(
                "status unknown for quota: {name}, resources: {names}"
            ));
        }
        restricted.extend(names);
        covering.push(Covering {
            index,
            quota,
            delta: usage.clone().into_owned(),
        });
    }

    let negative: Vec<String> = usage
        .iter()
        .filter(|(_, q)| q.is_negative())
        .map(|(name, _)| name.clone())
        .collect();
    if !negative.is_empty() {
        let negative = sorted(negative).join(",");
        return forbidden(format!(
            "quota usage is negative for resource(s): {negative}"
        ));
    }

    let mut uncovered_delta = usage.clone().into_owned();
    if let Change::Update(old) = &request.change {
        let delta = growth(&usage, &old.usage(request.now));
        for quota in &mut covering {
            // What the quota did not count before it has to take in whole.
            if matches(old, quota.quota)? {
                quota.delta = delta.clone();
            }
        }
        uncovered_delta = delta;
    }
    let covered = !covering.is_empty();
    covering.retain_mut(|quota| {
        quota.delta.retain(|_, q| !q.is_zero());
        !quota.delta.is_empty()
    });
    let nothing = match covered {
        true => covering.is_empty(),
        false => uncovered_delta.values().all(Quantity::is_zero),
    };
    if nothing {
        return Ok(unchanged());
    }

    let missing_quota: Vec<&str> = limited_names
        .iter()
        .filter(|name| !restricted.contains(*name))
        .map(String::as_str)
        .collect();
    if !missing_quota.is_empty() {
        let names = missing_quota.join(",");
        return forbidden(format!("insufficient quota to consume: {names}"));
    }
    let missing_scopes: Vec<String> = limited_scopes
        .iter()
        .filter(|scope| {
            let mut covered = covered_scopes.iter();
            !covered.any(|c| c.scope_name == scope.scope_name)
        })
        .map(ToString::to_string)
        .collect();
    if !missing_scopes.is_empty() {
        let scopes = missing_scopes.join(" ");
        let why = format!("insufficient quota to match these scopes: [{scopes}]");
        return Err(Refusal::Failed(why));
    }
    charge(quotas, covering, request.is_status)
}

/// Adds the deltas up, as far as they fit.
fn charge(
    quotas: &[Quota],
    covering: Vec<Covering<'_>>,
    is_status: bool,
) -> Result<Vec<Option<ResourceList>>, Refusal> {
    let mut charged: Vec<Option<ResourceList>> = quotas.iter().map(|_| None).collect();
    for Covering {
        index,
        quota,
        mut delta,
    } in covering
    {
        let (hard, used) = (quota.status.hard(), quota.status.used());
        delta.retain(|name, _| hard.contains_key(name));
        let mut after = used.clone();
        resources::add(&mut after, &delta);
        let exceeded: Vec<&String> = delta
            .keys()
            .filter(|name| after.get(*name) > hard.get(*name))
            .collect();
        if !is_status && !exceeded.is_empty() {
            return forbidden(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.metadata.name,
                show(&delta, &exceeded),
                show(used, &exceeded),
                show(hard, &exceeded),
            ));
        }
        if after != *used {
            charged[index] = Some(after);
        }
    }
    Ok(charged)
}

fn show(list: &ResourceList, names: &[&String]) -> String {
    let shown: Vec<String> = list
        .iter()
        .filter(|(name, _)| names.contains(name))
        .map(|(name, quantity)| format!("{name}={quantity}"))
        .collect();
    shown.join(",")
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

/// What an update adds; never less than nothing, for only a recount gives back.
fn growth(new: &ResourceList, old: &ResourceList) -> ResourceList {
    let mut growth = new.clone();
    for (name, quantity) in &mut growth {
        if let Some(old) = old.get(name) {
            quantity.sub(old);
        }
    }
    growth.retain(|_, quantity| quantity.sign() > 0);
    growth
}

/// Which of the scopes the new object is in; none for kinds without scopes.
fn in_scopes<'a>(
    request: &Request,
    scopes: impl Iterator<Item = &'a Requirement>,
) -> Result<Vec<Requirement>, String> {
    let mut matched = Vec::new();
    for scope in scopes {
        let is_in = request.new.is_in(scope);
        if is_in.map_err(|e| format!("error on matching scope {scope}: {e}"))? {
            matched.push(scope.clone());
        }
    }
    Ok(matched)
}

/// Whether the quota counted the object as it was, names aside.
fn matches(object: &Measured, quota: &Quota) -> Result<bool, Refusal> {
    for scope in quota.spec.requirements() {
        if !object
            .is_in(&scope)
            .map_err(|e| Refusal::Failed(e.to_string()))?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the pod's containers must say because a quota counts it, and do not.
fn missing(request: &Request, names: &[String]) -> Option<String> {
    let lacking: Vec<String> = request
        .lacks
        .iter()
        .filter(|(name, _)| names.contains(name))
        .map(|(name, containers)| {
            let containers: Vec<&str> = containers.iter().map(String::as_str).collect();
            format!("{name} for: {}", containers.join(","))
        })
        .collect();
    (!lacking.is_empty()).then(|| format!("must specify {}", lacking.join("; ")))
}

/// What the object uses that only a covering quota allows.
fn limited_by_default(
    request: &Request,
    usage: &ResourceList,
    limited: &[LimitedResource],
) -> BTreeSet<String> {
    let own = limited
        .iter()
        .filter(|l| l.api_group == request.group && l.resource == request.resource);
    own.flat_map(|limited| {
        let used = usage.iter().filter(|(_, quantity)| quantity.sign() > 0);
        used.filter(|(name, _)| {
            limited
                .match_contains
                .iter()
                .any(|part| name.contains(part))
        })
        .map(|(name, _)| name.clone())
    })
    .collect()
}
