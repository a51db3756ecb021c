//! The table that people read and the file that programs read.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Case, Headline, Options, Sample};

/// One case and all of its samples.
#[derive(Debug)]
pub struct Result {
    /// What was measured.
    pub case: Case,
    samples: BTreeMap<&'static str, Vec<Sample>>,
    /// Why it counts for nothing.
    pub failed: Option<String>,
}

impl Result {
    /// Without samples yet.
    pub fn new(case: Case) -> Self {
        Self {
            case,
            samples: BTreeMap::new(),
            failed: None,
        }
    }

    /// A turn of a side. Sides that say different things fail the case.
    pub fn add(&mut self, side: &'static str, sample: Sample) {
        let other = self
            .samples
            .iter()
            .filter(|(name, _)| **name != side)
            .find_map(|(name, samples)| Some((name, samples.last()?)));
        if let Some((name, other)) = other
            && other.answer != sample.answer
        {
            self.failed = Some(format!(
                "{name} answered {:?}, {side} {:?}",
                other.answer, sample.answer
            ));
        }
        self.samples.entry(side).or_default().push(sample);
    }

    fn median<T: Ord + Copy>(&self, side: &str, value: impl Fn(&Sample) -> T) -> Option<T> {
        let mut values: Vec<_> = self.samples.get(side)?.iter().map(value).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied()
    }

    /// Theirs ÷ ours.
    fn ratio(&self, value: impl Fn(&Sample) -> f64) -> Option<f64> {
        let median = |side| self.median(side, |sample| Ordered(value(sample)));
        let (ours, theirs) = (median("ours")?.0, median("theirs")?.0);
        (ours > 0.0).then_some(theirs / ours)
    }

    fn ratio_of(&self, what: Headline) -> Option<f64> {
        self.ratio(|sample| match what {
            Headline::Cpu => sample.cpu.as_secs_f64(),
            Headline::Wall => sample.wall.as_secs_f64(),
            Headline::P50 => sample.p50.as_secs_f64(),
            Headline::P99 => sample.p99.as_secs_f64(),
            Headline::Resident => sample.resident as f64,
        })
    }

    fn verdict(&self) -> String {
        if self.failed.is_some() {
            return "FAILED".to_owned();
        }
        let goal = self.case.goal;
        let ratio = goal.and(self.ratio_of(self.case.headline));
        let mut verdict = ratio.zip(goal).map_or("-", judged).to_owned();
        if let Some((what, goal)) = self.case.also
            && let Some(ratio) = self.ratio_of(what)
        {
            let (what, judged) = (name(what), judged((ratio, goal)));
            verdict += &format!("; {what} {ratio:.1} of {goal:.0}: {judged}");
        }
        verdict
    }

    fn cells(&self) -> Vec<String> {
        let both = |show: &dyn Fn(&str) -> Option<String>| {
            let show = |side| show(side).unwrap_or_else(|| "-".into());
            format!("{} / {}", show("theirs"), show("ours"))
        };
        let ratio = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
        vec![
            self.case.row.to_owned(),
            self.case.what.clone(),
            name(self.case.headline),
            self.case
                .goal
                .map_or("-".into(), |goal| format!("{goal:.0}")),
            ratio(self.ratio_of(self.case.headline)),
            self.verdict(),
            both(&|side| self.median(side, |sample| sample.cpu).map(time)),
            ratio(self.ratio(|sample| sample.cpu.as_secs_f64())),
            both(&|side| self.median(side, |sample| sample.wall).map(time)),
            ratio(self.ratio(|sample| sample.wall.as_secs_f64())),
            both(&|side| self.median(side, |sample| sample.p50).map(time)),
            both(&|side| self.median(side, |sample| sample.p99).map(time)),
            both(&|side| {
                self.median(side, |sample| sample.resident)
                    .map(|bytes| (bytes >> 20).to_string())
            }),
        ]
    }

    fn json(&self) -> Value {
        let samples: serde_json::Map<_, _> = self
            .samples
            .iter()
            .map(|(side, samples)| ((*side).to_owned(), samples.iter().map(sample).collect()))
            .collect();
        json!({
            "row": self.case.row,
            "what": self.case.what,
            "headline": name(self.case.headline),
            "goal": self.case.goal,
            "ratio": self.ratio_of(self.case.headline),
            "also": self.case.also.map(|(what, goal)| json!({"by": name(what), "goal": goal})),
            "cpuRatio": self.ratio(|sample| sample.cpu.as_secs_f64()),
            "wallRatio": self.ratio(|sample| sample.wall.as_secs_f64()),
            "p50Ratio": self.ratio(|sample| sample.p50.as_secs_f64()),
            "p99Ratio": self.ratio(|sample| sample.p99.as_secs_f64()),
            "residentRatio": self.ratio(|sample| sample.resident as f64),
            "verdict": self.verdict(),
            "failed": self.failed,
            "samples": samples,
        })
    }
}

