//! The request metrics, under upstream's names and labels (`endpoints/metrics`).
//!
//! What must not be here: metrics of who asks and what they may (`access`).

mod access;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, header};
use hyper::body::{Body as _, Frame, SizeHint};
use parking_lot::RwLock;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry as Prometheus,
};
use schema::Resource;

pub use self::access::{Access, Attempt};
use super::body::{Body, BoxError};
use super::context::RequestContext;
use super::query::Query;
use super::request_info::RequestInfo;
use super::websocket::Lasts;

/// Seconds; the buckets of `apiserver_request_duration_seconds`.
const BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
const WATCH_LIST_BUCKETS: &[f64] = &[
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
/// What the service level indicators leave out: nobody promises 25 ms.
const SLI_FROM: usize = 2;

const REQUEST: &[&str] = &[
    "verb",
    "dry_run",
    "group",
    "version",
    "resource",
    "subresource",
    "scope",
    "component",
    "code",
];
const GVR: &[&str] = &["group", "version", "resource"];

pub struct Metrics {
    pub access: Access,
    total: IntCounterVec,
    duration: HistogramVec,
    sli: HistogramVec,
    response_sizes: HistogramVec,
    body_sizes: HistogramVec,
    field_validation: HistogramVec,
    deprecated: IntGaugeVec,
    terminations: IntCounterVec,
    aborts: IntCounterVec,
    own: IntCounterVec,
    long_running: IntGaugeVec,
    watch_events: IntCounterVec,
    watch_sizes: HistogramVec,
    watch_lists: HistogramVec,
    read_only: Peak,
    mutating: Peak,
    /// The time series of what has been asked before: looking up nine labels costs more than
    /// everything else here.
    known: RwLock<HashMap<Series, Arc<Handles>>>,
}

/// What tells apart the time series of requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Series {
    about: About,
    verb: &'static str,
    dry_run: &'static str,
    scope: &'static str,
    code: u16,
}

struct Handles {
    total: IntCounter,
    duration: Histogram,
    sli: Histogram,
    response_size: Option<Histogram>,
}

/// How many at most in the current second, shown once the second is over.
struct Peak {
    now: Arc<AtomicI64>,
    most: Arc<AtomicI64>,
    shown: IntGauge,
}

impl Peak {
    fn new(shown: IntGauge) -> Self {
        Self {
            now: Arc::default(),
            most: Arc::default(),
            shown,
        }
    }

    fn enter(&self) -> Guard {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Guard::Count(self.now.clone())
    }

    fn show(&self) {
        let now = self.now.load(Ordering::Relaxed);
        self.shown.set(self.most.swap(now, Ordering::Relaxed));
    }
}

