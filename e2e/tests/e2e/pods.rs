//! What kubelet makes of a pod: containers in order, restarts, environment,
//! volumes, probes, hooks, static pods.

use std::fs;
use std::process::Command;

use e2e::wait::equals;
use e2e::{Cluster, Namespace, until};
use serde_json::{Value, json};

/// A pod named `name`; `spec` is YAML at two spaces.
fn apply(namespace: &Namespace, name: &str, spec: &str) {
    let head = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\n"
    );
    namespace.apply(&format!(
        "{head}spec:\n  terminationGracePeriodSeconds: 1\n{spec}"
    ));
}

fn logs(namespace: &Namespace, pod: &str) -> String {
    namespace.kubectl("logs").args([pod]).ok()
}

#[test]
fn init_containers_run_in_order_before_the_rest() {
    let namespace = Namespace::new("init");
    apply(
        &namespace,
        "ordered",
        r#"
  restartPolicy: Never
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
  - name: first
    image: ferrokube.local/demo:1
    command: [sh, -c, 'echo first > /shared/order']
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: second
    image: ferrokube.local/demo:1
    command: [sh, -c, 'echo second >> /shared/order']
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: main
    image: ferrokube.local/demo:1
    command: [sh, -c, 'echo main >> /shared/order; cat /shared/order']
    volumeMounts: [{name: shared, mountPath: /shared}]
"#,
    );
    let pod = namespace.await_phase("ordered", "Succeeded");
    assert_eq!(
        namespace.kubectl("logs ordered -c main").ok(),
        "first\nsecond\nmain"
    );
    for status in pod["status"]["initContainerStatuses"].as_array().unwrap() {
        assert_eq!(
            status["state"]["terminated"]["reason"], "Completed",
            "{status}"
        );
    }
}

#[test]
fn a_failing_init_container_keeps_the_rest_waiting() {
    let namespace = Namespace::new("initfail");
    apply(
        &namespace,
        "stuck",
        r#"
  restartPolicy: Never
  initContainers:
  - {name: breaks, image: 'ferrokube.local/demo:1', command: ['false']}
  containers:
  - {name: main, image: 'ferrokube.local/demo:1', command: ['true']}
"#,
    );
    let pod = namespace.await_phase("stuck", "Failed");
    assert_eq!(
        pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"],
        1
    );
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
}

#[test]
fn containers_of_a_pod_share_its_network() {
    let namespace = Namespace::new("several");
    apply(
        &namespace,
        "pair",
        r#"
  containers:
  - {name: server, image: 'ferrokube.local/demo:1'}
  - {name: client, image: 'ferrokube.local/demo:1', command: [sleep, '100000']}
"#,
    );
    namespace.await_ready("pair");
    until("an answer over loopback", || {
        let wget = namespace
            .kubectl("exec pair -c client -- wget -q -O - http://127.0.0.1:8080/")
            .run();
        equals(wget.success()?, "pair")
    });
}

#[test]
fn restart_policies_are_followed() {
    let namespace = Namespace::new("restart");
    for (name, policy, command) in [
        ("never", "Never", "exit 4"),
        (
            "onfailure",
            "OnFailure",
            "test -e /data/second || { touch /data/second; exit 1; }",
        ),
        ("always", "Always", "exit 0"),
    ] {
        apply(
            &namespace,
            name,
            &format!(
                r#"
  restartPolicy: {policy}
  volumes: [{{name: data, emptyDir: {{}}}}]
  containers:
  - name: main
    image: ferrokube.local/demo:1
    command: [sh, -c, '{command}']
    volumeMounts: [{{name: data, mountPath: /data}}]
"#
            ),
        );
    }
    let never = namespace.await_phase("never", "Failed");
    let status = &never["status"]["containerStatuses"][0];
    assert_eq!(
        (
            &status["restartCount"],
            &status["state"]["terminated"]["exitCode"]
        ),
        (&json!(0), &json!(4))
    );
    let onfailure = namespace.await_phase("onfailure", "Succeeded");
    assert_eq!(
        onfailure["status"]["containerStatuses"][0]["restartCount"],
        1
    );
    namespace.await_value("pod always", "/status/containerStatuses/0/restartCount", 2);
}

