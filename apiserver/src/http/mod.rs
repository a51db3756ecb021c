//! HTTP: what a request asks for, the filter chain, negotiation, and the writers of
//! objects, lists and watches.
//!
//! What must not be here: what a verb does to an object (`registry/`).

pub mod negotiate;
pub mod query;
pub mod request_info;
