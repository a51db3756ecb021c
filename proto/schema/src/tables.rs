//! The tables that `build.rs` makes of the `.proto` files.

use crate::*;

pub static RESOURCES: &[Resource] = &[];

pub fn kind(_group: &str, _version: &str, _kind: &str) -> Option<&'static Message> {
    None
}

pub fn message(_name: &str) -> Option<&'static Message> {
    None
}
