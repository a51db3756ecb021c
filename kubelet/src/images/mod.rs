//! Images: named, found, pulled. [`Images`] sees to it that a container's image is on the node.

mod credentials;
mod manager;
mod reference;

pub use manager::{ImageError, Images, PullRequest};
