//! Control groups: one for all pods, one per quality of service, one per pod. Version 2 and the
//! hierarchies of version 1, told apart by what is mounted; one controller per file. Who makes them
//! is [`Driver`]'s to know; whoever it is, [`Hierarchy`] reads what they have and use.
//!
//! Containers' own groups are the runtime's business; only their parents are made here.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

mod cpu;
mod cpuset;
mod driver;
mod hugetlb;
mod memory;
mod names;
mod pids;
mod pods;
mod reserved;
mod systemd;
mod usage;

use crate::systemd::SystemdError;

pub use driver::Driver;
pub use names::{CgroupName, Style};
pub use pods::{PodCgroups, PodLimits};
pub use reserved::Reserved;
pub use systemd::Slices;
pub use usage::{CpuUsage, DeviceIo, GroupUsage, MemoryUsage, Pressure, Waited};

/// Why a control group is not as it should be.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// One of its files could not be read or written.
    #[error("cgroup {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{unit}: {source}")]
    Unit {
        unit: String,
        source: Box<SystemdError>,
    },
}

impl CgroupError {
    /// A limit of memory (bytes) that is less than what is used.
    fn in_use(group: &str, limit: i64, used: u64) -> Self {
        let why = format!("unable to set memory limit to {limit} (current usage: {used})");
        Self::File {
            path: group.into(),
            source: io::Error::other(why),
        }
    }
}

/// Why the mounted cgroups cannot be used.
#[derive(Debug, Error)]
pub enum MountError {
    #[error("cannot read the mount table: {0}")]
    Table(io::Error),
    #[error("no cgroups are mounted: mount cgroup2 on /sys/fs/cgroup")]
    None,
    #[error("cgroup version 1 lacks the controllers {0:?}")]
    Missing(Vec<&'static str>),
}

/// Limits of one group. What is `None` is left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// In the terms of version 1: 2 to 262144.
    pub cpu_shares: Option<i64>,
    /// Microseconds of CPU per period, and the period; a quota of -1 is none.
    pub cpu_quota: Option<(i64, i64)>,
    /// Bytes; -1 is none.
    pub memory: Option<i64>,
    /// Processes; -1 is none.
    pub pids: Option<i64>,
}

/// One kind of resource: how its limits are written in either version.
trait Controller {
    /// As in `cgroup.controllers` and in version 1's mount options.
    fn name(&self) -> &'static str;
    /// Prepares a new group of version 1 below `parent`, where the kernel does not inherit.
    fn prepare_v1(&self, _parent: &Path, _group: &Path) -> Result<(), CgroupError> {
        Ok(())
    }
    fn apply_v1(&self, group: &Path, limits: &Limits) -> Result<(), CgroupError>;
    fn apply_v2(&self, group: &Path, limits: &Limits) -> Result<(), CgroupError>;
    /// Reads the group's limits into `limits`, as far as anyone asks for them.
    fn read_v1(&self, _group: &Path, _limits: &mut Limits) -> Result<(), CgroupError> {
        Ok(())
    }
    fn read_v2(&self, _group: &Path, _limits: &mut Limits) -> Result<(), CgroupError> {
        Ok(())
    }
}

const CONTROLLERS: [&dyn Controller; 5] = [
    &cpuset::Cpuset,
    &cpu::Cpu,
    &memory::Memory,
    &pids::Pids,
    &hugetlb::Hugetlb,
];

/// The mounted hierarchies.
#[derive(Debug, Clone)]
pub enum Hierarchy {
    /// Every mount point of version 1 with the controllers on it, and that of an empty version 2
    /// beside them, where runtimes make groups too.
    V1 {
        mounts: Vec<(PathBuf, BTreeSet<String>)>,
        unified: Option<PathBuf>,
    },
    V2 {
        root: PathBuf,
    },
}

impl Hierarchy {
    /// Looks at what is mounted in this process' namespace.
    ///
    /// # Errors
    /// When neither version is mounted in a usable way.
    pub fn detect() -> Result<Self, MountError> {
        Self::from_mount_table(&fs::read_to_string("/proc/self/mounts").map_err(MountError::Table)?)
    }

