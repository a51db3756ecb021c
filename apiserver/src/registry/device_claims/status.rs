//! Who may say what in a claim's status: the scheduler what is allocated to whom, a driver what
//! became of its own devices (KEP-4817). Rights of their own on subresources that nobody serves
//! tell them apart, and drivers that run on the claim's node from those that run anywhere.
//!
//! What must not be here: what a status may say.

use std::collections::{BTreeSet, HashMap, HashSet};

use api::same::{By, differing, same};
use meta::{ErrorList, FieldError, Path, Status, validation as format};
use serde_json::Value;

use super::{GROUP, items};
use crate::authn::User;
use crate::authn::service_account::{NODE_NAME, split_username};
use crate::authz::{Attributes, Authorizer};
use crate::http::authorization;
use crate::registry::object_meta::meta;
use crate::registry::strategy::Context;

/// A device, or a share of one: its driver, pool, name and share.
fn id(device: &Value) -> [&str; 4] {
    ["driver", "pool", "device", "shareID"].map(|field| device[field].as_str().unwrap_or_default())
}

/// Takes out what is said of devices that the claim has no more, so that who deallocates them need
/// not know of it.
pub fn drop_deallocated(claim: &mut Value, old: &Value) {
    const RESULTS: &str = "/status/allocation/devices/results";
    let status = claim.get_mut("status").and_then(Value::as_object_mut);
    let Some(Value::Array(mut devices)) = status.and_then(|status| status.remove("devices")) else {
        return;
    };
    let mut gone: HashSet<_> = items(old, RESULTS).iter().map(id).collect();
    for result in items(claim, RESULTS) {
        gone.remove(&id(result));
    }
    devices.retain(|device| !gone.contains(&id(device)));
    if !devices.is_empty() {
        claim["status"]["devices"] = Value::Array(devices);
    }
}

/// Complains of what in a status the user may not change.
pub fn refusals(
    authorizer: &dyn Authorizer,
    cx: &Context<'_>,
    claim: &Value,
    old: &Value,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("status");
    let verb = cx.verb;
    let ask = |verb: &str, subresource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            user: cx.user,
            verb,
            namespace,
            group: GROUP,
            resource: "resourceclaims",
            subresource,
            name,
            is_resource: true,
            path: "",
            field_selector: "",
        };
        authorization::authorize(authorizer, &attributes)
    };

    if is_bound_anew(claim, old)
        && let Err(why) = ask(verb, "binding", "", "")
    {
        errors.push(FieldError::forbidden(
            &path.child("allocation"),
            format!(
                r#"changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="{verb}" permission: {}"#,
                why.message
            ),
        ));
    }
    // Whoever deallocates need not be a driver.
    let Some(allocation) = claim.pointer("/status/allocation").filter(|a| !a.is_null()) else {
        return errors;
    };
    let mut verbs = vec![format!("arbitrary-node:{verb}")];
    if runs_where_allocated(cx.user, allocation) {
        verbs.insert(0, format!("associated-node:{verb}"));
    }
    for driver in changed_drivers(claim, old) {
        let ask = |verb: &String| ask(verb, "driver", meta(claim).namespace(), driver);
        if let Err(why) = any(&verbs, ask) {
            errors.push(FieldError::forbidden(
                &path.child("devices"),
                format!(
                    r#"changing status.devices requires resource="resourceclaims/driver", verb="[{}]" permission: {}"#,
                    verbs.join(" "),
                    why.message
                ),
            ));
        }
    }
    errors
}

/// Whether one of them is granted; why the first is not, otherwise.
fn any(verbs: &[String], ask: impl Fn(&String) -> Result<(), Status>) -> Result<(), Status> {
    let mut refused = Ok(());
    for verb in verbs {
        match ask(verb) {
            Ok(()) => return Ok(()),
            Err(why) => refused = refused.and(Err(why)),
        }
    }
    refused
}

/// Whether the devices that are allocated changed, or for whom they are.
fn is_bound_anew(claim: &Value, old: &Value) -> bool {
    let Some(message) = schema::message("io.k8s.api.resource.v1.ResourceClaimStatus") else {
        return true;
    };
    let changed = differing(message, claim.get("status"), old.get("status"), By::Meaning);
    changed
        .iter()
        .any(|field| matches!(*field, "allocation" | "reservedFor"))
}

/// The drivers of devices of which something else is said than before.
fn changed_drivers<'a>(claim: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    const DEVICES: &str = "/status/devices";
    let message = schema::message("io.k8s.api.resource.v1.AllocatedDeviceStatus");
    let is_same = |now, before| {
        message.is_some_and(|message| same(message, Some(now), Some(before), By::Meaning))
    };
    let mut before: HashMap<_, _> = items(old, DEVICES).iter().map(|d| (id(d), d)).collect();
    let mut drivers = BTreeSet::new();
    for device in items(claim, DEVICES) {
        let said = before.remove(&id(device));
        if !said.is_some_and(|said| is_same(device, said)) {
            drivers.insert(id(device)[0]);
        }
    }
    drivers.extend(before.keys().map(|id| id[0]));
    drivers
}

