//! What the kernel is told. Each backend turns the state into its own rules.

pub mod nftables;
