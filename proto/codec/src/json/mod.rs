//! JSON as Go writes and reads it. Nothing here knows a schema.

pub mod read;
pub mod write;

pub use read::nests;
