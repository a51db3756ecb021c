//! Extenders: programs that have a say in scheduling, asked over HTTP with JSON
//! (`kube-scheduler/extender/v1`). They filter and score what the plugins have left, and
//! may bind in the scheduler's stead.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64_data::decode;
use bytes::Bytes;
use client::config::{Config, Pem};
use client::{Api, Client, Dynamic, Request};
use component::flags::GoDuration;
use meta::GroupVersionResource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::framework::{MAX_SCORE, Rejection};
use crate::model::PodInfo;

/// `Extender` of the configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtenderConfiguration {
    pub url_prefix: String,
    pub filter_verb: String,
    pub preempt_verb: String,
    pub prioritize_verb: String,
    pub weight: i64,
    pub bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    pub enable_https: bool,
    pub tls_config: Option<ExtenderTls>,
    #[serde(rename = "httpTimeout")]
    pub http_timeout: Option<GoDuration>,
    pub node_cache_capable: bool,
    pub managed_resources: Vec<ManagedResource>,
    pub ignorable: bool,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtenderTls {
    pub insecure: bool,
    pub server_name: String,
    pub cert_file: String,
    pub key_file: String,
    #[serde(rename = "caFile")]
    pub ca_file: String,
    /// The three below are base64.
    pub cert_data: String,
    pub key_data: String,
    #[serde(rename = "caData")]
    pub ca_data: String,
}

impl fmt::Debug for ExtenderTls {
    /// Never shows key material.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtenderTls")
            .field("insecure", &self.insecure)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ManagedResource {
    pub name: String,
    pub ignored_by_scheduler: bool,
}

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

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Args<'a> {
    pod: &'a Value,
    nodes: Option<Value>,
    node_names: Option<Vec<&'a str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Filtered {
    nodes: Option<Value>,
    node_names: Option<Vec<String>>,
    failed_nodes: Option<BTreeMap<String, String>>,
    failed_and_unresolvable_nodes: Option<BTreeMap<String, String>>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostScore {
    host: String,
    score: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Bound {
    error: String,
}

mod base64_data {
    //! The little base64 that certificates in a configuration need.

    /// Ignores white space; `None` for what is no base64.
    pub fn decode(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len() * 3 / 4);
        let (mut bits, mut count) = (0_u32, 0);
        for byte in text
            .bytes()
            .filter(|b| !b.is_ascii_whitespace() && *b != b'=')
        {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
            count += 6;
            if count >= 8 {
                count -= 8;
                out.push((bits >> count & 0xff) as u8);
            }
        }
        Some(out)
    }
}

fn pem(data: &str, file: &str) -> Option<Pem> {
    if !data.is_empty() {
        return decode(data).map(Pem::Data);
    }
    (!file.is_empty()).then(|| Pem::File(file.into()))
}

impl Extender {
    pub fn new(config: &ExtenderConfiguration) -> anyhow::Result<Self> {
        let mut connection = Config::new(config.url_prefix.trim_end_matches('/'));
        let tls = config.tls_config.clone().unwrap_or_default();
        connection.certificate_authority = pem(&tls.ca_data, &tls.ca_file);
        let pair = (
            pem(&tls.cert_data, &tls.cert_file),
            pem(&tls.key_data, &tls.key_file),
        );
        if let (Some(certificate), Some(key)) = pair {
            connection.client_certificate = Some((certificate, key));
        }
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

    /// Whether it has to be shown whole nodes, not only their names.
    pub fn wants_nodes(&self) -> bool {
        !self.config.node_cache_capable
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        verb: &str,
        args: &impl Serialize,
    ) -> Result<T, ExtenderError> {
        let url = || self.config.url_prefix.clone();
        let answer = |message: String| ExtenderError::Answer {
            url: url(),
            message,
        };
        let body = serde_json::to_vec(args).map_err(|e| answer(e.to_string()))?;
        let request = Request::new(http_method(), format!("/{verb}"))
            .body("application/json", Bytes::from(body));
        let (_, bytes) = self
            .client
            .fetch(&request)
            .await
            .map_err(|source| ExtenderError::Request { url: url(), source })?;
        serde_json::from_slice(&bytes).map_err(|e| answer(e.to_string()))
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
        let fail = |message: String| ExtenderError::Answer {
            url: self.config.url_prefix.clone(),
            message,
        };
        if !answer.error.is_empty() {
            return Err(fail(answer.error));
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
            return Err(fail(format!(
                "claims a filtered node {strange:?} which is not found in the input node list"
            )));
        }
        let never = answer.failed_and_unresolvable_nodes.unwrap_or_default();
        let failed = answer.failed_nodes.unwrap_or_default();
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
        Err(ExtenderError::Answer {
            url: self.config.url_prefix.clone(),
            message: bound.error,
        })
    }
}

fn http_method() -> http::Method {
    http::Method::POST
}

/// Nodes that extenders are asked about.
#[derive(Default)]
pub struct Nodes {
    pub names: Vec<String>,
    /// As the API has them, by name; empty when no extender wants them.
    objects: BTreeMap<String, Value>,
}

impl Nodes {
    pub async fn new(names: Vec<String>, whole: bool, client: &Client) -> client::Result<Self> {
        let mut objects = BTreeMap::new();
        if whole {
            let gvr = GroupVersionResource::new("", "v1", "nodes");
            let api = Api::<Dynamic>::dynamic(client, &gvr, false);
            for node in api.list(&client::ListOptions::new()).await?.items {
                let name = client::Object::name(&node).to_owned();
                objects.insert(name, node.0);
            }
        }
        Ok(Self { names, objects })
    }

