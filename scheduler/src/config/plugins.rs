//! Which plugins a profile has at which extension point: the defaults, what the file
//! changes of them, and the file's `multiPoint` spread over the points that plugins have.

use anyhow::bail;
use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Plugins {
    pub pre_enqueue: PluginSet,
    pub queue_sort: PluginSet,
    pub pre_filter: PluginSet,
    pub filter: PluginSet,
    pub post_filter: PluginSet,
    pub pre_score: PluginSet,
    pub score: PluginSet,
    pub reserve: PluginSet,
    pub permit: PluginSet,
    pub pre_bind: PluginSet,
    pub bind: PluginSet,
    pub post_bind: PluginSet,
    pub multi_point: PluginSet,
    pub placement_generate: PluginSet,
    pub placement_score: PluginSet,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginSet {
    pub enabled: Vec<PluginName>,
    pub disabled: Vec<PluginName>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginName {
    pub name: String,
    pub weight: Option<i64>,
}

/// The extension points where this scheduler asks plugins one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    PreEnqueue,
    QueueSort,
    Filter,
    PostFilter,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
    PlacementGenerate,
    PlacementScore,
}

use Point::{
    Bind, Filter, Permit, PlacementGenerate, PlacementScore, PostFilter, PreBind, PreEnqueue,
    QueueSort, Reserve, Score,
};

/// Upstream's default plugins in their order, with their weights and the points they have.
const DEFAULTS: &[(&str, i64, &[Point])] = &[
    ("SchedulingGates", 0, &[PreEnqueue]),
    ("PrioritySort", 0, &[QueueSort]),
    ("NodeUnschedulable", 0, &[Filter]),
    ("NodeName", 0, &[Filter]),
    ("TaintToleration", 3, &[Filter, Score]),
    ("NodeAffinity", 2, &[Filter, Score]),
    ("NodePorts", 0, &[Filter]),
    ("NodeResourcesFit", 1, &[Filter, Score, PlacementScore]),
    ("VolumeRestrictions", 0, &[Filter]),
    ("NodeVolumeLimits", 0, &[Filter]),
    ("VolumeBinding", 0, &[Filter, Reserve, PreBind]),
    ("VolumeZone", 0, &[Filter]),
    ("PodTopologySpread", 2, &[Filter, Score]),
    ("InterPodAffinity", 2, &[Filter, Score]),
    (
        "DynamicResources",
        2,
        &[PreEnqueue, Filter, PostFilter, Reserve, PreBind],
    ),
    ("DefaultPreemption", 0, &[PreEnqueue, PostFilter]),
    ("NodeResourcesBalancedAllocation", 1, &[Score]),
    ("ImageLocality", 1, &[Score]),
    ("DefaultBinder", 0, &[Bind]),
    ("NodeDeclaredFeatures", 0, &[Filter]),
    ("GangScheduling", 0, &[PreEnqueue, Permit]),
    ("TopologyPlacementGenerator", 0, &[PlacementGenerate]),
    ("PodGroupPodsCount", 1, &[PlacementScore]),
];

fn points(name: &str) -> Option<&'static [Point]> {
    let (_, _, points) = DEFAULTS.iter().find(|(known, ..)| *known == name)?;
    Some(points)
}

/// The file's `multiPoint` over the defaults (`mergePluginSet`).
pub(super) fn multi_point(custom: &PluginSet, gates: impl Fn(&str) -> bool) -> Vec<PluginName> {
    let disabled = |name: &str| {
        custom
            .disabled
            .iter()
            .any(|p| p.name == "*" || p.name == name)
    };
    let mut replaced: Vec<&str> = Vec::new();
    let mut enabled: Vec<PluginName> = Vec::new();
    for (name, weight, _) in DEFAULTS.iter().filter(|(name, ..)| gates(name)) {
        if disabled(name) {
            continue;
        }
        match custom.enabled.iter().find(|p| p.name == *name) {
            Some(given) => {
                replaced.push(*name);
                enabled.push(given.clone());
            }
            None => enabled.push(PluginName {
                name: (*name).to_owned(),
                weight: Some(*weight).filter(|w| *w != 0),
            }),
        }
    }
    let others = custom.enabled.iter();
    enabled.extend(others.filter(|p| !replaced.contains(&&*p.name)).cloned());
    enabled
}

impl Plugins {
    fn set(&self, point: Point) -> &PluginSet {
        match point {
            PreEnqueue => &self.pre_enqueue,
            QueueSort => &self.queue_sort,
            Filter => &self.filter,
            PostFilter => &self.post_filter,
            Score => &self.score,
            Reserve => &self.reserve,
            Permit => &self.permit,
            PreBind => &self.pre_bind,
            Bind => &self.bind,
            PlacementGenerate => &self.placement_generate,
            PlacementScore => &self.placement_score,
        }
    }

    /// Refuses plugins that there are not. `gates`: whether a default plugin's feature is on.
    pub fn validate(&self) -> anyhow::Result<()> {
        let others = [
            &self.pre_filter,
            &self.pre_score,
            &self.post_bind,
            &self.multi_point,
        ];
        let all = [
            PreEnqueue,
            QueueSort,
            Filter,
            PostFilter,
            Score,
            Reserve,
            Permit,
            PreBind,
            Bind,
            PlacementGenerate,
            PlacementScore,
        ];
        let sets = all.map(|point| self.set(point)).into_iter().chain(others);
        for plugin in sets.flat_map(|set| &set.enabled) {
            if points(&plugin.name).is_none() {
                bail!("plugin {:?} does not exist", plugin.name);
            }
        }
        Ok(())
    }

    /// The plugins of an extension point in the order in which they are asked
    /// (`expandMultiPointPlugins`).
    pub fn at(
        &self,
        point: Point,
        gates: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Vec<PluginName>> {
        let set = self.set(point);
        let mut own: Vec<PluginName> = Vec::new();
        for plugin in &set.enabled {
            if own.iter().any(|p| p.name == plugin.name) {
                bail!("plugin {:?} already registered as {point:?}", plugin.name);
            }
            if !points(&plugin.name).is_some_and(|points| points.contains(&point)) {
                bail!("plugin {:?} does not extend {point:?} plugin", plugin.name);
            }
            own.push(plugin.clone());
        }
        let disabled = |name: &str| set.disabled.iter().any(|p| p.name == name);
        if disabled("*") {
            return Ok(own);
        }
        let mut spread: Vec<PluginName> = Vec::new();
        for plugin in multi_point(&self.multi_point, gates) {
            let has = points(&plugin.name).is_some_and(|points| points.contains(&point));
            if has && !disabled(&plugin.name) {
                if spread.iter().any(|p| p.name == plugin.name) {
                    bail!("plugin {:?} already registered as {point:?}", plugin.name);
                }
                spread.push(plugin);
            }
        }
        let (first, last): (Vec<_>, Vec<_>) = own
            .into_iter()
            .partition(|p| spread.iter().any(|s| s.name == p.name));
        spread.retain(|s| !first.iter().any(|p| p.name == s.name));
        Ok([first, spread, last].concat())
    }
}
