//! What the API server shows of the node's drivers: the CSINode object, and annotation and labels
//! of the Node. The scheduler and the attacher go by them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::csi_translation;
use client::{Api, Client, Patch, PatchOptions};
use futures::future::BoxFuture;
use grpc::plugins::csi::NodeGetInfoResponse;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";
const MIGRATED: &str = "storage.alpha.kubernetes.io/migrated-plugins";
/// Others write to these objects too.
const TRIES: u32 = 4;

/// Keeps them. Cheap to clone.
#[derive(Clone)]
pub struct NodeInfo {
    /// `None` without an API server.
    api: Option<Client>,
    node: String,
    /// One change after the other.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What to change of a node whose driver has this id now, or none any more; `None` for nothing.
///
/// # Errors
/// When the node is said to be somewhere else.
fn node_patch(
    node: &Node,
    driver: &str,
    id: Option<&str>,
    topology: &BTreeMap<String, String>,
) -> Result<Option<Value>, String> {
    let annotations = node.metadata.annotations.as_ref();
    let shown = annotations.and_then(|annotations| annotations.get(NODE_IDS));
    let mut ids: BTreeMap<String, String> = match shown {
        Some(text) if !text.is_empty() => serde_json::from_str(text).map_err(|error| {
            format!("failed to parse node's {NODE_IDS:?} annotation value ({text:?}) err={error}")
        })?,
        _ => BTreeMap::new(),
    };
    let before = ids.clone();
    match id {
        Some(id) => ids.insert(driver.to_owned(), id.to_owned()),
        None => ids.remove(driver),
    };
    let mut metadata = serde_json::Map::new();
    if ids != before {
        let text = (!ids.is_empty()).then(|| json!(ids).to_string());
        metadata.insert("annotations".into(), json!({NODE_IDS: text}));
    }
    let mut missing = BTreeMap::new();
    for (key, value) in topology {
        let labels = node.metadata.labels.as_ref();
        match labels.and_then(|labels| labels.get(key)) {
            Some(shown) if shown == value => {}
            Some(shown) => {
                return Err(format!(
                    "detected topology value collision: driver reported {key:?}:{value:?} but existing label is {key:?}:{shown:?}"
                ));
            }
            None => {
                missing.insert(key, value);
            }
        }
    }
    if !missing.is_empty() {
        metadata.insert("labels".into(), json!(missing));
    }
    Ok((!metadata.is_empty()).then(|| json!({"metadata": metadata})))
}

/// A node's object without drivers.
fn empty(node: &Node) -> CSINode {
    let mut object = CSINode::default();
    object.metadata.name.clone_from(&node.metadata.name);
    object.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..Default::default()
    }]);
    migrated(&mut object);
    object
}

/// Whether the object belongs to this very node, not to another that had its name.
fn is_of(object: &CSINode, node: &Node) -> bool {
    let owners = object.metadata.owner_references.iter().flatten();
    let uid = node.metadata.uid.as_deref().unwrap_or_default();
    owners
        .into_iter()
        .any(|owner| owner.kind == "Node" && owner.uid == uid)
}

fn migrated(object: &mut CSINode) -> bool {
    let plugins = csi_translation::PLUGINS.map(|(plugin, _)| plugin).join(",");
    let annotations = object.metadata.annotations.get_or_insert_default();
    let before = annotations.insert(MIGRATED.into(), plugins);
    before.as_ref() != annotations.get(MIGRATED)
}

/// Writes a driver into the object; whether that changed it.
fn add(object: &mut CSINode, name: &str, info: &NodeGetInfoResponse) -> bool {
    let topology = info.accessible_topology.as_ref();
    let keys: Vec<String> = topology
        .map(|topology| topology.segments.keys().cloned().collect())
        .unwrap_or_default();
    let limit = Some(info.max_volumes_per_node).filter(|limit| *limit > 0);
    let driver = CSINodeDriver {
        name: name.to_owned(),
        node_id: info.node_id.clone(),
        topology_keys: Some(keys).filter(|keys| !keys.is_empty()),
        allocatable: limit.map(|limit| VolumeNodeResources {
            count: Some(i32::try_from(limit).unwrap_or(i32::MAX)),
        }),
    };
    let annotated = migrated(object);
    if object.spec.drivers.contains(&driver) && !annotated {
        return false;
    }
    remove(object, name);
    object.spec.drivers.push(driver);
    true
}

