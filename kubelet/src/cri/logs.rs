//! Where container logs lie, and how a line of one reads. The format is CRI's: a time stamp, the
//! stream, `P` or `F` (part of a line, or its end), and the text.

use k8s_openapi::api::core::v1::Pod;

use crate::pods::pod::PodExt;

/// Directory of links to every container's log, by pod and container name.
pub const CONTAINERS_DIR: &str = "/var/log/containers";

/// `<root>/<namespace>_<name>_<uid>`.
pub fn pod_directory(root: &str, pod: &Pod) -> String {
    format!("{root}/{}_{}_{}", pod.namespace(), pod.name(), pod.uid())
}

/// A container's log relative to its pod's directory.
pub fn relative_path(container: &str, restart_count: i32) -> String {
    format!("{container}/{restart_count}.log")
}

/// The uid in a pod log directory's name.
pub fn uid_of_directory(name: &str) -> &str {
    name.rsplit('_').next().unwrap_or_default()
}

/// File name in [`CONTAINERS_DIR`]: what log collectors learn a container's pod from.
pub fn link_name(pod: &str, namespace: &str, container: &str, id: &str) -> String {
    format!("{pod}_{namespace}_{container}-{id}.log")
}

/// The restart count that continues what lies in a container's log directory: one more than the
/// highest. After a reboot the runtime may have forgotten what the logs still show.
pub fn next_restart_count<'a>(files: impl Iterator<Item = &'a str>) -> i32 {
    files
        .filter_map(|name| {
            name.split_once(".log")
                .and_then(|(count, _)| count.parse::<i32>().ok())
        })
        .map(|count| count + 1)
        .max()
        .unwrap_or_default()
}

/// One line of a log file, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339 with nanoseconds, as written.
    pub timestamp: &'a str,
    pub stderr: bool,
    /// The line goes on in the next record.
    pub partial: bool,
    pub text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a record, given without its newline.
    pub fn parse(record: &'a [u8]) -> Option<Self> {
        let mut fields = record.splitn(4, |byte| *byte == b' ');
        let timestamp = std::str::from_utf8(fields.next()?).ok()?;
        let stderr = match fields.next()? {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        // Tags are separated by colons; only the first one means something.
        let partial = fields.next()?.first() == Some(&b'P');
        Some(Self {
            timestamp,
            stderr,
            partial,
            text: fields.next().unwrap_or_default(),
        })
    }
}

/// The end of a log, as a termination message: at most so many lines and bytes.
pub fn tail(log: &[u8], max_lines: usize, max_bytes: usize) -> Vec<u8> {
    let records: Vec<_> = log
        .split(|byte| *byte == b'\n')
        .filter_map(Line::parse)
        .collect();
    let mut out = Vec::new();
    let first = records.len().saturating_sub(max_lines);
    for line in &records[first..] {
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
    }
    out.split_off(out.len().saturating_sub(max_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let line = Line::parse(b"2026-01-02T03:04:05.000000006Z stderr P a b").unwrap();
        assert_eq!(
            line,
            Line {
                timestamp: "2026-01-02T03:04:05.000000006Z",
                stderr: true,
                partial: true,
                text: b"a b"
            }
        );
        assert_eq!(
            Line::parse(b"2026-01-02T03:04:05Z stdout F ").unwrap().text,
            b""
        );
        assert_eq!(Line::parse(b"garbage"), None);
        let log = b"t stdout F one\nt stdout P tw\nt stdout F o\n";
        assert_eq!(tail(log, 80, 100), b"one\ntwo\n");
        assert_eq!(tail(log, 80, 4), b"two\n");
        assert_eq!(tail(log, 1, 100), b"o\n");
    }

    #[test]
    fn restart_counts_continue() {
        assert_eq!(next_restart_count([].into_iter()), 0);
        assert_eq!(
            next_restart_count(["0.log", "2.log.20260102-030405", "x.log", "1.log"].into_iter()),
            3
        );
    }
}
