//! Making the node known to the API server, or finding that it is.

use std::time::Duration;

use client::{Api, Client, Patch, PatchOptions};
use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::setters::{NodeSettings, annotations, labels};
use crate::pods::admission::is_extended;
use crate::sys::node::Machine;

/// How a node is registered.
#[derive(Debug, Clone)]
pub struct Registration {
    pub taints: Vec<Taint>,
    pub labels: std::collections::BTreeMap<String, String>,
    pub provider_id: String,
    pub attach_detach: bool,
    /// The node was made anew: what it is said to have of devices it has no more.
    pub reset_devices: bool,
}

/// Keeps pods off until the cloud controller manager has seen the node.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";

/// Labels that say what the node is: brought up to date when it comes back.
const OWN_LABELS: [&str; 10] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// The node as it is first made. Pure.
pub fn initial(machine: &Machine, settings: &NodeSettings, registration: &Registration) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(settings.name.clone());
    node.metadata.labels = Some(labels(machine, settings, &registration.labels));
    let annotations = annotations(settings, registration.attach_detach);
    node.metadata.annotations = Some(
        annotations
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect(),
    );
    let mut taints = registration.taints.clone();
    if settings.external_cloud_provider {
        taints.push(Taint {
            key: UNINITIALIZED.into(),
            value: Some("true".into()),
            effect: "NoSchedule".into(),
            time_added: None,
        });
    }
    node.spec = Some(NodeSpec {
        taints: (!taints.is_empty()).then_some(taints),
        provider_id: (!registration.provider_id.is_empty())
            .then(|| registration.provider_id.clone()),
        ..Default::default()
    });
    node
}

/// What to change of a node that exists already, if anything. Pure.
fn reconcile(
    existing: &Node,
    wanted: &Node,
    settings: &NodeSettings,
    registration: &Registration,
) -> Option<Value> {
    let mut labels = Map::new();
    for key in OWN_LABELS {
        let own = wanted
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key));
        let shown = existing
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key));
        if let Some(own) = own.filter(|own| Some(*own) != shown) {
            labels.insert(key.to_owned(), json!(own));
        }
    }
    let mut changed = Map::new();
    for (key, value) in annotations(settings, registration.attach_detach) {
        let shown = existing
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(key));
        if shown != value.as_ref() {
            changed.insert(key.to_owned(), json!(value));
        }
    }
    if labels.is_empty() && changed.is_empty() {
        return None;
    }
    Some(json!({"metadata": {"labels": labels, "annotations": changed}}))
}

/// A status in which the node has none of its extended resources. Pure.
fn without_devices(existing: &Node) -> Option<Value> {
    let shown = existing.status.as_ref()?.capacity.as_ref()?;
    let extended = shown.keys().filter(|name| is_extended(name));
    let none: Map<String, Value> = extended.map(|name| (name.clone(), json!("0"))).collect();
    (!none.is_empty()).then(|| json!({"status": {"capacity": none, "allocatable": none}}))
}

/// Registers, however long it takes. Not at all with `registerNode: false`.
pub async fn register(
    client: &Client,
    machine: &Machine,
    settings: &NodeSettings,
    registration: &Registration,
    stop: &CancellationToken,
) {
    let node = initial(machine, settings, registration);
    let mut pause = Duration::from_millis(100);
    loop {
        match attempt(client, &node, settings, registration).await {
            Ok(()) => return info!(node = settings.name, "registered"),
            Err(error) => {
                error!(node = settings.name, %error, "cannot register the node with the API server yet")
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(7)),
        }
    }
}

async fn attempt(
    client: &Client,
    node: &Node,
    settings: &NodeSettings,
    registration: &Registration,
) -> client::Result<()> {
    let nodes: Api<Node> = Api::all(client);
    match nodes.create(node).await {
        Ok(_) => return Ok(()),
        // Some clusters let no node make itself, but have made it.
        Err(error) if error.is_already_exists() || error.is_forbidden() => {}
        Err(error) => return Err(error),
    }
    let existing = nodes.get(&settings.name).await?;
    if let Some(patch) = reconcile(&existing, node, settings, registration) {
        let patch = Patch::Strategic(patch);
        nodes
            .patch(&settings.name, &patch, &PatchOptions::default())
            .await?;
    }
    let reset = registration.reset_devices;
    if let Some(patch) = without_devices(&existing).filter(|_| reset) {
        let patch = Patch::Strategic(patch);
        nodes
            .patch_status(&settings.name, &patch, &PatchOptions::default())
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::requests::ResourceList;

    #[test]
    fn devices_of_a_node_made_anew() {
        let node = |capacity: Value| -> Node {
            let node = json!({"metadata": {}, "status": {"capacity": capacity}});
            serde_json::from_value(node).unwrap()
        };
        let none = json!({"d.io/gpu": "0"});
        assert_eq!(
            without_devices(&node(json!({"cpu": "1", "d.io/gpu": "3"}))),
            Some(json!({"status": {"capacity": none, "allocatable": none}}))
        );
        assert_eq!(without_devices(&node(json!({"cpu": "1"}))), None);
    }

    fn settings(external: bool) -> NodeSettings {
        NodeSettings {
            name: "n".into(),
            hostname: "host".into(),
            node_ips: vec!["10.0.0.1".parse().unwrap()],
            default_ips: vec![],
            external_cloud_provider: external,
            port: 10250,
            max_pods: 110,
            pods_per_core: 0,
            max_images: 50,
            system_reserved: ResourceList::new(),
            kube_reserved: ResourceList::new(),
            kept: Default::default(),
            declared_features: None,
        }
    }

    #[test]
    fn first_and_again() {
        let registration = Registration {
            taints: vec![],
            labels: [("own".to_owned(), "x".to_owned())].into(),
            provider_id: String::new(),
            attach_detach: true,
            reset_devices: false,
        };
        let machine = Machine {
            architecture: "amd64",
            ..Default::default()
        };
        let node = initial(&machine, &settings(true), &registration);
        assert_eq!(
            node.spec.as_ref().unwrap().taints.as_ref().unwrap()[0].key,
            UNINITIALIZED
        );
        assert_eq!(
            node.metadata.labels.as_ref().unwrap()["kubernetes.io/hostname"],
            "host"
        );
        assert_eq!(node.metadata.labels.as_ref().unwrap()["own"], "x");
        assert_eq!(
            reconcile(&node, &node, &settings(true), &registration),
            None
        );
        let mut old = node.clone();
        old.metadata
            .labels
            .as_mut()
            .unwrap()
            .insert("kubernetes.io/arch".into(), "arm64".into());
        old.metadata.labels.as_mut().unwrap().remove("own");
        assert_eq!(
            reconcile(&old, &node, &settings(false), &registration),
            Some(
                json!({"metadata": {"labels": {"kubernetes.io/arch": "amd64"}, "annotations": {"alpha.kubernetes.io/provided-node-ip": null}}})
            )
        );
    }
}
