//! Which path is what, as upstream's two routers tell it: the outer one knows prefixes, sends
//! paths that are not clean elsewhere, and answers before anybody is asked who they are; the inner
//! one knows methods and the parts of a path. Pure.

use http::{HeaderMap, Method, header};
use percent_encoding::percent_decode_str;

/// What is served, as the configuration and the feature gates have it.
#[derive(Debug, Clone)]
pub struct Served {
    /// Without it, what shows or does more than the read-only port does is closed.
    pub debugging: bool,
    pub system_logs: bool,
    pub profiling: bool,
    pub debug_flags: bool,
    pub checkpoint: bool,
    pub flagz: bool,
    pub statusz: bool,
    /// Names of health checks, each of which has a path.
    pub checks: Vec<String>,
}

/// One thing that answers, whoever may ask it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    Healthz,
    Slis,
    Pods,
    Stats,
    Metrics,
    Cadvisor,
    Resource,
    Probes,
    Run,
    Exec,
    Attach,
    PortForward,
    ContainerLogs,
    RunningPods,
    Configz,
    Checkpoint,
    Flagz,
    Statusz,
    Logs,
    Profiles,
    Verbosity,
    /// Closed by the configuration, and the words for it.
    Closed(&'static str),
}

/// What the outer router says to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    At(Area),
    /// The path that was meant.
    Elsewhere(String),
    Nothing,
}

/// Whether a pattern stands for itself, for what is below it, or for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Exact,
    Below,
    Both,
}

const DEBUGGING: &str = "Debug endpoints are disabled.";

impl Served {
    /// What the port without authentication serves.
    pub fn read_only(&self) -> Self {
        Self {
            debugging: false,
            ..self.clone()
        }
    }

    /// What `/statusz` lists: where something answers by itself, by the first part of its path.
    pub fn listed(&self) -> Vec<String> {
        let patterns = self.patterns().into_iter();
        let handled = patterns
            .filter(|(_, reach, area)| *reach == Reach::Exact && *area != Area::Statusz)
            .filter_map(|(path, _, _)| Some(format!("/{}", path.split('/').nth(1)?)));
        let all: std::collections::BTreeSet<String> = handled.collect();
        all.into_iter().collect()
    }

    fn patterns(&self) -> Vec<(String, Reach, Area)> {
        let mut all = vec![
            ("/healthz".to_owned(), Reach::Exact, Area::Healthz),
            ("/metrics/slis".to_owned(), Reach::Exact, Area::Slis),
            ("/pods".to_owned(), Reach::Both, Area::Pods),
            ("/stats".to_owned(), Reach::Below, Area::Stats),
            ("/metrics".to_owned(), Reach::Exact, Area::Metrics),
            ("/metrics/cadvisor".to_owned(), Reach::Exact, Area::Cadvisor),
            ("/metrics/resource".to_owned(), Reach::Exact, Area::Resource),
            ("/metrics/probes".to_owned(), Reach::Exact, Area::Probes),
        ];
        for check in &self.checks {
            all.push((format!("/healthz/{check}"), Reach::Exact, Area::Healthz));
        }
        let mut add =
            |path: &str, reach: Reach, area: Area| all.push((path.to_owned(), reach, area));
        if !self.debugging {
            for path in [
                "/run",
                "/exec",
                "/attach",
                "/portForward",
                "/containerLogs",
                "/runningpods",
                "/debug/pprof",
                "/logs",
            ] {
                add(path, Reach::Below, Area::Closed(DEBUGGING));
            }
            return all;
        }
        let unless = |open: bool, area: Area, closed: &'static str| {
            if open { area } else { Area::Closed(closed) }
        };
        let logs = unless(self.system_logs, Area::Logs, "logs endpoint is disabled.");
        add("/logs", Reach::Below, logs);
        let closed = "profiling endpoint is disabled.";
        let profiles = unless(self.profiling, Area::Profiles, closed);
        add("/debug/pprof", Reach::Below, profiles);
        let closed = "flags endpoint is disabled.";
        let verbosity = unless(self.debug_flags, Area::Verbosity, closed);
        add("/debug/flags/v", Reach::Exact, verbosity);
        for (path, area) in [
            ("/run", Area::Run),
            ("/exec", Area::Exec),
            ("/attach", Area::Attach),
            ("/portForward", Area::PortForward),
            ("/containerLogs", Area::ContainerLogs),
        ] {
            add(path, Reach::Both, area);
        }
        add("/configz", Reach::Exact, Area::Configz);
        add("/runningpods", Reach::Below, Area::RunningPods);
        if self.checkpoint {
            add("/checkpoint", Reach::Both, Area::Checkpoint);
        }
        if self.flagz {
            add("/flagz", Reach::Exact, Area::Flagz);
        }
        if self.statusz {
            add("/statusz", Reach::Exact, Area::Statusz);
        }
        all
    }

    /// `path` as it was sent, percents and all.
    pub fn find(&self, path: &str) -> Found {
        let wanted = segments(path);
        let (mut best, mut slash_is_missing) = (None::<(usize, Area)>, false);
        for (pattern, reach, area) in self.patterns() {
            let pattern = segments(&pattern);
            let is_it = pattern == wanted;
            let is_below = wanted.len() > pattern.len() && wanted.starts_with(&pattern);
            if is_it && reach == Reach::Below {
                slash_is_missing = true;
            } else if is_it || (is_below && reach != Reach::Exact) {
                let length = pattern.len() + usize::from(is_it);
                if best.is_none_or(|(known, _)| length > known) {
                    best = Some((length, area));
                }
            }
        }
        let clean = cleaned(path);
        if slash_is_missing && best.is_none() {
            return Found::Elsewhere(format!("{clean}/"));
        }
        if clean != path {
            return Found::Elsewhere(clean);
        }
        best.map_or(Found::Nothing, |(_, area)| Found::At(area))
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The decoded parts. A slash at the end is an empty last part.
fn segments(path: &str) -> Vec<String> {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').map(decoded).collect()
}

/// Without empty parts and those that are dots; a slash at the end stays.
fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let slash = path.ends_with('/') && !parts.is_empty();
    format!("/{}{}", parts.join("/"), if slash { "/" } else { "" })
}

