use serde_json::json;

use super::check::{Change, Refusal, Request, check};
use super::config::LimitedResource;
use super::resource_claims::{DeviceClass, Owner};
use super::*;

#[derive(Default)]
struct Nobody(Option<Owner>);

impl Owners for Nobody {
    fn pod(&self, _: &str, _: &str) -> Option<Owner> {
        self.0.clone()
    }
    fn claims(&self, _: &str, _: &str) -> Vec<(String, String)> {
        Vec::new()
    }
}

fn measure(group: &str, resource: &str, object: Value) -> Measured {
    let around = Surroundings {
        classes: &DeviceClasses::default(),
        owners: &Nobody::default(),
    };
    let evaluator = Evaluator::of(group, resource);
    evaluator.measure(&object, &around).unwrap()
}

fn text(list: &ResourceList) -> String {
    let all: Vec<String> = list.iter().map(|(k, v)| format!("{k}={v}")).collect();
    all.join(" ")
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn cost(resource: &str, object: Value) -> String {
    text(&measure("", resource, object).usage(now()))
}

fn pod(requests: Value, limits: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c",
        "resources": {"requests": requests, "limits": limits}}]}})
}

#[test]
fn pods_cost_what_they_ask_for() {
    assert_eq!(
        cost(
            "pods",
            pod(
                json!({"cpu": "1", "hugepages-2Mi": "2Mi", "example.com/gpu": "3"}),
                json!({"memory": "1Gi"})
            )
        ),
        "count/pods=1 cpu=1 hugepages-2Mi=2Mi limits.memory=1Gi pods=1 requests.cpu=1 \
         requests.example.com/gpu=3 requests.hugepages-2Mi=2Mi"
    );
    let mut ended = pod(json!({"cpu": "1"}), json!({}));
    ended["status"] = json!({"phase": "Failed"});
    assert_eq!(cost("pods", ended), "count/pods=1");
    let mut lost = pod(json!({}), json!({}));
    lost["metadata"] = json!({"deletionTimestamp": "2027-01-15T07:59:00Z",
                              "deletionGracePeriodSeconds": 30});
    let lost = measure("", "pods", lost);
    assert!(!lost.is_charged(now()));
    let earlier = now() - jiff::SignedDuration::from_secs(40);
    assert!(lost.is_charged(earlier));
    assert_eq!(text(&lost.usage(earlier)), "count/pods=1 pods=1");
}

#[test]
fn services_cost_their_ports() {
    let service = |kind: &str, allocate: Value| {
        cost(
            "services",
            json!({"spec": {"type": kind, "allocateLoadBalancerNodePorts": allocate,
                            "ports": [{"port": 1}, {"port": 2, "nodePort": 30000}]}}),
        )
    };
    let rest = |ports, balancers| {
        format!(
            "count/services=1 services=1 services.loadbalancers={balancers} services.nodeports={ports}"
        )
    };
    assert_eq!(service("ClusterIP", json!(null)), rest(0, 0));
    assert_eq!(service("NodePort", json!(null)), rest(2, 0));
    assert_eq!(service("LoadBalancer", json!(true)), rest(2, 1));
    assert_eq!(service("LoadBalancer", json!(false)), rest(1, 1));
}

#[test]
fn volume_claims_cost_their_storage() {
    let claim = json!({"spec": {"storageClassName": "gold",
        "resources": {"requests": {"storage": "1500m"}}}});
    assert_eq!(
        cost("persistentvolumeclaims", claim),
        "count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
         gold.storageclass.storage.k8s.io/requests.storage=2 persistentvolumeclaims=1 requests.storage=2"
    );
    let growing = json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}},
        "status": {"allocatedResources": {"storage": "2Gi"}}});
    assert!(cost("persistentvolumeclaims", growing).ends_with("requests.storage=2Gi"));
}

