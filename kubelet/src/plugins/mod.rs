//! A node's plugins: each makes itself known by a socket below `plugins_registry`, is asked there
//! what it is, and told whether it was taken. `sockets.rs` finds the sockets, `registry.rs` does the
//! rest.
//!
//! What must not be here: what a kind of plugin is good for. That is its [`Handler`]'s.

#[cfg(test)]
pub mod fake;
mod registry;
mod sockets;

use futures::future::BoxFuture;

pub use registry::{Handlers, Registry};

/// A plugin, as it presents itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// `CSIPlugin`, `DRAPlugin`, `DevicePlugin`.
    pub kind: String,
    pub name: String,
    /// The socket that it serves on.
    pub endpoint: String,
    /// Versions, or services, that it offers.
    pub versions: Vec<String>,
}

/// Whoever works with one kind of plugin. Errors are texts that the plugin is told.
pub trait Handler: Send + Sync + 'static {
    /// # Errors
    /// When there is no way of working with it.
    fn validate(&self, plugin: &Plugin) -> Result<(), String>;

    /// The plugin is there from now on.
    ///
    /// # Errors
    /// When it is of no use after all; it is tried again later.
    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>>;

    /// The plugin's socket is gone, or is another one.
    fn deregister(&self, plugin: &Plugin);
}