impl Metrics {
    pub fn new(registry: &Prometheus) -> prometheus::Result<Metrics> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = HistogramVec::new(options, labels)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let place = [
            "group",
            "version",
            "resource",
            "subresource",
            "scope",
            "component",
        ];
        let with_verb = [&["verb"][..], &place[..]].concat();
        let in_flight = gauge(
            "apiserver_current_inflight_requests",
            "Most requests that were worked on at the same time in the last second.",
            &["request_kind"],
        )?;
        let in_queue = gauge(
            "apiserver_current_inqueue_requests",
            "Most requests that waited at the same time in the last second.",
            &["request_kind"],
        )?;
        for kind in ["mutating", "readOnly"] {
            // Who finds no place is turned away, not made to wait.
            in_queue.with_label_values(&[kind]).set(0);
        }
        let sizes: Vec<f64> = (3..10).map(|n| 10f64.powi(n)).collect();
        let bodies: Vec<f64> = (0..31)
            .map(|n| 50_000.0 + 100_000.0 * f64::from(n))
            .collect();
        let events: Vec<f64> = (0..8).map(|n| 1024.0 * f64::from(1 << n)).collect();
        Ok(Metrics {
            access: Access::new(registry)?,
            total: counter(
                "apiserver_request_total",
                "Requests answered, by what they were about and the HTTP status.",
                REQUEST,
            )?,
            duration: histogram(
                "apiserver_request_duration_seconds",
                "Seconds until a request was answered.",
                BUCKETS,
                &REQUEST[..8],
            )?,
            sli: histogram(
                "apiserver_request_sli_duration_seconds",
                "Seconds until a request was answered, without what webhooks took.",
                &BUCKETS[SLI_FROM..],
                &with_verb,
            )?,
            response_sizes: histogram(
                "apiserver_response_sizes",
                "Bytes of the answers to reads.",
                &sizes,
                &with_verb,
            )?,
            body_sizes: histogram(
                "apiserver_request_body_size_bytes",
                "Bytes of requests' bodies.",
                &bodies,
                &["group", "resource", "verb"],
            )?,
            field_validation: histogram(
                "field_validation_request_duration_seconds",
                "Seconds until a request was answered, by its field validation.",
                &BUCKETS[SLI_FROM..],
                &["field_validation"],
            )?,
            deprecated: gauge(
                "apiserver_requested_deprecated_apis",
                "Deprecated APIs that have been asked for.",
                &[
                    "group",
                    "version",
                    "resource",
                    "subresource",
                    "removed_release",
                ],
            )?,
            terminations: counter(
                "apiserver_request_terminations_total",
                "Requests that the server ended to protect itself.",
                &[&with_verb[..], &["code"][..]].concat(),
            )?,
            aborts: counter(
                "apiserver_request_aborts_total",
                "Requests whose answer was given up, most likely for want of time.",
                &with_verb[..6],
            )?,
            own: counter(
                "apiserver_selfrequest_total",
                "Requests of API servers.",
                &["verb", "group", "resource", "subresource"],
            )?,
            long_running: gauge(
                "apiserver_longrunning_requests",
                "Long-running requests that are open.",
                &with_verb,
            )?,
            watch_events: counter(
                "apiserver_watch_events_total",
                "Events sent to watchers.",
                GVR,
            )?,
            watch_sizes: histogram(
                "apiserver_watch_events_sizes",
                "Bytes of events sent to watchers.",
                &events,
                GVR,
            )?,
            watch_lists: histogram(
                "apiserver_watch_list_duration_seconds",
                "Seconds until a watch had sent its initial events.",
                WATCH_LIST_BUCKETS,
                &["group", "version", "resource", "scope"],
            )?,
            read_only: Peak::new(in_flight.with_label_values(&["readOnly"])),
            mutating: Peak::new(in_flight.with_label_values(&["mutating"])),
            known: RwLock::default(),
        })
    }

    /// Shows the last second's peaks, every second, until dropped.
    pub async fn run(&self) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            self.read_only.show();
            self.mutating.show();
        }
    }

    /// Starts observing a request. `resource` is the one that the path names, if it is served:
    /// names that anybody may invent make no time series.
    pub fn begin(
        self: &Arc<Self>,
        info: &RequestInfo,
        resource: Option<&'static Resource>,
    ) -> Observed {
        let about = About::new(info, resource);
        let guard = if info.is_long_running() {
            let gauge = self.long_running.with_label_values(&[
                coarse_verb(info, info.scope()),
                about.group,
                about.version,
                about.resource,
                about.subresource,
                info.scope(),
                about.component,
            ]);
            gauge.inc();
            Guard::Gauge(gauge)
        } else if info.is_read_only() {
            self.read_only.enter()
        } else {
            self.mutating.enter()
        };
        Observed {
            metrics: self.clone(),
            about,
            _guard: guard,
            started: Instant::now(),
        }
    }

    /// What a watch of the resource counts.
    pub fn watch(&self, served: &Resource, scope: &str, streams_initial: bool) -> WatchMetrics {
        let labels = &[served.group, served.version, served.plural];
        WatchMetrics {
            events: self.watch_events.with_label_values(labels),
            sizes: self.watch_sizes.with_label_values(labels),
            list: streams_initial.then(|| {
                let labels = &[served.group, served.version, served.plural, scope];
                (Instant::now(), self.watch_lists.with_label_values(labels))
            }),
        }
    }

    /// An API was asked for that will go away, perhaps in a release that is known.
    pub fn deprecated(&self, resource: &Resource, subresource: &str, removed_in: &str) {
        let Resource {
            group,
            version,
            plural,
            ..
        } = resource;
        let labels = [group, version, plural, subresource, removed_in];
        self.deprecated.with_label_values(&labels).set(1);
    }

    fn handles(&self, series: Series) -> Arc<Handles> {
        if let Some(known) = self.known.read().get(&series) {
            return known.clone();
        }
        let about = series.about;
        let code = series.code.to_string();
        let labels = [
            series.verb,
            series.dry_run,
            about.group,
            about.version,
            about.resource,
            about.subresource,
            series.scope,
            about.component,
            &code,
        ];
        let place = [
            labels[0], labels[2], labels[3], labels[4], labels[5], labels[6], labels[7],
        ];
        let reads = matches!(series.verb, "GET" | "LIST");
        let made = Arc::new(Handles {
            total: self.total.with_label_values(&labels),
            duration: self.duration.with_label_values(&labels[..8]),
            sli: self.sli.with_label_values(&place),
            response_size: reads.then(|| self.response_sizes.with_label_values(&place)),
        });
        self.known.write().insert(series, made.clone());
        made
    }
}

