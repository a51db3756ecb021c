//! What the kernel shows of SCSI disks: which hosts have sessions with a target, which disks are a
//! LUN's, which paths multipath has put together.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::host::Host;

/// The name of what a path below `/dev` leads to: `sda`.
fn device_name(host: &Host, device: &Path) -> Option<String> {
    let real = host.resolve(device).ok()?;
    let name = real.strip_prefix("/dev").ok()?.to_str()?;
    (!name.contains('/')).then(|| name.to_owned())
}

/// The device-mapper's device that a disk is a path of; itself, if it is one.
pub fn multipath_of(host: &Host, device: &Path) -> Option<PathBuf> {
    if device.to_string_lossy().starts_with("/dev/dm-") {
        return Some(device.to_owned());
    }
    let disk = device_name(host, device)?;
    let maps = host
        .names("/sys/block")
        .into_iter()
        .filter(|name| name.starts_with("dm-"));
    let mut of_disk = maps.filter(|name| {
        let slave = format!("/sys/block/{name}/slaves/{disk}");
        host.path(slave).symlink_metadata().is_ok()
    });
    of_disk.next().map(|name| Path::new("/dev").join(name))
}

/// The disks that a device-mapper's device is made of.
pub fn paths_of(host: &Host, map: &Path) -> Vec<PathBuf> {
    let name = map.file_name().unwrap_or_default().to_string_lossy();
    let disks = host.names(format!("/sys/block/{name}/slaves")).into_iter();
    disks.map(|name| Path::new("/dev").join(name)).collect()
}

/// Takes a disk off the node. One that is gone is fine.
///
/// # Errors
/// When the kernel does not let go of it.
pub fn delete(host: &Host, name: &str) -> io::Result<()> {
    match fs::write(host.path(format!("/sys/block/{name}/device/delete")), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Looks for one LUN on one host. Others are not looked for: they would be found, and nobody would
/// take them away again.
///
/// # Errors
/// When there is no such host.
pub fn scan_lun(host: &Host, number: u32, lun: i32) -> io::Result<()> {
    let path = host.path(format!("/sys/class/scsi_host/host{number}/scan"));
    fs::metadata(&path)?;
    fs::write(path, format!("0 0 {lun}"))
}

/// Looks for everything on all hosts.
pub fn scan_all(host: &Host) {
    for name in host.names("/sys/class/scsi_host") {
        let _ = fs::write(
            host.path(format!("/sys/class/scsi_host/{name}/scan")),
            "- - -",
        );
    }
}

const ISCSI_HOSTS: &str = "/sys/class/iscsi_host";

/// The sessions with a target: number of the host, and where the session's files are.
fn sessions(host: &Host, target: &str) -> Vec<(u32, PathBuf)> {
    let mut found = Vec::new();
    for name in host.names(ISCSI_HOSTS) {
        let Some(number) = name
            .strip_prefix("host")
            .and_then(|number| number.parse().ok())
        else {
            continue;
        };
        let device = Path::new(ISCSI_HOSTS).join(name).join("device");
        for session in host.names(&device) {
            let path = device.join(&session);
            let file = path.join("iscsi_session").join(&session).join("targetname");
            let is_targets =
                fs::read_to_string(host.path(file)).is_ok_and(|name| name.trim() == target);
            if session.starts_with("session") && is_targets {
                found.push((number, path));
            }
        }
    }
    found
}

/// The hosts that are logged into a target, by portal (`address:port`).
pub fn portals(host: &Host, target: &str) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for (number, session) in sessions(host, target) {
        for connection in host.names(&session) {
            if !connection.starts_with("connection") {
                continue;
            }
            let dir = session
                .join(&connection)
                .join("iscsi_connection")
                .join(&connection);
            let read = |name: &str| {
                let text = fs::read_to_string(host.path(dir.join(name))).ok()?;
                Some(text.trim().to_owned())
            };
            // As the target answers, and as it was asked for.
            for (address, port) in [
                ("address", "port"),
                ("persistent_address", "persistent_port"),
            ] {
                if let Some((address, port)) = read(address).zip(read(port)) {
                    let portal = match address.contains(':') {
                        true => format!("[{address}]:{port}"),
                        false => format!("{address}:{port}"),
                    };
                    found.insert(portal, number);
                }
            }
        }
    }
    found
}

/// Names of the disks that are a target's LUN.
pub fn disks_of(host: &Host, target: &str, lun: i32) -> Vec<String> {
    let disks = sessions(host, target)
        .into_iter()
        .filter_map(|(number, session)| {
            let block = format!("target{number}:0:0/{number}:0:0:{lun}/block");
            host.names(session.join(block)).into_iter().next()
        });
    disks.collect()
}
