//! Rows 6 and 7: creating pods, patching their status, applying deployments, with many
//! requests in flight on one connection.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use super::lists::list;
use crate::bench::measure::{Side, Work};
use crate::bench::proto::{Message, envelope};
use crate::bench::scan::json_string;
use crate::bench::seed::{APPLIES, CREATES, NAMESPACES};
use crate::bench::{Bench, Case, Headline};
use crate::stand::Connection;
use crate::stand::http::{APPLY, Ask, JSON, PROTOBUF, STRATEGIC};

/// Requests in flight.
const IN_FLIGHT: usize = 64;
/// Deployments that are applied again and again.
const DEPLOYMENTS: u64 = 200;

/// Measures what is wanted of rows 6 and 7.
pub async fn run(bench: &mut Bench) -> Result<()> {
    let writes = bench.options.writes;
    for (kind, form) in [(PROTOBUF, "protobuf"), (JSON, "JSON")] {
        if !bench.options.wants("6") {
            continue;
        }
        let what = format!("pod create, {IN_FLIGHT} in flight, {form}");
        bench
            .case(
                Case::cpu("6", what, 7.0).also(Headline::Wall, 3.0),
                async |side, pair| create(side, writes, kind, pair).await,
            )
            .await?;
    }
    if !bench.options.wants("7") {
        return Ok(());
    }
    let pods = bench.options.pods / NAMESPACES.len() as u64;
    bench
        .case(
            Case::cpu("7", "pod status PATCH, strategic merge", 15.0).also(Headline::Wall, 4.0),
            async |side, pair| {
                let ready = if pair % 2 == 0 { "True" } else { "False" };
                let change = move |n: u64| {
                    let text = format!("turn {pair} write {n}");
                    let body = json!({"status": {"conditions": [
                        {"type": "Ready", "status": ready, "message": text},
                    ]}});
                    let path = format!(
                        "/api/v1/namespaces/{}/pods/pod-{:06}/status",
                        NAMESPACES[0],
                        n % pods
                    );
                    let ask = Ask::send(Method::PATCH, path, STRATEGIC, body.to_string());
                    (ask, text)
                };
                patch(side, writes, change, |_| Ok(())).await
            },
        )
        .await?;
    bench
        .case(
            Case::cpu("7", "server-side apply of a Deployment", 15.0).also(Headline::Wall, 4.0),
            async |side, pair| {
                let change = move |n: u64| {
                    let text = format!("turn {pair} write {n}");
                    let name = format!("d-{}", n % DEPLOYMENTS);
                    let path = format!(
                        "/apis/apps/v1/namespaces/{APPLIES}/deployments/{name}?fieldManager=bench&force=true"
                    );
                    let body = deployment(&name, &text);
                    (Ask::send(Method::PATCH, path, APPLY, body), text)
                };
                patch(side, writes, change, |answer| {
                    let managed = json_string(answer, "operation") == Some("Apply");
                    ensure!(managed, "the answer's managedFields have no Apply");
                    Ok(())
                })
                .await
            },
        )
        .await
}

async fn create(
    side: &mut Side,
    writes: u64,
    kind: &'static str,
    pair: usize,
) -> Result<crate::bench::Sample> {
    let connection = side.connect().await?;
    side.api.settle().await?;
    let sample = side
        .measure(async || {
            each(
                &connection,
                writes,
                move |n| {
                    let name = format!("new-{pair}-{n}");
                    let path = format!("/api/v1/namespaces/{CREATES}/pods");
                    let body = if kind == JSON {
                        json_pod(&name).into_bytes()
                    } else {
                        proto_pod(&name)
                    };
                    let ask = Ask::send(Method::POST, path, kind, body).accept(kind);
                    (ask, name)
                },
                |status, _| {
                    ensure!(
                        status == StatusCode::CREATED,
                        "a create is answered {status}"
                    );
                    Ok(())
                },
            )
            .await
        })
        .await?;
    let path = format!("/api/v1/namespaces/{CREATES}/pods");
    let seen = list(&connection, &path, PROTOBUF, false).await?;
    ensure!(
        seen.items == writes,
        "{} of {writes} pods are there",
        seen.items
    );
    let gateway = side.gateway().await?;
    let gone = gateway
        .delete_prefix(&format!("/registry/pods/{CREATES}/"))
        .await?;
    ensure!(gone == writes, "{gone} of {writes} pods were stored");
    Ok(sample)
}

