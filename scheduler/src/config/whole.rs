//! The configuration as upstream shows it (`/configz`, `--write-config-to`): with all defaults,
//! those of plugins and of their arguments included.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::args::PluginConfig;
use super::plugins::{PluginName, PluginSet, Plugins, multi_point};
use super::{KubeSchedulerConfiguration, VERSIONS};
use crate::extender::ExtenderConfiguration;
use crate::plugins::dynamic_resources::Features;
use crate::plugins::is_default;

impl KubeSchedulerConfiguration {
    /// `gate`: whether a feature is on.
    pub fn whole(&self, gate: &dyn Fn(&str) -> bool) -> Value {
        let (election, connection) = (&self.leader_election, &self.client_connection);
        let profiles = self.profiles.iter().zip(self.scheduler_names());
        let profiles = profiles.map(|(profile, name)| {
            let plugins = plugins(&profile.plugins, gate);
            let mut shown = json!({
                "schedulerName": name,
                "pluginConfig": arguments(&profile.plugin_config, &plugins, gate),
                "plugins": plugins,
            });
            if let Some(percentage) = profile.percentage_of_nodes_to_score {
                shown["percentageOfNodesToScore"] = percentage.into();
            }
            shown
        });
        let mut shown = json!({
            "apiVersion": self.api_version,
            "kind": self.kind,
            "parallelism": self.parallelism,
            "leaderElection": {
                "leaderElect": election.leader_elect,
                "leaseDuration": election.lease_duration,
                "renewDeadline": election.renew_deadline,
                "retryPeriod": election.retry_period,
                "resourceLock": election.resource_lock,
                "resourceName": election.resource_name,
                "resourceNamespace": election.resource_namespace,
            },
            "clientConnection": {
                "kubeconfig": connection.kubeconfig,
                "acceptContentTypes": connection.accept_content_types,
                "contentType": connection.content_type,
                "qps": connection.qps,
                "burst": connection.burst,
            },
            "enableProfiling": self.enable_profiling,
            "enableContentionProfiling": self.enable_contention_profiling,
            "percentageOfNodesToScore": self.percentage_of_nodes_to_score.unwrap_or(0),
            "podInitialBackoffSeconds": self.pod_initial_backoff_seconds,
            "podMaxBackoffSeconds": self.pod_max_backoff_seconds,
            "profiles": profiles.collect::<Vec<_>>(),
        });
        if !self.extenders.is_empty() {
            shown["extenders"] = self
                .extenders
                .iter()
                .map(ExtenderConfiguration::shown)
                .collect();
        }
        if self.delay_cache_until_active {
            shown["delayCacheUntilActive"] = true.into();
        }
        shown
    }
}

fn plugins(given: &Plugins, gate: &dyn Fn(&str) -> bool) -> Value {
    let names = |plugins: &[PluginName]| -> Value {
        let weight = |plugin: &PluginName| plugin.weight.unwrap_or(0);
        let named = plugins.iter();
        let named = named.map(|plugin| json!({"name": plugin.name, "weight": weight(plugin)}));
        named.collect()
    };
    let shown = |enabled: &[PluginName], disabled: &[PluginName]| {
        let mut set = Map::new();
        for (key, plugins) in [("enabled", enabled), ("disabled", disabled)] {
            if !plugins.is_empty() {
                set.insert(key.to_owned(), names(plugins));
            }
        }
        Value::Object(set)
    };
    let set = |set: &PluginSet| shown(&set.enabled, &set.disabled);
    let everywhere = multi_point(&given.multi_point, |plugin| is_default(plugin, gate));
    json!({
        "preEnqueue": set(&given.pre_enqueue),
        "queueSort": set(&given.queue_sort),
        "preFilter": set(&given.pre_filter),
        "filter": set(&given.filter),
        "postFilter": set(&given.post_filter),
        "preScore": set(&given.pre_score),
        "score": set(&given.score),
        "reserve": set(&given.reserve),
        "permit": set(&given.permit),
        "preBind": set(&given.pre_bind),
        "bind": set(&given.bind),
        "postBind": set(&given.post_bind),
        "multiPoint": shown(&everywhere, &given.multi_point.disabled),
        "placementGenerate": set(&given.placement_generate),
        "placementScore": set(&given.placement_score),
    })
}

