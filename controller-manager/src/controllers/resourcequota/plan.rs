//! What a quota's status must say, and which quotas cannot wait.

use std::collections::BTreeMap;

use api::quota::Quota;
use api::resources::ResourceList;
use k8s_openapi::api::core::v1::ResourceQuotaStatus;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

fn written(list: &ResourceList) -> BTreeMap<String, ApiQuantity> {
    list.iter().map(|(k, v)| (k.clone(), v.into())).collect()
}

/// The status to write, if it is not what is there. `usage` is what could be counted; what
/// could not keeps its last count.
pub fn plan(quota: &Quota, usage: ResourceList) -> Option<ResourceQuotaStatus> {
    let hard = &quota.spec.hard;
    let mut used = quota.status.used().clone();
    used.extend(usage);
    used.retain(|name, _| hard.contains_key(name));
    let uncounted = quota.status.hard.is_none() || quota.status.used.is_none();
    if !uncounted && quota.status.hard() == hard && *quota.status.used() == used {
        return None;
    }
    Some(ResourceQuotaStatus {
        hard: Some(written(hard)),
        used: Some(written(&used)),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    Priority,
    Primary,
}

/// A quota is pressing when nobody has counted what it asks for.
pub fn queued(quota: &Quota, can_count: impl Fn(&str) -> bool) -> Queued {
    let status = &quota.status;
    let used = status.used();
    let uncounted = |name: &&String| !used.contains_key(*name) && can_count(name);
    if *status.hard() != quota.spec.hard || status.hard().keys().any(|name| uncounted(&name)) {
        return Queued::Priority;
    }
    Queued::Primary
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    fn quota(spec: Value, status: Value) -> Quota {
        let value = json!({"spec": {"hard": spec}, "status": status});
        Quota::deserialize(value).unwrap()
    }

    fn list(value: Value) -> ResourceList {
        api::resources::resource_list(&value)
    }

    fn planned(quota: &Quota, usage: Value) -> Value {
        serde_json::to_value(plan(quota, list(usage))).unwrap()
    }

    #[test]
    fn the_first_count_is_always_written() {
        let new = quota(json!({"pods": "5"}), json!({}));
        assert_eq!(
            planned(&new, json!({"pods": "0", "cpu": "1"})),
            json!({"hard": {"pods": "5"}, "used": {"pods": "0"}})
        );
        // Even of what nobody can count.
        let unknown = quota(json!({"example.com/x": "5"}), json!({}));
        assert_eq!(
            planned(&unknown, json!({})),
            json!({"hard": {"example.com/x": "5"}, "used": {}})
        );
    }

    #[test]
    fn only_changes_are_written() {
        let status =
            json!({"hard": {"pods": "5", "cpu": "1"}, "used": {"pods": "1", "cpu": "500m"}});
        let same = quota(json!({"pods": "5", "cpu": "1000m"}), status.clone());
        assert_eq!(planned(&same, json!({"pods": "1"})), Value::Null);
        assert_eq!(
            planned(&same, json!({"pods": "0"}))["used"],
            json!({"pods": "0", "cpu": "500m"})
        );
        let less = quota(json!({"pods": "5"}), status);
        assert_eq!(planned(&less, json!({}))["used"], json!({"pods": "1"}));
    }

    #[test]
    fn what_nobody_has_counted_is_pressing() {
        let queued = |spec: Value, status: Value| {
            queued(&quota(spec, status), |name| name != "example.com/x")
        };
        let hard = json!({"pods": "5"});
        assert_eq!(queued(hard.clone(), json!({})), Queued::Priority);
        let counted = json!({"hard": hard, "used": {"pods": "0"}});
        assert_eq!(queued(hard.clone(), counted), Queued::Primary);
        let uncounted = json!({"hard": hard, "used": {}});
        assert_eq!(queued(hard, uncounted), Queued::Priority);
        let unknown = json!({"example.com/x": "1"});
        let status = json!({"hard": unknown, "used": {}});
        assert_eq!(queued(unknown, status), Queued::Primary);
    }
}