#[test]
fn resource_claims_cost_devices() {
    let claim = json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "u",
            "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pu", "controller": true}]},
        "spec": {"devices": {"requests": [
            {"name": "a", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
            {"name": "b", "firstAvailable": [
                {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
                {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3},
                {"deviceClassName": "nic", "allocationMode": "All"}]},
        ]}},
    });
    let class: DeviceClass = serde_json::from_value(
        json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}}),
    )
    .unwrap();
    let classes = DeviceClasses::from_iter([class]);
    let owner = Owner {
        uid: "pu".into(),
        claim: None,
        usage: ResourceList::from([("requests.example.com/gpu".into(), count(4))]),
    };
    let around = Surroundings {
        classes: &classes,
        owners: &Nobody(Some(owner)),
    };
    let claims = Evaluator::of("resource.k8s.io", "resourceclaims");
    let measured = claims.measure(&claim, &around).unwrap();
    assert_eq!(
        text(&measured.usage(now())),
        "count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=5 \
         nic.deviceclass.resource.k8s.io/devices=32 \
         requests.deviceclass.resource.kubernetes.io/gpu=5 \
         requests.deviceclass.resource.kubernetes.io/nic=32 requests.example.com/gpu=1"
    );
    let names = [
        "requests.example.com/gpu",
        "requests.other.com/x",
        "requests.deviceclass.resource.kubernetes.io/gpu",
        "cpu",
    ]
    .map(String::from);
    assert_eq!(claims.matching(names.iter(), &classes).len(), 2);
}

#[test]
fn everything_else_is_counted() {
    let one =
        |group: &str, resource: &str| text(&Evaluator::of(group, resource).one().usage(now()));
    assert_eq!(one("", "secrets"), "count/secrets=1 secrets=1");
    assert_eq!(one("apps", "deployments"), "count/deployments.apps=1");
    assert!(is_ignored("", "events") && !is_ignored("", "secrets"));
}

