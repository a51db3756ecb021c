//! What the fuzz targets share: the first byte of an input picks the kind that the rest
//! is read as.

use schema::Message;
use serde_json::Value;

/// Splits an input into a kind's message and the bytes to read as that kind.
pub fn kind(data: &[u8]) -> Option<(&'static Message, &[u8])> {
    let (first, rest) = data.split_first()?;
    let resources = schema::resources();
    Some((resources[*first as usize % resources.len()].message, rest))
}

/// Reads two JSON values, an object and what is done to it, with a NUL in between.
pub fn pair(data: &[u8]) -> Option<(Value, Value)> {
    let at = data.iter().position(|byte| *byte == 0)?;
    let read = |bytes| codec::decode::untyped(bytes).ok();
    Some((read(&data[..at])?, read(&data[at + 1..])?))
}

/// Expects that what was written is read. Only times after the year 9999 are written as
/// nobody reads them, by us as by Go.
pub fn expect_read<T>(result: Result<T, codec::Error>) {
    if let Err(error) = result {
        let text = error.to_string();
        assert!(text.starts_with("parsing time "), "{text}");
    }
}
