//! One kube-controller-manager process over a stand.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::side::{CONTROLLERS, GATES};
use crate::stand::Stand;
use crate::stand::free_ports;
use crate::stand::process::Process;

/// A manager that can be killed and started again.
pub struct Manager {
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
}

/// Periods that are minutes or hours otherwise.
const HASTE: [&str; 11] = [
    "--node-monitor-period=1s",
    "--node-monitor-grace-period=16s",
    "--horizontal-pod-autoscaler-sync-period=1s",
    "--horizontal-pod-autoscaler-downscale-stabilization=2s",
    "--pvclaimbinder-sync-period=2s",
    "--kube-api-qps=2000",
    "--kube-api-burst=4000",
    "--node-eviction-rate=10",
    "--secondary-node-eviction-rate=10",
    "--concurrent-gc-syncs=20",
    "--concurrent-namespace-syncs=20",
];

impl Manager {
    /// A manager that is not started yet; `bin` is a directory of binaries, `port` where it
    /// finds the API server.
    ///
    /// # Errors
    ///
    /// When its files cannot be written.
    pub fn new(stand: &Stand, bin: &Path, port: u16, accounts: bool) -> Result<Self> {
        let home = stand.home();
        let pem = |file: &str| stand.pki.path(file).display().to_string();
        let kubeconfig = stand.kubeconfig("manager.conf", port)?;
        let [port] = free_ports()?;
        let mut arguments = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", home.join("manager-certs").display()),
            "--leader-elect=false".to_owned(),
            format!("--use-service-account-credentials={accounts}"),
            format!("--root-ca-file={}", pem("ca.crt")),
            format!("--service-account-private-key-file={}", pem("sa.key")),
            format!("--cluster-signing-cert-file={}", pem("ca.crt")),
            format!("--cluster-signing-key-file={}", pem("ca.key")),
            GATES.to_owned(),
            CONTROLLERS.to_owned(),
            "--v=2".to_owned(),
        ];
        arguments.extend(HASTE.map(str::to_owned));
        Ok(Self {
            binary: bin.join("kube-controller-manager"),
            arguments,
            log: home.join("kube-controller-manager.log"),
            process: None,
        })
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let process = Process::start(&self.binary, &self.arguments, &self.log)
            .with_context(|| format!("{} does not start", self.binary.display()))?;
        self.process = Some(process);
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Fails when it has ended by itself.
    ///
    /// # Errors
    ///
    /// With the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }
}