#[test]
fn scopes() {
    let of = |object: Value, scope: Value| {
        let scope: Requirement = serde_json::from_value(scope).unwrap();
        measure("", "pods", object).is_in(&scope).unwrap()
    };
    let exists = |name: &str| json!({"scopeName": name, "operator": "Exists"});
    let plain = pod(json!({}), json!({}));
    assert!(of(plain.clone(), exists("BestEffort")));
    assert!(of(plain.clone(), exists("NotTerminating")));
    assert!(!of(plain.clone(), exists("PriorityClass")));
    let asking = pod(json!({"cpu": "1"}), json!({}));
    assert!(of(asking.clone(), exists("NotBestEffort")));
    let mut high = asking;
    high["spec"]["priorityClassName"] = json!("high");
    high["spec"]["activeDeadlineSeconds"] = json!(0);
    let class = |operator: &str| json!({"scopeName": "PriorityClass", "operator": operator, "values": ["high", "low"]});
    assert!(of(high.clone(), exists("Terminating")));
    assert!(of(high.clone(), class("In")) && !of(high.clone(), class("NotIn")));
    assert!(of(plain.clone(), class("NotIn")));
    high["spec"]["affinity"] = json!({"podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "podAffinityTerm": {"topologyKey": "k", "namespaceSelector": {}}}]}});
    assert!(of(high, exists("CrossNamespacePodAffinity")));
    assert!(!of(plain, exists("CrossNamespacePodAffinity")));
}

fn quota(name: &str, hard: Value, used: Value) -> Quota {
    let value = json!({"metadata": {"name": name}, "spec": {"hard": hard},
                       "status": {"hard": hard, "used": used}});
    serde_json::from_value(value).unwrap()
}

fn request(resource: &str, object: Value) -> Request {
    let read = Pod::deserialize(&object).unwrap();
    Request {
        group: String::new(),
        resource: resource.into(),
        evaluator: Evaluator::of("", resource),
        change: Change::Create,
        is_status: false,
        new: match resource {
            "pods" | "services" => measure("", resource, object),
            _ => Evaluator::of("", resource).one(),
        },
        lacks: match resource {
            "pods" => lacks(&read),
            _ => Default::default(),
        },
        classes: DeviceClasses::default(),
        now: now(),
    }
}

fn refused(quotas: &[Quota], request: &Request) -> String {
    check(quotas, request, &[]).unwrap_err().to_string()
}

#[test]
fn what_fits_is_charged() {
    let quotas = [
        quota(
            "a",
            json!({"pods": "2", "cpu": "2"}),
            json!({"pods": "1", "cpu": "500m"}),
        ),
        quota("b", json!({"services": "2"}), json!({"services": "1"})),
    ];
    let charged = check(
        &quotas,
        &request("pods", pod(json!({"cpu": "1"}), json!({}))),
        &[],
    );
    let charged = charged.unwrap();
    assert_eq!(text(charged[0].as_ref().unwrap()), "cpu=1500m pods=2");
    assert_eq!(charged[1], None);
}

#[test]
fn what_does_not_fit_is_refused_as_upstream_does() {
    let full = [quota(
        "a",
        json!({"pods": "2", "cpu": "1", "requests.cpu": "1"}),
        json!({"pods": "1", "cpu": "500m", "requests.cpu": "500m"}),
    )];
    let large = request("pods", pod(json!({"cpu": "1"}), json!({})));
    assert_eq!(
        refused(&full, &large),
        "exceeded quota: a, requested: cpu=1,requests.cpu=1, used: cpu=500m,requests.cpu=500m, \
         limited: cpu=1,requests.cpu=1"
    );
    let silent = request("pods", pod(json!({}), json!({})));
    assert_eq!(
        refused(&full, &silent),
        "failed quota: a: must specify cpu for: c; requests.cpu for: c"
    );
    let uncounted = [quota("q", json!({"secrets": "1"}), json!({}))];
    assert_eq!(
        refused(&uncounted, &request("secrets", json!({}))),
        "status unknown for quota: q, resources: secrets"
    );
    let negative = [quota(
        "q",
        json!({"requests.example.com/x": "1"}),
        json!({"requests.example.com/x": "0"}),
    )];
    let below = request("pods", pod(json!({"example.com/x": "-1"}), json!({})));
    assert_eq!(
        refused(&negative, &below),
        "quota usage is negative for resource(s): requests.example.com/x"
    );
}

#[test]
fn updates_pay_what_they_add() {
    let quotas = [quota(
        "a",
        json!({"services": "1", "services.nodeports": "2"}),
        json!({"services": "1", "services.nodeports": "1"}),
    )];
    let service = |ports: usize| {
        let ports = vec![json!({"port": 1}); ports];
        json!({"spec": {"type": "NodePort", "ports": ports}})
    };
    let update = |before, after| {
        let mut request = request("services", service(after));
        request.change = Change::Update(Box::new(measure("", "services", service(before))));
        request
    };
    let charged = check(&quotas, &update(1, 2), &[]).unwrap();
    assert_eq!(
        text(charged[0].as_ref().unwrap()),
        "services=1 services.nodeports=2"
    );
    assert_eq!(check(&quotas, &update(2, 1), &[]).unwrap(), [None]);
    assert!(refused(&quotas, &update(1, 3)).contains("requested: services.nodeports=2,"));
}

#[test]
fn what_is_limited_needs_a_quota() {
    let limited: LimitedResource = serde_json::from_value(
        json!({"resource": "pods", "matchContains": ["cpu"],
               "matchScopes": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}),
    )
    .unwrap();
    let asking = request("pods", pod(json!({"cpu": "1"}), json!({})));
    let check = |quotas: &[Quota], request| {
        check(quotas, request, std::slice::from_ref(&limited)).unwrap_err()
    };
    assert_eq!(
        check(&[], &asking).to_string(),
        "insufficient quota to consume: cpu,requests.cpu"
    );
    let mut high = pod(json!({}), json!({}));
    high["spec"]["priorityClassName"] = json!("high");
    assert_eq!(
        check(&[], &request("pods", high)),
        Refusal::Failed(
            "insufficient quota to match these scopes: [{PriorityClass In [high]}]".into()
        )
    );
}

#[test]
fn totals_are_of_the_scope_and_the_names() {
    let mut deadline = pod(json!({"cpu": "2"}), json!({}));
    deadline["spec"]["activeDeadlineSeconds"] = json!(5);
    let pods = [
        measure("", "pods", pod(json!({"cpu": "1"}), json!({}))),
        measure("", "pods", deadline),
    ];
    let sum = |names: &[&str], scopes: &[&str]| {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let scopes: Vec<Requirement> = scopes.iter().map(|s| Requirement::exists(s)).collect();
        text(&total(
            &names,
            &scopes,
            pods.iter().map(Cow::Borrowed),
            now(),
        ))
    };
    assert_eq!(sum(&["cpu", "pods"], &[]), "cpu=3 pods=2");
    assert_eq!(sum(&["cpu"], &["Terminating"]), "cpu=2");
    assert_eq!(sum(&["limits.cpu"], &["Terminating"]), "limits.cpu=0");
}
