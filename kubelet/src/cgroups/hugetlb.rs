//! Huge pages. Pods' groups are left unlimited: the runtime limits each container.

use std::path::Path;

use super::{CgroupError, Controller, Limits};

pub(super) struct Hugetlb;

impl Controller for Hugetlb {
    fn name(&self) -> &'static str {
        "hugetlb"
    }

    fn apply_v1(&self, _group: &Path, _limits: &Limits) -> Result<(), CgroupError> {
        Ok(())
    }

    fn apply_v2(&self, _group: &Path, _limits: &Limits) -> Result<(), CgroupError> {
        Ok(())
    }
}
