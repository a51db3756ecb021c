//! What groups are called. The names are upstream's: another kubelet must find the pods' groups
//! where it would have made them.

use crate::resources::qos::QosClass;

/// How the parts of a name become a path, which depends on who makes the groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A directory for each part.
    Plain,
    /// A slice for each part. A slice's name says where it lies: that of `a/b` is `a-b.slice`, so
    /// that a `-` in a part has to be written otherwise.
    Slices,
}

/// What slices' names end with.
pub(super) const SLICE: &str = ".slice";

impl Style {
    /// The path of a group below the hierarchies' roots. That of all groups is empty.
    fn path(self, parts: &[&str]) -> String {
        let mut path = String::new();
        let mut slice = String::new();
        for part in parts {
            path.push('/');
            match self {
                Self::Plain => path.push_str(part),
                Self::Slices => {
                    if !slice.is_empty() {
                        slice.push('-');
                    }
                    slice.push_str(&part.replace('-', "_"));
                    path.push_str(&slice);
                    path.push_str(SLICE);
                }
            }
        }
        path
    }

    /// The last part of a group's name, of the last part of its path.
    fn last_part(self, directory: &str) -> Option<String> {
        match self {
            Self::Plain => Some(directory.to_owned()),
            Self::Slices => {
                let slice = directory.strip_suffix(SLICE)?;
                Some(slice.rsplit('-').next()?.replace('_', "-"))
            }
        }
    }
}

/// Where the groups of pods lie, as a path below the hierarchies' roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupName {
    style: Style,
    /// The parts of the name of the group of all pods.
    root: Vec<String>,
    path: String,
}

impl CgroupName {
    /// `cgroup_root` is `cgroupRoot`, its parts as [`Style::Plain`] has them; with `cgroupsPerQOS`
    /// pods get a group `kubepods` below it.
    pub fn new(cgroup_root: &str, per_qos: bool, style: Style) -> Self {
        let root = cgroup_root.split('/').filter(|part| !part.is_empty());
        let root = root.chain(per_qos.then_some("kubepods"));
        let root: Vec<&str> = root.collect();
        Self {
            style,
            path: style.path(&root),
            root: root.into_iter().map(str::to_owned).collect(),
        }
    }

    /// The group of all pods.
    pub fn all(&self) -> &str {
        &self.path
    }

    /// The group of all pods of a class. Guaranteed pods lie right below all.
    pub fn class(&self, class: QosClass) -> String {
        self.below(class, None)
    }

    pub fn pod(&self, class: QosClass, uid: &str) -> String {
        self.below(class, Some(&format!("pod{uid}")))
    }

    fn below(&self, class: QosClass, part: Option<&str>) -> String {
        let class = match class {
            QosClass::Guaranteed => None,
            QosClass::Burstable => Some("burstable"),
            QosClass::BestEffort => Some("besteffort"),
        };
        let parts = self.root.iter().map(String::as_str);
        let parts: Vec<&str> = parts.chain(class).chain(part).collect();
        self.style.path(&parts)
    }

    /// The uid of the pod whose group has this directory.
    pub fn uid(&self, directory: &str) -> Option<String> {
        let part = self.style.last_part(directory)?;
        Some(part.strip_prefix("pod")?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let names = CgroupName::new("/rig/node1", true, Style::Plain);
        assert_eq!(
            names.pod(QosClass::Guaranteed, "u-1"),
            "/rig/node1/kubepods/podu-1"
        );
        assert_eq!(
            names.pod(QosClass::BestEffort, "u-1"),
            "/rig/node1/kubepods/besteffort/podu-1"
        );
        assert_eq!(CgroupName::new("", true, Style::Plain).all(), "/kubepods");
        assert_eq!(CgroupName::new("/", false, Style::Plain).all(), "");
        assert_eq!(names.uid("podu-1").as_deref(), Some("u-1"));
        assert_eq!(names.uid("burstable"), None);
    }

    #[test]
    fn names_of_slices() {
        let names = CgroupName::new("", true, Style::Slices);
        assert_eq!(names.all(), "/kubepods.slice");
        assert_eq!(
            names.class(QosClass::BestEffort),
            "/kubepods.slice/kubepods-besteffort.slice"
        );
        assert_eq!(names.class(QosClass::Guaranteed), names.all());
        assert_eq!(
            names.pod(QosClass::Burstable, "12-ab-3"),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_ab_3.slice"
        );
        assert_eq!(
            names.pod(QosClass::Guaranteed, "12-ab"),
            "/kubepods.slice/kubepods-pod12_ab.slice"
        );
        let uid = |directory| names.uid(directory);
        let pod = uid("kubepods-burstable-pod12_ab_3.slice");
        assert_eq!(pod.as_deref(), Some("12-ab-3"));
        assert_eq!(uid("kubepods-pod12_ab.slice").as_deref(), Some("12-ab"));
        assert_eq!(uid("kubepods-burstable.slice"), None);
        assert_eq!(uid("cri-containerd-12.scope"), None);
        let rooted = CgroupName::new("/rig/my-node", true, Style::Slices);
        assert_eq!(
            rooted.all(),
            "/rig.slice/rig-my_node.slice/rig-my_node-kubepods.slice"
        );
        assert_eq!(CgroupName::new("/", false, Style::Slices).all(), "");
    }
}
