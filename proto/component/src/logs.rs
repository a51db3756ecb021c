//! Logs: lines as klog writes them, or JSON, to stderr.
//!
//! `--v` is upstream's verbosity. Below 4 a daemon logs what an operator wants to know
//! (`info!`); from 4 on what a developer does (`debug!`), from 6 on requests (`trace!`).
//! What must never be logged: tokens, keys, secrets' data.

mod format;

use std::sync::OnceLock;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;
use tracing_subscriber::reload;

use format::{Json, Klog};

/// klog's and component-base's flags. Flags of klog that Kubernetes itself has retired
/// are not known, as upstream.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Options {
    /// Number for the log level verbosity.
    #[arg(
        id = "v",
        long = "v",
        short = 'v',
        default_value_t = 0,
        value_name = "LEVEL"
    )]
    pub verbosity: u8,
    /// Comma-separated list of pattern=N settings for file-filtered logging (text format only).
    #[arg(long = "vmodule", default_value = "", value_name = "PATTERN=N,...")]
    pub vmodule: String,
    /// Sets the log format: "text" or "json".
    #[arg(id = "logging-format", long = "logging-format", default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
    /// Maximum number of seconds between log flushes. Lines are written at once.
    #[arg(
        id = "log-flush-frequency",
        long = "log-flush-frequency",
        default_value = "5s",
        hide = true
    )]
    pub flush_frequency: String,
    /// Accepted for compatibility: text goes to one stream.
    #[arg(id = "log-text-split-stream", long = "log-text-split-stream", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide = true)]
    pub text_split_stream: bool,
    #[arg(
        id = "log-text-info-buffer-size",
        long = "log-text-info-buffer-size",
        default_value = "0",
        hide = true
    )]
    pub text_info_buffer: String,
    #[arg(id = "log-json-split-stream", long = "log-json-split-stream", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide = true)]
    pub json_split_stream: bool,
    #[arg(
        id = "log-json-info-buffer-size",
        long = "log-json-info-buffer-size",
        default_value = "0",
        hide = true
    )]
    pub json_info_buffer: String,
}

/// The most detailed lines that are written at a verbosity.
fn level(verbosity: u32) -> LevelFilter {
    match verbosity {
        0..=3 => LevelFilter::INFO,
        4..=5 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

/// What is written at a verbosity, and of the modules of `--vmodule`.
fn filter(verbosity: u32, vmodule: &str) -> Targets {
    // Libraries speak up only when something is wrong, or at the highest verbosity.
    let others = if verbosity >= 10 {
        LevelFilter::DEBUG
    } else {
        LevelFilter::WARN
    };
    let mut filter = Targets::new().with_default(level(verbosity));
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
    for (pattern, verbosity) in vmodule.split(',').filter_map(|p| p.split_once('=')) {
        let level = level(verbosity.trim().parse().unwrap_or(0));
        filter = filter.with_target(pattern.trim().to_owned(), level);
    }
    filter
}

type SetFilter = Box<dyn Fn(Targets) + Send + Sync>;

/// How the filter of the running process is replaced, and its `--vmodule`. There is one log.
static CURRENT: OnceLock<(SetFilter, String)> = OnceLock::new();

/// Sets the verbosity of the running process (`PUT /debug/flags/v`). The answer says so.
///
/// # Errors
/// The text is no number, in Go's words.
pub fn set_verbosity(text: &str) -> Result<String, String> {
    let verbosity: u32 = text.parse().map_err(|e: std::num::ParseIntError| {
        let problem = match e.kind() {
            std::num::IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseUint: parsing {text:?}: {problem}")
    })?;
    if let Some((set, vmodule)) = CURRENT.get() {
        set(filter(verbosity, vmodule));
    }
    Ok(format!("successfully set klog.logging.verbosity to {text}"))
}

/// Starts logging. Called once, before anything is logged.
pub fn init(options: &Options) {
    let filter = filter(options.verbosity.into(), &options.vmodule);
    let (filter, handle) = reload::Layer::new(filter);
    let set: SetFilter = Box::new(move |filter| {
        if let Err(error) = handle.reload(filter) {
            tracing::error!(%error, "the verbosity could not be set");
        }
    });
    drop(CURRENT.set((set, options.vmodule.clone())));
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
