//! Health: named checks behind `/healthz`, `/livez` and `/readyz`, with upstream's
//! answers (`?verbose`, `?exclude=name`, `/readyz/<name>`).

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use http::{Response, StatusCode};
use parking_lot::RwLock;

use crate::metrics::Slis;

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Checks of one endpoint family; without any, there is `ping`. Cheap to clone.
#[derive(Clone, Default)]
pub struct Checks(Arc<Inner>);

#[derive(Default)]
struct Inner {
    checks: RwLock<Vec<Named>>,
    slis: OnceLock<Slis>,
}

#[derive(Clone)]
struct Named {
    name: String,
    /// Checks of one thing in several places can be excluded together.
    group: Option<&'static str>,
    check: Check,
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.checks.read().iter().map(|named| &named.name))
            .finish()
    }
}

impl Checks {
    /// With `ping`, which every daemon answers.
    pub fn new() -> Self {
        let checks = Self::default();
        checks.add("ping", || Ok(()));
        checks
    }

    /// Adds a check. It must answer from memory: probes come often and must not hang.
    pub fn add(
        &self,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.push(name.into(), None, Arc::new(check));
    }

    /// Adds a check that is also excluded by the name of its group.
    pub fn add_to(
        &self,
        group: &'static str,
        name: impl Into<String>,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.push(name.into(), Some(group), Arc::new(check));
    }

    fn push(&self, name: String, group: Option<&'static str>, check: Check) {
        self.0.checks.write().push(Named { name, group, check });
    }

    /// Counts what the checks find whenever they are asked for.
    pub fn report(&self, slis: &Slis) {
        if self.0.slis.set(slis.clone()).is_err() {
            tracing::error!("health checks are counted already");
        }
    }

    /// Asks one check, and counts what it found.
    fn ask(&self, endpoint: &str, named: &Named) -> Result<(), String> {
        let result = (named.check)();
        if let Some(slis) = self.0.slis.get() {
            slis.observe(&named.name, endpoint, result.is_ok());
        }
        result
    }

    fn all(&self) -> Vec<Named> {
        let checks = self.0.checks.read();
        if checks.is_empty() {
            return vec![Named {
                name: "ping".to_owned(),
                group: None,
                check: Arc::new(|| Ok(())),
            }];
        }
        checks.clone()
    }

    /// The checks' names in order.
    pub fn names(&self) -> Vec<String> {
        let checks = self.0.checks.read();
        checks.iter().map(|named| named.name.clone()).collect()
    }

    /// Answers `path` (`/readyz` or `/readyz/<check>`) with `query`. The endpoint's name
    /// (`readyz`) is what the texts say.
    pub fn respond(&self, endpoint: &str, path: &str, query: &str) -> Response<String> {
        let name = path
            .trim_start_matches('/')
            .strip_prefix(endpoint)
            .unwrap_or_default();
        let one = name.trim_matches('/');
        if !one.is_empty() {
            let found = self.all().into_iter().find(|named| named.name == one);
            return match found.map(|named| (named.check)()) {
                Some(Ok(())) => text(StatusCode::OK, "ok".to_owned()),
                Some(Err(reason)) => text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("internal server error: {reason}\n"),
                ),
                None => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
            };
        }
        let mut excluded: BTreeSet<String> = BTreeSet::new();
        let mut verbose = false;
        for part in query.split('&') {
            match part.split_once('=').unwrap_or((part, "")) {
                ("exclude", name) => drop(excluded.insert(unescape(name))),
                ("verbose", _) => verbose = true,
                _ => {}
            }
        }
        let mut unknown = excluded.clone();
        let mut lines = String::new();
        let mut failed: Vec<String> = Vec::new();
        let checks = self.all();
        for named in &checks {
            let name = &named.name;
            if excluded.contains(name) {
                unknown.remove(name);
                lines.push_str(&format!("[+]{name} excluded: ok\n"));
                continue;
            }
            if let Some(group) = named.group.filter(|group| excluded.contains(*group)) {
                unknown.remove(group);
                lines.push_str(&format!("[+]{name} excluded with {group}: ok\n"));
                continue;
            }
            match self.ask(endpoint, named) {
                Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
                // The reason is for the log; whoever asks may not be entitled to it.
                Err(reason) => {
                    tracing::info!("{endpoint} check {name:?} failed: {reason}");
                    lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                    failed.push(name.clone());
                }
            }
        }
        if !unknown.is_empty() {
            let names: Vec<String> = unknown.iter().map(|name| format!("{name:?}")).collect();
            lines.push_str(&format!(
                "warn: some health checks cannot be excluded: no matches for {}\n",
                names.join(",")
            ));
        }
        if !failed.is_empty() {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("{lines}{endpoint} check failed\n"),
            );
        }
        if verbose {
            return text(StatusCode::OK, format!("{lines}{endpoint} check passed\n"));
        }
        text(StatusCode::OK, "ok".to_owned())
    }
}

/// Undoes `%2F`: names of checks have slashes (`poststarthook/x`).
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(value) if *byte == b'%' => {
                out.push(value);
                rest = &tail[2..];
            }
            _ => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn text(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        "content-type",
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        "x-content-type-options",
        http::HeaderValue::from_static("nosniff"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Checks {
        let checks = Checks::new();
        checks.add("etcd", || Err("unreachable at secret.example".to_owned()));
        checks
    }

    #[test]
    fn a_failed_check_is_named_but_not_explained() {
        let response = checks().respond("readyz", "/readyz", "");
        assert_eq!(response.status(), 500);
        assert_eq!(
            response.body(),
            "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n"
        );
    }

    #[test]
    fn names_with_slashes_are_excluded_too() {
        let checks = Checks::new();
        checks.add("poststarthook/x", || Err("not ready yet".to_owned()));
        let status = |query: &str| checks.respond("readyz", "/readyz", query).status();
        assert_eq!(status(""), 500);
        assert_eq!(status("exclude=poststarthook%2Fx"), 200);
    }

    #[test]
    fn groups_are_excluded_together_and_what_is_unknown_is_named() {
        let checks = Checks::new();
        checks.add("etcd", || Err("gone".to_owned()));
        checks.add_to("etcd", "etcd-override-0", || Err("gone".to_owned()));
        let body = checks
            .respond(
                "readyz",
                "/readyz",
                "verbose&exclude=etcd&exclude=y&exclude=x",
            )
            .into_body();
        assert_eq!(
            body,
            "[+]ping ok\n[+]etcd excluded: ok\n[+]etcd-override-0 excluded with etcd: ok\n\
             warn: some health checks cannot be excluded: no matches for \"x\",\"y\"\n\
             readyz check passed\n"
        );
    }

    #[test]
    fn checks_can_be_excluded_and_asked_one_by_one() {
        let response = checks().respond("readyz", "/readyz", "verbose&exclude=etcd");
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.body(),
            "[+]ping ok\n[+]etcd excluded: ok\nreadyz check passed\n"
        );
        assert_eq!(checks().respond("readyz", "/readyz/ping", "").body(), "ok");
        assert_eq!(checks().respond("readyz", "/readyz/etcd", "").status(), 500);
        assert_eq!(
            checks().respond("readyz", "/readyz/other", "").status(),
            404
        );
        assert_eq!(Checks::new().respond("livez", "/livez", "").body(), "ok");
    }
}
