//! YAML as sigs.k8s.io/yaml reads and writes it: YAML 1.1 scalars (`yes` is a boolean,
//! `0644` is octal), JSON's data model. Nothing here knows a schema.

mod read;
mod scalar;
mod write;

pub use read::parse;
pub use write::write;
