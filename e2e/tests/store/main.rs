//! The API server as a store at its limits: an etcd that is full, history that is
//! compacted under a list, answers while memory is behind, requests that are made to be
//! expensive, and writes that nobody waits for; and before it two of one daemon, a scheduler's extender, what cannot be done, who
//! may write what of a claim, and what earlier releases have stored.
//!
//! Each test has an etcd and a server of its own. The daemons are those in
//! `$FERROKUBE_BIN`, by default those of the cluster at `$FERROKUBE_STATE`. The tests
//! pass on upstream's too.

mod abandoned;
mod bad_input;
mod bounds;
mod claim_rights;
mod compaction;
mod daemons;
mod extenders;
mod freshness;
mod full;
mod leaders;
mod refusals;
mod upgrade;

use std::path::{Path, PathBuf};

use e2e::stand::Stand;
use http::StatusCode;
use serde_json::Value;

/// The directory of the server under test.
fn bin() -> PathBuf {
    if let Some(bin) = std::env::var_os("FERROKUBE_BIN") {
        return bin.into();
    }
    let state = std::env::var_os("FERROKUBE_STATE").map(PathBuf::from);
    let bin = state
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.up"))
        .join("bin");
    assert!(
        bin.join("kube-apiserver").exists(),
        "no kube-apiserver in {}: name a directory in FERROKUBE_BIN",
        bin.display()
    );
    bin
}

async fn stand(etcd_flags: &[&str], flags: &[&str]) -> Stand {
    let flags: Vec<_> = flags.iter().map(ToString::to_string).collect();
    Stand::start(&bin(), 1, etcd_flags, &flags)
        .await
        .expect("a stand")
}

/// The parts of a Status that are compared.
fn refusal(status: StatusCode, body: &[u8]) -> (u16, String, String) {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    (status.as_u16(), text("reason"), text("message"))
}
