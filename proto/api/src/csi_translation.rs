//! Volumes of storage systems whose plugins were once part of Kubernetes, as volumes of the CSI
//! drivers that took their place (KEP-625). Objects of the API keep naming the old plugin; whoever
//! attaches, mounts or counts such a volume takes it as if it named the driver.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, CSIPersistentVolumeSource,
    GCEPersistentDiskVolumeSource, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeSpec, SecretReference, Volume,
};
use thiserror::Error;

/// Why a volume cannot be the driver's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TranslationError {
    #[error("Invalid format for AWS volume ({0})")]
    AwsVolume(String),
    #[error("kind({0}) is not supported in csi migration")]
    AzureDiskKind(String),
    #[error("could not find a secret namespace in PersistentVolumeSource or ClaimRef")]
    AzureFileSecret,
    #[error("failed to get region from zones: {0}")]
    GceZones(String),
}

const AWS_EBS: &str = "ebs.csi.aws.com";
const GCE_PD: &str = "pd.csi.storage.gke.io";
const AZURE_DISK: &str = "disk.csi.azure.com";
const AZURE_FILE: &str = "file.csi.azure.com";
const CINDER: &str = "cinder.csi.openstack.org";
const VSPHERE: &str = "csi.vsphere.vmware.com";
const PORTWORX: &str = "pxd.portworx.com";

/// The plugins that were part of Kubernetes, each with the driver that does its work now. By name.
pub const PLUGINS: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", AWS_EBS),
    ("kubernetes.io/azure-disk", AZURE_DISK),
    ("kubernetes.io/azure-file", AZURE_FILE),
    ("kubernetes.io/cinder", CINDER),
    ("kubernetes.io/gce-pd", GCE_PD),
    ("kubernetes.io/portworx-volume", PORTWORX),
    ("kubernetes.io/vsphere-volume", VSPHERE),
];

/// The driver in the place of a plugin; `None` where the plugin is not one of old.
pub fn driver_of(plugin: &str) -> Option<&'static str> {
    let (_, driver) = PLUGINS.iter().find(|(name, _)| *name == plugin)?;
    Some(driver)
}

/// The plugin of old that a volume is of, and the driver in its place.
pub fn plugin_of(spec: &PersistentVolumeSpec) -> Option<(&'static str, &'static str)> {
    let is_of = [
        spec.aws_elastic_block_store.is_some(),
        spec.azure_disk.is_some(),
        spec.azure_file.is_some(),
        spec.cinder.is_some(),
        spec.gce_persistent_disk.is_some(),
        spec.portworx_volume.is_some(),
        spec.vsphere_volume.is_some(),
    ];
    let of = is_of.iter().position(|is| *is)?;
    Some(PLUGINS[of])
}

const AWS_ZONE: &str = "topology.ebs.csi.aws.com/zone";
const GCE_ZONE: &str = "topology.gke.io/zone";
const CINDER_ZONE: &str = "topology.cinder.csi.openstack.org/zone";
const VSPHERE_ZONE: &str = "topology.csi.vmware.com/zone";
const VSPHERE_REGION: &str = "topology.csi.vmware.com/region";

const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
const BETA_ZONE: &str = "failure-domain.beta.kubernetes.io/zone";
const BETA_REGION: &str = "failure-domain.beta.kubernetes.io/region";
/// Between the zones of a label.
const ZONES: &str = "__";

/// Of the Azure share whose resource group is not the cluster's.
const RESOURCE_GROUP: &str = "kubernetes.io/azure-file-resource-group";
const PORTWORX_SECRET: &str = "openstorage.io/auth-secret-name";
const PORTWORX_SECRET_NAMESPACE: &str = "openstorage.io/auth-secret-namespace";
/// What the GCE driver fills in by itself.
const UNSPECIFIED: &str = "UNSPECIFIED";

const ONCE: &str = "ReadWriteOnce";
const READ_MANY: &str = "ReadOnlyMany";
const WRITE_MANY: &str = "ReadWriteMany";

type Attributes = BTreeMap<String, String>;

