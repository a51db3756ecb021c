//! Static pods: manifests in a directory (or one file), read when they change.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, Toleration};
use notify::{RecursiveMode, Watcher};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::pod::{CONFIG_HASH, CONFIG_SEEN, CONFIG_SOURCE, PodExt};
use crate::event::{Event, Source};

/// Why a file is no static pod.
#[derive(Debug, Error)]
pub enum ManifestError {
    #[error("cannot read it: {0}")]
    Read(#[from] std::io::Error),
    #[error("it is neither YAML nor JSON: {0}")]
    Syntax(String),
    #[error("it is no v1 Pod")]
    Kind,
    #[error("invalid pod: {0}")]
    Invalid(String),
}

/// Reads one manifest: defaulted, named after the node, bound to it. The pod's uid is derived from
/// node, file and content, so that a changed manifest is another pod. Pure.
///
/// # Errors
/// When it is no valid pod.
pub fn parse(text: &str, path: &Path, node_name: &str) -> Result<Pod, ManifestError> {
    let mut value: Value =
        serde_saphyr::from_str(text).map_err(|error| ManifestError::Syntax(error.to_string()))?;
    if (value["apiVersion"].as_str(), value["kind"].as_str()) != (Some("v1"), Some("Pod")) {
        return Err(ManifestError::Kind);
    }
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let name = format!("{name}-{}", node_name.to_lowercase());
    value["metadata"]["name"] = Value::String(name);
    if value["metadata"]["namespace"]
        .as_str()
        .is_none_or(str::is_empty)
    {
        value["metadata"]["namespace"] = "default".into();
    }
    value["spec"]["nodeName"] = node_name.into();
    // Status, and what refers to objects of the API, make no sense here.
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    let message = schema::kind("", "v1", "Pod").ok_or(ManifestError::Kind)?;
    api::defaults::apply(message, &mut value);
    let errors = api::validation::create("", "Pod", true, &value);
    if !errors.is_empty() {
        return Err(ManifestError::Invalid(errors.to_string()));
    }
    let mut pod: Pod =
        serde_json::from_value(value).map_err(|error| ManifestError::Invalid(error.to_string()))?;

    let content =
        serde_json::to_vec(&pod).map_err(|error| ManifestError::Invalid(error.to_string()))?;
    let mut digest = Sha256::new();
    digest.update(&content);
    digest.update(format!("host:{node_name}file:{}", path.display()));
    let uid: String = digest
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if pod.metadata.uid.as_deref().is_none_or(str::is_empty) {
        pod.metadata.uid = Some(uid);
    }
    let hash = pod.uid().to_owned();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_HASH.into(), hash);
    annotations.insert(CONFIG_SOURCE.into(), "file".into());
    let spec = pod.spec.get_or_insert_default();
    // Nothing may keep a static pod off its node.
    let tolerates_all = Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Default::default()
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&tolerates_all) {
        tolerations.push(tolerates_all);
    }
    pod.status = Some(PodStatus {
        phase: Some("Pending".into()),
        ..Default::default()
    });
    Ok(pod)
}

/// All manifests at a path: a directory's files (not hidden ones, not those of directories below),
/// or the file itself. What is wrong is logged and left out.
fn read_all(path: &Path, node_name: &str) -> Vec<Pod> {
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
        let text = fs::read_to_string(&file).map_err(ManifestError::from);
        match text.and_then(|text| parse(&text, &file, node_name)) {
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
    node_name: String,
    check_every: Duration,
    told: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
) {
    let (changed, mut changes) = mpsc::channel::<()>(1);
    let mut watcher = watch(&path, changed.clone());
    let mut known: HashMap<String, Arc<Pod>> = HashMap::new();
    let mut first = true;
    loop {
        let found = read_all(&path, &node_name);
        let mut now: HashMap<String, Arc<Pod>> = HashMap::new();
        for mut pod in found {
            let uid = pod.uid().to_owned();
            let pod = known.remove(&uid).unwrap_or_else(|| {
                let seen = Timestamp::now().to_string();
                pod.metadata
                    .annotations
                    .get_or_insert_default()
                    .insert(CONFIG_SEEN.into(), seen);
                let pod = Arc::new(pod);
                let _ = told.send(Event::PodSet(Source::File, pod.clone()));
                pod
            });
            now.insert(uid, pod);
        }
        for gone in std::mem::take(&mut known).into_values() {
            let _ = told.send(Event::PodGone(Source::File, gone));
        }
        known = now;
        if std::mem::take(&mut first) {
            let _ = told.send(Event::SourceReady(Source::File));
        }
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

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let pod = parse(
            MANIFEST,
            Path::new("/etc/kubernetes/manifests/web.yaml"),
            "node1",
        )
        .unwrap();
        assert_eq!((pod.name(), pod.namespace()), ("web-node1", "default"));
        assert!(pod.is_static() && !pod.is_mirror());
        assert_eq!(pod.pod_spec().node_name.as_deref(), Some("node1"));
        assert_eq!(
            pod.pod_spec().restart_policy.as_deref(),
            Some("Always"),
            "defaulted"
        );
        assert_eq!(
            pod.containers()[0].termination_message_path.as_deref(),
            Some("/dev/termination-log")
        );
        assert_eq!(pod.uid().len(), 32);
        assert_eq!(pod.annotation(CONFIG_HASH), Some(pod.uid()));
        let same = parse(
            MANIFEST,
            Path::new("/etc/kubernetes/manifests/web.yaml"),
            "node1",
        )
        .unwrap();
        assert_eq!(same.uid(), pod.uid());
        let changed = parse(
            &MANIFEST.replace("nginx:1", "nginx:2"),
            Path::new("/etc/kubernetes/manifests/web.yaml"),
            "node1",
        )
        .unwrap();
        assert_ne!(changed.uid(), pod.uid());
    }

    #[test]
    fn nonsense_is_refused() {
        let parse = |text: &str| parse(text, Path::new("x"), "n");
        assert!(matches!(parse("a: ["), Err(ManifestError::Syntax(_))));
        assert!(matches!(
            parse("apiVersion: v1\nkind: Service"),
            Err(ManifestError::Kind)
        ));
        assert!(matches!(
            parse("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: []}"),
            Err(ManifestError::Invalid(_))
        ));
    }

    #[tokio::test]
    async fn changes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let (told, mut heard) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(
            dir.path().to_owned(),
            "n".into(),
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
