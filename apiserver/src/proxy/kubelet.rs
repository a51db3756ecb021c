//! Where a node's kubelet is, and a request to it.

use std::sync::Arc;

use meta::Status;
use serde_json::Value;

use super::backend::Backend;
use super::tls::{ClientTls, Files, TlsError};
use crate::registry::store::Store;

const DEFAULT_PORT: u16 = 10250;

/// `--kubelet-*`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub files: Files,
    /// `--kubelet-preferred-address-types`
    pub address_types: Vec<String>,
}

pub struct Kubelets {
    nodes: Arc<Store>,
    address_types: Vec<String>,
    tls: Arc<ClientTls>,
    /// For who says that the kubelet need not show who it is.
    unverified: Arc<ClientTls>,
}

/// A node's kubelet.
pub struct Kubelet {
    pub backend: Backend,
    /// It serves every protocol of remote commands and forwarded ports over WebSockets, so that
    /// nothing has to be translated for it.
    pub knows_websockets: bool,
}

impl Kubelets {
    /// # Errors
    /// The files cannot be used as they are now; later on, what is wrong with them is told to
    /// those who want to reach a kubelet.
    pub fn new(nodes: Arc<Store>, options: Options) -> Result<Kubelets, TlsError> {
        let anybody = Files {
            ca: None,
            ..options.files.clone()
        };
        let tls = ClientTls::new(options.files);
        tls.config()?;
        Ok(Kubelets {
            nodes,
            address_types: options.address_types,
            tls: Arc::new(tls),
            unverified: Arc::new(ClientTls::new(anybody)),
        })
    }

    /// The kubelet of a node, whose certificate is not looked at.
    pub async fn unverified(&self, node: &str) -> Result<Kubelet, Status> {
        let mut kubelet = self.of(node).await?;
        kubelet.backend.tls = Some(self.unverified.clone());
        Ok(kubelet)
    }

    /// The kubelet of a node.
    pub async fn of(&self, node: &str) -> Result<Kubelet, Status> {
        let object = self.nodes.get("", node, "0").await?;
        let object = self.nodes.tree(object.bytes(), object.revision())?;
        let host = address(&object, &self.address_types).ok_or_else(|| {
            Status::internal(format!(
                "no preferred addresses found; known addresses: {}",
                object["status"]["addresses"]
            ))
        })?;
        let port = object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
            .as_u64()
            .and_then(|p| u16::try_from(p).ok())
            .filter(|p| *p > 0)
            .unwrap_or(DEFAULT_PORT);
        let declared = object["status"]["declaredFeatures"].as_array();
        Ok(Kubelet {
            backend: Backend {
                host,
                port,
                tls: Some(self.tls.clone()),
                unverified: None,
            },
            knows_websockets: declared
                .is_some_and(|list| list.iter().any(|f| f == "ExtendWebSocketsToKubelet")),
        })
    }
}

/// The first address of the type that is preferred most.
fn address(node: &Value, types: &[String]) -> Option<String> {
    let addresses = node["status"]["addresses"].as_array()?;
    types
        .iter()
        .find_map(|ty| addresses.iter().find(|a| a["type"] == ty.as_str()))
        .and_then(|a| a["address"].as_str())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_preferred_address_is_taken() {
        let node = json!({"status": {"addresses": [
            {"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.1"},
        ]}});
        let types = |t: &[&str]| t.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            address(&node, &types(&["InternalIP", "Hostname"])).as_deref(),
            Some("10.0.0.1")
        );
        assert_eq!(address(&node, &types(&["ExternalIP"])), None);
    }
}
