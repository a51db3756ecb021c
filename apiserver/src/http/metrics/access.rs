//! Who asked and whether they may: upstream's metrics of authentication and authorization
//! (`endpoints/filters/metrics`).

use std::time::{Duration, Instant};

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry as Prometheus, exponential_buckets,
};

use crate::authn::User;

/// Counts what the two filters decide.
pub struct Access {
    users: IntCounterVec,
    authentication: Decisions,
    authorization: Decisions,
}

/// The outcomes of one filter and how long they took.
struct Decisions {
    attempts: IntCounterVec,
    duration: HistogramVec,
}

impl Decisions {
    fn new(
        registry: &Prometheus,
        attempts: (&str, &str),
        duration: (&str, &str),
    ) -> prometheus::Result<Self> {
        let attempts = IntCounterVec::new(Opts::new(attempts.0, attempts.1), &["result"])?;
        let opts = HistogramOpts::new(duration.0, duration.1);
        let opts = opts.buckets(exponential_buckets(0.001, 2.0, 15)?);
        let duration = HistogramVec::new(opts, &["result"])?;
        registry.register(Box::new(attempts.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        Ok(Self { attempts, duration })
    }

    fn observe(&self, result: &str, took: Duration) {
        self.attempts.with_label_values(&[result]).inc();
        let duration = self.duration.with_label_values(&[result]);
        duration.observe(took.as_secs_f64());
    }
}

impl Access {
    pub fn new(registry: &Prometheus) -> prometheus::Result<Self> {
        let users = IntCounterVec::new(
            Opts::new(
                "authenticated_user_requests",
                "Authenticated requests by user name.",
            ),
            &["username"],
        )?;
        registry.register(Box::new(users.clone()))?;
        Ok(Self {
            users,
            authentication: Decisions::new(
                registry,
                ("authentication_attempts", "Authentications by result."),
                (
                    "authentication_duration_seconds",
                    "How long authentication takes, by result.",
                ),
            )?,
            authorization: Decisions::new(
                registry,
                (
                    "authorization_attempts_total",
                    "Authorizations by result: allowed, no-opinion.",
                ),
                (
                    "authorization_duration_seconds",
                    "How long authorization takes, by result.",
                ),
            )?,
        })
    }

    /// `user`: `Err` when credentials were wrong, `None` when there were none.
    pub fn authenticated<E>(&self, user: Result<Option<&User>, E>, started: Instant) {
        let result = match user {
            Ok(Some(user)) => {
                let name = well_known(&user.name);
                self.users.with_label_values(&[name]).inc();
                "success"
            }
            Ok(None) => "failure",
            Err(_) => "error",
        };
        self.authentication.observe(result, started.elapsed());
    }

    pub fn authorized(&self, allowed: bool, started: Instant) {
        let result = if allowed { "allowed" } else { "no-opinion" };
        self.authorization.observe(result, started.elapsed());
    }
}

/// Names that there is one of in any cluster; others would be a time series each.
fn well_known(name: &str) -> &'static str {
    const NAMES: [&str; 5] = [
        "admin",
        "client",
        "kube_proxy",
        "kubelet",
        "system:serviceaccount:kube-system:default",
    ];
    let mut names = NAMES.into_iter();
    let mail = || {
        if name.contains('@') {
            "email_id"
        } else {
            "other"
        }
    };
    names.find(|n| *n == name).unwrap_or_else(mail)
}
