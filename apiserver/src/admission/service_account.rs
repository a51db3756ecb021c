//! ServiceAccount: every pod runs as one, with its token at the usual place.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::json;

use super::chain::Deps;
use super::*;
use crate::authz::node::{is_mirror, items, references_secrets_and_config_maps};
use crate::lookup::Lookup;

const DEFAULT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
/// The token controller's or publisher's default; see `authn/token_issuer.rs` for what this
/// number of seconds means.
const TOKEN_SECONDS: i64 = 3607;

pub struct ServiceAccount {
    lookup: Arc<dyn Lookup>,
    random: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl ServiceAccount {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
            random: deps.random.clone(),
        }
    }

    async fn account(&self, a: &Attributes<'_>, pod: &Value) -> Result<Arc<Value>, Status> {
        let name = text(pod, "/spec/serviceAccountName");
        let found = match self.lookup.get("", "serviceaccounts", a.namespace, name) {
            Some(found) => Ok(Some(found)),
            None => {
                self.lookup
                    .get_fresh("", "serviceaccounts", a.namespace, name)
                    .await
            }
        };
        let why = match found {
            Ok(Some(account)) => return Ok(account),
            Ok(None) => format!("serviceaccount {name:?} not found"),
            Err(status) => status.message,
        };
        let looking = format!("error looking up service account {}/{name}", a.namespace);
        Err(a.forbidden(Some(pod), format!("{looking}: {why}")))
    }

    async fn admit(&self, a: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if !a.is("", "pods") || a.operation != Operation::Create || is_mirror(pod) {
            return self.check(a, pod).await;
        }
        if text(pod, "/spec/serviceAccountName").is_empty() {
            pod["spec"]["serviceAccountName"] = DEFAULT.into();
            // The old name of the field.
            pod["spec"]["serviceAccount"] = DEFAULT.into();
        }
        let account = self.account(a, pod).await?;
        let automount = pod["spec"]["automountServiceAccountToken"]
            .as_bool()
            .or_else(|| account["automountServiceAccountToken"].as_bool())
            .unwrap_or(true);
        if automount {
            mount_token(pod, &*self.random);
        }
        let pull_secrets = account["imagePullSecrets"].as_array();
        if let Some(secrets) = pull_secrets.filter(|s| !s.is_empty())
            && items(&pod["spec"]["imagePullSecrets"]).next().is_none()
        {
            let names = secrets.iter().map(|s| json!({"name": s["name"]}));
            pod["spec"]["imagePullSecrets"] = names.collect();
        }
        self.check(a, pod).await
    }

    async fn check(&self, a: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
        let forbidden = |why: String| a.forbidden(Some(pod), why);
        let ephemeral =
            a.operation == Operation::Update && a.is_sub("", "pods", "ephemeralcontainers");
        let create = a.operation == Operation::Create && a.is("", "pods");
        if !create && !ephemeral {
            return Ok(());
        }
        if create && is_mirror(pod) {
            return check_mirror(pod).map_err(|why| forbidden(why.to_owned()));
        }
        if text(pod, "/spec/serviceAccountName").is_empty() {
            let name = text(pod, "/metadata/name");
            let pod = format!("{}/{name}", a.namespace);
            return Err(forbidden(format!(
                "no service account specified for pod {pod}"
            )));
        }
        let account = self.account(a, pod).await?;
        let enforced = account["metadata"]["annotations"][ENFORCE_MOUNTABLE].as_str();
        if enforced.is_some_and(|v| matches!(v, "1" | "t" | "T" | "true" | "TRUE" | "True")) {
            limit_secrets(&account, pod, ephemeral).map_err(forbidden)?;
        }
        Ok(())
    }
}

