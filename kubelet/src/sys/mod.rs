//! The kernel: the only room with raw system calls. Each file wraps one subject; nothing here
//! knows a pod.

pub mod fs;
pub mod host;
pub mod lock;
pub mod mount;
pub mod net;
pub mod node;
pub mod numa;
pub mod process;
pub mod tunables;
