//! Claims, classes and slices as they are written, and what becomes of pods.

use k8s_openapi::api::resource::v1::{DeviceClass, ResourceSlice};
use serde_json::{Value, json};

use super::*;
use crate::cache::devices::{DeviceId, Slice};
use crate::framework::{Relief, Score};
use crate::model::{Node, Pod};
use crate::plugins::testing::api_node;

const DRIVER: &str = "gpu.example.com";

/// A cluster with one driver.
struct World {
    cluster: Cache,
    plugin: DynamicResources,
    versions: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            cluster: Cache::default(),
            plugin: DynamicResources::new(Features::new(&|_| true), None, Duration::from_secs(600)),
            versions: 0,
        };
        world.class(
            "gpu",
            json!({"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]}),
        );
        world.node("a", json!({}));
        world
    }

    fn node(&mut self, name: &str, rest: Value) {
        self.cluster.put_node(&api_node(name, rest) as &Node);
    }

    fn class(&mut self, name: &str, spec: Value) {
        let class = json!({"metadata": {"name": name}, "spec": spec});
        let class: DeviceClass = serde_json::from_value(class).unwrap();
        self.cluster.devices.put_class(&Arc::new(class));
    }

    /// A pool of one slice.
    fn slice(&mut self, name: &str, more: Value, devices: Value) {
        let mut spec = json!({
            "driver": DRIVER,
            "pool": {"name": name, "generation": 1, "resourceSliceCount": 1},
            "devices": devices,
        });
        let more = more.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(more);
        let slice = json!({"metadata": {"name": name}, "spec": spec});
        let slice: ResourceSlice = serde_json::from_value(slice).unwrap();
        self.cluster.devices.put_slice(Slice::new(&slice));
    }

    fn claim_with(&mut self, name: &str, devices: Value, status: Value) -> Arc<ResourceClaim> {
        self.versions += 1;
        let claim = json!({
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": format!("uid-{name}"),
                "resourceVersion": self.versions.to_string(),
            },
            "spec": {"devices": devices},
            "status": status,
        });
        let claim: Arc<ResourceClaim> = Arc::new(serde_json::from_value(claim).unwrap());
        self.cluster.devices.put_claim(&claim);
        claim
    }

    fn claim(&mut self, name: &str, request: Value) {
        let requests = json!([{"name": "r", "exactly": exactly(request)}]);
        self.claim_with(name, json!({"requests": requests}), json!({}));
    }

    fn judge(&self, pod: &Arc<PodInfo>, node: &str) -> Verdict {
        let node = self.cluster.node_named(node).unwrap();
        match self.plugin.filter(pod, &self.cluster) {
            Filter::Own(own) => own.judge(node, &[], &self.cluster),
            Filter::Skip => Ok(()),
            Filter::Reject(rejection) => Err(rejection),
            _ => panic!("it is about one pod"),
        }
    }

    #[track_caller]
    fn refuses(&self, pod: &Arc<PodInfo>, node: &str, why: &str) {
        let rejection = self.judge(pod, node).unwrap_err();
        assert_eq!(rejection.reasons, [why]);
    }

    /// The devices of each claim, and the allocations are promised.
    fn place(&mut self, pod: &Arc<PodInfo>, node: &str) -> Vec<Vec<String>> {
        let node = self.cluster.node_named(node).unwrap();
        let promise = self.plugin.promise(pod, node, &self.cluster.devices);
        let promise = promise.unwrap().unwrap();
        promise.remember(&mut self.cluster.devices);
        let devices = |promised: &Promised| {
            let allocation = promised.allocation.as_ref().unwrap();
            let devices = allocation.devices.as_ref().unwrap();
            let results = devices.results.iter().flatten();
            results
                .map(|r| format!("{}={}", r.request, r.device))
                .collect()
        };
        promise.claims.iter().map(devices).collect()
    }
}

fn exactly(more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    let more = more.as_object().unwrap().clone();
    exactly.as_object_mut().unwrap().extend(more);
    exactly
}

fn pod_with(spec: Value, status: Value) -> Arc<PodInfo> {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "pod"},
        "spec": spec,
        "status": status,
    });
    PodInfo::new(&serde_json::from_value::<Pod>(pod).unwrap())
}

