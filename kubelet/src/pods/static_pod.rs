//! Static pods: what manifests become pods, whether files or a server have them. Pure but for
//! [`Known`], which tells of changes.

mod identity;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use codec::decode::{self, Strictness};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc;

use super::pod::{CONFIG_HASH, CONFIG_SEEN, CONFIG_SOURCE, PodExt};
use crate::event::{Event, Source};
use crate::volumes::objects::References;

/// Longer manifests (bytes) are refused, as by upstream.
pub const MAX_MANIFEST: usize = 10 << 20;

/// Why a manifest is no static pod.
#[derive(Debug, Error)]
pub enum ManifestError {
    #[error("cannot read it: {0}")]
    Read(#[from] std::io::Error),
    #[error("it is longer than 10 MiB")]
    TooLong,
    #[error("it is neither YAML nor JSON: {0}")]
    Syntax(String),
    #[error("it is no v1 Pod")]
    Kind,
    #[error("invalid pod: {0}")]
    Invalid(String),
    #[error("static pods may not reference {0}")]
    Reference(&'static str),
    #[error("static pods may not use ResourceClaims")]
    ResourceClaims,
    #[error("static pods may not use ClusterTrustBundle projected volume sources")]
    TrustBundles,
}

/// Where a manifest is from.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    File(&'a Path),
    Url(&'a str),
}

/// What a static pod is made with.
#[derive(Debug, Clone)]
pub struct Terms {
    pub node_name: String,
    /// Pods may refer to objects of the API (the feature `PreventStaticPodAPIReferences` is off).
    pub may_refer: bool,
}

impl Terms {
    /// The pod of a manifest: defaulted, named after the node, bound to it. Its uid is derived from
    /// origin and content, so that a changed manifest is another pod.
    ///
    /// # Errors
    /// When it is no valid pod.
    pub fn pod(&self, body: &[u8], origin: Origin<'_>) -> Result<Pod, ManifestError> {
        let json = to_json(body)?;
        if kind(&json)? != "Pod" {
            return Err(ManifestError::Kind);
        }
        self.of_json(&json, origin)
    }

    /// The pods of a manifest that is a pod or a `PodList`.
    ///
    /// # Errors
    /// When it is neither, or one of them is no valid pod.
    pub fn pods(&self, body: &[u8], origin: Origin<'_>) -> Result<Vec<Pod>, ManifestError> {
        let json = to_json(body)?;
        if kind(&json)? != "PodList" {
            return Ok(vec![self.of_json(&json, origin)?]);
        }
        let list = decode::untyped(&json).map_err(syntax)?;
        let items = list["items"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let pod = |item: &Value| self.of_json(item.to_string().as_bytes(), origin);
        items.iter().map(pod).collect()
    }

    fn of_json(&self, json: &[u8], origin: Origin<'_>) -> Result<Pod, ManifestError> {
        let message = schema::kind("", "v1", "Pod").ok_or(ManifestError::Kind)?;
        let invalid = |error: &dyn std::fmt::Display| ManifestError::Invalid(error.to_string());
        let written = decode::untyped(json).map_err(syntax)?;
        let decoded = decode::json(message, json, Strictness::Ignore).map_err(|e| invalid(&e))?;
        let mut value = decoded.value;
        let text = |value: &Value, name: &str| {
            let text = value["metadata"][name]
                .as_str()
                .filter(|text| !text.is_empty());
            text.map(str::to_owned)
        };
        let Some(name) = text(&value, "name") else {
            return Err(invalid(&"name is needed for the pod"));
        };
        api::defaults::apply(message, &mut value);
        let node = &self.node_name;
        let uid = match text(&value, "uid") {
            Some(uid) if !names_a_directory(&uid) => {
                return Err(invalid(&format_args!(
                    "metadata.uid: Invalid value: {uid:?}"
                )));
            }
            Some(uid) => uid,
            None => {
                let origin = match origin {
                    Origin::File(path) => format!("host:{node}file:{}", path.display()),
                    Origin::Url(url) => format!("url:{url}"),
                };
                identity::uid(&value, &written, &origin).map_err(|e| invalid(&e))?
            }
        };
        value["metadata"]["uid"] = uid.as_str().into();
        value["metadata"]["name"] = format!("{name}-{}", node.to_lowercase()).into();
        if text(&value, "namespace").is_none() {
            value["metadata"]["namespace"] = "default".into();
        }
        value["spec"]["nodeName"] = node.as_str().into();
        // What became of another pod is nothing of this one.
        if let Some(object) = value.as_object_mut() {
            object.remove("status");
        }
        let errors = api::validation::create("", "Pod", true, &value);
        if !errors.is_empty() {
            return Err(invalid(&errors));
        }
        let mut pod: Pod = serde_json::from_value(value).map_err(|e| invalid(&e))?;
        match reference(&pod) {
            Some(what) if !self.may_refer => return Err(ManifestError::Reference(what)),
            // These have never been possible.
            Some("resourceclaims") => return Err(ManifestError::ResourceClaims),
            _ if uses_trust_bundles(&pod) => return Err(ManifestError::TrustBundles),
            _ => {}
        }
        let from_file = matches!(origin, Origin::File(_));
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(CONFIG_HASH.into(), uid);
        let source = if from_file { "file" } else { "http" };
        annotations.insert(CONFIG_SOURCE.into(), source.into());
        if from_file {
            tolerate_all(&mut pod);
        }
        pod.status = Some(PodStatus {
            phase: Some("Pending".into()),
            ..Default::default()
        });
        Ok(pod)
    }
}

/// Whether directories and control groups can be called by a uid. Whoever may write manifests may
/// choose it, and shall not so reach beyond the pod's own.
fn names_a_directory(uid: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    uid.bytes().all(plain) && uid.len() <= 253 && !matches!(uid, "." | "..")
}

fn syntax(error: impl std::fmt::Display) -> ManifestError {
    ManifestError::Syntax(error.to_string())
}

fn to_json(body: &[u8]) -> Result<Vec<u8>, ManifestError> {
    if body.len() > MAX_MANIFEST {
        return Err(ManifestError::TooLong);
    }
    let (json, _) = decode::yaml_to_json(body).map_err(syntax)?;
    Ok(json)
}

fn kind(json: &[u8]) -> Result<String, ManifestError> {
    let meta = decode::type_meta(json).map_err(syntax)?;
    match (meta.api_version.as_str(), meta.kind.as_str()) {
        ("v1", "Pod" | "PodList") => Ok(meta.kind),
        _ => Err(ManifestError::Kind),
    }
}

/// Nothing may keep a manifest's pod off its node.
fn tolerate_all(pod: &mut Pod) {
    let all = Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Default::default()
    };
    let own = pod
        .spec
        .get_or_insert_default()
        .tolerations
        .get_or_insert_default();
    let same = |own: &Toleration| {
        let parts = |of: &Toleration| {
            [&of.key, &of.operator, &of.value, &of.effect].map(|p| p.clone().unwrap_or_default())
        };
        parts(own) == parts(&all)
    };
    match own.iter_mut().find(|own| same(own)) {
        Some(own) => *own = all,
        None => own.push(all),
    }
}

fn uses_trust_bundles(pod: &Pod) -> bool {
    let volumes = pod.pod_spec().volumes.iter().flatten();
    let projected = volumes.filter_map(|volume| volume.projected.as_ref());
    let mut sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    sources.any(|source| source.cluster_trust_bundle.is_some())
}

/// The kind of object of the API that the pod refers to, if any. A static pod runs where there is
/// no API server yet, and nobody has checked what it may read.
fn reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod.pod_spec();
    let named = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    if named(&spec.service_account_name) || named(&spec.service_account) {
        return Some("serviceaccounts");
    }
    let volumes = || spec.volumes.iter().flatten();
    let references = References::of(pod);
    let by_volumes = volumes().any(|volume| {
        volume
            .cephfs
            .as_ref()
            .is_some_and(|v| v.secret_ref.is_some())
            || volume
                .cinder
                .as_ref()
                .is_some_and(|v| v.secret_ref.is_some())
            || volume
                .flex_volume
                .as_ref()
                .is_some_and(|v| v.secret_ref.is_some())
            || volume.rbd.as_ref().is_some_and(|v| v.secret_ref.is_some())
            || volume.scale_io.is_some()
            || volume
                .iscsi
                .as_ref()
                .is_some_and(|v| v.secret_ref.is_some())
            || volume
                .storageos
                .as_ref()
                .is_some_and(|v| v.secret_ref.is_some())
    });
    if by_volumes || !references.secrets.is_empty() {
        return Some("secrets");
    }
    if !references.config_maps.is_empty() {
        return Some("configmaps");
    }
    if spec
        .resource_claims
        .as_ref()
        .is_some_and(|claims| !claims.is_empty())
    {
        return Some("resourceclaims");
    }
    volumes().find_map(|volume| {
        let projected = volume
            .projected
            .iter()
            .flat_map(|p| p.sources.iter().flatten());
        let mut projected = projected.filter_map(|source| match source {
            s if s.service_account_token.is_some() => {
                Some("serviceaccounts (via projected volumes)")
            }
            s if s.cluster_trust_bundle.is_some() => Some("clustertrustbundles"),
            s if s.pod_certificate.is_some() => Some("podcertificates"),
            _ => None,
        });
        match volume {
            v if v.config_map.is_some() => Some("configmaps (via configmap volumes)"),
            v if v.secret.is_some() => Some("secrets (via secret volumes)"),
            v if v.csi.is_some() => Some("csidrivers (via CSI volumes)"),
            v if v.glusterfs.is_some() => Some("endpoints (via glusterFS volumes)"),
            v if v.persistent_volume_claim.is_some() => Some("persistentvolumeclaims"),
            v if v.ephemeral.is_some() => Some("persistentvolumeclaims (via ephemeral volumes)"),
            v if v.azure_file.is_some() => Some("secrets (via azureFile volumes)"),
            _ => projected.next(),
        }
    })
}

/// The pods that a source has, as it told of them.
pub struct Known {
    source: Source,
    told: mpsc::UnboundedSender<Event>,
    /// By uid: as read, and as told.
    pods: HashMap<String, (Pod, Arc<Pod>)>,
    ready: bool,
}

impl Known {
    pub fn new(source: Source, told: mpsc::UnboundedSender<Event>) -> Self {
        let pods = HashMap::new();
        Self {
            source,
            told,
            pods,
            ready: false,
        }
    }

