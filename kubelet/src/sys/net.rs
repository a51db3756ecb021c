//! What network interfaces have carried, in the network namespace of a process.

use std::io;

/// One interface's counters since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received: Carried,
    pub sent: Carried,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// Interfaces of the host that belong to pods, or to nobody.
const IGNORED: [&str; 4] = ["lo", "veth", "docker", "nerdctl"];

/// Those of a process, but for the ones that carry nothing of the node's own.
///
/// # Errors
/// When the process is gone.
pub fn interfaces(pid: i32) -> io::Result<Vec<Interface>> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev"))?;
    Ok(parse(&table))
}

fn parse(table: &str) -> Vec<Interface> {
    let of = |numbers: &[u64]| Carried {
        bytes: numbers[0],
        packets: numbers[1],
        errors: numbers[2],
        dropped: numbers[3],
    };
    let lines = table.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter_map(|(name, numbers)| {
            let name = name.trim();
            let numbers = numbers.split_whitespace().map(|number| number.parse().ok());
            let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
            let ignored = IGNORED.iter().any(|ignored| name.starts_with(ignored));
            (numbers.len() >= 12 && !ignored).then(|| Interface {
                name: name.to_owned(),
                received: of(&numbers[..4]),
                sent: of(&numbers[8..12]),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters() {
        let table = "Inter-|   Receive\n face |bytes    packets errs\n    lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n  \
            eth0: 1 2 3 4 5 6 7 8 11 12 13 14 15 16 17 18\n";
        let all = parse(table);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].received.dropped, all[0].sent.bytes), (4, 11));
        assert!(interfaces(std::process::id().cast_signed()).is_ok());
    }
}
