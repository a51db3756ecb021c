//! Images: named, found, pulled. [`Images`] sees to it that a container's image is on the node.

mod credentials;
mod gc;
mod manager;
mod reference;

pub use gc::{ImageGc, Policy as GcPolicy};
pub use manager::{ImageError, Images, PullLimits, PullRequest};
pub use reference::Reference;
