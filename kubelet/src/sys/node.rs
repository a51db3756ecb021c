//! What this machine is: identity, kernel, size, swap.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// The machine, read once: none of it changes while it runs.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub hostname: String,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    /// Go's name of the architecture.
    pub architecture: &'static str,
    pub cpus: u64,
    pub memory: u64,
    pub swap: u64,
    /// As the kernel names them in cgroups: `2MB`.
    pub hugepage_sizes: Vec<HugePages>,
}

/// Pages of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugePages {
    pub kib: u64,
    pub count: u64,
}

impl HugePages {
    /// `2MB`, `1GB`, `64KB`: the name in cgroups.
    pub fn cgroup_name(&self) -> String {
        let (amount, unit) = self.scaled();
        format!("{amount}{unit}B")
    }

    /// `hugepages-2Mi`: the name in the API.
    pub fn resource_name(&self) -> String {
        let (amount, unit) = self.scaled();
        format!("hugepages-{amount}{unit}i")
    }

    fn scaled(&self) -> (u64, char) {
        match self.kib {
            kib if kib % (1 << 20) == 0 => (kib >> 20, 'G'),
            kib if kib % (1 << 10) == 0 => (kib >> 10, 'M'),
            kib => (kib, 'K'),
        }
    }
}

impl Machine {
    /// Reads what there is; what cannot be read stays empty.
    pub fn read() -> Self {
        let uname = nix::sys::utsname::uname().ok();
        let text = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let meminfo = text("/proc/meminfo");
        let kib = |key: &str| meminfo_kib(&meminfo, key) * 1024;
        let machine_id = match text("/etc/machine-id") {
            id if id.is_empty() => text("/var/lib/dbus/machine-id"),
            id => id,
        };
        let system_uuid = match text("/sys/class/dmi/id/product_uuid") {
            uuid if uuid.is_empty() => machine_id.clone(),
            uuid => uuid,
        };
        Self {
            hostname: nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok())
                .unwrap_or_default(),
            machine_id,
            system_uuid,
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            kernel_version: uname
                .map(|u| u.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            os_image: os_image(&text("/etc/os-release")),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                "powerpc64" => "ppc64le",
                other => other,
            },
            cpus: online_cpus(&text("/sys/devices/system/cpu/online")),
            memory: kib("MemTotal"),
            swap: kib("SwapTotal"),
            hugepage_sizes: hugepages(Path::new("/sys/kernel/mm/hugepages")),
        }
    }
}

pub(super) fn meminfo_kib(meminfo: &str, key: &str) -> u64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

fn os_image(os_release: &str) -> String {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    value("PRETTY_NAME")
        .map(|name| name.trim_matches('"').to_owned())
        .unwrap_or_default()
}

/// `0-3,8` is five CPUs.
fn online_cpus(list: &str) -> u64 {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<u64>().ok()? - first.parse::<u64>().ok()? + 1)
    };
    let online: u64 = list.split(',').filter_map(count).sum();
    // A process may be confined to fewer, which does not make the node smaller.
    if online > 0 {
        online
    } else {
        std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
    }
}

pub(super) fn hugepages(directory: &Path) -> Vec<HugePages> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut sizes: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kib = name
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            let count = fs::read_to_string(entry.path().join("nr_hugepages"))
                .ok()?
                .trim()
                .parse()
                .ok()?;
            Some(HugePages { kib, count })
        })
        .collect();
    sizes.sort_by_key(|size| size.kib);
    sizes
}

/// The file counting how often each CPU was throttled, where it exists: containers must not see it.
pub fn thermal_throttle_paths() -> impl Iterator<Item = String> {
    (0..1024)
        .map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}"))
        .take_while(|path| Path::new(path).exists())
        .map(|path| path + "/thermal_throttle")
        .filter(|path| Path::new(path).exists())
}

