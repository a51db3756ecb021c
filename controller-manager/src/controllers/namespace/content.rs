//! A round of deletions of everything in a namespace.

use std::time::Duration;

use client::{
    Api, Client, DeleteOptions, Error, ListOptions, PartialObject, Propagation, optional,
};
use jiff::Timestamp;
use meta::GroupVersionResource;
use serde::Deserialize;

use super::plan::{Findings, Remaining, Unexpected, estimate};
use crate::context::now;
use crate::discovery::{Resource, discover};

/// What a round has come to.
#[derive(Debug, Default)]
pub struct Round {
    pub findings: Findings,
    /// How long what is left may take; `None` if nothing is left.
    pub estimate: Option<Duration>,
}

impl Round {
    /// Why the round has to be repeated soon.
    pub fn errors(&self) -> Vec<String> {
        let discovery = self.findings.discovery_error.iter().cloned();
        discovery
            .chain(self.findings.content_errors.iter().cloned())
            .collect()
    }

    fn note(&mut self, wait: Duration) {
        self.estimate = Some(self.estimate.unwrap_or_default().max(wait));
    }
}

/// Deletes whatever can be deleted in the namespace, and tells what is left.
pub async fn delete_all(
    client: &Client,
    namespace: &str,
    deleted: Timestamp,
) -> Result<Round, Error> {
    let resources = discover(client).await?;
    let mut round = Round::default();
    round.findings.discovery_error = resources.failure();
    let deletable = |r: &&Resource| r.namespaced && r.supports("delete");
    let (pods, others): (Vec<_>, Vec<_>) = resources
        .preferred()
        .filter(deletable)
        .partition(|r| r.gvr.group.is_empty() && r.gvr.resource == "pods");
    for resource in pods {
        delete_resource(client, namespace, resource, deleted, &mut round).await;
    }
    if !round.findings.remaining.is_empty() {
        round.findings.only_pods = true;
        return Ok(round);
    }
    for resource in others {
        delete_resource(client, namespace, resource, deleted, &mut round).await;
    }
    Ok(round)
}

async fn delete_resource(
    client: &Client,
    namespace: &str,
    resource: &Resource,
    deleted: Timestamp,
    round: &mut Round,
) {
    if let Err(error) = try_delete(client, namespace, resource, deleted, round).await {
        round.findings.content_errors.push(error);
    }
}

async fn try_delete(
    client: &Client,
    namespace: &str,
    resource: &Resource,
    deleted: Timestamp,
    round: &mut Round,
) -> Result<(), String> {
    let gvr = &resource.gvr;
    let grace = if gvr.group.is_empty() && gvr.resource == "pods" {
        longest_grace(client, namespace).await.map_err(text)?
    } else {
        Duration::ZERO
    };
    let api = Api::metadata(client, gvr, true).within(namespace);
    let background = DeleteOptions::new().propagation(Propagation::Background);
    let mut listed = None;
    if resource.supports("deletecollection") {
        let result = api
            .delete_collection(&background, &ListOptions::new())
            .await;
        ignore_unsupported(result).map_err(text)?;
    } else if let Some(items) = list(&api, resource).await.map_err(text)? {
        for item in &items {
            let name = item.metadata.name.as_deref().unwrap_or_default();
            ignore_unsupported(optional(api.delete(name, &background).await)).map_err(text)?;
        }
        // Nothing was there: no need to look again.
        listed = items.is_empty().then_some(items);
    }
    let left = match listed {
        Some(left) => left,
        None => match list(&api, resource).await.map_err(text)? {
            Some(left) => left,
            None => return Ok(()),
        },
    };
    if left.is_empty() {
        return Ok(());
    }
    let mut remaining = Remaining {
        count: left.len(),
        ..Remaining::default()
    };
    for finalizer in left
        .iter()
        .flat_map(|i| i.metadata.finalizers.iter().flatten())
    {
        *remaining.finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    let wait = estimate(&remaining, grace, deleted, now());
    round.findings.add(gvr, remaining);
    match wait {
        Ok(wait) => {
            round.note(wait);
            Ok(())
        }
        Err(Unexpected) => Err(format!(
            "unexpected items still remain in namespace: {namespace} for gvr: {}",
            gvr_text(gvr)
        )),
    }
}

fn gvr_text(gvr: &GroupVersionResource) -> String {
    format!("{}/{}, Resource={}", gvr.group, gvr.version, gvr.resource)
}

fn text(e: Error) -> String {
    e.to_string()
}

fn ignore_unsupported<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(e) if !e.is_not_found() && !e.is_method_not_supported() => Err(e),
        _ => Ok(()),
    }
}

/// `None` if the resource cannot be listed.
async fn list(
    api: &Api<PartialObject>,
    resource: &Resource,
) -> Result<Option<Vec<PartialObject>>, Error> {
    if !resource.supports("list") {
        return Ok(None);
    }
    match api.list_pages(&ListOptions::new()).await {
        Ok(list) => Ok(Some(list.items)),
        Err(e) if e.is_not_found() || e.is_method_not_supported() => Ok(None),
        Err(e) => Err(e),
    }
}

/// The longest time that a pod of the namespace may take to stop.
async fn longest_grace(client: &Client, namespace: &str) -> Result<Duration, Error> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Graced {
        metadata: client::SlimMeta,
        spec: Spec,
        status: Status,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Spec {
        termination_grace_period_seconds: Option<i64>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Status {
        phase: Box<str>,
    }
    client::slim_kind!(Graced, "", "v1", "Pod", "pods", namespaced);
    let pods = Api::<Graced>::namespaced(client, namespace)
        .list_pages(&ListOptions::new())
        .await?;
    let running = pods
        .items
        .iter()
        .filter(|p| !matches!(&*p.status.phase, "Succeeded" | "Failed"));
    let longest = running
        .filter_map(|p| p.spec.termination_grace_period_seconds)
        .max();
    Ok(Duration::from_secs(
        longest.and_then(|s| u64::try_from(s).ok()).unwrap_or(0),
    ))
}
