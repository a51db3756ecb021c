//! Number of processes. Both versions use the same file.

use std::path::Path;

use super::{CgroupError, Controller, Limits, write};

pub(super) struct Pids;

impl Controller for Pids {
    fn name(&self) -> &'static str {
        "pids"
    }

    fn apply_v1(&self, group: &Path, limits: &Limits) -> Result<(), CgroupError> {
        match limits.pids {
            Some(-1) => write(&group.join("pids.max"), "max"),
            Some(count) => write(&group.join("pids.max"), &count.to_string()),
            None => Ok(()),
        }
    }

    fn apply_v2(&self, group: &Path, limits: &Limits) -> Result<(), CgroupError> {
        self.apply_v1(group, limits)
    }
}
