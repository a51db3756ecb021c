//! The plugins over a map of objects, one request at a time.

use std::collections::BTreeMap;

use futures::FutureExt as _;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts};
use serde_json::json;

use super::chain::ChainError;
use super::*;
use crate::authn::{Clock, User};
use crate::authz::{self, Mode};
use crate::lookup::Lookup;
use std::sync::Arc;

mod pod_security;

#[derive(Default)]
struct Objects(Mutex<BTreeMap<String, Arc<Value>>>);

fn key(group: &str, resource: &str, namespace: &str, name: &str) -> String {
    format!("{group}/{resource}/{namespace}/{name}")
}

impl Lookup for Objects {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let objects = self.0.lock();
        objects.get(&key(group, resource, namespace, name)).cloned()
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let prefix = match namespace {
            "" => format!("{group}/{resource}/"),
            namespace => format!("{group}/{resource}/{namespace}/"),
        };
        let objects = self.0.lock();
        let found = objects.iter().filter(|(k, _)| k.starts_with(&prefix));
        found.map(|(_, object)| object.clone()).collect()
    }

    fn get_fresh<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Value>>, Status>> {
        Box::pin(async move { Ok(self.get(group, resource, namespace, name)) })
    }
}

impl Objects {
    fn put(&self, group: &str, resource: &str, mut object: Value) {
        let text = |field: &str| text(&object, field).to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        object["metadata"]["name"] = name.clone().into();
        let key = key(group, resource, &namespace, &name);
        self.0.lock().insert(key, Arc::new(object));
    }
}

/// Takes every status; a real store compares revisions.
impl resource_quota::QuotaWriter for Objects {
    fn write_status<'a>(&'a self, quota: Value) -> BoxFuture<'a, Result<Value, Status>> {
        self.put("", "resourcequotas", quota.clone());
        Box::pin(std::future::ready(Ok(quota)))
    }
}

struct World {
    objects: Arc<Objects>,
    deps: Deps,
    plugins: Vec<Arc<dyn Plugin>>,
    warnings: Warnings,
}

fn deps(objects: &Arc<Objects>) -> Deps {
    let clock: Clock = Arc::new(|| jiff::Timestamp::from_second(1_800_000_000).unwrap());
    Deps {
        lookup: objects.clone(),
        authorizer: Arc::new(authz::build(
            &[Mode::Rbac],
            &Default::default(),
            &IntCounterVec::new(Opts::new("d", "d"), &["type", "name", "decision"]).unwrap(),
            &authz::graph_actions().unwrap(),
        )),
        clock,
        random: Arc::new(|| 7),
        not_ready_toleration_seconds: 300,
        unreachable_toleration_seconds: 300,
        quotas: objects.clone(),
        configuration: Configuration::default(),
        gates: Default::default(),
        metrics: component::metrics::Registry::new(),
    }
}

fn world() -> World {
    world_with("")
}

/// With these features.
fn world_with(gates: &str) -> World {
    let objects = Arc::new(Objects::default());
    objects.put(
        "",
        "namespaces",
        json!({"metadata": {"name": "ns"}, "status": {"phase": "Active"}}),
    );
    objects.put(
        "",
        "serviceaccounts",
        json!({
            "metadata": {"name": "default", "namespace": "ns"},
            "imagePullSecrets": [{"name": "registry"}],
        }),
    );
    let mut deps = deps(&objects);
    deps.gates = gates.parse().unwrap();
    let plugins = chain(&["NodeRestriction"], &[], &deps).unwrap();
    World {
        objects,
        deps,
        plugins,
        warnings: Warnings::default(),
    }
}

fn resource(group: &str, plural: &str) -> &'static Resource {
    let all = schema::resources().iter();
    let versions = all.filter(|r| r.group == group && r.plural == plural);
    versions.max_by_key(|r| r.enabled).unwrap()
}

struct Request<'a> {
    operation: Operation,
    /// `group/plural/subresource`.
    what: &'a str,
    namespace: &'a str,
    name: &'a str,
    user: &'a str,
    old: Option<Value>,
}

fn create<'a>(what: &'a str) -> Request<'a> {
    Request {
        operation: Operation::Create,
        what,
        namespace: "ns",
        name: "",
        user: "ann",
        old: None,
    }
}

