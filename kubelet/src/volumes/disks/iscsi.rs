//! iSCSI: a LUN of a target, reached through `iscsiadm` by one portal or several.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ISCSIPersistentVolumeSource, ISCSIVolumeSource};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::device;
use crate::sys::host::{Host, ToolError};

/// Of `iscsiadm`: there is such a session, there is none, there is nothing of what was named.
const EXISTS: i32 = 15;
const GONE: [i32; 2] = [2, 21];
/// Looks for a disk after its LUN was scanned for, and for multipath's device.
const DISK_LOOKS: u32 = 30;
const MULTIPATH_LOOKS: u32 = 10;
/// Rounds over all portals: so many until two paths are enough, so many until one is.
const ROUNDS_FOR_TWO: u32 = 2;
const ROUNDS_FOR_ONE: u32 = 5;
const ENOUGH_PATHS: usize = 2;

/// What it takes to let go of a disk, beside its mount point in upstream's form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Iscsi {
    pub vol_name: String,
    /// With ports, the target's own first.
    pub portals: Vec<String>,
    pub iqn: String,
    pub lun: String,
    pub init_iface: String,
    /// The interface of ours, where the volume has an initiator name of its own.
    pub iface: String,
    pub initiator_name: String,
    metrics_provider: (),
    #[serde(skip)]
    pub chap_discovery: bool,
    #[serde(skip)]
    pub chap_session: bool,
    /// As the volume spells it.
    #[serde(skip)]
    pub target_portal: String,
    #[serde(skip)]
    pub secret: BTreeMap<String, String>,
}

/// `PLUGIN` as in the names of directories.
pub const PLUGIN: &str = "iscsi";
pub const FILE: &str = "iscsi.json";

fn with_port(portal: &str) -> String {
    match portal.contains(':') {
        true => portal.to_owned(),
        false => format!("{portal}:3260"),
    }
}

/// Of a volume of this name.
pub fn of(name: &str, source: &ISCSIVolumeSource) -> Iscsi {
    let first = with_port(&source.target_portal);
    let others = source
        .portals
        .iter()
        .flatten()
        .map(|portal| with_port(portal));
    let initiator = source.initiator_name.clone().unwrap_or_default();
    let init_iface = source
        .iscsi_interface
        .clone()
        .unwrap_or_else(|| "default".into());
    let iface = match initiator.is_empty() {
        true => init_iface.clone(),
        false => format!("{first}:{name}"),
    };
    Iscsi {
        vol_name: name.to_owned(),
        portals: std::iter::once(first).chain(others).collect(),
        iqn: source.iqn.clone(),
        lun: source.lun.to_string(),
        init_iface,
        iface,
        initiator_name: initiator,
        metrics_provider: (),
        chap_discovery: source.chap_auth_discovery.unwrap_or_default(),
        chap_session: source.chap_auth_session.unwrap_or_default(),
        target_portal: source.target_portal.clone(),
        secret: BTreeMap::new(),
    }
}

/// A persistent volume's, as if it were a pod's.
pub fn inlined(source: &ISCSIPersistentVolumeSource) -> ISCSIVolumeSource {
    ISCSIVolumeSource {
        chap_auth_discovery: source.chap_auth_discovery,
        chap_auth_session: source.chap_auth_session,
        fs_type: source.fs_type.clone(),
        initiator_name: source.initiator_name.clone(),
        iqn: source.iqn.clone(),
        iscsi_interface: source.iscsi_interface.clone(),
        lun: source.lun,
        portals: source.portals.clone(),
        target_portal: source.target_portal.clone(),
        ..Default::default()
    }
}

/// Whether anything of `iscsi` has to be kept: what a session is to be known by.
fn credentials<'a>(of: &'a Iscsi, prefix: &'a str) -> impl Iterator<Item = (String, &'a str)> + 'a {
    let names = ["username", "password", "username_in", "password_in"];
    names.into_iter().filter_map(move |name| {
        let name = format!("{prefix}.auth.{name}");
        let value = of.secret.get(&name).filter(|value| !value.is_empty())?;
        Some((name, value.as_str()))
    })
}

