//! `e2e/scheduling`.

use clap::{Parser, Subcommand};
use e2e::scheduling::{bench, compare, devices, groups, nodes, rollout, workloads};

/// Schedulers over an API server without kubelets.
#[derive(Debug, Parser)]
#[command(name = "e2e/scheduling")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compare(compare::Options),
    Devices(devices::Options),
    Groups(groups::Options),
    Bench(bench::Options),
    Nodes(nodes::Options),
    Rollout(rollout::Options),
    Objects(workloads::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let work = async {
        match options.command {
            Command::Compare(options) => compare::run(options).await,
            Command::Devices(options) => devices::run(options).await,
            Command::Groups(options) => groups::run(options).await,
            Command::Bench(options) => bench::run(options).await,
            Command::Nodes(options) => nodes::run(options).await,
            Command::Rollout(options) => rollout::run(options).await,
            Command::Objects(options) => {
                workloads::print(&options);
                Ok(())
            }
        }
    };
    // Dropping what runs ends the servers.
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}
