//! `e2e/bench`.

use clap::Parser as _;
use e2e::bench::{Options, run};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // A thousand watchers are a thousand connections, here and in the servers.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    // Dropping what runs ends the servers.
    tokio::select! {
        done = run(options) => done,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}