fn remove(object: &mut CSINode, name: &str) -> bool {
    let before = object.spec.drivers.len();
    object.spec.drivers.retain(|driver| driver.name != name);
    object.spec.drivers.len() != before
}

impl NodeInfo {
    pub fn new(api: Option<Client>, node: &str) -> Self {
        Self {
            api,
            node: node.to_owned(),
            turn: Arc::default(),
        }
    }

    fn api(&self) -> Result<&Client, String> {
        self.api
            .as_ref()
            .ok_or_else(|| "error getting kube client".into())
    }

    /// Makes the object, if it is not there, as soon as the node is.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = Duration::from_millis(100);
        loop {
            match self.initialize().await {
                Ok(()) => return info!(node = self.node, "the node's CSINode is there"),
                Err(error) => warn!(error, "Failed to initialize CSINode"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(30)),
            }
        }
    }

    async fn initialize(&self) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let text = |error: client::Error| error.to_string();
        let api = self.api()?;
        let node = Api::<Node>::all(api).get(&self.node).await.map_err(text)?;
        let mut object = self.object(&node).await?;
        if migrated(&mut object) {
            Api::all(api).replace(&object).await.map_err(text)?;
        }
        Ok(())
    }

    /// The node's object, made anew if it is another node's.
    async fn object(&self, node: &Node) -> Result<CSINode, String> {
        let text = |error: client::Error| error.to_string();
        let objects = Api::<CSINode>::all(self.api()?);
        if let Some(object) = objects.get_opt(&self.node).await.map_err(text)? {
            if is_of(&object, node) {
                return Ok(object);
            }
            let uid = object.metadata.uid.clone().unwrap_or_default();
            let options = client::DeleteOptions::with_uid(uid);
            objects.delete(&self.node, &options).await.map_err(text)?;
        }
        objects.create(&empty(node)).await.map_err(text)
    }

    /// Several tries of one change.
    async fn change<'a>(
        &self,
        what: &str,
        change: impl Fn() -> BoxFuture<'a, Result<(), String>>,
    ) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let mut pause = Duration::from_millis(10);
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match change().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if tries == TRIES {
                return Err(format!(
                    "error updating {what}: timed out waiting for the condition; caused by: {error}"
                ));
            }
            tokio::time::sleep(pause).await;
            pause *= 5;
        }
    }

    async fn patch_node(
        &self,
        driver: &str,
        id: Option<&str>,
        topology: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let text = |error: client::Error| error.to_string();
        let nodes = Api::<Node>::all(self.api()?);
        let node = nodes.get(&self.node).await.map_err(text)?;
        if let Some(patch) = node_patch(&node, driver, id, topology)? {
            let (patch, options) = (Patch::Strategic(patch), PatchOptions::default());
            let patched = nodes.patch(&self.node, &patch, &options).await;
            patched.map_err(text)?;
        }
        Ok(())
    }

    async fn add(&self, driver: &str, info: &NodeGetInfoResponse) -> Result<(), String> {
        let text = |error: client::Error| error.to_string();
        let api = self.api()?;
        let node = Api::<Node>::all(api).get(&self.node).await.map_err(text)?;
        let mut object = self.object(&node).await?;
        if add(&mut object, driver, info) {
            Api::all(api).replace(&object).await.map_err(text)?;
        }
        Ok(())
    }

    async fn remove(&self, driver: &str) -> Result<(), String> {
        let text = |error: client::Error| error.to_string();
        let objects = Api::<CSINode>::all(self.api()?);
        if let Some(mut object) = objects.get_opt(&self.node).await.map_err(text)?
            && remove(&mut object, driver)
        {
            objects.replace(&object).await.map_err(text)?;
        }
        Ok(())
    }

    /// Shows a driver.
    ///
    /// # Errors
    /// When the API server does not take it: the driver must not be used.
    pub async fn install(&self, driver: &str, info: &NodeGetInfoResponse) -> Result<(), String> {
        if info.node_id.is_empty() {
            return Err("error adding CSI driver node info: driverNodeID must not be empty".into());
        }
        let topology = info.accessible_topology.clone().unwrap_or_default();
        let (id, topology) = (Some(info.node_id.as_str()), &topology.segments);
        self.change("Node object with CSI driver node info", || {
            Box::pin(self.patch_node(driver, id, topology))
        })
        .await?;
        self.update(driver, info).await
    }

    /// Shows what a driver that is shown can do now.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub async fn update(&self, driver: &str, info: &NodeGetInfoResponse) -> Result<(), String> {
        self.change("CSINode object with CSI driver node info", || {
            Box::pin(self.add(driver, info))
        })
        .await
    }

    /// Shows a driver no more, unless it has come `back` meanwhile.
    ///
    /// # Errors
    /// When the API server does not take it.
    pub async fn uninstall(
        &self,
        driver: &str,
        back: impl Fn() -> bool + Sync,
    ) -> Result<(), String> {
        let done = || -> BoxFuture<'_, _> { Box::pin(async { Ok(()) }) };
        self.change("CSINode object", || match back() {
            true => done(),
            false => Box::pin(self.remove(driver)),
        })
        .await?;
        let nowhere = BTreeMap::new();
        self.change("Node object", || match back() {
            true => done(),
            false => Box::pin(self.patch_node(driver, None, &nowhere)),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use grpc::plugins::csi::Topology;

    use super::*;

    fn info(id: &str, limit: i64) -> NodeGetInfoResponse {
        NodeGetInfoResponse {
            node_id: id.into(),
            max_volumes_per_node: limit,
            accessible_topology: Some(Topology {
                segments: [("zone".to_owned(), "a".to_owned())].into(),
            }),
        }
    }

    #[test]
    fn drivers_of_a_node() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n", "uid": "u"}})).unwrap();
        let mut object = empty(&node);
        assert!(is_of(&object, &node));
        assert!(add(&mut object, "d", &info("1", 0)));
        assert!(!add(&mut object, "d", &info("1", 0)));
        assert!(add(&mut object, "e", &info("1", 0)));
        assert!(add(&mut object, "d", &info("1", 1 << 40)));
        assert_eq!(
            serde_json::to_value(&object.spec.drivers[1]).unwrap(),
            json!({"name": "d", "nodeID": "1", "topologyKeys": ["zone"], "allocatable": {"count": i32::MAX}})
        );
        assert!(remove(&mut object, "d") && !remove(&mut object, "d"));
        let other: Node =
            serde_json::from_value(json!({"metadata": {"name": "n", "uid": "v"}})).unwrap();
        assert!(!is_of(&object, &other));
    }

    #[test]
    fn what_the_node_shows() {
        let node =
            |value: Value| -> Node { serde_json::from_value(json!({"metadata": value})).unwrap() };
        let zone = |zone: &str| BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
        let patch = node_patch(&node(json!({})), "d", Some("1"), &zone("a")).unwrap();
        assert_eq!(
            patch,
            Some(
                json!({"metadata": {"annotations": {NODE_IDS: "{\"d\":\"1\"}"}, "labels": {"zone": "a"}}})
            )
        );
        let shown =
            node(json!({"annotations": {NODE_IDS: "{\"d\":\"1\"}"}, "labels": {"zone": "a"}}));
        assert_eq!(node_patch(&shown, "d", Some("1"), &zone("a")), Ok(None));
        assert!(node_patch(&shown, "d", Some("1"), &zone("b")).is_err());
        assert_eq!(
            node_patch(&shown, "d", None, &BTreeMap::new()).unwrap(),
            Some(json!({"metadata": {"annotations": {NODE_IDS: null}}}))
        );
    }
}
