use serde_json::{Value, json};

fn messages(errors: meta::field::ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn pod() -> Value {
    let mut pod = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    });
    crate::defaults::apply(schema::kind("", "v1", "Pod").unwrap(), &mut pod);
    pod
}

fn create(kind: &str, object: &Value) -> Vec<String> {
    let group = if kind == "Deployment" { "apps" } else { "" };
    messages(super::create(group, kind, true, object))
}

#[test]
fn a_defaulted_pod_is_valid() {
    assert_eq!(create("Pod", &pod()), [""; 0]);
}

#[test]
fn faults_are_told_with_their_paths() {
    let mut pod = pod();
    pod["metadata"]["name"] = json!("Web_1");
    pod["spec"]["containers"][0]["name"] = json!("");
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    pod["spec"]["containers"][0]["imagePullPolicy"] = json!("Sometimes");
    let found = create("Pod", &pod);
    assert!(
        found[0]
            .starts_with("metadata.name: Invalid value: \"Web_1\": a lowercase RFC 1123 subdomain"),
        "{found:?}"
    );
    assert!(
        found.contains(&"spec.containers[0].name: Required value".to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(&"spec.containers[0].volumeMounts[0].name: Not found: \"data\"".to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(&"spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"".to_owned()),
        "{found:?}"
    );
}

#[test]
fn requests_stay_below_limits() {
    let mut pod = pod();
    pod["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}});
    assert_eq!(
        create("Pod", &pod),
        [
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1500m"
        ]
    );
}

#[test]
fn a_pods_image_may_change_and_its_node_name_may_not() {
    let old = pod();
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("web:2");
    assert_eq!(messages(super::update("", "Pod", &new, &old)), [""; 0]);
    new["spec"]["nodeName"] = json!("other");
    let found = messages(super::update("", "Pod", &new, &old));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("spec: Forbidden: pod updates may not change fields other than"));
    assert!(found[0].ends_with("changed: spec.nodeName"));
}

#[test]
fn a_deployments_selector_selects_its_template() {
    let mut deployment = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "other"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    });
    crate::defaults::apply(
        schema::kind("apps", "v1", "Deployment").unwrap(),
        &mut deployment,
    );
    assert_eq!(
        create("Deployment", &deployment),
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`"
        ]
    );
    deployment["spec"]["template"]["metadata"]["labels"]["app"] = json!("web");
    assert_eq!(create("Deployment", &deployment), [""; 0]);
}

#[test]
fn a_service_keeps_its_address() {
    let mut old = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80}]},
    });
    crate::defaults::apply(schema::kind("", "v1", "Service").unwrap(), &mut old);
    assert_eq!(create("Service", &old), [""; 0]);
    let mut new = old.clone();
    new["spec"]["clusterIP"] = json!("10.0.0.2");
    new["spec"]["clusterIPs"] = json!(["10.0.0.2"]);
    assert_eq!(
        messages(super::update("", "Service", &new, &old)),
        ["spec.clusterIPs[0]: Invalid value: \"10.0.0.2\": may not change once set"]
    );
}

#[test]
fn finalizers_of_a_namespace_are_judged_where_they_are_written() {
    let old = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
    let mut new = old.clone();
    new["spec"]["finalizers"] = json!(["kubernetes", "a.b/c", "bad"]);
    let finalize =
        |new: &Value| messages(super::update_part("", "Namespace", "finalize", new, &old));
    assert_eq!(
        finalize(&new),
        [
            "spec.finalizers[2]: Invalid value: \"bad\": name is neither a standard finalizer name nor is it fully qualified"
        ]
    );
    assert_eq!(finalize(&old), [""; 0]);
}

#[test]
fn whole_amounts_may_be_large() {
    let mut pod = pod();
    let mut limited = |amount: &str| {
        let amounts = json!({"example.com/a": amount});
        let resources = json!({"limits": amounts, "requests": amounts});
        pod["spec"]["containers"][0]["resources"] = resources;
        create("Pod", &pod).len()
    };
    assert_eq!(limited("9223372036854775807"), 0);
    assert_eq!(limited("10E"), 0);
    assert_eq!(limited("9223372036854775807m"), 2);
}

#[test]
fn an_immutable_config_map_stays_as_it_is() {
    let old =
        json!({"metadata": {"name": "a", "namespace": "b"}, "immutable": true, "data": {"k": "1"}});
    let mut new = old.clone();
    new["data"]["k"] = json!("2");
    assert_eq!(
        messages(super::update("", "ConfigMap", &new, &old)),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
}

/// What is wrong with an object whose spec is this.
fn spec(group: &str, kind: &str, spec: Value) -> Vec<String> {
    let object = json!({"metadata": {"name": "a", "namespace": "b"}, "spec": spec});
    messages(super::create(group, kind, true, &object))
}

#[test]
fn volumes_and_claims_say_how_they_are_used() {
    let volume = |with| {
        let mut volume = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
        volume.as_object_mut().unwrap().extend(with);
        spec("", "PersistentVolume", volume)
    };
    let with = |value: Value| value.as_object().unwrap().clone();
    assert_eq!(
        volume(with(json!({"nfs": {"server": "s", "path": "/"}}))),
        [""; 0]
    );
    assert_eq!(
        volume(with(json!({}))),
        ["spec: Required value: must specify a volume type"]
    );
    assert_eq!(
        volume(with(json!({"csi": {"driver": "d"}, "accessModes": []}))),
        [
            "spec.accessModes: Required value",
            "spec.csi.volumeHandle: Required value"
        ]
    );
    let modes = json!(["ReadWriteOncePod", "ReadWriteMany"]);
    assert_eq!(
        spec("", "PersistentVolumeClaim", json!({"accessModes": modes})),
        [
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            "spec.resources[storage]: Required value"
        ]
    );
}

#[test]
fn a_bound_claim_may_grow_and_nothing_else() {
    let claim = |spec: Value| json!({"metadata": {"name": "a"}, "spec": spec, "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}}});
    let sized = |size: &str| {
        claim(
            json!({"accessModes": ["ReadWriteOnce"], "volumeName": "v", "resources": {"requests": {"storage": size}}}),
        )
    };
    let update = |new: &Value| {
        messages(super::update(
            "",
            "PersistentVolumeClaim",
            new,
            &sized("2Gi"),
        ))
    };
    assert_eq!(update(&sized("3Gi")), [""; 0]);
    let shrunk = update(&sized("1Gi"));
    assert_eq!(
        shrunk,
        ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
    );
    let mut moved = sized("2Gi");
    moved["spec"]["volumeName"] = json!("w");
    assert!(update(&moved)[0].starts_with("spec: Forbidden: spec is immutable after creation"));
}

#[test]
fn an_ingress_leads_somewhere() {
    let ingress = |spec_: Value| spec("networking.k8s.io", "Ingress", spec_);
    assert_eq!(
        ingress(json!({})),
        ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
    );
    let path = |path: Value| ingress(json!({"rules": [{"http": {"paths": [path]}}]}));
    let service = json!({"service": {"name": "s", "port": {"number": 80}}});
    assert_eq!(
        path(json!({"path": "/", "pathType": "Prefix", "backend": service})),
        [""; 0]
    );
    assert_eq!(
        path(json!({"path": "a//b", "pathType": "Exact", "backend": {}})),
        [
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must be an absolute path",
            "spec.rules[0].http.paths[0].path: Invalid value: \"a//b\": must not contain '//'",
            "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
        ]
    );
}

#[test]
fn a_network_policys_peers_are_within_their_block() {
    let from = |peer: Value| {
        let policy = json!({"podSelector": {}, "ingress": [{"from": [peer]}]});
        spec("networking.k8s.io", "NetworkPolicy", policy)
    };
    let block = |except: &str| json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": [except]}});
    assert_eq!(from(block("10.1.0.0/16")), [""; 0]);
    assert_eq!(
        from(block("11.0.0.0/16")),
        [
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"
        ]
    );
    assert_eq!(
        from(json!({})),
        ["spec.ingress[0].from[0]: Required value: must specify a peer"]
    );
}

#[test]
fn autoscalers_and_budgets_have_bounds() {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    assert_eq!(
        spec(
            "autoscaling",
            "HorizontalPodAutoscaler",
            json!({"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 1, "metrics": [{"type": "Resource"}]})
        ),
        [
            "spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`",
            "spec.metrics[0].resource: Required value: must populate information for the given metric source",
        ]
    );
    let both = spec(
        "policy",
        "PodDisruptionBudget",
        json!({"minAvailable": 1, "maxUnavailable": "101%"}),
    );
    assert!(both[0].ends_with("minAvailable and maxUnavailable cannot be both set"));
    assert!(both[1].ends_with("must not be greater than 100%"));
}

