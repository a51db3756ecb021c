//! cloud-node-controller: a new node gets its provider ID, addresses, zone, region and
//! instance type, and loses the taint that kept pods away until then.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::events::{EventType, Recorder, reference};
use client::informer::{Event, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, ObjectKey, Patch, PatchOptions};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, NodeAddress};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::provider::{Instance, NodeRef, Provider};

pub fn start(context: Context) -> Option<BoxFuture<'static, ()>> {
    context.provider.instances()?;
    let nodes = context.informers.get::<Node>();
    let queue = Queue::<ObjectKey>::new();
    let events = queue.clone();
    nodes.add_handler(move |event: &Event<Node>| {
        if event.current().is_some() {
            events.add(event.key());
        }
    });
    let controller = Arc::new(Controller {
        api: Api::all(&context.client),
        store: nodes.store().clone(),
        provider: context.provider,
        recorder: context.recorder,
    });
    let (period, workers, stop) = (
        context.node_status_update_frequency,
        context.node_workers,
        context.stop,
    );
    Some(
        async move {
            if stop
                .run_until_cancelled(nodes.wait_synced())
                .await
                .is_none()
            {
                return;
            }
            let sync = Arc::clone(&controller);
            tokio::join!(
                queue.run(workers, &stop, move |key: ObjectKey| {
                    let controller = Arc::clone(&sync);
                    async move { controller.sync(&key).await.map(|()| Requeue::No) }
                }),
                controller.follow_addresses(period, &stop),
            );
        }
        .boxed(),
    )
}

struct Controller {
    api: Api<Node>,
    store: Store<Node>,
    provider: Arc<dyn Provider>,
    recorder: Recorder,
}

pub(super) fn node_ref(node: &Node) -> NodeRef {
    NodeRef {
        name: node.metadata.name.clone().unwrap_or_default(),
        provider_id: node
            .spec
            .as_ref()
            .and_then(|s| s.provider_id.clone())
            .unwrap_or_default(),
    }
}

impl Controller {
    async fn instance(&self, node: &Node) -> anyhow::Result<Option<Instance>> {
        let Some(instances) = self.provider.instances() else {
            return Ok(None);
        };
        Ok(instances.instance(&node_ref(node)).await?)
    }

    async fn sync(&self, key: &ObjectKey) -> anyhow::Result<()> {
        let Some(node) = self.store.get_key(key) else {
            return Ok(());
        };
        if !plan::is_uninitialized(&node) {
            return self.repair_labels(&node).await;
        }
        let name = key.name();
        let Some(instance) = self.instance(&node).await? else {
            // The inventory may come to know it; the queue asks again, ever less often.
            anyhow::bail!("the cloud has no machine for node {name}");
        };
        let initialized = plan::initialized(&node, &instance)?;
        // A write on an older state is a conflict, and the node comes again.
        let node = self
            .api
            .replace(&initialized)
            .await
            .context("cannot initialize the node")?;
        tracing::info!(
            "initialized node {name} with cloud provider {}",
            self.provider.name()
        );
        self.update_addresses(&node, &instance).await?;
        self.recorder.event(
            &reference(&node),
            EventType::Normal,
            "Synced",
            "Node synced successfully",
        );
        Ok(())
    }

    async fn repair_labels(&self, node: &Node) -> anyhow::Result<()> {
        let repairs = plan::label_repairs(node);
        if repairs.is_empty() {
            return Ok(());
        }
        let labels: serde_json::Map<String, serde_json::Value> = repairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let patch = Patch::Strategic(json!({"metadata": {"labels": labels}}));
        self.api
            .patch(&node_ref(node).name, &patch, &PatchOptions::default())
            .await?;
        Ok(())
    }

    async fn update_addresses(&self, node: &Node, instance: &Instance) -> anyhow::Result<()> {
        let Some(addresses) = plan::addresses(node, instance)? else {
            return Ok(());
        };
        let patch = Patch::Strategic(address_patch(&addresses));
        self.api
            .patch_status(&node_ref(node).name, &patch, &PatchOptions::default())
            .await?;
        Ok(())
    }

    /// Addresses change without the node changing.
    async fn follow_addresses(&self, period: Duration, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(period.max(Duration::from_secs(1)));
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            for node in self.store.list() {
                if plan::is_uninitialized(&node) {
                    continue;
                }
                if let Err(error) = self.follow(&node).await {
                    tracing::warn!("addresses of node {}: {error:#}", node_ref(&node).name);
                }
            }
        }
    }

    async fn follow(&self, node: &Node) -> anyhow::Result<()> {
        match self.instance(node).await? {
            Some(instance) => self.update_addresses(node, &instance).await,
            None => Ok(()),
        }
    }
}

/// The list is replaced as a whole: its merge key, the type, is not unique.
fn address_patch(addresses: &[NodeAddress]) -> serde_json::Value {
    let mut list = vec![json!({"$patch": "replace"})];
    list.extend(
        addresses
            .iter()
            .map(|a| json!({"type": a.type_, "address": a.address})),
    );
    json!({"status": {"addresses": list}})
}
