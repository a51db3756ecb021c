//! A stand: etcd and one API server on loopback, started with a chosen directory of
//! binaries, for what a whole cluster would only blur: benchmarks, histories, limits.
//!
//! Nothing here knows whose binaries they are. What must not be here: what is asked
//! of the server, and what is thought of its answers.

pub mod apiserver;
pub mod etcd;
pub mod http;
pub mod pki;
pub mod process;
pub mod watch;

pub use apiserver::Apiserver;
pub use etcd::Etcd;
pub use http::{Connection, Endpoint};

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use pki::Pki;

/// An etcd and an API server that run, in a directory of their own.
pub struct Stand {
    /// The members.
    pub etcd: Etcd,
    /// The server.
    pub api: Apiserver,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its certificates.
    pub pki: Pki,
    directory: TempDir,
}

impl Stand {
    /// Starts `members` of etcd and the kube-apiserver of a directory, each with
    /// further flags, and waits until all is ready.
    ///
    /// # Errors
    ///
    /// When one does not come up.
    pub async fn start(
        bin: &Path,
        members: usize,
        etcd_flags: &[&str],
        flags: &[String],
    ) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let home = directory.path();
        let pki = Pki::make(&home.join("pki"))?;
        let mut etcd = Etcd::new(home, members, etcd_flags)?;
        etcd.start().await?;
        let log = home.join("kube-apiserver.log");
        let mut api = Apiserver::new(bin, &etcd.servers(), &pki, &log, flags)?;
        let endpoint = Endpoint::new(api.port, &pki)?;
        api.start()?;
        api.ready(&endpoint).await?;
        Ok(Self {
            etcd,
            api,
            endpoint,
            pki,
            directory,
        })
    }

    /// Where its files are.
    pub fn home(&self) -> &Path {
        self.directory.path()
    }

    /// Writes an administrator's kubeconfig; `port` is where its user is to find the API
    /// server, which may be behind something that listens there.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn kubeconfig(&self, name: &str, port: u16) -> Result<PathBuf> {
        let pem = |file: &str| self.pki.path(file).display().to_string();
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "admin",
            "clusters": [{"name": "stand", "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority": pem("ca.crt"),
            }}],
            "users": [{"name": "admin", "user": {
                "client-certificate": pem("admin.crt"), "client-key": pem("admin.key"),
            }}],
            "contexts": [{"name": "admin", "context": {"cluster": "stand", "user": "admin"}}],
        });
        let path = self.home().join(name);
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// Ends it and leaves its files, for who wants to know more.
    pub fn keep(self) -> PathBuf {
        self.directory.keep()
    }
}

/// Ports of loopback that were free a moment ago. All are held until the last is known.
///
/// # Errors
///
/// When loopback has none left.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// The etcd to run: `$FERROKUBE_ETCD`, or the first on the `PATH`.
///
/// # Errors
///
/// When there is none.
pub fn etcd_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FERROKUBE_ETCD") {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("etcd"))
        .find(|file| file.is_file())
        .context("no etcd: put one on the PATH or name it in FERROKUBE_ETCD (deploy/up unpacks Debian's under its state directory)")
}

/// Copies a directory and everything in it.
///
/// # Errors
///
/// When something cannot be read or written.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