#[test]
fn a_pod_is_created_without_ephemeral_containers() {
    let mut pod = pod();
    pod["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "i"}]);
    let faults = create("Pod", &pod);
    assert!(
        faults.contains(&"spec.ephemeralContainers: Forbidden: cannot be set on create".to_owned()),
        "{faults:?}"
    );
}

#[test]
fn ephemeral_containers_have_no_resources_hooks_or_ports() {
    let old = pod();
    for (field, value, allowed) in [
        ("resources", json!({}), true),
        ("resources", json!({"limits": {}}), false),
        ("resources", json!({"requests": {"cpu": "1"}}), false),
        ("lifecycle", json!({}), false),
        ("ports", json!([]), false),
        ("command", json!(["sh"]), true),
    ] {
        let mut new = old.clone();
        let mut container = json!({"name": "e", "image": "i", "imagePullPolicy": "Always",
            "terminationMessagePath": "/m", "terminationMessagePolicy": "File"});
        container[field] = value;
        new["spec"]["ephemeralContainers"] = json!([container]);
        let part = "ephemeralcontainers";
        let faults = messages(super::update_part("", "Pod", part, &new, &old));
        assert_eq!(faults.is_empty(), allowed, "{field}: {faults:?}");
    }
}

#[test]
fn endpoints_of_glusterfs_may_have_a_namespace() {
    let with = |more: Value| {
        let mut pod = pod();
        let mut source = json!({"endpoints": "e", "path": "p"});
        source
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        pod["spec"]["volumes"] = json!([{"name": "v", "glusterfs": source}]);
        create("Pod", &pod)
    };
    assert_eq!(with(json!({})), [""; 0]);
    assert_eq!(with(json!({"endpointsNamespace": "a"})), [""; 0]);
    assert_eq!(with(json!({"endpointsNamespace": "A"})).len(), 1);
}

#[test]
fn a_pull_secret_without_a_name_is_let_through() {
    let mut pod = pod();
    pod["spec"]["imagePullSecrets"] = json!([{}]);
    assert_eq!(create("Pod", &pod), [""; 0]);
}

#[test]
fn a_token_may_hide_a_file() {
    let mut pod = pod();
    pod["spec"]["serviceAccountName"] = json!("s");
    let items = json!([{"key": "k", "path": "a"}]);
    let token = json!({"serviceAccountToken": {"path": "a", "expirationSeconds": 3600}});
    let mut sources = json!([{"secret": {"name": "s", "items": items}}, token]);
    pod["spec"]["volumes"] =
        json!([{"name": "v", "projected": {"defaultMode": 420, "sources": sources}}]);
    assert_eq!(create("Pod", &pod), [""; 0]);
    sources[1] = json!({"configMap": {"name": "m", "items": items}});
    pod["spec"]["volumes"][0]["projected"]["sources"] = sources;
    assert_eq!(create("Pod", &pod).len(), 1);
}

#[test]
fn a_slices_addresses_are_canonical_where_they_are_of_ipv6() {
    let slice = |family: &str, address: &str| {
        let slice = json!({
            "metadata": {"name": "s", "namespace": "default"},
            "addressType": family,
            "endpoints": [{"addresses": [address]}],
        });
        messages(super::create(
            "discovery.k8s.io",
            "EndpointSlice",
            true,
            &slice,
        ))
    };
    assert_eq!(slice("IPv6", "1::"), [""; 0]);
    assert_eq!(
        slice("IPv6", "1::0"),
        [r#"endpoints[0].addresses[0]: Invalid value: "1::0": must be in canonical form ("1::")"#]
    );
    assert_eq!(slice("IPv4", "1.2.3.04").len(), 1);
}

#[test]
fn an_attachment_has_one_source() {
    assert_eq!(
        spec(
            "storage.k8s.io",
            "VolumeAttachment",
            json!({"attacher": "a", "nodeName": "n", "source": {}})
        ),
        [
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        ]
    );
}

#[test]
fn an_address_is_its_own_name() {
    let named = |name: &str| {
        let address = json!({"metadata": {"name": name}, "spec": {"parentRef": {"resource": "services", "name": "a"}}});
        messages(super::create(
            "networking.k8s.io",
            "IPAddress",
            false,
            &address,
        ))
    };
    assert_eq!(named("10.0.0.1"), [""; 0]);
    assert_eq!(named("fd00::1"), [""; 0]);
    assert_eq!(
        named("x"),
        [
            "metadata.name: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        ]
    );
}

#[test]
fn a_stop_signal_is_of_an_operating_system() {
    let told = |os: Option<&str>| {
        let mut pod = pod();
        pod["spec"]["containers"][0]["lifecycle"] = json!({"stopSignal": "SIGUSR1"});
        if let Some(os) = os {
            pod["spec"]["os"] = json!({"name": os});
        }
        create("Pod", &pod)
    };
    let path = "spec.containers[0].lifecycle.stopSignal";
    assert_eq!(
        told(None),
        [format!(
            "{path}: Forbidden: may not be set for containers with empty `spec.os.name`"
        )]
    );
    assert_eq!(told(Some("linux")), [""; 0]);
    assert_eq!(
        told(Some("windows")),
        [format!(
            "{path}: Unsupported value: \"SIGUSR1\": supported values: \"SIGKILL\", \"SIGTERM\""
        )]
    );
}

#[test]
fn a_lease_has_a_known_strategy() {
    let told = |strategy: &str| {
        spec(
            "coordination.k8s.io",
            "Lease",
            json!({"strategy": strategy}),
        )
    };
    assert_eq!(told("OldestEmulationVersion"), [""; 0]);
    assert_eq!(told("example.com/mine"), [""; 0]);
    assert_eq!(
        told("foo"),
        [
            "spec.strategy.strategy: Unsupported value: \"foo\": supported values: \"OldestEmulationVersion\""
        ]
    );
}

#[test]
fn an_ip_address_is_named_canonically() {
    let told = |name: &str| {
        let parent = json!({"resource": "services", "name": "a", "namespace": "b"});
        let object = json!({"metadata": {"name": name}, "spec": {"parentRef": parent}});
        messages(super::create(
            "networking.k8s.io",
            "IPAddress",
            false,
            &object,
        ))
    };
    assert_eq!(told("::1"), [""; 0]);
    for (name, fault) in [
        ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
        ("1::0:1", "must be in canonical form (\"1::1\")"),
        ("01.2.3.4", "must not have leading 0s"),
    ] {
        assert_eq!(
            told(name),
            [format!("metadata.name: Invalid value: {name:?}: {fault}")]
        );
    }
}
