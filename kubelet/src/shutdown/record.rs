//! When the node last went down in good order. The file is upstream's: what either kubelet wrote, the
//! other tells after the start.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::checkpoint;
use crate::metrics::Metrics;

/// Below the root directory.
const FILE: &str = "graceful_node_shutdown_state";

/// Go's time that is none.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Times {
    start_time: String,
    end_time: String,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            start_time: NEVER.into(),
            end_time: NEVER.into(),
        }
    }
}

/// The file.
#[derive(Debug)]
pub struct Record(PathBuf);

impl Record {
    pub fn new(root: &Path) -> Self {
        Self(root.join(FILE))
    }

    /// Writes down, and shows, when pods began to be ended and when all had ended.
    pub fn write(&self, metrics: &Metrics, start: Timestamp, end: Option<Timestamp>) {
        let times = Times {
            start_time: start.to_string(),
            end_time: end.map_or_else(|| NEVER.into(), |end| end.to_string()),
        };
        let text = serde_json::to_vec(&times).unwrap_or_default();
        if let Err(error) = checkpoint::write(&self.0, &text) {
            warn!(%error, "cannot write down when the node went down");
        }
        metrics.shutdown_start.set(start.as_second());
        let end = end.map_or(0, Timestamp::as_second);
        metrics.shutdown_end.set(end);
    }

    /// Shows what was written down before the start.
    pub fn show(&self, metrics: &Metrics) {
        let text = match checkpoint::read(&self.0) {
            Ok(Some(text)) => text,
            Ok(None) => return,
            Err(error) => return warn!(%error, "cannot read when the node went down"),
        };
        let times: Times = match serde_json::from_slice(&text) {
            Ok(times) => times,
            Err(error) => return warn!(%error, "cannot tell when the node went down"),
        };
        for (time, gauge) in [
            (times.start_time, &metrics.shutdown_start),
            (times.end_time, &metrics.shutdown_end),
        ] {
            if let Some(time) = time.parse::<Timestamp>().ok().filter(|_| time != NEVER) {
                gauge.set(time.as_second());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_shown() {
        let root = tempfile::tempdir().unwrap();
        let record = Record::new(root.path());
        let shown = || {
            let metrics = Metrics::new("n", true).unwrap();
            record.show(&metrics);
            (metrics.shutdown_start.get(), metrics.shutdown_end.get())
        };
        assert_eq!(shown(), (0, 0));
        let metrics = Metrics::new("n", true).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        record.write(&metrics, at(10), None);
        let text = std::fs::read_to_string(root.path().join(FILE)).unwrap();
        assert_eq!(
            text,
            r#"{"startTime":"1970-01-01T00:00:10Z","endTime":"0001-01-01T00:00:00Z"}"#
        );
        assert_eq!(shown(), (10, 0));
        record.write(&metrics, at(10), Some(at(12)));
        assert_eq!((shown(), metrics.shutdown_end.get()), ((10, 12), 12));
        // As Go writes it, in its own time zone.
        let go = r#"{"startTime":"1970-01-01T02:00:20.5+02:00","endTime":"0001-01-01T00:00:00Z"}"#;
        std::fs::write(root.path().join(FILE), go).unwrap();
        assert_eq!(shown(), (20, 0));
    }
}
