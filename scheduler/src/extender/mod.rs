//! Extenders: programs that have a say in scheduling, asked over HTTP with JSON
//! ([`wire`]). They filter and score what the plugins have left, say who has to leave for a
//! pod, and may bind in the scheduler's stead.

mod config;
mod objects;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use client::config::Config;
use client::{Client, Request};
use component::flags::GoDuration;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::config::ExtenderConfiguration;
pub use self::objects::{Nodes, Pods, whole_pod};
pub use self::wire::MetaVictims;
use self::wire::{Args, Bound, Filtered, HostScore, MetaPod, Preempted, PreemptionArgs, Victims};
use crate::framework::{MAX_SCORE, Rejection};
use crate::model::PodInfo;
use crate::plugins::default_preemption::Offer;

/// Scores of extenders are 0 to this.
const MAX_EXTENDER_SCORE: i64 = 10;
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ExtenderError {
    #[error("extender {url}: {source}")]
    Request {
        url: String,
        #[source]
        source: client::Error,
    },
    #[error("extender {url}: {message}")]
    Answer { url: String, message: String },
}

/// An extender that can be asked.
pub struct Extender {
    config: ExtenderConfiguration,
    client: Client,
}

impl Extender {
    pub fn new(config: &ExtenderConfiguration) -> anyhow::Result<Self> {
        let mut connection = Config::new(config.url_prefix.trim_end_matches('/'));
        let tls = config.tls_config.clone().unwrap_or_default();
        connection.certificate_authority = tls.authority();
        connection.client_certificate = tls.identity();
        // Without an authority there is nothing to check the server against.
        connection.insecure_skip_tls_verify =
            tls.insecure || connection.certificate_authority.is_none();
        connection.tls_server_name = Some(tls.server_name).filter(|n| !n.is_empty());
        let timeout = config.http_timeout.filter(|t| !t.is_zero());
        connection.timeout = Some(timeout.map_or(TIMEOUT, GoDuration::get));
        Ok(Self {
            config: config.clone(),
            client: Client::new(connection.user_agent("kube-scheduler"))?,
        })
    }

    /// Whether it wants to be asked about the pod.
    pub fn is_interested(&self, pod: &PodInfo) -> bool {
        let managed = &self.config.managed_resources;
        managed.is_empty()
            || managed.iter().any(|resource| {
                let scalars = pod.requests.scalars.iter();
                scalars.clone().any(|(name, _)| **name == *resource.name)
            })
    }

    pub fn is_ignorable(&self) -> bool {
        self.config.ignorable
    }

    pub fn filters(&self) -> bool {
        !self.config.filter_verb.is_empty()
    }

    pub fn prioritizes(&self) -> bool {
        !self.config.prioritize_verb.is_empty()
    }

    pub fn binds(&self) -> bool {
        !self.config.bind_verb.is_empty()
    }

    pub fn preempts(&self) -> bool {
        !self.config.preempt_verb.is_empty()
    }

    /// Whether it has to be shown whole nodes and pods, not only their names.
    pub fn wants_objects(&self) -> bool {
        !self.config.node_cache_capable
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        verb: &str,
        args: &impl Serialize,
    ) -> Result<T, ExtenderError> {
        let body = serde_json::to_vec(args).map_err(|e| self.wrong(e.to_string()))?;
        let request = Request::new(http::Method::POST, format!("/{verb}"))
            .body("application/json", Bytes::from(body));
        let answer = self.client.fetch(&request).await;
        let (_, bytes) = answer.map_err(|source| ExtenderError::Request {
            url: self.config.url_prefix.clone(),
            source,
        })?;
        wire::decode(&bytes).map_err(|e| self.wrong(e.to_string()))
    }

    /// That its answer makes no sense, or is an error.
    pub fn wrong(&self, message: String) -> ExtenderError {
        ExtenderError::Answer {
            url: self.config.url_prefix.clone(),
            message,
        }
    }

    fn args<'a>(&self, pod: &'a Value, nodes: &'a Nodes) -> Args<'a> {
        let cached = self.config.node_cache_capable;
        Args {
            pod,
            nodes: (!cached).then(|| nodes.list()),
            node_names: cached.then(|| nodes.names.iter().map(String::as_str).collect()),
        }
    }

