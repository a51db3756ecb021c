//! Faults: a manager that is killed after every few of its writes, before it learns that the
//! last was stored, brings every scenario to the end that one reaches in peace.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use futures::stream::{self, StreamExt as _};

use super::compare::{namespace, play};
use super::outcome::Outcome;
use super::scenarios::{Scenario, all, chosen};
use super::side::Side;

/// Kills a controller manager after every few writes.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Directory with the kube-controller-manager.
    pub bin: PathBuf,
    /// Directory with the kube-apiserver; the same by default.
    #[arg(long)]
    pub api: Option<PathBuf>,
    /// Only scenarios whose names contain one of these.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// After how many writes each life ends; one round for each number.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    pub writes: Vec<u64>,
    /// Scenarios at the same time.
    #[arg(long, default_value_t = 6)]
    pub at_once: usize,
    /// Milliseconds without a change before anything is seen; a manager that starts anew
    /// must have had the time to do something.
    #[arg(long, default_value_t = 4000)]
    pub quiet: u64,
}

/// Far more than any scenario writes.
const PEACE: u64 = u64::MAX;

struct Round {
    outcomes: Vec<Outcome>,
    killed: u64,
    passed: u64,
}

/// Runs it and prints what was seen.
///
/// # Errors
///
/// When a stand does not come up, or an end differs.
pub async fn run(options: Options) -> Result<()> {
    let start = Instant::now();
    let peaceful = round(&options, PEACE).await?;
    let scenarios = endurable(&options);
    println!(
        "in peace: {} scenarios, {} writes, {:.0} s",
        scenarios.len(),
        peaceful.passed,
        start.elapsed().as_secs_f64()
    );
    let mut different = 0;
    for writes in &options.writes {
        let start = Instant::now();
        let round = round(&options, *writes).await?;
        let mut here = 0;
        for (i, scenario) in scenarios.iter().enumerate() {
            let differences = peaceful.outcomes[i].differences(&round.outcomes[i]);
            if differences.is_empty() {
                continue;
            }
            here += 1;
            println!("\nDIFFERENT: {} (- in peace, + killed)", scenario.name);
            differences.iter().for_each(|line| println!("{line}"));
        }
        println!(
            "a life of {writes} writes: {} writes, killed {} times, {:.0} s, {here} of {} scenarios end differently",
            round.passed,
            round.killed,
            start.elapsed().as_secs_f64(),
            scenarios.len()
        );
        different += here;
    }
    if different > 0 {
        bail!("{different} ends are different");
    }
    Ok(())
}

/// The chosen scenarios that go on in the next life where the last one ended.
fn endurable(options: &Options) -> Vec<Scenario> {
    let mut scenarios = chosen(all(), &options.only);
    scenarios.retain(|scenario| !scenario.whole);
    scenarios
}

/// Plays them before a manager whose lives last so many writes.
async fn round(options: &Options, writes: u64) -> Result<Round> {
    let api = options.api.as_ref().unwrap_or(&options.bin);
    let side = Side::start(api, &options.bin, Some(writes)).await?;
    let gate = side.gate.clone().expect("it was asked for");
    let scenarios = endurable(options);
    let quiet = Duration::from_millis(options.quiet);
    let mut killed = 0;
    let playing = async {
        side.ready().await?;
        let mut outcomes = vec![Outcome::default(); scenarios.len()];
        let mut playing = stream::iter(scenarios.iter().enumerate())
            .map(|(i, scenario)| {
                let side: &Arc<Side> = &side;
                async move { (i, play(side, scenario, &namespace(), quiet).await) }
            })
            .buffer_unordered(options.at_once.max(1));
        while let Some((i, outcome)) = playing.next().await {
            println!("{:>8} writes  {}", gate.passed(), scenarios[i].name);
            outcomes[i] = outcome;
        }
        anyhow::Ok(outcomes)
    };
    let killing = async {
        loop {
            gate.spent().await;
            killed += 1;
            if let Err(error) = side.kill_and_start() {
                return error;
            }
        }
    };
    let outcomes = tokio::select! {
        outcomes = playing => outcomes?,
        error = killing => return Err(error),
    };
    Ok(Round {
        outcomes,
        killed,
        passed: gate.passed(),
    })
}
