//! What can be asked for and cannot be done: an event or a condition says so, and everybody
//! else is served.

use e2e::scheduling::nodes::node;
use e2e::stand::http::{Ask, Connection};
use e2e::wait::until_async;
use http::Method;
use serde_json::{Value, json};

use super::daemons::{manager, scheduler};
use super::stand;

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const EVENTS: &str = "/api/v1/namespaces/default/events";

async fn create(connection: &Connection, path: &str, object: &Value) -> Value {
    let made = connection.success(&Ask::post(path, object)).await.unwrap();
    serde_json::from_slice(&made).unwrap()
}

fn pod(name: &str, spec: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "registry.example/pause:1"}]},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

async fn get(connection: &Connection, path: &str) -> Result<Value, String> {
    let found = connection.json(&Ask::get(path)).await;
    found.map_err(|e| e.to_string())
}

async fn is_bound(connection: &Connection, name: &str) {
    until_async(&format!("{name} to be bound"), async || {
        let pod = get(connection, &format!("{PODS}/{name}")).await?;
        let node = pod["spec"]["nodeName"].as_str();
        node.map(drop).ok_or_else(|| pod["status"].to_string())
    })
    .await;
}

/// Waits for a Warning about an object, and gives its message.
async fn warning(connection: &Connection, about: &str, reason: &str) -> String {
    until_async(&format!("{reason} of {about}"), async || {
        let list = get(connection, EVENTS).await?;
        let events = list["items"].as_array().cloned().unwrap_or_default();
        let found = events.iter().find(|event| {
            event["involvedObject"]["name"] == about
                && event["reason"] == reason
                && event["type"] == "Warning"
        });
        match found {
            Some(event) => Ok(event["message"].as_str().unwrap_or_default().to_owned()),
            None => Err(format!("{} other events", events.len())),
        }
    })
    .await
}

