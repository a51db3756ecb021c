//! The filter chain, from an HTTP request to its answer, in upstream's order: audit id,
//! request info, deadline, authentication, impersonation, flow control, authorization, verb.
//!
//! What must not be here: what a verb does.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use component::flags::GoDuration;
use component::panics::{Contained, Panicked};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use meta::{Reason, Status};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use super::body::{self, Body};
use super::context::{RequestContext, drain};
use super::impersonation::Modes;
use super::in_flight::{Admission, InFlight, RETRY_AFTER};
use super::metrics::{Attempt, Fate, Metrics};
use super::query::Query;
use super::request_info::RequestInfo;
use super::stop::Stop;
use super::{authorization, debug, impersonation, negotiate, verbs, warnings};
use crate::authn::{self, ANONYMOUS, Authenticator, Credentials, User};
use crate::authz::Authorizer;
use crate::registry::Registry;
use crate::registry::store::Env;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Answers paths that name no resource.
pub trait Paths: Send + Sync + 'static {
    /// `None`: the path is unknown.
    fn serve(&self, request: &RequestContext) -> Option<Response<Body>>;
}

/// What the request path works with.
pub struct Chain {
    pub registry: Arc<Registry>,
    pub env: Arc<Env>,
    pub endpoints: Arc<verbs::Endpoints>,
    pub paths: Arc<dyn Paths>,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub impersonation: Modes,
    pub in_flight: InFlight,
    /// `--request-timeout`
    pub request_timeout: Duration,
    /// `--min-request-timeout`: watches last that long to twice as long.
    pub min_watch: Duration,
    pub metrics: Arc<Metrics>,
    pub fan_out: Arc<verbs::FanOut>,
    /// `--profiling`: `/debug` is served.
    pub profiling: bool,
    /// `--strict-transport-security-directives`, as a header's value.
    pub hsts: Option<HeaderValue>,
    pub random: fn() -> u64,
    /// The gate `UnauthenticatedHTTP2DOSMitigation`: who is nobody has to connect anew for each
    /// request (CVE-2023-44487).
    pub closes_on_nobody: bool,
    /// `--goaway-chance`, from 0 to 1: that a request of HTTP/2 is the last one of its connection,
    /// so that clients spread over servers.
    pub goaway_chance: f64,
    pub stop: Arc<Stop>,
}

/// What is known of a connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client's certificates, leaf first.
    pub certificates: Arc<[CertificateDer<'static>]>,
    pub address: std::net::IpAddr,
}

