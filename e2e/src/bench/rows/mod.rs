//! The rows, by what they ask of the server.

mod consistent;
mod fanout;
mod informers;
mod limits;
mod lists;
mod restarts;
mod writes;

use anyhow::Result;

use super::Bench;

/// Measures every row that is wanted. Those that restart the servers come first, those
/// that write last.
pub async fn all(bench: &mut Bench) -> Result<()> {
    restarts::run(bench).await?;
    lists::run(bench).await?;
    informers::run(bench).await?;
    limits::run(bench).await?;
    consistent::run(bench).await?;
    fanout::run(bench).await?;
    writes::run(bench).await?;
    restarts::idle(bench).await
}
