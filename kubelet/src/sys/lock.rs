//! `--lock-file`: kubelets of one machine that take turns. Whoever has the file's lock runs; with
//! `--exit-on-lock-contention` it ends as soon as another opens the file to ask for the lock.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use notify::event::{AccessKind, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// The lock, as long as it lives.
pub struct Lock {
    _file: Flock<File>,
}

/// Waits for the lock, on this thread.
///
/// # Errors
/// When there can be no such file.
pub fn acquire(path: &Path) -> io::Result<Lock> {
    let mut options = OpenOptions::new();
    let options = options.create(true).read(true).write(true);
    let file = options.truncate(false).mode(0o600).open(path)?;
    let locked = Flock::lock(file, FlockArg::LockExclusive);
    let file = locked.map_err(|(_, error)| io::Error::from(error))?;
    Ok(Lock { _file: file })
}

/// Tells when another opens the file, or takes it away.
///
/// # Errors
/// When the file cannot be watched.
pub fn watch(path: &Path) -> notify::Result<(RecommendedWatcher, Arc<Notify>)> {
    let wanted = Arc::new(Notify::new());
    let tell = wanted.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let is_contention = |kind| {
            let opened = matches!(kind, EventKind::Access(AccessKind::Open(_)));
            opened || matches!(kind, EventKind::Remove(_))
        };
        // A watch that fails sees no contention any more: upstream's ends too.
        if event.is_err() || event.is_ok_and(|event| is_contention(event.kind)) {
            tell.notify_one();
        }
    })?;
    watcher.watch(path, RecursiveMode::NonRecursive)?;
    Ok((watcher, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_has_it_and_notices_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = acquire(&path).unwrap();
        let (_watcher, wanted) = watch(&path).unwrap();
        let second = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || acquire(&path))
        };
        wanted.notified().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
    }
}
