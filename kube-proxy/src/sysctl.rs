//! The kernel's connection tracking, sized for a node, and this process' OOM score.

use component::flags::GoDuration;

use crate::config::Conntrack;

const DIRECTORY: &str = "/proc/sys/net/netfilter/nf_conntrack_";

/// Applies what is configured. What the kernel does not let us do is said and left: the
/// proxy works without.
pub fn apply(conntrack: &Conntrack, oom_score_adj: Option<i32>) {
    if let Some(max) = max(
        conntrack,
        std::thread::available_parallelism().map_or(1, usize::from),
    ) {
        raise("max", max);
    }
    let timeouts = [
        (
            "tcp_timeout_established",
            conntrack
                .tcp_established_timeout
                .unwrap_or(GoDuration::from_secs(86_400)),
        ),
        (
            "tcp_timeout_close_wait",
            conntrack
                .tcp_close_wait_timeout
                .unwrap_or(GoDuration::from_secs(3600)),
        ),
        ("udp_timeout", conntrack.udp_timeout),
        ("udp_timeout_stream", conntrack.udp_stream_timeout),
    ];
    for (name, timeout) in timeouts {
        if !timeout.is_zero() {
            set(name, timeout.get().as_secs());
        }
    }
    if conntrack.tcp_be_liberal {
        set("tcp_be_liberal", 1);
    }
    let score = oom_score_adj.unwrap_or(-999);
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::warn!("cannot set oom_score_adj to {score}: {error}");
    }
}

/// The size of the table; `None` leaves it alone.
fn max(conntrack: &Conntrack, cores: usize) -> Option<u64> {
    let per_core = u64::try_from(conntrack.max_per_core.unwrap_or(32_768)).unwrap_or(0);
    if per_core == 0 {
        return None;
    }
    let least = u64::try_from(conntrack.min.unwrap_or(131_072)).unwrap_or(0);
    Some((per_core * cores as u64).max(least))
}

fn read(name: &str) -> Option<u64> {
    std::fs::read_to_string(format!("{DIRECTORY}{name}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Sets a value that is lower now.
fn raise(name: &str, value: u64) {
    if read(name).is_none_or(|now| now < value) {
        set(name, value);
    }
}

fn set(name: &str, value: u64) {
    if read(name) == Some(value) {
        return;
    }
    match std::fs::write(format!("{DIRECTORY}{name}"), value.to_string()) {
        Ok(()) => tracing::info!("set nf_conntrack_{name} to {value}"),
        Err(error) => tracing::warn!("cannot set nf_conntrack_{name} to {value}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_grows_with_the_cores() {
        let with = |max_per_core, min| Conntrack {
            max_per_core,
            min,
            ..Conntrack::default()
        };
        assert_eq!(max(&with(None, None), 2), Some(131_072));
        assert_eq!(max(&with(None, None), 16), Some(16 * 32_768));
        assert_eq!(max(&with(Some(0), Some(0)), 16), None);
    }
}
