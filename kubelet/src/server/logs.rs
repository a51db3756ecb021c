//! A container's log as `kubectl logs` wants it: from where, how much, with or without times, and
//! what is still to come.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grpc::cri::ContainerState as RuntimeState;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, PodStatus};
use notify::{RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};

use crate::cri::client::CriClient;
use crate::cri::logs::Line;
use crate::pleg::PodChanges;
use crate::status::containers::runtime_id;
use crate::sys::fs::open_regular;

/// Between two questions to a runtime that does not answer.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);

/// `PodLogOptions`, as far as they concern one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail_lines: Option<usize>,
    pub limit_bytes: Option<usize>,
    pub since: Option<Timestamp>,
    pub stdout: bool,
    pub stderr: bool,
    /// A stream alone was asked for, and the feature gate does not let it be had.
    pub refused_stream: Option<String>,
}

impl LogOptions {
    /// Reads a query. Times count back from `now`. `split` is whether one of the streams alone can
    /// be asked for (`PodLogsQuerySplitStreams`).
    ///
    /// # Errors
    /// Status and text for a query that makes no sense.
    pub fn parse(
        query: &[(String, String)],
        now: Timestamp,
        split: bool,
    ) -> Result<Self, (u16, String)> {
        let get = |name: &str| {
            query
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let undecodable = || (400, r#"{"message": "Unable to decode query."}"#.to_owned());
        // To be named is enough.
        let flag = |name: &str| {
            let value = get(name).map(str::to_ascii_lowercase);
            value.is_some_and(|value| value != "false" && value != "0")
        };
        let parse = |text: &str| text.parse::<i64>().map_err(|_| undecodable());
        let number = |name: &str| get(name).map(parse).transpose();
        let invalid = || (422, r#"{"message": "Invalid request."}"#.to_owned());
        let positive = |value: Option<i64>, least: i64| match value {
            Some(value) if value < least => Err(invalid()),
            value => Ok(value.and_then(|value| usize::try_from(value).ok())),
        };
        let since_seconds = number("sinceSeconds")?;
        let since_time = get("sinceTime").map(|text| match text {
            // Clients of old write a time that is not there so.
            "" | "null" => Ok(Timestamp::MIN),
            text => text.parse::<Timestamp>().map_err(|_| undecodable()),
        });
        let since_time = since_time.transpose()?;
        // An older name of tailLines.
        let tail = match get("tail").filter(|text| !text.is_empty()) {
            Some("all") => None,
            Some(text) => Some(parse(text)?),
            None => number("tailLines")?,
        };
        let limit_bytes = number("limitBytes")?;
        let stream = get("stream");
        if since_seconds.is_some() && since_time.is_some()
            || since_seconds.is_some_and(|seconds| seconds < 1)
        {
            return Err(invalid());
        }
        let (stdout, stderr) = match stream {
            None | Some("All") => (true, true),
            Some("Stdout") => (true, false),
            Some("Stderr") => (false, true),
            Some(_) => return Err(invalid()),
        };
        let is_one = !(stdout && stderr);
        if is_one && tail.is_some() {
            return Err(invalid());
        }
        let tail_lines = positive(tail, 0)?;
        let limit_bytes = positive(limit_bytes, 1)?;
        let since = match since_seconds {
            Some(seconds) => now
                .checked_sub(jiff::SignedDuration::from_secs(seconds))
                .ok(),
            None => since_time,
        };
        Ok(Self {
            follow: flag("follow"),
            previous: flag("previous"),
            timestamps: flag("timestamps"),
            tail_lines,
            limit_bytes,
            since,
            stdout,
            stderr,
            refused_stream: stream.filter(|_| is_one && !split).map(str::to_owned),
        })
    }
}

/// The container whose log is meant, or why there is none.
pub fn container_with_logs(
    status: &PodStatus,
    name: &str,
    pod: &str,
    previous: bool,
) -> Result<String, String> {
    let lists = [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let found = lists
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name);
    let status: &ContainerStatus =
        found.ok_or_else(|| format!("container {name:?} in pod {pod:?} is not available"))?;
    let ended = |state: &Option<ContainerState>| {
        let id = state
            .as_ref()?
            .terminated
            .as_ref()?
            .container_id
            .clone()
            .unwrap_or_default();
        Some(runtime_id(&id).to_owned())
    };
    let state = status.state.clone().unwrap_or_default();
    let terminated = || format!("container {name:?} in pod {pod:?} is terminated");
    let known = |id: Option<String>| id.filter(|id| !id.is_empty());
    if previous {
        return known(ended(&status.last_state)).ok_or_else(|| {
            format!("previous terminated container {name:?} in pod {pod:?} not found")
        });
    }
    if state.running.is_some() {
        return Ok(runtime_id(status.container_id.as_deref().unwrap_or_default()).to_owned());
    }
    if state.terminated.is_some() {
        return known(ended(&status.state))
            .or_else(|| known(ended(&status.last_state)))
            .ok_or_else(terminated);
    }
    if let Some(last) = ended(&status.last_state) {
        return known(Some(last)).ok_or_else(terminated);
    }
    let reason = state
        .waiting
        .and_then(|waiting| waiting.reason)
        .unwrap_or_default();
    Err(match reason.as_str() {
        "ErrImagePull" => {
            format!("container {name:?} in pod {pod:?} is waiting to start: image can't be pulled")
        }
        "ImagePullBackOff" => {
            format!(
                "container {name:?} in pod {pod:?} is waiting to start: trying and failing to pull image"
            )
        }
        reason => format!("container {name:?} in pod {pod:?} is waiting to start: {reason}"),
    })
}

/// Turns records into what is sent, until the limit is reached.
struct Formatter {
    options: LogOptions,
    left: Option<usize>,
    /// The last record was only part of a line: what follows has no time of its own.
    continues: bool,
}

impl Formatter {
    fn new(options: LogOptions) -> Self {
        Self {
            left: options.limit_bytes,
            options,
            continues: false,
        }
    }

    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    fn push(&mut self, record: &[u8], out: &mut Vec<u8>) {
        let Some(line) = Line::parse(record) else {
            return;
        };
        let wanted = if line.stderr {
            self.options.stderr
        } else {
            self.options.stdout
        };
        let old = self.options.since.is_some_and(|since| {
            line.timestamp
                .parse::<Timestamp>()
                .is_ok_and(|at| at < since)
        });
        if !wanted || old || self.is_done() {
            return;
        }
        let start = out.len();
        if self.options.timestamps && !self.continues {
            write_time(line.timestamp, out);
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.continues = line.partial;
        if let Some(left) = &mut self.left {
            let take = (out.len() - start).min(*left);
            out.truncate(start + take);
            *left -= take;
        }
    }
}

/// A record's time with nine digits after the point, however many the runtime has written.
fn write_time(timestamp: &str, out: &mut Vec<u8>) {
    let zone = timestamp.find(['Z', '+']).or_else(|| {
        let time = timestamp.find('T')?;
        Some(time + timestamp[time..].find('-')?)
    });
    let (clock, zone) = timestamp.split_at(zone.unwrap_or(timestamp.len()));
    let (seconds, digits) = clock.split_once('.').unwrap_or((clock, ""));
    out.extend_from_slice(format!("{seconds}.{digits:0<9}{zone}").as_bytes());
}

/// Where the last `lines` records begin.
fn start_of_tail(file: &mut File, lines: usize) -> io::Result<u64> {
    const BLOCK: u64 = 64 * 1024;
    let end = file.seek(SeekFrom::End(0))?;
    let (mut position, mut found) = (end, 0);
    let mut block = Vec::new();
    while position > 0 {
        let start = position.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.by_ref()
            .take(position - start)
            .read_to_end(&mut block)?;
        for (offset, byte) in block.iter().enumerate().rev() {
            let at = start + offset as u64;
            // The newline at the very end ends the last line; it begins none.
            if *byte == b'\n' && at + 1 < end {
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
        position = start;
    }
    Ok(if lines == 0 { end } else { 0 })
}

/// Waits until a container has ended. Its log is complete by then: the runtime closes the log before
/// it calls a container exited. `changes` are from before the container was seen to be running.
pub async fn ended(runtime: CriClient, container_id: String, mut changes: PodChanges) {
    loop {
        changes.next().await;
        loop {
            match runtime.container_status(&container_id).await {
                Ok(Some(status)) if status.state() == RuntimeState::ContainerRunning => break,
                Ok(_) => return,
                // A runtime that is being restarted is no container that has ended.
                Err(_) => tokio::time::sleep(RUNTIME_RETRY).await,
            }
        }
    }
}

/// Whether there is a log to be read, before an answer begins.
///
/// # Errors
/// Why not.
pub async fn can_be_read(path: PathBuf) -> Result<(), String> {
    let shown = path.display().to_string();
    let opened = blocking(move || open_regular(&path).map(drop)).await;
    let opened = opened.and_then(|opened| opened);
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "failed to try resolving symlinks in path {shown:?}: lstat {shown}: no such file or directory"
        ),
        _ => format!("failed to open log file {shown:?}: {error}"),
    })
}

/// Reads a log and sends it on, to its end or, if it is followed, until nothing more can come.
pub async fn stream(
    path: PathBuf,
    options: LogOptions,
    followed_until: Option<impl Future<Output = ()>>,
    out: mpsc::Sender<io::Result<Bytes>>,
) {
    let copied = tokio::select! {
        copied = copy(&path, options, followed_until, &out) => copied,
        () = out.closed() => return,
    };
    if let Err(error) = copied {
        let _ = out.send(Err(error)).await;
    }
}

async fn copy(
    path: &Path,
    options: LogOptions,
    followed_until: Option<impl Future<Output = ()>>,
    out: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let written = Arc::new(Notify::new());
    let _watcher = match &followed_until {
        Some(_) => Some(watch(path, written.clone()).map_err(io::Error::other)?),
        None => None,
    };
    let opened = path.to_owned();
    let mut reading = blocking(move || Reading::start(&opened, options)).await??;
    if drain(&mut reading, out).await? {
        return Ok(());
    }
    let Some(ended) = followed_until else {
        return Ok(());
    };
    tokio::pin!(ended);
    let mut over = false;
    while !over {
        tokio::select! {
            () = written.notified() => {}
            () = &mut ended => over = true,
        }
        // Once there is a new log, or the container has ended, nothing more is written to this one:
        // that is found out first, and the rest read then.
        let next = successor(path, reading.file()?)?;
        if drain(&mut reading, out).await? {
            return Ok(());
        }
        if let Some(next) = next {
            reading.go_on_with(next);
            if drain(&mut reading, out).await? {
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)
}

/// A log that is being read, off the workers: a disk may take its time.
struct Reading(Option<Box<Reader>>);

struct Reader {
    file: BufReader<File>,
    record: Vec<u8>,
    formatter: Formatter,
}

impl Reading {
    fn start(path: &Path, options: LogOptions) -> io::Result<Self> {
        let mut file = open_regular(path)?;
        let start = match options.tail_lines {
            Some(lines) => start_of_tail(&mut file, lines)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start))?;
        Ok(Self(Some(Box::new(Reader {
            file: BufReader::new(file),
            record: Vec::new(),
            formatter: Formatter::new(options),
        }))))
    }

    fn reader(&mut self) -> io::Result<Box<Reader>> {
        self.0
            .take()
            .ok_or_else(|| io::Error::other("reading has failed before"))
    }

    fn file(&self) -> io::Result<&File> {
        let reader = self.0.as_ref();
        let reader = reader.ok_or_else(|| io::Error::other("reading has failed before"))?;
        Ok(reader.file.get_ref())
    }

    fn go_on_with(&mut self, file: File) {
        if let Some(reader) = &mut self.0 {
            reader.file = BufReader::new(file);
        }
    }

    /// The next piece, and whether there may be more.
    async fn piece(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let mut reader = self.reader()?;
        let read = blocking(move || {
            let piece = reader.piece();
            (reader, piece)
        });
        let (reader, piece) = read.await?;
        self.0 = Some(reader);
        piece
    }
}

impl Reader {
    /// About as much as goes into one piece. False at the end of what there is.
    fn piece(&mut self) -> io::Result<(Vec<u8>, bool)> {
        const PIECE: usize = 32 * 1024;
        /// What is read at once for a piece, though none of it may be wanted.
        const LOOKED_AT: usize = 1024 * 1024;
        let (mut piece, mut looked_at, mut more) = (Vec::new(), 0, true);
        while piece.len() < PIECE && looked_at < LOOKED_AT && !self.formatter.is_done() {
            // A record that is still being written is kept until its end is there.
            let read = self.file.read_until(b'\n', &mut self.record)?;
            looked_at += read;
            if self.record.last() != Some(&b'\n') {
                more = read > 0;
                break;
            }
            self.record.pop();
            self.formatter.push(&self.record, &mut piece);
            self.record.clear();
        }
        Ok((piece, more && !self.formatter.is_done()))
    }
}

/// Sends what there is. True when nothing more is wanted.
async fn drain(reading: &mut Reading, out: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<bool> {
    loop {
        let (piece, more) = reading.piece().await?;
        if !piece.is_empty() && out.send(Ok(piece.into())).await.is_err() {
            return Ok(true);
        }
        if !more {
            let reader = reading.0.as_ref();
            return Ok(reader.is_none_or(|reader| reader.formatter.is_done()));
        }
    }
}

/// The log that was begun when `current` was put aside, if it was.
fn successor(path: &Path, current: &File) -> io::Result<Option<File>> {
    use std::os::unix::fs::MetadataExt;
    // Between the two steps of a rotation there is none at the path.
    match open_regular(path) {
        Ok(file) if file.metadata()?.ino() != current.metadata()?.ino() => Ok(Some(file)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(None),
    }
}

/// Tells of everything that is done to the file at this path, whichever file that is.
fn watch(path: &Path, written: Arc<Notify>) -> notify::Result<notify::RecommendedWatcher> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let path = path.to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading it is no change; and beside it lie the logs of the container's other lives.
        let matters = event.map_or(true, |event| {
            !event.kind.is_access() && (event.need_rescan() || event.paths.contains(&path))
        });
        if matters {
            written.notify_one();
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::{Value, json};

    use super::*;

    fn options(query: &[(&str, &str)]) -> Result<LogOptions, (u16, String)> {
        let query: Vec<_> = query
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        LogOptions::parse(&query, Timestamp::from_second(1000).unwrap(), true)
    }

    #[test]
    fn queries() {
        let parsed = options(&[
            ("follow", "true"),
            ("tailLines", "5"),
            ("sinceSeconds", "10"),
        ])
        .unwrap();
        assert_eq!((parsed.follow, parsed.tail_lines), (true, Some(5)));
        assert_eq!(parsed.since.unwrap().as_second(), 990);
        assert_eq!(options(&[("tail", "all")]).unwrap().tail_lines, None);
        assert_eq!(options(&[("limitBytes", "0")]).unwrap_err().0, 422);
        assert_eq!(options(&[("tailLines", "x")]).unwrap_err().0, 400);
        assert!(!options(&[("stream", "Stderr")]).unwrap().stdout);
        for name in ["", "1", "x"] {
            assert!(options(&[("previous", name)]).unwrap().previous, "{name}");
        }
        assert!(!options(&[("previous", "False")]).unwrap().previous);
        assert_eq!(options(&[("tailLines", "")]).unwrap_err().0, 400);
        assert_eq!(options(&[("tail", "")]).unwrap().tail_lines, None);
        assert_eq!(options(&[("stream", "Foo")]).unwrap_err().0, 422);
        let both = options(&[("stream", "Stdout"), ("tail", "1")]);
        assert_eq!(both.unwrap_err().0, 422);
        let now = Timestamp::UNIX_EPOCH;
        let alone = [("stream".to_owned(), "Stdout".to_owned())];
        let refused = LogOptions::parse(&alone, now, false).unwrap();
        assert_eq!(refused.refused_stream.as_deref(), Some("Stdout"));
    }

    #[tokio::test]
    async fn a_followed_log_is_read_to_its_end_and_through_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let record = |text: &str| format!("2026-01-01T00:00:01Z stdout F {text}\n");
        let mut file = File::create(&path).unwrap();
        file.write_all(record("one").as_bytes()).unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (send, mut receive) = mpsc::channel(4);
        let ended = async { ended.await.unwrap() };
        let following = tokio::spawn(stream(
            path.clone(),
            LogOptions {
                stdout: true,
                ..LogOptions::default()
            },
            Some(ended),
            send,
        ));
        let mut next = async || String::from_utf8(receive.recv().await?.unwrap().into()).ok();
        assert_eq!(next().await.unwrap(), "one\n");
        file.write_all(record("two").as_bytes()).unwrap();
        assert_eq!(next().await.unwrap(), "two\n");
        // Put aside, still written to for a moment, and begun anew; then another life's log.
        std::fs::rename(&path, dir.path().join("0.log.old")).unwrap();
        file.write_all(record("three").as_bytes()).unwrap();
        std::fs::write(&path, record("four")).unwrap();
        std::fs::write(dir.path().join("1.log"), record("another")).unwrap();
        let mut rest = String::new();
        while rest != "three\nfour\n" {
            rest += &next().await.unwrap();
        }
        end.send(()).unwrap();
        assert_eq!(next().await, None);
        following.await.unwrap();
    }

    #[test]
    fn whose_log() {
        let status = |state: Value, last: Value| -> PodStatus {
            serde_json::from_value(json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "containerID": "containerd://2", "state": state, "lastState": last}]}))
            .unwrap()
        };
        let ended = json!({"terminated": {"exitCode": 1, "containerID": "containerd://1"}});
        let of =
            |state, last, previous| container_with_logs(&status(state, last), "c", "p", previous);
        assert_eq!(
            of(json!({"running": {}}), ended.clone(), false).unwrap(),
            "2"
        );
        assert_eq!(
            of(json!({"running": {}}), ended.clone(), true).unwrap(),
            "1"
        );
        assert_eq!(
            of(
                json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                ended,
                false
            )
            .unwrap(),
            "1"
        );
        assert_eq!(
            of(
                json!({"waiting": {"reason": "ErrImagePull"}}),
                json!({}),
                false
            )
            .unwrap_err(),
            "container \"c\" in pod \"p\" is waiting to start: image can't be pulled"
        );
        assert!(
            of(json!({"running": {}}), json!({}), true)
                .unwrap_err()
                .contains("previous terminated container")
        );
    }

    #[test]
    fn times_have_nine_digits() {
        for (time, want) in [
            (
                "2026-11-24T02:56:28.78982627Z",
                "2026-11-24T02:56:28.789826270Z",
            ),
            ("2026-11-24T02:56:28Z", "2026-11-24T02:56:28.000000000Z"),
            (
                "2026-11-24T02:56:28.5+01:00",
                "2026-11-24T02:56:28.500000000+01:00",
            ),
            (
                "2026-11-24T02:56:28.5-01:00",
                "2026-11-24T02:56:28.500000000-01:00",
            ),
        ] {
            let mut out = Vec::new();
            write_time(time, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[tokio::test]
    async fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
        nix::unistd::mkfifo(&path, mode).unwrap();
        let (send, mut receive) = mpsc::channel(4);
        let options = options(&[]).unwrap();
        stream(path, options, None::<std::future::Pending<()>>, send).await;
        let error = receive.recv().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn tails() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\ntwo\nthree\n").unwrap();
        for (lines, start) in [(0, 14), (1, 8), (2, 4), (3, 0), (9, 0)] {
            assert_eq!(start_of_tail(&mut file, lines).unwrap(), start, "{lines}");
        }
    }

    #[test]
    fn records_become_lines() {
        let format = |query: &[(&str, &str)]| {
            let mut formatter = Formatter::new(options(query).unwrap());
            let mut out = Vec::new();
            for record in [
                "2026-01-01T00:00:01Z stdout P a",
                "2026-01-01T00:00:01Z stdout F b",
                "2026-01-01T00:00:02Z stderr F c",
            ] {
                formatter.push(record.as_bytes(), &mut out);
            }
            String::from_utf8(out).unwrap()
        };
        assert_eq!(format(&[]), "ab\nc\n");
        assert_eq!(
            format(&[("timestamps", "true")]),
            "2026-01-01T00:00:01.000000000Z ab\n2026-01-01T00:00:02.000000000Z c\n"
        );
        assert_eq!(format(&[("limitBytes", "4")]), "ab\nc");
        assert_eq!(format(&[("stream", "Stdout")]), "ab\n");
        assert_eq!(format(&[("sinceTime", "2026-01-01T00:00:02Z")]), "c\n");
    }
}
