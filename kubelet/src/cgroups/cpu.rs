//! CPU: shares (a weight) and quota.

use std::path::Path;

use super::{CgroupError, Controller, Limits, read, read_number, write};

pub(super) struct Cpu;

impl Controller for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn apply_v1(&self, group: &Path, limits: &Limits) -> Result<(), CgroupError> {
        if let Some(shares) = limits.cpu_shares {
            write(&group.join("cpu.shares"), &shares.to_string())?;
        }
        if let Some((quota, period)) = limits.cpu_quota {
            // The kernel checks the quota against the period: the period goes first.
            write(&group.join("cpu.cfs_period_us"), &period.to_string())?;
            write(
                &group.join("cpu.cfs_quota_us"),
                &if quota > 0 { quota } else { -1 }.to_string(),
            )?;
        }
        Ok(())
    }

    fn apply_v2(&self, group: &Path, limits: &Limits) -> Result<(), CgroupError> {
        if let Some(shares) = limits.cpu_shares {
            write(&group.join("cpu.weight"), &weight(shares).to_string())?;
        }
        if let Some((quota, period)) = limits.cpu_quota {
            let quota = if quota > 0 {
                quota.to_string()
            } else {
                "max".into()
            };
            write(&group.join("cpu.max"), &format!("{quota} {period}"))?;
        }
        Ok(())
    }

    fn read_v1(&self, group: &Path, limits: &mut Limits) -> Result<(), CgroupError> {
        limits.cpu_shares = Some(read_number(&group.join("cpu.shares"))?);
        limits.cpu_quota = Some((
            read_number(&group.join("cpu.cfs_quota_us"))?,
            read_number(&group.join("cpu.cfs_period_us"))?,
        ));
        Ok(())
    }

    /// Not the shares: more than one amount has the same weight.
    fn read_v2(&self, group: &Path, limits: &mut Limits) -> Result<(), CgroupError> {
        let text = read(&group.join("cpu.max"))?;
        let mut words = text.split_whitespace();
        let quota = words
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(-1);
        let period = words.next().and_then(|word| word.parse().ok());
        limits.cpu_quota = period.map(|period| (quota, period));
        Ok(())
    }
}

/// Version 2's weight (1 to 10000, default 100) of version 1's shares (2 to 262144, default 1024):
/// the quadratic through these three points on logarithmic scales, which runc uses as well.
pub(super) fn weight(shares: i64) -> i64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as i64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
        assert!(weight(512) < 100 && weight(2048) > 100);
    }
}
