//! What is told of which object: tables, one line for a matter.

use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

#[track_caller]
fn check<const N: usize>(group: &str, kind: &str, object: &Value, want: [&str; N]) {
    assert_eq!(on_create(group, kind, object), want, "{object}");
}

#[test]
fn of_pods_in_this_order() {
    let spec = json!({
        "nodeSelector": {"beta.kubernetes.io/os": "linux"},
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "beta.kubernetes.io/arch", "values": ["?"]}]}]},
                "preferredDuringSchedulingIgnoredDuringExecution": [{"preference":
                    {"matchExpressions": [{"key": "app.kubernetes.io/created-by", "values": ["-"]}]}}],
            },
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]},
        },
        "topologySpreadConstraints": [{"topologyKey": "node-role.kubernetes.io/master"}],
        "volumes": [
            {"name": "v", "rbd": {}},
            {"name": "e", "ephemeral": {"volumeClaimTemplate":
                {"spec": {"resources": {"requests": {"storage": "1500m"}}}}}},
        ],
        "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}],
        "containers": [{
            "name": "c",
            "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A"}],
            "resources": {"limits": {"memory": "100m"}},
            "ports": [
                {"containerPort": 80, "name": "x", "protocol": "TCP", "hostIP": "127.0.0.1"},
                {"containerPort": 80, "name": "x", "protocol": "TCP", "hostIP": "127.0.0.1"},
            ],
        }],
        "terminationGracePeriodSeconds": -1,
        "dnsConfig": {"nameservers": ["1:0::1"]},
        "hostAliases": [{"ip": "010.0.0.1"}, {"ip": "010.0.0.1"}],
    });
    let annotations = json!({
        "scheduler.alpha.kubernetes.io/critical-pod": "",
        "seccomp.security.alpha.kubernetes.io/pod": "",
        "container.seccomp.security.alpha.kubernetes.io/c": "",
        "container.apparmor.security.beta.kubernetes.io/c": "unconfined",
    });
    let want = [
        r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
        r#"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/arch is deprecated since v1.14; use "kubernetes.io/arch" instead"#,
        r#"spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: app.kubernetes.io/created-by is deprecated since v1.9"#,
        r#"spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[0]: - is invalid, a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"#,
        r#"spec.topologySpreadConstraints[0].topologyKey: node-role.kubernetes.io/master is use "node-role.kubernetes.io/control-plane" instead"#,
        "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
        r#"metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" field instead"#,
        "spec.volumes[0].rbd: deprecated in v1.28, non-functional in v1.31+",
        r#"spec.volumes[1].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: fractional byte value "1500m" is invalid, must be an integer"#,
        r#"spec.hostAliases[1].ip: duplicate ip "010.0.0.1""#,
        r#"spec.imagePullSecrets[1].name: duplicate name "s""#,
        r#"spec.imagePullSecrets[2].name: invalid empty name """#,
        r#"metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead"#,
        r#"metadata.annotations[container.seccomp.security.alpha.kubernetes.io/c]: non-functional in v1.27+; use the "seccompProfile" field instead"#,
        r#"spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer"#,
        r#"spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply"#,
        "spec.containers[0].ports[0]: hostIP set without hostPort: {Name:x HostPort:0 ContainerPort:80 Protocol:TCP HostIP:127.0.0.1}",
        "spec.containers[0].ports[1]: hostIP set without hostPort: {Name:x HostPort:0 ContainerPort:80 Protocol:TCP HostIP:127.0.0.1}",
        "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
        r#"spec.containers[0].ports[1]: duplicate port name "x" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]"#,
        "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
        "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod",
        r#"spec.dnsConfig.nameservers[0]: IPv6 address "1:0::1" should be in RFC 5952 canonical format ("1::1")"#,
        r#"spec.hostAliases[0].ip: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1""#,
        r#"spec.hostAliases[1].ip: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1""#,
    ];
    let pod = json!({"metadata": {"name": "p", "annotations": annotations}, "spec": spec});
    check("", "Pod", &pod, want);

    // A template is told of under its path, and of AppArmor here.
    let cron = json!({"metadata": {"name": "a.b"},
        "spec": {"jobTemplate": {"spec": {"completionMode": "Indexed",
            "completions": 100_001, "parallelism": 10_001, "template": pod}}}});
    let told = on_create("batch", "CronJob", &cron);
    let template = "spec.jobTemplate.spec.template.";
    let head = [
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
        "spec.jobTemplate.spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
    ];
    assert_eq!(told[..2], head);
    let mut rest: Vec<String> = told[2..].iter().map(|w| w.replace(template, "")).collect();
    let app_armor = rest.remove(14);
    assert_eq!(rest, want);
    assert_eq!(
        app_armor,
        r#"metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the "appArmorProfile" field instead"#
    );
}

