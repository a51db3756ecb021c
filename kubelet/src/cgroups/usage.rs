//! What a group uses, as the kernel counts it, of either version.

use std::path::Path;

use super::{Hierarchy, read, read_number};

/// Clock ticks per second in what version 1 tells of user and system time: fixed by the kernel's
/// interface.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// What is `None` is not told. Sums of a group and all below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupUsage {
    pub cpu: Option<CpuUsage>,
    pub memory: Option<MemoryUsage>,
    pub io: Vec<DeviceIo>,
    pub processes: u64,
    pub threads: u64,
    pub threads_max: Option<u64>,
    pub pressure: Pressures,
    pub shares: Option<u64>,
    /// Microseconds of CPU per period, and the period; without a quota only the latter.
    pub quota: Option<i64>,
    pub period: Option<i64>,
}

/// Nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuUsage {
    pub total: u64,
    pub user: u64,
    pub system: u64,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: u64,
}

/// Bytes, but for the counters at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    pub usage: u64,
    pub working_set: u64,
    pub max_usage: Option<u64>,
    pub limit: Option<u64>,
    pub rss: u64,
    pub cache: u64,
    pub mapped_file: u64,
    pub swap: u64,
    pub swap_limit: Option<u64>,
    pub failures: u64,
    pub oom_kills: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
}

/// One disk's part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// `major:minor`.
    pub device: String,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// How much was waited for something (PSI), where the kernel tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressures {
    pub cpu: Option<Pressure>,
    pub memory: Option<Pressure>,
    pub io: Option<Pressure>,
}

/// Of some tasks, and of all at once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    pub some: Waited,
    pub full: Waited,
}

/// Percent of the last seconds, and microseconds altogether.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Waited {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

/// The numbers of a file with one `name number` per line.
struct Table(String);

impl Table {
    fn read(path: &Path) -> Option<Self> {
        read(path).ok().map(Self)
    }

    fn get(&self, name: &str) -> u64 {
        let mut lines = self.0.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or_default()
    }
}

fn number(path: &Path) -> Option<u64> {
    u64::try_from(read_number(path).ok()?).ok()
}

/// What version 1 has as a limit where there is none: the highest page.
fn limit(path: &Path) -> Option<u64> {
    const NONE: u64 = 1 << 62;
    number(path).filter(|limit| *limit < NONE)
}

impl Hierarchy {
    /// `None` where there is no such group.
    pub fn usage(&self, group: &str) -> Option<GroupUsage> {
        let directory = |controller: &str| self.directory(controller, group);
        let memory = directory("memory")?;
        if !memory.is_dir() {
            return None;
        }
        let v2 = self.is_v2();
        let cpu = directory("cpu").unwrap_or_else(|| memory.clone());
        let pids = directory("pids");
        let processes = self.processes_in(&memory);
        let mut usage = GroupUsage {
            memory: if v2 {
                memory_v2(&memory)
            } else {
                memory_v1(&memory)
            },
            processes,
            threads: pids
                .as_deref()
                .and_then(|p| number(&p.join("pids.current")))
                .unwrap_or(processes),
            threads_max: pids.as_deref().and_then(|p| number(&p.join("pids.max"))),
            ..GroupUsage::default()
        };
        if v2 {
            usage.cpu = cpu_v2(&cpu);
            usage.io = io_v2(&memory);
            usage.pressure = Pressures {
                cpu: pressure(&memory.join("cpu.pressure")),
                memory: pressure(&memory.join("memory.pressure")),
                io: pressure(&memory.join("io.pressure")),
            };
            usage.shares = number(&cpu.join("cpu.weight")).map(shares_of_weight);
            if let Ok(max) = read(&cpu.join("cpu.max")) {
                let mut parts = max.split_whitespace().map(|part| part.parse::<i64>().ok());
                usage.quota = parts.next().flatten();
                usage.period = parts.next().flatten();
            }
        } else {
            let accounts = directory("cpuacct").unwrap_or_else(|| cpu.clone());
            usage.cpu = cpu_v1(&accounts, &cpu);
            usage.io = directory("blkio")
                .map(|path| io_v1(&path))
                .unwrap_or_default();
            usage.shares = number(&cpu.join("cpu.shares"));
            let quota = read_number(&cpu.join("cpu.cfs_quota_us")).ok();
            usage.quota = quota.filter(|quota| *quota > 0);
            usage.period = read_number(&cpu.join("cpu.cfs_period_us")).ok();
        }
        Some(usage)
    }

    /// One process of a group, if it has any.
    pub fn a_process(&self, group: &str) -> Option<i32> {
        let procs = self.directory("memory", group)?.join("cgroup.procs");
        read(&procs).ok()?.lines().next()?.parse().ok()
    }

