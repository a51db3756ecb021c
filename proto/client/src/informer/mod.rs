//! Informers: a local copy of what the API server holds of one kind, kept up to date by one
//! list and watch, with events and indexes.
//!
//! ```no_run
//! # async fn f(client: client::Client, stop: tokio_util::sync::CancellationToken) {
//! use client::informer::{Event, Informers};
//! use k8s_openapi::api::core::v1::Pod;
//!
//! let informers = Informers::new(&client);
//! let pods = informers.get::<Pod>();
//! let by_node = pods.add_index("nodeName", |p: &Pod| {
//!     p.spec.iter().filter_map(|s| s.node_name.clone()).collect()
//! });
//! pods.add_handler(|event: &Event<Pod>| println!("{} changed", event.key()));
//! informers.start(&stop);
//! informers.wait_synced().await;
//! println!("{} pods on n1", by_node.get("n1").len());
//! # }
//! ```

mod reflector;
mod shared;
mod store;
#[cfg(test)]
mod tests;

pub use shared::{Informer, Informers, Selection};
pub use store::{Event, Index, Store};
