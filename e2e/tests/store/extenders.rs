//! A scheduler that asks an extender which nodes will do, which is best, and who has to leave.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use e2e::scheduling::nodes::node;
use e2e::stand::http::{Ask, Connection};
use e2e::wait::until_async;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::daemons::scheduler_with;
use super::stand;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SCHEDULING: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
/// Nobody may go here, but others could leave.
const FORBIDDEN: &str = "sim-00000";
/// Everybody should.
const BEST: &str = "sim-00001";
/// Only from here may pods be sent away.
const YIELDING: &str = "sim-00002";

/// Listens on a port of its own, answers every question by its path, and keeps those about
/// victims.
struct Extender {
    port: u16,
    about_victims: Mutex<Vec<Value>>,
}

impl Extender {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let extender = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            about_victims: Mutex::default(),
        });
        let accepting = Arc::clone(&extender);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let extender = Arc::clone(&accepting);
                let service = service_fn(move |request| Arc::clone(&extender).answer(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        extender
    }

    fn configuration(&self, cached: bool) -> Value {
        json!({
            "urlPrefix": format!("http://127.0.0.1:{}", self.port),
            "filterVerb": "filter", "prioritizeVerb": "prioritize", "preemptVerb": "preempt",
            "weight": 100, "nodeCacheCapable": cached,
        })
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let question: Value = serde_json::from_slice(&body).unwrap();
        let answer = match &*path {
            "/filter" => filter(&question),
            "/prioritize" => json!([{"host": BEST, "score": 10}]),
            "/preempt" => {
                let answer = preempt(&question);
                self.about_victims.lock().unwrap().push(question);
                answer
            }
            other => panic!("asked for {other}"),
        };
        Ok(Response::new(Full::from(answer.to_string())))
    }
}

/// Field names begin in lower case, as some extenders' do: upstream reads them too.
fn filter(question: &Value) -> Value {
    if question["Pod"]["metadata"]["name"] == "unwanted" {
        // Without a word about any node.
        return json!({"nodeNames": [], "nodes": {"items": []}});
    }
    let failed = json!({FORBIDDEN: "the extender says no"});
    let is_left = |name: &Value| *name != FORBIDDEN;
    match question["NodeNames"].as_array() {
        Some(names) => {
            let names: Vec<_> = names.iter().filter(|name| is_left(name)).collect();
            json!({"nodeNames": names, "failedNodes": failed})
        }
        None => {
            let nodes = question["Nodes"]["items"].as_array().unwrap().iter();
            let nodes: Vec<_> = nodes.filter(|n| is_left(&n["metadata"]["name"])).collect();
            json!({"nodes": {"items": nodes}, "failedNodes": failed})
        }
    }
}

fn preempt(question: &Value) -> Value {
    let of_names = question["NodeNameToMetaVictims"][YIELDING]["Pods"].as_array();
    let of_objects = question["NodeNameToVictims"][YIELDING]["Pods"].as_array();
    let uids: Vec<Value> = match (of_names, of_objects) {
        (Some(pods), None) => pods.iter().map(|pod| pod["UID"].clone()).collect(),
        (None, Some(pods)) => {
            let uid = |pod: &Value| pod["metadata"]["uid"].clone();
            pods.iter().map(uid).collect()
        }
        _ => panic!("offered {question}"),
    };
    let pods: Vec<_> = uids.iter().map(|uid| json!({"uid": uid})).collect();
    json!({"nodeNameToMetaVictims": {YIELDING: {"pods": pods}}})
}

/// A pod that fills more than half of a node.
fn pod(name: &str, class: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "priorityClassName": class,
            "containers": [{
                "name": "c", "image": "registry.example/pause:1",
                "resources": {"requests": {"cpu": "20"}},
            }],
        },
    })
}

async fn create(connection: &Connection, path: &str, object: &Value) -> Value {
    let made = connection.success(&Ask::post(path, object)).await.unwrap();
    serde_json::from_slice(&made).unwrap()
}

/// Where a pod has gone.
async fn place(connection: &Connection, name: &str) -> String {
    until_async(&format!("{name} to be bound"), async || {
        let pod = connection.json(&Ask::get(format!("{PODS}/{name}"))).await;
        let pod = pod.map_err(|e| e.to_string())?;
        let node = pod["spec"]["nodeName"].as_str();
        node.map(str::to_owned)
            .ok_or_else(|| pod["status"].to_string())
    })
    .await
}

async fn an_extender_is_asked(cached: bool) {
    let admission = "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition";
    let stand = stand(&[], &[admission]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    for i in 0..3 {
        create(&connection, "/api/v1/nodes", &node(i, 3)).await;
    }
    let class = json!({"metadata": {"name": "important"}, "value": 1000});
    create(&connection, SCHEDULING, &class).await;
    let extender = Extender::start().await;
    let mut scheduler = scheduler_with(&stand, "extended", &[extender.configuration(cached)]);

    let first = create(&connection, PODS, &pod("first", "")).await;
    assert_eq!(place(&connection, "first").await, BEST);
    let second = create(&connection, PODS, &pod("second", "")).await;
    assert_eq!(place(&connection, "second").await, YIELDING);
    create(&connection, PODS, &pod("third", "important")).await;
    assert_eq!(place(&connection, "third").await, YIELDING);

    let questions = std::mem::take(&mut *extender.about_victims.lock().unwrap());
    let [question] = &*questions else {
        panic!("asked {} times", questions.len());
    };
    assert_eq!(question["Pod"]["metadata"]["name"], "third");
    for (node, victim) in [(BEST, first), (YIELDING, second)] {
        let uid = &victim["metadata"]["uid"];
        if cached {
            let expected = json!({"Pods": [{"UID": uid}], "NumPDBViolations": 0});
            assert_eq!(question["NodeNameToMetaVictims"][node], expected);
            assert!(question["NodeNameToVictims"].is_null());
        } else {
            let offered = &question["NodeNameToVictims"][node];
            assert_eq!(offered["Pods"][0]["metadata"]["uid"], *uid);
            assert_eq!(offered["NumPDBViolations"], 0);
            assert!(question["NodeNameToMetaVictims"].is_null());
        }
    }
    let (status, _) = connection
        .ask(&Ask::get(format!("{PODS}/second")))
        .await
        .unwrap();
    assert_eq!(status.as_u16(), 404);

    create(&connection, PODS, &pod("unwanted", "")).await;
    let said = until_async("something to be said of the unwanted", async || {
        let pod = connection.json(&Ask::get(format!("{PODS}/unwanted"))).await;
        let status = pod.map_err(|e| e.to_string())?["status"].take();
        let message = status["conditions"][0]["message"].as_str();
        message.map(str::to_owned).ok_or_else(|| status.to_string())
    })
    .await;
    assert!(said.starts_with("0/3 nodes are available: "), "{said}");
    scheduler.check().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extender_is_shown_objects() {
    an_extender_is_asked(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extender_with_a_cache_is_told_names() {
    an_extender_is_asked(true).await;
}
