//! ImageLocality: prefers nodes that have the pod's images already, the larger and the more
//! widespread (so that not all pods go where one has been), the better.

use std::sync::Arc;

use crate::cache::{Cache, NodeInfo};
use crate::framework::{ClusterEvent, Hint, MAX_SCORE, Normalize, Plugin, Score};
use crate::model::PodInfo;

pub struct ImageLocality;

const MIB: i64 = 1024 * 1024;
/// Less than this is not worth going somewhere for.
const LEAST: i64 = 23 * MIB;
/// More than this per container makes no difference.
const MOST: i64 = 1000 * MIB;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score(&self, pod: &Arc<PodInfo>, cluster: &Cache) -> Score {
        // A node that gets an image makes evaluations anew.
        if pod.images.iter().all(|i| cluster.nodes_with_image(i) == 0) {
            return Score::Skip;
        }
        let pod = Arc::clone(&pod.template);
        let most = MOST * i64::try_from(pod.containers.max(1)).unwrap_or(1);
        let score = move |node: &NodeInfo, cluster: &Cache| {
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                reason = "bytes, rounded as upstream does"
            )]
            let worth = |image: &String| {
                let size = *node.images.get(image)?;
                let spread = cluster.nodes_with_image(image) as f64 / cluster.node_count() as f64;
                Some((size as f64 * spread) as i64)
            };
            let sum: i64 = pod.images.iter().filter_map(worth).sum();
            MAX_SCORE * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST)
        };
        Score::Local(Box::new(score), Normalize::Not)
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        Hint::Skip
    }
}
