//! Options of requests, as query parameters and bodies.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::Value;

/// What may stand in a query or a path segment as it is.
const KEEP: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

pub(super) fn encode(s: &str) -> String {
    utf8_percent_encode(s, KEEP).to_string()
}

/// Query parameters in the making.
#[derive(Default)]
pub(super) struct Query(String);

impl Query {
    pub fn add(&mut self, key: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(&encode(value));
    }

    pub fn add_some(&mut self, key: &str, value: &Option<impl ToString>) {
        if let Some(value) = value {
            self.add(key, &value.to_string());
        }
    }

    pub fn append_to(self, mut path: String) -> String {
        path.push_str(&self.0);
        path
    }
}

/// Which objects to list or watch, and from which revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// Objects per page.
    pub limit: Option<u32>,
    /// Where the next page begins.
    pub continue_token: Option<String>,
    /// `None`: the newest. `0`: whatever the server has at hand.
    pub resource_version: Option<String>,
    /// `Exact` or `NotOlderThan`.
    pub resource_version_match: Option<&'static str>,
    /// The server ends the request after so many seconds.
    pub timeout_seconds: Option<u32>,
    /// Watch: ask for bookmarks.
    pub allow_watch_bookmarks: bool,
    /// Watch: begin with what exists, then send a bookmark (KEP-3157).
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// All objects, newest state.
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn labels(mut self, selector: impl ToString) -> Self {
        self.label_selector = Some(selector.to_string()).filter(|s| !s.is_empty());
        self
    }

    #[must_use]
    pub fn fields(mut self, selector: impl ToString) -> Self {
        self.field_selector = Some(selector.to_string()).filter(|s| !s.is_empty());
        self
    }

    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    #[must_use]
    pub fn at(mut self, resource_version: impl Into<String>) -> Self {
        self.resource_version = Some(resource_version.into());
        self
    }

    pub(super) fn query(&self, watch: bool) -> Query {
        let mut q = Query::default();
        if watch {
            q.add("watch", "true");
            if self.allow_watch_bookmarks {
                q.add("allowWatchBookmarks", "true");
            }
            q.add_some("sendInitialEvents", &self.send_initial_events);
        }
        q.add_some("labelSelector", &self.label_selector);
        q.add_some("fieldSelector", &self.field_selector);
        q.add_some("limit", &self.limit);
        q.add_some("continue", &self.continue_token);
        q.add_some("resourceVersion", &self.resource_version);
        q.add_some("resourceVersionMatch", &self.resource_version_match);
        q.add_some("timeoutSeconds", &self.timeout_seconds);
        q
    }
}

/// Options of create and replace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Go through everything but store nothing.
    pub dry_run: bool,
    /// Owner of the fields; the server takes the user agent's first part if absent.
    pub field_manager: Option<String>,
    /// `Ignore`, `Warn` or `Strict`.
    pub field_validation: Option<&'static str>,
}

impl WriteOptions {
    pub(super) fn query(&self) -> Query {
        let mut q = Query::default();
        if self.dry_run {
            q.add("dryRun", "All");
        }
        q.add_some("fieldManager", &self.field_manager);
        q.add_some("fieldValidation", &self.field_validation);
        q
    }
}

/// Options of patch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatchOptions {
    pub write: WriteOptions,
    /// Server-side apply: take fields away from other managers.
    pub force: bool,
}

/// A change, in one of the API's patch formats.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch<B = Value> {
    /// RFC 6902: an array of operations.
    Json(B),
    /// RFC 7386.
    Merge(B),
    /// Kubernetes' own: lists are merged by their keys. Built-in kinds only.
    Strategic(B),
    /// Server-side apply; needs [`WriteOptions::field_manager`].
    Apply(B),
}

impl Patch {
    /// A merge patch out of anything that serializes.
    pub fn merge(value: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::to_value(value).map(Self::Merge)
    }
}

impl<B> Patch<B> {
    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json-patch+json",
            Self::Merge(_) => "application/merge-patch+json",
            Self::Strategic(_) => "application/strategic-merge-patch+json",
            // JSON is YAML.
            Self::Apply(_) => "application/apply-patch+yaml",
        }
    }

    pub(super) fn value(&self) -> &B {
        match self {
            Self::Json(v) | Self::Merge(v) | Self::Strategic(v) | Self::Apply(v) => v,
        }
    }
}

/// What becomes of an object's dependents when it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// Options of delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds; 0 deletes at once.
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    /// Only if the object is this very one.
    pub uid: Option<String>,
    /// Only if the object has not changed.
    pub resource_version: Option<String>,
    pub dry_run: bool,
}

impl DeleteOptions {
    /// With the kind's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if the object has this UID.
    pub fn with_uid(uid: impl Into<String>) -> Self {
        Self {
            uid: Some(uid.into()),
            ..Self::default()
        }
    }

    /// At once, without grace.
    #[must_use]
    pub fn now(mut self) -> Self {
        self.grace_period_seconds = Some(0);
        self
    }

    #[must_use]
    pub fn grace_period(mut self, seconds: i64) -> Self {
        self.grace_period_seconds = Some(seconds);
        self
    }

    #[must_use]
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = Some(propagation);
        self
    }

    pub(super) fn body(&self) -> Value {
        let mut body = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(p) = self.propagation {
            body["propagationPolicy"] = format!("{p:?}").into();
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(rv) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = rv.as_str().into();
        }
        if self.dry_run {
            body["dryRun"] = serde_json::json!(["All"]);
        }
        body
    }
}
