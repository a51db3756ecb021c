//! What pods ask for and may use, as numbers: requests, limits, QoS class, and the downward API
//! over them. Pure.

pub mod downward;
pub mod qos;
pub mod requests;
