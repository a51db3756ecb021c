//! kubelet
#![allow(dead_code)]
mod cgroups;
mod config;
mod cri;
mod options;
mod pods;
mod resources;
mod status;
mod sys;
mod volumes;

fn main() {}
