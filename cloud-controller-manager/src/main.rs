//! cloud-controller-manager
mod controllers;
mod provider;
fn main() {}