#[test]
fn of_files_that_hide_one_another() {
    let items = |paths: &[&str]| -> Value { paths.iter().map(|p| json!({"path": p})).collect() };
    let volumes = json!([
        {"name": "c", "configMap": {"name": "m", "items": items(&["a/", "a", "ab"])}},
        {"name": "s", "secret": {"secretName": "n", "items": items(&["a", "a/b"])}},
        {"name": "p", "projected": {"sources": [
            {"downwardAPI": {"items": items(&["x"])}},
            {},
            {"serviceAccountToken": {"path": "x/token"}},
            {"podCertificate": {"keyPath": "x"}},
            {"clusterTrustBundle": {"signerName": "e/s", "path": "y"}},
            {"configMap": {"name": "m", "items": items(&["y"])}},
        ]}},
    ]);
    check(
        "",
        "Pod",
        &pod(json!({"volumes": volumes})),
        [
            r#"volume "c" (ConfigMap "m"): overlapping paths: "a" with "a""#,
            r#"volume "s" (Secret "n"): overlapping paths: "a/b" with "a""#,
            r#"volume "p" (Projected) has no sources provided"#,
            r#"volume "p" (Projected): overlapping paths: "x/token" (ServiceAccountToken) with "x" (DownwardAPI)"#,
            r#"volume "p" (Projected): overlapping paths: "x" (PodCertificate key) with "x" (DownwardAPI)"#,
            r#"volume "p" (Projected): overlapping paths: "x" (PodCertificate key) with "x/token" (ServiceAccountToken)"#,
            r#"volume "p" (Projected): overlapping paths: "y" (ConfigMap "m") with "y" (ClusterTrustBundle "e/s")"#,
        ],
    );
}

