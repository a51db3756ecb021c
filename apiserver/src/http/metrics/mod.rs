//! The request metrics, under upstream's names and labels (`endpoints/metrics`).

mod access;
mod watch;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};

use http::Response;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry as Prometheus,
    exponential_buckets, linear_buckets,
};
use schema::Resource;

pub use self::access::Access;
pub use self::watch::Events;
use self::watch::Watches;
use super::body::{Body, BoxError};
use super::context::RequestContext;
use super::request_info::RequestInfo;

/// Seconds; the buckets of `apiserver_request_duration_seconds`.
const BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// The same for what users wait for and the server is answerable for.
const SLI_BUCKETS: &[f64] = &[
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0,
    30.0, 45.0, 60.0,
];

pub struct Metrics {
    pub access: Access,
    total: IntCounterVec,
    duration: HistogramVec,
    sli_duration: HistogramVec,
    response_sizes: HistogramVec,
    request_sizes: HistogramVec,
    deprecated: IntGaugeVec,
    watches: Watches,
    in_flight: IntGaugeVec,
    long_running: IntGaugeVec,
}

impl Metrics {
    pub fn new(registry: &Prometheus) -> prometheus::Result<Metrics> {
        let total = IntCounterVec::new(
            Opts::new(
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
            ),
            &[
                "verb",
                "dry_run",
                "group",
                "version",
                "resource",
                "subresource",
                "scope",
                "component",
                "code",
            ],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "apiserver_request_duration_seconds",
                "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
            )
            .buckets(BUCKETS.to_vec()),
            &[
                "verb", "dry_run", "group", "version", "resource", "subresource", "scope",
                "component",
            ],
        )?;
        let in_flight = IntGaugeVec::new(
            Opts::new(
                "apiserver_current_inflight_requests",
                "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
            ),
            &["request_kind"],
        )?;
        let long_running = IntGaugeVec::new(
            Opts::new(
                "apiserver_longrunning_requests",
                "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
            ),
            &[
                "verb",
                "group",
                "version",
                "resource",
                "subresource",
                "scope",
                "component",
            ],
        )?;
        let without_dry_run = [
            "verb",
            "group",
            "version",
            "resource",
            "subresource",
            "scope",
            "component",
        ];
        let sli_duration = HistogramVec::new(
            HistogramOpts::new(
                "apiserver_request_sli_duration_seconds",
                "Response latency in seconds, without what webhooks and queues take.",
            )
            .buckets(SLI_BUCKETS.to_vec()),
            &without_dry_run,
        )?;
        let response_sizes = HistogramVec::new(
            HistogramOpts::new(
                "apiserver_response_sizes",
                "Sizes of the answers to reads, in bytes.",
            )
            .buckets(exponential_buckets(1000.0, 10.0, 7)?),
            &without_dry_run,
        )?;
        let request_sizes = HistogramVec::new(
            HistogramOpts::new(
                "apiserver_request_body_size_bytes",
                "Sizes of requests' bodies, in bytes.",
            )
            .buckets(linear_buckets(50_000.0, 100_000.0, 31)?),
            &["group", "resource", "verb"],
        )?;
        let deprecated = IntGaugeVec::new(
            Opts::new(
                "apiserver_requested_deprecated_apis",
                "Deprecated APIs that have been asked for; the value is 1.",
            ),
            &[
                "group",
                "version",
                "resource",
                "subresource",
                "removed_release",
            ],
        )?;
        registry.register(Box::new(sli_duration.clone()))?;
        registry.register(Box::new(response_sizes.clone()))?;
        registry.register(Box::new(request_sizes.clone()))?;
        registry.register(Box::new(deprecated.clone()))?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(long_running.clone()))?;
        for kind in ["mutating", "readOnly"] {
            in_flight.with_label_values(&[kind]).set(0);
        }
        Ok(Metrics {
            access: Access::new(registry)?,
            watches: Watches::new(registry)?,
            sli_duration,
            response_sizes,
            request_sizes,
            deprecated,
            total,
            duration,
            in_flight,
            long_running,
        })
    }

    /// Starts observing a request. `resource` is the one that the path names, if it is served:
    /// names that anybody may invent make no time series.
    pub fn begin(
        self: &Arc<Self>,
        info: &RequestInfo,
        resource: Option<&'static Resource>,
    ) -> Observed {
        let about = About::new(info, resource);
        let gauge = if info.is_long_running() {
            self.long_running.with_label_values(&[
                verb(info),
                about.group,
                about.version,
                about.resource,
                about.subresource,
                info.scope(),
                COMPONENT,
            ])
        } else {
            let kind = if info.is_read_only() {
                "readOnly"
            } else {
                "mutating"
            };
            self.in_flight.with_label_values(&[kind])
        };
        gauge.inc();
        Observed {
            metrics: self.clone(),
            about,
            _gauge: Guard(gauge),
            started: Instant::now(),
        }
    }

    /// The series of a watch of this resource.
    pub fn watch_events(&self, resource: &Resource) -> Events {
        self.watches.of(resource)
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
}