/// Whether the user is a service account whose token is bound to the one node where the claim's
/// devices are.
fn runs_where_allocated(user: &User, allocation: &Value) -> bool {
    let bound = user.extra.get(NODE_NAME).map(Vec::as_slice);
    let Some([node]) = bound else {
        return false;
    };
    split_username(&user.name).is_some()
        && format::dns1123_subdomain(node).is_empty()
        && only_node(allocation) == Some(node.as_str())
}

/// The node of a selector that says nothing but a node's name.
fn only_node(allocation: &Value) -> Option<&str> {
    let [term] = items(allocation, "/nodeSelector/nodeSelectorTerms") else {
        return None;
    };
    let [field] = items(term, "/matchFields") else {
        return None;
    };
    let [node] = items(field, "/values") else {
        return None;
    };
    let by_name = field["key"] == "metadata.name" && field["operator"] == "In";
    let alone = by_name && items(term, "/matchExpressions").is_empty();
    node.as_str().filter(|_| alone)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::{Decision, Rules};

    /// Grants these, as verb, subresource and name.
    struct Granted(&'static [(&'static str, &'static str, &'static str)]);

    impl Authorizer for Granted {
        fn authorize(&self, a: &Attributes<'_>) -> Decision {
            if self.0.contains(&(a.verb, a.subresource, a.name)) {
                Decision::Allow(String::new())
            } else {
                Decision::NoOpinion(String::new())
            }
        }

        fn rules_for(&self, _: &User, _: &str) -> Rules {
            Rules::default()
        }
    }

    fn claim(devices: Value) -> Value {
        let fields = json!([{"key": "metadata.name", "operator": "In", "values": ["n1"]}]);
        json!({"metadata": {"namespace": "ns"}, "status": {
            "allocation": {
                "devices": {"results": [{"driver": "a", "pool": "p", "device": "d"},
                                        {"driver": "b", "pool": "p", "device": "d"}]},
                "nodeSelector": {"nodeSelectorTerms": [{"matchFields": fields}]}},
            "devices": devices}})
    }

    fn refused(granted: &Granted, node: &str, new: &Value, old: &Value) -> Vec<String> {
        let user = User {
            name: "system:serviceaccount:ns:web".into(),
            extra: [(NODE_NAME.to_owned(), vec![node.to_owned()])].into(),
            ..User::default()
        };
        let cx = Context {
            user: &user,
            verb: "patch",
            group: GROUP,
            now: jiff::Timestamp::UNIX_EPOCH,
            dry_run: false,
            subresource: "status",
            warnings: None,
        };
        let errors = refusals(granted, &cx, new, old);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn who_changes_a_part_has_the_right_to() {
        let (nobody, binder) = (Granted(&[]), Granted(&[("patch", "binding", "")]));
        let old = json!({"metadata": {"namespace": "ns"}});
        let bound = claim(json!([]));
        assert!(refused(&nobody, "n1", &bound, &bound).is_empty());
        assert!(refused(&binder, "n1", &bound, &old).is_empty());
        assert_eq!(
            refused(&nobody, "n1", &bound, &old),
            [
                r#"status.allocation: Forbidden: changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="patch" permission: resourceclaims.resource.k8s.io is forbidden: User "system:serviceaccount:ns:web" cannot patch resource "resourceclaims/binding" in API group "resource.k8s.io" at the cluster scope"#
            ]
        );

        let device = |driver| json!({"driver": driver, "pool": "p", "device": "d"});
        let said = claim(json!([device("b"), device("a")]));
        let near = Granted(&[
            ("associated-node:patch", "driver", "a"),
            ("arbitrary-node:patch", "driver", "b"),
        ]);
        assert!(refused(&near, "n1", &said, &bound).is_empty());
        assert!(refused(&near, "n1", &bound, &said).is_empty());
        assert_eq!(
            refused(&near, "n2", &said, &bound),
            [
                r#"status.devices: Forbidden: changing status.devices requires resource="resourceclaims/driver", verb="[arbitrary-node:patch]" permission: resourceclaims.resource.k8s.io "a" is forbidden: User "system:serviceaccount:ns:web" cannot arbitrary-node:patch resource "resourceclaims/driver" in API group "resource.k8s.io" in the namespace "ns""#
            ]
        );
        let both = refused(&nobody, "n1", &said, &bound);
        assert_eq!(both.len(), 2);
        assert!(both[0].contains(
            r#"verb="[associated-node:patch arbitrary-node:patch]" permission: resourceclaims.resource.k8s.io "a" is forbidden: User "system:serviceaccount:ns:web" cannot associated-node:patch"#
        ));
    }

    #[test]
    fn what_is_deallocated_is_spoken_of_no_more() {
        let device = |driver| json!({"driver": driver, "pool": "p", "device": "d"});
        let old = claim(json!([device("a"), device("b")]));
        let mut without = old.clone();
        without["status"]["allocation"] = Value::Null;
        drop_deallocated(&mut without, &old);
        assert!(without["status"].get("devices").is_none());
        let binder = Granted(&[("patch", "binding", "")]);
        assert!(refused(&binder, "n1", &without, &old).is_empty());

        let mut fewer = old.clone();
        fewer["status"]["allocation"]["devices"]["results"] = json!([device("b")]);
        drop_deallocated(&mut fewer, &old);
        assert_eq!(fewer["status"]["devices"], json!([device("b")]));
    }
}
