//! Straight from one wire form to the other, with no tree in between.

mod to_json;
mod to_proto;

pub(crate) use to_json::omitted;
pub use to_json::proto_to_json;
pub use to_proto::json_to_proto;
