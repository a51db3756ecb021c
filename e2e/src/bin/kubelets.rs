//! `e2e/kubelets`.

use clap::{Parser, Subcommand};
use e2e::kubelets::{self, bench};

/// Kubelets over a container runtime that runs nothing.
#[derive(Debug, Parser)]
#[command(name = "e2e/kubelets")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Options),
}

fn main() -> anyhow::Result<()> {
    let Command::Bench(options) = Options::parse().command;
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