/// The volume as its driver's; `None` where it is not one of a plugin of old.
///
/// # Errors
/// When the driver does not have such volumes.
pub fn persistent(volume: &PersistentVolume) -> Result<Option<PersistentVolume>, TranslationError> {
    let mut volume = volume.clone();
    let Some(spec) = volume.spec.as_mut() else {
        return Ok(None);
    };
    let source = if let Some(disk) = spec.aws_elastic_block_store.take() {
        let source = aws(&disk)?;
        zone_to(&mut volume, AWS_ZONE);
        source
    } else if let Some(disk) = spec.gce_persistent_disk.take() {
        if spec
            .access_modes
            .as_ref()
            .is_some_and(|modes| !modes.is_empty())
        {
            spec.access_modes = Some(vec![gce_access_mode(spec).to_owned()]);
        }
        let source = gce(&disk, gce_place(&volume)?);
        zone_to(&mut volume, GCE_ZONE);
        source
    } else if let Some(disk) = spec.azure_disk.take() {
        azure_disk(&disk, true)?
    } else if let Some(share) = spec.azure_file.take() {
        let claim = spec.claim_ref.as_ref();
        let namespace = share
            .secret_namespace
            .or_else(|| claim.and_then(|claim| claim.namespace.clone()))
            .filter(|namespace| !namespace.is_empty())
            .ok_or(TranslationError::AzureFileSecret)?;
        let metadata = &volume.metadata;
        let group = metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(RESOURCE_GROUP));
        let group = group.map(String::as_str).unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        azure_file(
            group,
            &share.secret_name,
            &share.share_name,
            name,
            &namespace,
            share.read_only,
        )
    } else if let Some(disk) = spec.cinder.take() {
        let source = source(
            CINDER,
            &disk.volume_id,
            disk.fs_type,
            disk.read_only,
            Attributes::new(),
        );
        zone_to(&mut volume, CINDER_ZONE);
        source
    } else if let Some(disk) = spec.vsphere_volume.take() {
        let policy = disk.storage_policy_name;
        let source = source(
            VSPHERE,
            &disk.volume_path,
            disk.fs_type,
            None,
            vsphere(policy),
        );
        vsphere_topology(&mut volume);
        source
    } else if let Some(disk) = spec.portworx_volume.take() {
        let annotation = |name| volume.metadata.annotations.as_ref()?.get(name).cloned();
        let secret = annotation(PORTWORX_SECRET).zip(annotation(PORTWORX_SECRET_NAMESPACE));
        let secret = secret.map(|(name, namespace)| reference(&name, &namespace));
        CSIPersistentVolumeSource {
            controller_publish_secret_ref: secret.clone(),
            node_stage_secret_ref: secret.clone(),
            node_publish_secret_ref: secret.clone(),
            controller_expand_secret_ref: secret.clone(),
            node_expand_secret_ref: secret,
            ..source(
                PORTWORX,
                &disk.volume_id,
                disk.fs_type,
                None,
                Attributes::new(),
            )
        }
    } else {
        return Ok(None);
    };
    volume.spec.get_or_insert_default().csi = Some(source);
    Ok(Some(volume))
}

