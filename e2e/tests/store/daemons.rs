//! A controller manager and a scheduler before a stand's API server.

use e2e::stand::process::Process;
use e2e::stand::{Stand, free_ports};
use serde_json::{Value, json};

use super::bin;

fn kubeconfig(stand: &Stand) -> String {
    let path = stand.kubeconfig("admin.conf", stand.api.port).unwrap();
    path.display().to_string()
}

/// What a daemon called `name` serves with.
fn serving(stand: &Stand, name: &str) -> [String; 3] {
    let [port] = free_ports().unwrap();
    let certificates = stand.home().join(format!("{name}-certs"));
    [
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", certificates.display()),
    ]
}

fn start(stand: &Stand, binary: &str, name: &str, flags: &[String]) -> Process {
    let log = stand.home().join(format!("{name}.log"));
    Process::start(&bin().join(binary), flags, &log).unwrap()
}

/// A controller manager.
pub fn manager(stand: &Stand, name: &str, more: &[&str]) -> Process {
    let mut flags = serving(stand, name).to_vec();
    flags.extend([
        format!("--kubeconfig={}", kubeconfig(stand)),
        format!("--root-ca-file={}", stand.pki.path("ca.crt").display()),
        format!(
            "--service-account-private-key-file={}",
            stand.pki.path("sa.key").display()
        ),
    ]);
    flags.extend(more.iter().map(ToString::to_string));
    start(stand, "kube-controller-manager", name, &flags)
}

/// A scheduler that leads whoever else does.
pub fn scheduler(stand: &Stand, name: &str) -> Process {
    scheduler_with(stand, name, &[])
}

/// A scheduler with extenders.
pub fn scheduler_with(stand: &Stand, name: &str, extenders: &[Value]) -> Process {
    let config = stand.home().join(format!("{name}.yaml"));
    let content = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig(stand), "qps": 1000, "burst": 1000},
        "leaderElection": {"leaderElect": false},
        "extenders": extenders,
    });
    std::fs::write(&config, content.to_string()).unwrap();
    let mut flags = serving(stand, name).to_vec();
    flags.push(format!("--config={}", config.display()));
    start(stand, "kube-scheduler", name, &flags)
}
