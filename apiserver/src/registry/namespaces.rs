//! Namespaces: they end in two steps. A deletion makes one `Terminating`; it is gone when
//! `spec.finalizers` is empty, which `namespaces/finalize` alone can do.

use api::validation;
use meta::field::ErrorList;
use serde_json::{Value, json};

use super::generic::keep_all_but_status;
use super::object_meta::keep;
use super::strategy::{Context, Strategy};

const FINALIZER: &str = "kubernetes";

#[derive(Debug)]
pub struct Namespaces;

fn finalizers(namespace: &Value) -> &[Value] {
    namespace["spec"]["finalizers"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

impl Strategy for Namespaces {
    fn prepare_create(&self, _cx: &Context<'_>, namespace: &mut Value) {
        namespace["status"] = json!({"phase": "Active"});
        let mut all = finalizers(namespace).to_vec();
        if !all.iter().any(|f| f == FINALIZER) {
            all.push(json!(FINALIZER));
        }
        namespace["spec"]["finalizers"] = Value::Array(all);
    }

    fn validate_create(&self, _cx: &Context<'_>, namespace: &Value) -> ErrorList {
        validation::create("", "Namespace", false, namespace)
    }

    fn prepare_update(&self, cx: &Context<'_>, namespace: &mut Value, old: &Value) {
        match cx.subresource {
            "status" => keep_all_but_status(namespace, old),
            "finalize" => keep(namespace, old, "status"),
            _ => {
                keep(namespace, old, "status");
                if !namespace["spec"].is_object() {
                    namespace["spec"] = json!({});
                }
                let before = old.get("spec").cloned().unwrap_or_default();
                keep(&mut namespace["spec"], &before, "finalizers");
            }
        }
    }

    fn validate_update(&self, cx: &Context<'_>, namespace: &Value, old: &Value) -> ErrorList {
        match cx.subresource {
            "status" => validation::update_status("", "Namespace", namespace, old),
            "finalize" => validation::update_part("", "Namespace", "finalize", namespace, old),
            _ => validation::update("", "Namespace", namespace, old),
        }
    }

    fn is_held(&self, namespace: &Value) -> bool {
        !finalizers(namespace).is_empty()
    }

    fn mark_deleting(&self, namespace: &mut Value) {
        namespace["status"]["phase"] = json!("Terminating");
        // Unlike other kinds, it has no grace period, not even one of 0.
        if let Some(metadata) = namespace["metadata"].as_object_mut() {
            metadata.remove("deletionGracePeriodSeconds");
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finalize_takes_finalizers() {
        let user = Default::default();
        let cx = |subresource| Context {
            group: "",
            verb: "update",
            user: &user,
            now: jiff::Timestamp::UNIX_EPOCH,
            dry_run: false,
            subresource,
            warnings: None,
        };
        let mut created = json!({"metadata": {"name": "a"}});
        Namespaces.prepare_create(&cx(""), &mut created);
        assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
        assert!(Namespaces.is_held(&created));

        let mut updated = json!({"metadata": {"name": "a"}, "spec": {}, "status": {"phase": "X"}});
        Namespaces.prepare_update(&cx(""), &mut updated, &created);
        assert_eq!(updated["spec"]["finalizers"], json!(["kubernetes"]));
        assert_eq!(updated["status"]["phase"], "Active");

        let mut finalized = json!({"metadata": {"name": "a"}, "spec": {}});
        Namespaces.prepare_update(&cx("finalize"), &mut finalized, &created);
        assert!(!Namespaces.is_held(&finalized));
        assert_eq!(finalized["status"]["phase"], "Active");
    }
}