    /// The source has these now: tells what is new, changed and gone.
    pub fn replace(&mut self, found: Vec<Pod>) {
        let mut before = std::mem::take(&mut self.pods);
        for pod in found {
            let uid = pod.uid().to_owned();
            let entry = match before.remove(&uid) {
                Some(known) if known.0 == pod => known,
                changed => {
                    // Of a pod that keeps its uid it is known since when it was there.
                    let seen = changed
                        .and_then(|(_, told)| told.annotation(CONFIG_SEEN).map(str::to_owned));
                    let seen = seen.unwrap_or_else(|| Timestamp::now().to_string());
                    let mut telling = pod.clone();
                    let annotations = telling.metadata.annotations.get_or_insert_default();
                    annotations.insert(CONFIG_SEEN.into(), seen);
                    let telling = Arc::new(telling);
                    let _ = self.told.send(Event::PodSet(self.source, telling.clone()));
                    (pod, telling)
                }
            };
            self.pods.insert(uid, entry);
        }
        for (_, gone) in before.into_values() {
            let _ = self.told.send(Event::PodGone(self.source, gone));
        }
        if !std::mem::replace(&mut self.ready, true) {
            let _ = self.told.send(Event::SourceReady(self.source));
        }
    }
}

#[cfg(test)]
mod tests;
