//! `pluginConfig`: the arguments of plugins, with upstream's defaults.

use std::time::Duration;

use anyhow::{Context as _, bail};
use component::flags::GoDuration;
use k8s_openapi::api::core::v1::{NodeAffinity as Affinity, TopologySpreadConstraint};
use meta::validation::qualified_name;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::plugins::default_preemption::DefaultPreemption;
use crate::plugins::dynamic_resources::{DynamicResources, Features};
use crate::plugins::inter_pod_affinity::InterPodAffinity;
use crate::plugins::node_affinity::NodeAffinity;
use crate::plugins::node_resources::{Weighted, cpu_and_memory};
use crate::plugins::node_resources_balanced::BalancedAllocation;
use crate::plugins::node_resources_fit::{Fit, Strategy};
use crate::plugins::pod_topology_spread::PodTopologySpread;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginConfig {
    pub name: String,
    pub args: serde_json::Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct DefaultPreemptionArgs {
    min_candidate_nodes_percentage: Option<usize>,
    min_candidate_nodes_absolute: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct InterPodAffinityArgs {
    hard_pod_affinity_weight: Option<i64>,
    ignore_preferred_terms_of_existing_pods: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NodeAffinityArgs {
    added_affinity: Option<Affinity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct BalancedAllocationArgs {
    resources: Vec<ResourceSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ResourceSpec {
    name: String,
    weight: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FitArgs {
    ignored_resources: Vec<String>,
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Option<ScoringStrategy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ScoringStrategy {
    #[serde(rename = "type")]
    ty: String,
    resources: Vec<ResourceSpec>,
    requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Ratio {
    shape: Vec<ShapePoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ShapePoint {
    utilization: i64,
    score: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PodTopologySpreadArgs {
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct VolumeBindingArgs {
    bind_timeout_seconds: Option<u64>,
    shape: Vec<ShapePoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct DynamicResourcesArgs {
    filter_timeout: Option<GoDuration>,
    binding_timeout: Option<GoDuration>,
}

/// How long finding devices on a node may take.
const FILTER_TIMEOUT_SECONDS: u64 = 10;
/// How long devices may take to become ready.
const BINDING_TIMEOUT_SECONDS: u64 = 600;
/// How long volumes may take to be bound.
const BIND_TIMEOUT_SECONDS: u64 = 600;

/// The arguments of one profile's plugins.
pub struct Args<'a>(pub &'a [PluginConfig]);

impl Args<'_> {
    fn get<T: DeserializeOwned + Default>(&self, plugin: &str) -> anyhow::Result<T> {
        let mut given = self.0.iter().filter(|config| config.name == plugin);
        let Some(config) = given.next() else {
            return Ok(T::default());
        };
        if given.next().is_some() {
            bail!("pluginConfig: Duplicate value: {plugin:?}");
        }
        let mut args = config.args.clone();
        if let Some(fields) = args.as_object_mut() {
            let kind = fields.remove("kind");
            fields.remove("apiVersion");
            if let Some(kind) = kind.as_ref().and_then(|k| k.as_str())
                && kind != format!("{plugin}Args")
            {
                bail!("args for plugin {plugin} were not of type {plugin}Args, got {kind}");
            }
        }
        if args.is_null() {
            return Ok(T::default());
        }
        serde_json::from_value(args).with_context(|| format!("decoding args for plugin {plugin}"))
    }

    pub fn default_preemption(&self) -> anyhow::Result<DefaultPreemption> {
        let args: DefaultPreemptionArgs = self.get("DefaultPreemption")?;
        let percentage = args.min_candidate_nodes_percentage.unwrap_or(10);
        let absolute = args.min_candidate_nodes_absolute.unwrap_or(100);
        if percentage > 100 {
            bail!(
                "minCandidateNodesPercentage: Invalid value: {percentage}: not in valid range [0, 100]"
            );
        }
        if percentage == 0 && absolute == 0 {
            bail!(
                "minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as minCandidateNodesAbsolute"
            );
        }
        Ok(DefaultPreemption {
            min_candidate_nodes_percentage: percentage,
            min_candidate_nodes_absolute: absolute,
        })
    }

    pub fn inter_pod_affinity(&self) -> anyhow::Result<InterPodAffinity> {
        let args: InterPodAffinityArgs = self.get("InterPodAffinity")?;
        let weight = args.hard_pod_affinity_weight.unwrap_or(1);
        if !(0..=100).contains(&weight) {
            bail!("hardPodAffinityWeight: Invalid value: {weight}: not in valid range [0-100]");
        }
        Ok(InterPodAffinity {
            hard_pod_affinity_weight: weight,
            ignore_preferred_terms_of_existing_pods: args.ignore_preferred_terms_of_existing_pods,
        })
    }

    pub fn node_affinity(&self) -> anyhow::Result<NodeAffinity> {
        let args: NodeAffinityArgs = self.get("NodeAffinity")?;
        if let Some(added) = &args.added_affinity {
            check_operators(added)?;
        }
        Ok(NodeAffinity {
            added: args.added_affinity,
        })
    }

    pub fn balanced_allocation(&self) -> anyhow::Result<BalancedAllocation> {
        let args: BalancedAllocationArgs = self.get("NodeResourcesBalancedAllocation")?;
        let resources = weighted(args.resources)?;
        for (i, resource) in resources.iter().enumerate() {
            let name = &resource.name;
            if resources[..i].iter().any(|before| before.name == *name) {
                bail!("resources[{i}].name: Duplicate value: {name:?}");
            }
            if resource.weight != 1 {
                let weight = resource.weight;
                bail!("resources[{i}].weight: Invalid value: {weight}: must be 1");
            }
        }
        Ok(BalancedAllocation { resources })
    }

    pub fn fit(&self) -> anyhow::Result<Fit> {
        let args: FitArgs = self.get("NodeResourcesFit")?;
        if let Some(group) = args
            .ignored_resource_groups
            .iter()
            .find(|g| g.contains('/'))
        {
            bail!(
                "ignoredResourceGroups: Invalid value: {group:?}: resource group name can't contain '/'"
            );
        }
        let ignored = [
            ("ignoredResources", &args.ignored_resources),
            ("ignoredResourceGroups", &args.ignored_resource_groups),
        ];
        for (field, names) in ignored {
            for name in names {
                if let Some(why) = qualified_name(name).first() {
                    bail!("{field}: Invalid value: {name:?}: {why}");
                }
            }
        }
        let strategy = args.scoring_strategy.unwrap_or_default();
        let ratio = strategy.requested_to_capacity_ratio;
        let kind = match (strategy.ty.as_str(), ratio) {
            ("" | "LeastAllocated", None) => Strategy::LeastAllocated,
            ("MostAllocated", None) => Strategy::MostAllocated,
            ("RequestedToCapacityRatio", Some(ratio)) => {
                Strategy::RequestedToCapacityRatio(curve(&ratio.shape)?)
            }
            ("RequestedToCapacityRatio", None) => bail!(
                "scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type is RequestedToCapacityRatio"
            ),
            ("" | "LeastAllocated" | "MostAllocated", Some(_)) => bail!(
                "scoringStrategy.requestedToCapacityRatio: Forbidden: must be nil when type is not RequestedToCapacityRatio"
            ),
            (other, _) => bail!(
                "scoringStrategy.type: Unsupported value: {other:?}: supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\""
            ),
        };
        Ok(Fit {
            ignored: args.ignored_resources,
            ignored_groups: args.ignored_resource_groups,
            strategy: kind,
            resources: weighted(strategy.resources)?,
        })
    }

    pub fn pod_topology_spread(&self) -> anyhow::Result<PodTopologySpread> {
        let args: PodTopologySpreadArgs = self.get("PodTopologySpread")?;
        for constraint in &args.default_constraints {
            if constraint.label_selector.is_some() {
                bail!(
                    "defaultConstraints.labelSelector: Forbidden: constraint must not define a selector, as they deduced for each pod"
                );
            }
            let action = constraint.when_unsatisfiable.as_str();
            if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
                bail!(
                    "defaultConstraints.whenUnsatisfiable: Unsupported value: {action:?}: supported values: \"DoNotSchedule\", \"ScheduleAnyway\""
                );
            }
            if constraint.max_skew <= 0 || constraint.topology_key.is_empty() {
                bail!(
                    "defaultConstraints: a constraint needs a topologyKey and a positive maxSkew"
                );
            }
        }
        match args.defaulting_type.as_str() {
            "" | "System" if args.default_constraints.is_empty() => {
                Ok(PodTopologySpread::default())
            }
            "List" => Ok(PodTopologySpread::with_defaults(args.default_constraints)),
            "" | "System" => {
                bail!(
                    "defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty"
                )
            }
            other => bail!(
                "defaultingType: Unsupported value: {other:?}: supported values: \"System\", \"List\""
            ),
        }
    }

    pub fn dynamic_resources(&self, features: Features) -> anyhow::Result<DynamicResources> {
        let args: DynamicResourcesArgs = self.get("DynamicResources")?;
        let given = |field: Option<GoDuration>, default: u64| {
            field.map_or(Duration::from_secs(default), |given| given.get())
        };
        let filter = given(args.filter_timeout, FILTER_TIMEOUT_SECONDS);
        let binding = given(args.binding_timeout, BINDING_TIMEOUT_SECONDS);
        if args.filter_timeout.is_some() && !features.filter_timeout {
            bail!("filterTimeout: Forbidden: DRASchedulingFilterTimeout feature gate is disabled");
        }
        if args.binding_timeout.is_some() && !features.binding_conditions {
            bail!(
                "bindingTimeout: Forbidden: DRADeviceBindingConditions or DRAResourceClaimDeviceStatus feature gate is disabled"
            );
        }
        if binding < Duration::from_secs(1) {
            bail!("bindingTimeout: Invalid value: {binding:?}: must be at least 1 second");
        }
        Ok(DynamicResources::new(
            features,
            (!filter.is_zero()).then_some(filter),
            binding,
        ))
    }

    /// How long volumes may take to be bound, in seconds.
    pub fn volume_binding_timeout(&self) -> anyhow::Result<u64> {
        let args: VolumeBindingArgs = self.get("VolumeBinding")?;
        if !args.shape.is_empty() {
            bail!(
                "shape: Invalid value: unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring"
            );
        }
        Ok(args.bind_timeout_seconds.unwrap_or(BIND_TIMEOUT_SECONDS))
    }
}

/// Refuses operators that there are not.
fn check_operators(affinity: &Affinity) -> anyhow::Result<()> {
    let required = &affinity.required_during_scheduling_ignored_during_execution;
    let required = required.iter().flat_map(|r| &r.node_selector_terms);
    let preferred = &affinity.preferred_during_scheduling_ignored_during_execution;
    let preferred = preferred.iter().flatten().map(|p| &p.preference);
    let requirements = required.chain(preferred).flat_map(|term| {
        let (fields, labels) = (&term.match_fields, &term.match_expressions);
        fields.iter().chain(labels).flatten()
    });
    for requirement in requirements {
        let operator = requirement.operator.as_str();
        let known = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
        if !known.contains(&operator) {
            bail!(
                "addedAffinity: operator: Invalid value: {operator:?}: not a valid selector operator"
            );
        }
    }
    Ok(())
}

fn weighted(given: Vec<ResourceSpec>) -> anyhow::Result<Vec<Weighted>> {
    if given.is_empty() {
        return Ok(cpu_and_memory());
    }
    given
        .into_iter()
        .map(|resource| {
            let weight = if resource.weight == 0 {
                1
            } else {
                resource.weight
            };
            if !(1..=100).contains(&weight) {
                bail!("resources.weight: Invalid value: {weight}: not in valid range [1-100]");
            }
            Ok(Weighted {
                name: resource.name,
                weight,
            })
        })
        .collect()
}

/// The file's scores are 0 to 10.
fn curve(shape: &[ShapePoint]) -> anyhow::Result<Vec<(i64, i64)>> {
    if shape.is_empty() {
        bail!("shape: Required value: at least one point must be specified");
    }
    for pair in shape.windows(2) {
        if pair[0].utilization >= pair[1].utilization {
            bail!(
                "shape.utilization: Invalid value: {}: values must be sorted in increasing order",
                pair[1].utilization
            );
        }
    }
    let points = shape.iter().map(|point| {
        if !(0..=100).contains(&point.utilization) || !(0..=10).contains(&point.score) {
            bail!("shape: utilization is 0 to 100, and score 0 to 10");
        }
        Ok((point.utilization, point.score * 10))
    });
    points.collect()
}
