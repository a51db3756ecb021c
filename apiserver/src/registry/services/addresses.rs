//! Cluster addresses: each one in use is an IPAddress object whose name is the address, so
//! that no two Services, whichever server creates them, can have the same (KEP-1880).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use meta::Status;
use serde_json::{Value, json};

use super::super::conditions;
use super::super::managed::FieldManager;
use super::super::object_meta::meta;
use super::super::store::{Store, Warnings, Write};
use super::metrics::{COUNT_EVERY, DYNAMIC, Metrics, STATIC};
use super::range;
use crate::authn::User;
use crate::registry::options::DeleteOptions;
use crate::storage::cache::{At, ListQuery, Selector};

const MANAGER: &str = "ipallocator.k8s.io";

/// Why an address cannot be had; the text ends up in a field error.
#[derive(Debug, thiserror::Error)]
pub enum AllocationError {
    #[error("provided IP is already allocated")]
    Taken,
    #[error("the provided IP ({0}) is not in the valid range. The range of valid IPs is {1}")]
    OutOfRange(IpAddr, String),
    #[error("range is full")]
    Full,
    #[error("{0} is not configured on this cluster")]
    NoRange(String),
    #[error(transparent)]
    Failed(#[from] Status),
}

pub struct Addresses {
    pub objects: Arc<Store>,
    pub cidrs: Arc<Store>,
    /// `--service-cluster-ip-range`; more come as ServiceCIDR objects.
    pub ranges: Vec<IpNet>,
    pub random: fn() -> u64,
    pub metrics: Arc<Metrics>,
}

/// `IPv4` or `IPv6`.
pub fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn family_of(range: &IpNet) -> &'static str {
    family(range.addr())
}

fn system() -> User {
    User {
        name: "system:apiserver".to_owned(),
        groups: vec![crate::authn::MASTERS.to_owned()],
        ..User::default()
    }
}

