//! The options that requests carry besides their object: read from the query (or, for
//! DELETE, the body), defaulted and validated as apimachinery does it.
//!
//! What must not be here: what the options make the registry do.

use std::time::Duration;

use meta::{ErrorList, FieldError, GroupKind, Path, Status};
use serde::Deserialize;
use serde_json::Value;

use crate::http::query::Query;

/// `?dryRun=All`: everything but the write.
const DRY_RUN_ALL: &str = "All";

/// What strict decoding does with unknown and duplicate fields (`?fieldValidation=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    /// A `Warning` header per field.
    #[default]
    Warn,
    /// 400.
    Strict,
}

/// `CreateOptions`, `UpdateOptions` and `PatchOptions` in one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    pub field_manager: String,
    /// Server-side apply only.
    pub force: Option<bool>,
}

/// How a PATCH body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    pub const ALL: [PatchType; 4] = [
        PatchType::Json,
        PatchType::Merge,
        PatchType::Strategic,
        PatchType::Apply,
    ];

    pub fn media_type(self) -> &'static str {
        match self {
            PatchType::Json => "application/json-patch+json",
            PatchType::Merge => "application/merge-patch+json",
            PatchType::Strategic => "application/strategic-merge-patch+json",
            PatchType::Apply => "application/apply-patch+yaml",
        }
    }
}

impl WriteOptions {
    /// `kind` is `CreateOptions` or `UpdateOptions`.
    pub fn from_query(query: &Query, kind: &str) -> Result<WriteOptions, Status> {
        let mut errs = ErrorList::default();
        let options = Self::read(query, &mut errs);
        invalid(kind, errs)?;
        Ok(options)
    }

    pub fn for_patch(query: &Query, patch: PatchType) -> Result<WriteOptions, Status> {
        let mut errs = ErrorList::default();
        let force = query.boolean("force");
        if patch == PatchType::Apply {
            if query.text("fieldManager").is_empty() {
                errs.push(FieldError::required(
                    &Path::new("fieldManager"),
                    "is required for apply patch",
                ));
            }
        } else if force.is_some() {
            errs.push(FieldError::forbidden(
                &Path::new("force"),
                "may not be specified for non-apply patch",
            ));
        }
        let options = Self::read(query, &mut errs);
        invalid("PatchOptions", errs)?;
        Ok(WriteOptions { force, ..options })
    }

    fn read(query: &Query, errs: &mut ErrorList) -> WriteOptions {
        let field_manager = query.text("fieldManager");
        errs.0
            .extend(api::validation::field_manager(&field_manager, &Path::new("fieldManager")).0);
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        validate_dry_run(&dry_run, errs);
        let field_validation = match query.get("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                errs.push(FieldError::not_supported(
                    &Path::new("fieldValidation"),
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                ));
                FieldValidation::Warn
            }
        };
        WriteOptions {
            dry_run: !dry_run.is_empty(),
            field_validation,
            field_manager,
            force: None,
        }
    }
}

fn validate_dry_run(dry_run: &[&str], errs: &mut ErrorList) {
    if dry_run.iter().any(|v| *v != DRY_RUN_ALL) {
        errs.push(FieldError::not_supported(
            &Path::new("dryRun"),
            meta::field::BadValue::json(&dry_run),
            &[DRY_RUN_ALL],
        ));
    }
}

fn invalid(kind: &str, errs: ErrorList) -> Result<(), Status> {
    if errs.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(
        &GroupKind::new("meta.k8s.io", kind),
        "",
        &errs,
    ))
}

/// What becomes of an object's dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// `DeleteOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds; negative ones count as 1.
    pub grace_period: Option<i64>,
    pub preconditions: Preconditions,
    pub orphan_dependents: Option<bool>,
    pub propagation: Option<Propagation>,
    pub dry_run: bool,
}

/// As `DeleteOptions` are on the wire.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireDeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    orphan_dependents: Option<bool>,
    propagation_policy: Option<String>,
    dry_run: Option<Vec<String>>,
}

impl DeleteOptions {
    pub fn from_query(query: &Query) -> Result<DeleteOptions, Status> {
        let text = |name: &str| {
            let value = query.get(name).filter(|value| !value.is_empty());
            value.map(str::to_owned)
        };
        Self::validated(WireDeleteOptions {
            grace_period_seconds: query
                .integer("gracePeriodSeconds")
                .map_err(|e| Status::bad_request(e.to_string()))?,
            preconditions: Some(Preconditions {
                uid: text("uid"),
                resource_version: text("resourceVersion"),
            }),
            orphan_dependents: query.boolean("orphanDependents"),
            propagation_policy: query.get("propagationPolicy").map(str::to_owned),
            dry_run: Some(query.all("dryRun").map(str::to_owned).collect()),
        })
    }

