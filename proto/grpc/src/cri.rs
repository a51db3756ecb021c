//! CRI v1 (`runtime.v1`): what the kubelet asks of a container runtime. Client side only.

#[allow(missing_docs, clippy::all, rustdoc::all)]
mod generated {
    tonic::include_proto!("runtime.v1");
}

pub use generated::*;

use std::fmt;

/// A registry's credentials print as nothing but their presence.
impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig")
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}
