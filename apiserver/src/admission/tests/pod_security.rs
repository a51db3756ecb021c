//! PodSecurity and PodResizeValidator, one request at a time.

use super::*;

fn label(mode: &str, value: &str) -> (String, Value) {
    (format!("pod-security.kubernetes.io/{mode}"), value.into())
}

fn labelled(world: &World, labels: &[(&str, &str)]) {
    let labels: serde_json::Map<String, Value> = labels
        .iter()
        .map(|(mode, value)| label(mode, value))
        .collect();
    let namespace =
        json!({"metadata": {"name": "ns", "labels": labels}, "status": {"phase": "Active"}});
    world.objects.put("", "namespaces", namespace);
}

fn privileged() -> Value {
    let mut pod = pod();
    pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    pod
}

#[test]
fn pods_are_held_to_their_namespaces_policy() {
    let world = world();
    assert!(world.run(create("/pods"), Some(privileged())).is_ok());
    labelled(&world, &[("enforce", "baseline")]);
    assert!(world.run(create("/pods"), Some(pod())).is_ok());
    let refused = world.run(create("/pods"), Some(privileged())).unwrap_err();
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message,
        r#"pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)"#
    );
    let mut status = create("/pods/status");
    status.operation = Operation::Update;
    status.old = Some(privileged());
    assert!(world.run(status, Some(privileged())).is_ok());
}

#[test]
fn templates_are_warned_about() {
    let world = world();
    labelled(&world, &[("enforce", "baseline")]);
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"template": privileged()}});
    assert!(
        world
            .run(create("apps/deployments"), Some(deployment))
            .is_ok()
    );
    assert_eq!(
        world.warnings.take(),
        [
            r#"would violate PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)"#
        ]
    );
}

#[test]
fn a_stricter_namespace_says_whom_it_would_not_have() {
    let world = world();
    for name in ["b", "a", "c"] {
        let mut pod = privileged();
        pod["metadata"]["name"] = name.into();
        world.objects.put("", "pods", pod);
    }
    let namespace = |level: &str| {
        let labels: serde_json::Map<String, Value> =
            [label("enforce", level)].into_iter().collect();
        json!({"metadata": {"name": "ns", "labels": labels}})
    };
    let update = |old: Value| Request {
        operation: Operation::Update,
        what: "/namespaces",
        namespace: "ns",
        name: "ns",
        user: "ann",
        old: Some(old),
    };
    let plain = json!({"metadata": {"name": "ns"}});
    world
        .run(update(plain.clone()), Some(namespace("baseline")))
        .unwrap();
    assert_eq!(
        world.warnings.take(),
        [
            r#"existing pods in namespace "ns" violate the new PodSecurity enforce level "baseline:latest""#,
            "a (and 2 other pods): privileged",
        ]
    );
    world
        .run(update(namespace("baseline")), Some(plain.clone()))
        .unwrap();
    assert!(world.warnings.take().is_empty());
    let refused = world
        .run(update(plain), Some(namespace("strict")))
        .unwrap_err();
    assert_eq!(refused.code, 422);
    // What was wrong before is not this update's fault.
    let old = namespace("strict");
    assert!(world.run(update(old.clone()), Some(old)).is_ok());
}

#[test]
fn the_configuration_has_defaults_and_exemptions() {
    let configured = |configuration: Value| {
        let objects = Arc::new(Objects::default());
        let mut deps = deps(&objects);
        let mut full = json!({
            "apiVersion": "pod-security.admission.config.k8s.io/v1",
            "kind": "PodSecurityConfiguration",
        });
        full.as_object_mut()
            .unwrap()
            .extend(configuration.as_object().unwrap().clone());
        deps.configuration = Configuration::one("PodSecurity", full);
        chain::<&str>(&[], &[], &deps).map(|plugins| World { plugins, ..world() })
    };
    let world = configured(
        json!({"defaults": {"enforce": "baseline"}, "exemptions": {"usernames": ["ann"]}}),
    );
    let world = world.unwrap();
    let plugin = world
        .plugins
        .iter()
        .find(|p| p.name() == "PodSecurity")
        .unwrap();
    let checked = |user: &str| {
        let user = User {
            name: user.into(),
            ..User::default()
        };
        let attributes = Attributes {
            operation: Operation::Create,
            resource: resource("", "pods"),
            subresource: "",
            namespace: "ns",
            name: "p",
            user: &user,
            old: None,
            dry_run: false,
            warnings: &Warnings::default(),
        };
        plugin
            .validate(&attributes, Some(&privileged()))
            .now_or_never()
            .unwrap()
            .map_err(|e| e.code)
    };
    assert_eq!(checked("ann"), Ok(()));
    // The namespace of this lookup does not exist.
    assert_eq!(checked("bob"), Err(500));
    for wrong in [
        json!({"defaults": {"enforce": "strict"}}),
        json!({"defaults": {"other": "baseline"}}),
        json!({"exemptions": {"namespaces": ["a", "a"]}}),
    ] {
        assert!(matches!(
            configured(wrong),
            Err(ChainError::Configuration { .. })
        ));
    }
}

#[test]
fn a_pod_does_not_outgrow_its_node() {
    let world = world();
    let node = json!({"metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux"}},
                      "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
    world.objects.put("", "nodes", node);
    let sized = |cpu: &str, memory: &str, generation: i64| {
        let mut pod = pod();
        pod["metadata"]["generation"] = generation.into();
        pod["spec"]["nodeName"] = "n".into();
        pod["spec"]["containers"][0]["resources"] =
            json!({"requests": {"cpu": cpu, "memory": memory}});
        pod
    };
    let resize = |cpu: &str, memory: &str| {
        let request = Request {
            operation: Operation::Update,
            what: "/pods/resize",
            namespace: "ns",
            name: "p",
            user: "ann",
            old: Some(sized("1", "1Mi", 1)),
        };
        world.run(request, Some(sized(cpu, memory, 2)))
    };
    assert!(resize("2", "1Gi").is_ok());
    let refused = resize("2500m", "2Gi").unwrap_err();
    assert_eq!(
        refused.message,
        r#"pods "p" is forbidden: node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824"#
    );
    assert_eq!(refused.details.unwrap().causes[0].reason, "NodeCapacity");
}
