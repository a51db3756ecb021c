//! Units that are made at runtime, and what limits them.

use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::Mutex;
use zbus::proxy::CacheProperties;
use zbus::zvariant::{OwnedObjectPath, Value};
use zbus::{Connection, proxy};

use super::{PATIENCE, SystemdError};

/// A property of a unit.
pub type Property = (&'static str, Value<'static>);

/// systemd itself.
#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1",
    gen_blocking = false
)]
pub(super) trait Manager {
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[Property],
        others: &[(&str, &[Property])],
    ) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn set_unit_properties(
        &self,
        name: &str,
        runtime: bool,
        properties: &[Property],
    ) -> zbus::Result<()>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

/// The units of a systemd. A connection that is lost is made anew.
#[derive(Clone)]
pub struct Units(Arc<Mutex<Option<ManagerProxy<'static>>>>);

impl fmt::Debug for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Units")
    }
}

impl Units {
    /// Those of the systemd that runs the machine. Connects on first use.
    pub fn of_machine() -> Self {
        Self(Arc::default())
    }

    /// Those of whoever is at the other end.
    #[cfg(test)]
    pub async fn over(connection: &Connection) -> zbus::Result<Self> {
        let proxy = proxy_over(connection).await?;
        Ok(Self(Arc::new(Mutex::new(Some(proxy)))))
    }

    /// systemd, which has just answered: it, or its bus, may have been started anew since the last
    /// time.
    async fn proxy(&self) -> zbus::Result<ManagerProxy<'static>> {
        let mut known = self.0.lock().await;
        if let Some(proxy) = &*known
            && !proxy.version().await.is_err_and(|error| is_lost(&error))
        {
            return Ok(proxy.clone());
        }
        let proxy = proxy_over(&super::manager().await?).await?;
        Ok(known.insert(proxy).clone())
    }

    /// systemd's version.
    ///
    /// # Errors
    /// When systemd does not answer.
    pub async fn version(&self) -> Result<u32, SystemdError> {
        let text = self.proxy().await?.version().await?;
        Ok(version(&text))
    }

    /// Starts a unit that lives no longer than the machine runs. One that is there already stays as
    /// it is.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn start(&self, unit: &str, properties: Vec<Property>) -> Result<(), SystemdError> {
        let systemd = self.proxy().await?;
        // Listened to before anything can be told.
        let jobs = systemd.receive_job_removed().await?;
        let started = systemd.start_transient_unit(unit, "replace", &properties, &[]);
        let job = match started.await {
            Err(error) if is_named(&error, UNIT_EXISTS) => return Ok(()),
            started => started?,
        };
        match result(jobs, &job).await {
            Ok(done) if done == "done" => Ok(()),
            failed => {
                // What has failed would be in the way of the next attempt. It may be gone already.
                let _ = systemd.reset_failed_unit(unit).await;
                Err(failed.map_or_else(|error| error, SystemdError::Job))
            }
        }
    }

    /// Stops a unit and has systemd forget it. It may be gone already.
    ///
    /// # Errors
    /// When systemd does not say that it is gone.
    pub async fn stop(&self, unit: &str) -> Result<(), SystemdError> {
        let systemd = self.proxy().await?;
        let jobs = systemd.receive_job_removed().await?;
        let job = match systemd.stop_unit(unit, "replace").await {
            Err(error) if is_named(&error, NO_SUCH_UNIT) => return Ok(()),
            stopped => stopped?,
        };
        let stopped = result(jobs, &job).await;
        // Only a unit that has failed is still known.
        let _ = systemd.reset_failed_unit(unit).await;
        match stopped? {
            done if done == "done" => Ok(()),
            other => Err(SystemdError::Job(other)),
        }
    }

    /// Sets properties of a unit, until the machine goes down.
    ///
    /// # Errors
    /// When systemd refuses one.
    pub async fn set(&self, unit: &str, properties: Vec<Property>) -> Result<(), SystemdError> {
        let systemd = self.proxy().await?;
        Ok(systemd.set_unit_properties(unit, true, &properties).await?)
    }
}

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

async fn proxy_over(connection: &Connection) -> zbus::Result<ManagerProxy<'static>> {
    let builder = ManagerProxy::builder(connection);
    builder.cache_properties(CacheProperties::No).build().await
}

/// How a job ended.
async fn result(mut jobs: JobRemovedStream, job: &OwnedObjectPath) -> Result<String, SystemdError> {
    let ended = async {
        while let Some(removed) = jobs.next().await {
            let removed = removed.args()?;
            if removed.job == *job {
                return Ok(removed.result);
            }
        }
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        Err(zbus::Error::from(gone).into())
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    ended.unwrap_or(Err(SystemdError::Late))
}

/// Whether there is nobody at the other end any more, rather than somebody slow.
fn is_lost(error: &zbus::Error) -> bool {
    let late = std::io::ErrorKind::TimedOut;
    matches!(error, zbus::Error::InputOutput(error) if error.kind() != late)
}

fn is_named(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(known, _, _) if known.as_str() == name)
}

/// The first number in what systemd says of itself: `252.39-1~deb12u1`, `v245`.
fn version(text: &str) -> u32 {
    let text = text.trim_start_matches('v');
    let digits = text.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::fake::Machine;

    #[test]
    fn versions() {
        let texts = ["252.39-1~deb12u1", "v245.4-1.fc32", "257", "unknown"];
        assert_eq!(texts.map(version), [252, 245, 257, 0]);
    }

    #[tokio::test]
    async fn units_come_and_go() {
        let machine = Machine::start().await;
        let units = Units::over(&machine.connection).await.unwrap();
        assert_eq!(units.version().await.unwrap(), 252);
        let properties = || vec![("CPUWeight", Value::from(5_u64))];
        units.start("a.slice", properties()).await.unwrap();
        // Again: it is there.
        units.start("a.slice", properties()).await.unwrap();
        let more = vec![("TasksMax", Value::from(7_u64))];
        units.set("a.slice", more).await.unwrap();
        assert_eq!(
            machine.unit("a.slice").unwrap(),
            ["CPUWeight=5", "TasksMax=7"]
        );
        let failed = units.start("bad.slice", properties()).await;
        assert!(matches!(failed, Err(SystemdError::Job(how)) if how == "failed"));
        units.stop("a.slice").await.unwrap();
        assert_eq!(machine.unit("a.slice"), None);
        units.stop("a.slice").await.unwrap();
        let unknown = units.set("a.slice", properties()).await;
        assert!(matches!(unknown, Err(SystemdError::Bus(_))));
    }
}
