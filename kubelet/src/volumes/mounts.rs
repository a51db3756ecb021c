//! What is mounted into one container: its volumes, `/etc/hosts`, its termination message file.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use grpc::cri;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeDevice, VolumeMount};
use thiserror::Error;

use super::manager::{Mounted, MountedVolumes};
use super::sub_path::{self, SubPath, SubPathError};
use crate::cri::expansion::expand;
use crate::cri::hosts;
use crate::pods::dirs::PodDir;
use crate::pods::pod::PodExt;

/// Why a container's mounts cannot be made.
#[derive(Debug, Error)]
pub enum MountError {
    #[error("cannot find volume {volume:?} to mount into container {container:?}")]
    NoVolume { volume: String, container: String },
    #[error("missing value for {0}")]
    NoValue(String),
    #[error(transparent)]
    SubPath(#[from] SubPathError),
    #[error("failed to resolve recursive read-only mode: {0}")]
    RecursiveReadOnly(String),
    #[error("image of volume {0:?} was not pulled")]
    NoImage(String),
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
}

/// What a container's mounts are made from.
pub struct MountInput<'a> {
    pub dir: &'a PodDir,
    pub volumes: &'a MountedVolumes,
    /// Image volumes by name, as the runtime knows them.
    pub images: &'a std::collections::HashMap<String, cri::ImageSpec>,
    pub env: &'a [(String, String)],
    pub pod_ips: &'a [String],
    pub hostname: &'a str,
    pub domain: &'a str,
    pub recursive_read_only: bool,
}

const HOSTS: &str = "/etc/hosts";

/// Prepares and lists the mounts. Blocks on file operations.
///
/// # Errors
/// When a volume is missing, or a sub-path cannot be mounted.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    input: &MountInput<'_>,
) -> Result<Vec<cri::Mount>, MountError> {
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        mounts.push(volume_mount(container, index, mount, input)?);
    }
    let has_network = pod.host_network() || !input.pod_ips.is_empty();
    let own_hosts = container
        .volume_mounts
        .iter()
        .flatten()
        .any(|mount| mount.mount_path == HOSTS);
    if has_network && !own_hosts {
        mounts.push(hosts_mount(pod, input)?);
    }
    if let Some(path) = container
        .termination_message_path
        .as_deref()
        .filter(|path| !path.is_empty())
    {
        mounts.push(termination_mount(container, path, input)?);
    }
    Ok(mounts)
}

/// The devices that a container gets of its volumes.
///
/// # Errors
/// When one is missing, or is none.
pub fn devices_of_container(
    container: &Container,
    volumes: &MountedVolumes,
) -> Result<Vec<cri::Device>, MountError> {
    let device = |wanted: &VolumeDevice| match volumes.get(&wanted.name) {
        Some(Mounted::Device { path, read_only }) => Ok(cri::Device {
            container_path: wanted.device_path.clone(),
            host_path: path.to_string_lossy().into_owned(),
            permissions: if *read_only { "r" } else { "mrw" }.into(),
        }),
        _ => Err(MountError::NoVolume {
            volume: wanted.name.clone(),
            container: container.name.clone(),
        }),
    };
    container
        .volume_devices
        .iter()
        .flatten()
        .map(device)
        .collect()
}

