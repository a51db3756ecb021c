//! AppArmor profiles that are asked for by annotation, as was done before there was a field
//! (KEP-24): where there is a field, too, both must say the same.

use meta::field::ErrorList;
use serde_json::Value;

use super::at::At;

const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// `annotations` are those of the pod or of its template.
pub(super) fn contradictions(annotations: &At<'_>, spec: &At<'_>, errors: &mut ErrorList) {
    if spec.get("os").get("name").text() == "windows" {
        return;
    }
    let of_pod = spec.get("securityContext").get("appArmorProfile");
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get(list).items() {
            let key = format!("{ANNOTATION}{}", container.get("name").text());
            let Some(annotation) = annotations.raw(&key).and_then(Value::as_str) else {
                continue;
            };
            let own = container.get("securityContext").get("appArmorProfile");
            let profile = match own.is_set() {
                true => own,
                false => of_pod.moved(own.path),
            };
            contradiction(annotation, &profile, errors);
        }
    }
}

fn contradiction(annotation: &str, profile: &At<'_>, errors: &mut ErrorList) {
    let (kind, name) = (profile.get("type"), profile.get("localhostProfile"));
    let localhost = annotation.strip_prefix("localhost/");
    let same_type = match kind.text() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default",
        "Localhost" => localhost.is_some(),
        _ => return,
    };
    if !same_type {
        kind.forbidden(errors, "apparmor type in annotation and field must match");
    } else if kind.text() == "Localhost" && localhost != name.value().and_then(Value::as_str) {
        name.forbidden(
            errors,
            "apparmor profile in annotation and field must match",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotation_and_field_agree() {
        let wrong = |annotation: &str, profile: Value| {
            let annotations = json!({ format!("{ANNOTATION}a"): annotation });
            let spec = json!({"containers": [
                {"name": "b"},
                {"name": "a", "securityContext": {"appArmorProfile": profile}},
            ]});
            let mut errors = ErrorList::new();
            contradictions(&At::root(&annotations), &At::root(&spec), &mut errors);
            errors.iter().map(|e| e.field.clone()).collect::<Vec<_>>()
        };
        let at = |field: &str| {
            vec![format!(
                "containers[1].securityContext.appArmorProfile.{field}"
            )]
        };
        assert!(wrong("unconfined", json!({"type": "Unconfined"})).is_empty());
        assert_eq!(
            wrong("unconfined", json!({"type": "RuntimeDefault"})),
            at("type")
        );
        let local = |name: &str| json!({"type": "Localhost", "localhostProfile": name});
        assert!(wrong("localhost/p", local("p")).is_empty());
        assert_eq!(wrong("localhost/p", local("q")), at("localhostProfile"));
    }
}
