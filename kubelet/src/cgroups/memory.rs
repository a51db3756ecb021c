//! Memory.

use std::path::Path;

use super::{CgroupError, Controller, Limits, read, read_number, write};

pub(super) struct Memory;

/// Version 1's way to say that there is no limit: as many pages as can be counted.
const UNLIMITED: i64 = i64::MAX / 65_536 * 65_536;

/// As upstream counts it. Of the group and all below it.
pub(super) fn working_set(group: &Path, v2: bool) -> Option<u64> {
    let (usage, inactive) = if v2 {
        ("memory.current", "inactive_file ")
    } else {
        ("memory.usage_in_bytes", "total_inactive_file ")
    };
    let used = read(&group.join(usage)).ok()?;
    let used = used.trim().parse::<u64>().ok()?;
    let stat = read(&group.join("memory.stat")).ok()?;
    let inactive = stat.lines().find_map(|line| line.strip_prefix(inactive));
    let inactive = inactive.and_then(|number| number.trim().parse().ok());
    Some(used.saturating_sub(inactive.unwrap_or_default()))
}

impl Controller for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn apply_v1(&self, group: &Path, limits: &Limits) -> Result<(), CgroupError> {
        match limits.memory {
            Some(bytes) => write(&group.join("memory.limit_in_bytes"), &bytes.to_string()),
            None => Ok(()),
        }
    }

    fn apply_v2(&self, group: &Path, limits: &Limits) -> Result<(), CgroupError> {
        match limits.memory {
            Some(-1) => write(&group.join("memory.max"), "max"),
            Some(bytes) => write(&group.join("memory.max"), &bytes.to_string()),
            None => Ok(()),
        }
    }

    fn read_v1(&self, group: &Path, limits: &mut Limits) -> Result<(), CgroupError> {
        let bytes = read_number(&group.join("memory.limit_in_bytes"))?;
        limits.memory = Some(if bytes >= UNLIMITED { -1 } else { bytes });
        Ok(())
    }

    fn read_v2(&self, group: &Path, limits: &mut Limits) -> Result<(), CgroupError> {
        limits.memory = Some(read_number(&group.join("memory.max"))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_nobody_touches_do_not_count() {
        let group = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(group.path().join(name), text).unwrap();
        assert_eq!(working_set(group.path(), true), None);
        file("memory.current", "100\n");
        file("memory.usage_in_bytes", "200\n");
        file("memory.stat", "inactive_file 30\ntotal_inactive_file 40\n");
        assert_eq!(working_set(group.path(), true), Some(70));
        assert_eq!(working_set(group.path(), false), Some(160));
        file("memory.stat", "inactive_file 130\n");
        assert_eq!(working_set(group.path(), true), Some(0));
    }
}