#[test]
fn of_addresses_and_networks() {
    let spec = json!({"type": "ClusterIP", "clusterIP": "::0", "clusterIPs": ["::0"],
        "externalIPs": ["::ffff:1.2.3.4", "1.2.3.4"],
        "loadBalancerSourceRanges": [
            "10.0.0.0/8", "10.1.0.0/8", "010.0.0.0/08", "::ffff:1.2.3.4/120", "1:0::/32", "1:0::1/32",
            "10.1.0.0/08", "::ffff:1.2.3.0/120"]});
    check(
        "",
        "Service",
        &json!({"spec": spec}),
        [
            r#"spec.clusterIPs[0]: IPv6 address "::0" should be in RFC 5952 canonical format ("::")"#,
            r#"spec.externalIPs[0]: non-standard IP address "::ffff:1.2.3.4" is invalid: use "1.2.3.4""#,
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            r#"spec.loadBalancerSourceRanges[1]: CIDR value "10.1.0.0/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.0.0/32"?)"#,
            r#"spec.loadBalancerSourceRanges[2]: non-standard CIDR value "010.0.0.0/08" is invalid: use "10.0.0.0/8""#,
            r#"spec.loadBalancerSourceRanges[3]: CIDR value "::ffff:1.2.3.4/120" is ambiguous in this context (should be "1.2.3.0/24" or "1.2.3.4/128"?)"#,
            r#"spec.loadBalancerSourceRanges[3]: non-standard CIDR value "::ffff:1.2.3.4/120" is invalid: use "1.2.3.0/24""#,
            r#"spec.loadBalancerSourceRanges[4]: IPv6 CIDR value "1:0::/32" should be in RFC 5952 canonical format ("1::/32")"#,
            r#"spec.loadBalancerSourceRanges[5]: CIDR value "1:0::1/32" is ambiguous in this context (should be "1::/32" or "1::1/128"?)"#,
            r#"spec.loadBalancerSourceRanges[6]: CIDR value "10.1.0.0/08" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.0.0/32"?)"#,
            r#"spec.loadBalancerSourceRanges[6]: non-standard CIDR value "10.1.0.0/08" is invalid: use "10.0.0.0/8""#,
            r#"spec.loadBalancerSourceRanges[7]: non-standard CIDR value "::ffff:1.2.3.0/120" is invalid: use "1.2.3.0/24""#,
        ],
    );
    let policy = json!({"spec": {"ingress": [{"from": [{}, {"ipBlock":
        {"cidr": "010.0.0.0/8", "except": ["10.1.1.1/16"]}}]}]}});
    check(
        "networking.k8s.io",
        "NetworkPolicy",
        &policy,
        [
            r#"spec.ingress[0].from[1].ipBlock.cidr: non-standard CIDR value "010.0.0.0/8" is invalid: use "10.0.0.0/8""#,
            r#"spec.ingress[0].from[1].ipBlock.except[0]: CIDR value "10.1.1.1/16" is ambiguous in this context (should be "10.1.0.0/16" or "10.1.1.1/32"?)"#,
        ],
    );
}

/// Small ones, each with its only warning; an object without one is told nothing of.
#[test]
fn of_other_kinds() {
    let said = r#"deprecated since v1.14; use "kubernetes.io/os" instead"#;
    let label = "beta.kubernetes.io/os";
    let (net, store, adm) = ("networking.k8s.io", "storage.k8s.io", ADMISSION);
    let table = [
        ("", "ConfigMap", json!({"metadata": {"name": "A.b"}}), String::new()),
        ("", "Pod", json!({"metadata": {"name": "a.b"}}),
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]".into()),
        ("apps", "StatefulSet", json!({"metadata": {"name": "a.b"}}), String::new()),
        ("apps", "StatefulSet", json!({"spec": {"revisionHistoryLimit": -1}}),
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into()),
        ("", "Service", json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP"}}),
            "spec.SessionAffinity is ignored for headless services".into()),
        ("", "Service", json!({"spec": {"type": "ClusterIP", "externalName": "e"}}),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"".into()),
        ("", "Service", json!({"spec": {"trafficDistribution": "PreferClose"}}),
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into()),
        ("", "Endpoints", json!({"subsets": [{"notReadyAddresses": [{"ip": "1.2.3.04"}]}]}),
            "subsets[0].notReadyAddresses[0].ip: non-standard IP address \"1.2.3.04\" is invalid: use \"1.2.3.4\"".into()),
        ("discovery.k8s.io", "EndpointSlice", json!({"addressType": "FQDN", "endpoints": [{"addresses": ["e.com"]}]}),
            "spec.addressType: FQDN endpoints are deprecated".into()),
        ("discovery.k8s.io", "EndpointSlice", json!({"endpoints": [{"addresses": ["1::0"]}]}),
            "endpoints[0].addresses[0]: IPv6 address \"1::0\" should be in RFC 5952 canonical format (\"1::\")".into()),
        ("", "ResourceQuota", json!({"spec": {"hard": {"cpu": "2", "limits.cpu": "1"}}}),
            "ResourceQuota cpu (2) should be less than limits.cpu (1)".into()),
        ("", "Node", json!({"spec": {"externalID": "x"}}),
            "spec.externalID: this field is deprecated, and is unused by Kubernetes".into()),
        ("", "ServiceAccount", json!({"metadata": {"annotations": {ENFORCE: ""}}}),
            format!("metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets")),
        ("", "PersistentVolumeClaim", json!({"spec": {"resources": {"limits": {"storage": "10Pi"}}}}),
            "spec.resources.limits[storage]: fractional byte value \"10Pi\" is invalid, must be an integer".into()),
        ("", "PersistentVolume", json!({"spec": {"storageos": {}, "flocker": {}}}),
            "spec.storageOS: deprecated in v1.22, non-functional in v1.25+".into()),
        ("", "PersistentVolume", json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/mount-options": ""}}}),
            "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use \"mountOptions\" attribute instead".into()),
        ("node.k8s.io", "RuntimeClass", json!({"scheduling": {"nodeSelector": {label: "a"}}}),
            format!("scheduling.nodeSelector: {said}")),
        (store, "StorageClass", json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": label}]}]}),
            format!("allowedTopologies[0].matchLabelExpressions[0].key: {said}")),
        (store, "CSIStorageCapacity", json!({"nodeTopology": {"matchLabels": {label: "a"}}}),
            format!("nodeTopology.matchLabels.{label}: {said}")),
        (net, "Ingress", json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "c"}}}),
            "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead".into()),
        (net, "Ingress", json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "c"}}, "spec": {"ingressClassName": "c"}}),
            String::new()),
        ("resource.k8s.io", "ResourceSlice", json!({"spec": {"driver": "E.com"}}),
            "spec.driver: driver names should be lowercase; \"E.com\" contains uppercase characters".into()),
        (adm, "MutatingWebhookConfiguration", json!({"metadata": {"name": "a.static.k8s.io"}}),
            "metadata.name: names ending with \".static.k8s.io\" are reserved for static manifest-based configurations and cannot be managed via the API".into()),
        ("apiextensions.k8s.io", "CustomResourceDefinition",
            json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {
                "a": {"type": "string", "format": "date-time"},
                "b": {"type": "array", "items": {"type": "integer", "format": "int16"}}}}}}]}}),
            "unrecognized format \"int16\"".into()),
    ];
    for (group, kind, object, want) in table {
        let told = on_create(group, kind, &object);
        let want: Vec<String> = Some(want).filter(|w| !w.is_empty()).into_iter().collect();
        assert_eq!(told, want, "{kind} {object}");
    }
}

