pub mod node;
pub mod node_lifecycle;
pub mod service;
