//! The history checker: many clients write, read and watch while the API server, or
//! the leader of its etcd, is killed again and again; then the books are checked.
//!
//! - [`record`] is what clients wrote down, and what etcd says really happened;
//! - [`check`] compares the two, and `answers` says what may be answered at all. They are
//!   pure: they can be, and are, given bad histories;
//! - `clients` and `run` make histories; `objects` and `wire` are what is sent and read.
//!
//! What must not be here: knowledge of whose binaries are tested.

mod answers;
mod check;
mod clients;
mod objects;
pub mod record;
mod run;
#[cfg(test)]
mod tests;
mod wire;

pub use check::check;
pub use run::{Options, run};
