//! The slim kinds: pods and nodes with only what controllers read, for the shared caches.
//!
//! What must not be here: rules of a controller, requests.

mod node;
pub mod pod;

pub use node::{Node, NodeCondition, Taint};
pub use pod::{ContainerStatus, Pod, Toleration};
