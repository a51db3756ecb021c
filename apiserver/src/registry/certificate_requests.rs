//! CertificateSigningRequests: who asks is who is authenticated; approving is a right of
//! its own (`approval`), and so is signing (`status`).

use std::collections::HashMap;

use api::validation;
use meta::field::ErrorList;
use serde_json::{Value, json};

use super::generic::keep_all_but_status;
use super::object_meta::{keep, time};
use super::strategy::{Context, Strategy};

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "CertificateSigningRequest";

#[derive(Debug)]
pub struct CertificateRequests;

/// A status may repeat the verdicts, but not change what they say; that one is missing or new
/// is for validation to see.
fn keep_verdicts(request: &mut Value, old: &Value) {
    let before = conditions(old);
    for verdict in ["Approved", "Denied"] {
        let mut said = before.iter().filter(|c| c["type"] == verdict);
        let list = request["status"]["conditions"].as_array_mut();
        let repeated = list.into_iter().flatten().filter(|c| c["type"] == verdict);
        for (now, said) in repeated.zip(&mut said) {
            *now = said.clone();
        }
    }
}

fn conditions(request: &Value) -> Vec<Value> {
    request["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// Gives new conditions their times.
fn stamp(request: &mut Value, old: &Value, now: jiff::Timestamp) {
    let before = conditions(old);
    let kind = |condition: &Value| (condition["type"].clone(), condition["status"].clone());
    // Of several the first.
    let before: HashMap<_, _> = before.iter().rev().map(|c| (kind(c), c)).collect();
    let Some(list) = request["status"]["conditions"].as_array_mut() else {
        return;
    };
    for condition in list {
        let same = before.get(&kind(condition));
        if condition.get("lastUpdateTime").is_none() {
            condition["lastUpdateTime"] = time(now);
        }
        if condition.get("lastTransitionTime").is_none() {
            condition["lastTransitionTime"] = same
                .and_then(|b| b.get("lastTransitionTime").cloned())
                .unwrap_or_else(|| time(now));
        }
    }
}

impl Strategy for CertificateRequests {
    fn prepare_create(&self, cx: &Context<'_>, request: &mut Value) {
        let spec = &mut request["spec"];
        let user = cx.user;
        spec["username"] = json!(user.name);
        spec["uid"] = json!(user.uid);
        spec["groups"] = json!(user.groups);
        spec["extra"] = json!(user.extra);
        if let Some(members) = request.as_object_mut() {
            members.remove("status");
        }
    }

    fn validate_create(&self, _cx: &Context<'_>, request: &Value) -> ErrorList {
        validation::create(GROUP, KIND, false, request)
    }

    fn prepare_update(&self, cx: &Context<'_>, request: &mut Value, old: &Value) {
        match cx.subresource {
            "approval" => {
                keep(request, old, "spec");
                let asked = conditions(request);
                keep(request, old, "status");
                if !request["status"].is_object() {
                    request["status"] = json!({});
                }
                request["status"]["conditions"] = Value::Array(asked);
                stamp(request, old, cx.now);
            }
            "status" => {
                keep_all_but_status(request, old);
                keep_verdicts(request, old);
                stamp(request, old, cx.now);
            }
            _ => {
                keep(request, old, "spec");
                keep(request, old, "status");
            }
        }
    }

    fn validate_update(&self, cx: &Context<'_>, request: &Value, old: &Value) -> ErrorList {
        match cx.subresource {
            "" => validation::update(GROUP, KIND, request, old),
            "status" => validation::update_status(GROUP, KIND, request, old),
            part => validation::update_part(GROUP, KIND, part, request, old),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_who_is_known() {
        let user = crate::authn::User {
            name: "jane".into(),
            groups: vec!["g".into()],
            ..Default::default()
        };
        let cx = Context {
            group: "",
            verb: "update",
            user: &user,
            now: jiff::Timestamp::UNIX_EPOCH,
            dry_run: false,
            subresource: "",
            warnings: None,
        };
        let mut request = json!({"spec": {"username": "root", "request": "x"}});
        CertificateRequests.prepare_create(&cx, &mut request);
        assert_eq!(request["spec"]["username"], "jane");
        assert_eq!(request["spec"]["groups"], json!(["g"]));

        let old =
            json!({"spec": {}, "status": {"conditions": [{"type": "Approved", "status": "True"}]}});
        let mut signed = json!({"spec": {}, "status": {"certificate": "c",
            "conditions": [{"type": "Approved", "status": "True", "reason": "other"}]}});
        let cx = Context {
            subresource: "status",
            ..cx
        };
        CertificateRequests.prepare_update(&cx, &mut signed, &old);
        assert_eq!(signed["status"]["conditions"][0]["type"], "Approved");
        assert!(signed["status"]["conditions"][0].get("reason").is_none());
        assert_eq!(signed["status"]["certificate"], "c");
    }
}
