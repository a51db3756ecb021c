//! Two of one daemon: one leads and the other waits; a leader that was away writes nothing
//! when it comes back; and two schedulers that both lead, by mistake, bind no pod twice.

use std::collections::HashMap;

use e2e::scheduling::nodes::node;
use e2e::stand::http::{Ask, Connection};
use e2e::stand::watch::Changes;
use e2e::wait::until_async;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::daemons::{manager, scheduler};
use super::stand;

const LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
/// So that the test is short.
const LEASE_OF_SECONDS: [&str; 3] = [
    "--leader-elect-lease-duration=4s",
    "--leader-elect-renew-deadline=3s",
    "--leader-elect-retry-period=1s",
];
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";

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
    let mut first = manager(&stand, "first", &LEASE_OF_SECONDS);
    let one = leader(&connection, "").await;
    let second = manager(&stand, "second", &LEASE_OF_SECONDS);
    let ask = Ask::post(DEPLOYMENTS, &deployment("a"));
    connection.success(&ask).await.unwrap();
    has_pods(&connection, "a").await;
    first.kill();
    let two = leader(&connection, &one).await;

    // The second goes away for a while, with work before it.
    let mut third = manager(&stand, "third", &LEASE_OF_SECONDS);
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
    let mut both = [scheduler(&stand, "one"), scheduler(&stand, "two")];
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
