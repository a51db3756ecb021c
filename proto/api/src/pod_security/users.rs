//! Who a container's processes run as.

use serde_json::Value;

use super::{Forbidden, Pod, containers, setters};

pub(super) fn non_root(pod: &Pod<'_>) -> Option<Forbidden> {
    const REASON: &str = "runAsNonRoot != true";
    let says = |context: &Value| context["runAsNonRoot"].as_bool();
    let of_pod = says(pod.security_context());
    let explicit = pod.bad_containers(|c| says(&c["securityContext"]) == Some(false));
    if let Some(setters) = setters(of_pod == Some(false), &explicit) {
        let detail = format!("{setters} must not set securityContext.runAsNonRoot=false");
        return Forbidden::new(REASON, detail);
    }
    if of_pod == Some(true) {
        return None;
    }
    let silent = pod.bad_containers(|c| says(&c["securityContext"]).is_none());
    if silent.is_empty() {
        return None;
    }
    let silent = containers(&silent);
    Forbidden::new(
        REASON,
        format!("pod or {silent} must set securityContext.runAsNonRoot=true"),
    )
}

/// Root in a user namespace is not root (KEP-127).
pub(super) fn non_root_of_host_users(pod: &Pod<'_>) -> Option<Forbidden> {
    if pod.has_user_namespace() {
        return None;
    }
    non_root(pod)
}

pub(super) fn not_user_0(pod: &Pod<'_>) -> Option<Forbidden> {
    let is_root = |context: &Value| context["runAsUser"].as_i64() == Some(0);
    let bad = pod.bad_containers(|c| is_root(&c["securityContext"]));
    let setters = setters(is_root(pod.security_context()), &bad)?;
    Forbidden::new("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

/// Root in a user namespace is not root (KEP-127).
pub(super) fn not_user_0_of_host_users(pod: &Pod<'_>) -> Option<Forbidden> {
    if pod.has_user_namespace() {
        return None;
    }
    not_user_0(pod)
}
