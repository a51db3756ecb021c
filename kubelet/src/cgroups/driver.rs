//! Who makes groups, limits and removes them: we ourselves by the kernel's files, or systemd, where
//! all groups are its own and a second one who makes some would be in its way.
//!
//! Either way the files tell what a group has and uses; that is [`Hierarchy`]'s.

use super::systemd::Slices;
use super::{CgroupError, Hierarchy, Limits, Style};

/// `cgroupDriver`.
#[derive(Debug, Clone)]
pub enum Driver {
    Cgroupfs,
    Systemd(Slices),
}

impl Driver {
    /// How groups are called.
    pub fn style(&self) -> Style {
        match self {
            Self::Cgroupfs => Style::Plain,
            Self::Systemd(_) => Style::Slices,
        }
    }

    /// Makes the group and its parents where they are missing, and applies the limits.
    ///
    /// # Errors
    /// When it cannot be made or a limit is refused.
    pub async fn ensure(
        &self,
        hierarchy: &Hierarchy,
        group: &str,
        limits: &Limits,
    ) -> Result<(), CgroupError> {
        match self {
            Self::Cgroupfs => hierarchy.ensure(group, limits),
            Self::Systemd(slices) => slices.ensure(hierarchy, group, limits).await,
        }
    }

    /// Applies limits to a group that exists.
    ///
    /// # Errors
    /// When a limit is refused.
    pub async fn update(
        &self,
        hierarchy: &Hierarchy,
        group: &str,
        limits: &Limits,
    ) -> Result<(), CgroupError> {
        match self {
            Self::Cgroupfs => hierarchy.update(group, limits),
            Self::Systemd(slices) => slices.update(hierarchy, group, limits).await,
        }
    }

    /// Removes the group and what is below it, in every hierarchy.
    ///
    /// # Errors
    /// When a group still holds processes.
    pub async fn remove(&self, hierarchy: &Hierarchy, group: &str) -> Result<(), CgroupError> {
        match self {
            Self::Cgroupfs => hierarchy.remove(group),
            Self::Systemd(slices) => slices.remove(hierarchy, group).await,
        }
    }
}
