//! StorageObjectInUseProtection: the finalizers that keep volumes, claims and attribute
//! classes while something uses them.

use super::*;

pub struct StorageObjectInUseProtection;

fn finalizer(resource: &Resource) -> Option<&'static str> {
    match (resource.group, resource.plural) {
        ("", "persistentvolumes") => Some("kubernetes.io/pv-protection"),
        ("", "persistentvolumeclaims") => Some("kubernetes.io/pvc-protection"),
        ("storage.k8s.io", "volumeattributesclasses") => Some("kubernetes.io/vac-protection"),
        _ => None,
    }
}

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let (Some(object), Some(finalizer), "") = (
            object,
            finalizer(attributes.resource),
            attributes.subresource,
        ) {
            let finalizers = list_mut(&mut object["metadata"], "finalizers");
            if !finalizers.iter().any(|f| f == finalizer) {
                finalizers.push(finalizer.into());
            }
        }
        ready(Ok(()))
    }
}
