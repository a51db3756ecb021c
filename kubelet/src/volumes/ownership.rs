//! `fsGroup`: everything in a volume belongs to the pod's group and is open to it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::sys;

const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const EXECUTE: u32 = 0o110;
const SET_GROUP: u32 = 0o2000;

/// Gives everything at and below `path` to the group. New files inherit it from their directory.
///
/// # Errors
/// When a directory cannot be read. A single file that resists is passed over, as upstream does.
pub fn set_group(path: &Path, gid: u32, readonly: bool) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            match set_group(&entry?.path(), gid, readonly) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    if let Err(error) = sys::fs::set_link_owner(path, None, Some(gid)) {
        tracing::warn!(path = %path.display(), %error, "cannot give a volume's file to the pod's group");
    }
    if metadata.file_type().is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode() & 0o7777 | wanted(metadata.is_dir(), readonly);
    if let Err(error) = fs::set_permissions(path, PermissionsExt::from_mode(mode)) {
        tracing::warn!(path = %path.display(), %error, "cannot open a volume's file to the pod's group");
    }
    Ok(())
}

/// Whether the directory itself is the group's already, as [`set_group`] would leave it: then all
/// in it is taken to be (`fsGroupChangePolicy: OnRootMismatch`).
pub fn is_groups(path: &Path, gid: u32, readonly: bool) -> bool {
    let Ok(metadata) = path.metadata() else {
        return false;
    };
    let wanted = wanted(true, readonly);
    metadata.is_dir() && metadata.gid() == gid && metadata.permissions().mode() & wanted == wanted
}

fn wanted(directory: bool, readonly: bool) -> u32 {
    let files = if readonly { READ_ONLY } else { READ_WRITE };
    if directory {
        files | EXECUTE | SET_GROUP
    } else {
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_gets_in() {
        let dir = tempfile::tempdir().unwrap();
        let gid = dir.path().metadata().unwrap().gid();
        fs::write(dir.path().join("f"), "").unwrap();
        fs::set_permissions(dir.path().join("f"), PermissionsExt::from_mode(0o600)).unwrap();
        assert!(!is_groups(dir.path(), gid, false));
        set_group(dir.path(), gid, false).unwrap();
        assert!(is_groups(dir.path(), gid, false));
        assert!(!is_groups(dir.path(), gid + 1, false));
        assert_eq!(
            dir.path().metadata().unwrap().permissions().mode() & 0o2070,
            0o2070
        );
        assert_eq!(
            dir.path()
                .join("f")
                .metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o7777,
            0o660
        );
    }
}
