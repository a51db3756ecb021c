//! The scenario tests: what a person or a program outside the cluster sees of
//! it. They run on the cluster at `$FERROKUBE_STATE` (see `deploy/test`), and
//! pass on one of upstream's binaries too: a test that only we pass is wrong.

mod apply;
mod bad_requests;
mod chaos;
mod controllers;
mod corpus;
mod eviction;
mod interop;
mod kubectl;
mod old_kubectl;
mod pods;
mod rest;
mod scheduling;
mod services;
