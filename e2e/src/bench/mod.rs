//! The benchmark of the API server: the same work on two directories of binaries, in
//! turns, and the ratios.
//!
//! Each side has an etcd with a copy of the same data and a kube-apiserver with the
//! same flags and certificates. The headline is the CPU time per operation of the
//! apiserver's process; what only the driver or etcd does is not in it. Every answer
//! that counts is checked: the number of items, that two servers of the same data say
//! the same, that revisions grow, that every event comes once and in order.
//!
//! What must not be here: knowledge of how either server is made.

mod measure;
mod notices;
mod options;
pub mod proto;
mod report;
mod rows;
pub mod scan;
mod seed;

pub use measure::{Bench, Case, Headline, Sample, Side};
pub use options::Options;

use anyhow::Result;

/// Seeds, starts, measures, prints.
///
/// # Errors
///
/// When a server cannot be started, or the results cannot be written.
pub async fn run(options: Options) -> Result<()> {
    let mut bench = Bench::start(options).await?;
    rows::all(&mut bench).await?;
    bench.finish()
}