fn pod(claims: &[&str]) -> Arc<PodInfo> {
    let named = |name: &&str| json!({"name": name, "resourceClaimName": name});
    let claims: Vec<Value> = claims.iter().map(named).collect();
    pod_with(json!({"resourceClaims": claims}), json!({}))
}

fn devices(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name})).collect()
}

#[test]
fn a_pod_without_claims_is_nobodys_business() {
    let world = World::new();
    let filter = world.plugin.filter(&pod(&[]), &world.cluster);
    assert!(matches!(filter, Filter::Skip));
}

#[test]
fn a_claim_must_be_there_and_be_the_pods() {
    let mut world = World::new();
    let missing = world
        .plugin
        .admit(&pod(&["c"]), &world.cluster)
        .unwrap_err();
    assert_eq!(
        missing.reasons,
        ["could not find *v1.ResourceClaim \"default/c\""]
    );
    let template = json!({"resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}]});
    let waiting = pod_with(template.clone(), json!({}));
    let waits = world.plugin.admit(&waiting, &world.cluster).unwrap_err();
    assert_eq!(
        waits.reasons,
        ["pod \"default/p\": ResourceClaim not created yet"]
    );
    world.claim("c", json!({}));
    assert!(world.plugin.admit(&pod(&["c"]), &world.cluster).is_ok());
    let status = json!({"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "c"}]});
    let made = pod_with(template, status);
    let others = world.plugin.admit(&made, &world.cluster).unwrap_err();
    assert_eq!(
        others.reasons,
        ["ResourceClaim default/c was not created for Pod default/p (Pod is not owner)"]
    );
}

#[test]
fn a_class_must_be_there() {
    let mut world = World::new();
    world.claim("c", json!({"deviceClassName": "other"}));
    world.refuses(
        &pod(&["c"]),
        "a",
        "request r: device class other does not exist",
    );
}

#[test]
fn devices_are_given_in_their_order_and_once() {
    let mut world = World::new();
    world.slice("b", json!({"nodeName": "a"}), devices(&["x", "y"]));
    world.slice("a", json!({"allNodes": true}), devices(&["z"]));
    for name in ["c", "d", "e", "f"] {
        world.claim(name, json!({}));
    }
    assert_eq!(world.place(&pod(&["c", "d"]), "a"), [["r=z"], ["r=x"]]);
    world.refuses(
        &pod(&["c"]),
        "a",
        "resource claim default/c is in the process of being allocated",
    );
    assert_eq!(world.place(&pod(&["e"]), "a"), [["r=y"]]);
    world.refuses(&pod(&["f"]), "a", "cannot allocate all claims");
}

#[test]
fn where_an_allocated_claim_can_be_used() {
    let mut world = World::new();
    world.node("b", json!({}));
    world.slice("a", json!({"nodeName": "a"}), devices(&["x"]));
    world.claim("c", json!({}));
    let node = world.cluster.node_named("a").unwrap();
    let promise = world
        .plugin
        .promise(&pod(&["c"]), node, &world.cluster.devices);
    let promise = promise.unwrap().unwrap();
    let allocation = promise.claims[0].allocation.as_deref().unwrap();
    let status = json!({"allocation": allocation});
    let claim = world.claim_with("c", json!({"requests": []}), status);
    assert!(world.judge(&pod(&["c"]), "a").is_ok());
    world.refuses(&pod(&["c"]), "b", "resourceclaim not available on the node");
    // A claim that nobody uses could as well have a device elsewhere.
    let filter = world.plugin.filter(&pod(&["c"]), &world.cluster);
    let Filter::Own(own) = filter else { panic!() };
    let elsewhere = world.cluster.node_named("b").unwrap();
    assert!(own.judge(elsewhere, &[], &world.cluster).is_err());
    match own.relief() {
        Relief::Deallocate(freed) => assert_eq!(freed.uid(), claim.uid()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn selectors_select_and_fail() {
    let mut world = World::new();
    let device = |name: &str, model: &str, memory: &str| {
        json!({
            "name": name,
            "attributes": {"model": {"string": model}, "other.example.com/n": {"int": 1}},
            "capacity": {"memory": {"value": memory}},
        })
    };
    let both = json!([device("x", "a", "10Gi"), device("y", "b", "40Gi")]);
    world.slice("a", json!({"nodeName": "a"}), both);
    let selecting = |expression: &str| json!({"selectors": [{"cel": {"expression": expression}}]});
    for (name, expression) in [
        ("c", "device.attributes['gpu.example.com'].model == 'b'"),
        (
            "d",
            "device.capacity['gpu.example.com'].memory.isLessThan(quantity('20Gi'))",
        ),
        ("e", "device.attributes['other.example.com'].n == 2"),
        ("f", "device.attributes['nobody.example.com'].n == 2"),
    ] {
        world.claim(name, selecting(expression));
    }
    assert_eq!(world.place(&pod(&["c", "d"]), "a"), [["r=y"], ["r=x"]]);
    world.refuses(&pod(&["e"]), "a", "cannot allocate all claims");
    world.cluster.devices.settle("uid-c");
    let rejection = world.judge(&pod(&["f"]), "a").unwrap_err();
    assert!(rejection.error);
    assert_eq!(
        rejection.reasons,
        [
            "running \"DynamicResources\" filter plugin: claim default/f: selector #0: CEL runtime error: no such key: n"
        ]
    );
}

#[test]
fn all_devices_or_none() {
    let mut world = World::new();
    world.slice("a", json!({"nodeName": "a"}), devices(&["x", "y"]));
    world.claim("c", json!({"allocationMode": "All", "count": null}));
    world.claim("d", json!({}));
    assert_eq!(world.place(&pod(&["c"]), "a"), [["r=x", "r=y"]]);
    world.cluster.devices.settle("uid-c");
    world.place(&pod(&["d"]), "a");
    world.refuses(&pod(&["c"]), "a", "cannot allocate all claims");
}

#[test]
fn who_looks_after_devices_shares_them() {
    let mut world = World::new();
    world.slice("a", json!({"nodeName": "a"}), devices(&["x"]));
    world.claim("c", json!({}));
    world.claim(
        "d",
        json!({"adminAccess": true, "allocationMode": "All", "count": null}),
    );
    assert_eq!(world.place(&pod(&["c"]), "a"), [["r=x"]]);
    assert_eq!(world.place(&pod(&["d"]), "a"), [["r=x"]]);
}

#[test]
fn the_first_alternative_that_works_is_taken_and_worth_most() {
    let mut world = World::new();
    world.node("b", json!({}));
    world.class(
        "big",
        json!({"selectors": [{"cel": {"expression": "device.attributes['gpu.example.com'].big"}}]}),
    );
    let device =
        |name: &str, big: bool| json!([{"name": name, "attributes": {"big": {"bool": big}}}]);
    world.slice("a", json!({"nodeName": "a"}), device("x", false));
    world.slice("b", json!({"nodeName": "b"}), device("y", true));
    let alternative = |name: &str, class: &str| json!({"name": name, "deviceClassName": class, "allocationMode": "ExactCount", "count": 1});
    let both = [alternative("large", "big"), alternative("any", "gpu")];
    let requests = json!([{"name": "r", "firstAvailable": both}]);
    world.claim_with("c", json!({"requests": requests}), json!({}));
    let pod = pod(&["c"]);
    let Filter::Own(own) = world.plugin.filter(&pod, &world.cluster) else {
        panic!()
    };
    let slots = ["a", "b"].map(|name| {
        let node = world.cluster.node_named(name).unwrap();
        own.judge(node, &[], &world.cluster).unwrap();
        node.slot
    });
    assert_eq!(own.score(&slots), Some(vec![87, 100]), "7 and 8 of 8");
    assert!(matches!(
        world.plugin.score(&pod, &world.cluster),
        Score::Skip
    ));
    assert_eq!(world.place(&pod, "a"), [["r/any=x"]]);
}

#[test]
fn constraints_bind_devices_together() {
    let mut world = World::new();
    let device =
        |name: &str, root: &str| json!({"name": name, "attributes": {"root": {"string": root}}});
    let all = json!([
        device("w", "0"),
        device("x", "1"),
        device("y", "1"),
        device("z", "2")
    ]);
    world.slice("a", json!({"nodeName": "a"}), all);
    let claim = |constraint: &str, count: i64| {
        json!({
            "requests": [{"name": "r", "exactly": exactly(json!({"count": count}))}],
            "constraints": [{constraint: "gpu.example.com/root"}],
        })
    };
    world.claim_with("c", claim("matchAttribute", 2), json!({}));
    assert_eq!(world.place(&pod(&["c"]), "a"), [["r=x", "r=y"]]);
    world.cluster.devices.settle("uid-c");
    world.claim_with("d", claim("distinctAttribute", 3), json!({}));
    assert_eq!(world.place(&pod(&["d"]), "a"), [["r=w", "r=x", "r=z"]]);
    world.claim_with("e", claim("matchAttribute", 3), json!({}));
    world.refuses(&pod(&["e"]), "a", "cannot allocate all claims");
}

#[test]
fn taints_keep_off_who_does_not_tolerate_them() {
    let mut world = World::new();
    let tainted =
        json!([{"name": "x", "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}]);
    world.slice("a", json!({"nodeName": "a"}), tainted);
    world.claim("c", json!({}));
    world.claim(
        "d",
        json!({"tolerations": [{"key": "k", "operator": "Exists"}]}),
    );
    world.refuses(&pod(&["c"]), "a", "cannot allocate all claims");
    assert_eq!(world.place(&pod(&["d"]), "a"), [["r=x"]]);
}

#[test]
fn parts_of_a_device_share_its_counters() {
    let mut world = World::new();
    let pool = json!({"name": "a", "generation": 1, "resourceSliceCount": 2});
    let counters = json!({
        "pool": pool, "allNodes": true,
        "sharedCounters": [{"name": "gpu", "counters": {"memory": {"value": "40Gi"}}}],
    });
    world.slice("a-counters", counters, json!([]));
    let part = |name: &str, memory: &str| json!({"name": name, "consumesCounters": [{"counterSet": "gpu", "counters": {"memory": {"value": memory}}}]});
    let parts = json!([
        part("large", "30Gi"),
        part("middle", "20Gi"),
        part("small", "10Gi")
    ]);
    world.slice("a-parts", json!({"pool": pool, "nodeName": "a"}), parts);
    for name in ["c", "d", "e"] {
        world.claim(name, json!({}));
    }
    assert_eq!(
        world.place(&pod(&["c", "d"]), "a"),
        [["r=large"], ["r=small"]]
    );
    world.refuses(&pod(&["e"]), "a", "cannot allocate all claims");
}

#[test]
fn what_contradicts_itself_is_not_used() {
    let mut world = World::new();
    world.slice("a", json!({"nodeName": "a"}), devices(&["x", "x"]));
    world.claim("c", json!({}));
    world.claim("d", json!({"allocationMode": "All", "count": null}));
    world.refuses(&pod(&["c"]), "a", "invalid resource pools were encountered");
    let rejection = world.judge(&pod(&["d"]), "a").unwrap_err();
    assert!(rejection.error && rejection.reasons[0].contains("is currently invalid"));
    let pool = json!({"name": "a", "generation": 2, "resourceSliceCount": 2});
    world.slice("a", json!({"nodeName": "a", "pool": pool}), devices(&["x"]));
    world.refuses(&pod(&["c"]), "a", "cannot allocate all claims");
    let rejection = world.judge(&pod(&["d"]), "a").unwrap_err();
    assert!(rejection.reasons[0].contains("is currently being updated"));
}

#[test]
fn capacity_is_shared() {
    let mut world = World::new();
    let memory = json!({
        "value": "10Gi",
        "requestPolicy": {"default": "1Gi", "validRange": {"min": "1Gi", "step": "2Gi"}},
    });
    let shared =
        json!([{"name": "x", "allowMultipleAllocations": true, "capacity": {"memory": memory}}]);
    world.slice("a", json!({"nodeName": "a"}), shared);
    let asking = |memory: &str| json!({"capacity": {"requests": {"memory": memory}}});
    world.claim("c", asking("4Gi"));
    world.claim("d", asking("4Gi"));
    world.claim("e", json!({}));
    assert_eq!(world.place(&pod(&["c"]), "a"), [["r=x"]]);
    let id = DeviceId::new(DRIVER, "a", "x");
    let taken =
        |world: &World| world.cluster.devices.capacity_taken(&id).unwrap()["memory"].value() >> 30;
    assert_eq!(taken(&world), 5, "rounded up to a step");
    world.place(&pod(&["d"]), "a");
    world.refuses(&pod(&["e"]), "a", "cannot allocate all claims");
    world.cluster.devices.settle("uid-d");
    world.place(&pod(&["e"]), "a");
    assert_eq!(taken(&world), 6, "the default");
}

#[test]
fn a_claim_has_at_most_so_many_devices() {
    let mut world = World::new();
    world.claim("c", json!({"count": 33}));
    let rejection = world.judge(&pod(&["c"]), "a").unwrap_err();
    assert!(rejection.error);
    assert!(rejection.reasons[0].ends_with(
        "claim default/c: number of requested devices 33 exceeds the claim limit of 32"
    ));
}

#[test]
fn extended_resources_may_be_devices() {
    let mut world = World::new();
    world.class("gpu", json!({"extendedResourceName": "example.com/gpu"}));
    world.node(
        "b",
        json!({"status": {"allocatable": {"example.com/gpu": "1"}}}),
    );
    world.slice("a", json!({"nodeName": "a"}), devices(&["x"]));
    let container =
        json!({"name": "c", "resources": {"requests": {"cpu": "1", "example.com/gpu": "1"}}});
    let pod = pod_with(json!({"containers": [container]}), json!({}));
    assert!(world.judge(&pod, "b").is_ok(), "it is plugged in there");
    assert!(world.judge(&pod, "a").is_ok());
    let node = world.cluster.node_named("b").unwrap();
    let promise = world.plugin.promise(&pod, node, &world.cluster.devices);
    assert!(promise.unwrap().is_none());
    let node = world.cluster.node_named("a").unwrap();
    let promise = world.plugin.promise(&pod, node, &world.cluster.devices);
    let promise = promise.unwrap().unwrap();
    let mappings = promise.claims[0].mappings.as_ref().unwrap();
    assert_eq!(mappings[0].request_name, "container-0-request-1");
    promise.remember(&mut world.cluster.devices);
    assert!(
        world
            .cluster
            .devices
            .is_taken(&DeviceId::new(DRIVER, "a", "x"))
    );
}

#[test]
fn devices_may_have_to_become_ready() {
    let mut world = World::new();
    let result = json!({
        "request": "r", "driver": DRIVER, "pool": "a", "device": "x",
        "bindingConditions": ["Attached"], "bindingFailureConditions": ["Failed"],
    });
    let with = |conditions: Value| {
        json!({
            "allocation": {"devices": {"results": [result]}, "allocationTimestamp": "2026-01-01T00:00:00Z"},
            "devices": [{"driver": DRIVER, "pool": "a", "device": "x", "conditions": conditions}],
        })
    };
    let condition = |ty: &str| json!([{"type": ty, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let claim = world.claim_with("c", json!({}), with(json!([])));
    assert_eq!(is_ready(&claim), Ok(false));
    let timeout = Duration::from_secs(600);
    assert!(is_overdue(
        &claim,
        timeout,
        "2026-01-01T00:10:01Z".parse().unwrap()
    ));
    assert!(!is_overdue(
        &claim,
        timeout,
        "2026-01-01T00:09:59Z".parse().unwrap()
    ));
    let claim = world.claim_with("c", json!({}), with(condition("Attached")));
    assert_eq!(is_ready(&claim), Ok(true));
    let claim = world.claim_with("c", json!({}), with(condition("Failed")));
    assert_eq!(
        is_ready(&claim).unwrap_err(),
        "device binding failed: claim=c, reason=R, message=\"m\""
    );
}

#[test]
fn what_helps() {
    let mut world = World::new();
    world.slice("a", json!({"nodeName": "a"}), devices(&["x"]));
    world.claim("c", json!({}));
    world.claim("d", json!({}));
    let claim = |world: &World, name: &str| {
        let key = ObjectKey::new("default", name);
        Arc::clone(world.cluster.devices.claim(&key).unwrap())
    };
    let (own, other) = (claim(&world, "c"), claim(&world, "d"));
    let hint = |world: &World, old: Option<&Arc<ResourceClaim>>, new: &Arc<ResourceClaim>| {
        let event = DeviceEvent::Claim {
            old: old.cloned(),
            new: Arc::clone(new),
        };
        let event = ClusterEvent::Devices(&event);
        world.plugin.hint(&pod(&["c"]), &event, &world.cluster)
    };
    assert_eq!(hint(&world, None, &own), Hint::Queue);
    assert_eq!(hint(&world, None, &other), Hint::Skip);
    assert_eq!(
        hint(&world, Some(&own), &own),
        Hint::Skip,
        "nothing has changed"
    );
    let mut allocated = (*other).clone();
    allocated.status.get_or_insert_default().allocation = Some(AllocationResult::default());
    assert_eq!(hint(&world, Some(&allocated.into()), &other), Hint::Queue);
}
