//! The plugins, one file each, and the profiles that a configuration makes of them.

pub mod default_preemption;
pub mod dynamic_resources;
pub mod gang_scheduling;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_declared_features;
pub mod node_name;
pub mod node_ports;
pub mod node_resources;
pub mod node_resources_balanced;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod node_volume_limits;
pub mod pod_group_pods_count;
pub mod pod_topology_spread;
pub mod scheduling_gates;
pub mod taint_toleration;
pub mod topology_placement;
pub mod volume_binding;
pub mod volume_restrictions;
#[cfg(test)]
mod volume_tests;
pub mod volume_zone;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use self::dynamic_resources::{DynamicResources, Features};
use crate::config::ProfileConfiguration;
use crate::config::args::Args;
use crate::config::plugins::{PluginName, Point};
use crate::framework::Plugin;
use crate::profile::{GroupPlugins, Profile};

fn make(
    name: &str,
    args: &Args<'_>,
    ignored: &[String],
    devices: &Arc<DynamicResources>,
) -> anyhow::Result<Option<Arc<dyn Plugin>>> {
    let plugin: Arc<dyn Plugin> = match name {
        "SchedulingGates" => Arc::new(scheduling_gates::SchedulingGates),
        "NodeUnschedulable" => Arc::new(node_unschedulable::NodeUnschedulable),
        "NodeName" => Arc::new(node_name::NodeName),
        "TaintToleration" => Arc::new(taint_toleration::TaintToleration),
        "NodeAffinity" => Arc::new(args.node_affinity()?),
        "NodePorts" => Arc::new(node_ports::NodePorts),
        "NodeResourcesFit" => {
            let mut fit = args.fit()?;
            fit.ignored.extend(ignored.iter().cloned());
            Arc::new(fit)
        }
        "PodTopologySpread" => Arc::new(args.pod_topology_spread()?),
        "InterPodAffinity" => Arc::new(args.inter_pod_affinity()?),
        "NodeResourcesBalancedAllocation" => Arc::new(args.balanced_allocation()?),
        "ImageLocality" => Arc::new(image_locality::ImageLocality),
        "NodeDeclaredFeatures" => Arc::new(node_declared_features::NodeDeclaredFeatures),
        dynamic_resources::NAME => Arc::clone(devices) as Arc<dyn Plugin>,
        "VolumeRestrictions" => Arc::new(volume_restrictions::VolumeRestrictions),
        "NodeVolumeLimits" => Arc::new(node_volume_limits::NodeVolumeLimits),
        "VolumeBinding" => Arc::new(volume_binding::VolumeBinding),
        "VolumeZone" => Arc::new(volume_zone::VolumeZone),
        gang_scheduling::NAME => Arc::new(gang_scheduling::GangScheduling),
        topology_placement::NAME => Arc::new(topology_placement::TopologyPlacement),
        "PodGroupPodsCount" => Arc::new(pod_group_pods_count::PodGroupPodsCount),
        _ => return Ok(None),
    };
    Ok(Some(plugin))
}

/// Whether one of the default plugins is one with these features.
pub fn is_default(plugin: &str, gate: &dyn Fn(&str) -> bool) -> bool {
    match plugin {
        "NodeDeclaredFeatures" => gate("NodeDeclaredFeatures"),
        "DynamicResources" => gate("DynamicResourceAllocation"),
        gang_scheduling::NAME => gate("GangScheduling"),
        topology_placement::NAME | "PodGroupPodsCount" => gate("TopologyAwareWorkloadScheduling"),
        _ => true,
    }
}

