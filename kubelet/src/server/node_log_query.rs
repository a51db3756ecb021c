//! `/logs/?query=…` (KEP-2258): the log of a service, from the journal or from a file that has its
//! name, or a file below the log directory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use component::serving::Body;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::answer::Refusal;
use super::api::Query;
use super::node_logs;

/// What may be asked for at once.
const MOST_SERVICES: usize = 4;
const LONGEST_SERVICE: usize = 256;
const MOST_LINES: i64 = 100_000;
/// After so long an answer ends, though it may not be complete.
const LONGEST: Duration = Duration::from_secs(30);

/// What a query is for.
#[derive(Debug, PartialEq, Eq)]
pub enum NodeLogQuery {
    /// A file, or else what the path says.
    Path(Option<String>),
    Services(Wanted),
}

/// Services' logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    services: Vec<String>,
    options: Options,
}

/// What only the journal knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Options {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    tail_lines: Option<i64>,
    boot: Option<i64>,
    pattern: String,
}

/// One thing that is wrong, in upstream's form.
fn invalid(field: &str, value: &Value, why: &str) -> String {
    format!("{field}: Invalid value: {value}: {why}")
}

/// All that is wrong as one text.
fn together(mut problems: Vec<String>) -> String {
    problems.dedup();
    match &problems[..] {
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

impl NodeLogQuery {
    /// # Errors
    /// Status and text for a query that cannot be read (400), or makes no sense (406).
    pub fn parse(query: &Query, root: &Path) -> Result<Self, Refusal> {
        let get = |name: &str| {
            let found = query.iter().find(|(key, _)| key == name);
            found
                .map(|(_, value)| value.as_str())
                .filter(|v| !v.is_empty())
        };
        let mut problems = Vec::new();
        let queries: Vec<&str> = query
            .iter()
            .filter(|(key, _)| key == "query")
            .map(|(_, value)| value.as_str())
            .collect();
        let is_file = |query: &&&str| query.contains(['/', '\\']);
        let files: Vec<String> = queries
            .iter()
            .filter(is_file)
            .map(|f| (*f).into())
            .collect();
        let services = queries.iter().filter(|query| !is_file(query));
        let services = services.filter(|service| !service.trim().is_empty());
        let services: Vec<String> = services.map(|service| (*service).to_owned()).collect();
        if !queries.is_empty() && files.is_empty() && services.is_empty() {
            problems.push(invalid("unit", &json!(queries), "unit cannot be empty"));
        }
        let mut time = |name: &str| {
            let text = get(name)?;
            let parsed = text.parse::<Timestamp>();
            if parsed.is_err() {
                problems.push(invalid(name, &json!(text), "invalid time format"));
            }
            parsed.ok()
        };
        let (since, until) = (time("sinceTime"), time("untilTime"));
        let mut number = |name: &str| {
            let text = get(name)?;
            let parsed = text.parse::<i64>();
            if let Err(error) = &parsed {
                let why = match error.kind() {
                    std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                        "value out of range"
                    }
                    _ => "invalid syntax",
                };
                let why = format!("strconv.Atoi: parsing {text:?}: {why}");
                problems.push(invalid(name, &json!(text), &why));
            }
            parsed.ok()
        };
        let (boot, tail_lines) = (number("boot"), number("tailLines"));
        if !problems.is_empty() {
            return Err((StatusCode::BAD_REQUEST, together(problems)));
        }
        let options = Options {
            since,
            until,
            tail_lines,
            boot,
            pattern: get("pattern").unwrap_or_default().to_owned(),
        };
        if files.is_empty() && services.is_empty() && options == Options::default() {
            return Ok(Self::Path(None));
        }
        let problems = problems_of(&files, &services, &options, root);
        if !problems.is_empty() {
            return Err((StatusCode::NOT_ACCEPTABLE, together(problems)));
        }
        // A file's name may come from Windows.
        let file = files.first().map(|file| file.replace('\\', "/"));
        Ok(match file {
            Some(file) => Self::Path(Some(file)),
            None => Self::Services(Wanted { services, options }),
        })
    }
}

fn problems_of(
    files: &[String],
    services: &[String],
    options: &Options,
    root: &Path,
) -> Vec<String> {
    let mut problems = Vec::new();
    for service in services {
        let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
        if service.len() > LONGEST_SERVICE {
            let why = format!("length must be less than {LONGEST_SERVICE}");
            problems.push(invalid("query", &json!(service), &why));
        } else if !service.chars().all(is_safe) {
            let why = "input contains unsupported characters";
            problems.push(invalid("query", &json!(service), why));
        }
    }
    if services.len() > MOST_SERVICES {
        let many = services.len();
        problems.push(format!(
            "query: Too many: {many}: must have at most {MOST_SERVICES} items"
        ));
    }
    match (files, services) {
        ([], []) => problems.push("query: Required value: cannot be empty with options".into()),
        ([_, ..], [_, ..]) => {
            let both = format!("[{}], [{}]", files.join(" "), services.join(" "));
            let why = "cannot specify a file and service";
            problems.push(invalid("query", &json!(both), why));
        }
        ([_, _, ..], []) => {
            let why = "cannot specify more than one file";
            problems.push(invalid("query", &json!(files), why));
        }
        ([_], []) if *options != Options::default() => {
            let why = "cannot specify file with options";
            problems.push(invalid("query", &json!(files), why));
        }
        ([file], []) => {
            if let Err(why) = is_there(root, file) {
                problems.push(invalid("query", &json!(files), &why));
            }
        }
        ([], [..]) => {}
    }
    if let (Some(since), Some(until)) = (options.since, options.until)
        && since > until
    {
        let why = "must be after `sinceTime`";
        problems.push(invalid("untilTime", &json!(until.to_string()), why));
    }
    if let Some(boot) = options.boot.filter(|boot| *boot > 0) {
        problems.push(invalid("boot", &json!(boot), "must be less than 1"));
    }
    if let Some(lines) = options.tail_lines.filter(|n| !(0..=MOST_LINES).contains(n)) {
        let why = format!("must be between 0 and {MOST_LINES}, inclusive");
        problems.push(invalid("tailLines", &json!(lines), &why));
    }
    problems
}

/// Whether a file lies below the log directory; a path of its own cannot.
fn is_there(root: &Path, file: &str) -> Result<(), String> {
    let path = Path::new(file);
    let escapes = || Err(format!("statat {file}: path escapes from parent"));
    if path.is_absolute() {
        return escapes();
    }
    let missing = |_| format!("statat {file}: no such file or directory");
    let root = root.canonicalize().map_err(missing)?;
    let real = root.join(path).canonicalize().map_err(missing)?;
    if real.starts_with(root) {
        Ok(())
    } else {
        escapes()
    }
}

impl Wanted {
    /// Answers with what there is, as it is found; what goes wrong is said among it.
    pub fn serve(self, root: PathBuf, gzip: bool) -> Response<Body> {
        let (send, receive) = mpsc::channel(4);
        let out = Output {
            send,
            gzip: gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())),
        };
        tokio::spawn(async move {
            // Nobody who reads is nobody to tell.
            let _ = self.write(root, out).await;
        });
        let frames =
            ReceiverStream::new(receive).map(|piece: io::Result<Bytes>| piece.map(Frame::data));
        let body = StreamBody::new(frames).map_err(|error| error.into());
        let mut response = Response::new(body.boxed_unsync());
        let headers = response.headers_mut();
        let plain = HeaderValue::from_static("text/plain;charset=UTF-8");
        headers.insert(header::CONTENT_TYPE, plain);
        if gzip {
            let gzip = HeaderValue::from_static("gzip");
            headers.insert(header::CONTENT_ENCODING, gzip);
        }
        response
    }

    async fn write(self, root: PathBuf, mut out: Output) -> io::Result<()> {
        let written = tokio::time::timeout(LONGEST, self.copy(&root, &mut out)).await;
        // What does not come in time is left out.
        written.unwrap_or(Ok(()))?;
        out.finish().await
    }

    async fn copy(&self, root: &Path, out: &mut Output) -> io::Result<()> {
        let mut files = Vec::new();
        let units = units().await;
        for service in &self.services {
            let unit = format!("{service}.service");
            if !units.contains(&unit) {
                files.push(service.as_str());
            }
        }
        if files.is_empty() {
            return self.journal(out).await;
        }
        if self.options != Options::default() {
            let files = files.join(" ");
            let text = format!(
                "\noptions present and query resolved to log files for [{files}]\ntry without specifying options\n"
            );
            return out.write(text.as_bytes()).await;
        }
        for service in files {
            match opened(root, service).await {
                Ok(file) => copy_file(file, out).await?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let text = format!("\nlog not found for {service}\n");
                    out.write(text.as_bytes()).await?;
                }
                Err(error) => {
                    let text = format!("\nerror getting log for {service}: {error}\n");
                    out.write(text.as_bytes()).await?;
                }
            }
        }
        Ok(())
    }

    async fn journal(&self, out: &mut Output) -> io::Result<()> {
        let mut command = Command::new("journalctl");
        command.args(self.arguments()).kill_on_drop(true);
        command.stdin(Stdio::null());
        let spawned = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut journal) = spawned else {
            let text = "\nerror: journal output not available\n";
            return out.write(text.as_bytes()).await;
        };
        let (told, complained) = (journal.stdout.take(), journal.stderr.take());
        // Complaints are few and short, and come to a pipe meanwhile.
        for stream in [told.map(boxed), complained.map(boxed)] {
            let Some(mut stream) = stream else { continue };
            let mut piece = vec![0; 32 * 1024];
            loop {
                let read = stream.read(&mut piece).await?;
                if read == 0 {
                    break;
                }
                out.write(&piece[..read]).await?;
            }
        }
        journal.wait().await.map(drop)
    }

    fn arguments(&self) -> Vec<String> {
        let Options {
            since,
            until,
            tail_lines,
            boot,
            pattern,
        } = &self.options;
        let mut all: Vec<String> = ["--utc", "--no-pager", "--output=short-precise"]
            .map(str::to_owned)
            .into();
        let at = |time: &Timestamp| time.strftime("%Y-%m-%d %H:%M:%S UTC");
        all.extend(since.as_ref().map(|time| format!("--since={}", at(time))));
        all.extend(until.as_ref().map(|time| format!("--until={}", at(time))));
        if let Some(lines) = tail_lines {
            all.push("--pager-end".into());
            all.push(format!("--lines={lines}"));
        }
        all.extend(self.services.iter().map(|unit| format!("--unit={unit}")));
        if !pattern.is_empty() {
            all.push(format!("--grep={pattern}"));
            all.push("--case-sensitive=false".into());
        }
        if let Some(boot) = boot {
            all.extend(["--boot".into(), boot.to_string()]);
        }
        all
    }
}

