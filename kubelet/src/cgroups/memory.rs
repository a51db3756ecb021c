//! Memory.

use std::path::Path;

use super::{CgroupError, Controller, Limits, write};

pub(super) struct Memory;

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
}
