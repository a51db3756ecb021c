//! CPUs and memory nodes. Nothing is limited here; a group of version 1 starts with none of
//! either, and could hold no process.

use std::path::Path;

use super::{CgroupError, Controller, Limits, read, write};

pub(super) struct Cpuset;

impl Controller for Cpuset {
    fn name(&self) -> &'static str {
        "cpuset"
    }

    fn prepare_v1(&self, parent: &Path, group: &Path) -> Result<(), CgroupError> {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if read(&group.join(file))
                .unwrap_or_default()
                .trim()
                .is_empty()
            {
                write(&group.join(file), read(&parent.join(file))?.trim())?;
            }
        }
        Ok(())
    }

    fn apply_v1(&self, _group: &Path, _limits: &Limits) -> Result<(), CgroupError> {
        Ok(())
    }

    fn apply_v2(&self, _group: &Path, _limits: &Limits) -> Result<(), CgroupError> {
        Ok(())
    }
}
