//! The comparison: every scenario before two managers at the same time, several scenarios at
//! once. What differs is played again alone with more patience before it counts.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use futures::stream::{self, StreamExt as _};

use super::outcome::Outcome;
use super::scenarios::{Scenario, all, chosen};
use super::side::Side;
use super::world::World;

/// Compares the controller managers of two directories of binaries.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Directory with our kube-controller-manager.
    pub ours: PathBuf,
    /// Directory with theirs.
    pub theirs: PathBuf,
    /// Directory with the kube-apiserver; theirs by default.
    #[arg(long)]
    pub api: Option<PathBuf>,
    /// Only scenarios whose names contain one of these.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Scenarios at the same time.
    #[arg(long, default_value_t = 12)]
    pub at_once: usize,
    /// How often what differs is played again; what depends on who is faster differs at times.
    #[arg(long, default_value_t = 2)]
    pub again: u32,
    /// Milliseconds without a change before anything is seen.
    #[arg(long, default_value_t = 1500)]
    pub quiet: u64,
    /// A directory to leave logs in.
    #[arg(long)]
    pub logs: Option<PathBuf>,
    /// Print what differs at first, too.
    #[arg(long)]
    pub verbose: bool,
}

/// A scenario before both.
struct Pair {
    name: String,
    theirs: Outcome,
    ours: Outcome,
    took: Duration,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A namespace that no scenario had before, and that no name of another begins with.
pub fn namespace() -> String {
    format!("sc{:04}x", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Plays one scenario before one manager.
pub async fn play(side: &Arc<Side>, scenario: &Scenario, name: &str, quiet: Duration) -> Outcome {
    let world = World::make(side, name, quiet).await;
    // One that does not find what it waited for may not know what to do next.
    if let Err(error) = tokio::spawn((scenario.play)(world.clone())).await {
        let why = error.to_string();
        let why = why.split_once(' ').map_or("", |(_, rest)| rest);
        let why = why.trim_start_matches(|c: char| c.is_ascii_digit());
        world.vain(&format!("the scenario ends early: {why}"));
    }
    world.finish()
}

async fn both(theirs: &Arc<Side>, ours: &Arc<Side>, scenario: &Scenario, quiet: Duration) -> Pair {
    let namespace = namespace();
    let start = Instant::now();
    let (theirs, ours) = futures::join!(
        play(theirs, scenario, &namespace, quiet),
        play(ours, scenario, &namespace, quiet),
    );
    Pair {
        name: scenario.name.clone(),
        theirs,
        ours,
        took: start.elapsed(),
    }
}

/// Runs it and prints what was seen.
///
/// # Errors
///
/// When a stand does not come up, or the managers differ.
pub async fn run(options: Options) -> Result<()> {
    let api = options.api.as_ref().unwrap_or(&options.theirs);
    let scenarios = chosen(all(), &options.only);
    let theirs = Side::start(api, &options.theirs, None).await?;
    let ours = Side::start(api, &options.ours, None).await?;
    theirs.ready().await?;
    ours.ready().await?;
    let start = Instant::now();
    let quiet = Duration::from_millis(options.quiet);
    let mut again = Vec::new();
    let mut same = 0;
    let mut vain = Vec::new();
    {
        let mut pairs = stream::iter(scenarios.iter().enumerate())
            .map(|(i, scenario)| {
                let (theirs, ours) = (&theirs, &ours);
                async move { (i, both(theirs, ours, scenario, quiet).await) }
            })
            .buffer_unordered(options.at_once.max(1));
        while let Some((i, pair)) = pairs.next().await {
            let took = pair.took.as_secs_f64();
            let alike = pair.theirs.differences(&pair.ours).is_empty();
            if alike && !pair.ours.vain.is_empty() {
                vain.push((pair.name.clone(), pair.ours.vain.clone()));
            }
            let word = if alike { "same" } else { "once more" };
            println!("{word:>10}  {took:6.1} s  {}", pair.name);
            if options.verbose {
                let differences = pair.theirs.differences(&pair.ours);
                differences.iter().for_each(|line| println!("{line}"));
            }
            if alike {
                same += 1;
            } else {
                again.push(i);
            }
            theirs.check()?;
            ours.check()?;
        }
    }
    let first = again.len();
    for attempt in 1..=options.again {
        let last = attempt == options.again;
        let patience = quiet * (attempt + 1);
        let (theirs, ours, scenarios) = (&theirs, &ours, &scenarios);
        let mut pairs = stream::iter(std::mem::take(&mut again))
            .map(|i| async move { (i, both(theirs, ours, &scenarios[i], patience).await) })
            .buffer_unordered(options.at_once.div_ceil(3));
        while let Some((i, pair)) = pairs.next().await {
            let differences = pair.theirs.differences(&pair.ours);
            let took = pair.took.as_secs_f64();
            if differences.is_empty() {
                same += 1;
                println!("{:>10}  {took:6.1} s  {}", "same", pair.name);
                continue;
            }
            again.push(i);
            if last {
                println!("\nDIFFERENT: {} (- theirs, + ours)", pair.name);
                differences.iter().for_each(|line| println!("{line}"));
            } else {
                println!("{:>10}  {took:6.1} s  {}", "once more", pair.name);
            }
        }
    }
    let different = again.len();
    for (name, what) in vain {
        println!("in vain for both: {name}: {}", what.join("; "));
    }
    println!(
        "\n{} scenarios in {:.0} s: {same} the same ({} of them only when played again), {different} different",
        scenarios.len(),
        start.elapsed().as_secs_f64(),
        first - different,
    );
    if let Some(to) = &options.logs {
        for (name, side) in [("theirs", &theirs), ("ours", &ours)] {
            let to = to.join(name);
            std::fs::create_dir_all(&to)?;
            for log in ["kube-apiserver.log", "kube-controller-manager.log"] {
                std::fs::copy(side.stand.home().join(log), to.join(log))?;
            }
        }
    }
    if different > 0 {
        bail!("{different} scenarios end differently");
    }
    Ok(())
}
