//! Volumes: made and refreshed for a pod, mounted into its containers, taken away with it.

mod atomic_writer;
mod claims;
pub mod csi;
pub mod disks;
mod empty_dir;
mod host_path;
mod manager;
pub mod mounts;
mod nfs;
pub mod objects;
mod ownership;
mod persistent;
mod projection;
mod stats;
mod sub_path;
mod tokens;

pub use manager::{Mounted, MountedVolumes, VolumeContext, VolumeError, Volumes, make_pod_dirs};
pub use objects::Objects;
pub use stats::VolumeStats;
pub use tokens::{TokenError, Tokens};
