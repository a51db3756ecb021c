//! Images: named, found, pulled. [`Images`] sees to it that a container's image is on the node.

mod credentials;
mod gc;
mod keyring;
mod manager;
pub mod plugins;
mod records;
mod reference;

pub use credentials::NodeFiles;
pub use gc::{ImageGc, Policy as GcPolicy};
pub use manager::{CredentialSources, ImageError, Images, PullLimits, PullRequest};
pub use records::{Policy as VerificationPolicy, Records};
pub use reference::Reference;