    fn processes_in(&self, directory: &Path) -> u64 {
        let mut count = 0;
        super::walk(directory, &mut |path| {
            let processes = read(&path.join("cgroup.procs")).unwrap_or_default();
            count += processes.lines().count() as u64;
        });
        count
    }
}

fn cpu_v1(accounts: &Path, cpu: &Path) -> Option<CpuUsage> {
    let total = number(&accounts.join("cpuacct.usage"))?;
    let stat = Table::read(&accounts.join("cpuacct.stat"));
    let ticks = |name: &str| {
        stat.as_ref()
            .map_or(0, |t| t.get(name) * NANOSECONDS_PER_TICK)
    };
    let throttling = Table::read(&cpu.join("cpu.stat"));
    let throttled = |name: &str| throttling.as_ref().map_or(0, |table| table.get(name));
    Some(CpuUsage {
        total,
        user: ticks("user"),
        system: ticks("system"),
        periods: throttled("nr_periods"),
        throttled_periods: throttled("nr_throttled"),
        throttled: throttled("throttled_time"),
    })
}

fn cpu_v2(group: &Path) -> Option<CpuUsage> {
    let stat = Table::read(&group.join("cpu.stat"))?;
    Some(CpuUsage {
        total: stat.get("usage_usec") * 1000,
        user: stat.get("user_usec") * 1000,
        system: stat.get("system_usec") * 1000,
        periods: stat.get("nr_periods"),
        throttled_periods: stat.get("nr_throttled"),
        throttled: stat.get("throttled_usec") * 1000,
    })
}

fn memory_v1(group: &Path) -> Option<MemoryUsage> {
    let usage = number(&group.join("memory.usage_in_bytes"))?;
    let stat = Table::read(&group.join("memory.stat"))?;
    let oom = Table::read(&group.join("memory.oom_control"));
    let both = limit(&group.join("memory.memsw.limit_in_bytes"));
    let limit = limit(&group.join("memory.limit_in_bytes"));
    Some(MemoryUsage {
        usage,
        working_set: usage.saturating_sub(stat.get("total_inactive_file")),
        max_usage: number(&group.join("memory.max_usage_in_bytes")),
        limit,
        rss: stat.get("total_rss"),
        cache: stat.get("total_cache"),
        mapped_file: stat.get("total_mapped_file"),
        swap: stat.get("total_swap"),
        swap_limit: both.map(|both| both.saturating_sub(limit.unwrap_or_default())),
        failures: number(&group.join("memory.failcnt")).unwrap_or_default(),
        oom_kills: oom.map_or(0, |table| table.get("oom_kill")),
        page_faults: stat.get("total_pgfault"),
        major_page_faults: stat.get("total_pgmajfault"),
    })
}

fn memory_v2(group: &Path) -> Option<MemoryUsage> {
    let stat = Table::read(&group.join("memory.stat"))?;
    // The root has no number of its own.
    let usage = number(&group.join("memory.current"));
    let usage = usage.unwrap_or_else(|| stat.get("anon") + stat.get("file") + stat.get("kernel"));
    let events = Table::read(&group.join("memory.events"));
    let event = |name: &str| events.as_ref().map_or(0, |table| table.get(name));
    Some(MemoryUsage {
        usage,
        working_set: usage.saturating_sub(stat.get("inactive_file")),
        max_usage: number(&group.join("memory.peak")),
        limit: limit(&group.join("memory.max")),
        rss: stat.get("anon"),
        cache: stat.get("file"),
        mapped_file: stat.get("file_mapped"),
        swap: number(&group.join("memory.swap.current")).unwrap_or_default(),
        swap_limit: limit(&group.join("memory.swap.max")),
        failures: event("max"),
        oom_kills: event("oom_kill"),
        page_faults: stat.get("pgfault"),
        major_page_faults: stat.get("pgmajfault"),
    })
}

/// The weight of version 2 in the terms of version 1, as the kubelet has made it.
fn shares_of_weight(weight: u64) -> u64 {
    2 + (weight.saturating_sub(1) * 262_142) / 9_999
}

fn entry<'a>(all: &'a mut Vec<DeviceIo>, device: &str) -> &'a mut DeviceIo {
    let at = all.iter().position(|io| io.device == device);
    let at = at.unwrap_or_else(|| {
        all.push(DeviceIo {
            device: device.to_owned(),
            ..DeviceIo::default()
        });
        all.len() - 1
    });
    &mut all[at]
}

