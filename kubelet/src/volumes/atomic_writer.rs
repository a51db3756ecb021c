//! Writes a volume's files so that a reader sees all of one version or all of another.
//!
//! The files lie in a directory of their own, `..<time>`; `..data` links to it, and what the pod
//! sees are links through `..data`. Renaming that one link changes everything at once. The layout
//! is upstream's, since pods and either kubelet rely on it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::projection::{File, Payload};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// Why a volume's files could not be written.
#[derive(Debug, Error)]
pub enum WriteError {
    #[error("invalid path in volume: {0:?}")]
    Path(String),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

fn at(path: &Path) -> impl Fn(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io {
        path: path.clone(),
        source,
    }
}

/// Whether something has been written into the volume at `target`, completely.
pub fn is_written(target: &Path) -> bool {
    target.join(DATA).is_dir()
}

/// Writes `payload` into the volume at `target`. True if anything changed. `set_owner` is called
/// once the new files are written and before they are shown. `stamp` names the new version: any
/// text that has not been used before.
///
/// # Errors
/// On a path that would leave the volume, or when a file cannot be written.
pub fn write(
    target: &Path,
    payload: &Payload,
    stamp: &str,
    set_owner: impl Fn(&Path) -> io::Result<()>,
) -> Result<bool, WriteError> {
    let files = payload
        .iter()
        .map(|(path, file)| Ok((clean(path)?, file)))
        .collect::<Result<Vec<_>, _>>()?;
    let data = target.join(DATA);
    let old = match fs::read_link(&data) {
        Ok(name) => Some(target.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(at(&data)(error)),
    };
    let stale = old
        .as_deref()
        .map(|old| stale_paths(old, &files))
        .unwrap_or_default();
    let unchanged = old
        .as_deref()
        .is_some_and(|old| stale.is_empty() && files.iter().all(|(p, f)| same(&old.join(p), f)));
    if !unchanged {
        let new = target.join(format!("..{stamp}"));
        write_version(&new, &files)?;
        set_owner(target).map_err(at(target))?;
        let link = target.join(NEW_DATA);
        // Left behind where the kubelet was killed at this very point.
        let _ = fs::remove_file(&link);
        let name = new.file_name().unwrap_or_default();
        symlink(name, &link)
            .and_then(|()| fs::rename(&link, &data))
            .map_err(at(&data))?;
    }
    // Also where nothing changed: the last write may not have come this far.
    for name in files
        .iter()
        .filter_map(|(path, _)| first(path))
        .collect::<BTreeSet<_>>()
    {
        let link = target.join(&name);
        if fs::read_link(&link).is_err() {
            symlink(Path::new(DATA).join(&name), &link).map_err(at(&link))?;
        }
    }
    for name in stale
        .iter()
        .filter_map(|path| first(path))
        .collect::<BTreeSet<_>>()
    {
        if !files
            .iter()
            .any(|(path, _)| first(path).as_ref() == Some(&name))
        {
            let link = target.join(&name);
            fs::remove_file(&link)
                .or_else(ignore_missing)
                .map_err(at(&link))?;
        }
    }
    if !unchanged {
        remove_old_versions(target, &data)?;
    }
    Ok(!unchanged)
}

/// A relative path without `.` in it.
fn clean(path: &str) -> Result<PathBuf, WriteError> {
    let invalid = || WriteError::Path(path.to_owned());
    if path.is_empty() || path.len() > MAX_PATH || path.starts_with("..") {
        return Err(invalid());
    }
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) if name.len() <= MAX_NAME => clean.push(name),
            Component::CurDir => {}
            _ => return Err(invalid()),
        }
    }
    if clean.as_os_str().is_empty() {
        Err(invalid())
    } else {
        Ok(clean)
    }
}

fn first(path: &Path) -> Option<PathBuf> {
    path.components()
        .next()
        .map(|part| PathBuf::from(part.as_os_str()))
}

fn same(path: &Path, file: &File) -> bool {
    fs::read(path).is_ok_and(|data| data == file.data)
}

/// Files of the old version that the new one does not have.
fn stale_paths(old: &Path, files: &[(PathBuf, &File)]) -> Vec<PathBuf> {
    let mut stale = Vec::new();
    let mut pending = vec![old.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(path);
            } else if let Ok(relative) = path.strip_prefix(old)
                && !files.iter().any(|(path, _)| path == relative)
            {
                stale.push(relative.to_owned());
            }
        }
    }
    stale
}

