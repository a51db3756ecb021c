//! The node's API: who asks for what, and which room answers. Each answer is in a file of its own,
//! or is a few lines here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use component::health::Checks;
use component::metrics::Slis;
use component::serving::{Body, Peer, full};
use component::zpages::ZPages;
use futures::StreamExt;
use grpc::cri::ContainerState as RuntimeState;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{
    Answer, Refusal, answer, as_json, error_line, page_not_found, redirect, refused,
};
use super::auth::Auth;
use super::logs::{self, LogOptions};
use super::node_log_query::NodeLogQuery;
use super::routes::{Found, Route, Served, Target, route};
use super::stats::Stats;
use super::{debug, node_logs};
use crate::config::KubeletConfiguration;
use crate::cri::client::{CriClient, CriError, Of};
use crate::cri::labels;
use crate::metrics::Metrics;
use crate::pleg::Pleg;
use crate::pods::dirs::Root;
use crate::pods::index::PodIndex;
use crate::pods::pod::PodExt;
use crate::status::StatusManager;
use crate::volumes::csi::Usage;

/// What the node's API shows.
pub struct NodeApi {
    pub auth: Arc<Auth>,
    /// On the port with authentication, and on the one without.
    pub served: Served,
    pub served_to_anyone: Served,
    pub runtime: CriClient,
    pub pleg: Arc<Pleg>,
    pub index: Arc<PodIndex>,
    pub status: Arc<StatusManager>,
    pub stats: Stats,
    pub checks: Checks,
    pub slis: Slis,
    pub metrics: Arc<Metrics>,
    pub zpages: ZPages,
    pub root: Root,
    /// WebSocket protocols that runtimes do not know are translated for them.
    pub translates: bool,
    /// One stream of a log can be asked for alone (`PodLogsQuerySplitStreams`).
    pub splits_logs: bool,
    pub queries_node_logs: bool,
    pub config: KubeletConfiguration,
}

pub type Query = Vec<(String, String)>;

