//! Flags in upstream's style: `--flag=value`, `--flag value`, `--bool` and
//! `--bool=false`, underscores for dashes, the last of a repeated flag wins unless it is a list or
//! a map (those grow), an unknown flag ends the process with 1.
//!
//! A daemon declares a `clap::Args` struct and flattens [`logs::Options`](crate::logs::Options)
//! and groups of [`common`] into it. [`parse`] teaches clap Go's habits, so a plain `bool`
//! field is a switch that takes `=false`. Values whose form is Go's own have types here:
//! [`GoDuration`], [`CommaList`], [`StringMap`], [`FeatureGates`](crate::features::FeatureGates).
//!
//! ```
//! use component::flags::{CommaList, GoDuration};
//!
//! #[derive(clap::Args)]
//! struct Options {
//!     /// A switch that is off by default.
//!     #[arg(long)]
//!     profiling: bool,
//!     /// A switch that is on by default.
//!     #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
//!     leader_elect: bool,
//!     #[arg(long, default_value = "15s")]
//!     lease_duration: GoDuration,
//!     #[arg(long, default_value = "*")]
//!     controllers: CommaList,
//! }
//!
//! let args = ["demo", "--leader-elect=false", "--lease_duration", "1m30s"].map(Into::into);
//! let parsed = component::flags::parse_tracked::<Options>("demo", args).unwrap();
//! assert!(!parsed.options.leader_elect);
//! assert_eq!(parsed.options.lease_duration.get().as_secs(), 90);
//! assert!(parsed.is_set("lease-duration") && !parsed.is_set("controllers"));
//! ```

pub mod common;
mod gather;
#[cfg(test)]
mod tests;
mod values;

use std::any::TypeId;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use meta::gofmt::Quoted;

pub use values::{CommaList, GoDuration, StringMap, parse_bool};

use crate::version;

/// Why parsing ended the process.
#[derive(Debug)]
pub struct Exit {
    text: String,
    failure: bool,
}

impl Exit {
    /// A mistake on the command line, told as upstream tells it.
    pub fn error(message: impl std::fmt::Display) -> Self {
        Self {
            text: format!("Error: {message}"),
            failure: true,
        }
    }

    fn success(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            failure: false,
        }
    }

    /// Prints to stdout or stderr and gives the exit code.
    pub fn print(&self) -> ExitCode {
        if self.failure {
            eprintln!("{}", self.text);
            ExitCode::FAILURE
        } else {
            println!("{}", self.text);
            ExitCode::SUCCESS
        }
    }
}

/// A parsed command line that remembers what was given and what is a default.
#[derive(Debug)]
pub struct Parsed<O> {
    pub options: O,
    matches: ArgMatches,
}

impl<O> Parsed<O> {
    /// Whether the flag (without its dashes) was given: how flags override a configuration file.
    pub fn is_set(&self, flag: &str) -> bool {
        is_set(&self.matches, flag)
    }
}

/// Whether a flag (without its dashes) was given on the command line.
pub fn is_set(matches: &ArgMatches, flag: &str) -> bool {
    // The derive macro names arguments after fields.
    [flag.to_owned(), flag.replace('-', "_")].iter().any(|id| {
        matches.try_contains_id(id).unwrap_or(false)
            && matches.value_source(id) == Some(ValueSource::CommandLine)
    })
}

/// Parses a command line, its first word being the program.
pub fn parse<O: clap::Args>(
    name: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<O, Exit> {
    parse_tracked(name, args).map(|parsed| parsed.options)
}

/// As [`parse`], and tells which flags were given.
pub fn parse_tracked<O: clap::Args>(
    name: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Parsed<O>, Exit> {
    let matches = matches(O::augment_args(Command::new(name)), args)?;
    let options = O::from_arg_matches(&matches).map_err(|error| explain(name, &error))?;
    Ok(Parsed { options, matches })
}

/// For a command whose arguments are put together by hand.
pub fn matches(
    command: Command,
    args: impl IntoIterator<Item = OsString>,
) -> Result<ArgMatches, Exit> {
    let name = command.get_name().to_owned();
    let version_flag = Arg::new("version")
        .long("version")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_name("true|raw")
        .help("Print version information and quit");
    let command = command
        .disable_version_flag(true)
        .args_override_self(true)
        .arg(version_flag)
        .mut_args(go_like);
    let args = args.into_iter().enumerate().map(normalize);
    let args = gather::gather(&command, args);
    let matches = command
        .try_get_matches_from(args)
        .map_err(|error| explain(&name, &error))?;
    match matches.get_one::<String>("version").map(String::as_str) {
        None => Ok(matches),
        Some("raw") => Err(Exit::success(format!("{:?}", version::INFO))),
        Some(text) => match values::go_bool(text) {
            Ok(true) => Err(Exit::success(format!(
                "Kubernetes {}",
                version::GIT_VERSION
            ))),
            Ok(false) => Ok(matches),
            Err(why) => Err(Exit::error(format!(
                "invalid argument {} for \"--version\" flag: {why}",
                Quoted(text)
            ))),
        },
    }
}

/// Makes an argument behave as Go's flag packages do.
fn go_like(arg: Arg) -> Arg {
    let is_bool = arg.get_value_parser().type_id() == TypeId::of::<bool>();
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    if is_bool && (is_switch || matches!(arg.get_action(), ArgAction::Set)) {
        let no_default = is_switch && arg.get_default_values().is_empty();
        let arg = arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(values::go_bool)
            .hide_possible_values(true);
        return if no_default {
            arg.default_value("false")
        } else {
            arg
        };
    }
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    if takes_value && !arg.is_require_equals_set() {
        // `--flag -1`: what follows is the value, whatever it looks like.
        return arg.allow_hyphen_values(true);
    }
    arg
}

/// Upstream takes `--foo_bar` for `--foo-bar`.
fn normalize((at, arg): (usize, OsString)) -> OsString {
    let Some(text) = arg.to_str().filter(|t| at > 0 && t.starts_with("--")) else {
        return arg;
    };
    let (flag, value) = match text.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (text, None),
    };
    let flag = flag.replace('_', "-");
    match value {
        Some(value) => format!("{flag}={value}").into(),
        None => flag.into(),
    }
}

fn explain(program: &str, error: &clap::Error) -> Exit {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    // `--flag <VALUE>` without the value's name.
    let flag = context(ContextKind::InvalidArg);
    let flag = flag.split([' ', '=', '[']).next().unwrap_or_default();
    let message = match error.kind() {
        ErrorKind::DisplayHelp => return Exit::success(error.render().to_string()),
        ErrorKind::UnknownArgument if flag.starts_with("--") => format!("unknown flag: {flag}"),
        ErrorKind::UnknownArgument if flag.starts_with('-') => {
            let letter = flag.chars().nth(1).unwrap_or('-');
            format!("unknown shorthand flag: '{letter}' in {flag}")
        }
        ErrorKind::UnknownArgument => format!(
            "{} does not take any arguments, got [{}]",
            Quoted(program),
            Quoted(flag)
        ),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = context(ContextKind::InvalidValue);
            if value.is_empty() {
                format!("flag needs an argument: {flag}")
            } else {
                let why = std::error::Error::source(error).map(ToString::to_string);
                let why = why.unwrap_or_else(|| "not one of its values".to_owned());
                format!(
                    "invalid argument {} for {} flag: {why}",
                    Quoted(&value),
                    Quoted(flag)
                )
            }
        }
        // clap's own text names the flag and what would be right.
        _ => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            first.trim_start_matches("error: ").to_owned()
        }
    };
    Exit::error(message)
}