fn boxed(stream: impl AsyncRead + Send + Unpin + 'static) -> Box<dyn AsyncRead + Send + Unpin> {
    Box::new(stream)
}

/// The names of all units that the journal knows; none where there is no journal.
async fn units() -> String {
    let mut command = Command::new("journalctl");
    command.args(["--field", "_SYSTEMD_UNIT"]);
    let known = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let known = known.await.ok().filter(|known| known.status.success());
    let known = known.map(|known| String::from_utf8_lossy(&known.stdout).into_owned());
    known.unwrap_or_default()
}

/// A service's own log: under its name, with `.log`, or in a directory of its name.
async fn opened(root: &Path, service: &str) -> io::Result<File> {
    let names = [
        service.to_owned(),
        format!("{service}.log"),
        format!("{service}/{service}.log"),
    ];
    let root = root.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        for name in names {
            match node_logs::open(&root, &node_logs::cleaned(&name)) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory
                    ) => {}
                found => return found,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    });
    found.await.map_err(io::Error::other)?
}

async fn copy_file(mut file: File, out: &mut Output) -> io::Result<()> {
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::new();
            let read = io::Read::by_ref(&mut file)
                .take(64 * 1024)
                .read_to_end(&mut piece);
            read.map(|_| (file, piece))
        });
        let (same, piece) = read.await.map_err(io::Error::other)??;
        if piece.is_empty() {
            return Ok(());
        }
        file = same;
        out.write(&piece).await?;
    }
}

