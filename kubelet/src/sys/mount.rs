//! Mounts: tmpfs for volumes in memory, bind mounts for sub-paths, and their removal.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts a tmpfs of at most `size` bytes, which is not swapped out where the kernel (6.4) can
/// promise that: there may be secrets in it.
///
/// # Errors
/// As `mount(2)`.
pub fn tmpfs(target: &Path, size: Option<u64>, mode: Option<u32>) -> io::Result<()> {
    let mut options: Vec<String> = Vec::new();
    options.extend(size.map(|size| format!("size={size}")));
    options.extend(mode.map(|mode| format!("mode={mode:o}")));
    let mounted = |options: &[String]| {
        let options = options.join(",");
        let tmpfs = Some("tmpfs");
        mount(
            tmpfs,
            target,
            tmpfs,
            MsFlags::empty(),
            Some(options.as_str()),
        )
    };
    options.push("noswap".into());
    if mounted(&options).is_ok() {
        return Ok(());
    }
    options.pop();
    Ok(mounted(&options)?)
}

/// Shows `source` at `target`.
///
/// # Errors
/// As `mount(2)`.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?)
}

/// Makes what is mounted below `path` visible in the namespaces derived from this one, and theirs
/// in this one. Containers see volumes mounted after them only so.
///
/// # Errors
/// When `path` is no mount point.
pub fn make_shared(path: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
    Ok(mount(
        None::<&str>,
        path,
        None::<&str>,
        flags,
        None::<&str>,
    )?)
}

/// Removes a mount; detaches it where it is busy. One that is not there is fine.
///
/// # Errors
/// As `umount(2)`.
pub fn unmount(target: &Path) -> io::Result<()> {
    match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
        Err(nix::errno::Errno::EBUSY) => Ok(umount2(
            target,
            MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
        )?),
        Err(error) => Err(error.into()),
    }
}

/// Mount points at and below `path`, the deepest first.
///
/// # Errors
/// When the mount table cannot be read.
pub fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(points_below(
        &fs::read_to_string("/proc/self/mountinfo")?,
        path,
    ))
}

/// One line of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Of the file system: `8:16`.
    pub device: String,
    pub point: PathBuf,
    /// What was mounted, as it was named then.
    pub source: String,
}

/// The lines of a mount table (`proc_pid_mountinfo(5)`).
pub fn entries(table: &str) -> Vec<MountEntry> {
    let entry = |line: &str| {
        let (own, source) = line.split_once(" - ")?;
        let mut own = own.split(' ');
        Some(MountEntry {
            device: own.nth(2)?.to_owned(),
            point: unescape(own.nth(1)?).into(),
            source: unescape(source.split(' ').nth(1)?),
        })
    };
    table.lines().filter_map(entry).collect()
}

fn points_below(table: &str, path: &Path) -> Vec<PathBuf> {
    let points = entries(table).into_iter().map(|entry| entry.point);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(path)).collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    points
}

/// Whether something is mounted right at `path`.
pub fn is_mount_point(path: &Path) -> bool {
    below(path).is_ok_and(|points| points.iter().any(|point| point == path))
}

/// Whether a file system of its own begins at `path`: cheaper than the mount table, but blind for
/// bind mounts, and it asks the file system, whose server must not be gone.
pub fn begins_file_system(path: &Path) -> bool {
    let device = |path: &Path| Ok::<_, io::Error>(fs::symlink_metadata(path)?.dev());
    let parent = path.parent().unwrap_or(path);
    device(path).is_ok_and(|own| device(parent).is_ok_and(|parent| own != parent))
}

/// The kernel writes blanks and backslashes as `\040` and the like.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match code {
            Some(code) if byte == b'\\' => {
                bytes.push(code);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_first() {
        let table = "36 35 98:0 / /k rw - t t rw\n37 36 0:1 / /k/a\\040b rw - t t rw\n38 36 0:2 / /k/a\\040b/c rw - t t rw\n39 35 0:3 / /ka rw - t t rw\n";
        let points = points_below(table, Path::new("/k"));
        assert_eq!(
            points,
            [Path::new("/k/a b/c"), Path::new("/k/a b"), Path::new("/k")]
        );
        let line = "37 36 8:16 / /k rw,relatime shared:1 - ext4 /dev/disk/by-path/x rw\n";
        let entry = MountEntry {
            device: "8:16".into(),
            point: "/k".into(),
            source: "/dev/disk/by-path/x".into(),
        };
        assert_eq!(entries(line), [entry]);
    }
}
