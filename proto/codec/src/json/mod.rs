//! JSON as Go writes and reads it. Nothing here knows a schema.

pub mod read;
pub mod spelling;
pub mod write;

pub use read::nests;

/// Compact text in which a number is what it was in the text that was read, `3.0` not being a
/// whole one, and what HTML would take for itself is escaped.
pub fn compacted(value: &serde_json::Value) -> String {
    let text = value.to_string();
    let mut out = Vec::with_capacity(text.len());
    match write::compact(&mut out, text.as_bytes()) {
        Ok(()) => String::from_utf8(out).unwrap_or_default(),
        Err(_) => text,
    }
}

/// Compact text, as Go's encoding/json writes what it has read into an `any`: members sorted,
/// what HTML would take for itself escaped.
pub fn text(value: &serde_json::Value) -> String {
    let mut out = Vec::new();
    write::value(&mut out, value);
    String::from_utf8(out).unwrap_or_default()
}
