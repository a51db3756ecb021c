//! Metrics of who asks and what they may, under upstream's names and labels
//! (`endpoints/filters`): counted once per request, where the chain asks.

use std::time::{Duration, Instant};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry as Prometheus,
};

const FILTER_BUCKETS: &[f64] = &[
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0,
];

/// An outcome's counter and its seconds.
struct Outcome {
    attempts: IntCounter,
    seconds: Histogram,
}

impl Outcome {
    fn observe(&self, took: Duration) {
        self.attempts.inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

pub struct Access {
    users: IntCounterVec,
    authenticated: Outcome,
    unauthenticated: Outcome,
    authentication_failed: Outcome,
    allowed: Outcome,
    no_opinion: Outcome,
    /// By mode and decision.
    impersonation: (IntCounterVec, HistogramVec),
    authentication_filter: Histogram,
    impersonation_filter: Histogram,
    authorization_filter: Histogram,
}

/// What came of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt<'a> {
    /// With the user's name.
    Success(&'a str),
    Nobody,
    Error,
}

impl Access {
    pub fn new(registry: &Prometheus) -> prometheus::Result<Self> {
        // 1 ms and up, each twice the one before.
        let seconds: Vec<f64> = (0..15).map(|n| 0.001 * f64::from(1 << n)).collect();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = HistogramVec::new(options, labels)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let authentication = (
            counter(
                "authentication_attempts",
                "Requests whose user was asked for.",
                &["result"],
            )?,
            histogram(
                "authentication_duration_seconds",
                "Seconds that finding the user took.",
                &seconds,
                &["result"],
            )?,
        );
        let authorization = (
            counter(
                "authorization_attempts_total",
                "Requests that were authorized or not.",
                &["result"],
            )?,
            histogram(
                "authorization_duration_seconds",
                "Seconds that authorization took.",
                &seconds,
                &["result"],
            )?,
        );
        let impersonation = (
            counter(
                "apiserver_impersonation_attempts_total",
                "Requests that asked to be somebody else's.",
                &["mode", "decision"],
            )?,
            histogram(
                "apiserver_impersonation_attempts_duration_seconds",
                "Seconds that deciding on an impersonation took.",
                &seconds,
                &["mode", "decision"],
            )?,
        );
        let filters = histogram(
            "apiserver_request_filter_duration_seconds",
            "Seconds that a request's way through a filter took.",
            FILTER_BUCKETS,
            &["filter"],
        )?;
        let of = |(attempts, seconds): &(IntCounterVec, HistogramVec), labels: &[&str]| Outcome {
            attempts: attempts.with_label_values(labels),
            seconds: seconds.with_label_values(labels),
        };
        Ok(Self {
            users: counter(
                "authenticated_user_requests",
                "Requests whose user is known, by well-known names.",
                &["username"],
            )?,
            authenticated: of(&authentication, &["success"]),
            unauthenticated: of(&authentication, &["failure"]),
            authentication_failed: of(&authentication, &["error"]),
            allowed: of(&authorization, &["allowed"]),
            no_opinion: of(&authorization, &["no-opinion"]),
            impersonation,
            authentication_filter: filters.with_label_values(&["authentication"]),
            impersonation_filter: filters.with_label_values(&["constrainedimpersonation"]),
            authorization_filter: filters.with_label_values(&["authorization"]),
        })
    }

    pub fn authentication(&self, attempt: Attempt<'_>, started: Instant) {
        let took = started.elapsed();
        match attempt {
            Attempt::Success(name) => {
                self.users.with_label_values(&[well_known(name)]).inc();
                self.authenticated.observe(took);
            }
            Attempt::Nobody => self.unauthenticated.observe(took),
            Attempt::Error => self.authentication_failed.observe(took),
        }
        self.authentication_filter.observe(took.as_secs_f64());
    }

    /// `mode`: in which way the request could become somebody else's; none if it could not.
    pub fn impersonation(&self, mode: Option<&str>, started: Instant) {
        let took = started.elapsed().as_secs_f64();
        let labels = match mode {
            Some(mode) => [mode, "allowed"],
            None => ["", "denied"],
        };
        let (attempts, seconds) = &self.impersonation;
        attempts.with_label_values(&labels).inc();
        seconds.with_label_values(&labels).observe(took);
    }

    /// Every request goes through this filter.
    pub fn impersonation_passed(&self, started: Instant) {
        let took = started.elapsed().as_secs_f64();
        self.impersonation_filter.observe(took);
    }

    pub fn authorization(&self, allowed: bool, started: Instant) {
        let took = started.elapsed();
        match allowed {
            true => self.allowed.observe(took),
            false => self.no_opinion.observe(took),
        }
        self.authorization_filter.observe(took.as_secs_f64());
    }
}

/// Names of users are no labels, but for some that tell nothing of anybody.
fn well_known(name: &str) -> &'static str {
    match name {
        "admin" => "admin",
        "client" => "client",
        "kube_proxy" => "kube_proxy",
        "kubelet" => "kubelet",
        "system:serviceaccount:kube-system:default" => "system:serviceaccount:kube-system:default",
        name if name.contains('@') => "email_id",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_not_named() {
        assert_eq!(well_known("kubelet"), "kubelet");
        assert_eq!(well_known("jane@example.com"), "email_id");
        assert_eq!(well_known("jane"), "other");
    }
}
