//! How long admission takes, under upstream's names and labels.

mod summary;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramOpts, HistogramVec};

use self::summary::{Series, SummaryVec};
use super::Operation;
use component::metrics::Registry;

const BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// Which half of admission a plugin has a part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Admit,
    Validate,
}

/// The metrics of everything, of which each plugin gets its own.
pub struct Metrics {
    controllers: HistogramVec,
    pub steps: Timed,
}

fn histogram(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
    let vec = HistogramVec::new(opts, labels).expect("name and labels are constants");
    registry.register(vec.clone());
    vec
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let steps = histogram(
            registry,
            "apiserver_admission_step_admission_duration_seconds",
            "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
            &["type", "operation", "rejected"],
        );
        let controllers = histogram(
            registry,
            "apiserver_admission_controller_admission_duration_seconds",
            "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
            &["name", "type", "operation", "rejected"],
        );
        let summaries = SummaryVec::new(
            "apiserver_admission_step_admission_duration_seconds_summary",
            "How long a step of admission (validate or admit) took: quantiles in seconds, by operation and outcome.",
            &["operation", "rejected", "type"],
        );
        registry.register(summaries.clone());
        Self {
            controllers,
            steps: Timed::new(steps, Of::Step(summaries)),
        }
    }

    pub fn of(&self, plugin: &'static str) -> Timed {
        Timed::new(self.controllers.clone(), Of::Plugin(plugin))
    }
}

/// What is timed.
enum Of {
    Plugin(&'static str),
    /// All plugins together, which are summed up as well.
    Step(SummaryVec),
}

/// Where one outcome is counted.
struct Known {
    histogram: Histogram,
    summary: Option<Arc<Series>>,
}

/// The durations of one thing. A series appears with its first observation and is found without
/// a search from then on.
pub struct Timed {
    all: HistogramVec,
    of: Of,
    /// By step, operation and outcome.
    known: [OnceLock<Known>; 16],
}

impl Timed {
    fn new(all: HistogramVec, of: Of) -> Self {
        Self {
            all,
            of,
            known: Default::default(),
        }
    }

    pub fn observe(&self, step: Step, operation: Operation, rejected: bool, took: Duration) {
        let index = (step as usize * 4 + operation as usize) * 2 + usize::from(rejected);
        let known = self.known[index].get_or_init(|| {
            let step = match step {
                Step::Admit => "admit",
                Step::Validate => "validate",
            };
            let operation = match operation {
                Operation::Create => "CREATE",
                Operation::Update => "UPDATE",
                Operation::Delete => "DELETE",
                Operation::Connect => "CONNECT",
            };
            let rejected = if rejected { "true" } else { "false" };
            match &self.of {
                Of::Plugin(name) => Known {
                    histogram: self
                        .all
                        .with_label_values(&[name, step, operation, rejected]),
                    summary: None,
                },
                Of::Step(summaries) => Known {
                    histogram: self.all.with_label_values(&[step, operation, rejected]),
                    summary: Some(summaries.with_label_values(&[operation, rejected, step])),
                },
            }
        });
        known.histogram.observe(took.as_secs_f64());
        if let Some(summary) = &known.summary {
            summary.observe(took, Instant::now());
        }
    }
}