impl World {
    fn run(&self, request: Request<'_>, object: Option<Value>) -> Result<Value, Status> {
        let mut parts = request.what.split('/');
        let (group, plural) = (parts.next().unwrap(), parts.next().unwrap());
        let groups = request.user.starts_with("system:node:");
        let user = User {
            name: request.user.into(),
            groups: groups.then(|| "system:nodes".into()).into_iter().collect(),
            ..User::default()
        };
        let attributes = Attributes {
            operation: request.operation,
            resource: resource(group, plural),
            subresource: parts.next().unwrap_or_default(),
            namespace: request.namespace,
            name: request.name,
            user: &user,
            old: request.old.as_ref(),
            dry_run: false,
            warnings: &self.warnings,
        };
        let mut object = object;
        for plugin in &self.plugins {
            if plugin.handles(request.operation) {
                let done = plugin.mutate(&attributes, object.as_mut());
                done.now_or_never().unwrap()?;
            }
        }
        for plugin in &self.plugins {
            if plugin.handles(request.operation) {
                let done = plugin.validate(&attributes, object.as_ref());
                done.now_or_never().unwrap()?;
            }
        }
        Ok(object.unwrap_or_default())
    }
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    })
}

#[test]
fn a_pod_gets_all_that_upstream_gives_it() {
    let made = world().run(create("/pods"), Some(pod())).unwrap();
    let volume = made["spec"]["volumes"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21);
    assert_eq!(
        made["spec"],
        json!({
            "containers": [{
                "name": "c",
                "image": "i",
                "volumeMounts": [{
                    "name": volume,
                    "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                }],
            }],
            "serviceAccount": "default",
            "serviceAccountName": "default",
            "imagePullSecrets": [{"name": "registry"}],
            "priority": 0,
            "preemptionPolicy": "PreemptLowerPriority",
            "tolerations": [
                {
                    "key": "node.kubernetes.io/not-ready",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                },
                {
                    "key": "node.kubernetes.io/unreachable",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                },
            ],
            "volumes": [{
                "name": volume,
                "projected": {
                    "defaultMode": 420,
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {
                            "name": "kube-root-ca.crt",
                            "items": [{"key": "ca.crt", "path": "ca.crt"}],
                        }},
                        {"downwardAPI": {"items": [{
                            "path": "namespace",
                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                        }]}},
                    ],
                },
            }],
        })
    );
}

#[test]
fn a_token_is_not_mounted_against_ones_will() {
    let world = world();
    let mut pod = pod();
    pod["spec"]["automountServiceAccountToken"] = false.into();
    let made = world.run(create("/pods"), Some(pod)).unwrap();
    assert!(made["spec"]["volumes"].is_null());
}

#[test]
fn a_pod_without_an_account_is_refused() {
    let world = world();
    let mut pod = pod();
    pod["spec"]["serviceAccountName"] = "gone".into();
    let refused = world.run(create("/pods"), Some(pod)).unwrap_err();
    assert_eq!(
        refused.message,
        r#"pods "p" is forbidden: error looking up service account ns/gone: serviceaccount "gone" not found"#
    );
}

#[test]
fn namespaces_must_be_there_and_stay() {
    let world = world();
    let mut request = create("/configmaps");
    request.namespace = "none";
    let missing = world.run(request, Some(json!({}))).unwrap_err();
    assert_eq!(missing.message, r#"namespaces "none" not found"#);

    let going = json!({"metadata": {"name": "going"}, "status": {"phase": "Terminating"}});
    world.objects.put("", "namespaces", going);
    let mut request = create("/configmaps");
    request.namespace = "going";
    let refused = world
        .run(request, Some(json!({"metadata": {"name": "x"}})))
        .unwrap_err();
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.details.unwrap().causes[0].reason,
        "NamespaceTerminating"
    );

    for (name, allowed) in [("kube-system", false), ("ns", true)] {
        let request = Request {
            operation: Operation::Delete,
            what: "/namespaces",
            namespace: name,
            name,
            user: "ann",
            old: None,
        };
        assert_eq!(world.run(request, None).is_ok(), allowed, "{name}");
    }
}