#[test]
fn updates_are_told_of_what_they_change() {
    let named = |generation: i64, grace: i64| {
        json!({"metadata": {"name": "a.b", "generation": generation},
            "spec": {"template": {"spec": {"terminationGracePeriodSeconds": grace}}}})
    };
    let negative = "spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1";
    let update = |kind, object: &Value, old: &Value| on_update("apps", kind, "", object, old);
    assert!(update("Deployment", &named(1, -1), &named(1, -1)).is_empty());
    assert_eq!(
        update("Deployment", &named(2, -1), &named(1, 1)),
        [negative]
    );
    // The template's own count is what counts for a DaemonSet.
    assert!(update("DaemonSet", &named(2, -1), &named(1, 1)).is_empty());
    // Upstream looks at the old one.
    let controller =
        |object: &Value, old: &Value| on_update("", "ReplicationController", "", object, old);
    assert!(controller(&named(2, -1), &named(1, 1)).is_empty());
    assert_eq!(controller(&named(2, 1), &named(1, -1)), [negative]);

    let set = json!({"spec": {"volumeClaimTemplates":
        [{"spec": {"resources": {"requests": {"storage": "1m"}}}}]}});
    assert_eq!(
        update("StatefulSet", &set, &set),
        [
            r#"spec.volumeClaimTemplates[0].Spec.resources.requests[storage]: fractional byte value "1m" is invalid, must be an integer"#
        ]
    );

    let quota = json!({"spec": {"hard": {"cpu": "2", "limits.cpu": "1"}}});
    assert!(on_update("", "ResourceQuota", "", &quota, &quota).is_empty());
    let account = json!({"metadata": {"annotations": {ENFORCE: ""}}});
    assert!(on_update("", "ServiceAccount", "", &account, &account).is_empty());
    assert_eq!(
        on_update("", "ServiceAccount", "", &account, &json!({})).len(),
        1
    );
    let driver = json!({"spec": {"tokenRequests": [{}]}});
    assert!(on_update("storage.k8s.io", "CSIDriver", "", &driver, &driver).is_empty());
    assert_eq!(
        on_update("storage.k8s.io", "CSIDriver", "", &driver, &json!({})).len(),
        1
    );
}