/// The machine's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemInfo {
    pub total: u64,
    /// By anything, be it only to keep files at hand.
    pub used: u64,
    /// Files at hand that nobody has touched for long.
    pub inactive_files: u64,
}

impl MemInfo {
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let bytes = |key| meminfo_kib(text, key) * 1024;
        let total = bytes("MemTotal");
        Self {
            total,
            used: total.saturating_sub(bytes("MemFree")),
            inactive_files: bytes("Inactive(file)"),
        }
    }
}

/// CPU time that the machine has spent on work since its start, in nanoseconds.
pub fn cpu_time_nanoseconds() -> u64 {
    // The clock that /proc/stat counts in is 100 Hz on every architecture Linux runs Kubernetes on.
    const NANOSECONDS_PER_TICK: u64 = 10_000_000;
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy = ticks
        .iter()
        .enumerate()
        .filter(|(i, _)| !matches!(i, 3 | 4) && *i < 8)
        .map(|(_, ticks)| ticks);
    busy.sum::<u64>() * NANOSECONDS_PER_TICK
}

/// When the machine was started.
pub fn boot_time() -> Option<jiff::Timestamp> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    jiff::Timestamp::from_second(seconds.trim().parse().ok()?).ok()
}

/// Bytes of swap, and how many of them are free.
pub fn swap() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |key| meminfo_kib(&text, key) * 1024;
    (bytes("SwapTotal"), bytes("SwapFree"))
}

/// The most processes the kernel allows, and how many there are.
pub fn processes() -> (u64, u64) {
    let number = |path: &str| {
        fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
    };
    let limits = [
        number("/proc/sys/kernel/pid_max"),
        number("/proc/sys/kernel/threads-max"),
    ];
    let max = limits.into_iter().flatten().min().unwrap_or_default();
    let loadavg = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let running = loadavg
        .split_whitespace()
        .nth(3)
        .and_then(|field| field.split('/').nth(1)?.parse().ok());
    (max, running.unwrap_or_default())
}

/// The address of the interface that the default route uses.
pub fn default_address(ipv6: bool) -> Option<IpAddr> {
    let interface = if ipv6 {
        let table = fs::read_to_string("/proc/net/ipv6_route").ok()?;
        let line = table
            .lines()
            .find(|line| line.starts_with(&"0".repeat(32)) && !line.ends_with("lo"))?;
        line.split_whitespace().last()?.to_owned()
    } else {
        let table = fs::read_to_string("/proc/net/route").ok()?;
        let line = table
            .lines()
            .skip(1)
            .find(|line| line.split_whitespace().nth(1) == Some("00000000"))?;
        line.split_whitespace().next()?.to_owned()
    };
    addresses()
        .into_iter()
        .find(|(name, ip)| *name == interface && ip.is_ipv6() == ipv6 && is_global(ip))
        .map(|(_, ip)| ip)
}

/// Every address of an interface that is up.
pub fn addresses() -> Vec<(String, IpAddr)> {
    let all = getifaddrs().into_iter().flatten();
    all.filter(|a| a.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|a| {
            let address = a.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
            Some((a.interface_name, ip))
        })
        .collect()
}

fn is_global(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_machine() {
        assert_eq!(online_cpus("0-3,8"), 5);
        assert_eq!(
            meminfo_kib("MemTotal:       100 kB\nSwapTotal: 7 kB", "SwapTotal"),
            7
        );
        let text = "MemTotal: 10 kB\nMemFree: 4 kB\nInactive(file): 2 kB\n";
        let parsed = MemInfo {
            total: 10 << 10,
            used: 6 << 10,
            inactive_files: 2 << 10,
        };
        assert_eq!(MemInfo::parse(text), parsed);
        assert_eq!(
            os_image("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        let pages = HugePages {
            kib: 2048,
            count: 3,
        };
        assert_eq!(
            (pages.cgroup_name(), pages.resource_name()),
            ("2MB".into(), "hugepages-2Mi".into())
        );
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory > 0 && !machine.kernel_version.is_empty());
    }
}