#[test]
fn priorities_come_from_classes() {
    let world = world();
    let class = json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"});
    world
        .objects
        .put("scheduling.k8s.io", "priorityclasses", class);
    let mut named = pod();
    named["spec"]["priorityClassName"] = "high".into();
    let made = world.run(create("/pods"), Some(named.clone())).unwrap();
    assert_eq!(made["spec"]["priority"], 1000);
    assert_eq!(made["spec"]["preemptionPolicy"], "Never");
    named["spec"]["priority"] = 5.into();
    assert_eq!(
        world.run(create("/pods"), Some(named)).unwrap_err().code,
        403
    );
    let mut unknown = pod();
    unknown["spec"]["priorityClassName"] = "none".into();
    let refused = world.run(create("/pods"), Some(unknown)).unwrap_err();
    assert!(
        refused
            .message
            .ends_with("no PriorityClass with name none was found")
    );
}

#[test]
fn a_group_is_kept_and_has_its_template() {
    let world = world_with("GenericWorkload=true");
    let group = |reference: Value| {
        let spec = json!({"podGroupTemplateRef": reference});
        let group = json!({"metadata": {"name": "g", "namespace": "ns"}, "spec": spec});
        world.run(create("scheduling.k8s.io/podgroups"), Some(group))
    };
    let made = group(Value::Null).unwrap();
    let kept = json!(["scheduling.k8s.io/podgroup-protection"]);
    assert_eq!(made["metadata"]["finalizers"], kept);
    let named = |workload: &str, template: &str| {
        let of = json!({"workloadName": workload, "podGroupTemplateName": template});
        group(json!({ "workload": of })).map_err(|refused| refused.message)
    };
    let workload = json!({
        "metadata": {"name": "w", "namespace": "ns"},
        "spec": {"podGroupTemplates": [{"name": "t"}]},
    });
    let workloads = &world.objects;
    workloads.put("scheduling.k8s.io", "workloads", workload);
    assert!(named("w", "t").is_ok());
    let end = "PodGroup rejected: PodGroupTemplate \"u\" not found in Workload \"w\"";
    assert!(named("w", "u").unwrap_err().ends_with(end));
    let end = "PodGroup rejected: Workload \"v\" not found";
    assert!(named("v", "t").unwrap_err().ends_with(end));
}

#[test]
fn priorities_of_groups_come_from_classes_where_groups_have_them() {
    let group = |spec: Value| json!({"metadata": {"name": "g", "namespace": "ns"}, "spec": spec});
    let groups = "scheduling.k8s.io/podgroups";
    let run = |world: &World, spec| {
        let class = json!({"metadata": {"name": "high"}, "value": 1000});
        let classes = &world.objects;
        classes.put("scheduling.k8s.io", "priorityclasses", class);
        world.run(create(groups), Some(group(spec)))
    };
    let high = json!({"priorityClassName": "high"});
    let without = run(&world(), high.clone()).unwrap();
    assert!(without["spec"]["priority"].is_null());
    let world = world_with("WorkloadAwarePreemption=true");
    assert_eq!(run(&world, high).unwrap()["spec"]["priority"], 1000);
    assert_eq!(run(&world, json!({})).unwrap()["spec"]["priority"], 0);
    let refused = run(&world, json!({"priority": 5})).unwrap_err();
    let why = "priority set in the pod group (5) must match the priority computed (0) based on the priority class set in the spec";
    assert!(refused.message.ends_with(why), "{}", refused.message);
    let unknown = json!({"priorityClassName": "none"});
    assert_eq!(run(&world, unknown).unwrap_err().code, 403);
}

