//! Everything that can happen to a kubelet, as one closed enum: what drives [`crate::sync_loop`].

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{oneshot, watch};

use crate::cri::plan::Health;
use crate::pods::admission::Rejection;
use crate::pods::pod::PodUid;
use crate::pods::worker::{Outcome, Phase};
use crate::status::Eviction;

/// Where pods come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Api,
    File,
    Http,
}

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

#[derive(Debug)]
pub enum Event {
    /// A pod is as it says now.
    PodSet(Source, Arc<Pod>),
    /// A source does not have this pod any more.
    PodGone(Source, Arc<Pod>),
    /// A source has told all it had when the kubelet started.
    SourceReady(Source),
    /// Something happened to containers of this pod.
    Runtime(PodUid),
    /// The runtime has this pod, of which no more is known, and nobody asks for it.
    Orphan(Arc<Pod>),
    /// A probe's verdict changed.
    Probe {
        uid: PodUid,
        kind: ProbeKind,
        container_id: String,
        health: Health,
    },
    /// The node has been read for this pod's sake.
    NodeRead(PodUid),
    /// This pod has been given its devices, CPUs and memory, or cannot have them.
    Placed(PodUid, Result<(), Rejection>),
    /// Objects that these pods refer to changed, or devices that they have.
    Objects(Vec<PodUid>),
    /// A pod's worker has done what it was asked to.
    Done(PodUid, Outcome),
    /// The node is short of something, and this pod is to end within so many seconds. How far it
    /// is with that is told until nothing of it is left.
    Evict {
        uid: PodUid,
        eviction: Eviction,
        grace: i64,
        ended: watch::Sender<Phase>,
    },
    /// The node is short of something: whatever has ended is to be cleared away now. How many
    /// containers were is answered.
    CollectDead(oneshot::Sender<usize>),
    /// The runtime's or its network's condition changed: whether pods can start.
    Ready { runtime: bool, network: bool },
}