    /// From a decoded body.
    pub fn from_value(value: Value) -> Result<DeleteOptions, Status> {
        Self::validated(
            serde_json::from_value(value).map_err(|e| Status::bad_request(e.to_string()))?,
        )
    }

    fn validated(wire: WireDeleteOptions) -> Result<DeleteOptions, Status> {
        let mut errs = ErrorList::default();
        let path = Path::new("propagationPolicy");
        let policy = wire.propagation_policy.as_deref();
        if let (Some(policy), Some(_)) = (policy, wire.orphan_dependents) {
            errs.push(FieldError::invalid(
                &path,
                policy,
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        let propagation = match policy {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                errs.push(FieldError::not_supported(
                    &path,
                    other,
                    &["Foreground", "Background", "Orphan", "nil"],
                ));
                None
            }
        };
        let dry_run = wire.dry_run.unwrap_or_default();
        let values: Vec<&str> = dry_run.iter().map(String::as_str).collect();
        validate_dry_run(&values, &mut errs);
        invalid("DeleteOptions", errs)?;
        Ok(DeleteOptions {
            grace_period: wire.grace_period_seconds.map(|s| if s < 0 { 1 } else { s }),
            preconditions: wire.preconditions.unwrap_or_default(),
            orphan_dependents: wire.orphan_dependents,
            propagation,
            dry_run: !dry_run.is_empty(),
        })
    }
}

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    Exact,
    NotOlderThan,
}

/// `ListOptions`, of a list or a watch.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub label_selector: String,
    pub field_selector: String,
    pub watch: bool,
    pub allow_bookmarks: bool,
    pub resource_version: String,
    pub version_match: Option<Match>,
    pub timeout: Option<Duration>,
    /// 0: no limit.
    pub limit: usize,
    pub continue_token: String,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// `watch` says that the path asked for a watch (`/watch/…`).
    pub fn from_query(query: &Query, watch: bool) -> Result<ListOptions, Status> {
        let number = |key| {
            query
                .integer(key)
                .map_err(|e| Status::bad_request(e.to_string()))
        };
        let mut options = ListOptions {
            label_selector: query.text("labelSelector"),
            field_selector: query.text("fieldSelector"),
            watch: watch || query.flag("watch"),
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            resource_version: query.text("resourceVersion"),
            version_match: None,
            // Less than no time is over at once.
            timeout: number("timeoutSeconds")?.map(|seconds| {
                u64::try_from(seconds).map_or(Duration::from_nanos(1), Duration::from_secs)
            }),
            limit: number("limit")?.map_or(0, |n| usize::try_from(n).unwrap_or(0)),
            continue_token: query.text("continue"),
            send_initial_events: query.boolean("sendInitialEvents"),
        };
        let mut version_match = query.text("resourceVersionMatch");
        let legacy = matches!(options.resource_version.as_str(), "" | "0");
        if options.watch
            && legacy
            && options.send_initial_events.is_none()
            && version_match.is_empty()
        {
            // A watch without a version has always begun with the state; it is now the same
            // as asking for it.
            options.send_initial_events = Some(true);
            version_match = "NotOlderThan".to_owned();
        }
        let errs = if options.watch {
            options.validate_watch(&version_match)
        } else {
            options.validate_list(&version_match)
        };
        invalid("ListOptions", errs)?;
        options.version_match = match version_match.as_str() {
            "Exact" => Some(Match::Exact),
            "NotOlderThan" => Some(Match::NotOlderThan),
            _ => None,
        };
        Ok(options)
    }

