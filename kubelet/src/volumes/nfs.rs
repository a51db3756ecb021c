//! NFS: an export, mounted for each pod by the node's `mount`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::NFSVolumeSource;

use super::disks::mount_options;
use crate::sys::host::{Host, ToolError};

/// The directory of a pod's exports is named after it.
pub const PLUGIN: &str = "nfs";
/// A server that is gone is waited for so long when its export is unmounted.
const UNMOUNT_TIME: Duration = Duration::from_secs(60);

/// An export, and how it is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    source: String,
    pub read_only: bool,
    options: Vec<String>,
}

impl Export {
    /// `options` are those of the persistent volume.
    pub fn new(source: &NFSVolumeSource, read_only: bool, options: &[String]) -> Self {
        let server = match source.server.contains(':') {
            true => format!("[{}]", source.server),
            false => source.server.clone(),
        };
        Self {
            source: format!("{server}:{}", source.path),
            read_only,
            options: mount_options(options, read_only),
        }
    }

    /// Mounts it, if that has not been done. Blocks.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn mount(&self, host: &Host, target: &Path) -> Result<(), ToolError> {
        if host.is_mount_point(target)? {
            return Ok(());
        }
        fs::create_dir_all(target)?;
        let target_text = target.to_string_lossy();
        let options = self.options.join(",");
        let mut arguments = vec!["-t", "nfs"];
        if !options.is_empty() {
            arguments.extend(["-o", &options]);
        }
        arguments.extend([self.source.as_str(), &target_text]);
        host.run("mount", &arguments).map(drop).inspect_err(|_| {
            if host.is_mount_point(target).is_ok_and(|mounted| mounted) {
                let _ = host.run("umount", &[&target_text]);
            }
            let _ = fs::remove_dir(target);
        })
    }
}

/// Unmounts all exports in a pod's directory of them, by force where a server does not answer.
/// Blocks.
///
/// # Errors
/// When one stays mounted.
pub fn unmount_all(host: &Host, dir: &Path) -> Result<(), ToolError> {
    // The mount table is asked, not the directory: its entries may hang.
    for entry in host.mounts()?.into_iter().rev() {
        if !entry.point.starts_with(dir) {
            continue;
        }
        let point = entry.point.to_string_lossy();
        match host.run_within(UNMOUNT_TIME, "umount", &[&point]) {
            Err(ToolError::Late(_)) => host.run("umount", &["-f", &point])?,
            done => done?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::host::fake::FakeHost;

    fn export(server: &str, options: &[&str], read_only: bool) -> Export {
        let source = NFSVolumeSource {
            server: server.into(),
            path: "/p".into(),
            ..Default::default()
        };
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        Export::new(&source, read_only, &options)
    }

    #[test]
    fn exports_come_and_go() {
        let fake = FakeHost::new();
        let volumes = fake.dir.path().canonicalize().unwrap().join("k");
        let target = volumes.join("v");
        let v = export("srv", &["vers=4.1", "hard"], true);
        v.mount(&fake.host, &target).unwrap();
        v.mount(&fake.host, &target).unwrap();
        export("fd00::1", &[], false)
            .mount(&fake.host, &volumes.join("w"))
            .unwrap();
        unmount_all(&fake.host, &volumes).unwrap();
        unmount_all(&fake.host, &volumes).unwrap();
        let calls = [
            "mount -t nfs -o hard,ro,vers=4.1 srv:/p /k/v",
            "mount -t nfs [fd00::1]:/p /k/w",
            "umount /k/w",
            "umount /k/v",
        ];
        assert_eq!(fake.calls(), calls);
    }

    #[test]
    fn a_server_that_is_not_there() {
        let fake = FakeHost::new();
        fake.tool("mount", "echo mount.nfs: Connection timed out; exit 32");
        let target = fake.dir.path().join("k/v");
        let error = export("srv", &[], false)
            .mount(&fake.host, &target)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "exit status 32: mount.nfs: Connection timed out\n"
        );
        assert!(!target.exists());
    }
}
