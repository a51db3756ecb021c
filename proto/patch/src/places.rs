//! Where the items of a list are, by what tells them apart. Lists are short, and a search is
//! all they need; but a body may hold one of a hundred thousand items.

use std::collections::HashMap;

use serde_json::Value;

/// A list of so many items is searched from its beginning.
pub const SHORT: usize = 32;

/// The value that tells an item apart: itself, or that of its merge key.
pub fn identity<'a>(item: &'a Value, key: &str) -> Option<&'a Value> {
    if key.is_empty() {
        Some(item)
    } else {
        item.get(key)
    }
}

/// The places of a list's items; equal ones are where the first of them is.
pub struct Places<'a> {
    items: &'a [Value],
    key: &'a str,
    /// Of a long list.
    by_identity: Option<HashMap<&'a Value, usize>>,
}

impl<'a> Places<'a> {
    pub fn new(items: &'a [Value], key: &'a str) -> Self {
        let by_identity = (items.len() > SHORT).then(|| {
            let known = items.iter().enumerate().rev();
            known
                .filter_map(|(at, item)| Some((identity(item, key)?, at)))
                .collect()
        });
        Self {
            items,
            key,
            by_identity,
        }
    }

    /// The item that has this identity.
    pub fn of(&self, wanted: &Value) -> Option<usize> {
        match &self.by_identity {
            Some(places) => places.get(wanted).copied(),
            None => {
                let mut items = self.items.iter();
                items.position(|item| identity(item, self.key) == Some(wanted))
            }
        }
    }

    /// The item that is the same as this one.
    pub fn same_as(&self, item: &Value) -> Option<usize> {
        self.of(identity(item, self.key)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn short_and_long_lists_are_alike() {
        for count in [SHORT, SHORT + 1] {
            let mut items: Vec<Value> = (0..count).map(|i| json!({"name": i, "x": 1})).collect();
            items[7] = json!({"name": 3});
            items[8] = json!("no map");
            let places = Places::new(&items, "name");
            assert_eq!(places.of(&json!(3)), Some(3));
            assert_eq!(places.of(&json!(count - 1)), Some(count - 1));
            assert_eq!(places.of(&json!(7)), None);
            assert_eq!(places.same_as(&json!({"name": 5})), Some(5));
            assert_eq!(places.same_as(&json!({"x": 1})), None);
            assert_eq!(Places::new(&items, "").same_as(&json!("no map")), Some(8));
        }
    }
}
