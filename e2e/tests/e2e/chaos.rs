//! `kill -9` of every daemon in turn while a deployment is updated under traffic.
//! The daemon is started again, the update finishes, pods that have no part in it
//! keep their containers, and nothing that was acknowledged is lost.
//!
//! These tests run alone (see `.config/nextest.toml`): others would notice.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use e2e::cluster::DEMO;
use e2e::wait::equals;
use e2e::{Cluster, Namespace, net, until};
use serde_json::Value;

/// What must be the same of a bystander before and after.
fn containers(namespace: &Namespace) -> Vec<(Value, Value, Value)> {
    let pods = namespace.get("pods -l app=bystander").unwrap();
    let mut containers: Vec<_> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| {
            let container = &pod["status"]["containerStatuses"][0];
            (
                pod["metadata"]["name"].clone(),
                container["containerID"].clone(),
                container["restartCount"].clone(),
            )
        })
        .collect();
    containers.sort_by_key(|(name, ..)| name.to_string());
    containers
}

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: bystander}
spec:
  replicas: 2
  selector: {matchLabels: {app: bystander}}
  template:
    metadata: {labels: {app: bystander}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: 'ferrokube.local/demo:1', command: [sleep, '100000']}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: demo
        image: ferrokube.local/demo:1
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"#;

/// Kills `daemons` one after the other in the middle of an update.
fn survive(theme: &str, daemons: &[&str]) {
    let cluster = Cluster::get();
    let namespace = Namespace::new(theme);
    namespace.apply(MANIFEST);
    namespace.await_rollout("bystander");
    namespace.await_rollout("web");
    let address = format!(
        "{}:80",
        namespace.get("service web").unwrap()["spec"]["clusterIP"]
            .as_str()
            .unwrap()
    );
    until("the service to answer", || net::get(&address));
    let before = containers(&namespace);
    assert_eq!(before.len(), 2);

    let stop = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let acknowledged = Mutex::new(Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if net::get(&address).is_ok() {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        scope.spawn(|| {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("write-{number}");
                let done = namespace
                    .kubectl("create configmap --request-timeout=5s")
                    .args([&name])
                    .run();
                if done.code == Some(0) {
                    acknowledged.lock().unwrap().push(name);
                }
            }
        });
        // Whatever fails below, the threads above must end for the test to.
        let result = std::panic::catch_unwind(|| {
            for (round, daemon) in daemons.iter().enumerate() {
                let image = format!("demo={}", DEMO[(round + 1) % 2]);
                until("the update to be accepted", || {
                    namespace
                        .kubectl("set image deployment/web")
                        .args([&image])
                        .run()
                        .success()
                });
                until("the update to be under way", || {
                    let web = namespace.get("deployment web")?;
                    let (updated, old) = (
                        &web["status"]["updatedReplicas"],
                        &web["status"]["replicas"],
                    );
                    if updated.as_u64().unwrap_or(0) > 0 || old.as_u64().unwrap_or(0) > 3 {
                        Ok(())
                    } else {
                        Err(web["status"].to_string())
                    }
                });
                cluster.kill(daemon);
                namespace.await_rollout("web");
                until("only the new image to run", || {
                    let path = "jsonpath={.items[*].spec.containers[*].image}";
                    let images = namespace
                        .kubectl("get pods -l app=web -o")
                        .args([path])
                        .run()
                        .success()?;
                    let new = DEMO[(round + 1) % 2];
                    equals(images, &[new; 3].join(" "))
                });
                let (traffic, writes) = (
                    answered.load(Ordering::Relaxed),
                    acknowledged.lock().unwrap().len(),
                );
                until(
                    &format!("traffic and writes to go on after {daemon}"),
                    || {
                        let now = (
                            answered.load(Ordering::Relaxed),
                            acknowledged.lock().unwrap().len(),
                        );
                        if now.0 > traffic && now.1 > writes {
                            Ok(())
                        } else {
                            Err(format!("{now:?}"))
                        }
                    },
                );
            }
        });
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });

    assert_eq!(
        containers(&namespace),
        before,
        "a pod that had no part in it was touched"
    );
    let stored = namespace
        .kubectl("get configmaps -o jsonpath={.items[*].metadata.name}")
        .ok();
    let stored: Vec<_> = stored.split(' ').collect();
    let acknowledged = acknowledged.into_inner().unwrap();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|name| !stored.contains(&name.as_str()))
        .collect();
    assert!(
        lost.is_empty(),
        "acknowledged and lost: {lost:?} of {}",
        acknowledged.len()
    );
}

#[test]
fn the_store_and_its_server() {
    survive("chaosapi", &["kube-apiserver", "etcd"]);
}

#[test]
fn scheduler_and_controllers() {
    let mut daemons = vec!["kube-scheduler", "kube-controller-manager"];
    if Cluster::get().runs("cloud-controller-manager") {
        daemons.push("cloud-controller-manager");
    }
    survive("chaoscontrol", &daemons);
}

#[test]
fn node_daemons() {
    survive(
        "chaosnode",
        &["kubelet@node1", "kube-proxy@node1", "containerd@node1"],
    );
}
