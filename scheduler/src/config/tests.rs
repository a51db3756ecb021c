use serde_json::json;

use super::plugins::{Plugins, Point};
use super::{KubeSchedulerConfiguration, args::Args};

fn plugins(value: serde_json::Value) -> Plugins {
    serde_json::from_value(value).unwrap()
}

fn names(plugins: &Plugins, point: Point) -> Vec<(String, Option<i64>)> {
    let at = plugins.at(point, |_| true).unwrap();
    at.into_iter().map(|p| (p.name, p.weight)).collect()
}

#[test]
fn defaults_are_upstreams() {
    let scores = names(&Plugins::default(), Point::Score);
    let scores: Vec<_> = scores.iter().map(|(n, w)| (n.as_str(), *w)).collect();
    assert_eq!(
        scores,
        [
            ("TaintToleration", Some(3)),
            ("NodeAffinity", Some(2)),
            ("NodeResourcesFit", Some(1)),
            ("PodTopologySpread", Some(2)),
            ("InterPodAffinity", Some(2)),
            ("NodeResourcesBalancedAllocation", Some(1)),
            ("ImageLocality", Some(1)),
        ]
    );
}

#[test]
fn plugins_of_features_are_there_with_them_or_by_name() {
    let at = |plugins: &Plugins, point, on: bool| {
        let feature = |name: &str| on || !matches!(name, "GangScheduling" | "PodGroupPodsCount");
        let at = plugins.at(point, feature).unwrap();
        at.into_iter().map(|p| p.name).collect::<Vec<_>>()
    };
    let (default, point) = (Plugins::default(), Point::PlacementScore);
    let both = ["NodeResourcesFit", "PodGroupPodsCount"];
    assert_eq!(at(&default, point, true), both);
    assert_eq!(at(&default, point, false), ["NodeResourcesFit"]);
    assert_eq!(at(&default, Point::Permit, true), ["GangScheduling"]);
    let named = plugins(json!({"permit": {"enabled": [{"name": "GangScheduling"}]}}));
    named.validate().unwrap();
    assert_eq!(at(&named, Point::Permit, false), ["GangScheduling"]);
}

#[test]
fn a_point_overrides_what_is_for_all_points() {
    let plugins = plugins(json!({
        "multiPoint": {"disabled": [{"name": "ImageLocality"}]},
        "score": {
            "enabled": [{"name": "NodeAffinity", "weight": 9}],
            "disabled": [{"name": "TaintToleration"}],
        },
    }));
    let scores = names(&plugins, Point::Score);
    assert_eq!(scores[0], ("NodeAffinity".to_owned(), Some(9)));
    assert!(
        !scores
            .iter()
            .any(|(n, _)| n == "TaintToleration" || n == "ImageLocality")
    );
    let filters = names(&plugins, Point::Filter);
    assert!(filters.iter().any(|(n, _)| n == "TaintToleration"));
}

#[test]
fn everything_can_be_disabled() {
    let plugins = plugins(json!({
        "multiPoint": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]},
    }));
    assert_eq!(
        names(&plugins, Point::Filter),
        [("NodeResourcesFit".to_owned(), None)]
    );
    assert!(names(&plugins, Point::PostFilter).is_empty());
}

#[test]
fn what_does_not_exist_is_refused() {
    let unknown = plugins(json!({"filter": {"enabled": [{"name": "Magic"}]}}));
    assert!(unknown.validate().is_err());
    let misplaced = plugins(json!({"filter": {"enabled": [{"name": "ImageLocality"}]}}));
    assert!(misplaced.at(Point::Filter, |_| true).is_err());
    let mut config = KubeSchedulerConfiguration::default();
    assert!(config.validate().is_ok());
    config.pod_max_backoff_seconds = 0;
    assert!(config.validate().is_err());
}

#[test]
fn arguments_have_upstreams_defaults_and_bounds() {
    let given = serde_json::from_value(json!([
        {"name": "NodeResourcesFit", "args": {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "NodeResourcesFitArgs",
            "scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu"}]},
        }},
        {"name": "InterPodAffinity", "args": {"hardPodAffinityWeight": 101}},
    ]));
    let given: Vec<super::args::PluginConfig> = given.unwrap();
    let args = Args(&given);
    let fit = args.fit().unwrap();
    assert_eq!((fit.resources.len(), fit.resources[0].weight), (1, 1));
    assert!(args.inter_pod_affinity().is_err());
    assert_eq!(
        args.default_preemption()
            .unwrap()
            .min_candidate_nodes_absolute,
        100
    );
    assert_eq!(args.volume_binding_timeout().unwrap(), 600);
}

#[test]
fn what_is_null_or_zero_has_its_default() {
    let config = super::decode(json!({
        "profiles": [], "extenders": null, "percentageOfNodesToScore": null,
        "leaderElection": {"leaseDuration": "0s", "resourceLock": "", "resourceName": "mine"},
        "clientConnection": {"qps": 0, "burst": 0, "contentType": ""},
    }))
    .unwrap();
    config.validate().unwrap();
    let election = &config.leader_election;
    assert_eq!(election.lease_duration.get().as_secs(), 15);
    assert_eq!(election.resource_name, "mine");
    assert_eq!(config.client_connection.burst, 100);
    assert_eq!(config.scheduler_names(), ["default-scheduler"]);
    // What has no default stays as it is.
    let zero = super::decode(json!({"parallelism": 0})).unwrap();
    assert!(zero.validate().is_err());
}

#[test]
fn profiles_share_a_queue_and_extenders_no_resource() {
    let refused = |given: serde_json::Value| {
        let config = super::decode(given).unwrap();
        config.validate().unwrap_err().to_string()
    };
    let sort = json!({"queueSort": {"enabled": [{"name": "PrioritySort"}]}});
    let why = refused(json!({"profiles": [
        {"schedulerName": "a"}, {"schedulerName": "b", "plugins": sort},
    ]}));
    assert!(why.ends_with("must be the same for all profiles"), "{why}");
    let extender = |name: &str| json!({"managedResources": [{"name": name}]});
    let why = refused(json!({"extenders": [extender("cpu")]}));
    assert!(
        why.ends_with("is an invalid extended resource name"),
        "{why}"
    );
    let why = refused(json!({"extenders": [extender("x.io/a"), extender("x.io/a")]}));
    assert!(
        why.contains("duplicate extender managed resource name"),
        "{why}"
    );
}

#[test]
fn arguments_that_say_nothing_sensible_are_refused() {
    let given = serde_json::from_value(json!([
        {"name": "NodeResourcesFit", "args": {"ignoredResources": ["a b"]}},
        {"name": "NodeAffinity", "args": {"addedAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "Foo"}]},
            ]},
        }}},
        {"name": "PodTopologySpread", "args": {"defaultingType": "List", "defaultConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "Foo"},
        ]}},
        {"name": "NodeResourcesBalancedAllocation", "args": {
            "resources": [{"name": "cpu", "weight": 2}],
        }},
    ]));
    let given: Vec<super::args::PluginConfig> = given.unwrap();
    let args = Args(&given);
    assert!(args.fit().is_err());
    assert!(args.node_affinity().is_err());
    assert!(args.pod_topology_spread().is_err());
    assert!(args.balanced_allocation().is_err());
}
