//! File systems: usage, ownership, device numbers, safe descent into a directory.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
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

impl FsUsage {
    pub fn inodes_used(&self) -> u64 {
        self.inodes.saturating_sub(self.inodes_free)
    }
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

/// Bytes and inodes that a file, or a directory and everything below it, takes of its file system.
/// What is linked twice counts once, and what is mounted there does not count. What vanishes on the
/// way is left out.
///
/// # Errors
/// When `path` itself cannot be looked at.
pub fn taken(path: &Path) -> io::Result<(u64, u64)> {
    /// Of `stat(2)`, whatever the file system's own blocks are.
    const BLOCK: u64 = 512;
    let top = path.symlink_metadata()?;
    let (mut bytes, mut inodes) = (top.blocks() * BLOCK, 1);
    let mut seen = HashSet::new();
    let mut left = if top.is_dir() {
        vec![path.to_owned()]
    } else {
        Vec::new()
    };
    while let Some(directory) = left.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let again = metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(metadata.ino());
            if again || metadata.dev() != top.dev() {
                continue;
            }
            bytes += metadata.blocks() * BLOCK;
            inodes += 1;
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok((bytes, inodes))
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

/// Opens a regular file to be read, wherever links lead. Nothing else is opened, not even for a
/// moment: a FIFO would block, and a device may do something.
///
/// # Errors
/// As `open(2)`; `InvalidInput` for what is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let found = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    reopen_regular(found)
}

/// As [`open_regular`], of what has been found already.
///
/// # Errors
/// `InvalidInput` for what is no regular file.
pub fn reopen_regular(found: OwnedFd) -> io::Result<File> {
    let found = File::from(found);
    if !found.metadata()?.is_file() {
        let why = "not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let found = OwnedFd::from(found);
    Ok(open(&fd_path(&found), flags, Mode::empty())?.into())
}

/// The path by which the kernel knows an open file, whatever its name is by now.
pub fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_opened() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        for (name, opens) in [
            ("file", true),
            ("link", true),
            ("pipe", false),
            (".", false),
        ] {
            assert_eq!(open_regular(&at(name)).is_ok(), opens, "{name}");
        }
    }

    #[test]
    fn what_a_tree_takes() {
        let root = tempfile::tempdir().unwrap();
        let blocks = |path: &Path| path.symlink_metadata().unwrap().blocks() * 512;
        let (sub, file) = (root.path().join("sub"), root.path().join("sub/file"));
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(&file, vec![1; 10_000]).unwrap();
        std::fs::hard_link(&file, root.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/", root.path().join("link")).unwrap();
        let link = blocks(&root.path().join("link"));
        let all = blocks(root.path()) + blocks(&sub) + blocks(&file) + link;
        assert_eq!(taken(root.path()).unwrap(), (all, 4));
        assert_eq!(taken(&file).unwrap(), (blocks(&file), 1));
        assert!(blocks(&file) >= 10_000);
        assert!(taken(&root.path().join("none")).is_err());
    }

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
