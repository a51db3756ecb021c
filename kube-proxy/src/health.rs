//! `/healthz` and `/livez` for load balancers and kubelets: are the rules up to date, and
//! is the node one to send traffic to.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;

/// How long a change may wait before the proxy counts as stuck: twice upstream's sync period.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Shared between the proxier, which writes it, and the health port.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The oldest change that is not in the kernel yet.
    queued: Option<Timestamp>,
    updated: Option<Timestamp>,
    /// The node is going away: no new traffic, please.
    leaving: bool,
}

impl Health {
    pub fn queued(&self, now: Timestamp) {
        self.0.lock().queued.get_or_insert(now);
    }

    pub fn updated(&self, now: Timestamp) {
        let mut state = self.0.lock();
        state.queued = None;
        state.updated = Some(now);
    }

    pub fn leaving(&self, leaving: bool) {
        self.0.lock().leaving = leaving;
    }

    fn is_current(&self, now: Timestamp) -> bool {
        let state = self.0.lock();
        let waiting = state
            .queued
            .map(|since| now.duration_since(since).unsigned_abs());
        state.updated.is_some() && waiting.is_none_or(|waited| waited < TIMEOUT)
    }

    /// Answers `/healthz` and `/livez`. `/livez` does not ask whether the node is leaving.
    pub fn respond(&self, path: &str, now: Timestamp) -> Response<String> {
        let current = self.is_current(now);
        let state = self.0.lock();
        let eligible = !state.leaving;
        let healthy = current && (eligible || path == "/livez");
        // A healthy proxy is as good as updated now, as upstream reports it.
        let updated = if healthy { Some(now) } else { state.updated };
        let mut body = json!({
            "lastUpdated": updated.map(|t| t.to_string()),
            "currentTime": now.to_string(),
        });
        if path == "/healthz" {
            body["nodeEligible"] = eligible.into();
        }
        let mut response = Response::new(body.to_string());
        if !healthy {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = response.headers_mut();
        headers.insert(
            "content-type",
            http::HeaderValue::from_static("application/json"),
        );
        headers.insert(
            "x-content-type-options",
            http::HeaderValue::from_static("nosniff"),
        );
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_waits_too_long_is_a_fault() {
        let health = Health::default();
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let status = |health: &Health, path, seconds| {
            let now = start + jiff::SignedDuration::from_secs(seconds);
            health.respond(path, now).status().as_u16()
        };
        assert_eq!(status(&health, "/healthz", 0), 503);
        health.updated(start);
        assert_eq!(status(&health, "/healthz", 1000), 200);
        health.queued(start);
        assert_eq!(status(&health, "/healthz", 59), 200);
        assert_eq!(status(&health, "/healthz", 61), 503);
        health.updated(start);
        health.leaving(true);
        assert_eq!(status(&health, "/healthz", 1), 503);
        assert_eq!(status(&health, "/livez", 1), 200);
    }
}
