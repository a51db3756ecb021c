//! Defaults of rbac.authorization.k8s.io.

use super::{Defaulter, Fields, set_empty, text};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    ("io.k8s.api.rbac.v1.RoleRef", role_ref),
    ("io.k8s.api.rbac.v1.Subject", subject),
];

const GROUP: &str = "rbac.authorization.k8s.io";

fn role_ref(reference: &mut Fields) {
    set_empty(reference, "apiGroup", GROUP);
}

fn subject(subject: &mut Fields) {
    if matches!(text(subject, "kind"), "User" | "Group") {
        set_empty(subject, "apiGroup", GROUP);
    }
}
