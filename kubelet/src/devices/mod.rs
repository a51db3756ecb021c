//! Device plugins (KEP-3573): plugins tell of the node's devices, pods ask for them by number, and
//! the kubelet picks them and has the plugin say what a container needs to use them.
//!
//! `inventory.rs` knows which devices there are and who has them, `choose.rs` which ones a container
//! gets, `hints.rs` where they could be had; these are pure, and `checkpoint.rs` is what outlives
//! the kubelet. `server.rs` lets plugins register, `plugin.rs` is the conversation with one of them,
//! `manager.rs` puts all together.
//!
//! What must not be here: devices that claims bring (`dra/`), and where a pod as a whole is best
//! placed (`topology/`).

mod checkpoint;
mod choose;
#[cfg(test)]
pub mod fake;
mod hints;
mod inventory;
mod manager;
mod plugin;
mod server;

use std::collections::BTreeMap;

use grpc::cri;
use grpc::plugins::devices::ContainerAllocateResponse;

pub use inventory::Capacity;
pub use manager::{Devices, Setup};
pub use server::serve;

/// What a container needs to use its devices.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    pub env: BTreeMap<String, String>,
    pub mounts: Vec<cri::Mount>,
    pub devices: Vec<cri::Device>,
    pub annotations: BTreeMap<String, String>,
    /// Names of devices that the runtime finds itself.
    pub cdi_devices: Vec<String>,
}

/// Puts together what plugins have said. Of two that say something of the same, the first counts.
fn options<'a>(responses: impl Iterator<Item = &'a ContainerAllocateResponse>) -> Options {
    let mut options = Options::default();
    for response in responses {
        for (key, value) in &response.envs {
            let known = options.env.entry(key.clone());
            known.or_insert_with(|| value.clone());
        }
        for (key, value) in &response.annotations {
            let known = options.annotations.entry(key.clone());
            known.or_insert_with(|| value.clone());
        }
        for mount in &response.mounts {
            let path = &mount.container_path;
            if options
                .mounts
                .iter()
                .all(|known| known.container_path != *path)
            {
                options.mounts.push(cri::Mount {
                    container_path: path.clone(),
                    host_path: mount.host_path.clone(),
                    readonly: mount.read_only,
                    ..Default::default()
                });
            }
        }
        for device in &response.devices {
            let path = &device.container_path;
            if options
                .devices
                .iter()
                .all(|known| known.container_path != *path)
            {
                options.devices.push(cri::Device {
                    container_path: path.clone(),
                    host_path: device.host_path.clone(),
                    permissions: device.permissions.clone(),
                });
            }
        }
        for device in &response.cdi_devices {
            if !options.cdi_devices.contains(&device.name) {
                options.cdi_devices.push(device.name.clone());
            }
        }
    }
    options
}
