//! The last requests of a server that stops.
//!
//! What must not be here: when it stops.

use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::body::{self, Body};
use super::request_info::RequestInfo;

/// Paths that are served to the end: who watches over servers asks them.
const PROBES: [&str; 4] = ["/readyz", "/livez", "/healthz", "/metrics"];
/// How API servers call themselves: this one may ask itself.
const SERVERS: &[u8] = b"kube-apiserver/";
/// In seconds.
const RETRY_AFTER: u64 = 5;

/// What becomes of requests when the server stops.
pub struct Stop {
    /// Cancelled when watches are to end.
    begun: CancellationToken,
    /// Requests that end by themselves, where it is asked for them.
    short: Option<TaskTracker>,
}

impl Stop {
    /// `turns_away` is `--shutdown-send-retry-after`: as long as requests are being answered that
    /// came before the stop, others are told to come again.
    pub fn new(turns_away: bool) -> Self {
        Self {
            begun: CancellationToken::new(),
            short: turns_away.then(TaskTracker::new),
        }
    }

    /// Waits for the stop.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Begins the stop, and waits until nobody has to be turned away any more.
    pub async fn begin(&self) {
        self.begun.cancel();
        if let Some(short) = &self.short {
            short.close();
            short.wait().await;
        }
    }

    /// The answer to a request that comes too late.
    pub fn turn_away(&self, request: &Parts) -> Option<Response<Body>> {
        if self.short.is_none() || !self.begun.is_cancelled() {
            return None;
        }
        let path = request.uri.path();
        let user_agent = request.headers.get(header::USER_AGENT);
        let is_exempt = PROBES.iter().any(|probe| path.starts_with(probe))
            || user_agent.is_some_and(|agent| agent.as_bytes().starts_with(SERVERS));
        if is_exempt {
            return None;
        }
        let mut response = body::text(
            StatusCode::TOO_MANY_REQUESTS,
            "The apiserver is shutting down, please try again later.\n",
        );
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        Some(response)
    }

    /// Held while a request is being answered that the stop waits for.
    pub fn holds(&self, info: &RequestInfo) -> Option<TaskTrackerToken> {
        let short = self.short.as_ref()?;
        (!info.is_long_running()).then(|| short.token())
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::super::query::Query;
    use super::*;

    fn request(path: &str, agent: &str) -> Parts {
        let request = Request::get(path).header(header::USER_AGENT, agent);
        request.body(()).unwrap().into_parts().0
    }

    fn info(path: &str) -> RequestInfo {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        RequestInfo::new(&http::Method::GET, path, &Query::parse(query))
    }

    #[tokio::test(start_paused = true)]
    async fn others_are_turned_away_while_requests_are_answered() {
        let stop = std::sync::Arc::new(Stop::new(true));
        let late = request("/api/v1/nodes", "kubectl/v1.36.2");
        assert!(stop.turn_away(&late).is_none());
        let _watch = stop.holds(&info("/api/v1/pods?watch=1"));
        let list = stop.holds(&info("/api/v1/pods"));
        let stopping = tokio::spawn({
            let stop = stop.clone();
            async move { stop.begin().await }
        });
        stop.begun().await;
        let answer = stop.turn_away(&late).unwrap();
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()[header::RETRY_AFTER], "5");
        assert_eq!(answer.headers()[header::CONNECTION], "close");
        assert!(stop.turn_away(&request("/readyz/ping", "curl")).is_none());
        let own = request("/api/v1/nodes", "kube-apiserver/v1.36.2 (linux/amd64)");
        assert!(stop.turn_away(&own).is_none());
        tokio::task::yield_now().await;
        assert!(!stopping.is_finished());
        drop(list);
        stopping.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_is_turned_away_unasked() {
        let stop = Stop::new(false);
        assert!(stop.holds(&info("/api/v1/pods")).is_none());
        stop.begin().await;
        assert!(stop.turn_away(&request("/api", "curl")).is_none());
    }
}
