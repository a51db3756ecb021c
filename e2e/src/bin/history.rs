//! `e2e/history`.

use clap::Parser as _;
use e2e::history::{Options, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // Dropping what runs ends the servers.
    tokio::select! {
        done = run(options) => done,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}
