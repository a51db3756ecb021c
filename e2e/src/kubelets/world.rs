//! A network, and mounts, for nobody else: a kubelet finds its node's address, and changes settings
//! of the machine, both of which the machine must not notice.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// The node's address.
pub const ADDRESS: &str = "10.88.0.1";

/// Settings that kubelets write, and the values that they want.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Leaves the machine's network and mounts. For a process of one thread.
///
/// # Errors
///
/// When it is not root's, or the kernel does not allow it.
pub fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .context("a network and mounts of its own need root")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    // Links to containers' logs, and files that look like settings.
    tmpfs(Path::new("/var/log"))?;
    for (setting, value) in SETTINGS {
        let file = Path::new("/var/log").join(setting.replace('/', "."));
        fs::write(&file, value)?;
        let setting = Path::new("/proc/sys").join(setting);
        let bind = MsFlags::MS_BIND;
        mount(Some(&file), &setting, None::<&str>, bind, None::<&str>)
            .with_context(|| setting.display().to_string())?;
    }
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "add", "node", "type", "bridge"])?;
    ip(&["addr", "add", &format!("{ADDRESS}/24"), "dev", "node"])?;
    ip(&["link", "set", "node", "up"])
}

fn tmpfs(at: &Path) -> Result<()> {
    let flags = MsFlags::empty();
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, None::<&str>)
        .with_context(|| at.display().to_string())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status().context("ip")?;
    ensure!(status.success(), "ip {}: {status}", arguments.join(" "));
    Ok(())
}
