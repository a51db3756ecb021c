//! Defaults of apiregistration.k8s.io.

use super::{Defaulter, set_unset};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[(
    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.ServiceReference",
    |reference| set_unset(reference, "port", 443),
)];