async fn patch(
    side: &mut Side,
    writes: u64,
    change: impl Fn(u64) -> (Ask, String) + Send + Sync + 'static,
    check: impl Fn(&[u8]) -> Result<()> + Send + Sync + 'static,
) -> Result<crate::bench::Sample> {
    let connection = side.connect().await?;
    side.api.settle().await?;
    side.measure(async || {
        each(
            &connection,
            writes,
            change,
            move |status, answer| match status {
                StatusCode::OK | StatusCode::CREATED => check(answer),
                StatusCode::UNSUPPORTED_MEDIA_TYPE => bail!("not served: {status}"),
                _ => bail!("answered {status}"),
            },
        )
        .await
    })
    .await
}

/// Makes requests, [`IN_FLIGHT`] at a time. Each answer must have the text that goes
/// with the request, and, in JSON, a revision of its own.
async fn each(
    connection: &Connection,
    count: u64,
    request: impl Fn(u64) -> (Ask, String) + Send + Sync + 'static,
    check: impl Fn(StatusCode, &[u8]) -> Result<()> + Send + Sync + 'static,
) -> Result<Work> {
    let next = Arc::new(AtomicU64::new(0));
    let both = Arc::new((request, check));
    let mut workers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (next, both, connection) = (next.clone(), both.clone(), connection.clone());
        workers.spawn(async move {
            let (request, check) = &*both;
            let mut done = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return anyhow::Ok(done);
                }
                let (ask, text) = request(n);
                let start = Instant::now();
                let (status, answer) = connection.ask(&ask).await?;
                let took = start.elapsed();
                check(status, &answer).with_context(|| {
                    String::from_utf8_lossy(&answer[..answer.len().min(400)]).into_owned()
                })?;
                let has = answer
                    .windows(text.len())
                    .any(|window| window == text.as_bytes());
                ensure!(has, "an answer without {text:?}");
                let revision = json_string(&answer, "resourceVersion").map(str::to_owned);
                done.push((took, revision));
            }
        });
    }
    let mut work = Work::default();
    let mut revisions = HashSet::new();
    while let Some(done) = workers.join_next().await {
        for (took, revision) in done?? {
            work.operations += 1;
            work.latencies.push(took);
            if let Some(revision) = revision {
                ensure!(revisions.insert(revision), "two writes of one revision");
            }
        }
    }
    work.answer = format!("{} written", work.operations);
    Ok(work)
}

fn json_pod(name: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "shop", "pod-template-hash": "6d4cf56db6"}},
        "spec": {"containers": [{
            "name": "server",
            "image": "registry.example/shop/server:v1.27.3",
            "env": [{"name": "LOG_LEVEL", "value": "info"}],
            "ports": [{"containerPort": 8080}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        }]},
    })
    .to_string()
}

/// The same in protobuf, as the controllers of ReplicaSets and Jobs send it.
fn proto_pod(name: &str) -> Vec<u8> {
    let message = Message::default;
    let quantity = |text: &str| message().text(1, text);
    let container = message()
        .text(1, "server")
        .text(2, "registry.example/shop/server:v1.27.3")
        .message(6, message().number(3, 8080))
        .message(7, message().text(1, "LOG_LEVEL").text(2, "info"))
        .message(
            8,
            message()
                .entry(2, "cpu", quantity("100m"))
                .entry(2, "memory", quantity("128Mi")),
        );
    let metadata = message()
        .text(1, name)
        .text_entry(11, "app", "shop")
        .text_entry(11, "pod-template-hash", "6d4cf56db6");
    let pod = message()
        .message(1, metadata)
        .message(2, message().message(2, container));
    envelope("v1", "Pod", pod)
}

fn deployment(name: &str, text: &str) -> String {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": "shop"}, "annotations": {"turn": text}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {"containers": [{
                    "name": "server",
                    "image": "registry.example/shop/server:v1.27.3",
                    "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "TURN", "value": text}],
                    "ports": [{"containerPort": 8080, "name": "http"}],
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                }]},
            },
        },
    })
    .to_string()
}
