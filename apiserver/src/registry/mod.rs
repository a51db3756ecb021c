//! The generic registry.
pub mod columns;
pub mod deletion;
pub mod object_meta;
pub mod options;
pub mod strategy;
