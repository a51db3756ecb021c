//! One kubelet process over a stand and a runtime.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::groups::Groups;
use super::world::ADDRESS;
use crate::stand::process::Process;
use crate::stand::{Stand, free_ports};

pub struct Kubelet {
    pub process: Process,
    pub log: PathBuf,
    _groups: Groups,
}

impl Kubelet {
    /// Starts the kubelet of a directory of binaries as a node of this name; `home` is where it
    /// and its runtime, which listens on `socket`, keep everything.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(
        stand: &Stand,
        bin: &Path,
        node: &str,
        home: &Path,
        socket: &Path,
        pods: usize,
    ) -> Result<Self> {
        let name = format!("ferrokube-bench-{}", std::process::id());
        let groups = Groups::make(&name)?;
        let kubeconfig = stand.kubeconfig("kubelet.conf", stand.api.port)?;
        let pem = |file: &str| stand.pki.path(file).display().to_string();
        let [port] = free_ports()?;
        let resolver = home.join("resolv.conf");
        std::fs::write(&resolver, "nameserver 10.88.0.1\n")?;
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "failCgroupV1": false, "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{name}"),
            "containerRuntimeEndpoint": format!("unix://{}", socket.display()),
            "authentication": {
                "anonymous": {"enabled": false}, "webhook": {"enabled": false},
                "x509": {"clientCAFile": pem("ca.crt")},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "tlsCertFile": pem("apiserver.crt"), "tlsPrivateKeyFile": pem("apiserver.key"),
            "resolvConf": resolver, "failSwapOn": false, "oomScoreAdj": 0,
            "makeIPTablesUtilChains": false, "healthzPort": 0, "port": port,
            "maxPods": pods + 10, "podLogsDir": home.join("pod-logs"),
            "volumePluginDir": home.join("volume-plugins"),
            "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        });
        let file = home.join("kubelet.yaml");
        std::fs::write(&file, config.to_string())?;
        let arguments = [
            format!("--config={}", file.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--root-dir={}", home.join("root").display()),
            format!("--cert-dir={}", home.join("certs").display()),
            format!("--hostname-override={node}"),
            format!("--node-ip={ADDRESS}"),
            "--v=1".to_owned(),
        ];
        let binary = bin.join("kubelet");
        let log = home.join("kubelet.log");
        let process = Process::start(&binary, &arguments, &log)
            .with_context(|| format!("{} does not start", binary.display()))?;
        Ok(Self {
            process,
            log,
            _groups: groups,
        })
    }
}