fn write_version(directory: &Path, files: &[(PathBuf, &File)]) -> Result<(), WriteError> {
    let make = |path: &Path| {
        fs::create_dir_all(path)
            .and_then(|()| fs::set_permissions(path, PermissionsExt::from_mode(0o755)))
    };
    make(directory).map_err(at(directory))?;
    for (relative, file) in files {
        let path = directory.join(relative);
        if let Some(parent) = path.parent() {
            make(parent).map_err(at(parent))?;
        }
        fs::write(&path, &file.data)
            .and_then(|()| match file.uid {
                Some(uid) => crate::sys::fs::set_owner(&path, Some(uid), None),
                None => Ok(()),
            })
            // After the owner: a change of owner takes bits away. And whatever the umask is.
            .and_then(|()| fs::set_permissions(&path, PermissionsExt::from_mode(file.mode)))
            .map_err(at(&path))?;
    }
    Ok(())
}

/// Removes every version but the current one; more than one is left where a write was cut short.
fn remove_old_versions(target: &Path, data: &Path) -> Result<(), WriteError> {
    let current = fs::read_link(data).map_err(at(data))?;
    for entry in fs::read_dir(target).map_err(at(target))?.flatten() {
        let name = entry.file_name();
        let version = name.to_string_lossy().starts_with("..")
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if version && Path::new(&name) != current {
            fs::remove_dir_all(entry.path())
                .or_else(ignore_missing)
                .map_err(at(&entry.path()))?;
        }
    }
    Ok(())
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File {
            data: data.into(),
            mode: 0o640,
            uid: None,
        };
        files
            .iter()
            .map(|(path, data)| ((*path).to_owned(), file(data)))
            .collect()
    }

    fn shown(target: &Path) -> Vec<String> {
        let mut lines: Vec<_> = fs::read_dir(target)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let link = fs::read_link(entry.path())
                    .map(|to| format!(" -> {}", to.display()))
                    .unwrap_or_default();
                format!("{}{link}", entry.file_name().display())
            })
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn versions_replace_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let t = dir.path();
        let none = |_: &Path| Ok(());
        assert!(
            write(
                t,
                &payload(&[("a", "1"), ("d/b", "2"), ("d/c", "3")]),
                "v1",
                none
            )
            .unwrap()
        );
        assert_eq!(
            shown(t),
            ["..data -> ..v1", "..v1", "a -> ..data/a", "d -> ..data/d"]
        );
        assert_eq!(fs::read_to_string(t.join("d/b")).unwrap(), "2");
        assert_eq!(
            fs::metadata(t.join("a")).unwrap().permissions().mode() & 0o777,
            0o640
        );

        assert!(
            !write(
                t,
                &payload(&[("a", "1"), ("d/b", "2"), ("d/c", "3")]),
                "v2",
                none
            )
            .unwrap()
        );
        assert_eq!(
            fs::read_link(t.join("..data")).unwrap(),
            Path::new("..v1"),
            "nothing changed"
        );

        assert!(write(t, &payload(&[("d/b", "new"), ("e", "4")]), "v3", none).unwrap());
        assert_eq!(
            shown(t),
            ["..data -> ..v3", "..v3", "d -> ..data/d", "e -> ..data/e"]
        );
        assert_eq!(fs::read_to_string(t.join("d/b")).unwrap(), "new");
        assert!(!t.join("d/c").exists());
    }

    #[test]
    fn a_write_that_was_cut_short_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let t = dir.path();
        let none = |_: &Path| Ok(());
        write(t, &payload(&[("a", "1")]), "v1", none).unwrap();
        fs::remove_file(t.join("a")).unwrap();
        fs::create_dir(t.join("..v0")).unwrap();
        symlink("..v9", t.join(NEW_DATA)).unwrap();
        assert!(!write(t, &payload(&[("a", "1")]), "v2", none).unwrap());
        assert_eq!(fs::read_to_string(t.join("a")).unwrap(), "1");
        assert!(write(t, &payload(&[("a", "2")]), "v3", none).unwrap());
        assert_eq!(shown(t), ["..data -> ..v3", "..v3", "a -> ..data/a"]);
    }

    #[test]
    fn paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["", "/etc/passwd", "../x", "a/../../x", "..data", "a/../b"] {
            let result = write(dir.path(), &payload(&[(path, "x")]), "v1", |_| Ok(()));
            assert!(matches!(result, Err(WriteError::Path(_))), "{path}");
        }
    }
}
