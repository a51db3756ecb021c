//! Which devices, CPUs and memory containers have: the kubelet tells whoever watches over them.

#![allow(missing_docs, clippy::all, rustdoc::all)]

pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/podresources/v1.rs"));
}

pub mod v1alpha1 {
    include!(concat!(env!("OUT_DIR"), "/podresources/v1alpha1.rs"));
}