    /// Which nodes are left, and why the others are not.
    pub async fn filter(
        &self,
        pod: &Value,
        nodes: &mut Nodes,
    ) -> Result<Vec<(Box<str>, Rejection)>, ExtenderError> {
        let args = self.args(pod, nodes);
        let answer: Filtered = self.ask(&self.config.filter_verb, &args).await?;
        if !answer.error.is_empty() {
            return Err(self.wrong(answer.error));
        }
        let named = answer.node_names.filter(|_| self.config.node_cache_capable);
        let left: Vec<String> = named.unwrap_or_else(|| {
            let items = answer.nodes.as_ref().and_then(|n| n["items"].as_array());
            let names = items.into_iter().flatten();
            names
                .filter_map(|node| node["metadata"]["name"].as_str())
                .map(str::to_owned)
                .collect()
        });
        if let Some(strange) = left.iter().find(|name| !nodes.names.contains(name)) {
            return Err(self.wrong(format!(
                "claims a filtered node {strange:?} which is not found in the input node list"
            )));
        }
        let (failed, never) = (answer.failed, answer.failed_for_good);
        let mut rejections: Vec<(Box<str>, Rejection)> = Vec::new();
        for (node, why) in &never {
            rejections.push((node.as_str().into(), Rejection::unresolvable(why.clone())));
        }
        for (node, why) in failed.iter().filter(|(node, _)| !never.contains_key(*node)) {
            rejections.push((node.as_str().into(), Rejection::resolvable(why.clone())));
        }
        nodes.names = left;
        Ok(rejections)
    }

    /// Weighted scores of nodes, on the scale of the plugins' sums.
    pub async fn prioritize(
        &self,
        pod: &Value,
        nodes: &Nodes,
    ) -> Result<BTreeMap<String, i64>, ExtenderError> {
        let args = self.args(pod, nodes);
        let scores: Vec<HostScore> = self.ask(&self.config.prioritize_verb, &args).await?;
        let scale = self.config.weight * (MAX_SCORE / MAX_EXTENDER_SCORE);
        Ok(scores
            .into_iter()
            .map(|score| (score.host, score.score * scale))
            .collect())
    }

    /// Of the nodes that are offered those that are left, with who has to leave them.
    pub async fn preempt(
        &self,
        pod: &Value,
        offers: &[Offer],
        pods: &Pods,
    ) -> Result<BTreeMap<String, MetaVictims>, ExtenderError> {
        let cached = self.config.node_cache_capable;
        let args = PreemptionArgs {
            pod,
            node_name_to_victims: (!cached).then(|| {
                let victims = offers
                    .iter()
                    .map(|offer| (&*offer.node, whole(offer, pods)));
                victims.collect()
            }),
            node_name_to_meta_victims: cached.then(|| {
                let victims = offers.iter().map(|offer| (&*offer.node, uids(offer)));
                victims.collect()
            }),
        };
        let answer: Preempted = self.ask(&self.config.preempt_verb, &args).await?;
        Ok(answer.victims)
    }

    pub async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), ExtenderError> {
        let args = json!({
            "PodName": pod.key.name(),
            "PodNamespace": pod.key.namespace(),
            "PodUID": pod.uid,
            "Node": node,
        });
        let bound: Bound = self.ask(&self.config.bind_verb, &args).await?;
        if bound.error.is_empty() {
            return Ok(());
        }
        Err(self.wrong(bound.error))
    }
}

/// Victims as the API has them; those that are gone by now are left out.
fn whole<'a>(offer: &Offer, pods: &'a Pods) -> Victims<'a> {
    Victims {
        pods: (offer.victims.iter())
            .filter_map(|victim| pods.get(&victim.uid))
            .collect(),
        violations: offer.violations,
    }
}

fn uids(offer: &Offer) -> MetaVictims {
    let uids = offer.victims.iter().map(|victim| MetaPod {
        uid: victim.uid.to_string(),
    });
    MetaVictims {
        pods: uids.collect(),
        violations: i64::try_from(offer.violations).unwrap_or(i64::MAX),
    }
}