/// A pod's own volume as a persistent one of its driver, which exists nowhere but here; `None` where
/// it is not one of a plugin of old. `namespace` is the pod's.
///
/// # Errors
/// As [`persistent`].
pub fn inline(
    volume: &Volume,
    namespace: &str,
) -> Result<Option<PersistentVolume>, TranslationError> {
    let (source, name, mode) = if let Some(disk) = &volume.aws_elastic_block_store {
        (aws(disk)?, None, ONCE)
    } else if let Some(disk) = &volume.gce_persistent_disk {
        let mode = if disk.read_only == Some(true) {
            READ_MANY
        } else {
            ONCE
        };
        let name = format!("{GCE_PD}-{}", disk.pd_name);
        (gce(disk, ("zones", UNSPECIFIED.into())), Some(name), mode)
    } else if let Some(disk) = &volume.azure_disk {
        (azure_disk(disk, false)?, Some(disk.disk_uri.clone()), ONCE)
    } else if let Some(share) = &volume.azure_file {
        let namespace = if namespace.is_empty() {
            "default"
        } else {
            namespace
        };
        let source = azure_file(
            "",
            &share.secret_name,
            &share.share_name,
            &volume.name,
            namespace,
            share.read_only,
        );
        let name = source.volume_handle.clone();
        (source, Some(name), WRITE_MANY)
    } else if let Some(disk) = &volume.cinder {
        let source = source(
            CINDER,
            &disk.volume_id,
            disk.fs_type.clone(),
            disk.read_only,
            Attributes::new(),
        );
        (source, None, ONCE)
    } else if let Some(disk) = &volume.vsphere_volume {
        let attributes = vsphere(disk.storage_policy_name.clone());
        (
            source(
                VSPHERE,
                &disk.volume_path,
                disk.fs_type.clone(),
                None,
                attributes,
            ),
            None,
            ONCE,
        )
    } else if let Some(disk) = &volume.portworx_volume {
        let mode = if disk.read_only == Some(true) {
            READ_MANY
        } else {
            ONCE
        };
        (
            source(
                PORTWORX,
                &disk.volume_id,
                disk.fs_type.clone(),
                None,
                Attributes::new(),
            ),
            None,
            mode,
        )
    } else {
        return Ok(None);
    };
    // Staging directories are named after it, so there is one name per disk.
    let name = name.unwrap_or_else(|| format!("{}-{}", source.driver, source.volume_handle));
    let mut made = PersistentVolume::default();
    made.metadata.name = Some(name);
    made.spec = Some(PersistentVolumeSpec {
        access_modes: Some(vec![mode.to_owned()]),
        volume_mode: Some("Filesystem".into()),
        csi: Some(source),
        ..Default::default()
    });
    Ok(Some(made))
}

fn source(
    driver: &str,
    handle: &str,
    fs_type: Option<String>,
    read_only: Option<bool>,
    attributes: Attributes,
) -> CSIPersistentVolumeSource {
    CSIPersistentVolumeSource {
        driver: driver.to_owned(),
        volume_handle: handle.to_owned(),
        fs_type: fs_type.filter(|fs_type| !fs_type.is_empty()),
        read_only: read_only.filter(|read_only| *read_only),
        volume_attributes: Some(attributes).filter(|attributes| !attributes.is_empty()),
        ..Default::default()
    }
}

fn reference(name: &str, namespace: &str) -> SecretReference {
    SecretReference {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
    }
}

fn aws(
    disk: &AWSElasticBlockStoreVolumeSource,
) -> Result<CSIPersistentVolumeSource, TranslationError> {
    // `aws://<zone>/<id>`, or the id alone.
    let id = match disk.volume_id.strip_prefix("aws://") {
        None => disk.volume_id.as_str(),
        Some(url) => {
            let url = url.split(['?', '#']).next().unwrap_or_default();
            let path = url.find('/').map_or("", |at| &url[at..]).trim_matches('/');
            if !path.starts_with("vol-") || path.contains('/') {
                return Err(TranslationError::AwsVolume(disk.volume_id.clone()));
            }
            path
        }
    };
    let partition = disk.partition.unwrap_or_default().to_string();
    let attributes = Attributes::from([("partition".into(), partition)]);
    Ok(source(
        AWS_EBS,
        id,
        disk.fs_type.clone(),
        disk.read_only,
        attributes,
    ))
}

fn gce(
    disk: &GCEPersistentDiskVolumeSource,
    (kind, place): (&str, String),
) -> CSIPersistentVolumeSource {
    let handle = format!(
        "projects/{UNSPECIFIED}/{kind}/{place}/disks/{}",
        disk.pd_name
    );
    let partition = disk.partition.filter(|partition| *partition != 0);
    let partition = partition
        .map(|partition| partition.to_string())
        .unwrap_or_default();
    let attributes = Attributes::from([("partition".into(), partition)]);
    source(
        GCE_PD,
        &handle,
        disk.fs_type.clone(),
        disk.read_only,
        attributes,
    )
}