/// What one watch counts.
pub struct WatchMetrics {
    events: IntCounter,
    sizes: Histogram,
    /// Since when the initial events are on their way, until they all are sent.
    list: Option<(Instant, Histogram)>,
}

impl WatchMetrics {
    pub fn sent(&mut self, bytes: usize) {
        self.events.inc();
        self.sizes.observe(bytes as f64);
    }

    pub fn initial_events_end(&mut self) {
        if let Some((started, histogram)) = self.list.take() {
            histogram.observe(started.elapsed().as_secs_f64());
        }
    }
}

/// What a request is about, in words of the schema; empty where the path names nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct About {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    component: &'static str,
    /// Upstream counts what its installed routes answer, and no other path.
    counted: bool,
}

impl About {
    fn new(info: &RequestInfo, resource: Option<&'static Resource>) -> Self {
        if !info.is_resource {
            return Self::of_path(&info.path);
        }
        let Some(resource) = resource else {
            return Self::default();
        };
        let mut subresources = resource.subresources.iter();
        let subresource = subresources
            .find(|s| s.name == info.subresource)
            .map_or("", |s| s.name);
        Self {
            group: resource.group,
            version: resource.version,
            resource: resource.plural,
            subresource,
            component: "apiserver",
            counted: subresource == info.subresource,
        }
    }

    fn of_path(path: &str) -> Self {
        let (resource, subresource) = match path {
            "/healthz" => ("", "/healthz"),
            "/livez" => ("", "/livez"),
            "/readyz" => ("", "/readyz"),
            "/statusz" => ("statusz", ""),
            "/flagz" => ("flagz", ""),
            _ if path.starts_with("/openapi/v3") => ("", "openapi/v3"),
            _ => return Self::default(),
        };
        Self {
            resource,
            subresource,
            counted: true,
            ..Self::default()
        }
    }
}

/// The verb as metrics say it of a request of this scope, from what the path says alone.
fn coarse_verb(info: &RequestInfo, scope: &str) -> &'static str {
    if matches!(
        info.subresource.as_str(),
        "log" | "exec" | "portforward" | "attach" | "proxy"
    ) {
        return "CONNECT";
    }
    match info.verb.as_str() {
        "get" if scope != "resource" && info.is_resource => "LIST",
        "get" | "head" => "GET",
        // One that is listed by its name is got, for upstream, until it is known which route that was.
        "list" if scope == "resource" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" | "deletecollection" => "DELETE",
        "proxy" | "connect" => "CONNECT",
        _ => "other",
    }
}

fn verb(info: &RequestInfo, scope: &str, headers: &HeaderMap) -> &'static str {
    match coarse_verb(info, scope) {
        "PATCH"
            if headers
                .get(header::CONTENT_TYPE)
                .is_some_and(|t| t == "application/apply-patch+yaml") =>
        {
            "APPLY"
        }
        verb => verb,
    }
}

fn dry_run(query: &Query) -> &'static str {
    let mut any = false;
    let valid = query.all("dryRun").all(|value| {
        any = true;
        value == "All"
    });
    match (any, valid) {
        (false, _) => "",
        (true, true) => "All",
        (true, false) => "invalid",
    }
}

fn field_validation(query: &Query) -> &'static str {
    let mut values = query.all("fieldValidation");
    match (values.next(), values.next()) {
        (None, _) => "",
        (Some("Ignore"), None) => "Ignore",
        (Some("Warn"), None) => "Warn",
        (Some("Strict"), None) => "Strict",
        (Some(""), None) => "",
        _ => "invalid",
    }
}

