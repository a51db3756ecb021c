//! Kubernetes' wire forms: JSON and YAML text, and protobuf in its `k8s\0` envelope, read
//! and written exactly as upstream reads and writes them.
//!
//! Everything is driven by the tables of the `schema` crate; no kind is named here. There
//! are four ways through, from cheap to comfortable:
//!
//! - [`envelope`], [`meta_splice`], [`list`] and [`watch_event`] move bytes around without
//!   looking into them;
//! - [`transcode`] turns one wire form into the other with no tree in between;
//! - [`serde_pb`] lets any serde type read and write protobuf;
//! - [`decode`] and [`tree`] give a [`serde_json::Value`] of what is to be written or
//!   evaluated, checked against the schema with upstream's errors.
//!
//! What must not be here: defaults, validation of values, conversion between versions.

mod assemble;
pub mod decode;
pub mod envelope;
pub mod error;
mod index;
pub mod json;
pub mod list;
pub mod meta_splice;
pub mod serde_pb;
mod special;
pub mod transcode;
pub mod tree;
pub mod watch_event;
mod wire;
mod yaml;

pub use special::fields_v1::compare as compare_values;
pub use special::time::Instant;
pub use yaml::write as write_yaml;

pub use error::{Error, Result};

/// How deep objects may nest, which is encoding/json's bound and go-yaml's. Whoever reads
/// objects does so on threads whose stacks suffice for it (`component::STACK`).
pub const MAX_DEPTH: usize = 10_000;

/// Runs a test on a thread like the daemons'.
#[cfg(test)]
fn on_a_deep_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(512 << 20);
    thread.spawn(test).unwrap().join().unwrap();
}

/// The message of a kind, by the API version as objects state it.
pub(crate) fn message_of(api_version: &str, kind: &str) -> Result<&'static schema::Message> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    schema::kind(group, version, kind).ok_or_else(|| {
        Error::value(format!(
            "no kind \"{kind}\" is registered for version \"{api_version}\""
        ))
    })
}
