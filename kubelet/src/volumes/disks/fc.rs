//! Fibre Channel: a disk that the node's adapters see, found by what it is called below `/dev/disk`.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::FCVolumeSource;
use tracing::warn;

use super::device;
use crate::sys::host::Host;

/// As in the names of directories.
pub const PLUGIN: &str = "fc";
const BY_PATH: &str = "/dev/disk/by-path";
const BY_ID: &str = "/dev/disk/by-id";

/// What a disk is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fc {
    /// World wide names of targets, and the LUN there.
    Targets { names: Vec<String>, lun: i32 },
    /// Its own world wide identifiers.
    Ids(Vec<String>),
}

/// Of a volume.
///
/// # Errors
/// When it says neither targets nor identifiers.
pub fn of(source: &FCVolumeSource) -> Result<Fc, String> {
    let names = source.target_wwns.clone().unwrap_or_default();
    let ids = source.wwids.clone().unwrap_or_default();
    match source.lun {
        Some(lun) if !names.is_empty() => Ok(Fc::Targets { names, lun }),
        _ if !ids.is_empty() => Ok(Fc::Ids(ids)),
        _ => Err("fc: no fc disk information found. failed to make a new mounter".into()),
    }
}

/// Identifiers may have blanks; names of links and directories do not.
fn as_in_links(id: &str) -> String {
    id.replace(' ', "_")
}

impl Fc {
    /// Its directory, below that of file systems or of devices.
    pub fn dir_name(&self) -> PathBuf {
        match self {
            Self::Targets { names, lun } => format!("{}-lun-{lun}", names.join("-")).into(),
            Self::Ids(ids) => as_in_links(&ids.join("-")).into(),
        }
    }

    /// As the node's status names it, after `kubernetes.io/fc/`.
    pub fn unique_name(&self) -> String {
        match self {
            Self::Targets { names, lun } => format!("[{}]:{lun}", names.join(" ")),
            Self::Ids(ids) => format!("[{}]", ids.join(" ")),
        }
    }

    /// What a directory is for.
    pub fn known(dir: &Path) -> Option<Self> {
        let name = dir.file_name()?.to_str()?;
        let split = |text: &str| text.split('-').map(str::to_owned).collect();
        Some(match name.rsplit_once("-lun-") {
            Some((names, lun)) => Self::Targets {
                names: split(names),
                lun: lun.parse().ok()?,
            },
            None => Self::Ids(split(name)),
        })
    }

    /// The disk, or the device-mapper's device that it is a path of.
    fn find(&self, host: &Host) -> Option<PathBuf> {
        let links: Vec<PathBuf> = match self {
            Self::Targets { names, lun } => {
                let ends: Vec<String> = names
                    .iter()
                    .map(|name| format!("fc-0x{name}-lun-{lun}"))
                    .collect();
                let is_it = |link: &String| {
                    ends.iter().any(|end| {
                        link == end
                            || (link.starts_with("pci-") && link.ends_with(&format!("-{end}")))
                    })
                };
                let links = host.names(BY_PATH).into_iter().filter(is_it);
                links.map(|link| Path::new(BY_PATH).join(link)).collect()
            }
            Self::Ids(ids) => ids
                .iter()
                .map(|id| Path::new(BY_ID).join(format!("scsi-{}", as_in_links(id))))
                .collect(),
        };
        let disks: Vec<PathBuf> = links
            .iter()
            .filter_map(|link| host.resolve(link).ok())
            .collect();
        let map = disks
            .iter()
            .find_map(|disk| device::multipath_of(host, disk));
        map.or_else(|| disks.into_iter().next())
    }

    /// The disk. Adapters look for new ones where no multipath device is found, as it may lack paths.
    ///
    /// # Errors
    /// When it is not there.
    pub fn attach(&self, host: &Host) -> Result<PathBuf, String> {
        let is_map = |disk: &PathBuf| disk.to_string_lossy().starts_with("/dev/dm-");
        let found = self.find(host).filter(is_map).or_else(|| {
            device::scan_all(host);
            self.find(host)
        });
        found.ok_or_else(|| "no fc disk found".into())
    }

    /// Takes a disk off the node: the one that was mounted, or whichever is the volume's.
    ///
    /// # Errors
    /// When multipath does not let go of it.
    pub fn detach(&self, host: &Host, mounted: Option<&Path>) -> Result<(), String> {
        let disk = match mounted {
            Some(disk) => Some(host.resolve(disk).map_err(|error| error.to_string())?),
            None => self.find(host),
        };
        let Some(disk) = disk else {
            return Ok(());
        };
        let paths = if disk.to_string_lossy().starts_with("/dev/dm-") {
            let paths = device::paths_of(host, &disk);
            host.run("multipath", &["-f", &disk.to_string_lossy()])
                .map_err(|error| {
                    format!(
                        "failed to flush multipath device {}: {error}",
                        disk.display()
                    )
                })?;
            paths
        } else {
            vec![disk]
        };
        for path in paths {
            if let Err(error) = host.run("blockdev", &["--flushbufs", &path.to_string_lossy()]) {
                warn!(disk = %path.display(), %error, "cannot flush a disk");
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Err(error) = device::delete(host, &name) {
                warn!(disk = %path.display(), %error, "cannot take a disk off the node");
            }
        }
        Ok(())
    }
}
