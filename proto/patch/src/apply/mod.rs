//! Server-side apply and the managers of fields (KEP-555, structured-merge-diff): every field
//! of an object has managers; who changes a field by an update owns it, who applies a field
//! shares it, and an applier that leaves out what it applied before takes it away.
//!
//! [`Request`] is where to start: [`Request::update`] keeps the books after any write,
//! [`Request::apply`] merges what a client applies.
//!
//! What must not be here: storage, HTTP, the clock.

mod compare;
mod fields_v1;
mod known;
mod managed;
mod merge;
mod owned;
mod remove;
mod set;
#[cfg(test)]
mod tests;
mod typed;
mod update;
mod validate;

pub use managed::{Entry, Identity, Managed, Operation};
pub use set::{Element, Set};
pub use update::{Conflict, Error, LAST_APPLIED, Request, Versions};