/// The profile that a configuration asks for. `ignored` are resources that extenders look
/// after, `gate` is whether a feature is on.
pub fn profile(
    name: &str,
    config: &ProfileConfiguration,
    ignored: &[String],
    gate: &dyn Fn(&str) -> bool,
) -> anyhow::Result<Profile> {
    config.plugins.validate()?;
    let args = Args(&config.plugin_config);
    let devices = Arc::new(args.dynamic_resources(Features::new(gate))?);
    let at = |point| config.plugins.at(point, |plugin| is_default(plugin, gate));
    let mut made: HashMap<String, Option<Arc<dyn Plugin>>> = HashMap::new();
    let mut get = |name: &str| -> anyhow::Result<Option<Arc<dyn Plugin>>> {
        if let Some(known) = made.get(name) {
            return Ok(known.clone());
        }
        let plugin = make(name, &args, ignored, &devices)?;
        made.insert(name.to_owned(), plugin.clone());
        Ok(plugin)
    };
    let mut profile = Profile {
        scheduler_name: name.to_owned(),
        admits: Vec::new(),
        filters: Vec::new(),
        scores: Vec::new(),
        permits: Vec::new(),
        groups: GroupPlugins {
            placements: gate("TopologyAwareWorkloadScheduling"),
            preempts: gate("WorkloadAwarePreemption"),
            ..GroupPlugins::default()
        },
        preemption: None,
        deallocates: false,
        devices: None,
        volumes: None,
        percentage_of_nodes_to_score: config.percentage_of_nodes_to_score,
    };
    for plugin in at(Point::PreEnqueue)? {
        profile.admits.extend(get(&plugin.name)?);
    }
    for plugin in at(Point::Filter)? {
        profile.filters.extend(get(&plugin.name)?);
    }
    let weight = |plugin: &PluginName| plugin.weight.filter(|w| *w != 0).unwrap_or(1);
    for plugin in at(Point::Score)? {
        if let Some(made) = get(&plugin.name)? {
            profile.scores.push((made, weight(&plugin)));
        }
    }
    for plugin in at(Point::Permit)? {
        profile.permits.extend(get(&plugin.name)?);
    }
    for plugin in at(Point::PlacementScore)? {
        if let Some(made) = get(&plugin.name)? {
            profile.groups.scores.push((made, weight(&plugin)));
        }
    }
    match &*at(Point::PlacementGenerate)? {
        [] => {}
        [one] => profile.groups.generator = get(&one.name)?,
        _ => bail!("only one placement generate plugin can be enabled"),
    }
    for plugin in at(Point::PostFilter)? {
        match plugin.name.as_str() {
            "DefaultPreemption" => profile.preemption = Some(args.default_preemption()?),
            _ => profile.deallocates = true,
        }
    }
    let timeout = args.volume_binding_timeout()?;
    if at(Point::PreBind)?
        .iter()
        .any(|p| p.name == "VolumeBinding")
    {
        profile.volumes = Some(Duration::from_secs(timeout));
    }
    if at(Point::PreBind)?
        .iter()
        .any(|p| p.name == dynamic_resources::NAME)
    {
        profile.devices = Some(devices);
    }
    if at(Point::QueueSort)?.len() != 1 {
        bail!("only one queue sort plugin can be enabled");
    }
    if at(Point::Bind)?.is_empty() {
        bail!("at least one bind plugin is needed");
    }
    Ok(profile)
}

/// The default profile (`default-scheduler`).
#[cfg(test)]
pub fn default_profile() -> Profile {
    profile(
        crate::config::DEFAULT_SCHEDULER,
        &ProfileConfiguration::default(),
        &[],
        &|_| true,
    )
    .unwrap()
}

#[cfg(test)]
pub mod testing {
    //! Pods and nodes from JSON, for the plugins' tests.

    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::cache::{Cache, NodeInfo};
    use crate::framework::{Filter, Plugin, Score, Verdict};
    use crate::model::{Node, Pod, PodInfo};

    pub fn pod(spec: Value) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
        PodInfo::new(&serde_json::from_value::<Pod>(pod).unwrap())
    }

    pub fn api_node(name: &str, rest: Value) -> Node {
        let mut node = json!({
            "metadata": {"name": name},
            "status": {"allocatable": {"cpu": "2", "memory": "2Gi", "pods": "10"}},
        });
        for (key, value) in rest.as_object().unwrap() {
            match node.get_mut(key).and_then(Value::as_object_mut) {
                Some(part) => part.extend(value.as_object().unwrap().clone()),
                None => node[key] = value.clone(),
            }
        }
        serde_json::from_value(node).unwrap()
    }

    pub fn node(name: &str, rest: Value) -> NodeInfo {
        NodeInfo::new(&api_node(name, rest))
    }

    /// What a plugin's filter says of one node.
    pub fn filter(plugin: &dyn Plugin, pod: &Arc<PodInfo>, node: &NodeInfo) -> Verdict {
        match plugin.filter(pod, &Cache::default()) {
            Filter::Skip => Ok(()),
            Filter::Reject(rejection) => Err(rejection),
            Filter::Local(judge) | Filter::Only(_, judge) => judge(node),
            Filter::Own(own) => own.judge(node, &[], &Cache::default()),
            Filter::Wide(_) => panic!("it looks at more than one node"),
        }
    }

    /// What a plugin's score of one node is, before normalizing.
    pub fn score(plugin: &dyn Plugin, pod: &Arc<PodInfo>, node: &NodeInfo) -> i64 {
        let cluster = Cache::default();
        match plugin.score(pod, &cluster) {
            Score::Local(score, _) => score(node, &cluster),
            _ => panic!("it does not score one node"),
        }
    }
}
