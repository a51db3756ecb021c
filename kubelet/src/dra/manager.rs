//! Prepares the claims of pods, gives them up, and says what of them a container gets.
//!
//! Every step is written down before it is taken: whatever happens to the kubelet, what was
//! prepared is given up once its pods are gone. Work on one claim is done one after the other.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use client::{Api, Client};
use grpc::plugins::dra::v1 as pb;
use grpc::pod_resources::v1;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodStatus, ResourceHealth, ResourceStatus,
};
use k8s_openapi::api::resource::v1::ResourceClaim;
use parking_lot::Mutex;
use thiserror::Error;
use tracing::{debug, warn};

use super::claims::{Claim, Claims, Device, DriverState, Member};
use super::drivers::{DriverError, Drivers};
use super::health::Health;
use super::names::{self, ClaimError, Used};
use crate::metrics::Metrics;
use crate::pods::pod::{PodExt, PodUid};
use crate::turns::Turns;

/// Why a pod's claims are not ready, or not given up.
#[derive(Debug, Error)]
pub enum DraError {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("fetch ResourceClaim {0}: {1}")]
    Fetch(String, client::Error),
    #[error("ResourceClaim {0}: not allocated")]
    NotAllocated(String),
    #[error(
        "old ResourceClaim with same name {0} and different UID {1} still exists (previous pod force-deleted?!)"
    )]
    OtherUid(String, String),
    #[error("unable to get information for ResourceClaim {0}")]
    NotPrepared(String),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("{0} failed for ResourceClaim {1}: {2}")]
    Refused(&'static str, String, String),
    #[error("{0} returned result for unknown claim UID {1}")]
    Unasked(&'static str, String),
    #[error("{0} skipped {1} ResourceClaims")]
    Skipped(&'static str, usize),
    #[error("checkpoint ResourceClaim state: {0}")]
    Write(#[from] std::io::Error),
    #[error("there is no API server to get ResourceClaims from")]
    Standalone,
}

type Key = (String, String);

/// The node's claims.
pub struct Dra {
    claims: Arc<Mutex<Claims>>,
    /// Who works on a claim.
    turns: Turns<Key>,
    drivers: Drivers,
    /// `None` where pods do not show how their devices are.
    health: Option<Arc<Health>>,
    /// With their messages.
    messages: bool,
    api: Option<Client>,
    metrics: Arc<Metrics>,
}

const PREPARE: &str = "NodePrepareResources";
const UNPREPARE: &str = "NodeUnprepareResources";

impl Dra {
    pub fn new(
        claims: Arc<Mutex<Claims>>,
        drivers: Drivers,
        health: Option<Arc<Health>>,
        messages: bool,
        api: Option<Client>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            claims,
            turns: Turns::default(),
            drivers,
            health,
            messages,
            api,
            metrics,
        }
    }

    /// The pods that use any of these devices of a driver.
    pub fn users(claims: &Claims, driver: &str, devices: &[(String, String)]) -> Vec<PodUid> {
        let uses = |claim: &&Claim| {
            let own = claim.drivers.get(driver);
            let mut own = own.iter().flat_map(|state| &state.devices);
            own.any(|own| {
                let is = |(pool, name): &(String, String)| {
                    (pool, name) == (&own.pool_name, &own.device_name)
                };
                devices.iter().any(is)
            })
        };
        let pods: HashSet<&String> = claims
            .iter()
            .filter(uses)
            .flat_map(|c| c.pods.keys())
            .collect();
        pods.into_iter().map(|uid| uid.as_str().into()).collect()
    }

    /// Has every claim of the pod prepared. Can be repeated.
    ///
    /// # Errors
    /// When one cannot be yet: try again later.
    pub async fn prepare(&self, pod: &Pod) -> Result<(), DraError> {
        let begun = Instant::now();
        let done = match names::of_pod(pod) {
            Ok(used) if used.is_empty() => return Ok(()),
            Ok(used) => self.prepare_all(pod, &used).await,
            Err(error) => Err(error.into()),
        };
        self.observe("PrepareResources", begun, done.is_err());
        done
    }

    fn observe(&self, operation: &str, begun: Instant, failed: bool) {
        let failed = if failed { "true" } else { "false" };
        let took = &self.metrics.plugins.dra_operations;
        took.with_label_values(&[operation, failed])
            .observe(begun.elapsed().as_secs_f64());
        self.count();
    }

    fn count(&self) {
        let claims = self.claims.lock();
        let (drivers, all) = claims.in_use();
        let gauge = &self.metrics.plugins.dra_claims;
        gauge.reset();
        gauge.with_label_values(&["<any>"]).set(all);
        for (driver, count) in drivers {
            gauge.with_label_values(&[driver]).set(count);
        }
    }

    async fn prepare_all(&self, pod: &Pod, used: &[Used]) -> Result<(), DraError> {
        let namespace = pod.namespace();
        let key = |used: &Used| (namespace.to_owned(), used.name.clone());
        let _turns = self.turns.take_all(used.iter().map(key)).await;
        // All is looked at before anything is written down: a pod that fails here needs no driver
        // to be got rid of.
        let mut wanted = Vec::new();
        for used in used {
            let claim = self.fetch(pod, used).await?;
            for driver in claim.drivers.keys() {
                self.drivers.check(driver)?;
            }
            wanted.push(claim);
        }
        self.prepare_claims(pod.uid(), namespace, wanted).await
    }

    /// Whose turn it is has been seen to.
    async fn prepare_claims(
        &self,
        uid: &str,
        namespace: &str,
        wanted: Vec<Claim>,
    ) -> Result<(), DraError> {
        let mut batches: BTreeMap<String, Vec<pb::Claim>> = BTreeMap::new();
        let mut fresh: Vec<Key> = Vec::new();
        {
            let mut claims = self.claims.lock();
            for claim in wanted {
                let own = claim.uid.clone();
                let known = claims.get_or_insert(claim);
                if known.uid != own {
                    return Err(DraError::OtherUid(known.name.clone(), known.uid.clone()));
                }
                known.pods.insert(uid.into(), Member {});
                if !known.prepared {
                    fresh.push((known.namespace.clone(), known.name.clone()));
                    for driver in known.drivers.keys() {
                        let batch = batches.entry(driver.clone()).or_default();
                        batch.push(request(known));
                    }
                }
            }
            claims.write()?;
        }
        for (driver, batch) in batches {
            let answers = self.drivers.prepare(&driver, batch.clone()).await?;
            let mut claims = self.claims.lock();
            for (uid, answer) in &answers {
                let claim = asked(PREPARE, &batch, uid)?;
                if !answer.error.is_empty() {
                    let (name, error) = (claim.name.clone(), answer.error.clone());
                    return Err(DraError::Refused(PREPARE, name, error));
                }
                if let Some(known) = claims.get_mut(namespace, &claim.name) {
                    let devices = answer.devices.iter().map(device).collect();
                    known
                        .drivers
                        .insert(driver.clone(), DriverState { devices });
                }
            }
            if answers.len() < batch.len() {
                return Err(DraError::Skipped(PREPARE, batch.len() - answers.len()));
            }
        }
        let mut claims = self.claims.lock();
        for (namespace, name) in fresh {
            if let Some(known) = claims.get_mut(&namespace, &name) {
                known.prepared = true;
            }
        }
        Ok(claims.write()?)
    }

    async fn fetch(&self, pod: &Pod, used: &Used) -> Result<Claim, DraError> {
        let api = self.api.as_ref().ok_or(DraError::Standalone)?;
        let name = &used.name;
        let claim = Api::<ResourceClaim>::namespaced(api, pod.namespace())
            .get(name)
            .await
            .map_err(|error| DraError::Fetch(name.clone(), error))?;
        names::check(pod, used, &claim)?;
        Claim::of(&claim).ok_or_else(|| DraError::NotAllocated(name.clone()))
    }

    /// The CDI names of the devices that a container gets.
    ///
    /// # Errors
    /// When a claim has not been prepared.
    pub fn cdi_devices(&self, pod: &Pod, container: &Container) -> Result<Vec<String>, DraError> {
        let parts = names::of_container(pod, container)?;
        let claims = self.claims.lock();
        let mut devices = Vec::new();
        for part in parts {
            let claim = claims
                .get(pod.namespace(), &part.claim)
                .ok_or_else(|| DraError::NotPrepared(part.claim.clone()))?;
            let own = claim.devices(part.request.as_deref());
            devices.extend(own.flat_map(|(_, device)| device.cdi_device_ids.iter().cloned()));
        }
        // One device may be asked for by several names.
        let mut seen = HashSet::new();
        devices.retain(|device| seen.insert(device.clone()));
        Ok(devices)
    }

    /// What a container has by claims, for those who watch over it.
    pub fn resources(&self, pod: &Pod, container: &Container) -> Vec<v1::DynamicResource> {
        let parts = names::of_container(pod, container).unwrap_or_default();
        let claims = self.claims.lock();
        let device = |(driver, device): (&str, &Device)| {
            let names = device.cdi_device_ids.iter().cloned();
            v1::ClaimResource {
                cdi_devices: names.map(|name| v1::CdiDevice { name }).collect(),
                driver_name: driver.to_owned(),
                pool_name: device.pool_name.clone(),
                device_name: device.device_name.clone(),
                share_id: device.share_id.clone(),
            }
        };
        let known = parts.into_iter().filter_map(|part| {
            let claim = claims.get(pod.namespace(), &part.claim)?;
            Some(v1::DynamicResource {
                claim_name: claim.name.clone(),
                claim_namespace: claim.namespace.clone(),
                claim_resources: claim.devices(None).map(device).collect(),
            })
        });
        known.collect()
    }

    /// The pod's containers have stopped: gives its claims up that no other pod uses.
    ///
    /// # Errors
    /// When a driver does not: the pod must not be said to have ended, its devices are in use.
    pub async fn unprepare(&self, pod: &Pod) -> Result<(), DraError> {
        let uid = pod.uid();
        let held: Vec<String> = self.held_by(uid);
        if held.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let done = self.give_up(uid, pod.namespace(), held).await;
        self.observe("UnprepareResources", begun, done.is_err());
        done
    }

    fn held_by(&self, uid: &str) -> Vec<String> {
        let claims = self.claims.lock();
        let held = claims.iter().filter(|claim| claim.pods.contains_key(uid));
        held.map(|claim| claim.name.clone()).collect()
    }

    async fn give_up(&self, uid: &str, namespace: &str, held: Vec<String>) -> Result<(), DraError> {
        let key = |name: &String| (namespace.to_owned(), name.clone());
        let _turns = self.turns.take_all(held.iter().map(key)).await;
        let mut batches: BTreeMap<String, Vec<pb::Claim>> = BTreeMap::new();
        let mut last = Vec::new();
        {
            let mut claims = self.claims.lock();
            for name in held {
                let Some(claim) = claims.get_mut(namespace, &name) else {
                    continue;
                };
                if !claim.pods.contains_key(uid) {
                    continue;
                }
                // Written down with the rest: until then it is done again.
                if claim.pods.len() > 1 {
                    claim.pods.remove(uid);
                    continue;
                }
                for driver in claim.drivers.keys() {
                    let batch = batches.entry(driver.clone()).or_default();
                    batch.push(request(claim));
                }
                last.push(name);
            }
        }
        for (driver, batch) in batches {
            let answers = self.drivers.unprepare(&driver, batch.clone()).await?;
            for (uid, answer) in &answers {
                let claim = asked(UNPREPARE, &batch, uid)?;
                if !answer.error.is_empty() {
                    let (name, error) = (claim.name.clone(), answer.error.clone());
                    return Err(DraError::Refused(UNPREPARE, name, error));
                }
            }
            if answers.len() < batch.len() {
                return Err(DraError::Skipped(UNPREPARE, batch.len() - answers.len()));
            }
        }
        let mut claims = self.claims.lock();
        for name in last {
            debug!(namespace, name, "a claim is not in use here any more");
            claims.remove(namespace, &name);
        }
        Ok(claims.write()?)
    }

    /// Gives up what pods hold that are not there any more.
    pub async fn reconcile(&self, active: impl Fn(&str) -> bool) {
        let mut gone: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for claim in self.claims.lock().iter() {
            for uid in claim.pods.keys().filter(|uid| !active(uid)) {
                let key = (claim.namespace.clone(), uid.clone());
                gone.entry(key).or_default().push(claim.name.clone());
            }
        }
        for ((namespace, uid), names) in gone {
            if let Err(error) = self.give_up(&uid, &namespace, names).await {
                warn!(uid, %error, "cannot give up the claims of a pod that is gone yet");
            }
            self.count();
        }
    }

    /// Shows how the devices of the pod's containers are.
    pub fn show_health(&self, pod: &Pod, status: &mut PodStatus) {
        if pod.pod_spec().resource_claims.is_none() {
            return;
        }
        let Some(health) = &self.health else { return };
        for shown in status.container_statuses.iter_mut().flatten() {
            let spec = pod.containers().iter().find(|c| c.name == shown.name);
            if let Some(spec) = spec {
                self.show_devices(pod, spec, health, shown);
            }
        }
    }

    fn show_devices(
        &self,
        pod: &Pod,
        container: &Container,
        health: &Health,
        shown: &mut ContainerStatus,
    ) {
        let Ok(parts) = names::of_container(pod, container) else {
            return;
        };
        let (claims, now) = (self.claims.lock(), Instant::now());
        for part in parts {
            let claim = claims.get(pod.namespace(), &part.claim);
            let (Some(claim), Some(entry)) = (claim, &part.entry) else {
                continue;
            };
            let name = match &part.request {
                Some(request) => format!("claim:{entry}/{request}"),
                None => format!("claim:{entry}"),
            };
            let mut resources: Vec<ResourceHealth> = Vec::new();
            for (driver, device) in claim.devices(part.request.as_deref()) {
                let key = (device.pool_name.clone(), device.device_name.clone());
                let (state, message) = health.get(driver, &key, now);
                let id = match device.cdi_device_ids.first() {
                    Some(id) => id.clone(),
                    None => format!("{driver}/{}/{}", key.0, key.1),
                };
                if resources.iter().all(|other| other.resource_id != id) {
                    resources.push(ResourceHealth {
                        health: Some(state.as_str().into()),
                        message: message.filter(|_| self.messages),
                        resource_id: id,
                    });
                }
            }
            if resources.is_empty() {
                continue;
            }
            let list = shown.allocated_resources_status.get_or_insert_default();
            list.retain(|other| other.name != name);
            list.push(ResourceStatus {
                name,
                resources: Some(resources),
            });
        }
    }
}

fn request(claim: &Claim) -> pb::Claim {
    pb::Claim {
        namespace: claim.namespace.clone(),
        uid: claim.uid.clone(),
        name: claim.name.clone(),
    }
}

fn asked<'a>(
    call: &'static str,
    batch: &'a [pb::Claim],
    uid: &str,
) -> Result<&'a pb::Claim, DraError> {
    let claim = batch.iter().find(|claim| claim.uid == uid);
    claim.ok_or_else(|| DraError::Unasked(call, uid.to_owned()))
}

fn device(device: &pb::Device) -> Device {
    Device {
        pool_name: device.pool_name.clone(),
        device_name: device.device_name.clone(),
        share_id: device.share_id.clone(),
        request_names: device.request_names.clone(),
        cdi_device_ids: device.cdi_device_ids.clone(),
    }
}

#[cfg(test)]
mod tests;