pub fn runtime_failed(error: CriError) -> Refusal {
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
        self.measured(request, Some(&peer)).await
    }

    /// Answers on the port without authentication: no more than what reveals nothing.
    pub async fn handle_read_only(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        self.measured(request, None).await
    }

    async fn measured(&self, request: Request<Incoming>, peer: Option<&Peer>) -> Response<Body> {
        let begun = Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answered = self.answered(request, peer).await;
        let port = if peer.is_some() {
            "readwrite"
        } else {
            "readonly"
        };
        self.metrics
            .requested(&method, &path, port, begun.elapsed());
        let answered = answered.unwrap_or_else(refused);
        if method == Method::HEAD {
            return without_body(answered);
        }
        answered
    }

    async fn answered(&self, mut request: Request<Incoming>, peer: Option<&Peer>) -> Answer {
        let served = match peer {
            Some(_) => &self.served,
            None => &self.served_to_anyone,
        };
        let area = match served.find(request.uri().path()) {
            Found::At(area) => area,
            Found::Nothing => return Ok(page_not_found()),
            Found::Elsewhere(path) => return Ok(elsewhere(&request, &path)),
        };
        let path = percent_decode_str(request.uri().path()).decode_utf8_lossy();
        let path = path.into_owned();
        if let Some(peer) = peer {
            let method = request.method().clone();
            let headers = request.headers_mut();
            self.auth.check(&method, &path, headers, peer).await?;
        }
        let route = route(area, request.method(), &path, request.headers());
        self.route(route, &path, request).await
    }

    async fn route(&self, route: Route, path: &str, request: Request<Incoming>) -> Answer {
        let query = parse_query(request.uri().query());
        match route {
            Route::Healthz => {
                let query = request.uri().query().unwrap_or_default();
                Ok(self.checks.respond("healthz", path, query).map(full))
            }
            Route::Pods => Ok(as_json(&self.pods())),
            Route::RunningPods => self.running_pods().await,
            Route::Configz => Ok(as_json(&json!({"kubeletconfig": self.config}))),
            Route::Metrics => {
                self.take_stock().await;
                let (body, content_type) = self.metrics.registry.render();
                Ok(answer(StatusCode::OK, content_type, body))
            }
            Route::Slis => {
                let (body, content_type) = self.slis.render();
                Ok(answer(StatusCode::OK, content_type, body))
            }
            Route::Resource => {
                let told = self.stats.resource_metrics().await;
                told.map(metrics_text).map_err(runtime_failed)
            }
            Route::Cadvisor => {
                let told = self.stats.cadvisor_metrics().await;
                told.map(metrics_text).map_err(runtime_failed)
            }
            Route::Probes => {
                let families = self.metrics.probe_registry.gather();
                let encoded = prometheus::TextEncoder::new().encode_to_string(&families);
                Ok(metrics_text(encoded.unwrap_or_default()))
            }
            Route::Summary => {
                let mut only = query.iter().filter(|(key, _)| key == "only_cpu_and_memory");
                let only =
                    only.next().is_some_and(|(_, value)| value == "true") && only.next().is_none();
                let told = self.stats.summary(only).await;
                told.map(|summary| as_json(&summary))
                    .map_err(runtime_failed)
            }
            Route::ContainerLogs(target) => self.container_logs(&target, &query).await,
            Route::Exec(target) => self.exec(request, &target, &query).await,
            Route::Attach(target) => self.attach(request, &target, &query).await,
            Route::PortForward(target) => self.port_forward(request, &target, &query).await,
            Route::Run(target) => self.run(&target, &query).await,
            Route::Checkpoint(target) => self.checkpoint(&target, &query).await,
            Route::NodeLogs => self.node_logs(path, &query, &request).await,
            Route::Verbosity => Ok(debug::verbosity(request).await),
            Route::Profile(name) => Ok(debug::profile(&name)),
            Route::Statusz => {
                let accept = accept(request.headers());
                Ok(self.zpages.statusz(accept, Timestamp::now()).map(full))
            }
            Route::Flagz => Ok(self.zpages.flagz(accept(request.headers())).map(full)),
            Route::Closed(why) => Ok(error_line(StatusCode::METHOD_NOT_ALLOWED, why)),
            Route::NotFound => Err((StatusCode::NOT_FOUND, "404: Page Not Found".into())),
            Route::NotAllowed(allowed) => {
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let mut response = refused((status, "405: Method Not Allowed".into()));
                let allowed = HeaderValue::from_static(allowed);
                response.headers_mut().insert(header::ALLOW, allowed);
                Ok(response)
            }
            Route::NotAcceptable => {
                let why = "406: Not Acceptable\n\nAvailable representations: application/json";
                Err((StatusCode::NOT_ACCEPTABLE, why.into()))
            }
        }
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

    /// The pod of this name, in the words of what shows logs.
    pub fn pod(&self, target: &Target) -> Option<Arc<Pod>> {
        self.index.by_name(&target.namespace, &target.pod)
    }

    async fn container_logs(&self, target: &Target, query: &Query) -> Answer {
        let Target {
            pod: name,
            container,
            ..
        } = target;
        let options = LogOptions::parse(query, Timestamp::now(), self.splits_logs);
        let options = options.map_err(|(code, text)| {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST);
            (status, text)
        })?;
        let missing = |what: String| (StatusCode::NOT_FOUND, what);
        let pod = self
            .pod(target)
            .ok_or_else(|| missing(format!("pod {name:?} does not exist")))?;
        if pod.container_spec(container).is_none() {
            let what = format!("container {container:?} not found in pod {name:?}");
            return Err(missing(what));
        }
        if let Some(stream) = &options.refused_stream {
            let why = format!(
                "unable to return the given log stream: {stream:?}. Please enable PodLogsQuerySplitStreams feature gate in kubelet"
            );
            return Err((StatusCode::BAD_REQUEST, why));
        }
        let (path, ended) = match self.log_of(&pod, container, &options).await {
            Ok(found) => found,
            // What follows here is a log and has no type, its errors among it.
            Err(why) => {
                let mut response = refused((StatusCode::BAD_REQUEST, why));
                response.headers_mut().remove(header::CONTENT_TYPE);
                return Ok(response);
            }
        };
        let (send, receive) = tokio::sync::mpsc::channel(4);
        tokio::spawn(logs::stream(path, options, ended, send));
        let frames =
            ReceiverStream::new(receive).map(|piece| piece.map(Frame::data).map_err(Into::into));
        Ok(Response::new(StreamBody::new(frames).boxed_unsync()))
    }

    /// Where a container's log is, and when there will be no more of it, if it is followed.
    async fn log_of(
        &self,
        pod: &Pod,
        container: &str,
        options: &LogOptions,
    ) -> Result<(PathBuf, Option<impl Future<Output = ()> + use<>>), String> {
        let status = self.status.get(pod.uid());
        let status = status.map(|status| PodStatus::clone(&status));
        let status = status.unwrap_or_else(|| pod.status_or_default());
        let id = logs::container_with_logs(&status, container, pod.name(), options.previous)?;
        let changes = self.pleg.follow(pod.uid().into());
        let known = self.runtime.container_status(&id).await.ok().flatten();
        let known = known.ok_or_else(|| format!("unable to retrieve container logs for {id}"))?;
        // Only a running container has more to come.
        let running = known.state() == RuntimeState::ContainerRunning;
        let ended =
            (options.follow && running).then(|| logs::ended(self.runtime.clone(), id, changes));
        let path = PathBuf::from(known.log_path);
        logs::can_be_read(path.clone()).await?;
        Ok((path, ended))
    }

    async fn node_logs(&self, path: &str, query: &Query, request: &Request<Incoming>) -> Answer {
        // Upstream takes the prefix off both forms of the path.
        if !request.uri().path().starts_with("/logs/") {
            return Ok(page_not_found());
        }
        let mut path = path.trim_start_matches("/logs/").to_owned();
        if self.queries_node_logs {
            match NodeLogQuery::parse(query, Path::new(node_logs::ROOT)) {
                Err((status, why)) => return Ok(error_line(status, &why)),
                Ok(NodeLogQuery::Path(None)) => {}
                Ok(NodeLogQuery::Path(Some(file))) => path = file,
                Ok(NodeLogQuery::Services(wanted)) => {
                    let gzip = request.headers().get(header::ACCEPT_ENCODING);
                    let gzip = gzip.is_some_and(|encoding| encoding == "gzip");
                    return Ok(wanted.serve(node_logs::ROOT.into(), gzip));
                }
            }
        }
        let headers = request.headers().clone();
        let query = request.uri().query().map(str::to_owned);
        let served = tokio::task::spawn_blocking(move || {
            node_logs::serve(
                Path::new(node_logs::ROOT),
                &path,
                query.as_deref(),
                &headers,
            )
        });
        let failed = |error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}"));
        served.await.map_err(failed)
    }
}