#[test]
fn the_environment_comes_from_everywhere() {
    let namespace = Namespace::new("env");
    namespace
        .kubectl("create configmap settings --from-literal=colour=green --from-literal=size=3")
        .ok();
    namespace
        .kubectl("create secret generic key --from-literal=password=hidden")
        .ok();
    apply(
        &namespace,
        "env",
        r#"
  restartPolicy: Never
  containers:
  - name: main
    image: ferrokube.local/demo:1
    command: [sh, -c, 'echo "$LITERAL|$COLOUR|$PASSWORD|$NAME|$REQUEST|$COMBINED|$ALL_size|$ABSENT"']
    resources: {requests: {memory: 16Mi}}
    envFrom:
    - {prefix: ALL_, configMapRef: {name: settings}}
    env:
    - {name: LITERAL, value: plain}
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: key, key: password}}}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: REQUEST, valueFrom: {resourceFieldRef: {resource: requests.memory, divisor: 1Mi}}}
    - {name: COMBINED, value: '$(LITERAL)-$(NAME)-$$(ESCAPED)'}
    - {name: ABSENT, valueFrom: {configMapKeyRef: {name: settings, key: absent, optional: true}}}
"#,
    );
    namespace.await_phase("env", "Succeeded");
    assert_eq!(
        logs(&namespace, "env"),
        "plain|green|hidden|env|16|plain-env-$(ESCAPED)|3|"
    );
}

#[test]
fn a_missing_config_map_is_waited_for() {
    let namespace = Namespace::new("missing");
    apply(
        &namespace,
        "waiting",
        r#"
  restartPolicy: Never
  containers:
  - name: main
    image: ferrokube.local/demo:1
    command: [sh, -c, 'echo $COLOUR']
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: later, key: colour}}}
"#,
    );
    namespace.await_value(
        "pod waiting",
        "/status/containerStatuses/0/state/waiting/reason",
        "CreateContainerConfigError",
    );
    namespace
        .kubectl("create configmap later --from-literal=colour=blue")
        .ok();
    namespace.await_phase("waiting", "Succeeded");
    assert_eq!(logs(&namespace, "waiting"), "blue");
}

