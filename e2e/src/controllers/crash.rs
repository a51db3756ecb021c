//! Faults: a manager that is killed after writes of each kind, or after every few, before it
//! learns that the last was stored, brings every scenario to the end that one reaches in peace.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use futures::stream::{self, StreamExt as _};

use super::compare::{namespace, play};
use super::gate::{Lives, Seen};
use super::outcome::Outcome;
use super::scenarios::{Scenario, all, chosen};
use super::side::Side;

/// Kills a controller manager after writes of each kind, or after every few.
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
    /// How many lives each kind of write ends: of each part of the manager, by method and
    /// resource.
    #[arg(long, default_value_t = 3)]
    pub each: u64,
    /// Instead, after how many writes of any kind each life ends; one round for each number.
    #[arg(long, value_delimiter = ',')]
    pub writes: Vec<u64>,
    /// Scenarios at the same time.
    #[arg(long, default_value_t = 12)]
    pub at_once: usize,
    /// Milliseconds without a change before anything is seen; a manager that starts anew
    /// must have had the time to do something.
    #[arg(long, default_value_t = 4000)]
    pub quiet: u64,
}

/// As long as nobody is killed.
const QUIET: Duration = Duration::from_millis(1500);

struct Round {
    outcomes: Vec<Outcome>,
    killed: u64,
    seen: BTreeMap<String, Seen>,
    took: Duration,
}

impl Round {
    fn passed(&self) -> u64 {
        self.seen.values().map(|seen| seen.passed).sum()
    }
}

/// Runs it and prints what was seen.
///
/// # Errors
///
/// When a stand does not come up, or an end differs.
pub async fn run(options: Options) -> Result<()> {
    let peaceful = round(&options, Lives::Endless).await?;
    let scenarios = endurable(&options);
    println!(
        "in peace: {} scenarios, {} writes, {:.0} s",
        scenarios.len(),
        peaceful.passed(),
        peaceful.took.as_secs_f64()
    );
    let mut rounds: Vec<Lives> = options.writes.iter().copied().map(Lives::Writes).collect();
    if rounds.is_empty() {
        rounds.push(Lives::Kinds(options.each));
    }
    let mut different = 0;
    for lives in rounds {
        let round = round(&options, lives).await?;
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
        if let Lives::Kinds(_) = lives {
            println!("\nlives ended by, of writes");
            for (kind, seen) in &round.seen {
                println!("{:>4} {:>6}  {kind}", seen.last, seen.passed);
            }
        }
        println!(
            "{lives}: {} writes of {} kinds, {} times in all, {:.0} s, {here} of {} scenarios end differently",
            round.passed(),
            round.seen.len(),
            round.killed,
            round.took.as_secs_f64(),
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

/// Plays them before a manager that has such lives.
async fn round(options: &Options, lives: Lives) -> Result<Round> {
    let start = Instant::now();
    let api = options.api.as_ref().unwrap_or(&options.bin);
    let side = Side::start(api, &options.bin, Some(lives)).await?;
    let gate = side.gate.clone().expect("it was asked for");
    let scenarios = endurable(options);
    let quiet = match lives {
        Lives::Endless => QUIET,
        _ => Duration::from_millis(options.quiet),
    };
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
        seen: gate.seen(),
        took: start.elapsed(),
    })
}
