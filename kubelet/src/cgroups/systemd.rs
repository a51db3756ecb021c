//! Groups that systemd makes: each is a slice, its limits are the slice's properties.
//!
//! What systemd does not know of, version 1's controllers that it does not join among them, is
//! written to the kernel's files as well, as upstream does; and so are the limits themselves: a
//! property that says what it said before changes nothing, even if the file was changed meanwhile.

use std::path::Path;

use tracing::warn;

use super::cpu::weight;
use super::{CgroupError, Hierarchy, Limits};
use crate::systemd::{Property, SystemdError, Units};

/// systemd's first version that can be told the period of a quota.
const KNOWS_PERIODS: u32 = 242;
/// The kernel's period of quotas, in microseconds, which systemd takes where it is told none.
const PERIOD: i64 = 100_000;
/// systemd counts quotas in hundredths of a CPU: so many microseconds of each second.
const GRAIN: u64 = 10_000;

/// The slices of one systemd.
#[derive(Debug, Clone)]
pub struct Slices {
    units: Units,
    /// systemd's version.
    version: u32,
}

impl Slices {
    /// # Errors
    /// When systemd does not answer.
    pub async fn new(units: Units) -> Result<Self, SystemdError> {
        let version = units.version().await?;
        Ok(Self { units, version })
    }

    pub(super) async fn ensure(
        &self,
        hierarchy: &Hierarchy,
        group: &str,
        limits: &Limits,
    ) -> Result<(), CgroupError> {
        let Some((parent, unit)) = names(group) else {
            return hierarchy.update(group, limits);
        };
        let started = self
            .units
            .start(unit, created(unit, parent, hierarchy.is_v2()));
        started.await.map_err(|error| failed(unit, error))?;
        let limits = self.set(hierarchy, unit, limits).await?;
        hierarchy.ensure(group, &limits)
    }

    pub(super) async fn update(
        &self,
        hierarchy: &Hierarchy,
        group: &str,
        limits: &Limits,
    ) -> Result<(), CgroupError> {
        let Some((_, unit)) = names(group) else {
            return hierarchy.update(group, limits);
        };
        let limits = self.set(hierarchy, unit, limits).await?;
        hierarchy.update(group, &limits)
    }

    /// Sets the properties of a slice, and returns the limits that it has then.
    async fn set(
        &self,
        hierarchy: &Hierarchy,
        unit: &str,
        limits: &Limits,
    ) -> Result<Limits, CgroupError> {
        let limits = Limits {
            cpu_quota: limits.cpu_quota.map(rounded),
            ..limits.clone()
        };
        let properties = limited(&limits, hierarchy.is_v2(), self.version >= KNOWS_PERIODS);
        if !properties.is_empty() {
            let set = self.units.set(unit, properties).await;
            set.map_err(|error| failed(unit, error))?;
        }
        Ok(limits)
    }

    pub(super) async fn remove(
        &self,
        hierarchy: &Hierarchy,
        group: &str,
    ) -> Result<(), CgroupError> {
        if let Some((_, unit)) = names(group)
            && let Err(error) = self.units.stop(unit).await
        {
            // Its directories go all the same, or say why they cannot.
            warn!(unit, %error, "systemd does not remove a slice");
        }
        hierarchy.remove(group)
    }
}

fn failed(unit: &str, source: SystemdError) -> CgroupError {
    CgroupError::Unit {
        unit: unit.to_owned(),
        source: source.into(),
    }
}

/// The slices of a group and of its parent; none for the root, which is nobody's to limit.
fn names(group: &str) -> Option<(&str, &str)> {
    let name = |path: &Path| -> Option<_> { group.get(group.len() - path.file_name()?.len()..) };
    let path = Path::new(group);
    let unit = name(path)?;
    let parent = path
        .parent()
        .and_then(|parent| parent.file_name()?.to_str());
    Some((parent.unwrap_or("-.slice"), unit))
}

/// The properties that a new slice is made with: everything below it is counted from the start.
fn created(unit: &str, parent: &str, v2: bool) -> Vec<Property> {
    let io = if v2 {
        "IOAccounting"
    } else {
        "BlockIOAccounting"
    };
    let mut properties = vec![
        ("Description", format!("Kubernetes pods: {unit}").into()),
        // Its name says where a slice lies. Wanting the parent has that one started too.
        ("Wants", vec![parent.to_owned()].into()),
    ];
    for counted in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        properties.push((counted, true.into()));
    }
    // It must not be stopped, nor started, because of what the system as a whole is up to.
    properties.push(("DefaultDependencies", false.into()));
    properties
}

/// A quota as systemd can have it: no less than what was asked for, so that each container gets
/// what its own quota says.
fn rounded((quota, period): (i64, i64)) -> (i64, i64) {
    match per_second(quota, period) {
        Some(per_second) => {
            let quota = i128::from(per_second) * i128::from(period) / 1_000_000;
            (i64::try_from(quota).unwrap_or(-1), period)
        }
        None => (quota, period),
    }
}

/// Microseconds of CPU in each second, rounded up to what systemd can have; `None` for no limit.
fn per_second(quota: i64, period: i64) -> Option<u64> {
    let quota = u64::try_from(quota).ok().filter(|quota| *quota > 0)?;
    let period = if period > 0 { period } else { PERIOD };
    let exact = quota.saturating_mul(1_000_000) / period.unsigned_abs();
    Some(exact.div_ceil(GRAIN) * GRAIN)
}

