//! Each check with a pod that passes and what is said of one that does not.

use serde_json::json;

use super::*;

fn at(level: Level, version: &str) -> LevelVersion {
    LevelVersion {
        level,
        version: Version::parse(version).unwrap(),
    }
}

fn with(metadata: Value, spec: Value, policy: LevelVersion) -> String {
    evaluate(policy, &metadata, &spec).details()
}

fn baseline(spec: Value) -> String {
    with(json!({}), spec, at(Level::Baseline, "latest"))
}

/// A pod that is restricted in every version.
fn good() -> Value {
    json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    })
}

fn containers_with(field: &str, value: Value) -> Value {
    let container = |name: &str| json!({"name": name, "securityContext": {field: value}});
    json!({"containers": [container("a")], "initContainers": [container("i")]})
}

#[test]
fn a_good_pod_passes_everything() {
    for level in [Level::Privileged, Level::Baseline, Level::Restricted] {
        for minor in 0..40 {
            let policy = LevelVersion {
                level,
                version: Version::Minor(minor),
            };
            assert_eq!(with(json!({}), good(), policy), "", "{policy}");
        }
    }
}

#[test]
fn checks_are_in_order_and_replace_each_other() {
    let ids: Vec<(Level, &str)> = CHECKS.iter().map(|c| (c.level, c.id)).collect();
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(ids, sorted);
    for check in CHECKS {
        assert!(
            check.revisions.is_sorted_by(|a, b| a.since < b.since),
            "{}",
            check.id
        );
        let known = CHECKS
            .iter()
            .any(|c| c.id == check.instead_of && c.level == Level::Baseline);
        assert!(check.instead_of.is_empty() || known, "{}", check.id);
    }
}

