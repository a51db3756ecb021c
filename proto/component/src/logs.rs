//! Logs: lines as klog writes them, or JSON, to stderr.
//!
//! `--v` is upstream's verbosity. Below 4 a daemon logs what an operator wants to know
//! (`info!`); from 4 on what a developer does (`debug!`), from 6 on requests (`trace!`).
//! What must never be logged: tokens, keys, secrets' data.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

/// klog's and component-base's flags. Flags of klog that Kubernetes itself has retired
/// are not known, as upstream.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Number for the log level verbosity.
    #[arg(long = "v", short = 'v', default_value_t = 0, value_name = "LEVEL")]
    pub verbosity: u8,
    /// Comma-separated list of pattern=N settings for file-filtered logging (text format only).
    #[arg(long = "vmodule", default_value = "", value_name = "PATTERN=N,...")]
    pub vmodule: String,
    /// Sets the log format: "text" or "json".
    #[arg(long = "logging-format", default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
    /// Maximum number of seconds between log flushes. Lines are written at once.
    #[arg(long = "log-flush-frequency", default_value = "5s", hide = true)]
    pub flush_frequency: String,
    /// Accepted for compatibility: text goes to one stream.
    #[arg(long = "log-text-split-stream", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide = true)]
    pub text_split_stream: bool,
    #[arg(long = "log-text-info-buffer-size", default_value = "0", hide = true)]
    pub text_info_buffer: String,
    #[arg(long = "log-json-split-stream", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide = true)]
    pub json_split_stream: bool,
    #[arg(long = "log-json-info-buffer-size", default_value = "0", hide = true)]
    pub json_info_buffer: String,
}

/// Starts logging. Called once, before anything is logged.
pub fn init(options: &Options) {
    let own = match options.verbosity {
        0..=3 => LevelFilter::INFO,
        4..=5 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Libraries speak up only when something is wrong, or at the highest verbosity.
    let others = if options.verbosity >= 10 {
        LevelFilter::DEBUG
    } else {
        LevelFilter::WARN
    };
    let mut filter = Targets::new().with_default(own);
    for noisy in [
        "h2",
        "hyper",
        "hyper_util",
        "rustls",
        "tower",
        "tonic",
        "tungstenite",
        "mio",
    ] {
        filter = filter.with_target(noisy, others);
    }
    for (pattern, level) in options.vmodule.split(',').filter_map(|p| p.split_once('=')) {
        let level = match level.trim().parse().unwrap_or(0) {
            0..=3 => LevelFilter::INFO,
            4..=5 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        filter = filter.with_target(pattern.trim().to_owned(), level);
    }
    let registry = tracing_subscriber::registry();
    let result = if options.format == "json" {
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Json)
            .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
            .with_writer(std::io::stderr);
        registry.with(layer.with_filter(filter)).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Klog)
            .with_ansi(false)
            .with_writer(std::io::stderr);
        registry.with(layer.with_filter(filter)).try_init()
    };
    // Only a test that starts two daemons in one process gets here twice.
    if let Err(error) = result {
        eprintln!("logging was started before: {error}");
    }
}

/// `I0102 15:04:05.000000    1234 module] message key="value"`.
struct Klog;

impl<S, N> FormatEvent<S, N> for Klog
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        cx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let severity = match *meta.level() {
            Level::ERROR => 'E',
            Level::WARN => 'W',
            _ => 'I',
        };
        let now = jiff::Zoned::now();
        write!(
            writer,
            "{severity}{} {:>7} {}] ",
            now.strftime("%m%d %H:%M:%S.%6f"),
            std::process::id(),
            meta.target()
        )?;
        cx.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// One JSON object a line: `ts` in milliseconds, `caller`, `msg`, `v`, then the fields.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _cx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let mut line = serde_json::Map::new();
        let now = jiff::Timestamp::now();
        #[allow(
            clippy::cast_precision_loss,
            reason = "milliseconds of today fit a double"
        )]
        let milliseconds = now.as_microsecond() as f64 / 1000.0;
        line.insert("ts".into(), milliseconds.into());
        line.insert("caller".into(), meta.target().into());
        match *meta.level() {
            Level::ERROR => line.insert("level".into(), "error".into()),
            Level::DEBUG => line.insert("v".into(), 4.into()),
            Level::TRACE => line.insert("v".into(), 6.into()),
            _ => line.insert("v".into(), 0.into()),
        };
        event.record(&mut Fields(&mut line));
        writeln!(writer, "{}", serde_json::Value::Object(line))
    }
}

struct Fields<'a>(&'a mut serde_json::Map<String, serde_json::Value>);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        let name = if field.name() == "message" {
            "msg"
        } else {
            field.name()
        };
        self.0.insert(name.into(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        let name = if field.name() == "message" {
            "msg"
        } else {
            field.name()
        };
        self.0.insert(name.into(), value.into());
    }
    fn record_i64(&mut self, field: &tracing::field::Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }
    fn record_bool(&mut self, field: &tracing::field::Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }
}
