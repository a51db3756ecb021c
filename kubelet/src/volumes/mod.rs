//! Volumes: made and refreshed for a pod, and taken away with it.

mod atomic_writer;
mod empty_dir;
mod host_path;
mod ownership;
mod projection;
mod sub_path;
