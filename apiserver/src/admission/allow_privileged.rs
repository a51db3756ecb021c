//! Not a plugin that a flag names, but asked like one: without `--allow-privileged` no pod and
//! no template has a privileged container. Upstream has it in validation, so the answer is 422.

use meta::field::{ErrorList, FieldError, Path};
use meta::{GroupKind, field};

use super::*;
use crate::authz::node::items;

pub struct NoPrivileged;

/// The pod's spec in an object, and where it is.
fn spec<'a>(resource: &Resource, object: &'a Value) -> Option<(&'a Value, Path)> {
    let path: &[&'static str] = match (resource.group, resource.plural) {
        ("", "pods") => &["spec"],
        ("", "podtemplates") => &["template", "spec"],
        ("batch", "cronjobs") => &["spec", "jobTemplate", "spec", "template", "spec"],
        ("", "replicationcontrollers") | ("batch", "jobs") | ("apps", _) => {
            &["spec", "template", "spec"]
        }
        _ => return None,
    };
    let at = |value: &'a Value, name: &&str| value.get(*name);
    let found = path.iter().try_fold(object, at)?;
    let place = path.iter().fold(Path::root(), |at, name| at.child(*name));
    Some((found, place))
}

fn faults(spec: &Value, place: &Path) -> ErrorList {
    let mut errors = field::ErrorList::new();
    let is_host = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let mut host_process = is_host(&spec["securityContext"]);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (i, container) in items(&spec[list]).enumerate() {
            let context = &container["securityContext"];
            host_process |= is_host(context);
            if context["privileged"] == true {
                let at = place.child(list).index(i).child("securityContext");
                let at = at.child("privileged");
                errors.push(FieldError::forbidden(&at, "disallowed by cluster policy"));
            }
        }
    }
    if host_process {
        let why = "hostProcess containers are disallowed by cluster policy";
        errors.push(FieldError::forbidden(place, why));
    }
    errors
}

impl Plugin for NoPrivileged {
    fn name(&self) -> &'static str {
        "NoPrivileged"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let Some(object) = object.filter(|_| matches!(a.subresource, "" | "ephemeralcontainers"))
        else {
            return ready(Ok(()));
        };
        let errors = spec(a.resource, object).map(|(spec, place)| faults(spec, &place));
        let errors = errors.unwrap_or_default();
        if errors.is_empty() {
            return ready(Ok(()));
        }
        let kind = GroupKind::new(a.resource.group, a.resource.kind);
        ready(Err(Status::invalid(&kind, a.name, &errors)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn privileges_are_found_in_pods_and_templates() {
        let pod = json!({
            "initContainers": [{"name": "i", "securityContext": {"privileged": true}}],
            "containers": [{"name": "c", "securityContext": {"windowsOptions": {"hostProcess": true}}}],
        });
        let cronjobs = schema::resources()
            .iter()
            .find(|r| r.plural == "cronjobs")
            .unwrap();
        let object = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}});
        let (found, place) = spec(cronjobs, &object).unwrap();
        let told: Vec<String> = faults(found, &place)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "spec.jobTemplate.spec.template.spec.initContainers[0].securityContext.privileged: Forbidden: disallowed by cluster policy",
                "spec.jobTemplate.spec.template.spec: Forbidden: hostProcess containers are disallowed by cluster policy",
            ]
        );
        assert!(faults(&json!({"containers": [{"name": "c"}]}), &place).is_empty());
    }
}
