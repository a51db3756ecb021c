//! What a `KubeSchedulerConfiguration` says of extenders.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::config::Pem;
use component::flags::GoDuration;
use serde::Deserialize;
use serde_json::{Value, json};

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

impl ExtenderConfiguration {
    /// As `/configz` shows it, but for certificates and keys.
    pub fn shown(&self) -> Value {
        let managed = self.managed_resources.iter().map(|resource| {
            json!({"name": resource.name, "ignoredByScheduler": resource.ignored_by_scheduler})
        });
        json!({
            "urlPrefix": self.url_prefix,
            "filterVerb": self.filter_verb,
            "preemptVerb": self.preempt_verb,
            "prioritizeVerb": self.prioritize_verb,
            "weight": self.weight,
            "bindVerb": self.bind_verb,
            "enableHTTPS": self.enable_https,
            "httpTimeout": self.http_timeout.unwrap_or_default(),
            "nodeCacheCapable": self.node_cache_capable,
            "managedResources": managed.collect::<Vec<_>>(),
            "ignorable": self.ignorable,
        })
    }
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

impl ExtenderTls {
    /// Whom the extender's certificate has to be from.
    pub fn authority(&self) -> Option<Pem> {
        pem(&self.ca_data, &self.ca_file)
    }

    /// The scheduler's own certificate and key.
    pub fn identity(&self) -> Option<(Pem, Pem)> {
        let certificate = pem(&self.cert_data, &self.cert_file)?;
        Some((certificate, pem(&self.key_data, &self.key_file)?))
    }
}

/// Data goes before a file.
fn pem(data: &str, file: &str) -> Option<Pem> {
    if data.is_empty() {
        return (!file.is_empty()).then(|| Pem::File(file.into()));
    }
    // Long data may be broken into lines.
    let data: String = data.split_ascii_whitespace().collect();
    STANDARD.decode(data).ok().map(Pem::Data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_under_upstreams_names() {
        let config: ExtenderConfiguration = serde_json::from_value(json!({
            "urlPrefix": "https://10.0.0.1:80/x", "filterVerb": "filter", "weight": 5,
            "enableHTTPS": true, "httpTimeout": "3s", "nodeCacheCapable": true,
            "managedResources": [{"name": "example.com/gpu", "ignoredByScheduler": true}],
            "tlsConfig": {"insecure": true, "caData": "QU\nI="},
        }))
        .unwrap();
        assert!(config.node_cache_capable && config.enable_https);
        let Some(Pem::Data(authority)) = config.tls_config.unwrap().authority() else {
            panic!("no authority");
        };
        assert_eq!(authority, b"AB");
    }
}