fn volume_mount(
    container: &Container,
    index: usize,
    mount: &VolumeMount,
    input: &MountInput<'_>,
) -> Result<cri::Mount, MountError> {
    let volume = input
        .volumes
        .get(&mount.name)
        .ok_or_else(|| MountError::NoVolume {
            volume: mount.name.clone(),
            container: container.name.clone(),
        })?;
    let sub_path = match mount.sub_path_expr.as_deref() {
        Some(expression) if !expression.is_empty() => expand_all(expression, input.env)?,
        _ => mount.sub_path.clone().unwrap_or_default(),
    };
    let mut out = cri::Mount {
        container_path: absolute(&mount.mount_path),
        readonly: mount.read_only.unwrap_or_default(),
        recursive_read_only: recursive_read_only(mount, input.recursive_read_only)?,
        ..Default::default()
    };
    out.set_propagation(match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
        _ => cri::MountPropagation::PropagationPrivate,
    });
    match volume {
        Mounted::Path { path, read_only } => {
            out.readonly |= read_only;
            let path = if sub_path.is_empty() {
                path.clone()
            } else {
                sub_path::prepare(&SubPath {
                    pod_dir: input.dir.path(),
                    volume: &mount.name,
                    volume_path: path,
                    container: &container.name,
                    index,
                    sub_path: &sub_path,
                })?
            };
            out.host_path = path.to_string_lossy().into_owned();
        }
        Mounted::Device { .. } => {
            return Err(MountError::NoVolume {
                volume: mount.name.clone(),
                container: container.name.clone(),
            });
        }
        Mounted::Image { .. } => {
            let image = input
                .images
                .get(&mount.name)
                .ok_or_else(|| MountError::NoImage(mount.name.clone()))?;
            // Runtimes refuse an image that is to be written to.
            out.readonly = true;
            out.image = Some(image.clone());
            out.image_sub_path = sub_path::checked(&sub_path)?.to_owned();
        }
    }
    Ok(out)
}

/// `$(NAME)` in a sub-path must all be known and not empty: the result is a path.
fn expand_all(expression: &str, env: &[(String, String)]) -> Result<String, MountError> {
    let mut missing = std::collections::BTreeSet::new();
    let expanded = expand(expression, |name| {
        let value = env
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        let value = value.filter(|value| !value.is_empty());
        if value.is_none() {
            missing.insert(name.to_owned());
        }
        value
    });
    if missing.is_empty() {
        Ok(expanded)
    } else {
        Err(MountError::NoValue(
            missing.into_iter().collect::<Vec<_>>().join(", "),
        ))
    }
}

fn recursive_read_only(mount: &VolumeMount, supported: bool) -> Result<bool, MountError> {
    let wrong = |why: &str| {
        Err(MountError::RecursiveReadOnly(format!(
            "volume {:?} requested recursive read-only mode, but {why}",
            mount.name
        )))
    };
    let mode = match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => return Ok(false),
        Some(mode) => mode,
    };
    if mount.read_only != Some(true) {
        return wrong("it is not read-only");
    }
    if mount
        .mount_propagation
        .as_deref()
        .is_some_and(|propagation| propagation != "None")
    {
        return wrong("it is not compatible with its propagation");
    }
    if mode == "Enabled" && !supported {
        return wrong("it is not supported by the runtime");
    }
    Ok(supported)
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

fn hosts_mount(pod: &Pod, input: &MountInput<'_>) -> Result<cri::Mount, MountError> {
    let io = |source| MountError::Io {
        what: "cannot write the pod's hosts file",
        source,
    };
    let aliases = pod.pod_spec().host_aliases.as_deref().unwrap_or_default();
    let text = if pod.host_network() {
        // In whatever encoding the node has it.
        hosts::host_network_file(&fs::read(HOSTS).map_err(io)?, aliases)
    } else {
        hosts::hosts_file(input.pod_ips, input.hostname, input.domain, aliases).into_bytes()
    };
    let path = input.dir.hosts();
    // Running containers have this very file mounted: it is written over, not replaced.
    fs::write(&path, text)
        .and_then(|()| fs::set_permissions(&path, PermissionsExt::from_mode(0o644)))
        .map_err(io)?;
    Ok(cri::Mount {
        container_path: HOSTS.into(),
        host_path: path.to_string_lossy().into_owned(),
        selinux_relabel: false,
        ..Default::default()
    })
}