#[test]
fn storage_gets_its_class_and_finalizers() {
    let world = world();
    for (name, created) in [
        ("old", "2026-01-01T00:00:00Z"),
        ("new", "2026-02-01T00:00:00Z"),
    ] {
        let class = json!({"metadata": {
            "name": name,
            "creationTimestamp": created,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        }});
        world.objects.put("storage.k8s.io", "storageclasses", class);
    }
    let claim = json!({"metadata": {"name": "c"}, "spec": {}});
    let made = world
        .run(create("/persistentvolumeclaims"), Some(claim))
        .unwrap();
    assert_eq!(made["spec"]["storageClassName"], "new");
    assert_eq!(
        made["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
}

#[test]
fn runtime_classes_set_overhead() {
    let world = world();
    let class = json!({
        "metadata": {"name": "vm"},
        "overhead": {"podFixed": {"cpu": "1"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}},
    });
    world.objects.put("node.k8s.io", "runtimeclasses", class);
    let mut in_vm = pod();
    in_vm["spec"]["runtimeClassName"] = "vm".into();
    in_vm["spec"]["overhead"] = json!({"cpu": "1000m"});
    let made = world.run(create("/pods"), Some(in_vm.clone())).unwrap();
    assert_eq!(made["spec"]["overhead"]["cpu"], "1");
    assert_eq!(made["spec"]["nodeSelector"]["vm"], "yes");
    in_vm["spec"]["overhead"] = json!({"cpu": "2"});
    assert_eq!(
        world.run(create("/pods"), Some(in_vm)).unwrap_err().code,
        403
    );
    let mut bare = pod();
    bare["spec"]["overhead"] = json!({"cpu": "2"});
    assert_eq!(
        world.run(create("/pods"), Some(bare)).unwrap_err().code,
        403
    );
}

fn as_node<'a>(operation: Operation, what: &'a str, name: &'a str) -> Request<'a> {
    Request {
        operation,
        what,
        namespace: "ns",
        name,
        user: "system:node:n1",
        old: None,
    }
}

#[test]
fn nodes_change_only_themselves() {
    let world = world();
    let node = |name: &str, label: &str| json!({"metadata": {"name": name, "labels": {label: "x"}}, "spec": {}});
    let create = |name, label: &str| {
        let mut request = as_node(Operation::Create, "/nodes", name);
        request.namespace = "";
        world.run(request, Some(node(name, label)))
    };
    let made = create("n1", "kubernetes.io/hostname").unwrap();
    assert_eq!(
        made["spec"]["taints"][0]["key"],
        "node.kubernetes.io/not-ready"
    );
    assert!(create("n1", "example.org/any").is_ok());
    assert!(create("n1", "node.kubernetes.io/x").is_ok());
    assert!(create("n2", "kubernetes.io/hostname").is_err());
    for label in [
        "node-role.kubernetes.io/control-plane",
        "node-restriction.kubernetes.io/x",
        "a.node-restriction.kubernetes.io/x",
    ] {
        let refused = create("n1", label).unwrap_err();
        assert!(refused.message.contains(label), "{}", refused.message);
    }

    let update = |new: Value| {
        let mut request = as_node(Operation::Update, "/nodes/status", "n1");
        request.namespace = "";
        request.old = Some(node("n1", "kubernetes.io/hostname"));
        world.run(request, Some(new))
    };
    assert!(update(node("n1", "kubernetes.io/hostname")).is_ok());
    let mut tainted = node("n1", "kubernetes.io/hostname");
    tainted["spec"]["taints"] = json!([{"key": "k"}]);
    let refused = update(tainted).unwrap_err();
    assert!(
        refused
            .message
            .ends_with(r#"node "n1" is not allowed to modify taints"#)
    );
    assert!(update(node("n1", "kubernetes.io/role")).is_err());
}

#[test]
fn nodes_make_only_harmless_mirror_pods() {
    let world = world();
    world.objects.put(
        "",
        "nodes",
        json!({"metadata": {"name": "n1", "uid": "u1"}}),
    );
    let mirror = || {
        json!({
            "metadata": {
                "name": "p",
                "namespace": "ns",
                "annotations": {"kubernetes.io/config.mirror": "1"},
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u1",
                    "controller": true,
                }],
            },
            "spec": {
                "nodeName": "n1",
                "containers": [{"name": "c"}],
                "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
            },
        })
    };
    let create = |pod: Value| world.run(as_node(Operation::Create, "/pods", ""), Some(pod));
    let made = create(mirror()).unwrap();
    assert!(made["spec"]["serviceAccountName"].is_null());
    assert!(create(pod()).is_err(), "not a mirror pod");
    for (pointer, value) in [
        ("/spec/nodeName", json!("n2")),
        ("/metadata/ownerReferences/0/uid", json!("u2")),
        ("/metadata/ownerReferences/0/name", json!("n2")),
        (
            "/spec/volumes/0",
            json!({"name": "v", "secret": {"secretName": "s"}}),
        ),
        (
            "/spec/volumes/0",
            json!({"name": "v", "persistentVolumeClaim": {"claimName": "s"}}),
        ),
    ] {
        let mut pod = mirror();
        *pod.pointer_mut(pointer).unwrap() = value;
        assert_eq!(create(pod).unwrap_err().code, 403, "{pointer}");
    }
}

#[test]
fn nodes_get_tokens_of_their_own_pods_only() {
    let world = world();
    let mut running = pod();
    running["metadata"]["uid"] = "u".into();
    running["spec"]["nodeName"] = "n1".into();
    running["spec"]["volumes"] =
        json!([{"projected": {"sources": [{"serviceAccountToken": {"audience": "vault"}}]}}]);
    world.objects.put("", "pods", running);
    let ask = |user: &'static str, audience: Option<&str>, uid: &str| {
        let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid});
        let audiences: Vec<_> = audience.into_iter().collect();
        let mut request = as_node(Operation::Create, "/serviceaccounts/token", "default");
        request.user = user;
        let object = json!({"spec": {"audiences": audiences, "boundObjectRef": bound}});
        world.run(request, Some(object))
    };
    assert!(ask("system:node:n1", Some("vault"), "u").is_ok());
    assert!(ask("system:node:n1", Some("other"), "u").is_err());
    assert!(ask("system:node:n1", None, "u").is_err());
    assert!(ask("system:node:n2", Some("vault"), "u").is_err());
    assert!(ask("system:node:n1", Some("vault"), "x").is_err());
}