fn io_v1(group: &Path) -> Vec<DeviceIo> {
    let mut all = Vec::new();
    let file = |name: &str| read(&group.join(name)).unwrap_or_default();
    let bytes = file("blkio.throttle.io_service_bytes_recursive");
    let counts = file("blkio.throttle.io_serviced_recursive");
    for (text, is_bytes) in [(bytes, true), (counts, false)] {
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [device, operation, amount] = fields[..] else {
                continue;
            };
            let Ok(amount) = amount.parse() else { continue };
            let io = entry(&mut all, device);
            match (operation, is_bytes) {
                ("Read", true) => io.read_bytes = amount,
                ("Write", true) => io.written_bytes = amount,
                ("Read", false) => io.reads = amount,
                ("Write", false) => io.writes = amount,
                _ => {}
            }
        }
    }
    all
}

fn io_v2(group: &Path) -> Vec<DeviceIo> {
    let mut all = Vec::new();
    for line in read(&group.join("io.stat")).unwrap_or_default().lines() {
        let mut fields = line.split_whitespace();
        let Some(device) = fields.next() else {
            continue;
        };
        let io = entry(&mut all, device);
        for (name, amount) in fields.filter_map(|field| field.split_once('=')) {
            let Ok(amount) = amount.parse() else { continue };
            match name {
                "rbytes" => io.read_bytes = amount,
                "wbytes" => io.written_bytes = amount,
                "rios" => io.reads = amount,
                "wios" => io.writes = amount,
                _ => {}
            }
        }
    }
    all
}

fn pressure(path: &Path) -> Option<Pressure> {
    let text = read(path).ok()?;
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let waited = match fields.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (name, value) in fields.filter_map(|field| field.split_once('=')) {
            match name {
                "avg10" => waited.avg10 = value.parse().unwrap_or_default(),
                "avg60" => waited.avg60 = value.parse().unwrap_or_default(),
                "avg300" => waited.avg300 = value.parse().unwrap_or_default(),
                "total" => waited.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    Some(pressure)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    #[test]
    fn version_2() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("g");
        write(
            &group,
            &[
                (
                    "cpu.stat",
                    "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\n",
                ),
                ("memory.current", "100\n"),
                (
                    "memory.stat",
                    "anon 10\nfile 20\ninactive_file 30\npgfault 4\n",
                ),
                ("memory.max", "max\n"),
                ("cpu.max", "max 100000\n"),
                ("cgroup.procs", "1\n2\n"),
                ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n"),
                ("io.pressure", "some avg10=1.50 avg60=0 avg300=0 total=9\n"),
            ],
        );
        let hierarchy = Hierarchy::V2 {
            root: dir.path().to_owned(),
        };
        let usage = hierarchy.usage("/g").unwrap();
        let cpu = usage.cpu.unwrap();
        assert_eq!((cpu.total, cpu.user, cpu.periods), (5000, 3000, 7));
        let memory = usage.memory.unwrap();
        assert_eq!((memory.working_set, memory.rss), (70, 10));
        assert_eq!((memory.limit, memory.page_faults), (None, 4));
        assert_eq!((usage.quota, usage.period), (None, Some(100_000)));
        assert_eq!((usage.processes, usage.io[0].writes), (2, 4));
        assert_eq!(usage.pressure.io.unwrap().some.total, 9);
        assert_eq!(hierarchy.usage("/nope"), None);
    }

    #[test]
    fn version_1() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = ["cpu", "cpuacct", "memory", "blkio"]
            .map(|name| (dir.path().join(name), BTreeSet::from([name.to_owned()])));
        let group = |name: &str| dir.path().join(name).join("g");
        write(
            &group("cpu"),
            &[("cpu.cfs_quota_us", "-1"), ("cpu.shares", "2")],
        );
        let accounts = [
            ("cpuacct.usage", "50"),
            ("cpuacct.stat", "user 1\nsystem 2\n"),
        ];
        write(&group("cpuacct"), &accounts);
        let memory = [
            ("memory.usage_in_bytes", "100"),
            ("memory.stat", "total_inactive_file 1\ntotal_rss 7\n"),
            ("memory.limit_in_bytes", "9223372036854771712"),
        ];
        write(&group("memory"), &memory);
        let bytes = "8:0 Read 5\n8:0 Write 6\nTotal 11\n";
        write(
            &group("blkio"),
            &[("blkio.throttle.io_service_bytes_recursive", bytes)],
        );
        let hierarchy = Hierarchy::V1 {
            mounts: mounts.into(),
            unified: None,
        };
        let usage = hierarchy.usage("/g").unwrap();
        let cpu = usage.cpu.unwrap();
        assert_eq!((cpu.total, cpu.user), (50, NANOSECONDS_PER_TICK));
        let memory = usage.memory.unwrap();
        assert_eq!(
            (memory.working_set, memory.rss, memory.limit),
            (99, 7, None)
        );
        assert_eq!((usage.quota, usage.shares), (None, Some(2)));
        assert_eq!((usage.io[0].read_bytes, usage.io[0].written_bytes), (5, 6));
    }
}
