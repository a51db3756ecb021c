//! Volumes of CSI drivers: registered, attached (by others), staged once for the node, published
//! for each pod, and all of it back.
//!
//! `volume.rs` says what is asked of a driver for a volume, `data.rs` what is written down beside
//! it (upstream's files, so that either kubelet can take down what the other made); both are pure.
//! `drivers.rs` knows who has registered, `node_info.rs` tells the API server of it, `limits.rs` asks them
//! how many volumes they take, `client.rs` talks to them. `attach.rs` waits for the volume to be attached, `mount.rs` does the work.
//!
//! What must not be here: how a claim leads to a volume (`volumes/claims.rs`).

mod attach;
mod client;
mod data;
mod drivers;
mod limits;
mod mount;
mod node_info;
mod volume;

pub use attach::InUse;
pub use client::Usage;
pub use drivers::Drivers;
pub use mount::{Csi, CsiError, Setup};
pub use node_info::NodeInfo;
pub use volume::{CsiVolume, Resize};