    fn from_mount_table(table: &str) -> Result<Self, MountError> {
        let mut mounts: Vec<(PathBuf, BTreeSet<String>)> = Vec::new();
        let mut unified: Option<PathBuf> = None;
        for line in table.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, path, kind, options, ..] = fields[..] else {
                continue;
            };
            match kind {
                "cgroup2" => unified = unified.or_else(|| Some(path.into())),
                "cgroup" => {
                    let controllers: BTreeSet<String> =
                        options.split(',').map(str::to_owned).collect();
                    // A hierarchy mounted twice is the same hierarchy.
                    if !mounts.iter().any(|(_, known)| *known == controllers) {
                        mounts.push((path.into(), controllers));
                    }
                }
                _ => {}
            }
        }
        if mounts
            .iter()
            .all(|(_, options)| options.iter().any(|option| option.starts_with("name=")))
        {
            return unified
                .map(|root| Self::V2 { root })
                .ok_or(MountError::None);
        }
        let has = |name: &str| mounts.iter().any(|(_, options)| options.contains(name));
        let missing: Vec<_> = ["cpu", "cpuset", "memory"]
            .into_iter()
            .filter(|name| !has(name))
            .collect();
        if missing.is_empty() {
            Ok(Self::V1 { mounts, unified })
        } else {
            Err(MountError::Missing(missing))
        }
    }

    pub fn is_v2(&self) -> bool {
        matches!(self, Self::V2 { .. })
    }

    /// Every directory that a group has or may have.
    fn directories(&self, group: &str) -> Vec<PathBuf> {
        let below = |root: &Path| root.join(group.trim_start_matches('/'));
        match self {
            Self::V2 { root } => vec![below(root)],
            Self::V1 { mounts, unified } => mounts
                .iter()
                .map(|(path, _)| path)
                .chain(unified)
                .map(|path| below(path))
                .collect(),
        }
    }

    /// The directory of one controller.
    fn directory(&self, controller: &str, group: &str) -> Option<PathBuf> {
        let root = match self {
            Self::V2 { root } => root,
            Self::V1 { mounts, .. } => {
                &mounts
                    .iter()
                    .find(|(_, options)| options.contains(controller))?
                    .0
            }
        };
        Some(root.join(group.trim_start_matches('/')))
    }

    /// Whether the group exists wherever limits are written.
    pub fn exists(&self, group: &str) -> bool {
        ["cpu", "memory"].iter().all(|name| {
            self.directory(name, group)
                .is_some_and(|path| path.is_dir())
        })
    }

    /// Makes the group and its parents where they are missing, and applies the limits.
    ///
    /// # Errors
    /// When a directory cannot be made or a limit is refused.
    pub fn ensure(&self, group: &str, limits: &Limits) -> Result<(), CgroupError> {
        match self {
            Self::V2 { root } => make_v2(root, group)?,
            Self::V1 { mounts, .. } => {
                for controller in CONTROLLERS {
                    let mount = mounts
                        .iter()
                        .find(|(_, options)| options.contains(controller.name()));
                    if let Some((root, _)) = mount {
                        make_v1(root, group, controller)?;
                    }
                }
            }
        }
        self.update(group, limits)
    }

    /// Applies limits to a group that exists.
    ///
    /// # Errors
    /// When a limit is refused.
    pub fn update(&self, group: &str, limits: &Limits) -> Result<(), CgroupError> {
        for controller in CONTROLLERS {
            let Some(path) = self.directory(controller.name(), group) else {
                continue;
            };
            match self {
                Self::V1 { .. } => controller.apply_v1(&path, limits)?,
                Self::V2 { .. } => controller.apply_v2(&path, limits)?,
            }
        }
        Ok(())
    }

    /// The limits that a group has: of CPU and memory.
    ///
    /// # Errors
    /// When the group is not there.
    pub fn limits(&self, group: &str) -> Result<Limits, CgroupError> {
        let mut limits = Limits::default();
        for controller in CONTROLLERS {
            let Some(path) = self.directory(controller.name(), group) else {
                continue;
            };
            match self {
                Self::V1 { .. } => controller.read_v1(&path, &mut limits)?,
                Self::V2 { .. } => controller.read_v2(&path, &mut limits)?,
            }
        }
        Ok(limits)
    }

    /// Bytes of memory that a group uses; `None` where that cannot be told.
    pub fn memory_usage(&self, group: &str) -> Option<u64> {
        let file = if self.is_v2() {
            "memory.current"
        } else {
            "memory.usage_in_bytes"
        };
        let path = self.directory("memory", group)?.join(file);
        read(&path).ok()?.trim().parse().ok()
    }

    /// Bytes of a group's working set: what it uses but for the files that nobody has touched for
    /// long. `None` where that cannot be told.
    pub fn working_set(&self, group: &str) -> Option<u64> {
        let directory = self.directory("memory", group)?;
        memory::working_set(&directory, self.is_v2())
    }

    /// Bytes of memory that a group may have; `None` where it has no limit.
    pub fn memory_limit(&self, group: &str) -> Option<u64> {
        let directory = self.directory("memory", group)?;
        let mut limits = Limits::default();
        let read = match self {
            Self::V1 { .. } => memory::Memory.read_v1(&directory, &mut limits),
            Self::V2 { .. } => memory::Memory.read_v2(&directory, &mut limits),
        };
        read.ok()?;
        // Without a limit it is negative.
        u64::try_from(limits.memory?).ok()
    }

    /// The machine's memory, and the working set of everything on it, in bytes.
    pub fn node_memory(&self) -> Option<(u64, u64)> {
        let meminfo = crate::sys::node::MemInfo::read();
        let own = self.working_set("/");
        // The root of version 2 has no number of its own.
        let used = own.unwrap_or_else(|| meminfo.used.saturating_sub(meminfo.inactive_files));
        (meminfo.total > 0).then_some((meminfo.total, used))
    }

    /// Processes in the group and below it.
    pub fn processes(&self, group: &str) -> Vec<i32> {
        let mut pids = BTreeSet::new();
        for directory in self.directories(group) {
            walk(&directory, &mut |path| {
                let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
                pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            });
        }
        pids.into_iter().collect()
    }

    /// Removes the group and what is below it, in every hierarchy.
    ///
    /// # Errors
    /// When a group still holds processes.
    pub fn remove(&self, group: &str) -> Result<(), CgroupError> {
        for directory in self.directories(group) {
            let mut result = Ok(());
            walk(&directory, &mut |path| {
                if let Err(source) = fs::remove_dir(path)
                    && source.kind() != io::ErrorKind::NotFound
                {
                    result = Err(CgroupError::File {
                        path: path.to_owned(),
                        source,
                    });
                }
            });
            result?;
        }
        Ok(())
    }

    /// Names of the groups right below `group`.
    pub fn children(&self, group: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for directory in self.directories(group) {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let directories =
                entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            names.extend(directories.filter_map(|entry| entry.file_name().into_string().ok()));
        }
        names
    }
}

