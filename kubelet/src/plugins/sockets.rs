//! The sockets below a directory, and when to look again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::warn;

/// Tells a socket from another one that took its place: by inode and time of its making. (What is
/// made right after a removal often gets the same inode; a change of mode or owner is no new socket.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    inode: u64,
    made: (i64, i64),
}

/// All sockets below `dir` but hidden ones.
pub fn find(dir: &Path) -> BTreeMap<PathBuf, Identity> {
    let mut found = BTreeMap::new();
    walk(dir, &mut found);
    found
}

fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, Identity>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() {
            walk(&entry.path(), found);
        } else if metadata.file_type().is_socket() {
            let identity = Identity {
                inode: metadata.ino(),
                made: (metadata.mtime(), metadata.mtime_nsec()),
            };
            found.insert(entry.path(), identity);
        }
    }
}

/// Wakes `changed` whenever something below `dir` comes or goes, for as long as the watcher lives.
pub fn watch(dir: &Path, changed: Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.notify_one();
        }
    })
    .ok()?;
    let watched = watcher.watch(dir, RecursiveMode::Recursive);
    watched
        .inspect_err(|error| warn!(path = %dir.display(), %error, "cannot watch for plugins: looking now and then"))
        .ok()?;
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_alone_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let path = dir.path().join("deep/a.sock");
        let _hidden = UnixListener::bind(dir.path().join(".b.sock")).unwrap();
        let first = UnixListener::bind(&path).unwrap();
        let before = find(dir.path());
        assert_eq!(before.keys().collect::<Vec<_>>(), [&path]);
        drop(first);
        fs::remove_file(&path).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        assert_ne!(find(dir.path())[&path], before[&path]);
    }
}