    fn validate_list(&self, version_match: &str) -> ErrorList {
        let mut errs = ErrorList::default();
        let path = Path::new("resourceVersionMatch");
        if !version_match.is_empty() {
            if self.resource_version.is_empty() {
                errs.push(FieldError::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !self.continue_token.is_empty() {
                errs.push(FieldError::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if !matches!(version_match, "Exact" | "NotOlderThan") {
                errs.push(FieldError::not_supported(
                    &path,
                    version_match,
                    &["Exact", "NotOlderThan", ""],
                ));
            }
            if version_match == "Exact" && self.resource_version == "0" {
                errs.push(FieldError::forbidden(
                    &path,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if self.send_initial_events.is_some() {
            errs.push(FieldError::forbidden(
                &Path::new("sendInitialEvents"),
                "sendInitialEvents is forbidden for list",
            ));
        }
        errs
    }

    fn validate_watch(&self, version_match: &str) -> ErrorList {
        let mut errs = ErrorList::default();
        let path = Path::new("resourceVersionMatch");
        if self.send_initial_events.is_some() && version_match != "NotOlderThan" {
            errs.push(FieldError::forbidden(
                &path,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if !version_match.is_empty() {
            if self.send_initial_events.is_none() {
                errs.push(FieldError::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            if version_match != "NotOlderThan" {
                errs.push(FieldError::not_supported(
                    &path,
                    version_match,
                    &["NotOlderThan"],
                ));
            }
            if !self.continue_token.is_empty() {
                errs.push(FieldError::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
        }
        errs
    }
}

/// A resource version as a number; 0 for none. Upstream gives the error no reason.
pub fn parse_resource_version(text: &str) -> Result<u64, Status> {
    if text.is_empty() {
        return Ok(0);
    }
    let number = text.parse().ok().filter(|_| !text.starts_with('+'));
    number.ok_or_else(|| Status {
        code: 500,
        message: format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ),
        ..Status::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(query: &str) -> Result<ListOptions, Status> {
        ListOptions::from_query(&Query::parse(query), false)
    }

    #[test]
    fn list_options_are_validated() {
        let message = |q| list(q).unwrap_err().message;
        assert_eq!(
            message("resourceVersionMatch=Exact"),
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        );
        assert!(message("resourceVersion=0&resourceVersionMatch=Exact").contains("\"exact\""));
        assert!(message("resourceVersion=1&resourceVersionMatch=x").contains("Unsupported value"));
        assert!(message("sendInitialEvents=true").contains("forbidden for list"));
        assert!(message("watch=1&sendInitialEvents=true").contains("requires setting"));
        assert!(
            message("watch=1&resourceVersion=5&resourceVersionMatch=NotOlderThan")
                .contains("unless sendInitialEvents")
        );
        assert_eq!(list("limit=x").unwrap_err().code, 400);
    }

    #[test]
    fn a_watch_without_a_version_begins_with_the_state() {
        let options = list("watch=1").unwrap();
        assert_eq!(options.send_initial_events, Some(true));
        assert_eq!(options.version_match, Some(Match::NotOlderThan));
        assert_eq!(
            list("watch=1&resourceVersion=7")
                .unwrap()
                .send_initial_events,
            None
        );
        let asked = list("watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan");
        assert_eq!(asked.unwrap().send_initial_events, Some(false));
    }

    #[test]
    fn write_options_are_validated() {
        let read = |q: &str| WriteOptions::from_query(&Query::parse(q), "CreateOptions");
        let options = read("dryRun=All&fieldValidation=Strict&fieldManager=me").unwrap();
        assert!(options.dry_run);
        assert_eq!(options.field_validation, FieldValidation::Strict);
        assert_eq!(
            read("dryRun=Some").unwrap_err().message,
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\""
        );
        assert!(read("fieldValidation=x").is_err());
        let patch = |q: &str, t| WriteOptions::for_patch(&Query::parse(q), t);
        assert!(patch("force=true", PatchType::Merge).is_err());
        assert!(patch("", PatchType::Apply).is_err());
    }

    #[test]
    fn delete_options_come_from_query_or_body() {
        let q = DeleteOptions::from_query(&Query::parse(
            "gracePeriodSeconds=-5&propagationPolicy=Orphan",
        ));
        let q = q.unwrap();
        assert_eq!(
            (q.grace_period, q.propagation),
            (Some(1), Some(Propagation::Orphan))
        );
        let q = DeleteOptions::from_query(&Query::parse("uid=u&resourceVersion=7")).unwrap();
        assert_eq!(q.preconditions.uid.as_deref(), Some("u"));
        assert_eq!(q.preconditions.resource_version.as_deref(), Some("7"));
        let body =
            json!({"preconditions": {"uid": "u"}, "dryRun": ["All"], "kind": "DeleteOptions"});
        let b = DeleteOptions::from_value(body).unwrap();
        assert_eq!(b.preconditions.uid.as_deref(), Some("u"));
        assert!(b.dry_run);
        let both = json!({"propagationPolicy": "Orphan", "orphanDependents": true});
        assert_eq!(DeleteOptions::from_value(both).unwrap_err().code, 422);
    }
}
