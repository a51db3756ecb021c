//! Jobs: unless the user manages it, the selector is made from the job's uid, so that a job
//! can never count another's pods.

use api::same::By;
use api::validation;
use meta::field::ErrorList;
use serde_json::{Value, json};

use super::as_read::label_like_the_template;
use super::deletion::GarbageCollection;
use super::generic::{keep_all_but_status, spec_changed};
use super::object_meta::{child_mut, keep, meta, meta_mut, set_generation};
use super::strategy::{Context, Strategy};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const UID_LABELS: [&str; 2] = ["controller-uid", CONTROLLER_UID];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

#[derive(Debug)]
pub struct Jobs;

fn message() -> &'static schema::Message {
    schema::kind("batch", "v1", "Job").expect("the schema has jobs")
}

fn generate_selector(job: &mut Value) {
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let (name, uid) = (meta(job).name().to_owned(), meta(job).uid().to_owned());
    let spec = &mut job["spec"];
    let labels = child_mut(&mut spec["template"]["metadata"], "labels");
    for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
        for key in keys {
            labels.entry(key).or_insert_with(|| json!(value));
        }
    }
    child_mut(&mut spec["selector"], "matchLabels")
        .entry(CONTROLLER_UID)
        .or_insert_with(|| json!(uid));
}

impl Strategy for Jobs {
    fn prepare_create(&self, _cx: &Context<'_>, job: &mut Value) {
        // Labels that the client gave the pods are the job's, with those that are generated.
        let shared = label_like_the_template(job);
        generate_selector(job);
        if shared {
            let labels = job["spec"]["template"]["metadata"]["labels"].clone();
            meta_mut(job).insert("labels".into(), labels);
        }
        if let Some(members) = job.as_object_mut() {
            members.remove("status");
        }
        set_generation(job, 1);
    }

    fn validate_create(&self, _cx: &Context<'_>, job: &Value) -> ErrorList {
        validation::create("batch", "Job", true, job)
    }

    fn prepare_update(&self, cx: &Context<'_>, job: &mut Value, old: &Value) {
        if !cx.subresource.is_empty() {
            keep_all_but_status(job, old);
            return;
        }
        keep(job, old, "status");
        if spec_changed(message(), job, old, By::Meaning) {
            set_generation(job, meta(old).generation() + 1);
        }
    }

    fn validate_update(&self, cx: &Context<'_>, job: &Value, old: &Value) -> ErrorList {
        if cx.subresource.is_empty() {
            validation::update("batch", "Job", job, old)
        } else {
            validation::update_status("batch", "Job", job, old)
        }
    }

    fn garbage_collection(&self) -> GarbageCollection {
        GarbageCollection::Orphan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selector_is_the_uid() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {}}});
        generate_selector(&mut job);
        assert_eq!(
            job["spec"]["selector"]["matchLabels"],
            json!({CONTROLLER_UID: "u"})
        );
        let labels = &job["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels["job-name"], "j");
        assert_eq!(labels["controller-uid"], "u");
        label_like_the_template(&mut job);
        assert_eq!(job["metadata"]["labels"]["job-name"], "j");
        let mut own = json!({"metadata": {"labels": {"a": "b"}}, "spec": job["spec"]});
        label_like_the_template(&mut own);
        assert_eq!(own["metadata"]["labels"], json!({"a": "b"}));
        let mut manual = json!({"spec": {"manualSelector": true}});
        generate_selector(&mut manual);
        assert_eq!(manual, json!({"spec": {"manualSelector": true}}));
    }
}
