//! Reads the node anew before a pod is turned away: it may have been placed by what its node has
//! become meanwhile, and here is not known yet.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use tracing::warn;

use super::SyncLoop;
use crate::event::Event;
use crate::pods::pod::{PodExt, PodUid, is_terminal_phase};

impl SyncLoop {
    /// Has a pod that cannot run judged once more. False where there is nobody to ask.
    pub(super) fn look_again(&mut self, uid: &PodUid, pod: &Arc<Pod>) -> bool {
        let Some(nodes) = self.settings.nodes.clone() else {
            return false;
        };
        self.doubted.insert(uid.clone(), pod.clone());
        let (uid, told) = (uid.clone(), self.told.clone());
        let (facts, name) = (self.syncer.facts.clone(), self.settings.node_name.clone());
        tokio::spawn(async move {
            match nodes.get(&name).await {
                Ok(node) => {
                    let node = Arc::new(node);
                    facts.update(|facts| {
                        if is_newer(&node, facts.node.as_deref()) {
                            facts.node = Some(node.clone());
                        }
                    });
                }
                Err(error) => warn!(%error, "the node cannot be read"),
            }
            let _ = told.send(Event::NodeRead(uid));
        });
        true
    }

    /// Whether the pod waits for the node to be read. One that is to end waits no more.
    pub(super) fn is_doubted(&mut self, uid: &PodUid, pod: &Arc<Pod>) -> bool {
        if is_terminal_phase(pod.phase()) || pod.is_deleting() {
            self.doubted.remove(uid);
            return false;
        }
        match self.doubted.get_mut(uid) {
            Some(doubted) => {
                *doubted = pod.clone();
                true
            }
            None => false,
        }
    }
}

fn is_newer(node: &Node, known: Option<&Node>) -> bool {
    let version = |node: &Node| {
        let version = node.metadata.resource_version.as_deref();
        version.and_then(|v| v.parse::<u64>().ok())
    };
    known.is_none_or(|known| version(node) > version(known))
}
