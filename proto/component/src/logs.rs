//! Logs: lines as klog writes them, or JSON, to stderr.
//!
//! `--v` is upstream's verbosity. Below 4 a daemon logs what an operator wants to know
//! (`info!`); from 4 on what a developer does (`debug!`), from 6 on requests (`trace!`).
//! What must never be logged: tokens, keys, secrets' data.

mod format;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use format::{Json, Klog};

/// klog's and component-base's flags. Flags of klog that Kubernetes itself has retired
/// are not known, as upstream.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
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
            .with_writer(std::io::stderr);
        registry.with(layer.with_filter(filter)).try_init()
    } else {
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Klog::new())
            .with_ansi(false)
            .with_writer(std::io::stderr);
        registry.with(layer.with_filter(filter)).try_init()
    };
    // Only a test that starts two daemons in one process gets here twice.
    if let Err(error) = result {
        eprintln!("logging was started before: {error}");
    }
}
