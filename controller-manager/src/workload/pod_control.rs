//! Creates and deletes pods in the name of a controller's object, and tells events about it.

use std::fmt;

use client::expectations::Expectations;
use client::{Api, Client, DeleteOptions, Error, Object as _, ObjectKey};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod as FullPod};

use crate::events::Recorder;
use crate::kinds::Pod;

/// Writes pods.
#[derive(Clone)]
pub struct PodControl {
    pub api: Api<Pod>,
    full: Api<FullPod>,
    events: Recorder,
}

/// Whose pods they are.
pub struct Parent<'a> {
    pub key: &'a ObjectKey,
    /// Where events go.
    pub reference: ObjectReference,
    pub expectations: &'a Expectations<ObjectKey>,
}

/// A pod could not be deleted.
#[derive(Debug)]
pub struct DeleteError(Error);

impl fmt::Display for DeleteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unable to delete pods: {}", self.0)
    }
}

impl From<DeleteError> for Error {
    fn from(e: DeleteError) -> Self {
        e.0
    }
}

impl PodControl {
    pub fn new(client: &Client, events: Recorder) -> Self {
        Self {
            api: Api::all(client),
            full: Api::all(client),
            events,
        }
    }

    /// Creates pods in batches that double: when all of them fail for the same reason, such as
    /// a quota, only a few requests are wasted. Expects each of them first; what fails or is not
    /// tried any more is not expected. Returns the pods that were made, and the failure.
    pub async fn create(
        &self,
        parent: &Parent<'_>,
        pods: &[FullPod],
    ) -> (Vec<FullPod>, Option<Error>) {
        let mut made = Vec::with_capacity(pods.len());
        let mut rest = pods;
        let mut batch = 1;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch.min(rest.len()));
            let results = join_all(now.iter().map(|pod| self.create_one(parent, pod))).await;
            let mut failed = 0;
            let mut failure = None;
            for result in results {
                match result {
                    Ok(pod) => made.extend(pod),
                    Err(error) => {
                        failed += 1;
                        failure = Some(error);
                    }
                }
            }
            if failure.is_some() {
                parent
                    .expectations
                    .creations_observed(parent.key, failed + later.len());
                return (made, failure);
            }
            rest = later;
            batch *= 2;
        }
        (made, None)
    }

    /// One pod; `None` if its namespace is going away, and the parent with it.
    pub async fn create_one(
        &self,
        parent: &Parent<'_>,
        pod: &FullPod,
    ) -> Result<Option<FullPod>, Error> {
        match self.full.create(pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", created.name());
                self.events
                    .event(&parent.reference, false, "SuccessfulCreate", message);
                Ok(Some(created))
            }
            Err(e) if e.is_namespace_terminating() => Ok(None),
            Err(e) => {
                let message = format!("Error creating: {e}");
                self.events
                    .event(&parent.reference, true, "FailedCreate", message);
                Err(e)
            }
        }
    }

    /// Deletes pods, all at once. Those that are gone already are no failure.
    pub async fn delete<P: AsRef<Pod>>(
        &self,
        parent: &Parent<'_>,
        pods: &[P],
    ) -> Result<(), DeleteError> {
        let results = join_all(pods.iter().map(|pod| self.delete_one(parent, pod.as_ref()))).await;
        let mut failures = results.into_iter().filter_map(Result::err);
        failures
            .find(|e| !e.is_not_found())
            .map_or(Ok(()), |e| Err(DeleteError(e)))
    }

    async fn delete_one(&self, parent: &Parent<'_>, pod: &Pod) -> Result<(), Error> {
        let api = self.api.within(pod.namespace());
        let result = api.delete(pod.name(), &DeleteOptions::new()).await;
        match &result {
            Ok(()) => {
                let message = format!("Deleted pod: {}", pod.name());
                self.events
                    .event(&parent.reference, false, "SuccessfulDelete", message);
            }
            Err(e) => {
                parent.expectations.deletion_observed(parent.key, pod.uid());
                if !e.is_not_found() {
                    let message = format!("Error deleting: {e}");
                    self.events
                        .event(&parent.reference, true, "FailedDelete", message);
                }
            }
        }
        result
    }
}
