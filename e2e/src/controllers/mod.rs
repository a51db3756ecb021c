//! Controller managers against an API server whose nodes are played: do two of them bring the
//! same scenarios to the same end, and does one that is killed after any write?
//!
//! - [`compare`] plays every scenario before two managers and compares the objects that are
//!   left and the events that were told;
//! - [`crash`] plays them before one that is killed after every few writes, and compares with
//!   one that is not;
//! - [`scenarios`] is the list; [`world`] the words that scenarios are written in.
//!
//! What must not be here: knowledge of how either manager is made.

pub mod compare;
pub mod crash;
mod gate;
mod kinds;
pub(crate) mod kubelet;
mod manager;
mod mirror;
mod names;
mod outcome;
pub mod scenarios;
pub(crate) mod side;
mod world;

pub use world::World;
