//! RuntimeClass: a pod of a class carries the class's overhead and goes where the class runs.

use std::sync::Arc;

use super::chain::Deps;
use super::*;
use crate::authz::node::items;
use crate::lookup::Lookup;

pub struct RuntimeClass {
    lookup: Arc<dyn Lookup>,
}

impl RuntimeClass {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
        }
    }

    async fn class(&self, a: &Attributes<'_>, pod: &Value) -> Result<Option<Arc<Value>>, Status> {
        let Some(name) = pod["spec"]["runtimeClassName"].as_str() else {
            return Ok(None);
        };
        let unusable = match name {
            "" => Some("resource name may not be empty".to_owned()),
            name => {
                let why = meta::validation::path_segment_name(name);
                (!why.is_empty()).then(|| format!("invalid resource name {name:?}: {why:?}"))
            }
        };
        if let Some(message) = unusable {
            // What upstream's client says of itself.
            return Err(Status {
                code: 500,
                message,
                ..Status::default()
            });
        }
        let (group, resource) = ("node.k8s.io", "runtimeclasses");
        let found = match self.lookup.get(group, resource, "", name) {
            Some(found) => Some(found),
            None => self.lookup.get_fresh(group, resource, "", name).await?,
        };
        match found {
            Some(class) => Ok(Some(class)),
            None => {
                let why = format!("pod rejected: RuntimeClass {name:?} not found");
                Err(a.forbidden(Some(pod), why))
            }
        }
    }

    async fn admit(&self, a: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        let Some(class) = self.class(a, pod).await? else {
            return Ok(());
        };
        let overhead = &class["overhead"]["podFixed"];
        if class["overhead"].is_object() {
            let given = &pod["spec"]["overhead"];
            let is_set = given.as_object().is_some_and(|o| !o.is_empty());
            if is_set && !same_quantities(given, overhead) {
                let why =
                    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
                return Err(a.forbidden(Some(pod), why));
            }
            pod["spec"]["overhead"] = overhead.clone();
        }
        let scheduling = &class["scheduling"];
        for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
            let given = &pod["spec"]["nodeSelector"][key];
            if let Some(given) = given.as_str()
                && *value != given
            {
                let value = value.as_str().unwrap_or_default();
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; \
                     pod.spec.nodeSelector[{key}] = {given}"
                );
                return Err(a.forbidden(Some(pod), why));
            }
            if !pod["spec"]["nodeSelector"].is_object() {
                pod["spec"]["nodeSelector"] = Value::Object(Default::default());
            }
            pod["spec"]["nodeSelector"][key] = value.clone();
        }
        if scheduling.is_object() {
            let all: Vec<Value> = items(&pod["spec"]["tolerations"])
                .chain(items(&scheduling["tolerations"]))
                .cloned()
                .collect();
            if !all.is_empty() {
                pod["spec"]["tolerations"] = merge(&all).into();
            }
        }
        Ok(())
    }

    async fn check(&self, a: &Attributes<'_>, pod: &Value) -> Result<(), Status> {
        let class = self.class(a, pod).await?;
        let given = &pod["spec"]["overhead"];
        let defined = class.as_ref().filter(|c| c["overhead"].is_object());
        match defined {
            Some(class) if !same_quantities(given, &class["overhead"]["podFixed"]) => {
                let why =
                    "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
                Err(a.forbidden(Some(pod), why))
            }
            None if given.is_object() => {
                let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                Err(a.forbidden(Some(pod), why))
            }
            _ => Ok(()),
        }
    }
}

/// Whether two resource lists say the same, `1` and `1000m` alike.
fn same_quantities(a: &Value, b: &Value) -> bool {
    let quantity = |v: &Value| v.as_str().and_then(|s| s.parse::<meta::Quantity>().ok());
    let empty = serde_json::Map::new();
    let (a, b) = (
        a.as_object().unwrap_or(&empty),
        b.as_object().unwrap_or(&empty),
    );
    a.len() == b.len()
        && a.iter().all(|(name, value)| {
            b.get(name)
                .is_some_and(|other| match (quantity(value), quantity(other)) {
                    (Some(value), Some(other)) => value == other,
                    _ => value == other,
                })
        })
}

/// The tolerations without those that another one includes.
fn merge(all: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for (i, toleration) in all.iter().enumerate() {
        let redundant = merged.iter().any(|m| includes(m, toleration))
            || all[i + 1..]
                .iter()
                .any(|later| later != toleration && includes(later, toleration));
        if !redundant {
            merged.push(toleration.clone());
        }
    }
    merged
}

/// Whether `wide` tolerates everything that `narrow` does.
fn includes(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let (wide_key, wide_operator) = (text(wide, "/key"), text(wide, "/operator"));
    if text(narrow, "/key") != wide_key && !(wide_key.is_empty() && wide_operator == "Exists") {
        return false;
    }
    let effect = text(wide, "/effect");
    if !effect.is_empty() && text(narrow, "/effect") != effect {
        return false;
    }
    if effect == "NoExecute"
        && let Some(wide_seconds) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"]
            .as_i64()
            .is_none_or(|seconds| seconds > wide_seconds)
    {
        return false;
    }
    match wide_operator {
        "Equal" | "" => {
            text(narrow, "/operator") == "Equal" && text(narrow, "/value") == text(wide, "/value")
        }
        "Exists" => true,
        _ => false,
    }
}

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        match object {
            Some(pod) if attributes.is("", "pods") => Box::pin(self.admit(attributes, pod)),
            _ => ready(Ok(())),
        }
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        match object {
            Some(pod) if attributes.is("", "pods") => Box::pin(self.check(attributes, pod)),
            _ => ready(Ok(())),
        }
    }
}