#[test]
fn volumes_show_their_sources_and_follow_them() {
    let namespace = Namespace::new("volumes");
    namespace
        .kubectl("create configmap settings --from-literal=colour=green")
        .ok();
    namespace
        .kubectl("create secret generic key --from-literal=password=hidden")
        .ok();
    apply(
        &namespace,
        "volumes",
        r#"
  volumes:
  - {name: config, configMap: {name: settings}}
  - {name: secret, secret: {secretName: key, defaultMode: 0400}}
  - {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: scratch, emptyDir: {medium: Memory}}
  - name: all
    projected:
      sources:
      - {configMap: {name: settings, items: [{key: colour, path: deep/colour}]}}
      - {serviceAccountToken: {path: token, audience: nobody, expirationSeconds: 600}}
  - {name: host, hostPath: {path: /etc/hostname, type: File}}
  containers:
  - name: main
    image: ferrokube.local/demo:1
    command: [sleep, '100000']
    volumeMounts:
    - {name: config, mountPath: /config}
    - {name: secret, mountPath: /secret, readOnly: true}
    - {name: about, mountPath: /about}
    - {name: scratch, mountPath: /scratch}
    - {name: all, mountPath: /all}
    - {name: host, mountPath: /node-name}
"#,
    );
    let pod = namespace.await_ready("volumes");
    let run = |command: &str| {
        namespace
            .kubectl("exec volumes -- sh -c")
            .args([command])
            .ok()
    };
    assert_eq!(run("cat /config/colour"), "green");
    assert_eq!(
        run("cat /secret/password; stat -L -c ' %a' /secret/password"),
        "hidden 400"
    );
    // A cloud's zones may be among the labels as well.
    assert_eq!(run("grep app= /about/labels"), r#"app="volumes""#);
    assert_eq!(run("cat /all/deep/colour"), "green");
    assert_eq!(
        run("cat /node-name"),
        pod["spec"]["nodeName"].as_str().unwrap()
    );
    assert_eq!(
        run("stat -f -c %T /scratch; echo kept > /scratch/file; cat /scratch/file"),
        "tmpfs\nkept"
    );
    assert_eq!(
        run(
            "cut -d. -f2 /all/token | tr _- /+ | base64 -d 2>/dev/null | grep -o '\"aud\":\\[[^]]*]'"
        ),
        r#""aud":["nobody"]"#
    );
    let service_account =
        run("cd /var/run/secrets/kubernetes.io/serviceaccount; cat namespace; ls ca.crt token");
    assert_eq!(service_account, format!("{}ca.crt\ntoken", namespace.name));

    namespace
        .kubectl("patch configmap settings -p")
        .args([r#"{"data":{"colour":"red"}}"#])
        .ok();
    namespace.kubectl("label pod volumes more=yes").ok();
    until("the files to follow", || {
        equals(
            run("cat /config/colour /all/deep/colour; grep more= /about/labels"),
            "redredmore=\"yes\"",
        )
    });
}

#[test]
fn probes_decide_on_readiness_and_restarts() {
    let namespace = Namespace::new("probes");
    apply(
        &namespace,
        "probed",
        r#"
  containers:
  - name: main
    image: ferrokube.local/demo:1
    ports: [{name: http, containerPort: 8080}]
    startupProbe: {tcpSocket: {port: http}, periodSeconds: 1, failureThreshold: 60}
    readinessProbe: {exec: {command: [test, '!', -e, /tmp/busy]}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1, failureThreshold: 2}
"#,
    );
    namespace.await_ready("probed");
    let ready = |expected: bool| {
        namespace.await_value("pod probed", "/status/containerStatuses/0/ready", expected)
    };
    namespace.kubectl("exec probed -- touch /tmp/busy").ok();
    ready(false);
    namespace.kubectl("exec probed -- rm /tmp/busy").ok();
    ready(true);
    assert_eq!(
        namespace.get("pod probed").unwrap()["status"]["containerStatuses"][0]["restartCount"],
        0
    );

    namespace.kubectl("exec probed -- mv /www /gone").ok();
    namespace.await_value("pod probed", "/status/containerStatuses/0/restartCount", 1);
    namespace.await_ready("probed");
    until("an event that says why", || {
        let events = namespace
            .kubectl("get events -o jsonpath={.items[*].reason}")
            .ok();
        if events.contains("Unhealthy") && events.contains("Killing") {
            Ok(())
        } else {
            Err(events)
        }
    });
}

#[test]
fn hooks_and_grace() {
    let namespace = Namespace::new("hooks");
    namespace.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: watcher, labels: {app: hooks}}
spec:
  terminationGracePeriodSeconds: 30
  volumes: [{name: log, hostPath: {path: /var/tmp, type: Directory}}]
  containers:
  - name: main
    image: ferrokube.local/demo:1
    command: [sh, -c, 'trap "echo term >> /log/$POD; exit 0" TERM; while :; do sleep 0.1; done']
    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}]
    volumeMounts: [{name: log, mountPath: /log}]
    lifecycle:
      postStart: {exec: {command: [sh, -c, 'echo started >> /log/$POD']}}
      preStop: {exec: {command: [sh, -c, 'echo stopping >> /log/$POD']}}
"#,
    );
    let pod = namespace.await_ready("watcher");
    namespace.kubectl("delete pod watcher").ok();
    let file = format!("/var/tmp/{}", pod["metadata"]["uid"].as_str().unwrap());
    let told = Cluster::get().in_node(pod["spec"]["nodeName"].as_str().unwrap(), &["cat", &file]);
    assert_eq!(told, "started\nstopping\nterm\n");
}

#[test]
fn a_container_that_ignores_term_is_killed() {
    let namespace = Namespace::new("stubborn");
    apply(
        &namespace,
        "stubborn",
        "  containers:\n  - {name: main, image: 'ferrokube.local/demo:1', command: [sh, -c, 'trap : TERM; while :; do sleep 1; done']}\n",
    );
    namespace.await_ready("stubborn");
    namespace.kubectl("delete pod stubborn").ok();
    assert!(
        namespace
            .get("pod stubborn")
            .unwrap_err()
            .contains("NotFound")
    );
}