impl Chain {
    pub async fn serve(
        self: Arc<Self>,
        connection: Connection,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (mut parts, incoming) = request.into_parts();
        let version = parts.version;
        let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let audit_id = self.audit_id(&parts.headers);
        if let Some(mut response) = self.stop.turn_away(&parts) {
            response.headers_mut().insert(AUDIT_ID, audit_id);
            drain(incoming).await;
            return response;
        }
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let path = percent_decoded(parts.uri.path());
        let info = RequestInfo::new(&parts.method, &path, &query);
        let resource = self
            .registry
            .resource(&info.group, &info.version, &info.resource);
        let _held = self.stop.holds(&info);
        let observed = self.metrics.begin(&info, resource);
        let mut request = RequestContext {
            info,
            method: parts.method,
            uri: parts.uri,
            query,
            headers: parts.headers,
            user: Arc::default(),
            of_nobody: false,
            warnings: Arc::default(),
            peer: connection.address,
            body: Some(incoming),
            read_ahead: None,
            body_size: None,
            upgrade,
            away: false,
            left_alone: CancellationToken::new(),
        };
        let mut fate = Fate::Filtered;
        let given = request.warnings.clone();
        let outcome = match deadline(&request, self.request_timeout) {
            Err(status) => Err(status),
            Ok(None) => self.filtered(&connection, &mut request, &mut fate).await,
            Ok(Some(limit)) => {
                let answer = self.filtered(&connection, &mut request, &mut fate);
                let answer = within(limit, answer).await;
                answer.unwrap_or_else(|| {
                    fate = Fate::Terminated;
                    Ok(body::out_of_time())
                })
            }
        };
        let goes_on = request.finish_reading(version).await;
        let mut response = outcome.unwrap_or_else(|status| self.failed(&status, &request, &fate));
        let headers = response.headers_mut();
        headers.insert(AUDIT_ID, audit_id);
        if let Some(hsts) = &self.hsts {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-cache, private"));
        let http2 = version == Version::HTTP_2;
        let is_last = http2 && (self.closes_on_nobody && request.of_nobody || self.is_last());
        if is_last || !goes_on {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        for warning in warnings::headers(&given.take()) {
            headers.append(header::WARNING, warning);
        }
        observed.end(&request, response, fate)
    }

    async fn filtered(
        self: &Arc<Self>,
        connection: &Connection,
        request: &mut RequestContext,
        fate: &mut Fate,
    ) -> Result<Response<Body>, Status> {
        request.of_nobody = true;
        request.user = self.authenticate(connection, request).await?;
        request.of_nobody = request.user.name == ANONYMOUS;
        self.authenticator.scrub(&mut request.headers);
        let started = Instant::now();
        if let Some(wanted) = impersonation::wanted(&mut request.headers)? {
            let selector = request.query.text("fieldSelector");
            let asked = authorization::attributes(&request.info, &request.user, &selector);
            let modes = &self.impersonation;
            let impersonated = modes.impersonate(&wanted, &asked, &*self.authorizer);
            let mode = impersonated.as_ref().ok().map(|(mode, _)| mode.name());
            self.metrics.access.impersonation(mode, started);
            request.user = Arc::new(impersonated?.1);
        }
        self.metrics.access.impersonation_passed(started);
        let place = match self.in_flight.admit(&request.info, &request.user) {
            Admission::Refused => {
                *fate = Fate::Terminated;
                return Ok(too_many_requests());
            }
            place => place,
        };
        let selector = request.query.text("fieldSelector");
        let attributes = authorization::attributes(&request.info, &request.user, &selector);
        let started = Instant::now();
        let authorized = authorization::authorize(&*self.authorizer, &attributes);
        self.metrics
            .access
            .authorization(authorized.is_ok(), started);
        authorized?;
        *fate = Fate::Served;
        let info = &request.info;
        if info.is_resource && self.registry.serves_group(&info.group) {
            let store = self.registry.store(&info.group, &info.resource);
            return match store.is_some_and(|store| store.takes_more()) && is_write(info) {
                true => self.written(request, place).await,
                false => verbs::serve(self, request).await,
            };
        }
        if self.profiling
            && let Some(response) = debug::serve(request).await
        {
            return Ok(response);
        }
        if let Some(response) = self.paths.serve(request) {
            return Ok(response);
        }
        // Below a group that is served, or where only the method is wrong, upstream's
        // router answers.
        let mut parts = request.info.path.trim_matches('/').split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("version"), None, ..) | (Some("api" | "apis"), None, ..) => {
                Err(verbs::method_not_allowed())
            }
            (Some("api"), Some("v1"), None, _) => Err(verbs::method_not_allowed()),
            (Some("api"), ..) => Err(Status::path_not_found()),
            (Some("apis"), Some(group), Some(version), None)
                if self.registry.serves(group, version) =>
            {
                Err(verbs::method_not_allowed())
            }
            (Some("apis"), Some(group), ..) if self.registry.serves_group(group) => {
                Err(Status::path_not_found())
            }
            _ => Ok(body::not_found()),
        }
    }

    /// Serves a write that takes more than its object. It goes on to its end once its body is
    /// there, though nobody may wait for it any more: a client that goes or runs out of time
    /// would leave addresses behind that are no Service's. There are as many of them at most as
    /// there are places.
    async fn written(
        self: &Arc<Self>,
        request: &mut RequestContext,
        place: Admission,
    ) -> Result<Response<Body>, Status> {
        let _waits = request.left_alone.clone().drop_guard();
        let mut work = request.hand_over();
        let chain = self.clone();
        let work = async move {
            let _place = place;
            let outcome = verbs::serve(&chain, &mut work).await;
            (outcome, work)
        };
        match tokio::spawn(Contained::new(work)).await {
            Ok(Ok((outcome, work))) => {
                *request = work;
                outcome
            }
            Ok(Err(Panicked)) => Err(Status::internal("this request caused a panic")),
            Err(_) => Err(Status::internal("the server stops")),
        }
    }

