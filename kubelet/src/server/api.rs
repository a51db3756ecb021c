//! The node's API: what answers which path. Each answer is in a file of its own, or is a few lines
//! here.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ::streaming::websocket;
use bytes::Bytes;
use component::health::Checks;
use component::serving::{Body, Peer, full};
use futures::StreamExt;
use grpc::cri::ContainerState as RuntimeState;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::auth::Auth;
use super::logs::{self, LogOptions};
use super::stats::Stats;
use super::streaming::{self, Streams};
use crate::config::KubeletConfiguration;
use crate::cri::client::{CriClient, CriError, Of};
use crate::cri::labels;
use crate::metrics::Metrics;
use crate::pleg::Pleg;
use crate::pods::index::PodIndex;
use crate::pods::pod::PodExt;
use crate::status::StatusManager;
use crate::volumes::csi::Usage;

/// What the node's API shows.
pub struct NodeApi {
    pub auth: Arc<Auth>,
    pub runtime: CriClient,
    pub pleg: Arc<Pleg>,
    pub index: Arc<PodIndex>,
    pub status: Arc<StatusManager>,
    pub stats: Stats,
    pub checks: Checks,
    pub metrics: Arc<Metrics>,
    /// WebSocket protocols that runtimes do not know are translated for them.
    pub translates: bool,
    pub config: KubeletConfiguration,
}

type Answer = Result<Response<Body>, (StatusCode, String)>;
type Query = Vec<(String, String)>;

/// Where the machine's own logs lie, for `/logs/`.
const LOG_ROOT: &str = "/var/log";

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

fn text(body: impl Into<Bytes>) -> Response<Body> {
    answer(StatusCode::OK, "text/plain; charset=utf-8", body)
}

fn as_json(value: &Value) -> Response<Body> {
    answer(StatusCode::OK, "application/json", value.to_string())
}

