//! What plugins have said, as long as they said that it is good. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::Coordinates;
use super::Login;

/// How often what has expired goes, whoever asks for what.
const PURGE: Duration = Duration::from_secs(15 * 60);
/// What is good for all images. No image is called so.
const GLOBAL: &str = "<global>";

/// For which service account, if any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    pub account: (String, String, String),
    pub annotations: BTreeMap<String, String>,
    /// A hash of it.
    pub token: Option<[u8; 32]>,
}

impl From<Coordinates> for (String, String, String) {
    fn from(of: Coordinates) -> Self {
        (of.namespace, of.name, of.uid)
    }
}

/// What credentials are kept for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// An image, a registry, or all.
    pub about: String,
    pub scope: Scope,
}

/// What a `cacheKeyType` means for an image; `None`: it is none.
pub fn key(key_type: &str, image: &str) -> Option<String> {
    match key_type {
        "Image" => Some(image.to_owned()),
        "Registry" => Some(registry(image).to_owned()),
        "Global" => Some(GLOBAL.to_owned()),
        _ => None,
    }
}

fn registry(image: &str) -> &str {
    image.split('/').next().unwrap_or_default()
}

/// By the images that they are for.
type Logins = BTreeMap<String, Login>;

#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Key, (Logins, Instant)>,
    purged: Option<Instant>,
}

impl Cache {
    /// What is good for the image, its registry, or all.
    pub fn get(&mut self, image: &str, scope: &Scope, now: Instant) -> Option<Logins> {
        if now >= *self.purged.get_or_insert(now) + PURGE {
            self.entries.retain(|_, (_, until)| now <= *until);
            self.purged = Some(now);
        }
        let candidates = [image, registry(image), GLOBAL];
        candidates.into_iter().find_map(|about| {
            let key = Key {
                about: about.to_owned(),
                scope: scope.clone(),
            };
            let (logins, until) = self.entries.get(&key)?;
            (now <= *until).then(|| logins.clone())
        })
    }

    pub fn put(&mut self, about: String, scope: Scope, logins: Logins, until: Instant) {
        self.entries.insert(Key { about, scope }, (logins, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_good_for_a_while() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        let none = Scope::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        let about = |key_type| key(key_type, "a.io/x").unwrap();
        assert_eq!(key("Other", "a.io/x"), None);
        cache.put(about("Registry"), none.clone(), Logins::new(), at(60));
        assert!(cache.get("a.io/y", &none, at(60)).is_some());
        assert!(cache.get("b.io/y", &none, at(60)).is_none());
        assert!(cache.get("a.io/y", &none, at(61)).is_none());
        let other = Scope {
            account: ("ns".into(), "sa".into(), "uid".into()),
            ..Scope::default()
        };
        cache.put(about("Global"), other.clone(), Logins::new(), at(60));
        assert!(cache.get("b.io/y", &other, at(60)).is_some());
        assert!(cache.get("b.io/y", &none, at(60)).is_none());
        assert_eq!(cache.entries.len(), 2);
        cache.get("b.io/y", &none, at(3600));
        assert!(cache.entries.is_empty());
    }
}
