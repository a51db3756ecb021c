//! When pods must leave devices with `NoExecute` taints: pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::resource::v1::{
    AllocationResult, Device, DeviceTaint, DeviceToleration, ResourceSlice,
};
use std::sync::Arc;

const NO_EXECUTE: &str = "NoExecute";

/// A device of a pool, as the newest generation of its slices says.
pub fn device<'a>(slices: &'a [Arc<ResourceSlice>], name: &str) -> Option<&'a Device> {
    let newest = slices.iter().map(|s| s.spec.pool.generation).max()?;
    let slices = slices.iter().filter(|s| s.spec.pool.generation == newest);
    let mut devices = slices.flat_map(|s| s.spec.devices.iter().flatten());
    devices.find(|device| device.name == name)
}

fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    let effect = or_empty(&toleration.effect);
    let key = or_empty(&toleration.key);
    let value = match toleration.operator.as_deref() {
        None | Some("" | "Equal") => or_empty(&toleration.value) == or_empty(&taint.value),
        Some("Exists") => true,
        Some(_) => false,
    };
    (effect.is_empty() || effect == taint.effect) && (key.is_empty() || key == taint.key) && value
}

/// When those who use the devices of an allocation must leave; `None`: they may stay.
/// `device` finds a device by driver, pool and name.
pub fn evict_at<'a>(
    allocation: &AllocationResult,
    device: impl Fn(&str, &str, &str) -> Option<&'a Device>,
    now: Timestamp,
) -> Option<Timestamp> {
    let results = allocation.devices.as_ref().and_then(|d| d.results.as_ref());
    let mut earliest: Option<Timestamp> = None;
    for result in results.into_iter().flatten() {
        let Some(device) = device(&result.driver, &result.pool, &result.device) else {
            continue;
        };
        let taints = device.taints.iter().flatten();
        for taint in taints.filter(|t| t.effect == NO_EXECUTE) {
            let tolerations = result.tolerations.iter().flatten();
            let tolerations = tolerations
                .filter(|t| t.effect.as_deref() == Some(NO_EXECUTE) && tolerates(t, taint));
            let seconds: Vec<_> = tolerations.map(|t| t.toleration_seconds).collect();
            if seconds.contains(&None) {
                continue;
            }
            let added = taint.time_added.as_ref().map_or(now, |t| t.0);
            let grace = seconds.into_iter().flatten().map(|s| s.max(0)).min();
            // A grace past the end of time.
            let Ok(at) = added.checked_add(SignedDuration::from_secs(grace.unwrap_or(0))) else {
                continue;
            };
            earliest = Some(earliest.map_or(at, |before| before.min(at)));
        }
    }
    earliest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ADDED: &str = "2026-01-01T00:00:00Z";

    fn slices(generation: i64, taints: Value) -> Vec<Arc<ResourceSlice>> {
        let slice = |generation: i64, taints: Value| {
            let slice = json!({
                "metadata": {"name": generation.to_string()},
                "spec": {
                    "driver": "d", "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1},
                    "devices": [{"name": "gpu", "taints": taints}],
                },
            });
            Arc::new(serde_json::from_value(slice).unwrap())
        };
        vec![slice(1, json!([])), slice(generation, taints)]
    }

    fn at(taints: Value, tolerations: Value) -> Option<i64> {
        let slices = slices(2, taints);
        let allocation = json!({"devices": {"results": [{
            "request": "r", "driver": "d", "pool": "p", "device": "gpu", "tolerations": tolerations,
        }]}});
        let allocation = serde_json::from_value(allocation).unwrap();
        let added: Timestamp = ADDED.parse().unwrap();
        let now = added + SignedDuration::from_secs(500);
        let when = evict_at(&allocation, |_, _, name| device(&slices, name), now)?;
        Some(when.duration_since(added).as_secs())
    }

    #[test]
    fn taints_count_from_when_they_came() {
        let taint = json!([{"key": "bad", "effect": "NoExecute", "timeAdded": ADDED}]);
        assert_eq!(at(taint.clone(), json!([])), Some(0));
        let soft = json!([{"key": "bad", "effect": "NoSchedule", "timeAdded": ADDED}]);
        assert_eq!(at(soft, json!([])), None);
        let tolerate = |seconds: Value| json!([{"key": "bad", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        assert_eq!(at(taint.clone(), tolerate(json!(30))), Some(30));
        assert_eq!(at(taint.clone(), tolerate(json!(-1))), Some(0));
        assert_eq!(at(taint.clone(), tolerate(json!(i64::MAX))), None);
        assert_eq!(at(taint.clone(), tolerate(json!(null))), None);
        let other = json!([{"key": "good", "operator": "Exists", "effect": "NoExecute"}]);
        assert_eq!(at(taint, other), Some(0));
    }

    #[test]
    fn only_the_newest_generation_counts() {
        let slices = slices(0, json!([{"key": "bad", "effect": "NoExecute"}]));
        assert_eq!(device(&slices, "gpu").unwrap().taints, Some(Vec::new()));
        assert!(device(&slices, "none").is_none());
        assert!(device(&[], "gpu").is_none());
    }
}
