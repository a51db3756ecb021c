//! The daemons' client of the Kubernetes API: configuration, requests, lists and watches,
//! informers, work queues, leader election, events.
//!
//! Start at [`Config`], make a [`Client`] of it, then use [`Api`] for requests and
//! [`Informers`] for caches. What must not be here: knowledge of any daemon, or of what a
//! particular kind means.

pub mod api;
mod client;
pub mod config;
mod credentials;
mod error;
pub mod events;
pub mod expectations;
mod fence;
pub mod informer;
pub mod leader_election;
pub mod metrics;
mod object;
pub mod rate_limit;
mod tls;
mod transport;
mod wire;
pub mod workqueue;

pub use api::{
    Api, DeleteOptions, List, ListOptions, Patch, PatchOptions, Propagation, WatchEvent,
    WatchStream, WriteOptions,
};
pub use client::{Client, Request};
pub use config::{Config, ConfigError, RenewedCertificate};
pub use credentials::{ServiceAccountTokens, TokenSource};
pub use error::{Error, Result, optional};
pub use expectations::Expectations;
pub use informer::{Informer, Informers};
pub use object::{
    Dynamic, Identity, Kind, Object, ObjectKey, PartialObject, ResourceInfo, SlimMeta,
};
pub use tls::{AnyServer, client_certificate};
pub use transport::Body;
