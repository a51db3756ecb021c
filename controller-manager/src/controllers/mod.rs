//! One folder per controller: its plan (pure), what it remembers, and the wiring that observes
//! and applies.

pub mod clusterroleaggregation;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslicemirroring;
pub mod garbagecollector;
pub mod job;
pub mod namespace;
pub mod nodeipam;
pub mod nodelifecycle;
pub mod podgc;
pub mod pvcprotection;
pub mod pvprotection;
pub mod replicaset;
pub mod resourcequota;
pub mod rootcapublisher;
pub mod serviceaccount;
pub mod servicecidrs;
pub mod statefulset;
pub mod tainteviction;
pub mod ttlafterfinished;
pub mod vacprotection;
