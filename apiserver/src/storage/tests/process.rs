//! Real etcd members on loopback, in temporary directories, gone when dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::storage::etcd::{Etcd, Transport};
use crate::storage::metrics::Metrics;

/// One member's process and files; the files outlive the process.
pub(super) struct Member {
    directory: TempDir,
    child: Option<Child>,
    client: String,
    peer: String,
    name: String,
    more: Vec<String>,
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FERROKUBE_ETCD") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("etcd"))
        .find(|file| file.is_file())
        .expect(
            "no etcd: put one on the PATH or name it in FERROKUBE_ETCD \
             (`deploy/up` unpacks Debian's under its state directory)",
        )
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("loopback"));
    std::array::from_fn(|i| listeners[i].local_addr().expect("bound").port())
}

impl Member {
    /// A cluster of its own. `more` are further flags.
    pub(super) fn single(more: &[&str]) -> Self {
        let [client, peer] = free_ports();
        let mut member = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            child: None,
            client: format!("http://127.0.0.1:{client}"),
            peer: format!("http://127.0.0.1:{peer}"),
            name: "m0".into(),
            more: more.iter().map(ToString::to_string).collect(),
        };
        let cluster = format!("m0={}", member.peer);
        member.more.push(format!("--initial-cluster={cluster}"));
        member.start();
        member
    }

    /// One that clients must speak TLS to, with the files of a directory.
    pub(super) fn with_tls(files: &Path) -> Self {
        let flag = |name: &str, file: &str| format!("--{name}={}", files.join(file).display());
        let mut member = Self::single(&[]);
        member.stop();
        member.client = member.client.replace("http:", "https:");
        member.more.extend([
            flag("cert-file", "server.crt"),
            flag("key-file", "server.key"),
            flag("trusted-ca-file", "ca.crt"),
            "--client-cert-auth".into(),
        ]);
        member.start();
        member
    }

    /// Members of one cluster.
    pub(super) fn cluster<const N: usize>() -> [Self; N] {
        let clients = free_ports::<N>();
        let peers = free_ports::<N>();
        let mut members: [Self; N] = std::array::from_fn(|i| Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            child: None,
            client: format!("http://127.0.0.1:{}", clients[i]),
            peer: format!("http://127.0.0.1:{}", peers[i]),
            name: format!("m{i}"),
            more: vec![
                // Elections in a fifth of the usual time.
                "--heartbeat-interval=20".into(),
                "--election-timeout=200".into(),
            ],
        });
        let cluster: Vec<_> = members
            .iter()
            .map(|member| format!("{}={}", member.name, member.peer))
            .collect();
        let cluster = format!("--initial-cluster={}", cluster.join(","));
        for member in &mut members {
            member.more.push(cluster.clone());
            member.start();
        }
        members
    }

    pub(super) fn start(&mut self) {
        let child = Command::new(binary())
            .arg(format!("--name={}", self.name))
            .arg(format!(
                "--data-dir={}",
                self.directory.path().join("data").display()
            ))
            .arg(format!("--listen-client-urls={}", self.client))
            .arg(format!("--advertise-client-urls={}", self.client))
            .arg(format!("--listen-peer-urls={}", self.peer))
            .arg(format!("--initial-advertise-peer-urls={}", self.peer))
            .args(["--unsafe-no-fsync", "--log-level=fatal"])
            .args(&self.more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        self.child = Some(child);
    }

    /// `kill -9`.
    pub(super) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.client
    }

    pub(super) fn transport(&self) -> Transport {
        Transport {
            servers: vec![self.client.clone()],
            ..Transport::default()
        }
    }

    /// A client, once the member answers.
    pub(super) async fn client(&self) -> Arc<Etcd> {
        connect(&self.transport()).await
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) async fn connect(transport: &Transport) -> Arc<Etcd> {
    let etcd = Etcd::new(transport, "/registry", Metrics::unregistered()).expect("valid URLs");
    // The client itself tries until the member is up.
    for _ in 0..5 {
        if etcd.check(Duration::from_secs(10)).await.is_ok() {
            return Arc::new(etcd);
        }
    }
    panic!("etcd at {:?} does not come up", transport.servers);
}
