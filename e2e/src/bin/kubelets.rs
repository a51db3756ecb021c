//! `e2e/kubelets`.

use clap::{Parser, Subcommand};
use e2e::kubelets::{self, bench, pressure, racer, restarts};

/// What kubelets cost, and what pods notice of their deaths.
#[derive(Debug, Parser)]
#[command(name = "e2e/kubelets")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Options),
    Restarts(restarts::Options),
    Racer(racer::Options),
    Pressure(pressure::Options),
}

fn main() -> anyhow::Result<()> {
    let options = match Options::parse().command {
        Command::Bench(options) => options,
        Command::Restarts(options) => return restarts::run(&options),
        Command::Racer(options) => return racer::run(&options),
        Command::Pressure(options) => return pressure::run(&options),
    };
    bench::check(&options)?;
    // Before there are threads, which would stay outside.
    kubelets::enter()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        // Dropping what runs ends the servers.
        tokio::select! {
            done = bench::run(options) => done,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    })
}
