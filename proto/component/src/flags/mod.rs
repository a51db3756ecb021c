//! Flags in upstream's style: `--flag=value`, `--flag value`, `--bool` and
//! `--bool=false`, underscores for dashes, the last of a repeated flag wins.
//!
//! A daemon declares a `clap::Args` struct. A boolean flag is declared as
//! `#[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
//! default_value_t = false)]`; other values have types of this folder where Go's form
//! is special: [`GoDuration`], [`CommaList`], [`StringMap`].

mod values;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

pub use values::{CommaList, GoDuration, StringMap};

use crate::version;

/// Why parsing ended the process.
#[derive(Debug)]
pub struct Exit {
    text: String,
    failure: bool,
}

impl Exit {
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

/// Parses a command line, its first word being the program.
pub fn parse<O: clap::Args>(
    name: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<O, Exit> {
    let args: Vec<OsString> = args.into_iter().enumerate().map(normalize).collect();
    for arg in &args {
        match arg.to_str() {
            Some("--version" | "--version=true") => {
                return Err(Exit {
                    text: format!("Kubernetes {}", version::GIT_VERSION),
                    failure: false,
                });
            }
            Some("--version=raw") => {
                return Err(Exit {
                    text: format!("{:?}", version::INFO),
                    failure: false,
                });
            }
            _ => {}
        }
    }
    let command = clap::Command::new(name)
        .disable_version_flag(true)
        .args_override_self(true);
    let command = O::augment_args(command);
    command
        .try_get_matches_from(args)
        .and_then(|mut matches| O::from_arg_matches_mut(&mut matches))
        .map_err(|error| exit(&error))
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

fn exit(error: &clap::Error) -> Exit {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let text = match error.kind() {
        ErrorKind::DisplayHelp => {
            return Exit {
                text: error.render().to_string(),
                failure: false,
            };
        }
        ErrorKind::UnknownArgument => {
            let argument = context(ContextKind::InvalidArg);
            if argument.starts_with('-') {
                format!("Error: unknown flag: {argument}")
            } else {
                format!("Error: unknown command {argument:?}")
            }
        }
        // clap's own text names the flag, the value and what would be right.
        _ => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            format!("Error: {}", first.trim_start_matches("error: "))
        }
    };
    Exit {
        text,
        failure: true,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Debug, clap::Args)]
    struct Options {
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true)]
        leader_elect: bool,
        #[arg(long, default_value = "15s")]
        lease_duration: GoDuration,
        #[arg(long, default_value = "")]
        controllers: CommaList,
    }

    fn parse(args: &[&str]) -> Result<Options, Exit> {
        super::parse("daemon", ["daemon"].iter().chain(args).map(OsString::from))
    }

    #[test]
    fn flags_come_in_every_form_that_upstream_takes() {
        let options = parse(&[
            "--leader_elect=false",
            "--lease-duration",
            "1m30s",
            "--controllers=*,-job",
        ])
        .unwrap();
        assert!(!options.leader_elect);
        assert_eq!(options.lease_duration.get(), Duration::from_secs(90));
        assert_eq!(options.controllers.0, ["*", "-job"]);
        let options = parse(&["--leader-elect=false", "--leader-elect"]).unwrap();
        assert!(options.leader_elect);
        assert_eq!(options.lease_duration.get(), Duration::from_secs(15));
        assert!(options.controllers.0.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let unknown = parse(&["--nonsense=1"]).unwrap_err();
        assert_eq!(unknown.text, "Error: unknown flag: --nonsense");
        assert!(unknown.failure);
        let bad = parse(&["--lease-duration=soon"]).unwrap_err();
        assert!(bad.text.contains("--lease-duration"), "{}", bad.text);
        assert_eq!(
            parse(&["--version"]).unwrap_err().text,
            "Kubernetes v1.36.2"
        );
    }
}