#[test]
fn statuses_are_told_of_their_addresses() {
    let balancer = json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.04"}, {}]}}});
    let want = |path| {
        [format!(
            "{path}: non-standard IP address \"1.2.3.04\" is invalid: use \"1.2.3.4\""
        )]
    };
    let update = |group, kind, object: &Value| on_update(group, kind, "status", object, &json!({}));
    let told = update("networking.k8s.io", "Ingress", &balancer);
    assert_eq!(told, want("status.loadBalancer.ingress[0]"));
    let pod = json!({"metadata": {"name": "a.b"}, "status": {"hostIPs": [{"ip": "1.2.3.04"}]}});
    assert_eq!(update("", "Pod", &pod), want("status.hostIPs[0].ip"));
    assert!(on_update("", "Pod", "", &pod, &json!({})).is_empty());
}

/// Structures of DER, with as much in them as is read.
mod pairs {
    use base64::prelude::{BASE64_STANDARD, Engine};

    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u8::try_from(content.len()).expect("short");
        [&[tag, length], &content[..]].concat()
    }

    const RSA: [u8; 11] = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

    fn certificate(modulus: u8) -> Vec<u8> {
        let empty = der(0x30, &[]);
        let key = der(0x30, &[&[2, 1, modulus], &[2, 1, 3]]);
        let info = der(0x30, &[&der(0x30, &[&RSA]), &der(3, &[&[0], &key])]);
        let signed = der(
            0x30,
            &[
                &[0xa0, 3, 2, 1, 2],
                &[2, 1, 7],
                &empty,
                &empty,
                &empty,
                &empty,
                &info,
            ],
        );
        der(0x30, &[&signed, &empty, &[3, 1, 0]])
    }

    fn rsa_key(modulus: u8) -> Vec<u8> {
        der(0x30, &[&[2, 1, 0], &[2, 1, modulus], &[2, 1, 3]])
    }

    fn curve_key() -> Vec<u8> {
        der(0x30, &[&[2, 1, 1], &[4, 1, 9]])
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let body = BASE64_STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn that_are_none_are_told_of() {
        let good = pem("CERTIFICATE", &certificate(5));
        let key = pem("RSA PRIVATE KEY", &rsa_key(5));
        let table = [
            (&good, &key, ""),
            (
                &good,
                &pem("PRIVATE KEY", &rsa_key(6)),
                "tls: private key does not match public key",
            ),
            (
                &good,
                &pem("EC PRIVATE KEY", &curve_key()),
                "tls: private key type does not match public key type",
            ),
            (
                &good,
                &pem("PRIVATE KEY", b"x"),
                "tls: failed to parse private key",
            ),
            (
                &good,
                &good,
                "tls: found a certificate rather than a key in the PEM for the private key",
            ),
            (
                &key,
                &good,
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
            ),
            (
                &pem("CERTIFICATE", b"x"),
                &key,
                "x509: malformed certificate",
            ),
            (
                &String::new(),
                &key,
                "tls: failed to find any PEM data in certificate input",
            ),
            (
                &good,
                &String::new(),
                "tls: failed to find any PEM data in key input",
            ),
        ];
        for (certificate, key, want) in table {
            let [certificate, key] = [certificate, key].map(|t| BASE64_STANDARD.encode(t));
            let secret = json!({"type": "kubernetes.io/tls",
                "data": {"tls.crt": certificate, "tls.key": key}});
            let told = on_update("", "Secret", "", &secret, &secret);
            assert_eq!(told.join("|"), want);
        }
    }
}
