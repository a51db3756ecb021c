//! What the API says of each kind beyond its shape: defaults, validation, warnings, and the
//! predicates that several daemons must agree on.
//!
//! Pure: no clock, no client, no randomness. Objects are trees
//! (`serde_json::Value`) of one served version, checked against the schema before
//! they come here, so a field that is present has the type that the schema says.
//!
//! What must not be here: what only the API server does around a write (uid,
//! generation, status wiping: `apiserver/src/registry`), admission.

pub mod cron;
pub mod csi_translation;
pub mod defaults;
pub mod placement;
pub mod pod_security;
pub mod quota;
pub mod resources;
pub mod same;
pub mod validation;
pub mod warnings;
