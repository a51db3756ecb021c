//! What the fuzz targets share: the first byte of an input picks the kind that the rest
//! is read as.

use schema::{Message, Resource};
use serde_json::Value;

/// Splits an input into a resource and the bytes to read as one of it.
pub fn resource(data: &[u8]) -> Option<(&'static Resource, &[u8])> {
    let (first, rest) = data.split_first()?;
    let resources = schema::resources();
    Some((&resources[*first as usize % resources.len()], rest))
}

/// Splits an input into a kind's message and the bytes to read as that kind.
pub fn kind(data: &[u8]) -> Option<(&'static Message, &[u8])> {
    resource(data).map(|(resource, rest)| (resource.message, rest))
}

/// What a resource's objects have as `apiVersion`.
pub fn api_version(resource: &Resource) -> String {
    meta::GroupVersion::new(resource.group, resource.version).to_string()
}

/// What is before the first NUL, and what is behind it.
pub fn halves(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = data.iter().position(|byte| *byte == 0)?;
    Some((&data[..at], &data[at + 1..]))
}

/// Reads two JSON values, an object and what is done to it, with a NUL in between.
pub fn pair(data: &[u8]) -> Option<(Value, Value)> {
    let (object, change) = halves(data)?;
    let read = |bytes| codec::decode::untyped(bytes).ok();
    Some((read(object)?, read(change)?))
}

/// Expects that what was written is read. Only times after the year 9999 are written as
/// nobody reads them, by us as by Go.
pub fn expect_read<T>(result: Result<T, codec::Error>) {
    if let Err(error) = result {
        let text = error.to_string();
        assert!(text.starts_with("parsing time "), "{text}");
    }
}