#[test]
fn nodes_report_on_their_own_pods_only() {
    let world = world();
    let report = |node: &str, change: fn(&mut Value)| {
        let mut old = pod();
        old["spec"]["nodeName"] = node.into();
        let mut new = old.clone();
        new["status"] = json!({"phase": "Running"});
        change(&mut new);
        let mut request = as_node(Operation::Update, "/pods/status", "p");
        request.old = Some(old);
        world.run(request, Some(new))
    };
    assert!(report("n1", |_| {}).is_ok());
    assert!(report("n2", |_| {}).is_err());
    assert!(report("n1", |pod| pod["metadata"]["labels"] = json!({"a": "b"})).is_err());
}

#[test]
fn zones_follow_the_binding() {
    let world = world();
    let labels = json!({"topology.kubernetes.io/zone": "z", "other": "o"});
    let node = json!({"metadata": {"name": "n1", "labels": labels}});
    world.objects.put("", "nodes", node);
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let made = world.run(create("/pods/binding"), Some(binding)).unwrap();
    assert_eq!(
        made["metadata"]["labels"],
        json!({"topology.kubernetes.io/zone": "z"})
    );
}

#[test]
fn names_on_the_command_line_are_checked() {
    let deps = world().deps;
    let names =
        |plugins: Vec<Arc<dyn Plugin>>| -> Vec<&str> { plugins.iter().map(|p| p.name()).collect() };
    let with = |on: &[&str], off: &[&str]| chain(on, off, &deps).map(names);
    let default = with(&[], &[]).unwrap();
    assert_eq!(default[0], "NamespaceLifecycle");
    assert!(!default.contains(&"NodeRestriction"));
    assert!(
        with(&["NodeRestriction"], &[])
            .unwrap()
            .contains(&"NodeRestriction")
    );
    assert!(!with(&[], &["Priority"]).unwrap().contains(&"Priority"));
    assert!(matches!(
        with(&["Nope"], &[]),
        Err(ChainError::Unknown { .. })
    ));
    assert!(matches!(
        with(&["Priority"], &["Priority"]),
        Err(ChainError::Overlap(_))
    ));
    assert!(matches!(
        with(&["ImagePolicyWebhook"], &[]),
        Err(ChainError::Missing(_))
    ));
    // Naming a default explicitly changes nothing.
    assert_eq!(with(&["ResourceQuota"], &[]).unwrap(), default);
}
