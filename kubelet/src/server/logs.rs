//! A container's log as `kubectl logs` wants it: from where, how much, with or without times, and
//! what is still to come.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::cri::client::CriClient;
use crate::cri::logs::Line;

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
}

impl LogOptions {
    /// Reads a query. Times count back from `now`.
    ///
    /// # Errors
    /// Status and text for a query that makes no sense.
    pub fn parse(query: &[(String, String)], now: Timestamp) -> Result<Self, (u16, String)> {
        let get = |name: &str| {
            query
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let undecodable = || (400, r#"{"message": "Unable to decode query."}"#.to_owned());
        let flag = |name: &str| match get(name) {
            None | Some("" | "false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(_) => Err(undecodable()),
        };
        let number = |name: &str| {
            let text = get(name).filter(|text| !text.is_empty());
            text.map(|text| text.parse::<i64>().map_err(|_| undecodable()))
                .transpose()
        };
        let invalid = || (422, r#"{"message": "Invalid request."}"#.to_owned());
        let positive = |value: Option<i64>, least: i64| match value {
            Some(value) if value < least => Err(invalid()),
            value => Ok(value.and_then(|value| usize::try_from(value).ok())),
        };
        let since_seconds = number("sinceSeconds")?;
        let since_time = get("sinceTime").filter(|text| !text.is_empty());
        let since_time = since_time
            .map(|text| text.parse::<Timestamp>().map_err(|_| undecodable()))
            .transpose()?;
        if since_seconds.is_some() && since_time.is_some()
            || since_seconds.is_some_and(|seconds| seconds < 1)
        {
            return Err(invalid());
        }
        let since = match since_seconds {
            Some(seconds) => now
                .checked_sub(jiff::SignedDuration::from_secs(seconds))
                .ok(),
            None => since_time,
        };
        let tail = match get("tail") {
            Some("all") => None,
            Some(text) => Some(text.parse::<i64>().map_err(|_| undecodable())?),
            None => number("tailLines")?,
        };
        let (stdout, stderr) = match get("stream") {
            None | Some("" | "All") => (true, true),
            Some("Stdout") => (true, false),
            Some("Stderr") => (false, true),
            Some(_) => return Err(undecodable()),
        };
        Ok(Self {
            follow: flag("follow")?,
            previous: flag("previous")?,
            timestamps: flag("timestamps")?,
            tail_lines: positive(tail, 0)?,
            limit_bytes: positive(number("limitBytes")?, 1)?,
            since,
            stdout,
            stderr,
        })
    }
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
            out.extend_from_slice(line.timestamp.as_bytes());
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

/// Reads a log and sends it on. Ends with the file, or if it is followed, with the container.
pub async fn stream(
    runtime: CriClient,
    container_id: String,
    path: PathBuf,
    options: LogOptions,
    out: mpsc::Sender<io::Result<Bytes>>,
) {
    if let Err(error) = copy(&runtime, &container_id, &path, options, &out).await {
        let _ = out.send(Err(error)).await;
    }
}

async fn copy(
    runtime: &CriClient,
    container_id: &str,
    path: &Path,
    options: LogOptions,
    out: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let (changed, mut changes) = mpsc::channel::<()>(1);
    let directory = path.parent().unwrap_or(Path::new("/"));
    let _watcher = options.follow.then(|| watch(directory, changed)).flatten();
    let mut file = File::open(path)?;
    let start = match options.tail_lines {
        Some(lines) => start_of_tail(&mut file, lines)?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start))?;
    let follow = options.follow;
    let mut formatter = Formatter::new(options);
    let mut reader = BufReader::new(file);
    let mut record = Vec::new();
    let mut ended = false;
    loop {
        let more = read_some(&mut reader, &mut record, &mut formatter, out).await?;
        if formatter.is_done() || out.is_closed() {
            return Ok(());
        }
        if more {
            continue;
        }
        if !follow || ended {
            return Ok(());
        }
        // The log was put aside and a new one begun.
        let rotated = path
            .metadata()
            .ok()
            .zip(reader.get_ref().metadata().ok())
            .is_some_and(|(now, open)| {
                use std::os::unix::fs::MetadataExt;
                now.ino() != open.ino()
            });
        if rotated {
            reader = BufReader::new(File::open(path)?);
            continue;
        }
        tokio::select! {
            _ = changes.recv() => {}
            () = out.closed() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                // What it wrote last is read after it is known to have ended.
                let status = runtime.container_status(container_id).await.ok().flatten();
                ended = status.is_none_or(|status| status.state() != grpc::cri::ContainerState::ContainerRunning);
            }
        }
    }
}

/// Reads about as much as goes into one piece. False at the end of what there is.
async fn read_some(
    reader: &mut BufReader<File>,
    record: &mut Vec<u8>,
    formatter: &mut Formatter,
    out: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<bool> {
    const PIECE: usize = 32 * 1024;
    let mut piece = Vec::new();
    let mut more = true;
    while piece.len() < PIECE && !formatter.is_done() {
        // A record that is still being written is kept until its end is there.
        let read = reader.read_until(b'\n', record)?;
        if record.last() != Some(&b'\n') {
            more = read > 0;
            break;
        }
        record.pop();
        formatter.push(record, &mut piece);
        record.clear();
    }
    if !piece.is_empty() && out.send(Ok(piece.into())).await.is_err() {
        return Ok(false);
    }
    Ok(more && !formatter.is_done())
}

fn watch(directory: &Path, changed: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |_| {
        // Full: a look is due already.
        let _ = changed.try_send(());
    })
    .ok()?;
    watcher.watch(directory, RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn options(query: &[(&str, &str)]) -> Result<LogOptions, (u16, String)> {
        let query: Vec<_> = query
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        LogOptions::parse(&query, Timestamp::from_second(1000).unwrap())
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
        assert_eq!(options(&[("stream", "Stderr")]).unwrap().stdout, false);
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
            "2026-01-01T00:00:01Z ab\n2026-01-01T00:00:02Z c\n"
        );
        assert_eq!(format(&[("limitBytes", "4")]), "ab\nc");
        assert_eq!(format(&[("stream", "Stdout")]), "ab\n");
        assert_eq!(format(&[("sinceTime", "2026-01-01T00:00:02Z")]), "c\n");
    }
}
