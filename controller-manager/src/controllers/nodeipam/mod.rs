//! node-ipam-controller: gives every node its part of the cluster's pod network.
//!
//! A node's blocks are in its spec; the map of taken ones is in memory only, and is built from
//! all nodes before the first block is given out.

pub mod cidr_set;

use std::sync::Arc;

use client::informer::{Event as Change, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey, Patch, PatchOptions};
use ipnet::IpNet;
use parking_lot::Mutex;
use serde_json::json;

use self::cidr_set::{CidrSet, CidrSetError};
use crate::context::{Context, Run, enqueue_all};
use crate::controllers::nodelifecycle::node_reference;
use crate::events::Recorder;
use crate::kinds::Node;

const WORKERS: usize = 5;
const RETRIES: usize = 3;

struct Controller {
    nodes: Store<Node>,
    api: Api<Node>,
    events: Recorder,
    sets: Mutex<Vec<CidrSet>>,
}

/// Why a node has no blocks.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("{0}")]
    Api(#[from] Error),
    #[error("failed to allocate cidr from cluster cidr at idx:{0}: {1}")]
    Allocate(usize, CidrSetError),
    #[error("failed to mark cidr[{0}] at idx [{1}] as occupied for node: {2}: {3}")]
    Occupy(IpNet, usize, String, CidrSetError),
    #[error("failed to parse node {0}, CIDR {1}")]
    Parse(String, String),
    #[error(
        "node:{0} has an allocated cidr: {1} at index:{2} that does not exist in cluster cidrs configuration"
    )]
    NoSuchRange(String, String, usize),
}

/// Sets the controller up; not at all without `--allocate-node-cidrs`.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let Some(plan) = ctx.options.node_cidrs()? else {
        return Ok(None);
    };
    let mut sets = Vec::new();
    for (cluster, mask) in plan.clusters {
        let mut set = CidrSet::new(cluster, mask)?;
        for service in &plan.services {
            if !set.overlaps(*service) {
                continue;
            }
            if let Err(err) = set.occupy(*service) {
                tracing::error!(%err, "cannot keep the service range out of the cluster's");
            }
        }
        sets.push(set);
    }
    let client = ctx.client("node-controller")?;
    let nodes = ctx.informer::<Node>();
    let queue: Queue<ObjectKey> = ctx.queue("cidrallocator_node");
    let controller = Arc::new(Controller {
        nodes: nodes.store().clone(),
        api: Api::all(&client),
        events: ctx.recorder("cidrAllocator"),
        sets: Mutex::new(sets),
    });
    enqueue_all(&nodes, &queue);
    let c = Arc::clone(&controller);
    nodes.add_handler(move |change| {
        if let Change::Deleted(node) = change {
            c.release(node);
        }
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        nodes.wait_synced().await;
        // Every block that is taken must be known before a free one is looked for.
        for node in controller.nodes.list() {
            if let Err(err) = controller.occupy(&node) {
                tracing::error!(%err, "a node's CIDRs do not fit the configuration");
            }
        }
        queue
            .run(WORKERS, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.sync(&key).await }
            })
            .await;
    })))
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, SyncError> {
        let Some(node) = self.nodes.get_key(key).filter(|n| !n.is_deleting()) else {
            return Ok(Requeue::No);
        };
        if !node.spec.pod_cidrs.is_empty() {
            self.occupy(&node)?;
            return Ok(Requeue::No);
        }
        let blocks = match self.allocate() {
            Ok(blocks) => blocks,
            Err(error) => {
                self.tell(&node, "CIDRNotAvailable");
                return Err(error);
            }
        };
        match self.assign(&node, &blocks).await {
            Ok(()) => Ok(Requeue::No),
            Err(error) => {
                self.tell(&node, "CIDRAssignmentFailed");
                // After a timeout the node may have them.
                if !error.is_server_timeout() && !error.is_timeout() {
                    self.give_back(&blocks);
                }
                Err(error.into())
            }
        }
    }

    fn tell(&self, node: &Node, status: &str) {
        let message = format!("Node {} status is now: {status}", node.name());
        self.events.event(
            &node_reference(node.name(), node.uid()),
            false,
            status,
            message,
        );
    }

    fn allocate(&self) -> Result<Vec<IpNet>, SyncError> {
        let mut sets = self.sets.lock();
        let mut blocks = Vec::new();
        for i in 0..sets.len() {
            match sets[i].allocate() {
                Ok(block) => blocks.push(block),
                Err(error) => {
                    for (set, block) in sets.iter_mut().zip(&blocks) {
                        let _ = set.release(*block);
                    }
                    return Err(SyncError::Allocate(i, error));
                }
            }
        }
        Ok(blocks)
    }

    fn give_back(&self, blocks: &[IpNet]) {
        for (set, block) in self.sets.lock().iter_mut().zip(blocks) {
            if let Err(err) = set.release(*block) {
                tracing::error!(%err, "cannot release a CIDR");
            }
        }
    }

    async fn assign(&self, node: &Node, blocks: &[IpNet]) -> Result<(), Error> {
        let cidrs: Vec<String> = blocks.iter().map(IpNet::to_string).collect();
        let patch =
            Patch::Strategic(json!({"spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs}}));
        let mut result = Ok(());
        for _ in 0..RETRIES {
            result = self
                .api
                .patch(node.name(), &patch, &PatchOptions::default())
                .await
                .map(drop);
            if result.is_ok() {
                tracing::info!(node = node.name(), ?cidrs, "Set node PodCIDR");
                break;
            }
        }
        // The node may have got others in the meantime; then the patch is refused as invalid,
        // and the next sync takes what it has.
        result
    }

    fn each_cidr(
        &self,
        node: &Node,
        mut f: impl FnMut(&mut CidrSet, IpNet) -> Result<(), CidrSetError>,
    ) -> Result<(), SyncError> {
        let mut sets = self.sets.lock();
        for (i, text) in node.spec.pod_cidrs.iter().enumerate() {
            let name = || node.name().to_owned();
            let cidr: IpNet = text
                .parse()
                .map_err(|_| SyncError::Parse(name(), text.to_string()))?;
            let set = sets
                .get_mut(i)
                .ok_or_else(|| SyncError::NoSuchRange(name(), text.to_string(), i))?;
            f(set, cidr).map_err(|e| SyncError::Occupy(cidr, i, name(), e))?;
        }
        Ok(())
    }

    fn occupy(&self, node: &Node) -> Result<(), SyncError> {
        self.each_cidr(node, CidrSet::occupy)
    }

    fn release(&self, node: &Node) {
        if let Err(err) = self.each_cidr(node, CidrSet::release) {
            tracing::error!(%err, "cannot release a deleted node's CIDRs");
        }
    }
}