    async fn authenticate(
        &self,
        connection: &Connection,
        request: &RequestContext,
    ) -> Result<Arc<User>, Status> {
        let credentials = Credentials {
            peer_certificates: &connection.certificates,
            headers: &request.headers,
        };
        let started = Instant::now();
        let outcome = self.authenticator.authenticate(credentials).await;
        let attempt = match &outcome {
            Ok(Some(user)) => Attempt::Success(&user.name),
            Ok(None) => Attempt::Nobody,
            Err(_) => Attempt::Error,
        };
        self.metrics.access.authentication(attempt, started);
        let known = matches!(&outcome, Ok(Some(user)) if user.name != ANONYMOUS);
        if !known && authn::is_token_misplaced(&request.headers) {
            request.warnings.add(authn::MISPLACED_TOKEN.to_owned());
        }
        match outcome {
            Ok(Some(user)) => Ok(user),
            Ok(None) => Err(Status::unauthorized("Unauthorized")),
            Err(e) => {
                tracing::debug!(error = %e, path = request.info.path, "Unable to authenticate the request");
                Err(Status::unauthorized("Unauthorized"))
            }
        }
    }

    fn failed(&self, status: &Status, request: &RequestContext, fate: &Fate) -> Response<Body> {
        if status.code >= 500 && status.reason == Reason::InternalError {
            tracing::error!(path = request.info.path, error = %status, "request failed");
        }
        let mut response = body::status(
            status,
            &request.headers,
            negotiate::is_pretty(&request.headers, &request.query),
        );
        // Said by a filter, not by a plugin of admission.
        if status.reason == Reason::Forbidden && matches!(fate, Fate::Filtered) {
            response.headers_mut().insert(
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            );
        }
        response
    }

    /// Whether chance has it that a connection ends.
    fn is_last(&self) -> bool {
        self.goaway_chance > 0.0 && ((self.random)() as f64 / u64::MAX as f64) < self.goaway_chance
    }

    /// The client's, or a new one.
    fn audit_id(&self, headers: &http::HeaderMap) -> HeaderValue {
        if let Some(given) = headers.get(AUDIT_ID).filter(|v| !v.is_empty()) {
            return given.clone();
        }
        let bits = (u128::from((self.random)()) << 64) | u128::from((self.random)());
        let id = uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid();
        body::value(&id.to_string())
    }
}

fn is_write(info: &RequestInfo) -> bool {
    !info.is_read_only() && !info.is_long_running()
}

/// The path as it is meant: `%3A` in a name is a colon. What is no UTF-8 then stays as it is.
fn percent_decoded(path: &str) -> std::borrow::Cow<'_, str> {
    percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .unwrap_or(std::borrow::Cow::Borrowed(path))
}

/// How long the request may take; `None` for watches and the like. A client may ask for less.
fn deadline(request: &RequestContext, most: Duration) -> Result<Option<Duration>, Status> {
    if request.info.is_long_running() {
        return Ok(None);
    }
    let Some(asked) = request.query.get("timeout").filter(|t| !t.is_empty()) else {
        return Ok(Some(most));
    };
    let asked: GoDuration = asked.parse().map_err(|error| {
        Status::bad_request(format!(
            "invalid timeout specified in the request URL - {error}"
        ))
    })?;
    // One below zero asks for no less than zero does.
    Ok(Some(match asked.get() {
        Duration::ZERO => most,
        asked => asked.min(most),
    }))
}

/// What a future comes to; `None`, and the future ends where it is, once it waits and the time is
/// over. A timer alone would tell of that later: who works for long and then waits for a moment
/// only, as for etcd, would be done first.
async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timer = pin!(tokio::time::sleep(limit));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if timer.deadline() <= tokio::time::Instant::now() => Poll::Ready(None),
        Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
    })
    .await
}

fn too_many_requests() -> Response<Body> {
    let mut response = body::text(
        StatusCode::TOO_MANY_REQUESTS,
        "Too many requests, please try again later.\n",
    );
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_worked_beyond_the_time_ends_when_it_waits() {
        let limit = Duration::from_millis(1);
        let began = Instant::now();
        let mut written = false;
        let late = within(limit, async {
            while began.elapsed() < 2 * limit {}
            tokio::task::yield_now().await;
            written = true;
        });
        assert_eq!(late.await, None);
        assert!(!written);
        // What has been done is told, however late.
        let done = within(limit, async { while began.elapsed() < 4 * limit {} });
        assert_eq!(done.await, Some(()));
        assert_eq!(within(limit, std::future::pending::<()>()).await, None);
    }

    #[test]
    fn paths_are_decoded() {
        assert_eq!(percent_decoded("/a/system%3Anode"), "/a/system:node");
        assert_eq!(percent_decoded("/a/%ff"), "/a/%ff");
    }
}
