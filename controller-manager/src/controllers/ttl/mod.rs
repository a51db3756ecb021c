//! ttl-controller: tells kubelets, by an annotation on their nodes, how long they may believe
//! what they have read of Secrets and ConfigMaps: longer in larger clusters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::informer::Store;
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey, Patch, PatchOptions, optional};
use serde_json::json;

use crate::context::{Context, Run};
use crate::kinds::Node;

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
const WORKERS: usize = 5;

/// A size of cluster: fewer nodes than this leave it, more than that do; and its time in
/// seconds. They overlap, so that one node more or less does not change all nodes each time.
const SIZES: [(usize, usize, u32); 5] = [
    (0, 100, 0),
    (90, 500, 15),
    (450, 1000, 30),
    (900, 2000, 60),
    (1800, usize::MAX, 300),
];

/// The size after `size`, with so many nodes.
fn step(mut size: usize, nodes: usize) -> usize {
    while nodes > SIZES[size].1 {
        size += 1;
    }
    while nodes < SIZES[size].0 {
        size -= 1;
    }
    size
}

struct Controller {
    nodes: Store<Node>,
    api: Api<Node>,
    /// Where in [`SIZES`] we are.
    size: AtomicUsize,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("ttl-controller")?;
    let nodes = ctx.informer::<Node>();
    let controller = Arc::new(Controller {
        nodes: nodes.store().clone(),
        api: Api::all(&client),
        size: AtomicUsize::new(0),
    });
    let queue: Queue<ObjectKey> = ctx.queue("ttlcontroller");
    let (c, q) = (Arc::clone(&controller), queue.clone());
    nodes.add_handler(move |change| {
        // One handler runs at a time.
        let before = c.size.load(Ordering::Relaxed);
        let size = step(before, c.nodes.len());
        c.size.store(size, Ordering::Relaxed);
        if size != before {
            c.nodes.keys().into_iter().for_each(|key| q.add(key));
        } else if change.current().is_some() {
            q.add(change.key());
        }
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        nodes.wait_synced().await;
        queue
            .run(WORKERS, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.sync(&key).await }
            })
            .await;
    })))
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let (_, _, seconds) = SIZES[self.size.load(Ordering::Relaxed)];
        let Some(node) = self.nodes.get_key(key) else {
            return Ok(Requeue::No);
        };
        let now = node.metadata.annotations.get(ANNOTATION);
        if now.and_then(|v| v.parse().ok()) == Some(seconds) {
            return Ok(Requeue::No);
        }
        let patch = Patch::Strategic(
            json!({"metadata": {"annotations": {ANNOTATION: seconds.to_string()}}}),
        );
        let options = PatchOptions::default();
        optional(self.api.patch(node.name(), &patch, &options).await)?;
        Ok(Requeue::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_overlap() {
        let mut size = 0;
        for (nodes, seconds) in [
            (100, 0),
            (101, 15),
            (95, 15),
            (89, 0),
            (3000, 300),
            (1800, 300),
            (1799, 60),
            (10, 0),
        ] {
            size = step(size, nodes);
            assert_eq!(SIZES[size].2, seconds, "{nodes}");
        }
    }
}