/// A pod, and maybe one of its containers, that a path names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    pub namespace: String,
    pub pod: String,
    pub uid: Option<String>,
    pub container: String,
}

/// What the inner router says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Healthz,
    Slis,
    Pods,
    Summary,
    Metrics,
    Cadvisor,
    Resource,
    Probes,
    Run(Target),
    Exec(Target),
    Attach(Target),
    PortForward(Target),
    ContainerLogs(Target),
    RunningPods,
    Configz,
    Checkpoint(Target),
    Flagz,
    Statusz,
    NodeLogs,
    /// A profile's name.
    Profile(String),
    Verbosity,
    Closed(&'static str),
    NotFound,
    /// What is allowed instead.
    NotAllowed(&'static str),
    NotAcceptable,
}

/// Chooses within an area; `path` is decoded.
pub fn route(area: Area, method: &Method, path: &str, headers: &HeaderMap) -> Route {
    const GET: &str = "GET";
    const POST: &str = "POST";
    const EITHER: &str = "GET, POST";
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let of = |make: fn(Target) -> Route, allowed: &'static str, uid: bool| {
        let target = container(&parts, uid);
        (target.map(make), allowed)
    };
    let (found, allowed) = match area {
        // What answers every method.
        Area::Healthz => return Route::Healthz,
        Area::Slis => return Route::Slis,
        Area::Metrics => return Route::Metrics,
        Area::Cadvisor => return Route::Cadvisor,
        Area::Resource => return Route::Resource,
        Area::Probes => return Route::Probes,
        Area::Configz => return Route::Configz,
        Area::Flagz => return Route::Flagz,
        Area::Statusz => return Route::Statusz,
        Area::Verbosity => return Route::Verbosity,
        Area::Closed(why) => return Route::Closed(why),
        Area::Pods => ((parts.len() == 1).then_some(Route::Pods), GET),
        Area::RunningPods => ((parts.len() == 1).then_some(Route::RunningPods), GET),
        Area::Stats => (
            (parts == ["stats", "summary"]).then_some(Route::Summary),
            EITHER,
        ),
        Area::Run => of(Route::Run, POST, true),
        Area::Exec => of(Route::Exec, EITHER, true),
        Area::Attach => of(Route::Attach, EITHER, true),
        Area::ContainerLogs => of(Route::ContainerLogs, GET, false),
        Area::Checkpoint => of(Route::Checkpoint, POST, false),
        Area::PortForward => (pod(&parts).map(Route::PortForward), EITHER),
        Area::Logs => (Some(Route::NodeLogs), GET),
        Area::Profiles => {
            let name = parts.get(2..).filter(|rest| !rest.is_empty());
            (name.map(|rest| Route::Profile(rest.join("/"))), GET)
        }
    };
    let Some(found) = found else {
        return Route::NotFound;
    };
    if !allowed.split(", ").any(|one| one == method.as_str()) {
        return Route::NotAllowed(allowed);
    }
    let json = [Area::Pods, Area::RunningPods, Area::Stats, Area::Checkpoint];
    if json.contains(&area) && !takes_json(headers) {
        return Route::NotAcceptable;
    }
    found
}

