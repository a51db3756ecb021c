//! A Job's pods, out of its template: pure.

use std::collections::HashMap;
use std::sync::Arc;

use client::Object as _;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod as FullPod,
};

use super::plan::{FINALIZER, INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES, index_failures};
use super::policy::{self, Failure};
use super::{own_reference, plan};
use crate::kinds::Pod;
use crate::workload::pods::from_template;

const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// The server adds five characters.
const MAX_PREFIX: usize = 58;

/// A pod of the Job. `delayed` holds the last failed pod of each index that is tried again.
pub fn new(
    job: &Job,
    spec: &JobSpec,
    index: Option<usize>,
    delayed: &HashMap<usize, Arc<Pod>>,
) -> FullPod {
    let mut pod = from_template(
        job.namespace(),
        job.name(),
        Some(&spec.template),
        own_reference(job),
    );
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index.filter(|_| plan::is_indexed(spec)) else {
        return pod;
    };
    let suffix = format!("-{index}-");
    let mut prefix = job.name().to_owned();
    prefix.truncate(MAX_PREFIX - suffix.len());
    pod.metadata.generate_name = Some(prefix + &suffix);
    let text = index.to_string();
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), text.clone());
    if spec.backoff_limit_per_index.is_some() {
        let (mut counted, mut ignored) = (0, 0);
        if let Some(last) = delayed.get(&index) {
            (counted, ignored) = index_failures(last);
            match policy::failure(spec.pod_failure_policy.as_ref(), last) {
                Failure::Ignored => ignored += 1,
                _ => counted += 1,
            }
        }
        annotations.insert(INDEX_FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(INDEX_IGNORED_FAILURES.to_owned(), ignored.to_string());
        }
    }
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert(INDEX.to_owned(), text);
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(format!("{}-{index}", job.name()));
    pod_spec
        .init_containers
        .iter_mut()
        .flatten()
        .for_each(add_index_env);
    pod_spec.containers.iter_mut().for_each(add_index_env);
    pod
}

fn add_index_env(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|v| v.name == INDEX_ENV) {
        return;
    }
    env.push(EnvVar {
        name: INDEX_ENV.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{INDEX}']"),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}
