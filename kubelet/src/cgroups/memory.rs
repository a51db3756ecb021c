//! Memory.

use std::path::Path;

use super::{CgroupError, Controller, Limits, read_number, write};

pub(super) struct Memory;

/// Version 1's way to say that there is no limit: as many pages as can be counted.
const UNLIMITED: i64 = i64::MAX / 65_536 * 65_536;

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
