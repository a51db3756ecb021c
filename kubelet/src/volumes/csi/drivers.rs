//! The drivers that have registered on this node.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use super::client::Client;
use super::node_info::NodeInfo;
use crate::metrics::Metrics;
use crate::plugins::{Handler, Plugin};

type Version = (u64, u64, u64);

#[derive(Clone)]
struct Driver {
    endpoint: String,
    version: Version,
    client: Client,
}

struct Inner {
    drivers: Mutex<HashMap<String, Driver>>,
    node_info: NodeInfo,
    metrics: Arc<Metrics>,
    changed: Notify,
}

/// All drivers. Cheap to clone.
#[derive(Clone)]
pub struct Drivers(Arc<Inner>);

/// `1.2.3`, and whatever is left out of it.
fn parse(version: &str) -> Option<Version> {
    let version = version.trim_start_matches('v');
    let mut parts = version.split(['.', '-', '+']).map(str::parse::<u64>);
    let major = parts.next()?.ok()?;
    let mut next = || parts.next().and_then(Result::ok).unwrap_or_default();
    Some((major, next(), next()))
}

/// The highest that we know how to speak.
fn highest(versions: &[String]) -> Option<Version> {
    let known = versions.iter().filter_map(|version| parse(version));
    known.filter(|version| version.0 <= 1).max()
}

impl Drivers {
    pub fn new(node_info: NodeInfo, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            drivers: Mutex::default(),
            node_info,
            metrics,
            changed: Notify::new(),
        }))
    }

    pub fn names(&self) -> Vec<String> {
        self.0.drivers.lock().keys().cloned().collect()
    }

    /// Waits until a driver comes or goes, or someone says that something else has changed.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    pub fn tell_changed(&self) {
        self.0.changed.notify_one();
    }

    /// Asks a driver anew what it can do on this node, and shows it.
    ///
    /// # Errors
    /// When it does not answer, or the API server does not take it.
    pub async fn refresh(&self, name: &str) -> Result<(), String> {
        let info = self.get(name)?.info().await;
        let info = info.map_err(|error| error.to_string())?;
        self.0.node_info.update(name, &info).await
    }

    /// # Errors
    /// When it has not registered, or has gone.
    pub fn get(&self, name: &str) -> Result<Client, String> {
        let drivers = self.0.drivers.lock();
        let client = drivers.get(name).map(|driver| driver.client.clone());
        client.ok_or_else(|| {
            format!("driver name {name} not found in the list of registered CSI drivers")
        })
    }

    fn version(&self, plugin: &Plugin) -> Result<Version, String> {
        let Plugin { name, versions, .. } = plugin;
        if versions.is_empty() {
            return Err(format!(
                "CSI driver {name:?} failed. Plugin returned an empty list for supported versions"
            ));
        }
        let version = highest(versions).ok_or_else(|| {
            format!("CSI driver {name:?} failed. None of the versions specified {versions:?} are supported")
        })?;
        let drivers = self.0.drivers.lock();
        let other = drivers
            .get(name)
            .filter(|other| other.endpoint != plugin.endpoint);
        match other.filter(|other| other.version >= version) {
            Some(other) => Err(format!(
                "CSI driver {name:?} failed. Another driver with the same name is already registered with a higher \
                 supported version: {:?}",
                format!(
                    "{}.{}.{}",
                    other.version.0, other.version.1, other.version.2
                )
            )),
            None => Ok(version),
        }
    }

    /// As if it had registered.
    #[cfg(test)]
    pub fn insert(&self, name: &str, endpoint: &str) {
        let driver = Driver {
            endpoint: endpoint.to_owned(),
            version: (1, 0, 0),
            client: Client::new(name, endpoint, self.0.metrics.clone()).unwrap(),
        };
        self.0.drivers.lock().insert(name.to_owned(), driver);
    }

    async fn install(&self, plugin: &Plugin) -> Result<(), String> {
        let version = self.version(plugin)?;
        let client = Client::new(&plugin.name, &plugin.endpoint, self.0.metrics.clone())
            .map_err(|error| error.to_string())?;
        let driver = Driver {
            endpoint: plugin.endpoint.clone(),
            version,
            client: client.clone(),
        };
        self.0.drivers.lock().insert(plugin.name.clone(), driver);
        let installed = async {
            let info = client.info().await.map_err(|error| error.to_string())?;
            self.0.node_info.install(&plugin.name, &info).await
        };
        let installed = installed.await;
        if installed.is_err() {
            self.remove(plugin).await;
        }
        self.tell_changed();
        installed
    }

    async fn remove(&self, plugin: &Plugin) {
        {
            let mut drivers = self.0.drivers.lock();
            let own = |driver: &Driver| driver.endpoint == plugin.endpoint;
            if !drivers.get(&plugin.name).is_some_and(own) {
                return;
            }
            drivers.remove(&plugin.name);
        }
        self.tell_changed();
        let back = || self.0.drivers.lock().contains_key(&plugin.name);
        if let Err(error) = self.0.node_info.uninstall(&plugin.name, back).await {
            warn!(
                driver = plugin.name,
                error, "cannot take a driver off the node's objects"
            );
        }
    }
}

impl Handler for Drivers {
    fn validate(&self, plugin: &Plugin) -> Result<(), String> {
        let invalid = |why| {
            let Plugin { name, endpoint, .. } = plugin;
            format!(
                "validation failed for CSI Driver {name} at endpoint {endpoint}: kubernetes.io/csi: ValidatePlugin for {why}"
            )
        };
        self.version(plugin).map(drop).map_err(invalid)
    }

    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.install(plugin))
    }

    fn deregister(&self, plugin: &Plugin) {
        let (drivers, plugin) = (self.clone(), plugin.clone());
        tokio::spawn(async move { drivers.remove(&plugin).await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let of = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|version| (*version).to_owned()).collect();
            highest(&list)
        };
        assert_eq!(of(&["1.0.0", "1.10", "2.0.0"]), Some((1, 10, 0)));
        assert_eq!(of(&["0.3.0"]), Some((0, 3, 0)));
        assert_eq!(of(&["2.0.0", "x"]), None);
    }
}
