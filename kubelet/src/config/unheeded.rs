//! Fields that this kubelet does not act on. Whoever sets one is told so at start.

use serde_json::{Value, json};

use super::KubeletConfiguration;

/// Fields by their path, and what is done whatever they say.
const UNHEEDED: &[(&str, &str)] = &[
    (
        "configMapAndSecretChangeDetectionStrategy",
        "the objects that pods refer to are watched",
    ),
    (
        "containerLogMaxWorkers",
        "logs are rotated one after another",
    ),
    (
        "enableContentionProfiling",
        "there is no profile of contention",
    ),
    (
        "hairpinMode",
        "bridges are set up by the network plugin of the container runtime",
    ),
    (
        "kernelMemcgNotification",
        "memory is looked at every ten seconds",
    ),
    (
        "kubeletCgroups",
        "the kubelet stays in the cgroup that it was started in",
    ),
    (
        "logging.options",
        "lines are written at once, to one stream",
    ),
    ("memorySwap.swapBehavior", "pods are given no swap"),
    (
        "memoryReservationPolicy",
        "memory is not reserved for containers",
    ),
    (
        "memoryThrottlingFactor",
        "containers are not throttled before their limit of memory",
    ),
    (
        "podCIDR",
        "addresses are given by the network plugin of the container runtime",
    ),
    (
        "qosReserved",
        "nothing is reserved for a quality of service",
    ),
    ("showHiddenMetricsForVersion", "no metrics are hidden"),
    (
        "streamingConnectionIdleTimeout",
        "streams end with what they belong to",
    ),
    (
        "systemCgroups",
        "processes stay in the cgroups that they are in",
    ),
    ("tracing", "no traces are sent"),
    ("userNamespaces.idsPerPod", "pods have no user namespaces"),
    ("volumePluginDir", "flexvolumes are not supported"),
];

/// A warning for each of these that does not have its default.
pub fn unheeded(config: &KubeletConfiguration) -> Vec<String> {
    let (own, default) = (
        json!(config),
        json!(KubeletConfiguration::default().complete()),
    );
    let is_set = |path: &str| at(&own, path) != at(&default, path) && !is_harmless(config, path);
    let set = UNHEEDED.iter().filter(|(path, _)| is_set(path));
    set.map(|(path, instead)| format!("{path} has no effect: {instead}"))
        .collect()
}

/// What is set to what is done anyway.
fn is_harmless(config: &KubeletConfiguration, path: &str) -> bool {
    match path {
        "hairpinMode" => config.hairpin_mode == "none",
        "memorySwap.swapBehavior" => config.memory_swap.swap_behavior == "NoSwap",
        _ => false,
    }
}

fn at<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(tree, |tree, field| tree.get(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_and_not_done_is_told() {
        assert_eq!(
            unheeded(&KubeletConfiguration::default().complete()),
            [""; 0]
        );
        let set = json!({
            "hairpinMode": "none", "podCIDR": "10.0.0.0/24", "containerLogMaxWorkers": 2,
            "memorySwap": {"swapBehavior": "LimitedSwap"}, "userNamespaces": {"idsPerPod": 65536},
        });
        let config = serde_json::from_value::<KubeletConfiguration>(set).unwrap();
        let told = unheeded(&config.complete());
        let fields = told.iter().map(|told| told.split(' ').next().unwrap());
        let expected = [
            "containerLogMaxWorkers",
            "memorySwap.swapBehavior",
            "podCIDR",
            "userNamespaces.idsPerPod",
        ];
        assert_eq!(fields.collect::<Vec<_>>(), expected);
    }

    /// A path that nothing has would never be told.
    #[test]
    fn paths_are_of_fields() {
        let full = json!({
            "kubeletCgroups": "a", "systemCgroups": "a", "podCIDR": "a", "enableContentionProfiling": true,
            "kernelMemcgNotification": true, "qosReserved": {"memory": "1%"},
            "showHiddenMetricsForVersion": "1.35", "tracing": {}, "userNamespaces": {"idsPerPod": 65536},
            "memorySwap": {"swapBehavior": "LimitedSwap"},
        });
        let config = serde_json::from_value::<KubeletConfiguration>(full).unwrap();
        let full = json!(config.complete());
        for (path, _) in UNHEEDED {
            assert!(at(&full, path).is_some(), "{path}");
        }
    }
}