/// Where a disk of GCE is: in a zone, or if there are several in their region.
fn gce_place(volume: &PersistentVolume) -> Result<(&'static str, String), TranslationError> {
    let label = |name| label(volume, name).filter(|label| !label.is_empty());
    let Some(zones) = label(BETA_ZONE).or_else(|| label(ZONE)) else {
        return Ok(("zones", UNSPECIFIED.into()));
    };
    let zones: Vec<&str> = zones.split(ZONES).collect();
    if let [zone] = zones[..] {
        return Ok(("zones", zone.to_owned()));
    }
    let mut regions = BTreeSet::new();
    for zone in zones {
        match zone.split('-').collect::<Vec<_>>()[..] {
            [place, region, _] => regions.insert(format!("{place}-{region}")),
            _ => {
                let why = format!(
                    "zone in unexpected format, expected: {{locale}}-{{region}}-{{zone}}, got: {zone}"
                );
                return Err(TranslationError::GceZones(why));
            }
        };
    }
    match regions.pop_first() {
        Some(region) if regions.is_empty() => Ok(("regions", region)),
        first => {
            let all: Vec<String> = first.into_iter().chain(regions).collect();
            let why = format!(
                "multiple or no regions gotten from zones, got: {}",
                all.join(", ")
            );
            Err(TranslationError::GceZones(why))
        }
    }
}

/// The plugin did not look at the modes, and the driver does.
fn gce_access_mode(spec: &PersistentVolumeSpec) -> &'static str {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let has = |mode: &str| modes.iter().any(|own| own == mode);
    let reads_only = has(READ_MANY) && !has(WRITE_MANY) && !has(ONCE);
    if reads_only { READ_MANY } else { ONCE }
}

/// `persistent`: an empty caching mode is told to the driver, too, as upstream does it.
fn azure_disk(
    disk: &AzureDiskVolumeSource,
    persistent: bool,
) -> Result<CSIPersistentVolumeSource, TranslationError> {
    if let Some(kind) = disk
        .kind
        .as_deref()
        .filter(|kind| !kind.eq_ignore_ascii_case("managed"))
    {
        return Err(TranslationError::AzureDiskKind(kind.to_owned()));
    }
    let mut attributes = Attributes::from([("kind".to_owned(), "Managed".to_owned())]);
    let caching = disk
        .caching_mode
        .clone()
        .filter(|mode| persistent || !mode.is_empty());
    attributes.extend(caching.map(|mode| ("cachingmode".to_owned(), mode)));
    attributes.extend(
        disk.fs_type
            .clone()
            .map(|fs_type| ("fstype".to_owned(), fs_type)),
    );
    Ok(source(
        AZURE_DISK,
        &disk.disk_uri,
        disk.fs_type.clone(),
        disk.read_only,
        attributes,
    ))
}

fn azure_file(
    group: &str,
    secret: &str,
    share: &str,
    name: &str,
    namespace: &str,
    read_only: Option<bool>,
) -> CSIPersistentVolumeSource {
    // Secrets are named after the account, unless somebody gave them another name.
    let account = secret
        .split_once("azure-storage-account-")
        .and_then(|(_, rest)| rest.rsplit_once("-secret"))
        .map_or(secret, |(account, _)| account);
    let account = if account.is_empty() { secret } else { account };
    let handle = format!("{group}#{account}#{share}#{name}#{namespace}");
    let attributes = Attributes::from([("sharename".into(), share.to_owned())]);
    CSIPersistentVolumeSource {
        node_stage_secret_ref: Some(reference(secret, namespace)),
        ..source(AZURE_FILE, &handle, None, read_only, attributes)
    }
}

fn vsphere(policy: Option<String>) -> Attributes {
    let policy = policy.filter(|policy| !policy.is_empty());
    policy
        .map(|policy| ("storagepolicyname".to_owned(), policy))
        .into_iter()
        .collect()
}

fn label<'a>(volume: &'a PersistentVolume, name: &str) -> Option<&'a str> {
    volume
        .metadata
        .labels
        .as_ref()?
        .get(name)
        .map(String::as_str)
}

fn terms(volume: &mut PersistentVolume) -> &mut [NodeSelectorTerm] {
    let affinity = volume
        .spec
        .as_mut()
        .and_then(|spec| spec.node_affinity.as_mut());
    let required = affinity.and_then(|affinity| affinity.required.as_mut());
    required
        .map(|required| required.node_selector_terms.as_mut_slice())
        .unwrap_or_default()
}