fn judged((ratio, goal): (f64, f64)) -> &'static str {
    match ratio / goal {
        done if done >= 1.0 => "met",
        done if done >= 0.5 => "over half",
        _ => "UNDER HALF",
    }
}

fn name(what: Headline) -> String {
    format!("{what:?}").to_lowercase()
}

fn sample(sample: &Sample) -> Value {
    let seconds = |time: Duration| time.as_secs_f64();
    json!({
        "operations": sample.operations,
        "cpuSecondsPerOperation": seconds(sample.cpu),
        "wallSecondsPerOperation": seconds(sample.wall),
        "p50Seconds": seconds(sample.p50),
        "p99Seconds": seconds(sample.p99),
        "residentBytes": sample.resident,
        "answer": sample.answer,
    })
}

/// Measured values are never NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// With three digits and a unit.
fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        0.0 => return "-".into(),
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$}{unit}")
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Report {
    settings: Value,
    results: Vec<Result>,
    notes: Vec<(String, String)>,
}

const HEADER: [&str; 13] = [
    "row",
    "work",
    "by",
    "goal",
    "ratio",
    "verdict",
    "CPU/op theirs / ours",
    "ratio",
    "wall/op theirs / ours",
    "ratio",
    "p50 theirs / ours",
    "p99 theirs / ours",
    "RSS MiB theirs / ours",
];

impl Report {
    /// Without results yet.
    pub fn new(options: &Options) -> Self {
        Self {
            settings: json!({
                "pods": options.pods,
                "pairs": options.pairs,
                "writes": options.writes,
                "flags": options.flag,
                "fsync": options.fsync,
            }),
            results: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A case that is done; it is printed at once, because the whole takes long.
    pub fn add(&mut self, result: Result) {
        eprintln!("{}", result.cells().join(" | "));
        if let Some(failed) = &result.failed {
            eprintln!("  {failed}");
        }
        self.results.push(result);
    }

    /// Something in words.
    pub fn note(&mut self, row: &str, text: String) {
        eprintln!("{row}: {text}");
        self.notes.push((row.to_owned(), text));
    }

    /// The table.
    pub fn print(&self) {
        println!("| {} |", HEADER.join(" | "));
        println!("|{}", "---|".repeat(HEADER.len()));
        for result in &self.results {
            println!("| {} |", result.cells().join(" | "));
        }
        for result in &self.results {
            if let Some(failed) = &result.failed {
                println!("\n{} {}: {failed}", result.case.row, result.case.what);
            }
        }
        for (row, text) in &self.notes {
            println!("\n{row}: {text}");
        }
    }

    /// The file.
    pub fn json(&self) -> Value {
        json!({
            "settings": self.settings,
            "results": self.results.iter().map(Result::json).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(goal: f64, theirs: &[u64], ours: &[u64]) -> Result {
        let mut result = Result::new(Case::cpu("1", "work", goal));
        for (side, times) in [("theirs", theirs), ("ours", ours)] {
            for millis in times {
                let cpu = Duration::from_millis(*millis);
                let answer = "same".to_owned();
                let sample = Sample {
                    cpu,
                    answer,
                    ..Sample::default()
                };
                result.add(side, sample);
            }
        }
        result
    }

    #[test]
    fn verdicts() {
        // Medians: one slow turn says nothing.
        assert_eq!(result(6.0, &[60, 61, 900], &[10, 10, 70]).verdict(), "met");
        assert_eq!(result(6.0, &[40], &[10]).verdict(), "over half");
        assert_eq!(result(6.0, &[20], &[10]).verdict(), "UNDER HALF");
        assert_eq!(result(6.0, &[], &[10]).verdict(), "-");
    }

    #[test]
    fn what_is_wanted_besides_is_judged_besides() {
        let mut result = result(6.0, &[60], &[10]);
        result.case.also = Some((Headline::Cpu, 20.0));
        assert_eq!(result.verdict(), "met; cpu 6.0 of 20: UNDER HALF");
    }

    #[test]
    fn answers_that_differ_count_for_nothing() {
        let mut result = result(1.0, &[20], &[10]);
        assert!(result.failed.is_none());
        let other = Sample {
            answer: "other".into(),
            ..Sample::default()
        };
        result.add("ours", other);
        assert_eq!(result.verdict(), "FAILED");
    }

    #[test]
    fn times_have_units() {
        let shown = |nanos| time(Duration::from_nanos(nanos));
        assert_eq!(shown(1_234), "1.23µs");
        assert_eq!(shown(12_345_000), "12.3ms");
        assert_eq!(shown(123_456_000), "123ms");
        assert_eq!(shown(1_500_000_000), "1.50s");
    }
}
