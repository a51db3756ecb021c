//! JSON as Go writes and reads it. Nothing here knows a schema.

pub mod read;
pub mod write;

pub use read::nests;

/// Compact text, as Go's encoding/json writes what it has read into an `any`: members sorted,
/// what HTML would take for itself escaped.
pub fn text(value: &serde_json::Value) -> String {
    let mut out = Vec::new();
    write::value(&mut out, value);
    String::from_utf8(out).unwrap_or_default()
}
