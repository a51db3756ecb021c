//! The quality-of-service class of a pod (`ComputePodQOS`), from the cpu and memory that
//! its containers ask for.

use std::collections::BTreeMap;

use meta::Quantity;
use serde_json::Value;

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// Requests or limits of one kind of resource, summed up.
type Sums = BTreeMap<&'static str, Quantity>;

fn quantities(list: &Value) -> Sums {
    COMPUTE
        .into_iter()
        .filter_map(|name| {
            let text = match &list[name] {
                Value::String(s) => s.clone(),
                Value::Number(n) => n.to_string(),
                _ => return None,
            };
            let quantity: Quantity = text.parse().ok()?;
            (quantity.sign() > 0).then_some((name, quantity))
        })
        .collect()
}

fn add(sums: &mut Sums, more: Sums) {
    for (name, quantity) in more {
        match sums.get_mut(name) {
            Some(sum) => sum.add(&quantity),
            None => {
                sums.insert(name, quantity);
            }
        }
    }
}

/// The class that the pod says it is of, which is believed as upstream does; where it says none,
/// its [`class`].
pub fn said(pod: &Value) -> &str {
    match pod["status"]["qosClass"].as_str() {
        Some(said) if !said.is_empty() => said,
        _ => class(pod),
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    // Resources of the pod as a whole stand for those of its containers.
    let whole = &spec["resources"];
    let (mut requests, mut limits) = (Sums::new(), Sums::new());
    let mut guaranteed = true;
    if whole.is_object() {
        requests = quantities(&whole["requests"]);
        limits = quantities(&whole["limits"]);
        guaranteed = limits.len() == COMPUTE.len();
    } else {
        let containers = ["containers", "initContainers"]
            .into_iter()
            .flat_map(|list| spec[list].as_array().into_iter().flatten());
        for container in containers {
            add(
                &mut requests,
                quantities(&container["resources"]["requests"]),
            );
            let limited = quantities(&container["resources"]["limits"]);
            guaranteed &= limited.len() == COMPUTE.len();
            add(&mut limits, limited);
        }
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let covered = requests
        .iter()
        .all(|(name, request)| limits.get(name) == Some(request));
    if guaranteed && covered && requests.len() == limits.len() {
        return "Guaranteed";
    }
    "Burstable"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(resources: &[Value]) -> &'static str {
        let containers: Vec<Value> = resources.iter().map(|r| json!({"resources": r})).collect();
        class(&json!({"spec": {"containers": containers}}))
    }

    #[test]
    fn classes() {
        let full = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
        let part = json!({"requests": {"cpu": "100m"}});
        assert_eq!(of(&[json!({})]), "BestEffort");
        assert_eq!(
            of(&[json!({"requests": {"ephemeral-storage": "1Gi"}})]),
            "BestEffort"
        );
        assert_eq!(of(std::slice::from_ref(&full)), "Guaranteed");
        assert_eq!(of(&[full.clone(), full.clone()]), "Guaranteed");
        assert_eq!(of(&[full.clone(), json!({})]), "Burstable");
        assert_eq!(of(&[part]), "Burstable");
        let unequal = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}});
        assert_eq!(of(&[unequal]), "Burstable");
    }
}
