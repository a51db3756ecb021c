//! One kube-apiserver of a stand: its flags, its start, and whether it is ready.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::free_ports;
use super::http::{Ask, Endpoint};
use super::pki::Pki;
use super::process::Process;

/// Between two looks at a server that starts.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long a start may take.
const START: Duration = Duration::from_secs(300);
/// Below this part of a core, over [`SETTLED_FOR`], a server is at rest.
const AT_REST: f64 = 0.06;
const SETTLED_FOR: Duration = Duration::from_millis(500);
/// A server that is never at rest is measured all the same.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// A server and everything needed to start it again.
#[derive(Debug)]
pub struct Apiserver {
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    /// Where it listens.
    pub port: u16,
    process: Option<Process>,
}

impl Apiserver {
    /// A server that is not started yet. `bin` is a directory of binaries, `more` are
    /// further flags.
    ///
    /// # Errors
    ///
    /// When there is no free port.
    pub fn new(bin: &Path, etcd: &str, pki: &Pki, log: &Path, more: &[String]) -> Result<Self> {
        let [port] = free_ports()?;
        let pem = |flag: &str, file: &str| format!("--{flag}={}", pki.path(file).display());
        // Those of deploy/, less what only a cluster needs. The advertised address is
        // of TEST-NET-1: upstream refuses one of loopback.
        let mut arguments = vec![
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=192.0.2.1".into(),
            format!("--secure-port={port}"),
            "--allow-privileged=true".into(),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            format!("--etcd-servers={etcd}"),
            pem("client-ca-file", "ca.crt"),
            pem("tls-cert-file", "apiserver.crt"),
            pem("tls-private-key-file", "apiserver.key"),
            pem("kubelet-client-certificate", "kubelet-client.crt"),
            pem("kubelet-client-key", "kubelet-client.key"),
            pem("service-account-key-file", "sa.pub"),
            pem("service-account-signing-key-file", "sa.key"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            "--v=2".into(),
        ];
        arguments.extend(more.iter().cloned());
        Ok(Self {
            binary: bin.join("kube-apiserver"),
            arguments,
            log: log.to_owned(),
            port,
            process: None,
        })
    }

    /// Starts the process.
    ///
    /// # Errors
    ///
    /// When it runs already or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("{} runs", self.binary.display());
        }
        let process = Process::start(&self.binary, &self.arguments, &self.log)?;
        self.process = Some(process);
        Ok(())
    }

    /// Its process.
    ///
    /// # Panics
    ///
    /// When it was not started.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("a server that was started")
    }

    /// Fails when it was started and has ended by itself.
    ///
    /// # Errors
    ///
    /// With the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    ///
    /// When it cannot be asked.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(mut process) => process.stop(),
            None => Ok(()),
        }
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    ///
    /// When it ends, or is not ready in a long time.
    pub async fn ready(&mut self, endpoint: &Endpoint) -> Result<()> {
        let start = Instant::now();
        loop {
            self.check()?;
            let seen = match endpoint.connect().await {
                Ok(connection) => match connection.ask(&Ask::get("/readyz")).await {
                    Ok((status, _)) if status.is_success() => return Ok(()),
                    Ok((status, body)) => format!("{status}: {}", String::from_utf8_lossy(&body)),
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            if start.elapsed() > START {
                bail!("{} is not ready: {seen}", self.binary.display());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Waits until it does next to nothing, so that what follows is measured alone.
    ///
    /// # Errors
    ///
    /// When it ends.
    pub async fn settle(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let (before, at) = (self.process().cpu()?, Instant::now());
            tokio::time::sleep(SETTLED_FOR).await;
            let used = self.process().cpu()?.saturating_sub(before);
            let rest = used.as_secs_f64() / at.elapsed().as_secs_f64() < AT_REST;
            if rest || start.elapsed() > SETTLE_LIMIT {
                return Ok(());
            }
        }
    }
}
