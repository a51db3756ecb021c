//! One suite for every store: etcd, and the cache that stands on it, must tell the same story.
//! Then what only a real etcd can show: leases, compaction, restarts, TLS, several members.
//!
//! Needs an etcd binary: `FERROKUBE_ETCD` or `etcd` on the `PATH`.

mod etcd;
mod history;
mod process;
mod subject;
mod suite;
