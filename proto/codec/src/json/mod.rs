//! JSON as Go writes and reads it. Nothing here knows a schema.

mod lenient;
pub mod read;
pub mod spelling;
pub mod write;

pub use lenient::from_text;
pub use read::nests;

/// Compact text of members in the order in which they come, a struct's being the one in which it
/// has them; numbers are what they were in the text that was read, `3.0` not being a whole one, and
/// what HTML would take for itself is escaped.
pub fn compacted(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
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
