//! File systems: usage, ownership, device numbers, safe descent into a directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, Uid, chown};

/// A file system's room, in bytes and files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsUsage {
    pub capacity: u64,
    pub available: u64,
    pub used: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// # Errors
/// When `path` does not exist.
pub fn usage(path: &Path) -> io::Result<FsUsage> {
    let stat = statvfs(path)?;
    let block = stat.fragment_size();
    Ok(FsUsage {
        capacity: stat.blocks() * block,
        available: stat.blocks_available() * block,
        used: (stat.blocks() - stat.blocks_free()) * block,
        inodes: stat.files(),
        inodes_free: stat.files_free(),
    })
}

/// # Errors
/// As `chown(2)`.
pub fn set_owner(path: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    Ok(chown(path, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?)
}

/// As [`set_owner`], of a link itself.
///
/// # Errors
/// As `lchown(2)`.
pub fn set_link_owner(path: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    std::os::unix::fs::lchown(path, uid, gid)
}

/// Opens `relative` below `root` without following any link, making missing directories with
/// `mode`. What is opened cannot lie outside `root`, whatever happens to the tree meanwhile.
///
/// # Errors
/// `ELOOP` or `ENOTDIR` for a link on the way, `EINVAL` for a path that climbs.
pub fn open_beneath(
    root: &Path,
    relative: &Path,
    make_missing: Option<u32>,
) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = open(root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let parts: Vec<_> = relative.components().collect();
    for (i, part) in parts.iter().enumerate() {
        let name = match part {
            Component::Normal(name) => *name,
            Component::CurDir => continue,
            _ => return Err(io::Error::from_raw_os_error(nix::libc::EINVAL)),
        };
        let last = i + 1 == parts.len();
        let mut opened = openat(&at, name, flags, Mode::empty());
        if let (Err(nix::errno::Errno::ENOENT), Some(mode)) = (&opened, make_missing) {
            match mkdirat(&at, name, Mode::from_bits_truncate(mode)) {
                Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
            opened = openat(&at, name, flags, Mode::empty());
            // The umask had its say.
            if let Ok(made) = &opened {
                let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
                std::fs::set_permissions(fd_path(made), permissions)?;
            }
        }
        let next = opened?;
        let metadata = File::from(next.try_clone()?).metadata()?;
        if metadata.file_type().is_symlink() || (!last && !metadata.is_dir()) {
            return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
        }
        at = next;
    }
    Ok(at)
}

/// The path by which the kernel knows an open file, whatever its name is by now.
pub fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_opened() {
        let root = tempfile::tempdir().unwrap();
        open_beneath(root.path(), Path::new("a/b"), Some(0o755)).unwrap();
        assert!(root.path().join("a/b").is_dir());
        std::os::unix::fs::symlink("/etc", root.path().join("a/link")).unwrap();
        assert!(open_beneath(root.path(), Path::new("a/link"), None).is_err());
        assert!(open_beneath(root.path(), Path::new("a/link/passwd"), None).is_err());
        assert!(open_beneath(root.path(), Path::new("../x"), None).is_err());
        assert!(open_beneath(root.path(), Path::new("a/none"), None).is_err());
    }
}