/// To whoever asked, packed if they want it so.
struct Output {
    send: mpsc::Sender<io::Result<Bytes>>,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl Output {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let piece = match &mut self.gzip {
            None => bytes.to_vec(),
            Some(gzip) => {
                gzip.write_all(bytes)?;
                gzip.flush()?;
                std::mem::take(gzip.get_mut())
            }
        };
        self.send(piece).await
    }

    async fn finish(mut self) -> io::Result<()> {
        match self.gzip.take() {
            Some(gzip) => {
                let rest = gzip.finish()?;
                self.send(rest).await
            }
            None => Ok(()),
        }
    }

    async fn send(&self, piece: Vec<u8>) -> io::Result<()> {
        let sent = self.send.send(Ok(piece.into())).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pairs: &[(&str, &str)]) -> Result<NodeLogQuery, (u16, String)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/x.log"), "").unwrap();
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let parsed = NodeLogQuery::parse(&pairs.collect(), dir.path());
        parsed.map_err(|(code, why)| (code.as_u16(), why))
    }

    fn refused(pairs: &[(&str, &str)]) -> (u16, String) {
        ask(pairs).unwrap_err()
    }

    #[test]
    fn queries_in_upstreams_words() {
        let why = |pairs: &[(&str, &str)]| {
            let (code, why) = refused(pairs);
            format!("{code} {why}")
        };
        assert_eq!(ask(&[]), Ok(NodeLogQuery::Path(None)));
        assert_eq!(
            ask(&[("query", "d/x.log")]),
            Ok(NodeLogQuery::Path(Some("d/x.log".into())))
        );
        assert_eq!(
            why(&[("query", "/x.log")]),
            r#"406 query: Invalid value: ["/x.log"]: statat /x.log: path escapes from parent"#
        );
        assert_eq!(
            why(&[("query", "")]),
            r#"400 unit: Invalid value: [""]: unit cannot be empty"#
        );
        assert_eq!(
            why(&[("query", "a;b")]),
            r#"406 query: Invalid value: "a;b": input contains unsupported characters"#
        );
        assert_eq!(
            why(&[("query", "/h1.log"), ("tailLines", "1")]),
            r#"406 query: Invalid value: ["/h1.log"]: cannot specify file with options"#
        );
        assert_eq!(
            why(&[("query", "h1"), ("tailLines", "x")]),
            r#"400 tailLines: Invalid value: "x": strconv.Atoi: parsing "x": invalid syntax"#
        );
        assert_eq!(
            why(&["a", "b", "c", "d", "e"].map(|name| ("query", name))),
            "406 query: Too many: 5: must have at most 4 items"
        );
        assert_eq!(
            why(&[("boot", "1"), ("query", "a")]),
            "406 boot: Invalid value: 1: must be less than 1"
        );
        assert_eq!(refused(&[("tailLines", "1")]).0, 406);
    }

    #[test]
    fn what_the_journal_is_asked() {
        let query = [
            ("query", "kubelet"),
            ("sinceTime", "2026-01-02T03:04:05+01:00"),
            ("tailLines", "5"),
            ("boot", "-1"),
            ("pattern", "x y"),
        ];
        let Ok(NodeLogQuery::Services(wanted)) = ask(&query) else {
            panic!("no services");
        };
        let arguments = wanted.arguments().join("|");
        assert_eq!(
            arguments,
            "--utc|--no-pager|--output=short-precise|--since=2026-01-02 02:04:05 UTC|--pager-end|--lines=5|--unit=kubelet|--grep=x y|--case-sensitive=false|--boot|-1"
        );
    }

    #[tokio::test]
    async fn a_file_has_the_services_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("no-such-unit-1")).unwrap();
        std::fs::write(dir.path().join("no-such-unit-1/no-such-unit-1.log"), "x\n").unwrap();
        let wanted = Wanted {
            services: vec!["no-such-unit-1".into(), "no-such-unit-2".into()],
            ..Wanted::default()
        };
        let response = wanted.serve(dir.path().to_owned(), false);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"x\n\nlog not found for no-such-unit-2\n");
    }
}
