//! `serverTLSBootstrap`: the certificate of the node's API, signed for the node's addresses.

use std::sync::Arc;

use client::Client;
use jiff::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use super::manager::{self, Clients, Current, Manager};
use super::metrics::ManagerMetrics;
use super::request::SERVING;
use super::store::Store;
use super::template::Template;
use crate::metrics::Metrics;
use crate::node_status::facts::NodeFacts;
use crate::options::Options;

/// What the certificate is made for.
pub struct Node {
    pub name: String,
    pub facts: Arc<NodeFacts>,
    /// A name is enough (AllowDNSOnlyNodeCSR).
    pub dns_only: bool,
}

impl Node {
    fn template(&self) -> Option<Template> {
        let facts = self.facts.get();
        let addresses = facts.node.as_ref()?.status.as_ref()?.addresses.as_ref()?;
        Template::serving(&self.name, addresses, self.dns_only)
    }
}

/// Until there is one that is valid, handshakes fail.
pub struct Serving(Current);

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Serving")
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = self.0.get(Timestamp::now());
        if pair.is_none() {
            tracing::debug!("no serving certificate available for the kubelet");
        }
        Some(pair?.certified.clone())
    }
}

/// Shows what there is, and keeps it up to date where there is an API server to ask.
///
/// # Errors
/// When what is there cannot be read.
pub fn start(
    options: &Options,
    node: Node,
    client: Option<&Client>,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<Serving>> {
    let config = &options.config;
    let given = (!config.tls_cert_file.is_empty()).then(|| {
        let key = &config.tls_private_key_file;
        (config.tls_cert_file.clone().into(), key.clone().into())
    });
    let store = Store::open(&options.cert_dir, "kubelet-server", given)?;
    let (pair, renew_first) = manager::open(&store, None, Timestamp::now())?;
    let current = Current::new(pair);
    let metrics = ManagerMetrics::serving(metrics.registry.inner(), &current)?;
    if let Some(client) = client {
        let manager = Manager {
            purpose: SERVING,
            store,
            clients: Clients {
                with_certificate: client.clone(),
                without: client.clone(),
            },
            wanted: Box::new(move || node.template()),
            current: current.clone(),
            metrics,
            healthy: Arc::default(),
            renew_first,
        };
        tokio::spawn(manager.run(stop.clone()));
    }
    Ok(Arc::new(Serving(current)))
}
