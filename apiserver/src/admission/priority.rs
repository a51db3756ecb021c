//! Priority: a pod's priority is its PriorityClass's, never the pod's own word.

use std::sync::Arc;

use super::chain::Deps;
use super::*;
use crate::lookup::Lookup;

const GROUP: &str = "scheduling.k8s.io";

pub struct Priority {
    lookup: Arc<dyn Lookup>,
    /// Whether groups of pods have priorities.
    groups: bool,
}

impl Priority {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
            groups: deps.gates.enabled("WorkloadAwarePreemption"),
        }
    }

    /// Of several the lowest, should two have become default at once.
    fn default_class(&self) -> Option<Arc<Value>> {
        self.lookup
            .list(GROUP, "priorityclasses", "")
            .into_iter()
            .filter(|class| class["globalDefault"] == true)
            .min_by_key(|class| class["value"].as_i64())
    }

    /// The class that a pod or group asks for, or the default one.
    fn class_of(&self, a: &Attributes<'_>, object: &Value) -> Result<Option<Arc<Value>>, Status> {
        let asked = text(object, "/spec/priorityClassName");
        if asked.is_empty() {
            return Ok(self.default_class());
        }
        let found = self.lookup.get(GROUP, "priorityclasses", "", asked);
        if found.is_none() {
            let why = format!("no PriorityClass with name {asked} was found");
            return Err(a.forbidden(Some(object), why));
        }
        Ok(found)
    }

    fn admit_group(&self, a: &Attributes<'_>, group: &mut Value) -> Result<(), Status> {
        let class = self.class_of(a, group)?;
        let value = class.as_ref().and_then(|class| class["value"].as_i64());
        let value = value.unwrap_or(0);
        if let Some(given) = group["spec"]["priority"].as_i64()
            && given != value
        {
            let why = format!(
                "priority set in the pod group ({given}) must match the priority computed \
                 ({value}) based on the priority class set in the spec"
            );
            return Err(a.forbidden(Some(group), why));
        }
        if let Some(class) = &class {
            group["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
        }
        group["spec"]["priority"] = value.into();
        Ok(())
    }

    fn admit_pod(&self, a: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if a.operation == Operation::Update {
            for field in ["priority", "preemptionPolicy"] {
                let old = a.old.map_or(&Value::Null, |old| &old["spec"][field]);
                if pod["spec"][field].is_null() && !old.is_null() {
                    pod["spec"][field] = old.clone();
                }
            }
            return Ok(());
        }
        let class = self.class_of(a, pod)?;
        let (value, policy) = match &class {
            Some(class) => (
                class["value"].as_i64().unwrap_or(0),
                class["preemptionPolicy"].clone(),
            ),
            None => (0, "PreemptLowerPriority".into()),
        };
        if let Some(given) = pod["spec"]["priority"].as_i64()
            && given != value
        {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; \
                 priority admission controller computed {value} from the given PriorityClass name"
            );
            return Err(a.forbidden(Some(pod), why));
        }
        if let (Some(given), Some(policy)) =
            (pod["spec"]["preemptionPolicy"].as_str(), policy.as_str())
            && given != policy
        {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; \
                 priority admission controller computed {policy} from the given PriorityClass name"
            );
            return Err(a.forbidden(Some(pod), why));
        }
        if let Some(class) = &class {
            pod["spec"]["priorityClassName"] = class["metadata"]["name"].clone();
        }
        pod["spec"]["priority"] = value.into();
        if !policy.is_null() {
            pod["spec"]["preemptionPolicy"] = policy;
        }
        Ok(())
    }
}

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        ready(match object {
            Some(pod) if attributes.is("", "pods") => self.admit_pod(attributes, pod),
            Some(group)
                if self.groups
                    && attributes.operation == Operation::Create
                    && attributes.is(GROUP, "podgroups") =>
            {
                self.admit_group(attributes, group)
            }
            _ => Ok(()),
        })
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(class) = object
            && attributes.is(GROUP, "priorityclasses")
            && class["globalDefault"] == true
            && let Some(default) = self.default_class()
        {
            let name = text(&default, "/metadata/name");
            if attributes.operation == Operation::Create || name != text(class, "/metadata/name") {
                let why = format!(
                    "PriorityClass {name} is already marked as default. Only one default can exist"
                );
                return ready(Err(attributes.forbidden(object, why)));
            }
        }
        ready(Ok(()))
    }
}
