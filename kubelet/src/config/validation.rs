//! Whether a configuration makes sense, in upstream's words and order; all that is wrong is told at
//! once. What is wrong with the machine, or with a file that is named, shows when it is used.

mod allocatable;
mod images;
mod logging;
mod numbers;
mod reserved;
mod shutdown;
mod surroundings;
mod taints;
#[cfg(test)]
mod tests;
mod topology;

use component::features::FeatureGates;

use super::KubeletConfiguration;

pub use logging::logging;
pub use reserved::{reserved_memory, resource_list};

/// What has been found wrong so far.
#[derive(Debug, Default)]
struct Errors(Vec<String>);

impl Errors {
    /// A sentence of its own.
    fn push(&mut self, sentence: impl ToString) {
        self.0.push(sentence.to_string());
    }

    fn wrong(&mut self, why: impl std::fmt::Display) {
        self.push(format!("invalid configuration: {why}"));
    }

    fn wrong_if(&mut self, is_wrong: bool, why: impl std::fmt::Display) {
        if is_wrong {
            self.wrong(why);
        }
    }

    /// One as it is, several in brackets, none twice.
    fn aggregate(mut self) -> Result<(), String> {
        let mut seen = std::collections::HashSet::new();
        self.0.retain(|error| seen.insert(error.clone()));
        match &self.0[..] {
            [] => Ok(()),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

/// What fields are judged by, besides themselves.
struct Context<'a> {
    config: &'a KubeletConfiguration,
    gates: FeatureGates,
    cgroup_v2: bool,
}

/// # Errors
/// With everything that is wrong.
pub fn validate(config: &KubeletConfiguration, cgroup_v2: bool) -> Result<(), String> {
    let gates = FeatureGates::from_pairs(&config.feature_gates);
    let gates = gates.map_err(|error| error.to_string())?;
    let mut errors = Errors::default();
    if let Err(error) = gates.check() {
        errors.push(error);
    }
    let context = Context {
        config,
        gates,
        cgroup_v2,
    };
    for judge in [
        numbers::judge,
        taints::judge,
        topology::judge,
        shutdown::judge,
        surroundings::judge_containers,
        allocatable::judge,
        images::judge,
        reserved::judge,
        surroundings::judge_host,
        surroundings::judge_metrics,
        logging::judge,
        surroundings::judge_tracing,
        surroundings::judge_memory_qos,
        surroundings::judge_logs,
    ] {
        judge(&context, &mut errors);
    }
    errors.aggregate()
}
