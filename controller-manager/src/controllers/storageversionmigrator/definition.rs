//! The CustomResourceDefinition of a resource that is migrated: it says that it is, and forgets
//! the versions that nothing is stored in any more.

use client::{SlimMeta, slim_kind};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{GroupResource, Time};
use serde::Deserialize;
use serde_json::{Value, json};

const MIGRATING: &str = "StorageMigrating";

/// As much of a CustomResourceDefinition as migrations are about; its schemas are large.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Definition {
    pub metadata: SlimMeta,
    spec: Spec,
    status: Status,
}

slim_kind!(
    Definition,
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    cluster
);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    versions: Vec<Version>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Version {
    name: String,
    storage: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    conditions: Vec<Observed>,
    stored_versions: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Observed {
    r#type: String,
    status: String,
    message: String,
    observed_generation: i64,
}

/// What the definition of a resource is called, if it has one; those of Kubernetes' own do not.
pub fn name_of(resource: &GroupResource) -> String {
    format!("{}.{}", resource.resource, resource.group)
}

impl Definition {
    /// To be applied when a migration begins, unless it was.
    pub fn begun(&self, migration: &str, now: Timestamp) -> Option<Value> {
        let message = format!("Migration {migration} is running");
        let told = self.told().is_some_and(|told| {
            told.status == "True" && told.message == message && self.is_seen(told)
        });
        let condition = self.condition("True", "MigrationRunning", &message, now);
        (!told).then(|| self.applied(condition, self.stored()))
    }

    /// To be applied when a migration has ended, unless it was: what was told then speaks of the
    /// generation of that moment, which need not be the one that the migration began with.
    ///
    /// Stored versions other than today's are forgotten only if the definition is still the one
    /// that the migration began with: a change may have brought another storage version, in
    /// which some objects are by now. Nor are they if it failed, unlike upstream's: objects that
    /// were not reached would be lost with the version that they are stored in.
    pub fn ended(&self, succeeded: bool, now: Timestamp) -> Option<Value> {
        let begun = self.told();
        if begun.is_some_and(|begun| begun.status == "False") {
            return None;
        }
        let unchanged = begun.is_some_and(|begun| self.is_seen(begun));
        let (reason, message) = match (succeeded, unchanged) {
            (true, true) => (
                "MigrationSucceeded",
                "The migration has succeeded and the stored versions have been updated",
            ),
            (true, false) => (
                "MigrationSucceeded",
                "The migration has succeeded but the stored versions have not been updated due to a generation mismatch",
            ),
            (false, _) => ("MigrationFailed", "The migration has failed"),
        };
        let storage = self.spec.versions.iter().find(|v| v.storage);
        let stored = match storage.filter(|_| succeeded && unchanged) {
            Some(storage) => vec![storage.name.as_str()],
            None => self.stored(),
        };
        let condition = self.condition("False", reason, message, now);
        Some(self.applied(condition, stored))
    }

    fn told(&self) -> Option<&Observed> {
        let mut conditions = self.status.conditions.iter();
        conditions.find(|c| c.r#type == MIGRATING)
    }

    fn is_seen(&self, told: &Observed) -> bool {
        told.observed_generation == self.metadata.generation
    }

    fn stored(&self) -> Vec<&str> {
        let versions = self.status.stored_versions.iter();
        versions.map(String::as_str).collect()
    }

    fn condition(&self, status: &str, reason: &str, message: &str, now: Timestamp) -> Value {
        json!({
            "type": MIGRATING, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": Time(now), "observedGeneration": self.metadata.generation,
        })
    }

    /// With the revision that was read: what is said of a generation must not be said of another.
    ///
    /// And always with stored versions, unlike upstream's. They are ours once a migration has
    /// changed them, and what its owner does not say again is taken away: the next migration
    /// would begin with forgetting what is to be migrated.
    fn applied(&self, condition: Value, stored: Vec<&str>) -> Value {
        let mut applied = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {
                "name": self.metadata.name, "resourceVersion": self.metadata.resource_version,
            },
            "status": {"conditions": [condition]},
        });
        // None at all are not valid.
        if !stored.is_empty() {
            applied["status"]["storedVersions"] = json!(stored);
        }
        applied
    }
}
