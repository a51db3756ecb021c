use super::*;

/// `sockets` × `nodes` per socket × `cores` per node, with two CPUs each, numbered as machines do:
/// first one CPU of every core, then the second of each. A cache is shared by `per_cache` cores.
pub(in crate::cpus) fn machine(sockets: u32, nodes: u32, cores: u32, per_cache: u32) -> Topology {
    let all = sockets * nodes * cores;
    let cpu = |core: u32| Cpu {
        numa: core / cores,
        socket: core / cores / nodes,
        core,
        uncore: core / per_cache,
    };
    let cpus = (0..all).flat_map(|core| [(core, cpu(core)), (core + all, cpu(core))]);
    Topology {
        cpus: cpus.collect(),
    }
}

pub(in crate::cpus) fn set(text: &str) -> CpuSet {
    text.parse().unwrap()
}

fn shown(picked: Result<CpuSet, String>) -> String {
    picked.map_or_else(|error| error, |cpus| cpus.to_string())
}

#[test]
fn packed_tightly() {
    let (one, two, four) = (
        machine(1, 1, 4, 4),
        machine(2, 1, 3, 3),
        machine(2, 2, 10, 10),
    );
    let cases: &[(&Topology, &str, usize, &str)] = &[
        (&one, "0-7", 0, ""),
        (&one, "0-7", 1, "0"),
        (&one, "0-7", 2, "0,4"),
        (&one, "0-7", 3, "0-1,4"),
        (&one, "0-7", 8, "0-7"),
        // Of a core that is begun, before a whole one.
        (&one, "1,3,5-7", 1, "6"),
        (&one, "0-3,6", 2, "2,6"),
        (
            &one,
            "0,2",
            3,
            "not enough cpus available to satisfy request: requested=3, available=2",
        ),
        // A socket, and where one is begun, that first.
        (&two, "0-11", 6, "0-2,6-8"),
        (&two, "1-11", 4, "1-2,7-8"),
        (&two, "1-11", 6, "3-5,9-11"),
        (&two, "0-11", 8, "0-3,6-9"),
        // Nodes within sockets.
        (&four, "0-79", 20, "0-9,40-49"),
        (&four, "0-79", 40, "0-19,40-59"),
        (&four, "10-39,50-79", 20, "10-19,50-59"),
        (&four, "0-79", 60, "0-29,40-69"),
        (&four, "1-39,41-79", 60, "10-39,50-79"),
    ];
    for (topology, available, count, want) in cases {
        let picked = packed(topology, &set(available), *count, Manner::default());
        assert_eq!(shown(picked), *want, "{count} of {available}");
    }
}

#[test]
fn one_of_each_core() {
    let two = machine(2, 1, 3, 3);
    let manner = Manner {
        spread: true,
        ..Manner::default()
    };
    for (available, count, want) in [
        ("0-11", 2, "0-1"),
        ("0-11", 4, "0-2,6"),
        ("0-11", 6, "0-2,6-8"),
        ("1-11", 2, "1-2"),
    ] {
        let picked = packed(&two, &set(available), count, manner);
        assert_eq!(shown(picked), want, "{count} of {available}");
    }
}

#[test]
fn of_one_cache() {
    // Two caches of four cores each on one node.
    let machine = machine(1, 1, 8, 4);
    let manner = Manner {
        by_uncore_cache: true,
        ..Manner::default()
    };
    for (available, count, want) in [
        ("0-15", 8, "0-3,8-11"),
        ("0-15", 4, "0-1,8-9"),
        ("0-15", 3, "0-1,8"),
        // The first has too few left for all.
        ("1-7,9-15", 8, "4-7,12-15"),
        ("2-7,10-15", 6, "4-6,12-14"),
        // None has enough: whole cores of any.
        ("2-5,10-13", 6, "2-4,10-12"),
        ("0-15", 12, "0-5,8-13"),
    ] {
        let picked = packed(&machine, &set(available), count, manner);
        assert_eq!(shown(picked), want, "{count} of {available}");
    }
}

#[test]
fn evenly_over_nodes() {
    let (two, four) = (machine(2, 1, 3, 3), machine(2, 2, 10, 10));
    let cases: &[(&Topology, &str, usize, usize, &str)] = &[
        // One will do.
        (&two, "0-11", 4, 1, "0-1,6-7"),
        (&two, "0-11", 8, 1, "0-1,3-4,6-7,9-10"),
        (&two, "0-11", 8, 2, "0-1,3-4,6-7,9-10"),
        // The odd one where more is left.
        (&two, "0-11", 7, 1, "0-1,3-4,6-7,9"),
        // Not in groups at all: packed.
        (&two, "0-11", 7, 2, "0-3,6-8"),
        (
            &four,
            "0-79",
            64,
            1,
            "0-7,10-17,20-27,30-37,40-47,50-57,60-67,70-77",
        ),
        (&four, "0-79", 48, 1, "0-7,10-17,20-27,40-47,50-57,60-67"),
        // What is left is to be even.
        (
            &four,
            "2-29,31-39,42-69,71-79",
            48,
            1,
            "10-17,20-27,31-38,50-57,60-67,71-78",
        ),
        (
            &two,
            "0-3",
            5,
            1,
            "not enough cpus available to satisfy request: requested=5, available=4",
        ),
    ];
    for (topology, available, count, group, want) in cases {
        let picked = distributed(topology, &set(available), *count, *group, Manner::default());
        assert_eq!(shown(picked), *want, "{count} by {group} of {available}");
    }
}
