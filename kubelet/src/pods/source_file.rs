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

/// The pods of manifests, by their files.
type Pods = BTreeMap<PathBuf, Pod>;

/// All manifests at a path: a directory's files (not hidden ones, not those of directories below),
/// or the file itself. What is wrong is logged and left out, unless it is among those `kept`: then it
/// is what it was.
fn read_all(path: &Path, terms: &Terms, kept: &Pods) -> Pods {
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
    let mut pods = Pods::new();
    for file in files {
        match read(&file, terms) {
            Ok(pod) => {
                pods.insert(file, pod);
            }
            Err(error) => {
                error!(file = %file.display(), %error, "ignoring a static pod's manifest");
                if let Some(pod) = kept.get(&file) {
                    pods.insert(file, pod.clone());
                }
            }
        }
    }
    pods
}

/// One pod of each name.
fn once(pods: &Pods) -> Vec<Pod> {
    let mut named: BTreeMap<String, &Pod> = BTreeMap::new();
    for (file, pod) in pods {
        if let Some(other) = named.insert(pod.full_name(), pod) {
            warn!(pod = %other.full_name(), file = %file.display(), "another manifest has the same pod: this one counts");
        }
    }
    named.into_values().cloned().collect()
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
    let mut kept = Pods::new();
    loop {
        let pods = read_all(&path, &terms, &kept);
        known.replace(once(&pods));
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.recv() => {
                // Editors write in several steps: one reading for all of them.
                tokio::time::sleep(Duration::from_millis(100)).await;
                while changes.try_recv().is_ok() {}
                // What is being written is no manifest for a while: its pod runs on meanwhile.
                kept = pods;
            }
            () = tokio::time::sleep(check_every) => kept.clear(),
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

    /// How many pods are left of one whose manifest is half written: at the period's listing, and
    /// when the file has just changed.
    fn kept(file: &Path) -> (usize, usize) {
        let terms = Terms {
            node_name: "n".into(),
            may_refer: false,
        };
        let before = read_all(file, &terms, &Pods::new());
        assert_eq!(before.len(), 1);
        let half = file.with_extension("half");
        fs::write(&half, "apiVersion: v1\nkind: P").unwrap();
        let before = before
            .into_values()
            .map(|pod| (half.clone(), pod))
            .collect();
        let left = (
            read_all(&half, &terms, &Pods::new()).len(),
            read_all(&half, &terms, &before).len(),
        );
        fs::remove_file(half).unwrap();
        left
    }

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
        assert_eq!(kept(&dir.path().join("web.yaml")), (0, 1));
        fs::remove_file(dir.path().join("web.yaml")).unwrap();
        let Some(Event::PodGone(Source::File, gone)) = heard.recv().await else {
            panic!("not gone")
        };
        assert_eq!(gone.uid(), pod.uid());
        stop.cancel();
        task.await.unwrap();
    }
}
