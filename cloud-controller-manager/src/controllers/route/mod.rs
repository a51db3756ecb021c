//! node-route-controller: every node's pods can be reached through the cloud's routes, and
//! the node's condition NetworkUnavailable says whether they can.

mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use client::events::{EventType, Recorder, reference};
use client::informer::Store;
use client::{Api, Patch, PatchOptions};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use super::Context;
use super::node::node_ref;
use crate::provider::{Provider, Route, Routes};

/// The shortest time between two looks.
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);

pub fn start(context: Context) -> Option<BoxFuture<'static, ()>> {
    if !context.configure_cloud_routes {
        tracing::info!("--configure-cloud-routes=false: no routes are made");
        return None;
    }
    context.provider.routes()?;
    let nodes = context.informers.get::<Node>();
    let controller = Controller {
        api: Api::all(&context.client),
        store: nodes.store().clone(),
        provider: context.provider,
        recorder: context.recorder,
        cluster: context.cluster_cidrs,
    };
    let (period, stop) = (context.route_reconciliation_period, context.stop);
    Some(
        async move {
            let synced = stop.run_until_cancelled(nodes.wait_synced()).await;
            if synced.is_none() {
                return;
            }
            let mut ticks = tokio::time::interval(period.max(SHORTEST_PERIOD));
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                if let Err(error) = controller.reconcile().await {
                    tracing::error!("cannot reconcile the routes: {error:#}");
                }
            }
        }
        .boxed(),
    )
}

struct Controller {
    api: Api<Node>,
    store: Store<Node>,
    provider: Arc<dyn Provider>,
    recorder: Recorder,
    cluster: Vec<IpNet>,
}

impl Controller {
    async fn reconcile(&self) -> anyhow::Result<()> {
        let Some(routes) = self.provider.routes() else {
            return Ok(());
        };
        let nodes = self.store.list();
        let plan = plan::plan(&nodes, &routes.list().await?, &self.cluster);
        for route in &plan.delete {
            match routes.delete(route).await {
                Ok(()) => tracing::info!("deleted the route to {}", route.destination),
                Err(e) => tracing::error!("cannot delete the route to {}: {e}", route.destination),
            }
        }
        let mut failed = BTreeSet::new();
        for route in &plan.create {
            if !self.create(routes, &nodes, route).await {
                failed.insert(route.node.as_str());
            }
        }
        for node in nodes.iter().filter(|n| !plan::wanted(n).is_empty()) {
            let name = node_ref(node).name;
            let routed = !failed.contains(name.as_str());
            if let Err(error) = self.tell(node, routed).await {
                tracing::error!("cannot set the condition of node {name}: {error}");
            }
        }
        Ok(())
    }

    async fn create(&self, routes: &dyn Routes, nodes: &[Arc<Node>], route: &Route) -> bool {
        let Some(node) = nodes.iter().find(|n| node_ref(n).name == route.node) else {
            return false;
        };
        let status = node.status.as_ref();
        let addresses: Vec<(String, String)> = status
            .and_then(|s| s.addresses.as_deref())
            .unwrap_or_default()
            .iter()
            .map(|a| (a.type_.clone(), a.address.clone()))
            .collect();
        match routes.create(route, &addresses).await {
            Ok(()) => {
                tracing::info!("created the route to {}", route.destination);
                true
            }
            Err(error) => {
                let message = format!(
                    "Could not create route {} for node {}: {error}",
                    route.destination, route.node
                );
                tracing::error!("{message}");
                self.recorder.event(
                    &reference(&**node),
                    EventType::Warning,
                    "FailedToCreateRoute",
                    &message,
                );
                false
            }
        }
    }

    async fn tell(&self, node: &Node, routed: bool) -> client::Result<()> {
        if plan::says(node, routed) {
            return Ok(());
        }
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let (status, reason, message) = if routed {
            ("False", "RouteCreated", "RouteController created a route")
        } else {
            (
                "True",
                "NoRouteCreated",
                "RouteController failed to create a route",
            )
        };
        let patch = Patch::Strategic(json!({"status": {"conditions": [{
            "type": "NetworkUnavailable", "status": status, "reason": reason,
            "message": message, "lastTransitionTime": now.to_string(),
        }]}}));
        let name = node_ref(node).name;
        self.api
            .patch_status(&name, &patch, &PatchOptions::default())
            .await?;
        Ok(())
    }
}
