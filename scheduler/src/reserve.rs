//! Reserve: what a pod is promised beside its node, volumes and devices, so that nobody else
//! gets it. Pure; `bind.rs` and `claims.rs` make the promises true.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::cache::storage::{Claim, Plan, Volume};
use crate::framework::Plugin as _;
use crate::model::PodInfo;
use crate::plugins::dynamic_resources::{NAME as DEVICES, Promise};
use crate::profile::Profile;

/// What is promised to a pod beside its node.
pub struct Promised {
    pub volumes: Option<Reserved>,
    pub devices: Option<Promise>,
}

/// Volumes that are promised to a pod.
pub struct Reserved {
    pub plan: Plan,
    pub bindings: Vec<(Arc<Volume>, Arc<Claim>)>,
    pub provisions: Vec<Arc<Claim>>,
    pub timeout: Duration,
}

impl Promised {
    /// Notes in the cache what the pod gets on its node; the error says which plugin failed
    /// and why.
    pub fn make(
        cache: &mut Cache,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        node: &str,
    ) -> Result<Self, String> {
        let volumes = reserve(cache, profile, pod, node)
            .map_err(|why| format!("running Reserve plugin \"VolumeBinding\": {why}"))?;
        let mut promised = Self {
            volumes,
            devices: None,
        };
        match promise(cache, profile, pod, node) {
            Ok(devices) => promised.devices = devices,
            Err(why) => {
                promised.forget(cache);
                return Err(format!("running Reserve plugin \"{DEVICES}\": {why}"));
            }
        }
        Ok(promised)
    }

    pub fn is_empty(&self) -> bool {
        self.volumes.is_none() && self.devices.is_none()
    }

    /// The promises are kept, or not to be kept.
    pub fn forget(&self, cache: &mut Cache) {
        if let Some(reserved) = &self.volumes {
            cache.storage.forget(&reserved.plan);
        }
        if let Some(devices) = &self.devices {
            devices.forget(&mut cache.devices);
        }
    }
}

/// Which devices the pod's claims get on its node.
fn promise(
    cache: &mut Cache,
    profile: &Profile,
    pod: &Arc<PodInfo>,
    node: &str,
) -> Result<Option<Promise>, String> {
    let Some(plugin) = profile.devices.as_ref().filter(|plugin| plugin.is_own(pod)) else {
        return Ok(None);
    };
    let Some(node) = cache.node_named(node) else {
        return Ok(None);
    };
    let promise = plugin.promise(pod, node, &cache.devices)?;
    if let Some(promise) = &promise {
        promise.remember(&mut cache.devices);
    }
    Ok(promise)
}

/// Which volumes the pod's claims get on its node. Where extenders were asked, or the node was
/// chosen for a whole group, that may have changed since.
fn reserve(
    cache: &mut Cache,
    profile: &Profile,
    pod: &PodInfo,
    node: &str,
) -> Result<Option<Reserved>, String> {
    let (Some(timeout), true) = (profile.volumes, pod.has_volumes()) else {
        return Ok(None);
    };
    let claims = cache.storage.claims(pod)?;
    let Some(info) = cache.node_named(node) else {
        return Ok(None);
    };
    let plan = cache.storage.plan(&claims, info);
    let plan = plan.map_err(|reasons| reasons.join(", "))?;
    if plan.is_empty() {
        return Ok(None);
    }
    cache.storage.assume(&plan, node);
    let storage = &cache.storage;
    let claim = |key| storage.claims.get(key).cloned();
    let bindings = plan.bindings.iter();
    let bindings = bindings
        .filter_map(|(volume, key)| Some((storage.volumes.get(volume).cloned()?, claim(key)?)));
    Ok(Some(Reserved {
        bindings: bindings.collect(),
        provisions: plan.provisions.iter().filter_map(claim).collect(),
        timeout,
        plan,
    }))
}
