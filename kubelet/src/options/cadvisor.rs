//! Flags that upstream's kubelet has because it is linked with cAdvisor. A unit file may carry them;
//! what is measured here is read from the kernel when it is asked for, so there is nothing to set.

/// Name, and upstream's default.
pub const FLAGS: &[(&str, &str)] = &[
    ("application-metrics-count-limit", "100"),
    ("boot-id-file", "/proc/sys/kernel/random/boot_id"),
    ("container-hints", "/etc/cadvisor/container_hints.json"),
    ("containerd", "/run/containerd/containerd.sock"),
    ("containerd-namespace", "k8s.io"),
    ("enable-load-reader", "false"),
    ("event-storage-age-limit", "default=0"),
    ("event-storage-event-limit", "default=0"),
    ("global-housekeeping-interval", "1m0s"),
    ("housekeeping-interval", "10s"),
    ("log-cadvisor-usage", "false"),
    (
        "machine-id-file",
        "/etc/machine-id,/var/lib/dbus/machine-id",
    ),
    ("max-housekeeping-interval", "15s"),
    ("storage-driver-buffer-duration", "1m0s"),
    ("storage-driver-db", "cadvisor"),
    ("storage-driver-host", "localhost:8086"),
    ("storage-driver-password", "root"),
    ("storage-driver-secure", "false"),
    ("storage-driver-table", "stats"),
    ("storage-driver-user", "root"),
];

/// A warning for each that is given.
pub fn unheeded(is_set: impl Fn(&str) -> bool) -> impl Iterator<Item = String> {
    let given = FLAGS.iter().filter(move |(flag, _)| is_set(flag));
    given.map(|(flag, _)| format!("--{flag} has no effect: there is no cAdvisor to configure"))
}