fn expressions<'a>(
    volume: &'a mut PersistentVolume,
    key: &'a str,
) -> impl Iterator<Item = &'a mut NodeSelectorRequirement> {
    let all = terms(volume)
        .iter_mut()
        .flat_map(|term| term.match_expressions.iter_mut().flatten());
    all.filter(move |expression| expression.key == key)
}

/// Renames a label in what the volume asks of nodes; whether it was there with values.
fn rename(volume: &mut PersistentVolume, from: &str, to: &str) -> bool {
    let valued =
        expressions(volume, from).any(|e| e.values.as_ref().is_some_and(|v| !v.is_empty()));
    if valued {
        expressions(volume, from).for_each(|expression| to.clone_into(&mut expression.key));
    }
    valued
}

/// Asks of nodes to be in one of these zones, beside what else is asked.
fn require<'a>(volume: &mut PersistentVolume, key: &str, zones: impl Iterator<Item = &'a str>) {
    let zones: BTreeSet<&str> = zones
        .map(str::trim)
        .filter(|zone| !zone.is_empty())
        .collect();
    if zones.is_empty() {
        return;
    }
    let spec = volume.spec.get_or_insert_default();
    let affinity = spec.node_affinity.get_or_insert_default();
    let terms = &mut affinity
        .required
        .get_or_insert_default()
        .node_selector_terms;
    if terms.is_empty() {
        terms.push(NodeSelectorTerm::default());
    }
    for term in terms {
        term.match_expressions
            .get_or_insert_default()
            .push(NodeSelectorRequirement {
                key: key.to_owned(),
                operator: "In".into(),
                values: Some(zones.iter().map(|zone| (*zone).to_owned()).collect()),
            });
    }
}

/// The labels of zone and region that the volume uses: those of today, or of long ago.
fn topology_labels(volume: &mut PersistentVolume) -> (&'static str, &'static str) {
    let [asks, asks_beta] = [ZONE, BETA_ZONE].map(|key| expressions(volume, key).next().is_some());
    let is_in_beta = label(volume, ZONE).is_none() && label(volume, BETA_ZONE).is_some();
    match !asks && (asks_beta || is_in_beta) {
        true => (BETA_ZONE, BETA_REGION),
        false => (ZONE, REGION),
    }
}

/// Nodes are told by the driver's label of the zone, not by Kubernetes'.
fn zone_to(volume: &mut PersistentVolume, key: &str) {
    let (zone, region) = topology_labels(volume);
    if !rename(volume, zone, key)
        && let Some(zones) = label(volume, zone).map(str::to_owned)
    {
        require(volume, key, zones.split(ZONES));
    }
    if region == BETA_REGION {
        rename(volume, BETA_REGION, REGION);
    }
}

