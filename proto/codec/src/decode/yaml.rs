//! YAML into a tree. As upstream does it, the text is made into JSON first, so that the
//! errors are those of the JSON; only duplicate keys are YAML's own.

use schema::Message;

use super::{DecodeError, Decoded, Strictness, json};
use crate::error::Error;
use crate::json::write;
use crate::yaml;

/// Reads a YAML body; only its first document counts.
///
/// # Errors
/// The body is no YAML, or a value does not fit its type.
pub fn yaml(
    msg: &'static Message,
    body: &[u8],
    strictness: Strictness,
) -> Result<Decoded, DecodeError> {
    let (text, duplicates) = to_json(body)?;
    let mut decoded = json(msg, &text, strictness)?;
    if strictness != Strictness::Ignore && !duplicates.is_empty() {
        let error = format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "));
        decoded.strict_errors.insert(0, error);
    }
    Ok(decoded)
}

/// YAML's first document as JSON text, with the keys that occur twice.
///
/// # Errors
/// The body is no YAML, or it holds what JSON does not have.
pub fn to_json(body: &[u8]) -> Result<(Vec<u8>, Vec<String>), DecodeError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Error::Syntax("yaml: invalid leading UTF-8 octet".into()))?;
    let parsed = yaml::parse(text)?;
    let mut json = Vec::with_capacity(text.len());
    write::value(&mut json, &parsed.value);
    Ok((json, parsed.duplicates))
}