#[test]
fn the_node_is_not_the_pods() {
    assert_eq!(
        baseline(json!({"hostNetwork": true, "hostIPC": true})),
        "host namespaces (hostNetwork=true, hostIPC=true)"
    );
    assert_eq!(
        baseline(json!({"containers": [
            {"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 0}]},
            {"name": "b", "ports": [{"hostPort": 443}]}]})),
        r#"hostPort (containers "a", "b" use hostPorts 443, 80)"#
    );
    let probing = json!({"containers": [{"name": "a",
        "livenessProbe": {"httpGet": {"host": "10.0.0.1"}},
        "lifecycle": {"preStop": {"tcpSocket": {"host": "b"}}}}]});
    assert_eq!(
        baseline(probing.clone()),
        r#"probe or lifecycle host (container "a" uses probe or lifecycle hosts "10.0.0.1", "b")"#
    );
    assert_eq!(with(json!({}), probing, at(Level::Baseline, "v1.33")), "");
    assert_eq!(
        baseline(json!({"securityContext": {"windowsOptions": {"hostProcess": true}}})),
        "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"
    );
}

#[test]
fn sysctls_become_safe_over_time() {
    let spec = json!({"securityContext": {"sysctls": [
        {"name": "net.ipv4.tcp_rmem"}, {"name": "net.ipv4.tcp_fin_timeout"},
        {"name": "net.ipv4.ip_local_reserved_ports"}, {"name": "kernel.shm_rmid_forced"}]}});
    for (version, said) in [
        ("v1.32", ""),
        ("v1.29", "forbidden sysctls (net.ipv4.tcp_rmem)"),
        (
            "v1.27",
            "forbidden sysctls (net.ipv4.tcp_rmem, net.ipv4.tcp_fin_timeout)",
        ),
        (
            "v1.0",
            "forbidden sysctls (net.ipv4.tcp_rmem, net.ipv4.tcp_fin_timeout, net.ipv4.ip_local_reserved_ports)",
        ),
    ] {
        let policy = at(Level::Baseline, version);
        assert_eq!(with(json!({}), spec.clone(), policy), said, "{version}");
    }
}

#[test]
fn privileges() {
    assert_eq!(
        baseline(containers_with("privileged", json!(true))),
        r#"privileged (containers "i", "a" must not set securityContext.privileged=true)"#
    );
    assert_eq!(
        baseline(containers_with(
            "capabilities",
            json!({"add": ["NET_RAW", "CHOWN"]})
        )),
        r#"non-default capabilities (containers "i", "a" must not include "NET_RAW" in securityContext.capabilities.add)"#
    );
    let mut pod = good();
    pod["containers"][0]["securityContext"] =
        json!({"capabilities": {"add": ["CHOWN", "NET_BIND_SERVICE"]}});
    assert_eq!(
        with(json!({}), pod.clone(), at(Level::Restricted, "latest")),
        r#"allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]; container "c" must not include "CHOWN" in securityContext.capabilities.add)"#
    );
    assert_eq!(
        with(json!({}), pod.clone(), at(Level::Restricted, "v1.7")),
        ""
    );
    pod["os"] = json!({"name": "windows"});
    assert_eq!(
        with(json!({}), pod.clone(), at(Level::Restricted, "v1.25")),
        ""
    );
    assert_ne!(with(json!({}), pod, at(Level::Restricted, "v1.24")), "");
}

#[test]
fn profiles() {
    let unconfined = json!({"type": "Unconfined"});
    let mut spec = containers_with("seccompProfile", unconfined.clone());
    spec["securityContext"] = json!({"seccompProfile": unconfined});
    assert_eq!(
        baseline(spec),
        r#"seccompProfile (pod and containers "i", "a" must not set securityContext.seccompProfile.type to "Unconfined")"#
    );
    let mut silent = good();
    silent["securityContext"] = json!({"runAsNonRoot": true});
    assert_eq!(
        with(json!({}), silent, at(Level::Restricted, "v1.19")),
        r#"seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#
    );
    let annotated = json!({"annotations": {
        "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        "container.seccomp.security.alpha.kubernetes.io/other": "unconfined"}});
    assert_eq!(
        with(annotated, good(), at(Level::Baseline, "v1.18")),
        r#"seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")"#
    );
    let annotated = json!({"annotations": {
        "container.apparmor.security.beta.kubernetes.io/c": "unconfined"}});
    let mut spec = good();
    spec["containers"][0]["securityContext"]["appArmorProfile"] = json!({"type": "Unconfined"});
    assert_eq!(
        with(annotated, spec, at(Level::Baseline, "latest")),
        r#"forbidden AppArmor profiles (container "c" and annotation must not set AppArmor profile type to "Unconfined", "container.apparmor.security.beta.kubernetes.io/c="unconfined"")"#
    );
    let options = json!({"type": "container_engine_t", "user": "u", "role": "r"});
    let spec = json!({"securityContext": {"seLinuxOptions": options}});
    assert_eq!(
        with(json!({}), spec.clone(), at(Level::Baseline, "v1.30")),
        r#"seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "container_engine_t"; user may not be set; role may not be set)"#
    );
    assert_eq!(
        baseline(spec),
        "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: user may not be set; role may not be set)"
    );
}

#[test]
fn users() {
    let restricted =
        |spec: Value, version: &str| with(json!({}), spec, at(Level::Restricted, version));
    let mut root = good();
    root["securityContext"]["runAsUser"] = json!(0);
    root["securityContext"]["runAsNonRoot"] = json!(false);
    let said = "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), \
                runAsUser=0 (pod must not set runAsUser=0)";
    assert_eq!(restricted(root.clone(), "latest"), said);
    root["hostUsers"] = json!(false);
    assert_eq!(restricted(root.clone(), "v1.34"), said);
    assert_eq!(restricted(root, "v1.35"), "");
    let mut silent = good();
    silent["securityContext"]["runAsNonRoot"] = json!(null);
    assert_eq!(
        restricted(silent, "v1.0"),
        r#"runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)"#
    );
}

#[test]
fn mounts() {
    let spec = json!({"volumes": [{"name": "h", "hostPath": {}}, {"name": "n", "nfs": {}}, {"name": "x"}]});
    assert_eq!(baseline(spec.clone()), r#"hostPath volumes (volume "h")"#);
    assert_eq!(
        with(json!({}), spec, at(Level::Restricted, "v1.0")),
        r#"restricted volume types (volumes "h", "n", "x" use restricted volume types "hostPath", "nfs", "unknown")"#
    );
    let mut bare = containers_with("procMount", json!("Unmasked"));
    let said =
        r#"procMount (containers "i", "a" must not set securityContext.procMount to "Unmasked")"#;
    assert_eq!(baseline(bare.clone()), said);
    bare["hostUsers"] = json!(false);
    assert_eq!(baseline(bare.clone()), "");
    let restricted = with(json!({}), bare, at(Level::Restricted, "latest"));
    assert!(restricted.contains(said), "{restricted}");
}

#[test]
fn labels_make_a_policy() {
    let of = |labels: Value| {
        let (policy, errors) = Policy::of_labels(&labels, &Policy::PRIVILEGED);
        let modes = policy.modes().map(|m| m.to_string()).join(" ");
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        (modes, errors.join("; "))
    };
    let key = |name: &str| format!("pod-security.kubernetes.io/{name}");
    let privileged = "privileged:latest privileged:latest privileged:latest";
    assert_eq!(of(json!({})).0, privileged);
    assert_eq!(
        of(json!({key("enforce"): "baseline", key("enforce-version"): "v1.20"})).0,
        "baseline:v1.20 privileged:latest baseline:v1.20"
    );
    assert_eq!(
        of(json!({key("enforce"): "restricted", key("warn"): "baseline", key("audit-version"): "v1.1"})).0,
        "restricted:latest privileged:v1.1 baseline:latest"
    );
    let (modes, errors) =
        of(json!({key("enforce"): "strict", key("warn-version"): "v2", key("audit"): "x"}));
    assert_eq!(
        modes,
        "restricted:latest privileged:latest privileged:latest"
    );
    assert_eq!(
        errors,
        "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted; \
         metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: \"x\": must be one of privileged, baseline, restricted; \
         metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v2\": must be \"latest\" or \"v1.x\""
    );
    for (text, good) in [
        ("v1.0", true),
        ("v1.01", false),
        ("v1.", false),
        ("v1.9999999999", false),
    ] {
        assert_eq!(Version::parse(text).is_ok(), good, "{text}");
    }
}
