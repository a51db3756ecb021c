//! Dynamic resource allocation on the node (KEP-4381): the claims of a pod are prepared by their
//! drivers before its sandbox is made, and given up once its containers have stopped.
//!
//! `names.rs` says which claims a pod and a container use, `claims.rs` what is known of each, in a
//! file that outlives the kubelet; `drivers.rs` which drivers there are, `health.rs` how their
//! devices are. `manager.rs` puts them together.
//!
//! What must not be here: the allocation. The scheduler has made it before.

mod claims;
mod drivers;
mod health;
mod manager;
mod names;

pub use claims::Claims;
pub use drivers::{Changed, Drivers, WIPE_AFTER};
pub use health::Health;
pub use manager::Dra;