#[test]
fn security_contexts_are_applied() {
    let namespace = Namespace::new("security");
    apply(
        &namespace,
        "restricted",
        r#"
  restartPolicy: Never
  securityContext: {runAsUser: 1234, runAsGroup: 2345, fsGroup: 3456}
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: main
    image: ferrokube.local/demo:1
    command: [sh, -c, 'id -u; id -g; stat -c %g /data; touch /file 2>/dev/null || echo read-only; grep -c "^CapEff:.0000000000000000" /proc/self/status']
    volumeMounts: [{name: data, mountPath: /data}]
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"#,
    );
    namespace.await_phase("restricted", "Succeeded");
    assert_eq!(
        logs(&namespace, "restricted"),
        "1234\n2345\n3456\nread-only\n1"
    );
}

#[test]
fn limits_bind() {
    let namespace = Namespace::new("limits");
    apply(
        &namespace,
        "hungry",
        r#"
  restartPolicy: Never
  containers:
  - name: main
    image: ferrokube.local/demo:1
    command: [sh, -c, 'x=x; while :; do x=$x$x; done']
    resources: {limits: {memory: 32Mi, cpu: 500m}}
"#,
    );
    let pod = namespace.await_phase("hungry", "Failed");
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&ended["reason"], &ended["exitCode"]),
        (&json!("OOMKilled"), &json!(137))
    );
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
}

