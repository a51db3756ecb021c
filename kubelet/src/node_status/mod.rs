//! The node as the API server shows it: registered, kept up to date, and kept alive by its lease.

pub mod declared;
pub mod facts;
pub mod lease;
mod news;
mod patch;
pub mod register;
pub mod runtime_state;
pub mod setters;
pub mod updater;
