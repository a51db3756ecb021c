//! Where a pod's files lie below `--root-dir`. The layout is upstream's.

use std::path::{Path, PathBuf};

/// The kubelet's root directory.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Directory of all pods.
    pub fn pods(&self) -> PathBuf {
        self.0.join("pods")
    }

    pub fn pod(&self, uid: &str) -> PodDir {
        PodDir(self.pods().join(uid))
    }

    /// Where plugins make themselves known.
    pub fn plugins_registry(&self) -> PathBuf {
        self.0.join("plugins_registry")
    }

    /// Seccomp profiles that pods name.
    pub fn seccomp(&self) -> PathBuf {
        self.0.join("seccomp")
    }
}

/// One pod's directory.
#[derive(Debug, Clone)]
pub struct PodDir(PathBuf);

impl PodDir {
    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// `plugin` as `configmap`, `empty-dir`, …
    pub fn volume(&self, plugin: &str, name: &str) -> PathBuf {
        self.volumes()
            .join(format!("kubernetes.io~{plugin}"))
            .join(name)
    }

    /// Links to the devices that the pod has.
    pub fn all_devices(&self) -> PathBuf {
        self.0.join("volumeDevices")
    }

    /// Those of one plugin.
    pub fn devices(&self, plugin: &str) -> PathBuf {
        self.all_devices().join(format!("kubernetes.io~{plugin}"))
    }

    pub fn plugins(&self) -> PathBuf {
        self.0.join("plugins")
    }

    /// Where bind mounts of `subPath`s lie.
    pub fn sub_paths(&self) -> PathBuf {
        self.0.join("volume-subpaths")
    }

    pub fn container(&self, name: &str) -> PathBuf {
        self.0.join("containers").join(name)
    }

    pub fn hosts(&self) -> PathBuf {
        self.0.join("etc-hosts")
    }
}
