//! Static pods: manifests in a directory (or one file), read when they change.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::pod::PodExt;
use super::static_pod::{Known, MAX_MANIFEST, ManifestError, Origin, Terms};
use crate::event::{Event, Source};

fn read(path: &Path, terms: &Terms) -> Result<Pod, ManifestError> {
    let mut body = Vec::new();
    // One byte more tells that it is too long, however much longer it is.
    fs::File::open(path)?
        .take(MAX_MANIFEST as u64 + 1)
        .read_to_end(&mut body)?;
    terms.pod(&body, Origin::File(path))
}

/// All manifests at a path: a directory's files (not hidden ones, not those of directories below),
/// or the file itself. What is wrong is logged and left out.
fn read_all(path: &Path, terms: &Terms) -> Vec<Pod> {
    let files: Vec<PathBuf> = if path.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .map(|entry| entry.path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        files
    } else {
        Some(path.to_owned())
            .filter(|path| path.exists())
            .into_iter()
            .collect()
    };
    let mut pods: BTreeMap<String, Pod> = BTreeMap::new();
    for file in files {
        match read(&file, terms) {
            Ok(pod) => {
                if let Some(other) = pods.insert(pod.full_name(), pod) {
                    warn!(pod = %other.full_name(), file = %file.display(), "another manifest has the same pod: this one counts");
                }
            }
            Err(error) => {
                error!(file = %file.display(), %error, "ignoring a static pod's manifest")
            }
        }
    }
    pods.into_values().collect()
}

/// Tells of static pods until `stop`: at once, and when the files change.
pub async fn run(
    path: PathBuf,
    terms: Terms,
    check_every: Duration,
    told: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
) {
    let (changed, mut changes) = mpsc::channel::<()>(1);
    let mut watcher = watch(&path, changed.clone());
    let mut known = Known::new(Source::File, told);
    // Part of the pods' uids, so as upstream spells it.
    let path: PathBuf = path.components().collect();
    loop {
        known.replace(read_all(&path, &terms));
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.recv() => {
                // Editors write in several steps: one reading for all of them.
                tokio::time::sleep(Duration::from_millis(100)).await;
                while changes.try_recv().is_ok() {}
            }
            () = tokio::time::sleep(check_every) => {}
        }
        // The directory may have been made or replaced since.
        if watcher.is_none() {
            watcher = watch(&path, changed.clone());
        }
    }
}

fn watch(path: &Path, changed: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Full: a reading is due already.
            let _ = changed.try_send(());
        }
    })
    .ok()?;
    let watched = watcher.watch(path, RecursiveMode::NonRecursive);
    watched.inspect_err(|error| warn!(path = %path.display(), %error, "cannot watch for static pods: looking now and then")).ok()?;
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {a: b}}
spec:
  containers:
  - {name: c, image: 'nginx:1'}
";

    #[tokio::test]
    async fn changes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (told, mut heard) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(
            dir.path().to_owned(),
            Terms {
                node_name: "n".into(),
                may_refer: false,
            },
            Duration::from_millis(50),
            told,
            stop.clone(),
        ));
        assert!(matches!(
            heard.recv().await,
            Some(Event::SourceReady(Source::File))
        ));
        fs::write(dir.path().join("web.yaml"), MANIFEST).unwrap();
        let Some(Event::PodSet(Source::File, pod)) = heard.recv().await else {
            panic!("no pod")
        };
        fs::remove_file(dir.path().join("web.yaml")).unwrap();
        let Some(Event::PodGone(Source::File, gone)) = heard.recv().await else {
            panic!("not gone")
        };
        assert_eq!(gone.uid(), pod.uid());
        stop.cancel();
        task.await.unwrap();
    }
}
