//! The request metrics, under upstream's names and labels (`endpoints/metrics`).

use std::time::Instant;

use http::Response;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry as Prometheus,
};
use schema::Resource;

use super::body::Body;
use super::context::RequestContext;
use super::request_info::RequestInfo;

/// Seconds; the buckets of `apiserver_request_duration_seconds`.
const BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

pub struct Metrics {
    total: IntCounterVec,
    duration: HistogramVec,
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
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(long_running.clone()))?;
        for kind in ["mutating", "readOnly"] {
            in_flight.with_label_values(&[kind]).set(0);
        }
        Ok(Metrics {
            total,
            duration,
            in_flight,
            long_running,
        })
    }

    /// Starts observing a request. `resource` is the one that the path names, if it is served:
    /// names that anybody may invent make no time series.
    pub fn begin(&self, info: &RequestInfo, resource: Option<&'static Resource>) -> Observed<'_> {
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
            metrics: self,
            about,
            gauge: Guard(gauge),
            started: Instant::now(),
        }
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
pub struct Observed<'a> {
    metrics: &'a Metrics,
    about: About,
    gauge: Guard,
    started: Instant,
}

/// Counts down when the request is over: for a watch that is when its body is.
struct Guard(prometheus::IntGauge);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Observed<'_> {
    pub fn end(self, request: &RequestContext, response: Response<Body>) -> Response<Body> {
        let info = &request.info;
        let code = response.status();
        let dry_run = if request.query.get("dryRun").is_some() {
            "All"
        } else {
            ""
        };
        let labels = [
            verb(info),
            dry_run,
            self.about.group,
            self.about.version,
            self.about.resource,
            self.about.subresource,
            info.scope(),
            COMPONENT,
            code.as_str(),
        ];
        self.metrics.total.with_label_values(&labels).inc();
        if info.is_long_running() {
            use http_body_util::BodyExt;
            let guard = self.gauge;
            return response.map(|body| {
                body.map_frame(move |frame| {
                    let _ = &guard;
                    frame
                })
                .boxed_unsync()
            });
        }
        self.metrics
            .duration
            .with_label_values(&labels[..8])
            .observe(self.started.elapsed().as_secs_f64());
        response
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