async fn is_gone(connection: &Connection, path: &str) {
    until_async(&format!("{path} to go"), async || {
        let (status, _) = connection
            .ask(&Ask::get(path))
            .await
            .map_err(|e| e.to_string())?;
        match status.as_u16() {
            404 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_cannot_be_placed_say_why_and_hold_nobody_up() {
    let admission = "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition";
    let stand = stand(&[], &[admission]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    for i in 0..3 {
        create(&connection, "/api/v1/nodes", &node(i, 3)).await;
    }
    let mut scheduler = scheduler(&stand, "scheduler");

    let zone = |operator: &str| json!({"key": "topology.kubernetes.io/zone", "operator": operator, "values": ["zone-1"]});
    let contradiction = json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [zone("In"), zone("NotIn")]},
        ]},
    }}});
    create(&connection, PODS, &pod("contradiction", &contradiction)).await;
    create(
        &connection,
        PODS,
        &pod("stranger", &json!({"schedulerName": "nobody"})),
    )
    .await;
    let tolerations: Vec<Value> = (0..10_000)
        .map(|i| json!({"key": format!("example.com/{i}"), "operator": "Exists"}))
        .collect();
    create(
        &connection,
        PODS,
        &pod("tolerant", &json!({"tolerations": tolerations})),
    )
    .await;
    create(&connection, PODS, &pod("plain", &json!({}))).await;

    is_bound(&connection, "tolerant").await;
    is_bound(&connection, "plain").await;
    let why = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector";
    let message = warning(&connection, "contradiction", "FailedScheduling").await;
    assert!(message.starts_with(why), "{message}");
    let refused = get(&connection, &format!("{PODS}/contradiction"))
        .await
        .unwrap();
    let condition = &refused["status"]["conditions"][0];
    assert_eq!(
        (
            &condition["type"],
            &condition["status"],
            &condition["reason"]
        ),
        (
            &json!("PodScheduled"),
            &json!("False"),
            &json!("Unschedulable")
        )
    );
    // The scheduler it asks for may come yet.
    let stranger = get(&connection, &format!("{PODS}/stranger")).await.unwrap();
    assert_eq!(stranger["spec"]["nodeName"], Value::Null);
    scheduler.check().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_cannot_be_reconciled_say_why_and_hold_nobody_up() {
    let stand = stand(&[], &["--disable-admission-plugins=ServiceAccount"]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    let often = "--horizontal-pod-autoscaler-sync-period=1s";
    let mut manager = manager(&stand, "manager", &[often]);
    let owner = |of: &Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": of["metadata"]["name"],
            "uid": of["metadata"]["uid"]})
    };

    // Owners that own each other are no owners to wait for.
    let one = create(&connection, MAPS, &json!({"metadata": {"name": "one"}})).await;
    let owned = json!({"metadata": {"name": "two", "ownerReferences": [owner(&one)]}});
    let two = create(&connection, MAPS, &owned).await;
    let back = json!({"metadata": {"ownerReferences": [owner(&two)]}});
    let path = format!("{MAPS}/one");
    let patch = Ask::send(
        Method::PATCH,
        path.clone(),
        "application/merge-patch+json",
        back.to_string(),
    );
    connection.success(&patch).await.unwrap();

    // An owner elsewhere is none.
    let namespace = json!({"metadata": {"name": "elsewhere"}});
    create(&connection, "/api/v1/namespaces", &namespace).await;
    let elsewhere = "/api/v1/namespaces/elsewhere/configmaps";
    let far = create(
        &connection,
        elsewhere,
        &json!({"metadata": {"name": "far"}}),
    )
    .await;
    let stray = json!({"metadata": {"name": "stray", "ownerReferences": [owner(&far)]}});
    create(&connection, MAPS, &stray).await;

    let autoscaler = json!({
        "metadata": {"name": "lost"},
        "spec": {
            "minReplicas": 1, "maxReplicas": 2,
            "scaleTargetRef": {"apiVersion": "example.com/v1", "kind": "Nothing", "name": "n"},
        },
    });
    let autoscalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    create(&connection, autoscalers, &autoscaler).await;

    let cron = json!({
        "metadata": {"name": "never"},
        "spec": {"schedule": "0 0 31 2 *", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "c", "image": "registry.example/pause:1"}],
        }}}}},
    });
    let crons = "/apis/batch/v1/namespaces/default/cronjobs";
    create(&connection, crons, &cron).await;

    let labels = json!({"app": "plain"});
    let deployment = json!({
        "metadata": {"name": "plain"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "registry.example/pause:1"}]},
        }},
    });
    create(
        &connection,
        "/apis/apps/v1/namespaces/default/deployments",
        &deployment,
    )
    .await;
    until_async("the pods of a Deployment", async || {
        let list = get(&connection, &format!("{PODS}?labelSelector=app%3Dplain")).await?;
        match list["items"].as_array().map_or(0, Vec::len) {
            2 => Ok(()),
            other => Err(format!("{other} pods")),
        }
    })
    .await;

    let message = warning(&connection, "stray", "OwnerRefInvalidNamespace").await;
    assert!(
        message.contains("does not exist in namespace \"default\""),
        "{message}"
    );
    warning(&connection, "never", "InvalidSchedule").await;
    warning(&connection, "lost", "FailedGetScale").await;
    until_async("the condition of the autoscaler", async || {
        let lost = get(&connection, &format!("{autoscalers}/lost")).await?;
        let conditions = lost["status"]["conditions"].as_array().cloned();
        let able = |c: &Value| {
            c["type"] == "AbleToScale" && c["status"] == "False" && c["reason"] == "FailedGetScale"
        };
        let told = conditions.unwrap_or_default().iter().any(able);
        told.then_some(()).ok_or_else(|| lost["status"].to_string())
    })
    .await;
    is_gone(&connection, &format!("{MAPS}/stray")).await;
    connection.success(&Ask::delete(path)).await.unwrap();
    is_gone(&connection, &format!("{MAPS}/two")).await;
    manager.check().unwrap();
}
