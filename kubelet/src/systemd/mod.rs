//! systemd, where it runs the machine: its units, and the sessions' manager that knows when the
//! machine is about to go down. Both are spoken to over D-Bus, as upstream does.

#[cfg(test)]
pub mod fake;
mod logind;
mod units;

use std::time::Duration;

use thiserror::Error;
use zbus::{Connection, connection};

pub use logind::{Logind, set_delay};
pub use units::{Property, Units};

/// Why systemd has not done what it was to do.
#[derive(Debug, Error)]
pub enum SystemdError {
    #[error("{0}")]
    Bus(#[from] zbus::Error),
    #[error("the job of systemd ended with {0:?}")]
    Job(String),
    #[error("systemd has not done it within {} seconds", PATIENCE.as_secs())]
    Late,
}

/// How long systemd may take for a unit, and to answer; upstream's as well.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where systemd listens itself, for when there is no bus, or not yet.
const PRIVATE: &str = "unix:path=/run/systemd/private";

/// The system's bus: `DBUS_SYSTEM_BUS_ADDRESS` says where it is, if it is elsewhere.
async fn system_bus() -> zbus::Result<Connection> {
    let builder = connection::Builder::system()?.method_timeout(PATIENCE);
    builder.build().await
}

/// systemd, by the bus or without one.
async fn manager() -> zbus::Result<Connection> {
    let no_bus = match system_bus().await {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    let builder = connection::Builder::address(PRIVATE)?.p2p();
    let direct = builder.method_timeout(PATIENCE).build().await;
    // Where neither is, the bus is what people know.
    direct.map_err(|_| no_bus)
}
