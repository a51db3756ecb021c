//! A group in every cgroup hierarchy, for a kubelet's pods; gone when dropped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub struct Groups(Vec<PathBuf>);

impl Groups {
    /// Makes one of this name in each hierarchy that is mounted.
    pub fn make(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let hierarchies = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (at, kind) = (words.next()?, words.next()?);
            kind.starts_with("cgroup").then(|| PathBuf::from(at))
        });
        let mut groups = Self(Vec::new());
        for hierarchy in hierarchies {
            let group = hierarchy.join(name);
            fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
            // No process can be in a group of version 1 that has no processors.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if group.join(file).exists() && hierarchy.join(file).exists() {
                    fs::write(group.join(file), fs::read(hierarchy.join(file))?)?;
                }
            }
            groups.0.push(group);
        }
        Ok(groups)
    }
}

/// Removes a group and those below; who is not empty yet stays.
fn remove(group: &Path) {
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove(&entry.path());
    }
    let _ = fs::remove_dir(group);
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.0.iter().for_each(|group| remove(group));
    }
}