#[test]
fn a_pod_past_its_deadline_fails() {
    let namespace = Namespace::new("deadline");
    apply(
        &namespace,
        "late",
        "  activeDeadlineSeconds: 2\n  containers:\n  - {name: main, image: 'ferrokube.local/demo:1', command: [sleep, '100000']}\n",
    );
    let pod = namespace.await_phase("late", "Failed");
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

/// Takes its file away again, whatever the test does.
struct StaticPod(std::path::PathBuf);

impl Drop for StaticPod {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn static_pods_come_from_files() {
    let cluster = Cluster::get();
    let namespace = Namespace::new("static");
    let file = StaticPod(cluster.path(&format!(
        "nodes/node1/etc/kubernetes/manifests/{}.yaml",
        namespace.name
    )));
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: fixed, namespace: {}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - {{name: main, image: 'ferrokube.local/demo:1'}}\n",
        namespace.name
    );
    fs::write(&file.0, manifest).unwrap();
    let mirror = namespace.await_ready("fixed-node1");
    assert_eq!(mirror["metadata"]["ownerReferences"][0]["kind"], "Node");
    assert_eq!(
        mirror["metadata"]["annotations"]["kubernetes.io/config.source"],
        "file"
    );
    let container = mirror["status"]["containerStatuses"][0]["containerID"].clone();

    // Deleting the mirror deletes a picture: it comes back, of the same container.
    namespace
        .kubectl("delete pod fixed-node1 --wait=false")
        .ok();
    until("another mirror of the same container", || {
        let now = namespace.get("pod fixed-node1")?;
        if now["metadata"]["uid"] == mirror["metadata"]["uid"] {
            return Err("the old mirror".into());
        }
        equals(
            now["status"]["containerStatuses"][0]["containerID"].clone(),
            &container,
        )
    });
    drop(file);
    until("the mirror to go with the file", || {
        match namespace.get("pod fixed-node1") {
            Err(error) if error.contains("NotFound") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn nodes_report_themselves() {
    let cluster = Cluster::get();
    for name in cluster.nodes() {
        let node: Value =
            serde_json::from_str(&cluster.kubectl("get node -o json").args([&name]).ok()).unwrap();
        let status = &node["status"];
        for (pointer, value) in [
            ("/metadata/labels/kubernetes.io~1hostname", json!(name)),
            ("/metadata/labels/kubernetes.io~1os", json!("linux")),
            ("/status/addresses/0/address", json!(cluster.node_ip(&name))),
            ("/status/nodeInfo/operatingSystem", json!("linux")),
        ] {
            assert_eq!(node.pointer(pointer), Some(&value), "{pointer} of {name}");
        }
        for resource in ["cpu", "memory", "pods", "ephemeral-storage"] {
            assert!(
                status["capacity"][resource].is_string()
                    && status["allocatable"][resource].is_string(),
                "{resource}: {status}"
            );
        }
        let lease: Value = serde_json::from_str(
            &cluster
                .kubectl("get lease -n kube-node-lease -o json")
                .args([&name])
                .ok(),
        )
        .unwrap();
        assert_eq!(lease["spec"]["holderIdentity"], json!(name));
        let renewed = &lease["spec"]["renewTime"];
        until("the lease to be renewed", || {
            let path = "jsonpath={.spec.renewTime}";
            let now = cluster
                .kubectl("get lease -n kube-node-lease")
                .args([name.as_str(), "-o", path])
                .ok();
            if json!(now) == *renewed {
                Err(now)
            } else {
                Ok(())
            }
        });
        // kubelet's own endpoints, by way of the API server.
        let proxy = format!("/api/v1/nodes/{name}/proxy");
        assert_eq!(
            cluster
                .kubectl("get --raw")
                .args([format!("{proxy}/healthz")])
                .ok(),
            "ok"
        );
        let pods = cluster
            .kubectl("get --raw")
            .args([format!("{proxy}/pods")])
            .ok();
        assert_eq!(
            serde_json::from_str::<Value>(&pods).unwrap()["kind"],
            "PodList"
        );
        assert!(
            cluster
                .kubectl("get --raw")
                .args([format!("{proxy}/metrics")])
                .ok()
                .contains("kubelet_running_pods")
        );
    }
}

#[test]
fn a_cloud_controller_manager_completes_nodes() {
    let cluster = Cluster::get();
    if !cluster.runs("cloud-controller-manager") {
        // Upstream has none for bare metal; then the nodes must do without.
        let taints = cluster
            .kubectl("get nodes -o jsonpath={.items[*].spec.taints}")
            .ok();
        assert_eq!(taints, "");
        return;
    }
    for name in cluster.nodes() {
        let node: Value =
            serde_json::from_str(&cluster.kubectl("get node -o json").args([&name]).ok()).unwrap();
        let labels = &node["metadata"]["labels"];
        for (label, value) in [
            ("topology.kubernetes.io/region", "local"),
            ("topology.kubernetes.io/zone", "local-a"),
            ("node.kubernetes.io/instance-type", "namespace"),
        ] {
            assert_eq!(labels[label], value, "{label} of {name}");
        }
        assert_eq!(node["spec"].get("taints"), None, "{name}");
        assert!(
            node["spec"]["providerID"]
                .as_str()
                .is_some_and(|id| id.contains(&name)),
            "{}",
            node["spec"]
        );
    }
}

#[test]
fn a_cloud_controller_manager_keeps_the_routes_to_pods() {
    let cluster = Cluster::get();
    if !cluster.runs("cloud-controller-manager") {
        return;
    }
    let ip = |arguments: &[&str]| {
        let done = Command::new("ip").args(arguments).output().unwrap();
        assert!(done.status.success(), "ip {arguments:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let mut networks = Vec::new();
    for name in cluster.nodes() {
        let via = cluster.node_ip(&name);
        let node: Value =
            serde_json::from_str(&cluster.kubectl("get node -o json").args([&name]).ok()).unwrap();
        let network = node["spec"]["podCIDR"].as_str().unwrap().to_owned();
        let conditions = node["status"]["conditions"].as_array().unwrap();
        let unavailable = conditions
            .iter()
            .find(|c| c["type"] == "NetworkUnavailable");
        let unavailable = unavailable.expect("a node whose routes are made says so");
        assert_eq!(unavailable["status"], "False", "{unavailable}");
        assert_eq!(unavailable["reason"], "RouteCreated", "{unavailable}");
        let route = ip(&["route", "show", &network]);
        assert!(route.contains(&format!("via {via}")), "{route}");
        networks.push((network, via));
    }

    // A route that no node has any more: as one that is left by a node that went.
    let (network, via) = &networks[0];
    let mut octets = network.split('.');
    let (first, second) = (octets.next().unwrap(), octets.next().unwrap());
    let stale = format!("{first}.{second}.254.0/24");
    assert!(networks.iter().all(|(network, _)| *network != stale));
    ip(&["route", "add", &stale, "via", via, "proto", "136"]);
    until("the stale route to be removed", || {
        equals(ip(&["route", "show", &stale]), "")
    });
    for (network, via) in &networks {
        let route = ip(&["route", "show", network]);
        assert!(route.contains(&format!("via {via}")), "{route}");
    }
}