const COMPONENT: &str = "apiserver";

/// What a request is about, in words of the schema; empty where the path names nothing.
#[derive(Default)]
struct About {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
}

impl About {
    fn new(info: &RequestInfo, resource: Option<&'static Resource>) -> Self {
        let Some(resource) = resource else {
            return Self::default();
        };
        let mut subresources = resource.subresources.iter();
        Self {
            group: resource.group,
            version: resource.version,
            resource: resource.plural,
            subresource: subresources
                .find(|s| s.name == info.subresource)
                .map_or("", |s| s.name),
        }
    }
}

/// The verb as metrics say it.
fn verb(info: &RequestInfo) -> &'static str {
    match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "proxy" | "connect" => "CONNECT",
        _ => "other",
    }
}

/// A request that is being worked on.
pub struct Observed {
    metrics: Arc<Metrics>,
    about: About,
    _gauge: Guard,
    started: Instant,
}

/// Counts down when the request is over.
struct Guard(prometheus::IntGauge);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Observed {
    /// Notes what became of the request, once its answer has been sent: for a watch that is
    /// when it ends.
    pub fn end(self, request: &RequestContext, response: Response<Body>) -> Response<Body> {
        let info = &request.info;
        let mut outcome = Outcome {
            verb: verb(info),
            dry_run: if request.query.get("dryRun").is_some() {
                "All"
            } else {
                ""
            },
            scope: info.scope(),
            code: response.status(),
            bytes: 0,
            observed: self,
        };
        if let Some(bytes) = request.body_size {
            outcome.request_body(&info.verb, bytes);
        }
        match response.body().size_hint().exact() {
            Some(bytes) if !info.is_long_running() => {
                outcome.bytes = bytes;
                response
            }
            _ => response.map(|body| Body::new(Counted { body, outcome })),
        }
    }
}

/// An answer whose end is yet to come; dropped then.
struct Outcome {
    observed: Observed,
    verb: &'static str,
    dry_run: &'static str,
    scope: &'static str,
    code: http::StatusCode,
    bytes: u64,
}

impl Outcome {
    /// `verb` is the API's own word.
    fn request_body(&self, verb: &str, bytes: usize) {
        if !matches!(
            verb,
            "create" | "update" | "patch" | "delete" | "deletecollection"
        ) {
            return;
        }
        let Observed { metrics, about, .. } = &self.observed;
        let labels = [about.group, about.resource, verb];
        let sizes = metrics.request_sizes.with_label_values(&labels);
        sizes.observe(bytes as f64);
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let Observed {
            metrics,
            about,
            started,
            ..
        } = &self.observed;
        let (verb, about, scope) = (self.verb, about, self.scope);
        let labels = [
            verb,
            self.dry_run,
            about.group,
            about.version,
            about.resource,
            about.subresource,
            scope,
            COMPONENT,
            self.code.as_str(),
        ];
        metrics.total.with_label_values(&labels).inc();
        let took = started.elapsed().as_secs_f64();
        let duration = metrics.duration.with_label_values(&labels[..8]);
        duration.observe(took);
        let labels = [
            verb,
            about.group,
            about.version,
            about.resource,
            about.subresource,
            scope,
            COMPONENT,
        ];
        if self.dry_run.is_empty() {
            let sli = metrics.sli_duration.with_label_values(&labels);
            sli.observe(took);
        }
        if matches!(verb, "GET" | "LIST") {
            let sizes = metrics.response_sizes.with_label_values(&labels);
            sizes.observe(self.bytes as f64);
        }
    }
}

/// A body whose length is known only at its end.
struct Counted {
    body: Body,
    outcome: Outcome,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.outcome.bytes += bytes as u64;
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
    use http::Method;

    use super::*;
    use crate::http::query::Query;

    #[test]
    fn names_that_nobody_serves_are_no_labels() {
        let about = |path: &str, resource| {
            let info = RequestInfo::new(&Method::GET, path, &Query::default());
            let About {
                group,
                version,
                resource,
                subresource,
            } = About::new(&info, resource);
            [group, version, resource, subresource]
        };
        let deployments = schema::resources()
            .iter()
            .find(|r| (r.group, r.version, r.plural) == ("apps", "v1", "deployments"));
        assert_eq!(
            about(
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                deployments
            ),
            ["apps", "v1", "deployments", "scale"]
        );
        assert_eq!(
            about("/apis/apps/v1/namespaces/a/deployments/b/x1", deployments)[3],
            ""
        );
        assert_eq!(about("/apis/x1/x2/x3", None), [""; 4]);
    }
}