impl Iscsi {
    /// Where its directory is, below those of file systems or of devices.
    pub fn dir_name(&self) -> PathBuf {
        let Self {
            iqn, lun, iface, ..
        } = self;
        Path::new(&format!("iface-{iface}")).join(format!("{}-{iqn}-lun-{lun}", self.portals[0]))
    }

    /// As the node's status names it, after `kubernetes.io/iscsi/`.
    pub fn unique_name(&self) -> String {
        format!("{}:{}:{}", self.target_portal, self.iqn, self.lun)
    }

    /// What a directory is for: by the file in it, or by its name.
    pub fn known(dir: &Path) -> Option<Self> {
        let text = fs::read(dir.join(FILE)).ok();
        if let Some(known) = text.and_then(|text| serde_json::from_slice::<Self>(&text).ok())
            && !known.portals.is_empty()
        {
            let target_portal = known.portals[0].clone();
            return Some(Self {
                target_portal,
                ..known
            });
        }
        let iface = dir
            .parent()?
            .file_name()?
            .to_str()?
            .strip_prefix("iface-")?;
        let (target, lun) = dir.file_name()?.to_str()?.rsplit_once("-lun-")?;
        let at = target.find("-iqn.").or_else(|| target.find("-eui."))?;
        let (portal, iqn) = (&target[..at], &target[at + 1..]);
        Some(Self {
            portals: vec![portal.to_owned()],
            iqn: iqn.to_owned(),
            lun: lun.to_owned(),
            iface: iface.to_owned(),
            init_iface: iface.to_owned(),
            target_portal: portal.to_owned(),
            ..Self::default()
        })
    }