impl Addresses {
    /// The family of Services that do not ask for one.
    pub fn default_family(&self) -> &'static str {
        self.ranges.first().map_or("IPv4", family_of)
    }

    pub fn has_family(&self, wanted: &str) -> bool {
        self.ranges.iter().any(|r| family_of(r) == wanted)
    }

    /// The ranges of a family: the flag's and those of ServiceCIDRs that are not known not to be ready.
    async fn ranges(&self, wanted: &str) -> Vec<IpNet> {
        let mut ranges: Vec<IpNet> = self
            .ranges
            .iter()
            .filter(|r| family_of(r) == wanted)
            .copied()
            .collect();
        for cidr in list(&self.cidrs, &Selector::default()).await {
            // Until the controller has looked at one, it counts as ready.
            let ready = matches!(conditions::status(&cidr, "Ready"), "True" | "");
            if meta(&cidr).is_deleting() || !ready {
                continue;
            }
            for text in cidr["spec"]["cidrs"].as_array().into_iter().flatten() {
                if let Some(Ok(range)) = text.as_str().map(str::parse::<IpNet>)
                    && family_of(&range) == wanted
                    && !ranges.contains(&range)
                {
                    ranges.push(range);
                }
            }
        }
        ranges
    }

    /// Takes an address that the user has chosen.
    pub async fn take(
        &self,
        ip: IpAddr,
        service: &Value,
        dry_run: bool,
    ) -> Result<(), AllocationError> {
        let started = Instant::now();
        let ranges = self.ranges(family(ip)).await;
        let Some(range) = ranges.iter().find(|r| range::is_usable(r, ip)) else {
            let all: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            return Err(AllocationError::OutOfRange(ip, all.join(", ")));
        };
        if dry_run {
            // Upstream does not look whether it is free either.
            return Ok(());
        }
        let taken = self.create(ip, service).await;
        self.count_one(range, STATIC, taken.is_ok(), started);
        taken
    }

    fn count_one(&self, range: &IpNet, scope: &str, ok: bool, started: Instant) {
        let range = range.to_string();
        self.metrics.address(&range, scope, ok, started);
        if ok {
            self.metrics.changed(&range, 1);
        }
    }

    /// Takes any address of a family.
    pub async fn take_any(
        &self,
        wanted: &str,
        service: &Value,
        dry_run: bool,
    ) -> Result<IpAddr, AllocationError> {
        let ranges = self.ranges(wanted).await;
        if ranges.is_empty() {
            return Err(AllocationError::NoRange(wanted.to_owned()));
        }
        if dry_run {
            // Upstream does not look for a free one either.
            return Ok(ranges[0].network());
        }
        let started = Instant::now();
        for net in &ranges {
            let size = range::usable(net);
            let reserved = range::reserved_addresses(size);
            for offset in range::candidates(size, reserved, (self.random)()) {
                let ip = range::address(net, offset);
                // Most that are taken are known to be, without asking etcd.
                if self.is_known(ip).await {
                    continue;
                }
                match self.create(ip, service).await {
                    Ok(()) => {
                        self.count_one(net, DYNAMIC, true, started);
                        return Ok(ip);
                    }
                    Err(AllocationError::Taken) => {}
                    Err(e) => return Err(e),
                }
            }
            self.count_one(net, DYNAMIC, false, started);
        }
        Err(AllocationError::Full)
    }

    async fn is_known(&self, ip: IpAddr) -> bool {
        let found = self.objects.cache.get(&ip.to_string(), At::Any).await;
        matches!(found, Ok(Some(_)))
    }

    pub async fn create(&self, ip: IpAddr, service: &Value) -> Result<(), AllocationError> {
        let m = meta(service);
        let object = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IPAddress",
            "metadata": {
                "name": ip.to_string(),
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": family(ip),
                    "ipaddress.kubernetes.io/managed-by": MANAGER,
                },
            },
            "spec": {"parentRef": {
                "resource": "services", "namespace": m.namespace(), "name": m.name(),
            }},
        });
        let (user, warnings) = (system(), Warnings::default());
        let write = Write {
            user: &user,
            group: "",
            namespace: "",
            name: "",
            subresource: "",
            dry_run: false,
            warnings: &warnings,
            fields: Some(FieldManager::server(self.objects.resource)),
        };
        match self.objects.create(&write, object).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_already_exists() => Err(AllocationError::Taken),
            Err(e) => Err(e.into()),
        }
    }

    /// Gives an address back if it is this Service's.
    pub async fn release(&self, ip: IpAddr, namespace: &str, name: &str) {
        let key = ip.to_string();
        let parent = match self.objects.get_tree("", &key).await {
            Ok(object) => object["spec"]["parentRef"].clone(),
            Err(e) => {
                if !e.is_not_found() {
                    tracing::warn!(%ip, error = %e, "an address could not be looked up; repair will release it");
                }
                return;
            }
        };
        if parent["namespace"] != namespace || parent["name"] != name {
            return;
        }
        if let Err(e) = self.delete(&key).await {
            tracing::warn!(%ip, error = %e, "an address could not be released; repair will do it");
            return;
        }
        let ranges = self.ranges(family(ip)).await;
        if let Some(range) = ranges.iter().find(|r| r.contains(&ip)) {
            self.metrics.changed(&range.to_string(), -1);
        }
    }

    pub async fn delete(&self, name: &str) -> Result<(), Status> {
        let (user, warnings) = (system(), Warnings::default());
        let write = Write {
            user: &user,
            group: "",
            namespace: "",
            name,
            subresource: "",
            dry_run: false,
            warnings: &warnings,
            fields: None,
        };
        match self.objects.delete(&write, &DeleteOptions::default()).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// Shows how many addresses are in use, from time to time, for ever.
    pub async fn count_for_ever(&self) {
        let mut ticks = tokio::time::interval(COUNT_EVERY);
        loop {
            ticks.tick().await;
            let names = list(&self.objects, &Selector::default()).await;
            let names = names.iter().filter_map(|o| meta(o).name().parse().ok());
            let used: Vec<IpAddr> = names.collect();
            for wanted in ["IPv4", "IPv6"] {
                for range in self.ranges(wanted).await {
                    let used = used.iter().filter(|ip| range.contains(*ip)).count();
                    let usable = range::usable(&range);
                    self.metrics
                        .addresses(&range.to_string(), used as u64, usable);
                }
            }
        }
    }

    /// Every IPAddress that this allocator has made.
    pub async fn all(&self) -> Vec<Value> {
        let mut all = list(&self.objects, &Selector::default()).await;
        all.retain(|o| o["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"] == MANAGER);
        all
    }
}

/// All objects of a store as memory has them.
pub(super) async fn list(store: &Store, selector: &Selector) -> Vec<Value> {
    let query = ListQuery {
        selector,
        at: At::Any,
        limit: 0,
        start: "",
    };
    match store.cache.list(&query).await {
        Ok(list) => list
            .objects
            .iter()
            .filter_map(|o| store.tree(o.bytes(), o.revision()).ok())
            .collect(),
        Err(_) => Vec::new(),
    }
}
