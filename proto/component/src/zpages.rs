//! `/statusz` and `/flagz`: what a daemon is and how it was started (KEP-4827, KEP-4828), as
//! text for people and as `config.k8s.io/v1beta1`.
//!
//! What must not be here: who may see them.

use clap::{ArgMatches, Args, Command, FromArgMatches};
use http::{HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::features::FeatureGates;
use crate::version;

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.";
const GROUP: &str = "config.k8s.io";
const VERSION: &str = "v1beta1";

/// What the pages tell of a daemon.
#[derive(Debug, Clone)]
pub struct ZPages {
    /// Upstream's name for the daemon's pages: `apiserver`, `kube-scheduler`.
    pub name: &'static str,
    pub started: Timestamp,
    /// `None`: `/flagz` is turned off (`ComponentFlagz`).
    pub flags: Option<Flags>,
    /// Whether `/statusz` is turned on (`ComponentStatusz`).
    pub status: bool,
    /// What else is served, for `/statusz`.
    pub paths: Vec<String>,
}

/// The values of all flags, by their names, as the command line or the default has them. Put
/// first into a struct of flags, it takes part in their parsing and adds none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags(Vec<(String, String)>);

impl ZPages {
    /// Of a daemon that starts now; the gates say which of the pages it has.
    pub fn new(name: &'static str, gates: &FeatureGates, flags: &Flags, paths: &[&str]) -> Self {
        Self {
            name,
            started: Timestamp::now(),
            flags: gates.enabled("ComponentFlagz").then(|| flags.clone()),
            status: gates.enabled("ComponentStatusz"),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }
    }

    /// Answers `/statusz`; `accept` is the request's header.
    pub fn statusz(&self, accept: &str, now: Timestamp) -> Response<String> {
        if !self.status {
            return not_found();
        }
        let up = now.duration_since(self.started).as_secs().max(0);
        let info = &version::INFO;
        let binary = info.git_version.trim_start_matches('v');
        let emulated = format!("{}.{}", info.major, info.minor);
        match form(accept, "Statusz") {
            Form::Text => {
                let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
                let started = self.started.strftime("%a %b %e %H:%M:%S UTC %Y");
                text(format!(
                    "\n{} statusz\n{WARNING}\n\nStarted: {started}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\nGo version: {}\nBinary version: {binary}\nEmulation version: {emulated}\nPaths: {}\n",
                    self.name,
                    info.go_version,
                    self.paths.join(" "),
                ))
            }
            Form::Object => object(json!({
                "kind": "Statusz", "apiVersion": format!("{GROUP}/{VERSION}"),
                "metadata": {"name": self.name}, "startTime": self.started.to_string(),
                "uptimeSeconds": up, "goVersion": info.go_version, "binaryVersion": binary,
                "emulationVersion": emulated, "paths": self.paths,
            })),
            Form::Other => not_acceptable(),
        }
    }

    /// Answers `/flagz`.
    pub fn flagz(&self, accept: &str) -> Response<String> {
        let Some(Flags(flags)) = &self.flags else {
            return not_found();
        };
        match form(accept, "Flagz") {
            Form::Text => {
                let mut page = format!("\n{} flagz\n{WARNING}\n", self.name);
                for (name, value) in flags {
                    page += &format!("{name}={value}\n");
                }
                text(page)
            }
            Form::Object => {
                let flags = flags.iter().cloned();
                let flags: Map<String, Value> = flags.map(|(k, v)| (k, v.into())).collect();
                object(json!({
                    "kind": "Flagz", "apiVersion": format!("{GROUP}/{VERSION}"),
                    "metadata": {"name": self.name}, "flags": flags,
                }))
            }
            Form::Other => not_acceptable(),
        }
    }
}

/// What a client wants a page as.
enum Form {
    Text,
    Object,
    Other,
}

fn form(accept: &str, kind: &str) -> Form {
    if accept.trim().is_empty() {
        return Form::Text;
    }
    for choice in accept.split(',') {
        let mut parts = choice.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let has = |key: &str, value: &str| {
            let mut parts = choice.split(';').map(str::trim);
            parts.any(|p| p.split_once('=') == Some((key, value)))
        };
        match media {
            "application/json" if has("as", kind) && has("g", GROUP) && has("v", VERSION) => {
                return Form::Object;
            }
            "text/plain" | "text/*" | "*/*" => return Form::Text,
            _ => {}
        }
    }
    Form::Other
}

fn text(body: String) -> Response<String> {
    answer(StatusCode::OK, "text/plain; charset=utf-8", body)
}

fn object(body: Value) -> Response<String> {
    let body = format!("{body:#}");
    answer(StatusCode::OK, "application/json", body)
}

fn not_found() -> Response<String> {
    let body = "404 page not found\n".to_owned();
    answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", body)
}

fn not_acceptable() -> Response<String> {
    let body = "406 Not Acceptable\n".to_owned();
    answer(StatusCode::NOT_ACCEPTABLE, "text/plain", body)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags: Vec<_> = matches
            .ids()
            // Groups of flags have ids too: their types' names.
            .filter(|id| id.as_str().starts_with(|c: char| c.is_ascii_lowercase()))
            .filter_map(|id| {
                let values = matches.try_get_raw(id.as_str()).ok()??;
                let values: Vec<_> = values.map(|v| v.to_string_lossy()).collect();
                Some((id.as_str().replace('_', "-"), values.join(",")))
            })
            .collect();
        flags.sort();
        Ok(Self(flags))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Args)]
    struct Options {
        #[command(flatten)]
        all: Flags,
        #[arg(long, default_value = "7")]
        some_number: u32,
        #[arg(long)]
        absent: Option<String>,
    }

    fn pages() -> ZPages {
        let command = Options::augment_args(Command::new("x"));
        let matches = command.get_matches_from(["x", "--some-number=9"]);
        let options = Options::from_arg_matches(&matches).unwrap();
        assert_eq!((options.some_number, options.absent), (9, None));
        ZPages {
            name: "apiserver",
            started: "2024-01-01T00:00:00Z".parse().unwrap(),
            flags: Some(options.all),
            status: true,
            paths: vec!["/flagz".to_owned(), "/statusz".to_owned()],
        }
    }

    #[test]
    fn flags_are_told_by_name() {
        let page = pages().flagz("");
        assert!(
            page.body().ends_with("\nsome-number=9\n"),
            "{}",
            page.body()
        );
        let page = pages().flagz("application/json;as=Flagz;v=v1beta1;g=config.k8s.io");
        let object: Value = serde_json::from_str(page.body()).unwrap();
        assert_eq!(object["flags"], json!({"some-number": "9"}));
        assert_eq!(pages().flagz("application/json").status(), 406);
    }

    #[test]
    fn pages_that_are_turned_off_are_not_there() {
        let pages = ZPages {
            flags: None,
            status: false,
            ..pages()
        };
        assert_eq!(pages.flagz("").status(), 404);
        assert_eq!(pages.statusz("", Timestamp::UNIX_EPOCH).status(), 404);
    }

    #[test]
    fn the_status_tells_how_long_the_daemon_has_been_up() {
        let now = "2024-01-01T01:02:03Z".parse().unwrap();
        let page = pages().statusz("text/html, */*", now);
        let body = page.body();
        assert!(body.contains("\nStarted: Mon Jan  1 00:00:00 UTC 2024\nUp: 1 hr 02 min 03 sec\n"));
        assert!(body.ends_with("\nPaths: /flagz /statusz\n"), "{body}");
        let page = pages().statusz("application/json;v=v1beta1;g=config.k8s.io;as=Statusz", now);
        let object: Value = serde_json::from_str(page.body()).unwrap();
        assert_eq!(object["uptimeSeconds"], 3723);
        assert_eq!(object["startTime"], "2024-01-01T00:00:00Z");
    }
}