fn runtime_failed(error: CriError) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn parse_query(query: Option<&str>) -> Query {
    let decode = |text: &str| {
        percent_decode_str(&text.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    };
    let pairs = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

impl NodeApi {
    /// Answers a request of someone who may ask for it.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let begun = Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let refused = self
            .auth
            .check(
                request.method(),
                request.uri().path(),
                request.headers(),
                &peer,
            )
            .await;
        let answered = match refused {
            Ok(()) => self.route(request).await,
            Err(refusal) => Err(refusal),
        };
        let took = begun.elapsed();
        self.metrics.requested(&method, &path, "readwrite", took);
        answered.unwrap_or_else(|(status, body)| answer(status, "text/plain; charset=utf-8", body))
    }

    /// Answers on the port without authentication: no more than what reveals nothing.
    pub async fn handle_read_only(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let begun = Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let top = path.split('/').nth(1).unwrap_or_default();
        let answered = match top {
            "pods" | "stats" | "metrics" | "healthz" => self.route(request).await,
            _ => Err((StatusCode::NOT_FOUND, "404 page not found\n".into())),
        };
        let took = begun.elapsed();
        self.metrics.requested(&method, &path, "readonly", took);
        answered.unwrap_or_else(|(status, body)| answer(status, "text/plain; charset=utf-8", body))
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        let path = percent_decode_str(request.uri().path())
            .decode_utf8_lossy()
            .into_owned();
        let query = parse_query(request.uri().query());
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        let debugging = self.config.enable_debugging_handlers;
        match parts[..] {
            ["healthz", ..] if read => Ok(self.healthz(&path, request.uri().query())),
            ["pods"] if read => Ok(as_json(&self.pods())),
            ["runningpods"] if read && debugging => self.running_pods().await,
            ["configz"] if read => Ok(as_json(&json!({"kubeletconfig": self.config}))),
            ["metrics"] if read => {
                self.take_stock().await;
                let (body, content_type) = self.metrics.registry.render();
                Ok(answer(StatusCode::OK, content_type, body))
            }
            ["metrics", "resource"] if read => self
                .stats
                .resource_metrics()
                .await
                .map(text)
                .map_err(runtime_failed),
            ["metrics", "cadvisor"] if read => self
                .stats
                .cadvisor_metrics()
                .await
                .map(text)
                .map_err(runtime_failed),
            ["metrics", "probes"] if read => Ok(answer(
                StatusCode::OK,
                prometheus::TEXT_FORMAT,
                prometheus::TextEncoder::new()
                    .encode_to_string(&self.metrics.probe_registry.gather())
                    .unwrap_or_default(),
            )),
            ["stats", "summary"] => {
                let only = query
                    .iter()
                    .any(|(key, value)| key == "only_cpu_and_memory" && value == "true");
                self.stats
                    .summary(only)
                    .await
                    .map(|summary| as_json(&summary))
                    .map_err(runtime_failed)
            }
            ["containerLogs", namespace, pod, container] if read && debugging => {
                self.container_logs(namespace, pod, container, &query).await
            }
            ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container]
                if debugging =>
            {
                let (pod, uid) = (pod.to_owned(), uid_of(&parts, 5));
                self.exec(request, namespace, &pod, uid, container, &query)
                    .await
            }
            ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container]
                if debugging =>
            {
                let (pod, uid) = (pod.to_owned(), uid_of(&parts, 5));
                self.attach(request, namespace, &pod, uid, container, &query)
                    .await
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] if debugging => {
                let uid = uid_of(&parts, 4);
                self.port_forward(request, namespace, pod, uid, &query)
                    .await
            }
            ["run", namespace, pod, container] | ["run", namespace, pod, _, container]
                if debugging && request.method() == Method::POST =>
            {
                let uid = uid_of(&parts, 5);
                self.run(namespace, pod, uid, container, &query).await
            }
            ["logs", ..] if read && self.config.enable_system_log_handler => node_log(&parts[1..]),
            _ => Err((StatusCode::NOT_FOUND, "404 page not found\n".into())),
        }
    }

    fn healthz(&self, path: &str, query: Option<&str>) -> Response<Body> {
        self.checks
            .respond("healthz", path, query.unwrap_or_default())
            .map(full)
    }

    /// Counts what there is: pods wanted, and what of them the runtime has.
    async fn take_stock(&self) {
        let metrics = &self.metrics;
        let pods = self.index.all();
        for kind in [true, false] {
            let of_kind = || pods.iter().filter(|pod| pod.is_static() == kind);
            let active = of_kind().filter(|pod| self.index.may_run(pod.uid()));
            let label = &[if kind { "true" } else { "" }];
            let desired = metrics.desired_pods.with_label_values(label);
            desired.set(count(of_kind()));
            let actives = metrics.active_pods.with_label_values(label);
            actives.set(count(active));
        }
        metrics.mirror_pods.set(count(self.index.mirrors().iter()));
        for gauge in &metrics.plugins.volumes {
            gauge.reset();
        }
        for pod in &pods {
            for volume in self.stats.volumes.stats(pod).await {
                let Some(claim) = &volume.claim else { continue };
                let Usage {
                    available,
                    capacity,
                    used,
                    inodes,
                    inodes_free,
                    inodes_used,
                } = volume.usage;
                let amounts = [capacity, available, used, inodes, inodes_free, inodes_used];
                for (gauge, amount) in metrics.plugins.volumes.iter().zip(amounts) {
                    let labels = [pod.namespace(), claim];
                    gauge.with_label_values(&labels).set(amount);
                }
            }
        }
        let ready = Of {
            pod_uid: None,
            running: true,
        };
        // Without an answer the last count stands, and the failed call has been counted.
        if let Ok(sandboxes) = self.runtime.list_sandboxes(ready).await {
            metrics.running_pods.set(count(sandboxes.iter()));
        }
        if let Ok(containers) = self.runtime.list_containers(Of::default()).await {
            for (state, name) in [
                (RuntimeState::ContainerCreated, "created"),
                (RuntimeState::ContainerRunning, "running"),
                (RuntimeState::ContainerExited, "exited"),
                (RuntimeState::ContainerUnknown, "unknown"),
            ] {
                let number = count(containers.iter().filter(|c| c.state() == state));
                let gauge = metrics.running_containers.with_label_values(&[name]);
                gauge.set(number);
            }
        }
    }

    /// The pods of this node with their statuses as the node knows them.
    fn pods(&self) -> Value {
        let pods = self.index.all().into_iter().map(|pod| {
            let mut shown = Pod::clone(&pod);
            if let Some(status) = self.status.get(pod.uid()) {
                shown.status = Some(PodStatus::clone(&status));
            }
            let mut value = serde_json::to_value(&shown).unwrap_or_default();
            if let Some(object) = value.as_object_mut() {
                object.remove("apiVersion");
                object.remove("kind");
            }
            value
        });
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods.collect::<Vec<_>>()})
    }

    /// The pods that run, as far as the runtime knows them.
    async fn running_pods(&self) -> Answer {
        let of = Of {
            pod_uid: None,
            running: true,
        };
        let containers = self
            .runtime
            .list_containers(of)
            .await
            .map_err(runtime_failed)?;
        let mut pods: BTreeMap<String, Value> = BTreeMap::new();
        for container in containers {
            let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
            let uid = label(labels::POD_UID);
            let pod = pods.entry(uid.clone()).or_insert_with(|| {
                json!({
                    "metadata": {"name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE), "uid": uid},
                    "spec": {"containers": []}, "status": {},
                })
            });
            let image = container
                .image
                .as_ref()
                .map(|image| image.image.clone())
                .unwrap_or_default();
            if let Some(list) = pod["spec"]["containers"].as_array_mut() {
                list.push(
                    json!({"name": label(labels::CONTAINER_NAME), "image": image, "resources": {}}),
                );
            }
        }
        let items: Vec<_> = pods.into_values().collect();
        Ok(as_json(
            &json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}),
        ))
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, (StatusCode, String)> {
        let found = self.index.by_name(namespace, name);
        found.ok_or_else(|| {
            (
                StatusCode::NOT_FOUND,
                format!("pod {name:?} does not exist"),
            )
        })
    }

    async fn container_logs(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        query: &Query,
    ) -> Answer {
        let options = LogOptions::parse(query, Timestamp::now()).map_err(|(code, text)| {
            (
                StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST),
                text,
            )
        })?;
        let pod = self.pod(namespace, name)?;
        if pod.container_spec(container).is_none() {
            return Err((
                StatusCode::NOT_FOUND,
                format!("container {container:?} not found in pod {name:?}"),
            ));
        }
        let status = self
            .status
            .get(pod.uid())
            .map(|status| PodStatus::clone(&status));
        let status = status.unwrap_or_else(|| pod.status_or_default());
        let bad = |text: String| (StatusCode::BAD_REQUEST, text);
        let id =
            logs::container_with_logs(&status, container, name, options.previous).map_err(bad)?;
        let changes = self.pleg.follow(pod.uid().into());
        let known = self.runtime.container_status(&id).await.ok().flatten();
        let known =
            known.ok_or_else(|| bad(format!("unable to retrieve container logs for {id}")))?;
        // Only a running container has more to come.
        let running = known.state() == RuntimeState::ContainerRunning;
        let ended =
            (options.follow && running).then(|| logs::ended(self.runtime.clone(), id, changes));
        let path = PathBuf::from(known.log_path);
        if !path.exists() {
            return Err(bad(format!(
                "failed to try resolving symlinks in path {path:?}: no such file or directory"
            )));
        }
        let (send, receive) = tokio::sync::mpsc::channel(4);
        tokio::spawn(logs::stream(path, options, ended, send));
        let frames =
            ReceiverStream::new(receive).map(|piece| piece.map(Frame::data).map_err(Into::into));
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        response
            .headers_mut()
            .insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        Ok(response)
    }

    /// The running container of a pod, or of one of a given uid, by name.
    async fn running_container(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<String>,
        container: &str,
    ) -> Result<String, (StatusCode, String)> {
        let pod = self.pod(namespace, name)?;
        let uid = uid.map_or_else(|| pod.uid().to_owned(), |uid| self.index.translate(&uid));
        let of = Of {
            pod_uid: Some(&uid),
            running: true,
        };
        let containers = self
            .runtime
            .list_containers(of)
            .await
            .map_err(runtime_failed)?;
        let found = containers.into_iter().find(|c| {
            c.labels
                .get(labels::CONTAINER_NAME)
                .is_some_and(|n| n == container)
        });
        found.map(|container| container.id).ok_or_else(|| {
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("container not found ({container:?})"),
            )
        })
    }

    async fn exec(
        &self,
        request: Request<Incoming>,
        namespace: &str,
        pod: &str,
        uid: Option<String>,
        container: &str,
        query: &Query,
    ) -> Answer {
        let streams = Streams::parse(query).map_err(|text| (StatusCode::BAD_REQUEST, text))?;
        let id = self
            .running_container(namespace, pod, uid, container)
            .await?;
        let command = query
            .iter()
            .filter(|(key, _)| key == "command")
            .map(|(_, word)| word.clone())
            .collect();
        let url = self
            .runtime
            .exec_url(streams.exec(id, command))
            .await
            .map_err(runtime_failed)?;
        self.command("exec", request, &url, streams).await
    }

    async fn attach(
        &self,
        request: Request<Incoming>,
        namespace: &str,
        pod: &str,
        uid: Option<String>,
        container: &str,
        query: &Query,
    ) -> Answer {
        let streams = Streams::parse(query).map_err(|text| (StatusCode::BAD_REQUEST, text))?;
        let id = self
            .running_container(namespace, pod, uid, container)
            .await?;
        let tty = self
            .pod(namespace, pod)?
            .container_spec(container)
            .is_some_and(|c| c.tty == Some(true));
        let streams = Streams {
            tty,
            stderr: streams.stderr && !tty,
            ..streams
        };
        let url = self
            .runtime
            .attach_url(streams.attach(id))
            .await
            .map_err(runtime_failed)?;
        self.command("attach", request, &url, streams).await
    }

    /// A remote command at the runtime's `url`.
    async fn command(
        &self,
        name: &str,
        request: Request<Incoming>,
        url: &str,
        streams: Streams,
    ) -> Answer {
        if self.translates && websocket::wants_stream_close(request.headers()) {
            self.metrics.websocket(name);
            return streaming::translate(request, url, streams);
        }
        streaming::join(request, url).await
    }

    async fn port_forward(
        &self,
        request: Request<Incoming>,
        namespace: &str,
        name: &str,
        uid: Option<String>,
        query: &Query,
    ) -> Answer {
        let pod = self.pod(namespace, name)?;
        let uid = uid.map_or_else(|| pod.uid().to_owned(), |uid| self.index.translate(&uid));
        let of = Of {
            pod_uid: Some(&uid),
            running: true,
        };
        let sandboxes = self
            .runtime
            .list_sandboxes(of)
            .await
            .map_err(runtime_failed)?;
        let sandbox = sandboxes.first().ok_or_else(|| {
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("failed to find sandboxID for pod {}", pod.description()),
            )
        })?;
        let ports = query
            .iter()
            .filter(|(key, _)| key == "port" || key == "ports");
        let ports = ports
            .flat_map(|(_, list)| list.split(',').filter_map(|port| port.parse().ok()))
            .collect();
        let url = self
            .runtime
            .port_forward_url(&sandbox.id, ports)
            .await
            .map_err(runtime_failed)?;
        if self.translates && !websocket::tunnelled(request.headers()).is_empty() {
            self.metrics.websocket("portforward");
            return streaming::tunnel(request, &url).await;
        }
        streaming::join(request, &url).await
    }

    async fn run(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<String>,
        container: &str,
        query: &Query,
    ) -> Answer {
        let id = self
            .running_container(namespace, pod, uid, container)
            .await?;
        let command = query
            .iter()
            .find(|(key, _)| key == "cmd")
            .map(|(_, command)| command.as_str())
            .unwrap_or_default();
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let done = self
            .runtime
            .exec_sync(&id, &words, None)
            .await
            .map_err(runtime_failed)?;
        let mut output = done.stdout;
        output.extend_from_slice(&done.stderr);
        if done.exit_code == 0 {
            Ok(text(output))
        } else {
            let output = String::from_utf8_lossy(&output);
            Err((
                StatusCode::INTERNAL_SERVER_ERROR,
                format!(
                    "command terminated with exit code {}: {output}",
                    done.exit_code
                ),
            ))
        }
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> i64 {
    i64::try_from(items.count()).unwrap_or(i64::MAX)
}

/// The uid in paths that have one, which are one part longer.
fn uid_of(parts: &[&str], length: usize) -> Option<String> {
    (parts.len() == length).then(|| parts[3].to_owned())
}

/// A file of the machine's log directory, or the list of its files.
fn node_log(parts: &[&str]) -> Answer {
    let relative: PathBuf = parts.iter().collect();
    let inside = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Err((StatusCode::NOT_FOUND, "404 page not found\n".into()));
    }
    let path = Path::new(LOG_ROOT).join(relative);
    let missing = |_| (StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
    // Links may lead to logs of pods, and nowhere else.
    let real = path.canonicalize().map_err(missing)?;
    if !real.starts_with(LOG_ROOT) {
        return Err((StatusCode::NOT_FOUND, "404 page not found\n".into()));
    }
    if real.is_dir() {
        let mut names: Vec<String> = std::fs::read_dir(&real)
            .map_err(missing)?
            .flatten()
            .map(|entry| {
                let slash = if entry.path().is_dir() { "/" } else { "" };
                format!("{}{slash}", entry.file_name().to_string_lossy())
            })
            .collect();
        names.sort();
        let links: String = names
            .iter()
            .map(|name| format!("<a href=\"{name}\">{name}</a>\n"))
            .collect();
        return Ok(answer(
            StatusCode::OK,
            "text/html; charset=utf-8",
            format!("<pre>\n{links}</pre>\n"),
        ));
    }
    std::fs::read(&real).map(text).map_err(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        assert_eq!(
            parse_query(Some("command=a%20b&command=c+d&tty=1&x")),
            [
                ("command".to_owned(), "a b".to_owned()),
                ("command".to_owned(), "c d".to_owned()),
                ("tty".to_owned(), "1".to_owned()),
                ("x".to_owned(), String::new()),
            ]
        );
    }

    #[test]
    fn node_logs_stay_in_their_directory() {
        assert_eq!(
            node_log(&["..", "passwd"]).unwrap_err().0,
            StatusCode::NOT_FOUND
        );
    }
}
