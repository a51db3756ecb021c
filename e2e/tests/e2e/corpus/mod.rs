//! The corpus of `e2e/corpus`, sent to the cluster's kind of API server and to
//! upstream's, each on an etcd of its own: status, body, warnings, causes and the
//! bytes in etcd must be equal.
//!
//! Upstream's program is named by `FERROKUBE_UPSTREAM_APISERVER`; without one there
//! is nobody to compare with, and the test says so. What the corpus may say is in
//! [`steps`], what is the server's own choice in [`normal`].

mod compare;
mod normal;
mod server;
mod steps;
mod wire;

use std::path::{Path, PathBuf};

use e2e::Cluster;

use compare::Aspect;

/// A difference that is known.
struct Accepted {
    /// Part of the step's title.
    step: &'static str,
    aspect: Aspect,
    reason: &'static str,
}

const ACCEPTED: [Accepted; 8] = [
    Accepted {
        step: "SelfSubjectRulesReview",
        aspect: Aspect::Body,
        reason: "upstream lists the rules in the random order of a map",
    },
    Accepted {
        step: "FlowSchema",
        aspect: Aspect::Etcd,
        reason: "upstream's controller writes the condition Dangling at once",
    },
    Accepted {
        step: "flowschemas",
        aspect: Aspect::Body,
        reason: "upstream's controller writes the condition Dangling at once",
    },
    Accepted {
        step: "flowschemas",
        aspect: Aspect::Etcd,
        reason: "upstream's controller writes the condition Dangling at once",
    },
    Accepted {
        step: "flowschemas",
        aspect: Aspect::ManagedFields,
        reason: "upstream's controller writes the condition Dangling at once",
    },
    Accepted {
        step: "APIService v1.example.com",
        aspect: Aspect::Etcd,
        reason: "upstream's controller writes the condition Available at once",
    },
    Accepted {
        step: "CustomResourceDefinition",
        aspect: Aspect::Etcd,
        reason: "controllers of both write conditions at once",
    },
    Accepted {
        step: "customresourcedefinitions",
        aspect: Aspect::Etcd,
        reason: "controllers of both write conditions at once",
    },
];

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name)
}

/// Sends a directory to both servers; every difference is printed.
fn send(name: &str, at_least: usize, wanted: fn(u16) -> bool) {
    let Some(upstream) = std::env::var_os("FERROKUBE_UPSTREAM_APISERVER") else {
        eprintln!("NOT COMPARED: FERROKUBE_UPSTREAM_APISERVER names no program of upstream's");
        return;
    };
    let upstream = PathBuf::from(upstream);
    let theirs = upstream.parent().expect("a directory").to_owned();
    let ours =
        std::env::var_os("FERROKUBE_BIN").map_or_else(|| Cluster::get().path("bin"), PathBuf::from);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let seen = runtime
        .block_on(compare::directory(&corpus(name), &ours, &theirs))
        .unwrap_or_else(|error| panic!("{error:#}"));

    let mut bad = 0;
    for difference in &seen.differences {
        let accepted = ACCEPTED.iter().find(|accepted| {
            accepted.aspect == difference.aspect && difference.step.contains(accepted.step)
        });
        bad += usize::from(accepted.is_none());
        let known = accepted.map_or(String::new(), |known| format!(" (known: {})", known.reason));
        println!(
            "{}: {:?}{known}\n{}",
            difference.step, difference.aspect, difference.text
        );
    }
    let count = seen.statuses.iter().filter(|code| wanted(**code)).count();
    println!(
        "{} steps, {count} of them {name}, {} values of etcd compared, {} differences, {bad} of them new",
        seen.statuses.len(),
        seen.values,
        seen.differences.len(),
    );
    assert!(count >= at_least, "only {count} of the objects are {name}");
    assert_eq!(bad, 0, "differences from upstream");
}

#[test]
fn valid_objects_are_answered_and_stored_as_upstream_does() {
    send("valid", 200, |status| status < 300);
}

#[test]
fn invalid_objects_are_refused_as_upstream_does() {
    send("invalid", 200, |status| status >= 400);
}
