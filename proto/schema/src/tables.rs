//! The tables that `build.rs` makes of the `.proto` files, and how they are searched.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::*;

/// What most fields are; the generated literals state only what differs.
const FIELD: Field = Field {
    json: "",
    number: 0,
    ty: Type::Bool,
    cardinality: Cardinality::One,
    pointer: false,
    omit: Omit::Empty,
    required: false,
    list_type: ListType::Unset,
    list_map_keys: &[],
    patch_strategy: PatchStrategy::Unset,
    patch_merge_key: None,
    default: None,
    enum_values: &[],
    format: None,
};

/// A field whose fields are the outer message's own in JSON.
const INLINE: Field = FIELD;

include!(concat!(env!("OUT_DIR"), "/tables.rs"));

/// Asked several times in every write, so looked up rather than searched for.
static BY_KIND: LazyLock<HashMap<(&str, &str, &str), &Message>> =
    LazyLock::new(|| KINDS.iter().copied().collect());

pub fn kind(group: &str, version: &str, kind: &str) -> Option<&'static Message> {
    BY_KIND.get(&(group, version, kind)).copied()
}

pub fn message(name: &str) -> Option<&'static Message> {
    let i = MESSAGES.binary_search_by(|m| m.name.cmp(name)).ok()?;
    Some(MESSAGES[i])
}
