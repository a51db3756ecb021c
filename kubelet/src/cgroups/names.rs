//! What groups are called. The names are upstream's: another kubelet must find the pods' groups
//! where it would have made them.

use crate::resources::qos::QosClass;

/// Where the groups of pods lie, as a path below the hierarchies' roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupName {
    root: String,
}

impl CgroupName {
    /// `cgroup_root` is `cgroupRoot`; with `cgroupsPerQOS` pods get a group `kubepods` below it.
    pub fn new(cgroup_root: &str, per_qos: bool) -> Self {
        let root = cgroup_root.trim_matches('/');
        let root = if root.is_empty() {
            String::new()
        } else {
            format!("/{root}")
        };
        Self {
            root: if per_qos {
                format!("{root}/kubepods")
            } else {
                root
            },
        }
    }

    /// The group of all pods.
    pub fn all(&self) -> &str {
        &self.root
    }

    /// The group of all pods of a class. Guaranteed pods lie right below all.
    pub fn class(&self, class: QosClass) -> String {
        match class {
            QosClass::Guaranteed => self.root.clone(),
            QosClass::Burstable => format!("{}/burstable", self.root),
            QosClass::BestEffort => format!("{}/besteffort", self.root),
        }
    }

    pub fn pod(&self, class: QosClass, uid: &str) -> String {
        format!("{}/pod{uid}", self.class(class))
    }

    /// The uid in a pod group's last name.
    pub fn uid(name: &str) -> Option<&str> {
        name.strip_prefix("pod")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let names = CgroupName::new("/rig/node1", true);
        assert_eq!(
            names.pod(QosClass::Guaranteed, "u-1"),
            "/rig/node1/kubepods/podu-1"
        );
        assert_eq!(
            names.pod(QosClass::BestEffort, "u-1"),
            "/rig/node1/kubepods/besteffort/podu-1"
        );
        assert_eq!(CgroupName::new("", true).all(), "/kubepods");
        assert_eq!(CgroupName::new("/", false).all(), "");
        assert_eq!(
            (CgroupName::uid("podu-1"), CgroupName::uid("burstable")),
            (Some("u-1"), None)
        );
    }
}