fn container(parts: &[&str], uid: bool) -> Option<Target> {
    let (namespace, pod, uid, container) = match *parts {
        [_, namespace, pod, container] => (namespace, pod, None, container),
        [_, namespace, pod, own, container] if uid => (namespace, pod, Some(own), container),
        _ => return None,
    };
    Some(Target {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.map(str::to_owned),
        container: container.to_owned(),
    })
}

fn pod(parts: &[&str]) -> Option<Target> {
    let (namespace, pod, uid) = match *parts {
        [_, namespace, pod] => (namespace, pod, None),
        [_, namespace, pod, uid] => (namespace, pod, Some(uid)),
        _ => return None,
    };
    Some(Target {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.map(str::to_owned),
        container: String::new(),
    })
}

fn takes_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let accept = accept.filter(|accept| !accept.is_empty()).unwrap_or("*/*");
    accept.split(',').any(|one| {
        let media = one.split(';').next().unwrap_or_default().trim();
        matches!(media, "*/*" | "application/json")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Served {
        Served {
            debugging: true,
            system_logs: true,
            profiling: true,
            debug_flags: true,
            checkpoint: true,
            flagz: true,
            statusz: true,
            checks: vec!["ping".into()],
        }
    }

    fn to(path: &str) -> Found {
        Found::Elsewhere(path.into())
    }

    #[test]
    fn what_is_where() {
        for (path, want) in [
            ("/pods", Found::At(Area::Pods)),
            ("/pods/", Found::At(Area::Pods)),
            ("/%70ods", Found::At(Area::Pods)),
            ("/podsx", Found::Nothing),
            ("/", Found::Nothing),
            ("/configz/", Found::Nothing),
            ("/healthz/ping", Found::At(Area::Healthz)),
            ("/healthz/nope", Found::Nothing),
            ("/metrics/cadvisor", Found::At(Area::Cadvisor)),
            ("/logs", to("/logs/")),
            ("/logs/", Found::At(Area::Logs)),
            ("/logs/%2e%2e/", Found::At(Area::Logs)),
            ("/logs/../pods", to("/pods")),
            ("/logs/../", to("/")),
            ("//pods", to("/pods")),
            ("/logs/./a", to("/logs/a")),
            ("/stats", to("/stats/")),
            ("/stats/", Found::At(Area::Stats)),
            ("/runningpods", to("/runningpods/")),
            ("/containerLogs/a/../a/b/c", to("/containerLogs/a/b/c")),
        ] {
            assert_eq!(served().find(path), want, "{path}");
        }
    }

    #[test]
    fn what_is_closed() {
        let off = served().read_only();
        for path in ["/logs/a", "/exec/a/b/c", "/runningpods/", "/debug/pprof/"] {
            assert_eq!(off.find(path), Found::At(Area::Closed(DEBUGGING)), "{path}");
        }
        for path in ["/configz", "/debug/flags/v", "/checkpoint/a/b/c", "/flagz"] {
            assert_eq!(off.find(path), Found::Nothing, "{path}");
        }
        let own = Served {
            system_logs: false,
            ..served()
        };
        let closed = Found::At(Area::Closed("logs endpoint is disabled."));
        assert_eq!(own.find("/logs/x"), closed);
    }

    #[test]
    fn what_is_listed() {
        let listed = served().listed().join(" ");
        assert_eq!(listed, "/configz /debug /flagz /healthz /metrics");
    }

    #[test]
    fn methods_and_parts() {
        let ask = |area, method: Method, path: &str| route(area, &method, path, &HeaderMap::new());
        assert_eq!(ask(Area::Pods, Method::GET, "/pods/"), Route::Pods);
        assert_eq!(
            ask(Area::Pods, Method::HEAD, "/pods"),
            Route::NotAllowed("GET")
        );
        assert_eq!(
            ask(Area::Run, Method::GET, "/run/a/b/c"),
            Route::NotAllowed("POST")
        );
        assert_eq!(
            ask(Area::ContainerLogs, Method::GET, "/containerLogs/a/b/"),
            Route::NotFound
        );
        let target = Target {
            namespace: "a".into(),
            pod: "b".into(),
            uid: Some("u".into()),
            container: "c".into(),
        };
        assert_eq!(
            ask(Area::Exec, Method::POST, "/exec/a/b/u/c"),
            Route::Exec(target)
        );
        assert_eq!(
            ask(Area::Profiles, Method::GET, "/debug/pprof/"),
            Route::NotFound
        );
        let mut html = HeaderMap::new();
        html.insert(header::ACCEPT, "text/html".parse().unwrap());
        assert_eq!(
            route(Area::Pods, &Method::GET, "/pods", &html),
            Route::NotAcceptable
        );
    }
}