/// As [`zone_to`], for a driver that knows regions, too, and no lists of either.
fn vsphere_topology(volume: &mut PersistentVolume) {
    let (zone, region) = topology_labels(volume);
    for (from, to) in [(zone, VSPHERE_ZONE), (region, VSPHERE_REGION)] {
        if !rename(volume, from, to)
            && let Some(place) = label(volume, from).map(str::to_owned)
        {
            require(volume, to, std::iter::once(place.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn translated(volume: Value) -> Result<Value, String> {
        let volume = persistent(&serde_json::from_value(volume).unwrap());
        volume
            .map(|volume| serde_json::to_value(volume).unwrap())
            .map_err(|error| error.to_string())
    }

    fn inlined(volume: Value) -> Result<Value, String> {
        let volume = inline(&serde_json::from_value(volume).unwrap(), "ns");
        volume
            .map(|volume| serde_json::to_value(volume).unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn disks_in_zones() {
        let disk = json!({"metadata": {"name": "pv", "labels": {"failure-domain.beta.kubernetes.io/zone": "a__b"}},
            "spec": {"awsElasticBlockStore": {"volumeID": "aws://a/vol-1", "fsType": "xfs", "partition": 1}}});
        let made = translated(disk).unwrap();
        let csi = json!({"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1", "fsType": "xfs", "volumeAttributes": {"partition": "1"}});
        assert_eq!(made["spec"]["csi"], csi);
        assert_eq!(made["spec"]["awsElasticBlockStore"], Value::Null);
        let zones =
            json!({"key": "topology.ebs.csi.aws.com/zone", "operator": "In", "values": ["a", "b"]});
        assert_eq!(
            made.pointer("/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0"),
            Some(&zones)
        );
        let asks = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["us-x-a", "us-x-b"]}]}]}});
        let disk = json!({"metadata": {"name": "pv", "labels": {"topology.kubernetes.io/zone": "us-x-a__us-x-b"}},
            "spec": {"accessModes": ["ReadOnlyMany", "ReadWriteMany"], "nodeAffinity": asks, "gcePersistentDisk": {"pdName": "d"}}});
        let made = translated(disk).unwrap();
        assert_eq!(
            made["spec"]["csi"]["volumeHandle"],
            "projects/UNSPECIFIED/regions/us-x/disks/d"
        );
        assert_eq!(made["spec"]["accessModes"], json!(["ReadWriteOnce"]));
        let key =
            made.pointer("/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/key");
        assert_eq!(key, Some(&json!("topology.gke.io/zone")));
        let wrong = json!({"spec": {"awsElasticBlockStore": {"volumeID": "aws://a/disk-1"}}});
        assert_eq!(
            translated(wrong).unwrap_err(),
            "Invalid format for AWS volume (aws://a/disk-1)"
        );
    }

    #[test]
    fn shares_and_their_secrets() {
        let share = json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "n"},
            "azureFile": {"secretName": "azure-storage-account-acc-secret", "shareName": "s", "readOnly": true}}});
        let csi = &translated(share).unwrap()["spec"]["csi"];
        assert_eq!(csi["volumeHandle"], "#acc#s#pv#n");
        assert_eq!(
            csi["nodeStageSecretRef"],
            json!({"name": "azure-storage-account-acc-secret", "namespace": "n"})
        );
        let nowhere = json!({"spec": {"azureFile": {"secretName": "x", "shareName": "s"}}});
        assert!(translated(nowhere).is_err());
        let own = inlined(json!({"name": "v", "azureFile": {"secretName": "x", "shareName": "s"}}))
            .unwrap();
        assert_eq!(own["metadata"]["name"], "#x#s#v#ns");
        assert_eq!(own["spec"]["accessModes"], json!(["ReadWriteMany"]));
    }

    #[test]
    fn pods_own_volumes() {
        let name = |volume: Value| inlined(volume).unwrap()["metadata"]["name"].clone();
        for (volume, expected) in [
            (
                json!({"name": "v", "awsElasticBlockStore": {"volumeID": "vol-1"}}),
                "ebs.csi.aws.com-vol-1",
            ),
            (
                json!({"name": "v", "gcePersistentDisk": {"pdName": "p"}}),
                "pd.csi.storage.gke.io-p",
            ),
            (
                json!({"name": "v", "azureDisk": {"diskName": "d", "diskURI": "/x/y"}}),
                "/x/y",
            ),
            (
                json!({"name": "v", "cinder": {"volumeID": "c"}}),
                "cinder.csi.openstack.org-c",
            ),
            (
                json!({"name": "v", "vsphereVolume": {"volumePath": "[a] b"}}),
                "csi.vsphere.vmware.com-[a] b",
            ),
            (
                json!({"name": "v", "portworxVolume": {"volumeID": "p"}}),
                "pxd.portworx.com-p",
            ),
        ] {
            assert_eq!(name(volume), expected);
        }
        let dedicated = json!({"name": "v", "azureDisk": {"diskName": "d", "diskURI": "u", "kind": "Dedicated"}});
        assert_eq!(
            inlined(dedicated).unwrap_err(),
            "kind(Dedicated) is not supported in csi migration"
        );
        assert_eq!(
            inlined(json!({"name": "v", "emptyDir": {}})),
            Ok(Value::Null)
        );
        assert_eq!(
            translated(json!({"spec": {"nfs": {"server": "s", "path": "/"}}})),
            Ok(Value::Null)
        );
    }
}