    fn list(&self) -> Value {
        let items: Vec<&Value> = self
            .names
            .iter()
            .filter_map(|name| self.objects.get(name))
            .collect();
        json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": items})
    }
}

/// The pod as the API has it, for extenders.
pub async fn whole_pod(client: &Client, pod: &PodInfo) -> client::Result<Value> {
    let gvr = GroupVersionResource::new("", "v1", "pods");
    let api = Api::<Dynamic>::dynamic(client, &gvr, true).within(pod.key.namespace());
    Ok(api.get(pod.key.name()).await?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_under_upstreams_names() {
        let answer = r#"{"Nodes": null, "NodeNames": ["a"], "FailedNodes": {"b": "busy"},
            "FailedAndUnresolvableNodes": {"c": "never"}, "Error": ""}"#;
        let filtered: Filtered = serde_json::from_str(answer).unwrap();
        assert_eq!(filtered.node_names.unwrap(), ["a"]);
        assert_eq!(filtered.failed_nodes.unwrap()["b"], "busy");
        let args = Args {
            pod: &json!({"kind": "Pod"}),
            nodes: None,
            node_names: Some(vec!["a"]),
        };
        let text = serde_json::to_string(&args).unwrap();
        assert_eq!(
            text,
            r#"{"Pod":{"kind":"Pod"},"Nodes":null,"NodeNames":["a"]}"#
        );
    }

    #[test]
    fn a_configuration_is_read_under_upstreams_names() {
        let config: ExtenderConfiguration = serde_json::from_value(json!({
            "urlPrefix": "https://10.0.0.1:80/x", "filterVerb": "filter", "weight": 5,
            "enableHTTPS": true, "httpTimeout": "3s", "nodeCacheCapable": true,
            "managedResources": [{"name": "example.com/gpu", "ignoredByScheduler": true}],
            "tlsConfig": {"insecure": true, "caData": "QUI="},
        }))
        .unwrap();
        let tls = config.tls_config.clone().unwrap();
        assert_eq!(decode(&tls.ca_data).unwrap(), b"AB");
        assert!(config.node_cache_capable && config.enable_https);
    }
}
