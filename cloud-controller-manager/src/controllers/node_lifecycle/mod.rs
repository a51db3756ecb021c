//! cloud-node-lifecycle-controller: a node that is not ready is deleted when its machine
//! is gone, and tainted while the machine is switched off.

mod plan;

use std::sync::Arc;

use client::events::{EventType, Recorder, reference};
use client::informer::Store;
use client::{Api, DeleteOptions};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Context;
use super::node::node_ref;
use crate::provider::Provider;
use plan::{Action, SHUTDOWN};

pub fn start(context: Context) -> Option<BoxFuture<'static, ()>> {
    context.provider.instances()?;
    let nodes = context.informers.get::<Node>();
    let controller = Controller {
        api: Api::all(&context.client),
        store: nodes.store().clone(),
        provider: context.provider,
        recorder: context.recorder,
    };
    let (period, stop) = (context.node_monitor_period, context.stop);
    Some(
        async move {
            if stop
                .run_until_cancelled(nodes.wait_synced())
                .await
                .is_none()
            {
                return;
            }
            let mut ticks = tokio::time::interval(period.max(std::time::Duration::from_secs(1)));
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                for node in controller.store.list() {
                    if let Err(error) = controller.look_after(&node).await {
                        tracing::warn!("node {}: {error:#}", node_ref(&node).name);
                    }
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
}

impl Controller {
    async fn look_after(&self, node: &Arc<Node>) -> anyhow::Result<()> {
        let action = match self.provider.instances() {
            Some(instances) if !plan::is_ready(node) => {
                let instance = instances.instance(&node_ref(node)).await?;
                plan::action(node, Some(instance.as_ref()))
            }
            _ => plan::action(node, None),
        };
        match action {
            Action::Nothing => Ok(()),
            Action::Delete => self.delete(node).await,
            Action::AddShutdownTaint => self.set_taint(node, true).await,
            Action::RemoveShutdownTaint => self.set_taint(node, false).await,
        }
    }

    async fn delete(&self, node: &Node) -> anyhow::Result<()> {
        let name = node_ref(node).name;
        let message =
            format!("Deleting node {name} because it does not exist in the cloud provider");
        self.recorder.event(
            &reference(node),
            EventType::Normal,
            "DeletingNode",
            &message,
        );
        tracing::info!("{message}");
        let uid = node.metadata.uid.clone().unwrap_or_default();
        match self.api.delete(&name, &DeleteOptions::with_uid(uid)).await {
            Err(error) if !error.is_not_found() => {
                let message = format!("Failed deleting node {name}: {error}");
                let about = reference(node);
                self.recorder
                    .event(&about, EventType::Warning, "FailedDeletingNode", &message);
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    async fn set_taint(&self, node: &Node, on: bool) -> anyhow::Result<()> {
        let mut node = node.clone();
        let spec = node.spec.get_or_insert_default();
        let taints = spec.taints.get_or_insert_default();
        taints.retain(|taint| taint.key != SHUTDOWN);
        if on {
            taints.push(Taint {
                key: SHUTDOWN.to_owned(),
                effect: "NoSchedule".to_owned(),
                time_added: Some(Time(jiff::Timestamp::now())),
                ..Taint::default()
            });
        }
        if taints.is_empty() {
            spec.taints = None;
        }
        self.api.replace(&node).await?;
        Ok(())
    }
}
