//! Pods that clean a volume which nobody claims any more, so that others can claim it: pure.
//!
//! Upstream's plugins of hostPath and NFS are the only ones that know how to; recycling is
//! deprecated there, too, but works.

use std::path::Path;

use anyhow::Context as _;
use client::Object as _;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NFSVolumeSource, PersistentVolume, Pod, Volume,
};
use meta::quantity::Quantity;
use serde_json::json;

use crate::options::RecyclerFlags;

const NAME: &str = "recycler-for-";
const GIBIBYTE: i64 = 1 << 30;

/// The name of the pod that cleans a volume: the same each time, so that no two clean it at once,
/// and a manager finds what one before it has left.
pub fn pod_name(volume: &str) -> String {
    format!("{NAME}{volume}")
}

/// The volume that the pod of this name would clean.
pub fn volume_of(pod: &str) -> Option<&str> {
    pod.strip_prefix(NAME)
}

/// How volumes of one plugin are cleaned.
#[derive(Debug)]
struct Recycler {
    template: Pod,
    /// Seconds that any volume has.
    minimum: i32,
    /// Seconds that a volume has for each GiB of it, if they are more.
    increment: i32,
}

/// How volumes are cleaned, by plugin.
#[derive(Debug)]
pub struct Recyclers {
    host_path: Recycler,
    nfs: Recycler,
}

impl Recyclers {
    /// With the templates that the flags name, or the one that upstream has built in.
    pub fn from_flags(flags: &RecyclerFlags) -> anyhow::Result<Self> {
        let host_path = &flags.pv_recycler_pod_template_filepath_hostpath;
        let nfs = &flags.pv_recycler_pod_template_filepath_nfs;
        Ok(Self {
            host_path: Recycler {
                template: template(host_path)?,
                minimum: flags.pv_recycler_minimum_timeout_hostpath,
                increment: flags.pv_recycler_timeout_increment_hostpath,
            },
            nfs: Recycler {
                template: template(nfs)?,
                minimum: flags.pv_recycler_minimum_timeout_nfs,
                increment: flags.pv_recycler_increment_timeout_nfs,
            },
        })
    }

    /// The pod that cleans a volume; `None` if nobody knows how to.
    pub fn pod(&self, volume: &PersistentVolume) -> Option<Pod> {
        let spec = volume.spec.as_ref()?;
        let (recycler, source) = if let Some(source) = &spec.host_path {
            let host_path = HostPathVolumeSource {
                path: source.path.clone(),
                type_: None,
            };
            let source = Volume {
                host_path: Some(host_path),
                ..Volume::default()
            };
            (&self.host_path, source)
        } else {
            let source = spec.nfs.as_ref()?;
            let nfs = NFSVolumeSource {
                server: source.server.clone(),
                path: source.path.clone(),
                read_only: None,
            };
            let source = Volume {
                nfs: Some(nfs),
                ..Volume::default()
            };
            (&self.nfs, source)
        };
        let mut pod = recycler.template.clone();
        pod.metadata.name = Some(pod_name(volume.name()));
        pod.metadata.generate_name = None;
        let spec = pod.spec.get_or_insert_default();
        spec.active_deadline_seconds = Some(recycler.seconds(volume));
        if let Some(first) = spec.volumes.get_or_insert_default().first_mut() {
            *first = Volume {
                name: first.name.clone(),
                ..source
            };
        }
        Some(pod)
    }
}

impl Recycler {
    /// How long the cleaning of a volume may take.
    fn seconds(&self, volume: &PersistentVolume) -> i64 {
        let capacity = volume.spec.as_ref().and_then(|s| s.capacity.as_ref());
        let storage = capacity.and_then(|c| c.get("storage"));
        let size: Option<Quantity> = storage.and_then(|s| s.0.parse().ok());
        let gibibytes = size.map_or(0, |s| s.value()) / GIBIBYTE;
        let by_size = gibibytes.saturating_mul(self.increment.into());
        by_size.max(self.minimum.into())
    }
}

/// The pod of a file, in YAML or JSON; without one that which upstream has built in.
fn template(file: &str) -> anyhow::Result<Pod> {
    if file.is_empty() {
        return Ok(serde_json::from_value(built_in())?);
    }
    read(Path::new(file)).with_context(|| format!("cannot use the recycler's template {file}"))
}

fn read(file: &Path) -> anyhow::Result<Pod> {
    let text = std::fs::read_to_string(file)?;
    anyhow::ensure!(!text.is_empty(), "the file is empty");
    let value: serde_json::Value = serde_saphyr::from_str(&text)?;
    anyhow::ensure!(
        value["apiVersion"] == "v1" && value["kind"] == "Pod",
        "it is no v1 Pod"
    );
    let pod: Pod = serde_json::from_value(value)?;
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_ref());
    anyhow::ensure!(
        volumes.is_some_and(|v| !v.is_empty()),
        "does not contain any volume(s)"
    );
    Ok(pod)
}

fn built_in() -> serde_json::Value {
    let scrub = "test -e /scrub && find /scrub -mindepth 1 -delete && test -z \"$(ls -A /scrub)\" || exit 1";
    json!({
        "metadata": {"namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "volumes": [{"name": "vol"}],
            "containers": [{
                "name": "pv-recycler",
                "image": "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6",
                "command": ["/bin/sh"],
                "args": ["-c", scrub],
                "volumeMounts": [{"name": "vol", "mountPath": "/scrub"}],
            }],
        },
    })
}

