//! Changes of pods, as schedulers make them.

pub use crate::stand::watch::Changes;
