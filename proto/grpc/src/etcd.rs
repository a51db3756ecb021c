//! etcd v3: keys, watches, leases, maintenance (`etcdserverpb`, `mvccpb`).
//!
//! Values are [`bytes::Bytes`] that share the received message's buffer; whoever keeps a
//! value for long copies it. Messages that hold a value have no `Debug`: values are secrets.

#![allow(missing_docs, clippy::all)]

/// `mvccpb`: a key with its value, and what happened to it.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");

    impl std::fmt::Debug for KeyValue {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("KeyValue")
                .field("key", &self.key)
                .field("mod_revision", &self.mod_revision)
                .finish_non_exhaustive()
        }
    }
}

/// `etcdserverpb`: the services and their messages.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");

    impl std::fmt::Debug for PutRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("PutRequest")
                .field("key", &self.key)
                .field("lease", &self.lease)
                .finish_non_exhaustive()
        }
    }
}
