//! Events about objects, as controllers tell them.

use client::Kind;
use client::events::EventType;
use k8s_openapi::api::core::v1::ObjectReference;

/// The reference of an event to its object.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    let resource = K::RESOURCE;
    let some = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
    ObjectReference {
        api_version: Some(resource.api_version()),
        kind: Some(resource.kind.into_owned()),
        namespace: some(object.namespace()),
        name: some(object.name()),
        uid: some(object.uid()),
        resource_version: some(object.resource_version()),
        field_path: None,
    }
}

/// Tells events in the name of one controller.
#[derive(Clone)]
pub struct Recorder(client::events::Recorder);

impl Recorder {
    pub fn new(recorder: client::events::Recorder) -> Self {
        Self(recorder)
    }

    /// Tells an event. `reason` is one word in CamelCase, `message` a sentence.
    pub fn event(
        &self,
        about: &ObjectReference,
        warning: bool,
        reason: &str,
        message: impl AsRef<str>,
    ) {
        let ty = if warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        self.0.event(about, ty, reason, message.as_ref());
    }
}