    /// Writes down in its directory what it takes to let go of it.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn save(&self, dir: &Path) -> std::io::Result<()> {
        fs::write(dir.join(FILE), serde_json::to_string(self)? + "\n")
    }

    fn lun(&self) -> Result<i32, String> {
        let lun = self.lun.parse();
        lun.map_err(|_| format!("AttachDisk: lun is not a number: {}", self.lun))
    }

    /// Sees to it that the disk is on the node, and returns it.
    ///
    /// # Errors
    /// When no portal leads to it.
    pub fn attach(&self, host: &Host) -> Result<PathBuf, String> {
        let shown = host.run(
            "iscsiadm",
            &["-m", "iface", "-I", &self.init_iface, "-o", "show"],
        );
        let shown =
            shown.map_err(|error| format!("could not read iface {}: {error}", self.init_iface))?;
        let transport = shown
            .lines()
            .find_map(|line| line.strip_prefix("iface.transport_name = "));
        let transport =
            transport.ok_or_else(|| format!("could not parse iface file for {}", self.iface))?;
        let tcp = matches!(transport.trim(), "tcp" | "<empty>");
        if !self.initiator_name.is_empty() {
            self.clone_iface(host, &shown)?;
        }
        let mut disks: BTreeMap<&str, PathBuf> = BTreeMap::new();
        for round in 1..=ROUNDS_FOR_ONE {
            let mut last = String::new();
            for portal in &self.portals {
                if disks.contains_key(portal.as_str()) {
                    continue;
                }
                match self.reach(host, portal, tcp) {
                    Ok(disk) => drop(disks.insert(portal, disk)),
                    Err(error) => last = error,
                }
            }
            if disks.is_empty() {
                if !self.initiator_name.is_empty() {
                    let _ = host.run(
                        "iscsiadm",
                        &["-m", "iface", "-I", &self.iface, "-o", "delete"],
                    );
                }
                return Err(format!(
                    "failed to get any path for iscsi disk, last err seen:\n{last}"
                ));
            }
            let all = disks.len() == self.portals.len();
            if all || (disks.len() >= ENOUGH_PATHS && round >= ROUNDS_FOR_TWO) {
                break;
            }
        }
        let looks = if self.portals.len() > 1 {
            MULTIPATH_LOOKS
        } else {
            1
        };
        let multipath = look(host, looks, || {
            disks
                .values()
                .find_map(|disk| device::multipath_of(host, disk))
        });
        let first = disks.into_values().next();
        multipath.or(first).ok_or_else(|| "no disk".into())
    }

    /// The disk by way of one portal.
    fn reach(&self, host: &Host, portal: &str, tcp: bool) -> Result<PathBuf, String> {
        let number = match device::portals(host, &self.iqn).get(portal) {
            Some(number) => *number,
            None => {
                self.log_in(host, portal)?;
                let portals = device::portals(host, &self.iqn);
                *portals.get(portal).ok_or_else(|| {
                    format!("Could not get SCSI host number for portal {portal} after logging in")
                })?
            }
        };
        device::scan_lun(host, number, self.lun()?).map_err(|error| error.to_string())?;
        let address = portal.replace(['[', ']'], "");
        let name = format!("ip-{address}-iscsi-{}-lun-{}", self.iqn, self.lun);
        let links = "/dev/disk/by-path";
        let found = look(host, DISK_LOOKS, || {
            // An adapter's own address comes before where it is not the network's.
            let is_it = |link: &String| match tcp {
                true => *link == name,
                false => link.starts_with("pci-") && link.ends_with(&format!("-{name}")),
            };
            host.names(links).into_iter().find(is_it)
        });
        found
            .map(|link| Path::new(links).join(link))
            .ok_or_else(|| {
                format!("Timed out waiting for device at path {links}/{name} after {DISK_LOOKS}s")
            })
    }

    fn log_in(&self, host: &Host, portal: &str) -> Result<(), String> {
        let (iface, iqn) = (self.iface.as_str(), self.iqn.as_str());
        let discovery = [
            "-m",
            "discoverydb",
            "-t",
            "sendtargets",
            "-p",
            portal,
            "-I",
            iface,
        ];
        let node = ["-m", "node", "-p", portal, "-T", iqn, "-I", iface];
        let run = |base: &[&str], rest: &[&str]| host.run("iscsiadm", &[base, rest].concat());
        let update = |base: &[&str], name: &str, value: &str| {
            run(base, &["-o", "update", "-n", name, "-v", value])
        };
        // It may be there already.
        let _ = run(&discovery, &["-o", "new"]);
        if self.chap_discovery {
            let method = ("discovery.sendtargets.auth.authmethod".to_owned(), "CHAP");
            for (name, value) in
                std::iter::once(method).chain(credentials(self, "discovery.sendtargets"))
            {
                // What the tool says may hold the secret.
                update(&discovery, &name, value).map_err(|_| {
                    format!("iscsi: failed to update discoverydb to portal {portal}: {name}")
                })?;
            }
        }
        run(&discovery, &["--discover"]).map_err(|error| {
            let _ = run(&discovery, &["-o", "delete"]);
            format!("iscsi: failed to sendtargets to portal {portal} output: {error}")
        })?;
        // Other LUNs of the target are not to show up by themselves.
        if let Err(error) = update(&node, "node.session.scan", "manual") {
            warn!(portal, iqn, %error, "cannot keep a session from scanning for all LUNs");
        }
        if self.chap_session {
            let method = ("node.session.auth.authmethod".to_owned(), "CHAP");
            for (name, value) in std::iter::once(method).chain(credentials(self, "node.session")) {
                update(&node, &name, value).map_err(|_| {
                    format!("iscsi: failed to update iscsi node to portal {portal}: {name}")
                })?;
            }
        }
        run(&node, &["--login"]).map_err(|error| {
            let _ = run(&node, &["-o", "delete"]);
            format!("iscsi: failed to attach disk: Error: {error}")
        })?;
        // A node that boots must not hang for a target that nobody wants yet.
        if let Err(error) = update(&node[..6], "node.startup", "manual") {
            warn!(portal, iqn, %error, "cannot keep a session from being opened when the node boots");
        }
        Ok(())
    }

    /// An interface like the one that is shown, under the volume's own initiator name.
    fn clone_iface(&self, host: &Host, shown: &str) -> Result<(), String> {
        if self.init_iface == self.iface {
            return Err(format!(
                "iscsi: cannot clone iface with same name: {}",
                self.iface
            ));
        }
        let mut parameters = BTreeMap::new();
        for line in shown
            .lines()
            .filter(|line| line.starts_with("iface.") && !line.contains("<empty>"))
        {
            let Some((name, value)) = line.split_once(" = ") else {
                return Err(format!("error: invalid iface setting: {line}"));
            };
            parameters.insert(name, value.trim());
        }
        parameters.remove("iface.iscsi_ifacename");
        parameters.insert("iface.initiatorname", &self.initiator_name);
        let iface = ["-m", "iface", "-I", self.iface.as_str()];
        let run = |rest: &[&str]| host.run("iscsiadm", &[&iface[..], rest].concat());
        match run(&["-o", "new"]) {
            Err(error) if !error.is(&[EXISTS]) => {
                return Err(format!("iscsi: failed to create new iface: {error}"));
            }
            _ => {}
        }
        for (name, value) in parameters {
            run(&["-o", "update", "-n", name, "-v", value]).map_err(|error| {
                let _ = run(&["-o", "delete"]);
                format!("iscsi: failed to update iface records: {error}")
            })?;
        }
        Ok(())
    }

    /// Takes the disk off the node; and ends the sessions, unless another volume of the target is
    /// `busy`.
    ///
    /// # Errors
    /// When a session does not end.
    pub fn detach(&self, host: &Host, busy: bool) -> Result<(), String> {
        let disks = device::disks_of(host, &self.iqn, self.lun()?);
        let maps = disks
            .iter()
            .filter_map(|disk| device::multipath_of(host, &Path::new("/dev").join(disk)));
        let mut maps: Vec<PathBuf> = maps.collect();
        maps.dedup();
        for map in maps {
            if let Err(error) = host.run("multipath", &["-f", &map.to_string_lossy()]) {
                warn!(map = %map.display(), %error, "cannot flush a multipath device");
            }
        }
        for disk in disks {
            if let Err(error) = device::delete(host, &disk) {
                warn!(disk, %error, "cannot take a disk off the node");
            }
        }
        if busy {
            return Ok(());
        }
        let run = |arguments: &[&str]| match host.run("iscsiadm", arguments) {
            Err(error) if !error.is(&GONE) => Err(error),
            _ => Ok::<(), ToolError>(()),
        };
        let failed = |error: ToolError| format!("failed to finish detachISCSIDisk, err: {error}");
        let mut portals: Vec<&str> = self.portals.iter().map(String::as_str).collect();
        portals.sort_unstable();
        portals.dedup();
        for portal in portals {
            info!(portal, iqn = self.iqn, "logging out of a target");
            let node = ["-m", "node", "-p", portal, "-T", &self.iqn];
            let iface = ["-I", self.iface.as_str()];
            run(&[&node[..], &["--logout"], &iface].concat()).map_err(failed)?;
            run(&[&node[..], &["-o", "delete"], &iface].concat()).map_err(failed)?;
        }
        let own = format!("{}:{}", self.portals[0], self.vol_name);
        if !self.initiator_name.is_empty() && self.iface == own {
            run(&["-m", "iface", "-I", &self.iface, "-o", "delete"]).map_err(failed)?;
        }
        Ok(())
    }
}

/// Looks until something is found.
fn look<T>(host: &Host, times: u32, mut at: impl FnMut() -> Option<T>) -> Option<T> {
    for left in (0..times).rev() {
        if let Some(found) = at() {
            return Some(found);
        }
        if left > 0 {
            std::thread::sleep(host.pause);
        }
    }
    None
}
