//! Bare metal: machines that somebody has declared in an inventory file.
//!
//! The file is read again for every question that comes after it has changed, so a
//! machine is added or removed by editing it. Load balancer addresses come from
//! declared pools; how packets for them reach a node is the network's business.
//! Routes are the kernel's, on the machine that this daemon runs on, where the inventory
//! says that this machine is the cluster's router.

mod inventory;
mod kernel_routes;
mod pool;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::{
    BalancedService, Instance, Instances, LoadBalancers, NodeRef, Provider, ProviderError, Route,
    Routes,
};
pub use inventory::Inventory;
use kernel_routes::KernelRoutes;

pub const NAME: &str = "baremetal";

/// The provider: an inventory file and what it said when last read.
pub struct Baremetal {
    path: PathBuf,
    read: Mutex<(SystemTime, Arc<Inventory>)>,
    /// Known when the provider is made: whether there are pools to balance with.
    balances: bool,
    /// Likewise, where this machine routes.
    kernel: Option<KernelRoutes>,
}

impl Baremetal {
    /// Reads the inventory (`--cloud-config`).
    pub fn load(path: Option<&Path>) -> Result<Self, ProviderError> {
        let path = path.ok_or_else(|| {
            ProviderError::Failed(
                "--cloud-provider=baremetal needs --cloud-config=<inventory file>".to_owned(),
            )
        })?;
        let (modified, inventory) = read(path)?;
        let balances = !inventory.load_balancer_pools.is_empty();
        let kernel = inventory.routes.as_ref().map(KernelRoutes::new);
        Ok(Self {
            path: path.to_owned(),
            read: Mutex::new((modified, Arc::new(inventory))),
            balances,
            kernel,
        })
    }

    /// The inventory as it is now. A file that has become unreadable is an error, not an
    /// empty inventory: nodes must not be deleted for a typing mistake.
    fn inventory(&self) -> Result<Arc<Inventory>, ProviderError> {
        let modified = std::fs::metadata(&self.path)
            .and_then(|m| m.modified())
            .context("cannot stat the file")
            .map_err(|source| config_error(&self.path, source))?;
        let mut last = self.read.lock();
        if last.0 != modified {
            let (modified, inventory) = read(&self.path)?;
            *last = (modified, Arc::new(inventory));
        }
        Ok(Arc::clone(&last.1))
    }
}

fn read(path: &Path) -> Result<(SystemTime, Inventory), ProviderError> {
    let inner = || -> anyhow::Result<_> {
        // The time first: a write in between is seen at the next look.
        let modified = std::fs::metadata(path)?.modified()?;
        let text = std::fs::read_to_string(path)?;
        Ok((modified, Inventory::parse(&text)?))
    };
    inner().map_err(|source| config_error(path, source))
}

fn config_error(path: &Path, source: anyhow::Error) -> ProviderError {
    ProviderError::Config {
        path: path.display().to_string(),
        source,
    }
}

impl Provider for Baremetal {
    fn name(&self) -> &'static str {
        NAME
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        self.balances.then_some(self)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        self.kernel.as_ref().map(|_| self as &dyn Routes)
    }
}

impl Instances for Baremetal {
    fn instance<'a>(
        &'a self,
        node: &'a NodeRef,
    ) -> BoxFuture<'a, Result<Option<Instance>, ProviderError>> {
        async move { Ok(self.inventory()?.instance(node)) }.boxed()
    }
}

impl LoadBalancers for Baremetal {
    fn ensure<'a>(
        &'a self,
        service: &'a BalancedService,
        taken: &'a [std::net::IpAddr],
    ) -> BoxFuture<'a, Result<Vec<std::net::IpAddr>, ProviderError>> {
        async move {
            let inventory = self.inventory()?;
            pool::choose(&inventory.load_balancer_pools, service, taken)
                .map(|ip| vec![ip])
                .map_err(ProviderError::Failed)
        }
        .boxed()
    }

    fn ensure_deleted<'a>(
        &'a self,
        _service: &'a BalancedService,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        // An address is free as soon as no service's status names it.
        async { Ok(()) }.boxed()
    }
}

impl Routes for Baremetal {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Route>, ProviderError>> {
        async move {
            let inventory = self.inventory()?;
            let found = self.kernel()?.list().await?;
            let routes = found.into_iter().map(|(destination, gateway)| Route {
                destination,
                node: inventory.node_at(gateway).unwrap_or_default().to_owned(),
            });
            Ok(routes.collect())
        }
        .boxed()
    }

    fn create<'a>(
        &'a self,
        route: &'a Route,
        addresses: &'a [(String, String)],
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        async move {
            let gateway = kernel_routes::gateway(&route.destination, addresses)
                .map_err(ProviderError::Failed)?;
            self.kernel()?.replace(route.destination, gateway).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, route: &'a Route) -> BoxFuture<'a, Result<(), ProviderError>> {
        async move { self.kernel()?.remove(route.destination).await }.boxed()
    }
}

impl Baremetal {
    fn kernel(&self) -> Result<&KernelRoutes, ProviderError> {
        let kernel = self.kernel.as_ref();
        kernel.ok_or_else(|| ProviderError::Failed("this machine is no router".to_owned()))
    }
}
