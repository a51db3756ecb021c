//! HTTP: what a request asks for, the filter chain, negotiation, and the writers of
//! objects, lists and watches.
//!
//! What must not be here: what a verb does to an object (`registry/`).

pub mod authorization;
mod batches;
pub mod body;
pub mod chain;
pub mod context;
pub mod debug;
pub mod encode;
pub mod impersonation;
pub mod in_flight;
mod indent;
pub mod metrics;
pub mod negotiate;
pub mod pace;
pub mod paths;
pub mod query;
pub mod request_info;
pub mod stop;
pub mod verbs;
pub mod warnings;
pub mod websocket;
