//! `logging`: also judged before everything else, since what is told after it is logged.

use meta::gofmt::Quoted;

use super::{Context, Errors};
use crate::config::KubeletConfiguration;

/// klog takes no more.
const MOST_VERBOSE: u32 = i32::MAX as u32;

pub fn judge(context: &Context<'_>, errors: &mut Errors) {
    for problem in problems(context.config) {
        errors.push(problem);
    }
}

/// # Errors
/// When the lines could not be written as they are to be.
pub fn logging(config: &KubeletConfiguration) -> Result<(), String> {
    let mut errors = Errors::default();
    for problem in problems(config) {
        errors.push(problem);
    }
    errors.aggregate()
}

fn problems(config: &KubeletConfiguration) -> Vec<String> {
    let c = &config.logging;
    let mut problems = Vec::new();
    let invalid = |field: String, value: &dyn std::fmt::Display, why: &str| {
        format!("logging.{field}: Invalid value: {value}: {why}")
    };
    if c.flush_frequency.is_zero() || c.flush_frequency.is_negative() {
        let why = "Must be greater than zero";
        let value = Quoted(&c.flush_frequency.to_string()).to_string();
        problems.push(invalid("flushFrequency".into(), &value, why));
    }
    if !matches!(c.format.as_str(), "text" | "json") {
        let value = Quoted(&c.format);
        problems.push(invalid("format".into(), &value, "Unsupported log format"));
    }
    let too_verbose = format!("Must be <= {MOST_VERBOSE}");
    if c.verbosity > MOST_VERBOSE {
        problems.push(invalid("verbosity".into(), &c.verbosity, &too_verbose));
    }
    if !c.vmodule.is_empty() && c.format != "text" {
        problems.push("logging.vmodule: Forbidden: Only supported for text log format".to_owned());
    }
    for (at, item) in c.vmodule.iter().enumerate() {
        let field = format!("vmodule[{at}]");
        if item.file_pattern.is_empty() {
            problems.push(format!(
                "logging.{field}: Required value: File pattern must not be empty"
            ));
        }
        if item.file_pattern.contains(['=', ',']) {
            let why = "File pattern must not contain equal sign or comma";
            problems.push(invalid(field.clone(), &Quoted(&item.file_pattern), why));
        }
        if item.verbosity > MOST_VERBOSE {
            problems.push(invalid(field, &item.verbosity, &too_verbose));
        }
    }
    problems
}
