//! Two of one daemon: one leads and the other waits; a leader that was away writes nothing
//! when it comes back; and two schedulers that both lead, by mistake, bind no pod twice.

use std::collections::HashMap;

use e2e::scheduling::nodes::node;
use e2e::stand::http::{Ask, Connection};
use e2e::stand::process::Process;
use e2e::stand::watch::Changes;
use e2e::stand::{Stand, free_ports};
use e2e::wait::until_async;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::{bin, stand};

const LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn kubeconfig(stand: &Stand) -> String {
    let path = stand.kubeconfig("admin.conf", stand.api.port).unwrap();
    path.display().to_string()
}

/// A controller manager whose lease is short, so that the test is.
fn manager(stand: &Stand, name: &str) -> Process {
    let home = stand.home();
    let [port] = free_ports().unwrap();
    let arguments = [
        format!("--kubeconfig={}", kubeconfig(stand)),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!(
            "--cert-dir={}",
            home.join(format!("{name}-certs")).display()
        ),
        format!("--root-ca-file={}", stand.pki.path("ca.crt").display()),
        format!(
            "--service-account-private-key-file={}",
            stand.pki.path("sa.key").display()
        ),
        "--leader-elect-lease-duration=4s".to_owned(),
        "--leader-elect-renew-deadline=3s".to_owned(),
        "--leader-elect-retry-period=1s".to_owned(),
    ];
    let binary = bin().join("kube-controller-manager");
    Process::start(&binary, &arguments, &home.join(format!("{name}.log"))).unwrap()
}

/// Waits until somebody else than `before` leads, and says who.
async fn leader(connection: &Connection, before: &str) -> String {
    until_async("another leader", async || {
        let lease = connection.json(&Ask::get(LEASE)).await;
        let lease = lease.map_err(|e| e.to_string())?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        if holder.is_empty() || holder == before {
            return Err(format!("{holder:?} leads"));
        }
        Ok(holder.to_owned())
    })
    .await
}

fn deployment(name: &str) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 5,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "registry.example/pause:1"}]},
            },
        },
    })
}

/// Waits until a Deployment has its pods, and no more than those.
async fn has_pods(connection: &Connection, name: &str) {
    let path = format!("{PODS}?labelSelector=app%3D{name}");
    until_async("the pods of a Deployment", async || {
        let list = connection.json(&Ask::get(&*path)).await;
        let list = list.map_err(|e| e.to_string())?;
        let pods = list["items"].as_array().map_or(0, Vec::len);
        assert!(pods <= 5, "{pods} pods instead of 5");
        (pods == 5).then_some(()).ok_or(format!("{pods} pods"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_at_a_time() {
    let stand = stand(&[], &[]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    let mut first = manager(&stand, "first");
    let one = leader(&connection, "").await;
    let second = manager(&stand, "second");
    let ask = Ask::post(DEPLOYMENTS, &deployment("a"));
    connection.success(&ask).await.unwrap();
    has_pods(&connection, "a").await;
    first.kill();
    let two = leader(&connection, &one).await;

    // The second goes away for a while, with work before it.
    let mut third = manager(&stand, "third");
    kill(second.pid(), Signal::SIGSTOP).unwrap();
    let ask = Ask::post(DEPLOYMENTS, &deployment("b"));
    connection.success(&ask).await.unwrap();
    leader(&connection, &two).await;
    has_pods(&connection, "b").await;
    let mut changes = Changes::follow(&stand.endpoint, PODS).await.unwrap();
    kill(second.pid(), Signal::SIGCONT).unwrap();
    let mut second = second;
    until_async("the old leader to end", async || match second.check() {
        Ok(()) => Err("it runs".to_owned()),
        Err(_) => Ok(()),
    })
    .await;
    third.check().unwrap();
    // Were there a write of the old leader, it would have come before this one.
    let pod = json!({
        "metadata": {"name": "last"},
        "spec": {"containers": [{"name": "c", "image": "registry.example/pause:1"}]},
    });
    connection.success(&Ask::post(PODS, &pod)).await.unwrap();
    let (kind, pod) = changes.next().await.unwrap();
    assert_eq!(
        (kind.as_str(), pod["metadata"]["name"].as_str()),
        ("ADDED", Some("last"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_schedulers_bind_no_pod_twice() {
    const COUNT: usize = 200;
    let stand = stand(
        &[],
        &["--disable-admission-plugins=ServiceAccount,TaintNodesByCondition"],
    )
    .await;
    let connection = stand.endpoint.connect().await.unwrap();
    for i in 0..20 {
        let ask = Ask::post("/api/v1/nodes", &node(i, 3));
        connection.success(&ask).await.unwrap();
    }
    let config = stand.home().join("scheduler.yaml");
    let content = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig(&stand), "qps": 1000, "burst": 1000},
        "leaderElection": {"leaderElect": false},
    });
    std::fs::write(&config, content.to_string()).unwrap();
    let scheduler = |name: &str| {
        let [port] = free_ports().unwrap();
        let home = stand.home();
        let arguments = [
            format!("--config={}", config.display()),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!(
                "--cert-dir={}",
                home.join(format!("{name}-certs")).display()
            ),
        ];
        let binary = bin().join("kube-scheduler");
        Process::start(&binary, &arguments, &home.join(format!("{name}.log"))).unwrap()
    };
    let mut both = [scheduler("one"), scheduler("two")];
    let mut changes = Changes::follow(&stand.endpoint, PODS).await.unwrap();
    for i in 0..COUNT {
        let pod = json!({
            "metadata": {"name": format!("p-{i}")},
            "spec": {"containers": [{"name": "c", "image": "registry.example/pause:1"}]},
        });
        connection.success(&Ask::post(PODS, &pod)).await.unwrap();
    }
    let mut bound: HashMap<String, String> = HashMap::new();
    while bound.len() < COUNT {
        let (_, pod) = changes.next().await.unwrap();
        let Some(on) = pod["spec"]["nodeName"].as_str() else {
            continue;
        };
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let before = bound.insert(name.to_owned(), on.to_owned());
        assert!(before.is_none_or(|before| before == on), "{name} has moved");
    }
    for scheduler in &mut both {
        scheduler.check().unwrap();
    }
}