/// A mirror pod is the kubelet's word: it must not lend it rights.
fn check_mirror(pod: &Value) -> Result<(), &'static str> {
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Err("a mirror pod may not reference service accounts");
    }
    if references_secrets_and_config_maps(pod).0 {
        return Err("a mirror pod may not reference secrets");
    }
    let token = items(&pod["spec"]["volumes"])
        .flat_map(|v| items(&v["projected"]["sources"]))
        .any(|source| source["serviceAccountToken"].is_object());
    if token {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// With the annotation, a pod names only secrets that its account lists.
fn limit_secrets(account: &Value, pod: &Value, ephemeral: bool) -> Result<(), String> {
    let name = text(account, "/metadata/name");
    let named = |list: &str| -> HashSet<&str> {
        items(&account[list])
            .filter_map(|secret| secret["name"].as_str())
            .collect()
    };
    let (secrets, pull_secrets) = (named("secrets"), named("imagePullSecrets"));
    let listed = |list: &HashSet<&str>, secret: &Value| {
        secret.as_str().is_some_and(|name| list.contains(name))
    };
    let refused = |what: String| {
        Err(format!(
            "{what} is not allowed because service account {name} does not reference that secret"
        ))
    };
    let kinds: &[(&str, &str)] = if ephemeral {
        &[("ephemeralContainers", "ephemeral container")]
    } else {
        &[
            ("initContainers", "init container"),
            ("containers", "container"),
        ]
    };
    if !ephemeral {
        for volume in items(&pod["spec"]["volumes"]) {
            let secret = &volume["secret"]["secretName"];
            if volume["secret"].is_object() && !listed(&secrets, secret) {
                return refused(format!("volume with secret.secretName={secret}"));
            }
        }
    }
    for (field, kind) in kinds {
        for container in items(&pod["spec"][*field]) {
            let container_name = text(container, "/name");
            for variable in items(&container["env"]) {
                let secret = &variable["valueFrom"]["secretKeyRef"];
                if secret.is_object() && !listed(&secrets, &secret["name"]) {
                    return refused(format!(
                        "{kind} {container_name} with envVar {} referencing secret.secretName={}",
                        text(variable, "/name"),
                        secret["name"]
                    ));
                }
            }
            for source in items(&container["envFrom"]) {
                let secret = &source["secretRef"];
                if secret.is_object() && !listed(&secrets, &secret["name"]) {
                    return refused(format!(
                        "{kind} {container_name} with envFrom referencing secret.secretName={}",
                        secret["name"]
                    ));
                }
            }
        }
    }
    if !ephemeral {
        for (i, secret) in items(&pod["spec"]["imagePullSecrets"]).enumerate() {
            if !listed(&pull_secrets, &secret["name"]) {
                return Err(format!(
                    "imagePullSecrets[{i}].name={} is not allowed because service account {name} \
                     does not reference that imagePullSecret",
                    secret["name"]
                ));
            }
        }
    }
    Ok(())
}

/// Adds the projected volume with token, CA and namespace, and its mount in every container
/// that has nothing at that path.
fn mount_token(pod: &mut Value, random: &dyn Fn() -> u64) {
    let existing = items(&pod["spec"]["volumes"])
        .filter_map(|v| v["name"].as_str())
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let name = existing
        .clone()
        .unwrap_or_else(|| meta::name_generator::generate_name(VOLUME_PREFIX, random));
    let mut needed = false;
    for field in ["initContainers", "containers"] {
        for container in items_mut(&mut pod["spec"], field) {
            if items(&container["volumeMounts"]).any(|m| m["mountPath"] == MOUNT_PATH) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            list_mut(container, "volumeMounts").push(mount);
            needed = true;
        }
    }
    if existing.is_none() && needed {
        list_mut(&mut pod["spec"], "volumes").push(token_volume(&name));
    }
}

/// With its defaults filled in: defaulting has already happened.
fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
                {"downwardAPI": {
                    "items": [{
                        "path": "namespace",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    }],
                }},
            ],
            "defaultMode": 0o644,
        },
    })
}

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        match object {
            Some(pod) if attributes.is("", "pods") && attributes.operation == Operation::Create => {
                Box::pin(self.admit(attributes, pod))
            }
            _ => ready(Ok(())),
        }
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        match object {
            Some(pod) => Box::pin(self.check(attributes, pod)),
            None => ready(Ok(())),
        }
    }
}
