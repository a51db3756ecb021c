//! Writes taints, on top of whatever others have written.

use client::{Api, Error, Object as _, Patch, PatchOptions, optional};
use serde_json::json;

use super::taints::{has, swapped};
use crate::context::now;
use crate::kinds::Node;

const ATTEMPTS: usize = 5;

/// Adds and removes taints of one effect, by key. Nothing is sent if `node` has it right.
pub async fn swap(
    api: &Api<Node>,
    node: &Node,
    effect: &str,
    add: &[&str],
    remove: &[&str],
) -> Result<(), Error> {
    let taints = &node.spec.taints;
    let right = add.iter().all(|k| has(taints, k, effect))
        && !remove.iter().any(|k| has(taints, k, effect));
    if right {
        return Ok(());
    }
    for attempt in 1.. {
        let Some(live) = optional(api.get(node.name()).await)? else {
            return Ok(());
        };
        let Some(taints) = swapped(&live.spec.taints, effect, add, remove, now()) else {
            return Ok(());
        };
        let patch = Patch::Strategic(json!({
            "metadata": {"resourceVersion": live.resource_version()},
            "spec": {"taints": taints},
        }));
        match api
            .patch(live.name(), &patch, &PatchOptions::default())
            .await
        {
            Err(e) if e.is_conflict() && attempt < ATTEMPTS => {}
            other => return optional(other).map(drop),
        }
    }
    Ok(())
}
