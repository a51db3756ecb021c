//! `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1): every field of
//! upstream's, and what of it this build can do.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use component::flags::GoDuration;
use ipnet::IpNet;
use serde::Deserialize;

pub const KIND: &str = "KubeProxyConfiguration";
pub const VERSIONS: &[&str] = &["kubeproxy.config.k8s.io/v1alpha1"];

/// Values that the file leaves out are upstream's defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeProxyConfiguration {
    pub api_version: String,
    pub kind: String,
    pub feature_gates: BTreeMap<String, bool>,
    pub client_connection: ClientConnection,
    pub logging: serde_json::Value,
    pub hostname_override: String,
    pub bind_address: String,
    pub healthz_bind_address: String,
    pub metrics_bind_address: String,
    pub bind_address_hard_fail: bool,
    pub enable_profiling: bool,
    pub show_hidden_metrics_for_version: String,
    pub mode: String,
    pub iptables: serde_json::Value,
    pub ipvs: serde_json::Value,
    pub nftables: Nftables,
    pub winkernel: serde_json::Value,
    pub detect_local_mode: String,
    pub detect_local: serde_json::Value,
    /// Comma-separated for two families.
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    pub node_port_addresses: Option<Vec<String>>,
    pub oom_score_adj: Option<i32>,
    pub conntrack: Conntrack,
    pub config_sync_period: GoDuration,
    pub port_range: String,
    pub windows_run_as_service: bool,
}

impl Default for KubeProxyConfiguration {
    fn default() -> Self {
        Self {
            api_version: VERSIONS[0].to_owned(),
            kind: KIND.to_owned(),
            feature_gates: BTreeMap::new(),
            client_connection: ClientConnection::default(),
            logging: serde_json::Value::Null,
            hostname_override: String::new(),
            bind_address: "0.0.0.0".to_owned(),
            healthz_bind_address: "0.0.0.0:10256".to_owned(),
            metrics_bind_address: "127.0.0.1:10249".to_owned(),
            bind_address_hard_fail: false,
            enable_profiling: false,
            show_hidden_metrics_for_version: String::new(),
            mode: String::new(),
            iptables: serde_json::Value::Null,
            ipvs: serde_json::Value::Null,
            nftables: Nftables::default(),
            winkernel: serde_json::Value::Null,
            detect_local_mode: String::new(),
            detect_local: serde_json::Value::Null,
            cluster_cidr: String::new(),
            node_port_addresses: None,
            oom_score_adj: None,
            conntrack: Conntrack::default(),
            config_sync_period: GoDuration::from_secs(15 * 60),
            port_range: String::new(),
            windows_run_as_service: false,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientConnection {
    pub kubeconfig: String,
    pub accept_content_types: String,
    pub content_type: String,
    pub qps: f32,
    pub burst: i32,
}

impl Default for ClientConnection {
    fn default() -> Self {
        Self {
            kubeconfig: String::new(),
            accept_content_types: String::new(),
            content_type: String::new(),
            qps: 5.0,
            burst: 10,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Nftables {
    pub masquerade_bit: Option<u8>,
    pub masquerade_all: bool,
    pub sync_period: GoDuration,
    pub min_sync_period: Option<GoDuration>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Conntrack {
    pub max_per_core: Option<i32>,
    pub min: Option<i32>,
    pub tcp_established_timeout: Option<GoDuration>,
    pub tcp_close_wait_timeout: Option<GoDuration>,
    pub tcp_be_liberal: bool,
    pub udp_timeout: GoDuration,
    pub udp_stream_timeout: GoDuration,
}

impl KubeProxyConfiguration {
    /// Refuses what this build cannot do, by name, rather than doing something else.
    pub fn validate(&self) -> anyhow::Result<()> {
        match self.mode.as_str() {
            "nftables" => {}
            "" | "iptables" => bail!(
                "mode \"iptables\" (upstream's default) is not available in this build; set mode: nftables"
            ),
            other => bail!("mode {other:?} is not available in this build; set mode: nftables"),
        }
        if !matches!(self.detect_local_mode.as_str(), "" | "ClusterCIDR") {
            bail!(
                "detectLocalMode {:?} is not available in this build; use ClusterCIDR",
                self.detect_local_mode
            );
        }
        if self.nftables.masquerade_bit.is_some_and(|bit| bit > 31) {
            bail!("nftables.masqueradeBit must be within the range [0, 31]");
        }
        self.cluster_cidrs()?;
        self.node_port_nets()?;
        Ok(())
    }

    pub fn cluster_cidrs(&self) -> anyhow::Result<Vec<IpNet>> {
        nets(self.cluster_cidr.split(','), "clusterCIDR")
    }

    /// Networks of addresses that take NodePort traffic; empty for all of the node's.
    pub fn node_port_nets(&self) -> anyhow::Result<Vec<IpNet>> {
        let listed = self.node_port_addresses.as_deref().unwrap_or_default();
        if listed.iter().any(|a| a == "primary") {
            bail!("nodePortAddresses: \"primary\" is not available in this build; list networks");
        }
        nets(listed.iter().map(String::as_str), "nodePortAddresses")
    }
}

fn nets<'a>(texts: impl Iterator<Item = &'a str>, field: &str) -> anyhow::Result<Vec<IpNet>> {
    texts
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .with_context(|| format!("{field}: {text:?} is no network"))
        })
        .collect()
}
