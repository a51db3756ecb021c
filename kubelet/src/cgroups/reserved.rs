//! Groups of what does not run in pods: the system's, and Kubernetes' own. Whoever made them is
//! told (`enforceNodeAllocatable`) to stay within what is reserved.

use meta::gofmt::Quoted;
use thiserror::Error;

use super::{CgroupError, Hierarchy, Limits};
use crate::cri::limits::cpu_shares;
use crate::resources::requests::{ResourceList, of, value};

/// Why a group is not limited.
#[derive(Debug, Error)]
pub enum ReservedError {
    #[error("cgroup {} is not configured properly", Quoted(.0))]
    Nothing(String),
    #[error("cgroup {} does not exist", Quoted(.0))]
    Missing(String),
    #[error(transparent)]
    Refused(#[from] CgroupError),
}

/// A group, and what it may use.
#[derive(Debug)]
pub struct Reserved<'a> {
    pub group: &'a str,
    pub amounts: &'a ResourceList,
    /// Only of what a group can have less of and live: CPU.
    pub compressible: bool,
}

impl Reserved<'_> {
    /// # Errors
    /// When nothing is reserved, there is no such group, or the kernel refuses.
    pub fn enforce(&self, hierarchy: &Hierarchy) -> Result<(), ReservedError> {
        if self.amounts.is_empty() {
            return Err(ReservedError::Nothing(self.group.to_owned()));
        }
        if !hierarchy.exists(self.group) {
            return Err(ReservedError::Missing(self.group.to_owned()));
        }
        Ok(hierarchy.update(self.group, &self.limits())?)
    }

    fn limits(&self) -> Limits {
        let reserved = |name: &str| self.amounts.get(name);
        let memory = reserved("memory").map(value);
        let cpu = reserved("cpu").map(|_| cpu_shares(of(Some(self.amounts), "cpu")));
        Limits {
            cpu_shares: cpu,
            memory: memory.filter(|_| !self.compressible),
            pids: reserved("pid").map(value).filter(|_| !self.compressible),
            ..Limits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    #[test]
    fn what_is_reserved_is_a_limit() {
        let amounts = [("cpu", "500m"), ("memory", "1Gi"), ("pid", "100")];
        let amounts = amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
        let amounts = ResourceList::from(amounts);
        let reserved = |compressible| Reserved {
            group: "/system",
            amounts: &amounts,
            compressible,
        };
        let all = Limits {
            cpu_shares: Some(512),
            memory: Some(1 << 30),
            pids: Some(100),
            ..Limits::default()
        };
        assert_eq!(reserved(false).limits(), all);
        let cpu = Limits {
            cpu_shares: Some(512),
            ..Limits::default()
        };
        assert_eq!(reserved(true).limits(), cpu);
    }

    #[test]
    fn groups_are_made_by_others() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::V2 {
            root: root.path().to_owned(),
        };
        let amounts = ResourceList::from([("cpu".to_owned(), Quantity("1".to_owned()))]);
        let enforce = |amounts: &ResourceList| {
            let reserved = Reserved {
                group: "/system",
                amounts,
                compressible: false,
            };
            reserved
                .enforce(&hierarchy)
                .map_err(|error| error.to_string())
        };
        let missing = "cgroup \"/system\" does not exist";
        assert_eq!(enforce(&amounts).unwrap_err(), missing);
        let nothing = "cgroup \"/system\" is not configured properly";
        assert_eq!(enforce(&ResourceList::new()).unwrap_err(), nothing);
        std::fs::create_dir(root.path().join("system")).unwrap();
        enforce(&amounts).unwrap();
        let weight = std::fs::read_to_string(root.path().join("system/cpu.weight"));
        assert_eq!(weight.unwrap().trim(), "100");
    }
}
