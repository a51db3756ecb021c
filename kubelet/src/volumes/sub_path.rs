//! `subPath`: part of a volume, mounted into a container so that the pod cannot make it point
//! elsewhere.
//!
//! The part is opened without following links and bind-mounted at a place of the kubelet's own;
//! the container gets that place. What the pod does to the volume afterwards changes nothing.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::sys::{self, mount};

/// Why a part of a volume cannot be mounted. The text does not tell what the node looks like.
#[derive(Debug, Error)]
pub enum SubPathError {
    #[error("error SubPath `{0}` must not be an absolute path")]
    Absolute(String),
    #[error("unable to provision SubPath `{0}`: must not contain '..'")]
    Backsteps(String),
    #[error("failed to prepare subPath for volumeMount {mount:?} of container {container:?}")]
    Prepare {
        mount: String,
        container: String,
        source: io::Error,
    },
}

/// A `subPath` of one container's mount.
#[derive(Debug, Clone, Copy)]
pub struct SubPath<'a> {
    pub pod_dir: &'a Path,
    pub volume: &'a str,
    pub volume_path: &'a Path,
    pub container: &'a str,
    /// Position in the container's `volumeMounts`.
    pub index: usize,
    pub sub_path: &'a str,
}

impl SubPath<'_> {
    fn target(&self) -> PathBuf {
        self.pod_dir
            .join("volume-subpaths")
            .join(self.volume)
            .join(self.container)
            .join(self.index.to_string())
    }
}

/// The sub-path, if it leads down.
///
/// # Errors
/// When it is absolute or climbs.
pub fn checked(sub_path: &str) -> Result<&str, SubPathError> {
    if Path::new(sub_path).is_absolute() {
        return Err(SubPathError::Absolute(sub_path.into()));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(SubPathError::Backsteps(sub_path.into()));
    }
    Ok(sub_path)
}

/// The path to mount into the container. Missing directories are made with the volume's mode.
///
/// # Errors
/// When the sub-path climbs, leads through a link, or cannot be mounted.
pub fn prepare(sub: &SubPath<'_>) -> Result<PathBuf, SubPathError> {
    checked(sub.sub_path)?;
    bind(sub).map_err(|source| {
        tracing::warn!(path = %sub.volume_path.display(), sub_path = sub.sub_path, error = %source, "cannot mount a subPath");
        SubPathError::Prepare { mount: sub.volume.into(), container: sub.container.into(), source }
    })
}

fn bind(sub: &SubPath<'_>) -> io::Result<PathBuf> {
    // A volume of projected files is links all over, which the kubelet made itself: resolve them
    // once, and insist that the result lies in the volume.
    let volume = sub.volume_path.canonicalize()?;
    let relative = match volume.join(sub.sub_path).canonicalize() {
        Ok(real) => {
            let inside = real.strip_prefix(&volume);
            inside
                .map_err(|_| io::Error::from_raw_os_error(nix::libc::ELOOP))?
                .to_owned()
        }
        Err(_) => PathBuf::from(sub.sub_path),
    };
    let mode = volume.metadata()?.permissions().mode() & 0o7777;
    let part = sys::fs::open_beneath(&volume, &relative, Some(mode))?;
    let source = sys::fs::fd_path(&part);
    let target = sub.target();
    // A restarted container may find another part under the same name.
    mount::unmount(&target)?;
    let parent = target.parent().unwrap_or(&target);
    fs::create_dir_all(parent)?;
    if source.metadata()?.is_dir() {
        if target.is_file() {
            fs::remove_file(&target)?;
        }
        fs::create_dir_all(&target)?;
    } else {
        if target.is_dir() {
            fs::remove_dir(&target)?;
        }
        fs::File::create(&target)?;
    }
    mount::bind(&source, &target)?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbing_is_refused_before_anything_is_touched() {
        let sub = |sub_path| SubPath {
            pod_dir: Path::new("/none"),
            volume: "v",
            volume_path: Path::new("/none"),
            container: "c",
            index: 0,
            sub_path,
        };
        assert!(matches!(
            prepare(&sub("/etc")),
            Err(SubPathError::Absolute(_))
        ));
        assert!(matches!(
            prepare(&sub("a/../../etc")),
            Err(SubPathError::Backsteps(_))
        ));
    }
}
