//! The sessions' manager, logind: it tells that the machine is about to go down, and waits a while
//! for those who have asked it to.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use zbus::proxy::CacheProperties;
use zbus::zvariant::OwnedFd;
use zbus::{Connection, proxy};

use super::units::ManagerProxy;

#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1",
    gen_blocking = false
)]
trait Login {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;
    #[zbus(property(emits_changed_signal = "false"), name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> zbus::Result<u64>;
    #[zbus(signal)]
    fn prepare_for_shutdown(&self, begins: bool) -> zbus::Result<()>;
}

/// A connection to logind.
pub struct Logind {
    login: LoginProxy<'static>,
    systemd: ManagerProxy<'static>,
}

/// Told when the machine begins to go down, and when that has been called off.
pub struct Shutdowns(PrepareForShutdownStream);

impl Shutdowns {
    /// Whether the machine goes down now; `None` when logind cannot be heard any more.
    pub async fn next(&mut self) -> Option<bool> {
        loop {
            let told = self.0.next().await?;
            // What does not say whether is no word of logind's.
            if let Ok(told) = told.args() {
                return Some(told.begins);
            }
        }
    }
}

impl Logind {
    /// # Errors
    /// When there is no bus.
    pub async fn connect() -> zbus::Result<Self> {
        Self::over(&super::system_bus().await?).await
    }

    /// # Errors
    /// When the connection is lost.
    pub async fn over(connection: &Connection) -> zbus::Result<Self> {
        let login = LoginProxy::builder(connection).cache_properties(CacheProperties::No);
        let systemd = ManagerProxy::builder(connection).cache_properties(CacheProperties::No);
        Ok(Self {
            login: login.build().await?,
            systemd: systemd.build().await?,
        })
    }

    /// How long logind waits at most: `InhibitDelayMaxSec`.
    ///
    /// # Errors
    /// When logind does not answer.
    pub async fn delay(&self) -> zbus::Result<Duration> {
        let delay = self.login.inhibit_delay_max().await?;
        Ok(Duration::from_micros(delay))
    }

    /// Has logind wait until the descriptor is closed.
    ///
    /// # Errors
    /// When logind refuses.
    pub async fn inhibit(&self) -> zbus::Result<OwnedFd> {
        let why = "Kubelet needs time to handle node shutdown";
        let login = &self.login;
        login.inhibit("shutdown", "kubelet", why, "delay").await
    }

    /// # Errors
    /// When logind cannot be listened to.
    pub async fn shutdowns(&self) -> zbus::Result<Shutdowns> {
        let told = self.login.receive_prepare_for_shutdown().await?;
        Ok(Shutdowns(told))
    }

    /// Has logind read its configuration again. It answers before it has.
    ///
    /// # Errors
    /// When systemd does not answer.
    pub async fn reload(&self) -> zbus::Result<()> {
        let signal = nix::sys::signal::Signal::SIGHUP as i32;
        let logind = "systemd-logind.service";
        self.systemd.kill_unit(logind, "all", signal).await
    }
}

/// Writes down, in logind's configuration directory, that it is to wait for so long. The file's name
/// is upstream's: either kubelet replaces it.
///
/// # Errors
/// When it cannot be written.
pub fn set_delay(directory: &Path, delay: Duration) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    let text = format!(
        "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={}\n",
        delay.as_secs()
    );
    fs::write(directory.join("99-kubelet.conf"), text)
}