/// The properties that say what the limits say. What systemd means by infinity is its largest
/// number.
fn limited(limits: &Limits, v2: bool, knows_periods: bool) -> Vec<Property> {
    let number = |amount: i64| u64::try_from(amount).unwrap_or(u64::MAX);
    let mut properties: Vec<Property> = Vec::new();
    let mut set = |name, value: u64| properties.push((name, value.into()));
    if let Some(shares) = limits.cpu_shares {
        match v2 {
            true => set("CPUWeight", number(weight(shares))),
            false => set("CPUShares", number(shares)),
        }
    }
    if let Some((quota, period)) = limits.cpu_quota {
        if knows_periods {
            set("CPUQuotaPeriodUSec", number(period));
        }
        let quota = per_second(quota, period);
        set("CPUQuotaPerSecUSec", quota.unwrap_or(u64::MAX));
    }
    if let Some(bytes) = limits.memory.filter(|bytes| *bytes != 0) {
        set(if v2 { "MemoryMax" } else { "MemoryLimit" }, number(bytes));
    }
    if let Some(count) = limits.pids {
        // None at all is nothing that systemd would take.
        set("TasksMax", number(count).max(1));
    }
    properties
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::fake::Machine;

    fn shown(properties: &[Property]) -> Vec<String> {
        let one = |(name, value): &Property| format!("{name}={}", u64::try_from(value).unwrap());
        properties.iter().map(one).collect()
    }

    #[test]
    fn where_slices_lie() {
        assert_eq!(names("/a.slice/a-b.slice"), Some(("a.slice", "a-b.slice")));
        assert_eq!(names("/a.slice"), Some(("-.slice", "a.slice")));
        assert_eq!(names(""), None);
    }

    #[test]
    fn limits_as_properties() {
        let limits = Limits {
            cpu_shares: Some(1024),
            cpu_quota: Some((50_000, 100_000)),
            memory: Some(1 << 20),
            pids: Some(0),
        };
        assert_eq!(
            shown(&limited(&limits, true, true)),
            [
                "CPUWeight=100",
                "CPUQuotaPeriodUSec=100000",
                "CPUQuotaPerSecUSec=500000",
                "MemoryMax=1048576",
                "TasksMax=1"
            ]
        );
        assert_eq!(
            shown(&limited(&limits, false, false)),
            [
                "CPUShares=1024",
                "CPUQuotaPerSecUSec=500000",
                "MemoryLimit=1048576",
                "TasksMax=1"
            ]
        );
        let none = Limits {
            cpu_shares: None,
            cpu_quota: Some((-1, 100_000)),
            memory: Some(-1),
            pids: Some(-1),
        };
        let most = u64::MAX;
        assert_eq!(
            shown(&limited(&none, true, false)),
            [
                format!("CPUQuotaPerSecUSec={most}"),
                format!("MemoryMax={most}"),
                format!("TasksMax={most}")
            ]
        );
        assert!(limited(&Limits::default(), true, true).is_empty());
    }

    #[test]
    fn quotas_are_rounded_up() {
        assert_eq!(rounded((50_000, 100_000)), (50_000, 100_000));
        // A thousandth of a CPU becomes a hundredth.
        assert_eq!(rounded((1_000, 1_000_000)), (10_000, 1_000_000));
        assert_eq!(rounded((33_300, 100_000)), (34_000, 100_000));
        assert_eq!(rounded((-1, 100_000)), (-1, 100_000));
        assert_eq!(per_second(1_000, 0), Some(10_000));
    }

    #[tokio::test]
    async fn a_slice_is_made_limited_and_removed() {
        let machine = Machine::start().await;
        let units = Units::over(&machine.connection).await.unwrap();
        let slices = Slices::new(units).await.unwrap();
        let root = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy::V2 {
            root: root.path().to_owned(),
        };
        let directory = root.path().join("a.slice/a-b.slice");
        // As systemd does, which our part of it does not.
        std::fs::create_dir_all(&directory).unwrap();
        for path in [root.path(), directory.parent().unwrap()] {
            std::fs::write(path.join("cgroup.controllers"), "cpu pids\n").unwrap();
        }
        let file = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
        let limits = Limits {
            cpu_quota: Some((1_000, 100_000)),
            pids: Some(7),
            ..Limits::default()
        };
        let group = "/a.slice/a-b.slice";
        slices.ensure(&hierarchy, group, &limits).await.unwrap();
        let told = ["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=10000"];
        let known = machine.unit("a-b.slice").unwrap();
        assert_eq!(known, [&told[..], &["TasksMax=7"]].concat());
        assert_eq!(file("cpu.max"), "1000 100000");
        assert_eq!(file("pids.max"), "7");
        let less = Limits {
            cpu_quota: Some((500, 100_000)),
            ..Limits::default()
        };
        slices.update(&hierarchy, group, &less).await.unwrap();
        // What systemd would have anyway.
        assert_eq!(file("cpu.max"), "1000 100000");
        std::fs::remove_dir_all(&directory).unwrap();
        slices.remove(&hierarchy, group).await.unwrap();
        assert_eq!(machine.unit("a-b.slice"), None);
        let gone = slices.update(&hierarchy, group, &less).await;
        assert!(matches!(gone, Err(CgroupError::Unit { .. })));
    }
}
