//! A daemon that stands for a lease which the API server hands out
//! (`CoordinatedLeaderElection`).

use client::Client;
use client::leader_election::{Candidacy, Candidate};
use tokio_util::sync::CancellationToken;

use crate::health::Checks;
use crate::version;

/// Stands for the lease until `stop`; `checks` say whether it is known who stands already.
pub fn stand(
    client: &Client,
    lease: &str,
    identity: &str,
    checks: &Checks,
    stop: &CancellationToken,
) {
    let candidate = Candidate {
        identity: identity.to_owned(),
        lease: lease.to_owned(),
        binary_version: version::binary(),
        emulation_version: version::emulation(),
    };
    let candidacy = Candidacy::new(client, candidate);
    let synced = candidacy.synced();
    checks.add("informer-sync", move || {
        let pending = || "the lease's candidates are not known yet".to_owned();
        synced().then_some(()).ok_or_else(pending)
    });
    tokio::spawn(candidacy.run(stop.clone()));
}
