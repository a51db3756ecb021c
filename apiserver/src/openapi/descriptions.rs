//! What types and fields are for, as `build.rs` has collected it: kept compressed, read one
//! package at a time while a document is rendered, and forgotten with it.
//!
//! What must not be here: which types there are (the schema).

use std::collections::HashMap;
use std::io::Read as _;

include!(concat!(env!("OUT_DIR"), "/descriptions.rs"));

static BLOB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.bin"));

/// The packages read so far.
#[derive(Default)]
pub struct Descriptions {
    packages: HashMap<String, Package>,
}

/// The text of a package and, by type and field, where in it a description is.
#[derive(Default)]
struct Package {
    text: String,
    index: HashMap<(String, String), std::ops::Range<usize>>,
}

impl Descriptions {
    /// The description of a field of a model such as `io.k8s.api.core.v1.Pod`, or of the
    /// model itself (an empty field).
    pub fn get(&mut self, model: &str, field: &str) -> Option<&str> {
        let (package, name) = model.rsplit_once('.')?;
        if !self.packages.contains_key(package) {
            self.packages.insert(package.to_owned(), read(package));
        }
        let package = &self.packages[package];
        let range = package.index.get(&(name.to_owned(), field.to_owned()))?;
        Some(&package.text[range.clone()])
    }
}

fn read(package: &str) -> Package {
    let Ok(i) = PACKAGES.binary_search_by(|(name, ..)| (*name).cmp(package)) else {
        return Package::default();
    };
    let (_, start, end) = PACKAGES[i];
    let mut text = String::new();
    if let Err(error) =
        flate2::read::DeflateDecoder::new(&BLOB[start..end]).read_to_string(&mut text)
    {
        tracing::error!(%error, package, "descriptions cannot be read");
        return Package::default();
    }
    let mut index = HashMap::new();
    let offset = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
    for of_type in text.split('\x1d').skip(1) {
        let mut parts = of_type.split('\x1e');
        let name = parts.next().unwrap_or_default();
        for part in parts {
            if let Some((field, description)) = part.split_once('\x1f') {
                let start = offset(description);
                let key = (name.to_owned(), field.to_owned());
                index.insert(key, start..start + description.len());
            }
        }
    }
    Package { text, index }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_are_described() {
        let mut all = Descriptions::default();
        let pod = all.get("io.k8s.api.core.v1.PodSpec", "").unwrap();
        assert_eq!(pod, "PodSpec is a description of a pod.");
        let image = all.get("io.k8s.api.core.v1.Container", "image").unwrap();
        assert!(image.contains("https://kubernetes.io/docs/concepts/containers/images"));
        let affinity = all.get("io.k8s.api.core.v1.PodSpec", "affinity").unwrap();
        assert!(affinity.contains("scheduling constraints"));
        assert!(all.get("io.k8s.api.core.v1.PodSpec", "nope").is_none());
    }
}