/// How far the pod that was made is.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Running,
    Done,
    /// Why the volume is not clean.
    Failed(String),
}

/// How far the pod of this UID is, after what is stored under its name.
pub fn progress(stored: Option<&Pod>, uid: &str) -> Progress {
    let Some(pod) = stored.filter(|p| p.uid() == uid) else {
        return Progress::Failed("recycler pod was deleted".to_owned());
    };
    let status = pod.status.clone().unwrap_or_default();
    match status.phase.as_deref() {
        Some("Succeeded") => Progress::Done,
        Some("Failed") => {
            let message = status.message.filter(|m| !m.is_empty());
            let unknown = || "pod failed, pod.Status.Message unknown".to_owned();
            Progress::Failed(message.unwrap_or_else(unknown))
        }
        _ => Progress::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> RecyclerFlags {
        RecyclerFlags {
            pv_recycler_minimum_timeout_hostpath: 60,
            pv_recycler_timeout_increment_hostpath: 30,
            pv_recycler_minimum_timeout_nfs: 300,
            pv_recycler_increment_timeout_nfs: 30,
            pv_recycler_pod_template_filepath_hostpath: String::new(),
            pv_recycler_pod_template_filepath_nfs: String::new(),
        }
    }

    fn volume(size: &str, source: &serde_json::Value) -> PersistentVolume {
        let mut spec = source.clone();
        spec["capacity"] = json!({"storage": size});
        serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap()
    }

    #[test]
    fn pods_have_the_volume_and_a_deadline() {
        let recyclers = Recyclers::from_flags(&flags()).unwrap();
        let host_path = json!({"hostPath": {"path": "/x", "type": "Directory"}});
        let nfs = json!({"nfs": {"server": "s", "path": "/e", "readOnly": true}});
        for (size, source, mounted, seconds) in [
            (
                "1Gi",
                &host_path,
                json!({"name": "vol", "hostPath": {"path": "/x"}}),
                60,
            ),
            (
                "10Gi",
                &host_path,
                json!({"name": "vol", "hostPath": {"path": "/x"}}),
                300,
            ),
            (
                "1Gi",
                &nfs,
                json!({"name": "vol", "nfs": {"server": "s", "path": "/e"}}),
                300,
            ),
        ] {
            let pod = recyclers.pod(&volume(size, source)).unwrap();
            assert_eq!(pod.name(), "recycler-for-v");
            assert_eq!(pod.namespace(), "default");
            let spec = pod.spec.unwrap();
            assert_eq!(spec.active_deadline_seconds, Some(seconds), "{size}");
            assert_eq!(json!(spec.volumes), json!([mounted]));
        }
        let other = json!({"csi": {"driver": "d", "volumeHandle": "h"}});
        assert_eq!(recyclers.pod(&volume("1Gi", &other)), None);
    }

    #[test]
    fn templates_are_read() {
        let file = std::env::temp_dir().join(format!("recycler-{}.yaml", std::process::id()));
        let of = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let flags = RecyclerFlags {
                pv_recycler_pod_template_filepath_nfs: file.display().to_string(),
                ..flags()
            };
            Recyclers::from_flags(&flags)
        };
        let head = "apiVersion: v1\nkind: Pod\nmetadata: {generateName: p-, namespace: ns}\n";
        let recyclers = of(&format!(
            "{head}spec: {{containers: [{{name: c, image: i}}], volumes: [{{name: a, emptyDir: {{}}}}, {{name: b, emptyDir: {{}}}}]}}"
        ));
        let nfs = json!({"nfs": {"server": "s", "path": "/e"}});
        let pod = recyclers.unwrap().pod(&volume("1Gi", &nfs)).unwrap();
        assert_eq!((pod.namespace(), pod.name()), ("ns", "recycler-for-v"));
        assert_eq!(pod.metadata.generate_name, None);
        assert_eq!(
            json!(pod.spec.unwrap().volumes),
            json!([{"name": "a", "nfs": {"server": "s", "path": "/e"}}, {"name": "b", "emptyDir": {}}])
        );
        for bad in [
            String::new(),
            format!("{head}spec: {{containers: []}}"),
            "kind: Service\napiVersion: v1".to_owned(),
        ] {
            assert!(of(&bad).is_err(), "{bad}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(
            Recyclers::from_flags(&RecyclerFlags {
                pv_recycler_pod_template_filepath_hostpath: file.display().to_string(),
                ..flags()
            })
            .is_err()
        );
    }

    #[test]
    fn pods_end() {
        let pod = |status: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "status": status}))
                .unwrap()
        };
        let failed = |why: &str| Progress::Failed(why.to_owned());
        for (stored, wanted) in [
            (None, failed("recycler pod was deleted")),
            (Some(pod(json!({}))), Progress::Running),
            (Some(pod(json!({"phase": "Pending"}))), Progress::Running),
            (Some(pod(json!({"phase": "Succeeded"}))), Progress::Done),
            (
                Some(pod(json!({"phase": "Failed"}))),
                failed("pod failed, pod.Status.Message unknown"),
            ),
            (
                Some(pod(json!({"phase": "Failed", "message": "too late"}))),
                failed("too late"),
            ),
        ] {
            assert_eq!(progress(stored.as_ref(), "u"), wanted);
        }
        // Another pod of the name, be it that it has succeeded.
        let other = pod(json!({"phase": "Succeeded"}));
        assert_eq!(
            progress(Some(&other), "w"),
            failed("recycler pod was deleted")
        );
        assert_eq!(volume_of(&pod_name("v")), Some("v"));
    }
}