/// A file that each instance of the container has for itself, open to whatever user it runs as.
fn termination_mount(
    container: &Container,
    path: &str,
    input: &MountInput<'_>,
) -> Result<cri::Mount, MountError> {
    let io = |source| MountError::Io {
        what: "cannot make the termination message file",
        source,
    };
    let directory = input.dir.container(&container.name);
    fs::create_dir_all(&directory).map_err(io)?;
    let file = directory.join(format!("{:08x}", rand::random::<u32>()));
    fs::File::create(&file)
        .and_then(|created| created.set_permissions(PermissionsExt::from_mode(0o666)))
        .map_err(io)?;
    Ok(cri::Mount {
        container_path: absolute(path),
        host_path: file.to_string_lossy().into_owned(),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;
    use crate::pods::dirs::Root;

    #[test]
    fn mounts_of_a_container() {
        let root = tempfile::tempdir().unwrap();
        let dir = Root::new(root.path()).pod("u");
        super::super::manager::make_pod_dirs(&dir).unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [{"name": "c", "terminationMessagePath": "/dev/termination-log", "volumeMounts": [
                {"name": "cfg", "mountPath": "/cfg", "readOnly": true}, {"name": "tmp", "mountPath": "tmp", "mountPropagation": "HostToContainer"},
            ]}]},
        }))
        .unwrap();
        let volumes = HashMap::from([
            (
                "cfg".to_owned(),
                Mounted::Path {
                    path: "/v/cfg".into(),
                    read_only: true,
                },
            ),
            (
                "tmp".to_owned(),
                Mounted::Path {
                    path: "/v/tmp".into(),
                    read_only: false,
                },
            ),
        ]);
        let input = MountInput {
            dir: &dir,
            volumes: &volumes,
            images: &HashMap::new(),
            env: &[],
            pod_ips: &["10.0.0.1".into()],
            hostname: "p",
            domain: "",
            recursive_read_only: false,
        };
        let mounts = of_container(&pod, &pod.containers()[0], &input).unwrap();
        let paths: Vec<_> = mounts
            .iter()
            .map(|m| (m.container_path.as_str(), m.readonly))
            .collect();
        assert_eq!(
            paths,
            [
                ("/cfg", true),
                ("/tmp", false),
                ("/etc/hosts", false),
                ("/dev/termination-log", false)
            ]
        );
        assert_eq!(
            mounts[1].propagation(),
            cri::MountPropagation::PropagationHostToContainer
        );
        assert!(
            fs::read_to_string(dir.hosts())
                .unwrap()
                .contains("10.0.0.1\tp\n")
        );
        let missing = MountInput {
            volumes: &HashMap::new(),
            ..input
        };
        assert!(matches!(
            of_container(&pod, &pod.containers()[0], &missing),
            Err(MountError::NoVolume { .. })
        ));
    }

    #[test]
    fn devices_of_a_container() {
        let container: Container = serde_json::from_value(json!({"name": "c",
            "volumeDevices": [{"name": "d", "devicePath": "/dev/x"}]}))
        .unwrap();
        let device = |read_only| {
            let device = Mounted::Device {
                path: "/link".into(),
                read_only,
            };
            HashMap::from([("d".to_owned(), device)])
        };
        let devices = devices_of_container(&container, &device(true)).unwrap();
        assert_eq!(
            (
                devices[0].host_path.as_str(),
                devices[0].permissions.as_str()
            ),
            ("/link", "r")
        );
        let devices = devices_of_container(&container, &device(false)).unwrap();
        assert_eq!(devices[0].permissions, "mrw");
        assert!(devices_of_container(&container, &HashMap::new()).is_err());
    }

    #[test]
    fn sub_path_expressions() {
        let env = [
            ("POD".to_owned(), "p-0".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ];
        assert_eq!(expand_all("logs/$(POD)", &env).unwrap(), "logs/p-0");
        assert_eq!(
            expand_all("$(NONE)/$(EMPTY)", &env)
                .unwrap_err()
                .to_string(),
            "missing value for EMPTY, NONE"
        );
    }
}
