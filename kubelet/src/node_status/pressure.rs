//! Whether the node runs out of something: what is left, against the thresholds of `evictionHard`.
//! Pure.

use std::collections::BTreeMap;

use crate::sys::fs::FsUsage;

/// What is left of each resource, and of how much.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observed {
    /// Bytes: available and total.
    pub memory: (u64, u64),
    pub nodefs: FsUsage,
    pub imagefs: FsUsage,
    /// Processes: the most there may be, and how many there are.
    pub pids: (u64, u64),
}

/// The pressures that `kubectl describe node` shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pid: bool,
}

/// A threshold, absolute or a share of the whole.
fn amount(threshold: &str, of: u64) -> Option<u64> {
    if let Some(percent) = threshold.strip_suffix('%') {
        let share = percent.parse::<f64>().ok()? / 100.0;
        return Some((of as f64 * share) as u64);
    }
    threshold
        .parse::<meta::Quantity>()
        .ok()
        .and_then(|quantity| u64::try_from(quantity.value()).ok())
}

/// What must stay free of `signal`, of a whole of so much.
pub fn reserved(thresholds: &BTreeMap<String, String>, signal: &str, of: u64) -> u64 {
    thresholds
        .get(signal)
        .and_then(|threshold| amount(threshold, of))
        .unwrap_or_default()
}

/// Compares. A signal without a threshold exerts no pressure.
pub fn pressure(thresholds: &BTreeMap<String, String>, observed: &Observed) -> Pressure {
    let below = |signal: &str, left: u64, of: u64| {
        of > 0
            && thresholds
                .get(signal)
                .and_then(|threshold| amount(threshold, of))
                .is_some_and(|least| left < least)
    };
    let fs = |name: &str, usage: &FsUsage| {
        below(
            &format!("{name}.available"),
            usage.available,
            usage.capacity,
        ) || below(
            &format!("{name}.inodesFree"),
            usage.inodes_free,
            usage.inodes,
        )
    };
    let (max, running) = observed.pids;
    Pressure {
        memory: below("memory.available", observed.memory.0, observed.memory.1),
        disk: fs("nodefs", &observed.nodefs) || fs("imagefs", &observed.imagefs),
        pid: below("pid.available", max.saturating_sub(running), max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let thresholds = [
            ("memory.available", "100Mi"),
            ("nodefs.available", "10%"),
            ("nodefs.inodesFree", "5%"),
            ("pid.available", "1k"),
        ];
        let thresholds = thresholds.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let fs = |available, inodes_free| FsUsage {
            capacity: 1000,
            available,
            inodes: 1000,
            inodes_free,
            used: 0,
        };
        let observed = |memory, nodefs, running| Observed {
            memory: (memory, 1 << 30),
            nodefs,
            imagefs: nodefs,
            pids: (10_000, running),
        };
        let plenty = observed(200 << 20, fs(500, 500), 10);
        assert_eq!(pressure(&thresholds, &plenty), Pressure::default());
        assert!(pressure(&thresholds, &observed(50 << 20, fs(500, 500), 10)).memory);
        assert!(pressure(&thresholds, &observed(200 << 20, fs(99, 500), 10)).disk);
        assert!(pressure(&thresholds, &observed(200 << 20, fs(500, 49), 10)).disk);
        assert!(pressure(&thresholds, &observed(200 << 20, fs(500, 500), 9_500)).pid);
        assert_eq!(reserved(&thresholds, "nodefs.available", 5000), 500);
    }
}
