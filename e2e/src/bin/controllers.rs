//! `e2e/controllers`.

use clap::{Parser, Subcommand};
use e2e::controllers::{compare, crash, scenarios};

/// Controller managers over an API server whose nodes are played.
#[derive(Debug, Parser)]
#[command(name = "e2e/controllers")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compare(compare::Options),
    Crash(crash::Options),
    /// Prints the names of all scenarios.
    List,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let work = async {
        match options.command {
            Command::Compare(options) => compare::run(options).await,
            Command::Crash(options) => crash::run(options).await,
            Command::List => {
                let all = scenarios::all();
                all.iter()
                    .for_each(|scenario| println!("{}", scenario.name));
                println!("{} scenarios", all.len());
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
