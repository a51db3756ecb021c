//! PodGroupProtection and PodGroupWorkloadExists: a group has the finalizer that keeps it
//! while it has pods, and the template that it names (KEP-4671).

use std::sync::Arc;

use super::chain::Deps;
use super::*;
use crate::lookup::Lookup;

const GROUP: &str = "scheduling.k8s.io";
const FINALIZER: &str = "scheduling.k8s.io/podgroup-protection";

pub struct Protection;

impl Plugin for Protection {
    fn name(&self) -> &'static str {
        "PodGroupProtection"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(group) = object.filter(|_| attributes.is(GROUP, "podgroups")) {
            let finalizers = list_mut(&mut group["metadata"], "finalizers");
            if !finalizers.iter().any(|f| f == FINALIZER) {
                finalizers.push(FINALIZER.into());
            }
        }
        ready(Ok(()))
    }
}

pub struct WorkloadExists {
    lookup: Arc<dyn Lookup>,
}

impl WorkloadExists {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
        }
    }

    async fn check(&self, a: &Attributes<'_>, group: &Value) -> Result<(), Status> {
        let of = &group["spec"]["podGroupTemplateRef"]["workload"];
        if !of.is_object() {
            return Ok(());
        }
        let (name, template) = (text(of, "/workloadName"), text(of, "/podGroupTemplateName"));
        let found = match self.lookup.get(GROUP, "workloads", a.namespace, name) {
            Some(found) => Some(found),
            None => {
                let fresh = self.lookup.get_fresh(GROUP, "workloads", a.namespace, name);
                fresh.await?
            }
        };
        let Some(workload) = found else {
            let why = format!("PodGroup rejected: Workload {name:?} not found");
            return Err(a.forbidden(Some(group), why));
        };
        if !workload["metadata"]["deletionTimestamp"].is_null() {
            let why = format!("PodGroup rejected: Workload {name:?} is being deleted");
            return Err(a.forbidden(Some(group), why));
        }
        let templates = workload["spec"]["podGroupTemplates"].as_array();
        let mut templates = templates.into_iter().flatten();
        if templates.any(|known| known["name"] == template) {
            return Ok(());
        }
        let why = format!(
            "PodGroup rejected: PodGroupTemplate {template:?} not found in Workload {name:?}"
        );
        Err(a.forbidden(Some(group), why))
    }
}

impl Plugin for WorkloadExists {
    fn name(&self) -> &'static str {
        "PodGroupWorkloadExists"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        match object.filter(|_| attributes.is(GROUP, "podgroups")) {
            Some(group) => Box::pin(self.check(attributes, group)),
            None => ready(Ok(())),
        }
    }
}