/// Calls `visit` on every directory of a tree, the deepest first.
fn walk(directory: &Path, visit: &mut dyn FnMut(&Path)) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        walk(&entry.path(), visit);
    }
    if directory.is_dir() {
        visit(directory);
    }
}

fn make_v1(root: &Path, group: &str, controller: &dyn Controller) -> Result<(), CgroupError> {
    let mut parent = root.to_owned();
    for part in group.split('/').filter(|part| !part.is_empty()) {
        let path = parent.join(part);
        make_directory(&path)?;
        // Done for groups that exist too: one may have died between the two steps.
        controller.prepare_v1(&parent, &path)?;
        parent = path;
    }
    Ok(())
}

fn make_v2(root: &Path, group: &str) -> Result<(), CgroupError> {
    let mut parent = root.to_owned();
    for part in group.split('/').filter(|part| !part.is_empty()) {
        // A controller works in a group only when its parent hands it down.
        let available = read(&parent.join("cgroup.controllers"))?;
        let handed_down = read(&parent.join("cgroup.subtree_control")).unwrap_or_default();
        for controller in CONTROLLERS.map(Controller::name) {
            let has = |text: &str| text.split_whitespace().any(|name| name == controller);
            if has(&available) && !has(&handed_down) {
                write(
                    &parent.join("cgroup.subtree_control"),
                    &format!("+{controller}"),
                )?;
            }
        }
        parent = parent.join(part);
        make_directory(&parent)?;
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(CgroupError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::File {
        path: path.to_owned(),
        source,
    })
}

/// A file that holds one number; the word `max` is -1.
fn read_number(path: &Path) -> Result<i64, CgroupError> {
    let text = read(path)?;
    let number = match text.trim() {
        "max" => Ok(-1),
        // What does not fit is as good as no limit.
        text => text
            .parse::<i64>()
            .or_else(|error| text.parse::<u64>().map(|_| -1).map_err(|_| error)),
    };
    number.map_err(|error| CgroupError::File {
        path: path.to_owned(),
        source: io::Error::other(error),
    })
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(|source| CgroupError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert!(Hierarchy::from_mount_table(v2).unwrap().is_v2());
        let hybrid = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup /elsewhere/memory cgroup rw,memory 0 0
";
        let hierarchy = Hierarchy::from_mount_table(hybrid).unwrap();
        assert!(!hierarchy.is_v2());
        assert_eq!(
            hierarchy.directory("memory", "/a/b").unwrap(),
            Path::new("/sys/fs/cgroup/memory/a/b")
        );
        assert_eq!(
            hierarchy.directory("cpu", "/a").unwrap(),
            Path::new("/sys/fs/cgroup/cpu,cpuacct/a")
        );
        assert_eq!(hierarchy.directories("/a").len(), 5);
        assert!(matches!(
            Hierarchy::from_mount_table("tmpfs / tmpfs rw 0 0\n"),
            Err(MountError::None)
        ));
    }

    #[test]
    fn what_a_group_uses() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::V2 {
            root: root.path().to_owned(),
        };
        fs::create_dir(root.path().join("a")).unwrap();
        let file = |name: &str, text: &str| fs::write(root.path().join("a").join(name), text);
        for (name, text) in [
            ("memory.max", "max\n"),
            ("memory.current", "5000\n"),
            ("memory.stat", "anon 1\ninactive_file 1000\n"),
            ("cgroup.procs", "1\n2\n"),
        ] {
            file(name, text).unwrap();
        }
        assert_eq!(hierarchy.memory_limit("/a"), None);
        file("memory.max", "8000\n").unwrap();
        assert_eq!(hierarchy.memory_limit("/a"), Some(8000));
        assert_eq!(hierarchy.working_set("/a"), Some(4000));
        assert_eq!(hierarchy.processes("/a"), [1, 2]);
        let (total, used) = hierarchy.node_memory().unwrap();
        assert!(used > 0 && used < total);
    }

    #[test]
    fn a_v2_group_is_made_limited_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::V2 {
            root: root.path().to_owned(),
        };
        fs::write(root.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/cgroup.controllers"), "").unwrap();
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota: Some((50_000, 100_000)),
            memory: Some(1 << 20),
            pids: Some(-1),
        };
        hierarchy.ensure("/a/b", &limits).unwrap();
        let file = |name: &str| fs::read_to_string(root.path().join("a/b").join(name)).unwrap();
        assert_eq!(file("cpu.weight"), "100");
        assert_eq!(file("cpu.max"), "50000 100000");
        assert_eq!(file("memory.max"), "1048576");
        assert_eq!(file("pids.max"), "max");
        assert_eq!(
            fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap(),
            "+pids"
        );
        assert!(hierarchy.exists("/a/b"));
        let read = hierarchy.limits("/a/b").unwrap();
        assert_eq!(
            (read.cpu_quota, read.memory),
            (limits.cpu_quota, limits.memory)
        );
        fs::write(root.path().join("a/b/cpu.max"), "max 100000\n").unwrap();
        let read = hierarchy.limits("/a/b").unwrap();
        assert_eq!(read.cpu_quota, Some((-1, 100_000)));
        assert_eq!(hierarchy.children("/a"), BTreeSet::from(["b".to_owned()]));
    }

    #[test]
    fn a_v1_group_inherits_its_cpus() {
        let root = tempfile::tempdir().unwrap();
        let mounts: Vec<_> = ["cpu", "cpuset", "memory", "pids"]
            .map(|name| (root.path().join(name), BTreeSet::from([name.to_owned()])))
            .into();
        for (path, _) in &mounts {
            fs::create_dir(path).unwrap();
        }
        fs::write(root.path().join("cpuset/cpuset.cpus"), "0-3\n").unwrap();
        fs::write(root.path().join("cpuset/cpuset.mems"), "0\n").unwrap();
        let hierarchy = Hierarchy::V1 {
            mounts,
            unified: None,
        };
        let limits = Limits {
            cpu_shares: Some(2),
            cpu_quota: Some((-1, 100_000)),
            memory: Some(4096),
            pids: Some(7),
        };
        hierarchy.ensure("/k/p", &limits).unwrap();
        let file = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(file("cpuset/k/p/cpuset.cpus"), "0-3");
        assert_eq!(file("cpuset/k/p/cpuset.mems"), "0");
        assert_eq!(file("cpu/k/p/cpu.shares"), "2");
        assert_eq!(file("cpu/k/p/cpu.cfs_quota_us"), "-1");
        assert_eq!(file("memory/k/p/memory.limit_in_bytes"), "4096");
        assert_eq!(file("pids/k/p/pids.max"), "7");
        let read = hierarchy.limits("/k/p").unwrap();
        assert_eq!(
            read,
            Limits {
                pids: None,
                ..limits
            }
        );
        let limit = root.path().join("memory/k/p/memory.limit_in_bytes");
        fs::write(limit, "9223372036854771712\n").unwrap();
        assert_eq!(hierarchy.limits("/k/p").unwrap().memory, Some(-1));
        assert!(hierarchy.limits("/k/none").is_err());
    }

    #[test]
    fn a_tree_goes_deepest_first() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::V2 {
            root: root.path().to_owned(),
        };
        fs::create_dir_all(root.path().join("p/c/d")).unwrap();
        hierarchy.remove("/p").unwrap();
        assert!(!root.path().join("p").exists());
        hierarchy.remove("/p").unwrap();
    }
}