fn accept(headers: &HeaderMap) -> &str {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    accept.unwrap_or_default()
}

/// What `/metrics` has is told in the same form elsewhere.
fn metrics_text(body: String) -> Response<Body> {
    answer(StatusCode::OK, prometheus::TEXT_FORMAT, body)
}

/// The path that was meant, with the query that came.
fn elsewhere(request: &Request<Incoming>, path: &str) -> Response<Body> {
    let query = request.uri().query();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let to = format!("{path}{query}");
    let body = match *request.method() {
        Method::GET | Method::HEAD => {
            let to = super::answer::escaped(&to);
            format!("<a href=\"{to}\">Temporary Redirect</a>.\n\n")
        }
        _ => String::new(),
    };
    redirect(StatusCode::TEMPORARY_REDIRECT, &to, body)
}

/// The head alone, as to a HEAD: over HTTP/2 nobody else takes the body off.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        let length = HeaderValue::from(length);
        head.headers.entry(header::CONTENT_LENGTH).or_insert(length);
    }
    Response::from_parts(head, full(bytes::Bytes::new()))
}

fn count<T>(items: impl Iterator<Item = T>) -> i64 {
    i64::try_from(items.count()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::answer::text;
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
    fn a_head_has_no_body_and_its_length() {
        let head = without_body(text("12345"));
        assert_eq!(head.headers()[header::CONTENT_LENGTH], "5");
        assert_eq!(head.body().size_hint().exact(), Some(0));
    }
}
