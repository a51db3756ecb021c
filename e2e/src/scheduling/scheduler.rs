//! One kube-scheduler process over a stand.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::stand::Stand;
use crate::stand::free_ports;
use crate::stand::process::Process;

/// A scheduler that runs, and the name that pods ask it by.
pub struct Scheduler {
    pub name: String,
    pub process: Process,
}

impl Scheduler {
    /// Starts the kube-scheduler of a directory of binaries, without rate limits of its
    /// client; it logs as much as `log` says.
    pub fn start(stand: &Stand, bin: &Path, name: &str, log: u8) -> Result<Self> {
        Self::start_with(stand, bin, name, log, &[])
    }

    /// The same, with further flags.
    pub fn start_with(
        stand: &Stand,
        bin: &Path,
        name: &str,
        log: u8,
        more: &[String],
    ) -> Result<Self> {
        let home = stand.home();
        let kubeconfig = stand.kubeconfig("admin.conf", stand.api.port)?;
        let file = home.join(format!("{name}.yaml"));
        let config = json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "clientConnection": {"kubeconfig": kubeconfig, "qps": 10000, "burst": 10000},
            "leaderElection": {"leaderElect": false},
            "profiles": [{"schedulerName": name}],
        });
        std::fs::write(&file, config.to_string())?;
        let [port] = free_ports()?;
        let mut arguments = vec![
            format!("--config={}", file.display()),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--v={log}"),
            format!(
                "--cert-dir={}",
                home.join(format!("{name}-certs")).display()
            ),
        ];
        arguments.extend(more.iter().cloned());
        let binary = bin.join("kube-scheduler");
        let log = home.join(format!("{name}.log"));
        let process = Process::start(&binary, &arguments, &log)
            .with_context(|| format!("{} does not start", binary.display()))?;
        Ok(Self {
            name: name.to_owned(),
            process,
        })
    }
}