/// Arguments of plugins that have some, unless they are given.
fn defaults(plugin: &str, gate: &dyn Fn(&str) -> bool) -> Option<Value> {
    let both = json!([{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]);
    Some(match plugin {
        "DefaultPreemption" => {
            json!({"minCandidateNodesPercentage": 10, "minCandidateNodesAbsolute": 100})
        }
        "DynamicResources" => {
            let features = Features::new(gate);
            json!({
                "filterTimeout": features.filter_timeout.then_some("10s"),
                "bindingTimeout": features.binding_conditions.then_some("10m0s"),
            })
        }
        "InterPodAffinity" => json!({
            "hardPodAffinityWeight": 1,
            "ignorePreferredTermsOfExistingPods": false,
        }),
        "NodeAffinity" => json!({}),
        "NodeResourcesBalancedAllocation" => json!({"resources": both}),
        "NodeResourcesFit" => {
            json!({"scoringStrategy": {"type": "LeastAllocated", "resources": both}})
        }
        "PodTopologySpread" => json!({"defaultingType": "System"}),
        "VolumeBinding" => json!({"bindTimeoutSeconds": 600}),
        _ => return None,
    })
}

/// What is given, and the defaults of the other plugins that are enabled somewhere.
fn arguments(given: &[PluginConfig], plugins: &Value, gate: &dyn Fn(&str) -> bool) -> Value {
    let mut shown: Vec<Value> = Vec::new();
    let mut show = |name: &str, args: &Value, defaults: Value| {
        let mut all = json!({"apiVersion": VERSIONS[0], "kind": format!("{name}Args")});
        for fields in [&defaults, args] {
            for (key, value) in fields.as_object().into_iter().flatten() {
                all[key] = value.clone();
            }
        }
        shown.push(json!({"name": name, "args": all}));
    };
    for config in given {
        let defaults = defaults(&config.name, gate).unwrap_or_default();
        show(&config.name, &config.args, defaults);
    }
    let sets = plugins.as_object().into_iter().flatten();
    let enabled = sets.filter_map(|(_, set)| set["enabled"].as_array());
    let names = enabled
        .flatten()
        .filter_map(|plugin| plugin["name"].as_str());
    let names: BTreeSet<&str> = names.collect();
    for name in names {
        if given.iter().all(|config| config.name != name)
            && let Some(defaults) = defaults(name, gate)
        {
            show(name, &Value::Null, defaults);
        }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;

    #[test]
    fn defaults_are_shown() {
        let given = json!({"profiles": [{"pluginConfig": [
            {"name": "VolumeBinding", "args": {"bindTimeoutSeconds": 7}},
        ]}]});
        let config = decode(given).unwrap();
        let whole = config.whole(&|_| true);
        assert_eq!(whole["leaderElection"]["leaseDuration"], "15s");
        let profile = &whole["profiles"][0];
        assert_eq!(profile["schedulerName"], "default-scheduler");
        let first = &profile["pluginConfig"][0];
        assert_eq!(first["args"]["bindTimeoutSeconds"], 7);
        assert_eq!(first["args"]["kind"], "VolumeBindingArgs");
        assert_eq!(profile["pluginConfig"][1]["name"], "DefaultPreemption");
        let enabled = profile["plugins"]["multiPoint"]["enabled"].as_array();
        let weight = json!({"name": "TaintToleration", "weight": 3});
        assert!(enabled.unwrap().contains(&weight));
        // What is shown can be given.
        let again: KubeSchedulerConfiguration = decode(whole.clone()).unwrap();
        assert_eq!(again.whole(&|_| true)["profiles"], whole["profiles"]);
    }
}
