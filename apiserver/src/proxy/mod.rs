//! Requests that end somewhere else: logs and streams of containers at their kubelet, and
//! HTTP to nodes, pods and services.
//!
//! [`backend`] carries one request to one address; the other files decide to which.
//! Upgrades (SPDY, WebSocket) are tunnelled as bytes: what client and kubelet agree on is
//! theirs. Only what the kubelet is not known to understand is translated (`streams`).

mod backend;
mod component_statuses;
mod forward;
mod html;
mod kubelet;
mod links;
mod logs;
mod metrics;
mod sniff;
mod streams;
mod target;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;

pub use component_statuses::{ComponentStatuses, Health};
pub use forward::{NodeProxy, PodProxy, ServiceProxy};
pub use kubelet::{Kubelets, Options};
pub use logs::Logs;
pub use metrics::Metrics;
pub use streams::{Stream, Streams};
pub use tls::Files;

use component::features::FeatureGates;

use crate::authz::Authorizer;
use crate::http::verbs::Connect;
use crate::registry::store::Store;

/// Where pods, nodes and services are looked up.
pub struct Stores {
    pub pods: Arc<Store>,
    pub nodes: Arc<Store>,
    pub services: Arc<Store>,
    pub endpoints: Arc<Store>,
}

/// Every such endpoint of the core group, by plural and subresource.
pub fn endpoints(
    stores: &Stores,
    kubelets: &Arc<Kubelets>,
    authorizer: &Arc<dyn Authorizer>,
    gates: &FeatureGates,
    metrics: Metrics,
) -> HashMap<(&'static str, &'static str, &'static str), Arc<dyn Connect>> {
    let metrics = Arc::new(metrics);
    let mut all: HashMap<_, Arc<dyn Connect>> = HashMap::new();
    let (commands, ports) = (
        "TranslateStreamCloseWebsocketRequests",
        "PortForwardWebsockets",
    );
    for (name, stream, feature) in [
        ("exec", Stream::Exec, commands),
        ("attach", Stream::Attach, commands),
        ("portforward", Stream::PortForward, ports),
    ] {
        let streams = Streams {
            stream,
            pods: stores.pods.clone(),
            kubelets: kubelets.clone(),
            authorizer: authorizer.clone(),
            metrics: metrics.clone(),
            translates: gates.enabled(feature),
            trusts_kubelets: gates.enabled("ExtendWebSocketsToKubelet"),
        };
        all.insert(("", "pods", name), Arc::new(streams));
    }
    let logs = Logs {
        pods: stores.pods.clone(),
        kubelets: kubelets.clone(),
        metrics,
        split_streams: gates.enabled("PodLogsQuerySplitStreams"),
    };
    all.insert(("", "pods", "log"), Arc::new(logs));
    let nodes = NodeProxy {
        kubelets: kubelets.clone(),
    };
    all.insert(("", "nodes", "proxy"), Arc::new(nodes));
    let pods = PodProxy {
        pods: stores.pods.clone(),
    };
    all.insert(("", "pods", "proxy"), Arc::new(pods));
    let services = ServiceProxy {
        services: stores.services.clone(),
        endpoints: stores.endpoints.clone(),
        pods: stores.pods.clone(),
    };
    all.insert(("", "services", "proxy"), Arc::new(services));
    all
}
