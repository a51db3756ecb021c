//! The arrows between the rooms, held over `cargo metadata`:
//!
//! `daemon → component, client → codec, patch, api, cel → meta, schema`. No
//! daemon depends on another, no crate of `proto/` on a daemon, the scenario
//! tests on nobody; dependencies of tests and build scripts count like any other.

use cargo_metadata::{MetadataCommand, Package};

/// The crates of `proto/`, bottom to top: each may depend on those before it.
const PROTO: [&str; 10] = [
    "schema",
    "meta",
    "grpc",
    "codec",
    "patch",
    "cel",
    "api",
    "client",
    "component",
    "streaming",
];

/// Each may depend on crates of `proto/`.
const DAEMONS: [&str; 6] = [
    "kube-apiserver",
    "kube-scheduler",
    "kube-controller-manager",
    "cloud-controller-manager",
    "kubelet",
    "kube-proxy",
];

/// Drives binaries from outside and links nothing of them.
const OUTSIDE: &str = "e2e";

fn workspace() -> Vec<Package> {
    MetadataCommand::new()
        .no_deps()
        .exec()
        .expect("cargo metadata")
        .packages
}

fn place(name: &str) -> Option<usize> {
    PROTO.iter().position(|proto| *proto == name)
}

/// Whether the rule lets `from` depend on `to`, both of this workspace.
fn allowed(from: &str, to: &str) -> bool {
    match (place(from), place(to)) {
        (Some(from), Some(to)) => to < from,
        (None, Some(_)) => DAEMONS.contains(&from),
        (_, None) => false,
    }
}

#[test]
fn every_crate_has_its_place() {
    for package in workspace() {
        let name = package.name.as_str();
        let in_proto = package
            .manifest_path
            .components()
            .any(|part| part.as_str() == "proto");
        if in_proto {
            assert!(place(name).is_some(), "give {name} a place in PROTO");
        } else {
            assert!(
                DAEMONS.contains(&name) || name == OUTSIDE,
                "{name} is neither of proto/ nor a daemon"
            );
        }
    }
}

#[test]
fn arrows_point_one_way() {
    let packages = workspace();
    let mut arrows = 0;
    let mut wrong = Vec::new();
    for from in &packages {
        // Those with a path are of this workspace, whatever section names them.
        for to in from
            .dependencies
            .iter()
            .filter(|dependency| dependency.path.is_some())
        {
            arrows += 1;
            if !allowed(&from.name, &to.name) {
                wrong.push(format!("{} → {} ({})", from.name, to.name, to.kind));
            }
        }
    }
    assert!(
        arrows > 0,
        "no crate depends on another: is this the workspace?"
    );
    assert!(wrong.is_empty(), "against the rule: {wrong:?}");
}

#[test]
fn the_rule_refuses_what_it_should() {
    assert!(allowed("kubelet", "component"));
    assert!(allowed("component", "client"));
    assert!(!allowed("client", "component"));
    assert!(!allowed("codec", "kubelet"));
    assert!(!allowed("kubelet", "kube-proxy"));
    assert!(!allowed("e2e", "meta"));
}