/// The verbs of `apiserver_request_body_size_bytes`.
fn body_verb(info: &RequestInfo) -> &'static str {
    match info.verb.as_str() {
        "create" => "create",
        "update" => "update",
        "patch" => "patch",
        "delete" => "delete",
        "deletecollection" => "delete_collection",
        _ => "",
    }
}

/// A request that is being worked on.
pub struct Observed {
    metrics: Arc<Metrics>,
    about: About,
    _guard: Guard,
    started: Instant,
}

/// Counts down when the request is over: for a watch that is when its body is.
enum Guard {
    Gauge(IntGauge),
    Count(Arc<AtomicI64>),
}

impl Drop for Guard {
    fn drop(&mut self) {
        match self {
            Guard::Gauge(gauge) => gauge.dec(),
            Guard::Count(count) => {
                count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// How far a request came before it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A filter refused it: nobody knows the user, or the user may not. Upstream does not
    /// count such as requests.
    Filtered,
    Served,
    /// The server ended it to protect itself: too many at a time, or too long.
    Terminated,
}

impl Observed {
    pub fn end(
        self,
        request: &RequestContext,
        response: Response<Body>,
        fate: Fate,
    ) -> Response<Body> {
        let info = &request.info;
        let about = self.about;
        let code = response.status().as_u16();
        if fate == Fate::Terminated {
            let code = code.to_string();
            let labels = [
                verb(info, info.scope(), &request.headers),
                about.group,
                about.version,
                about.resource,
                about.subresource,
                info.scope(),
                about.component,
                &code,
            ];
            self.metrics.terminations.with_label_values(&labels).inc();
            if code == "504" {
                self.metrics.aborts.with_label_values(&labels[..6]).inc();
            }
        }
        if !about.counted || fate == Fate::Filtered {
            // Watches that nobody counts have a gauge all the same: it goes with the body.
            return self.until_the_end(response, None);
        }
        let scope = info.route_scope();
        let verb = verb(info, scope, &request.headers);
        self.note(request, verb);
        let outcome = Outcome {
            handles: self.metrics.handles(Series {
                about,
                verb,
                dry_run: dry_run(&request.query),
                scope,
                code,
            }),
            validation: matches!(request.method, Method::POST | Method::PUT | Method::PATCH)
                .then(|| field_validation(&request.query)),
            is_promised: !info.is_long_running() && dry_run(&request.query).is_empty(),
            bytes: 0,
        };
        self.until_the_end(response, Some(outcome))
    }

    /// Counts the request once its answer has been sent: for a watch that is when it ends.
    fn until_the_end(self, response: Response<Body>, outcome: Option<Outcome>) -> Response<Body> {
        let mut whole = Counted {
            body: super::body::empty(),
            observed: self,
            outcome,
        };
        if let Some(Lasts(ended)) = response.extensions().get().cloned() {
            tokio::spawn(async move {
                ended.cancelled().await;
                drop(whole);
            });
            return response;
        }
        match (response.body().size_hint().exact(), &mut whole.outcome) {
            (Some(_), None) => response,
            (Some(bytes), Some(outcome)) => {
                outcome.bytes = bytes;
                response
            }
            (None, _) => response.map(|body| {
                whole.body = body;
                Body::new(whole)
            }),
        }
    }

    /// What is known of a request before its answer is sent.
    fn note(&self, request: &RequestContext, verb: &'static str) {
        let (info, about) = (&request.info, self.about);
        if let Some(size) = request.body_size
            && info.is_resource
        {
            self.metrics
                .body_sizes
                .with_label_values(&[about.group, about.resource, body_verb(info)])
                .observe(size as f64);
        }
        let agent = request.headers.get(header::USER_AGENT);
        if agent.is_some_and(|a| a.as_bytes().starts_with(b"kube-apiserver/")) {
            let labels = [verb, about.group, about.resource, about.subresource];
            self.metrics.own.with_label_values(&labels).inc();
        }
    }
}

/// What is counted of an answer once it has been sent.
struct Outcome {
    handles: Arc<Handles>,
    /// The field validation of a write.
    validation: Option<&'static str>,
    /// Something is promised of how long such requests take: not of dry runs, nor of what has no
    /// deadline.
    is_promised: bool,
    bytes: u64,
}

/// A body at whose end its request is counted.
struct Counted {
    body: Body,
    observed: Observed,
    outcome: Option<Outcome>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(outcome) = &self.outcome else {
            return;
        };
        let Observed {
            metrics, started, ..
        } = &self.observed;
        let took = started.elapsed().as_secs_f64();
        let handles = &outcome.handles;
        handles.total.inc();
        handles.duration.observe(took);
        if outcome.is_promised {
            handles.sli.observe(took);
        }
        if let Some(sizes) = &handles.response_size {
            sizes.observe(outcome.bytes as f64);
        }
        if let Some(validation) = outcome.validation {
            metrics
                .field_validation
                .with_label_values(&[validation])
                .observe(took);
        }
    }
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let (Poll::Ready(Some(Ok(frame))), Some(outcome)) = (&frame, &mut self.outcome) {
            outcome.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: Method, path: &str) -> RequestInfo {
        RequestInfo::new(&method, path, &Query::default())
    }

    fn resource(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        schema::resources()
            .iter()
            .find(|r| (r.group, r.version, r.plural) == (group, version, plural))
    }

    #[test]
    fn names_that_nobody_serves_are_no_labels() {
        let about = |path: &str, resource| {
            let about = About::new(&info(Method::GET, path), resource);
            let labels = [
                about.group,
                about.version,
                about.resource,
                about.subresource,
            ];
            (labels, about.counted)
        };
        let deployments = resource("apps", "v1", "deployments");
        assert_eq!(
            about(
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                deployments
            ),
            (["apps", "v1", "deployments", "scale"], true)
        );
        assert_eq!(
            about("/apis/apps/v1/namespaces/a/deployments/b/x1", deployments),
            (["apps", "v1", "deployments", ""], false)
        );
        assert_eq!(about("/apis/x1/x2/x3", None), ([""; 4], false));
        assert_eq!(about("/readyz", None), (["", "", "", "/readyz"], true));
        assert_eq!(about("/version", None), ([""; 4], false));
    }

    #[test]
    fn verbs_are_upstreams() {
        let pods = "/api/v1/namespaces/a/pods";
        let verb = |method, path: &str| {
            let info = info(method, path);
            coarse_verb(&info, info.scope())
        };
        assert_eq!(verb(Method::GET, pods), "LIST");
        assert_eq!(verb(Method::HEAD, &format!("{pods}/p")), "GET");
        assert_eq!(verb(Method::DELETE, pods), "DELETE");
        assert_eq!(verb(Method::GET, &format!("{pods}/p/log")), "CONNECT");
        assert_eq!(verb(Method::GET, "/readyz"), "GET");
        assert_eq!(verb(Method::OPTIONS, pods), "other");
        let selector = Query::parse("fieldSelector=metadata.name%3Dp");
        let by_name = RequestInfo::new(&Method::GET, pods, &selector);
        assert_eq!(coarse_verb(&by_name, by_name.scope()), "GET");
        assert_eq!(coarse_verb(&by_name, by_name.route_scope()), "LIST");
        let mut headers = HeaderMap::new();
        let value = http::HeaderValue::from_static("application/apply-patch+yaml");
        headers.insert(header::CONTENT_TYPE, value);
        let patch = info(Method::PATCH, &format!("{pods}/p"));
        assert_eq!(super::verb(&patch, patch.scope(), &headers), "APPLY");
    }

    #[test]
    fn parameters_are_labels_only_if_they_are_valid() {
        assert_eq!(dry_run(&Query::parse("dryRun=All&dryRun=All")), "All");
        assert_eq!(dry_run(&Query::parse("dryRun=x")), "invalid");
        assert_eq!(dry_run(&Query::default()), "");
        assert_eq!(
            field_validation(&Query::parse("fieldValidation=Warn")),
            "Warn"
        );
        assert_eq!(
            field_validation(&Query::parse("fieldValidation=w")),
            "invalid"
        );
    }

    #[test]
    fn a_peak_is_shown_after_it_is_over() {
        let gauge = IntGauge::new("x", "y").unwrap();
        let peak = Peak::new(gauge.clone());
        drop([peak.enter(), peak.enter()]);
        let _one = peak.enter();
        peak.show();
        assert_eq!(gauge.get(), 2);
        peak.show();
        assert_eq!(gauge.get(), 1);
    }
}
