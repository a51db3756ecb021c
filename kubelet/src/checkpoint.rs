//! What the files have in common that outlive the kubelet. Their formats are upstream's, so that
//! either kubelet goes on where the other stopped.

use std::fs;
use std::io;
use std::path::Path;

use crate::cri::hash::fnv1a_32;

/// Upstream's checksum: not of a file's text but of Go's dump of what it says (`%#v` of go-spew).
pub fn checksum(dump: &str) -> u64 {
    u64::from(fnv1a_32(dump.as_bytes()))
}

/// Replaces a file as a whole: whoever is killed in between leaves the old one.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// The file's text; `None` where it is not there.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Go's dump of a map: its entries in order.
pub fn dump_map<'a, K: 'a, V: 'a>(
    entries: impl IntoIterator<Item = (&'a K, &'a V)>,
    key: impl Fn(&K) -> String,
    value: impl Fn(&V) -> String,
) -> String {
    let entries = entries.into_iter();
    let entries = entries.map(|(k, v)| format!("{}:{}", key(k), value(v)));
    format!("map[{}]", entries.collect::<Vec<_>>().join(" "))
}
