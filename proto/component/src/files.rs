//! Files that are read again when they change: certificates, mostly.
//!
//! What must not be here: what is in them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

/// Who replaces a certificate replaces its key as well: one reading for both.
const SETTLE: Duration = Duration::from_millis(50);

/// Tells when files may have changed.
pub struct Changes {
    told: Arc<Notify>,
    ticks: Interval,
    /// Tells as long as it lives. Without it (there are only so many watches on a machine) the
    /// files are looked at now and then.
    _watcher: Option<RecommendedWatcher>,
}

impl Changes {
    /// Of these files: at once where the kernel tells of it, and every `period` anyway. The first
    /// time is now, for what changed before this was called.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>, period: Duration) -> Self {
        let told = Arc::new(Notify::new());
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watcher = watch(files, told.clone());
        Self {
            ticks,
            told,
            _watcher: watcher
                .inspect_err(
                    |error| tracing::warn!(%error, "cannot watch files: looking now and then"),
                )
                .ok(),
        }
    }

    /// Waits until one of the files may have changed.
    pub async fn next(&mut self) {
        tokio::select! {
            () = self.told.notified() => sleep(SETTLE).await,
            _ = self.ticks.tick() => {}
        }
    }
}

/// A file is replaced by renaming another one, or a directory above it (volumes of pods): its own
/// directory sees either.
fn watch<'a>(
    files: impl IntoIterator<Item = &'a Path>,
    told: Arc<Notify>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| !event.kind.is_access()) {
            told.notify_one();
        }
    })?;
    let parents = files.into_iter().filter_map(Path::parent);
    for directory in parents.collect::<BTreeSet<_>>() {
        let here = directory.as_os_str().is_empty();
        let directory = if here { Path::new(".") } else { directory };
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let (file, next) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&file, "old").unwrap();
        let never = Duration::from_secs(3600);
        let mut changes = Changes::of([file.as_path()], never);
        fs::write(&next, "new").unwrap();
        fs::rename(&next, &file).unwrap();
        changes.next().await; // now
        changes.next().await;
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_looked_at_now_and_then() {
        let nowhere = Path::new("/nowhere/at/all");
        let mut changes = Changes::of([nowhere], Duration::from_secs(60));
        let began = tokio::time::Instant::now();
        for _ in 0..3 {
            changes.next().await;
        }
        assert_eq!(began.elapsed().as_secs(), 120);
    }
}
