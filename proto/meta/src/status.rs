//! [`Status`]: the one error value of the Kubernetes API, with the constructors and the
//! exact message texts of apimachinery's `api/errors`.
//!
//! Shape and reasons: API conventions, "Response Status Kind".

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde::{Deserialize, Serialize};

use crate::field::ErrorList;
use crate::gofmt::Quoted;
use crate::gvk::{GroupKind, GroupResource};

/// What a request came to when it did not come to an object. It is an error value on the
/// server and on the client, and serializes as the API's `v1` `Status`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    /// HTTP status code; 0 when unknown.
    pub code: i32,
    /// `true` for the answer to a request that went well but returns no object.
    pub success: bool,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<StatusDetails>>,
    /// Carries `continue` in the answer to an expired list token; otherwise absent.
    pub metadata: Option<Box<ListMeta>>,
}

/// Machine-readable reason of a failure. Unknown text is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Reason {
    /// The server gave no reason.
    #[default]
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StorageReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
    /// A reason that this version does not know.
    Other(String),
}

/// More about a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The kind, or more often the resource, that the error is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub causes: Vec<StatusCause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

/// One of several reasons of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusCause {
    /// For example `FieldValueInvalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field, such as `spec.containers[0].name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// Cause of an answer that was not in the API's format, for example from a proxy in between.
pub const CAUSE_UNEXPECTED_SERVER_RESPONSE: &str = "UnexpectedServerResponse";
/// Cause of a conflict with another field manager in server-side apply.
pub const CAUSE_FIELD_MANAGER_CONFLICT: &str = "FieldManagerConflict";
/// Cause of a timeout that was asked for by a `resourceVersion` from the future.
pub const CAUSE_RESOURCE_VERSION_TOO_LARGE: &str = "ResourceVersionTooLarge";

fn is_zero(n: &i32) -> bool {
    *n == 0
}

fn null_is_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// # Constructors
///
/// Named as upstream's `NewXxx`. Each sets code, reason, details and message.
impl Status {
    fn failure(code: i32, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            ..Self::default()
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details_mut();
        details.group = group.to_owned();
        details.kind = kind.to_owned();
        details.name = name.to_owned();
        self
    }

    fn retry_after(mut self, seconds: i32) -> Self {
        self.details_mut().retry_after_seconds = seconds;
        self
    }

    /// The details, made empty first if there are none.
    pub fn details_mut(&mut self) -> &mut StatusDetails {
        self.details.get_or_insert_default()
    }

    /// The answer to a request that went well, such as a DELETE.
    pub fn success() -> Self {
        Self {
            success: true,
            code: 200,
            ..Self::default()
        }
    }

    /// 404: there is no such object.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        let message = format!("{resource} {} not found", Quoted(name));
        Self::failure(404, Reason::NotFound, message).about(
            &resource.group,
            &resource.resource,
            name,
        )
    }

    /// 404: there is no such path.
    pub fn path_not_found() -> Self {
        Self::failure(
            404,
            Reason::NotFound,
            "the server could not find the requested resource",
        )
        .with_empty_details()
    }

    fn with_empty_details(mut self) -> Self {
        self.details_mut();
        self
    }

    /// 409: an object of that name exists.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        let message = format!("{resource} {} already exists", Quoted(name));
        Self::failure(409, Reason::AlreadyExists, message).about(
            &resource.group,
            &resource.resource,
            name,
        )
    }

    /// 409: every generated name was taken.
    pub fn generate_name_conflict(
        resource: &GroupResource,
        name: &str,
        retry_after_seconds: i32,
    ) -> Self {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            Quoted(name)
        );
        Self::failure(409, Reason::AlreadyExists, message)
            .about(&resource.group, &resource.resource, name)
            .retry_after(retry_after_seconds)
    }

    /// 401. An empty reason becomes `not authorized`.
    pub fn unauthorized(reason: &str) -> Self {
        let message = if reason.is_empty() {
            "not authorized"
        } else {
            reason
        };
        Self::failure(401, Reason::Unauthorized, message)
    }

    /// 403. Resource and name may be empty.
    pub fn forbidden(resource: &GroupResource, name: &str, err: impl fmt::Display) -> Self {
        let message = if resource.is_empty() {
            format!("forbidden: {err}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {err}")
        } else {
            format!("{resource} {} is forbidden: {err}", Quoted(name))
        };
        Self::failure(403, Reason::Forbidden, message).about(
            &resource.group,
            &resource.resource,
            name,
        )
    }

    /// 409: the object is not in the state that the request expects, such as its resourceVersion.
    pub fn conflict(resource: &GroupResource, name: &str, err: impl fmt::Display) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {resource} {}: {err}",
            Quoted(name)
        );
        Self::failure(409, Reason::Conflict, message).about(
            &resource.group,
            &resource.resource,
            name,
        )
    }

    /// 409: server-side apply would take fields from other managers.
    pub fn apply_conflict(causes: Vec<StatusCause>, message: impl Into<String>) -> Self {
        let mut status = Self::failure(409, Reason::Conflict, message);
        status.details_mut().causes = causes;
        status
    }

    /// 410. [`Status::expired`] is what watch and list use.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Gone, message)
    }

    /// 410: the resourceVersion or the continue token is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Expired, message)
    }

    /// 422: the object is not valid; every field error becomes a cause.
    pub fn invalid(kind: &GroupKind, name: &str, errs: &ErrorList) -> Self {
        let mut message = format!("{kind} {} is invalid", Quoted(name));
        if !errs.is_empty() {
            message.push_str(&format!(": {errs}"));
        }
        let mut status =
            Self::failure(422, Reason::Invalid, message).about(&kind.group, &kind.kind, name);
        status.details_mut().causes = errs
            .iter()
            .map(|e| StatusCause {
                reason: e.ty.reason().to_owned(),
                message: e.body(),
                field: e.field.clone(),
            })
            .collect();
        status
    }

    /// 400.
    pub fn bad_request(reason: impl Into<String>) -> Self {
        Self::failure(400, Reason::BadRequest, reason)
    }

    /// 429 with a hint when to try again.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        Self::failure(429, Reason::TooManyRequests, message).retry_after(retry_after_seconds)
    }

    /// 503.
    pub fn service_unavailable(reason: impl Into<String>) -> Self {
        Self::failure(503, Reason::ServiceUnavailable, reason)
    }

    /// 405: the resource does not know the verb (`action`, such as `create`).
    pub fn method_not_supported(resource: &GroupResource, action: &str) -> Self {
        let message = format!(
            "{action} is not supported on resources of kind {}",
            Quoted(&resource.to_string())
        );
        Self::failure(405, Reason::MethodNotAllowed, message).about(
            &resource.group,
            &resource.resource,
            "",
        )
    }

    /// 500: a passing failure of the server; `operation` is the verb.
    pub fn server_timeout(
        resource: &GroupResource,
        operation: &str,
        retry_after_seconds: i32,
    ) -> Self {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        Self::failure(500, Reason::ServerTimeout, message)
            .about(&resource.group, &resource.resource, operation)
            .retry_after(retry_after_seconds)
    }

    /// 500.
    pub fn internal(err: impl fmt::Display) -> Self {
        let err = err.to_string();
        let mut status = Self::failure(
            500,
            Reason::InternalError,
            format!("Internal error occurred: {err}"),
        );
        status.details_mut().causes = vec![StatusCause {
            message: err,
            ..Default::default()
        }];
        status
    }

    /// 500 without a reason, which is what upstream makes of an error of no kind.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::failure(500, Reason::Unknown, message)
    }

    /// 504: the request ran out of time; it may still be carried out.
    pub fn timeout(message: impl fmt::Display, retry_after_seconds: i32) -> Self {
        Self::failure(504, Reason::Timeout, format!("Timeout: {message}"))
            .retry_after(retry_after_seconds)
    }

    /// 413.
    pub fn request_entity_too_large(message: impl fmt::Display) -> Self {
        let message = format!("Request entity too large: {message}");
        Self::failure(413, Reason::RequestEntityTooLarge, message)
    }

    /// 415: `accepted` are the media types that the server reads, in its order.
    pub fn unsupported_media_type<S: AsRef<str>>(accepted: &[S]) -> Self {
        let list = accepted
            .iter()
            .map(AsRef::as_ref)
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {list}"
        );
        Self::failure(415, Reason::UnsupportedMediaType, message)
    }

    /// 406: `accepted` are the media types that the server writes, in its order.
    pub fn not_acceptable<S: AsRef<str>>(accepted: &[S]) -> Self {
        let list = accepted
            .iter()
            .map(AsRef::as_ref)
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("only the following media types are accepted: {list}");
        Self::failure(406, Reason::NotAcceptable, message)
    }

    /// What a client makes of an answer that is no `Status`. `verb` is the HTTP method;
    /// `unexpected` keeps the server's text as a cause.
    pub fn generic_server_response(
        code: i32,
        verb: &str,
        resource: &GroupResource,
        name: &str,
        server_message: &str,
        retry_after_seconds: i32,
        unexpected: bool,
    ) -> Self {
        let or_server = |text: &str| -> String {
            if server_message.is_empty() || server_message == "unknown" {
                text.to_owned()
            } else {
                server_message.to_owned()
            }
        };
        let (reason, mut message) = match code {
            409 if verb == "POST" => {
                (Reason::AlreadyExists, "the server reported a conflict".to_owned())
            }
            409 => (Reason::Conflict, "the server reported a conflict".to_owned()),
            404 => (Reason::NotFound, "the server could not find the requested resource".to_owned()),
            400 => (
                Reason::BadRequest,
                "the server rejected our request for an unknown reason".to_owned(),
            ),
            401 => (
                Reason::Unauthorized,
                "the server has asked for the client to provide credentials".to_owned(),
            ),
            403 => (Reason::Forbidden, server_message.to_owned()),
            406 => (
                Reason::NotAcceptable,
                or_server(
                    "the server was unable to respond with a content type that the client supports",
                ),
            ),
            415 => (Reason::UnsupportedMediaType, server_message.to_owned()),
            405 => (
                Reason::MethodNotAllowed,
                "the server does not allow this method on the requested resource".to_owned(),
            ),
            422 => (
                Reason::Invalid,
                "the server rejected our request due to an error in our request".to_owned(),
            ),
            503 => (
                Reason::ServiceUnavailable,
                "the server is currently unable to handle the request".to_owned(),
            ),
            504 => (
                Reason::Timeout,
                "the server was unable to return a response in the time allotted, but may still be processing the request".to_owned(),
            ),
            429 => (
                Reason::TooManyRequests,
                "the server has received too many requests and has asked us to try again later"
                    .to_owned(),
            ),
            500.. => (
                Reason::InternalError,
                format!(
                    "an error on the server ({}) has prevented the request from succeeding",
                    Quoted(server_message)
                ),
            ),
            _ => (
                Reason::Unknown,
                format!(
                    "the server responded with the status code {code} but did not return more information"
                ),
            ),
        };
        if !resource.is_empty() {
            let verb = verb.to_lowercase();
            message.push_str(&if name.is_empty() {
                format!(" ({verb} {resource})")
            } else {
                format!(" ({verb} {resource} {name})")
            });
        }
        let mut status = Self::failure(code, reason, message)
            .about(&resource.group, &resource.resource, name)
            .retry_after(retry_after_seconds);
        if unexpected {
            status.details_mut().causes = vec![StatusCause {
                reason: CAUSE_UNEXPECTED_SERVER_RESPONSE.to_owned(),
                message: server_message.to_owned(),
                field: String::new(),
            }];
        }
        status
    }
}

/// # Predicates
///
/// As upstream, the reason decides; the code only where the reason is unknown.
impl Status {
    fn is(&self, reason: Reason, code: i32) -> bool {
        self.reason == reason || (!self.reason.is_known() && self.code == code)
    }

    pub fn is_not_found(&self) -> bool {
        self.is(Reason::NotFound, 404)
    }
    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }
    pub fn is_conflict(&self) -> bool {
        self.is(Reason::Conflict, 409)
    }
    pub fn is_invalid(&self) -> bool {
        self.is(Reason::Invalid, 422)
    }
    pub fn is_gone(&self) -> bool {
        self.is(Reason::Gone, 410)
    }
    /// The resourceVersion or continue token is too old (`Expired`).
    pub fn is_expired(&self) -> bool {
        self.reason == Reason::Expired
    }
    pub fn is_unauthorized(&self) -> bool {
        self.is(Reason::Unauthorized, 401)
    }
    pub fn is_forbidden(&self) -> bool {
        self.is(Reason::Forbidden, 403)
    }
    pub fn is_bad_request(&self) -> bool {
        self.is(Reason::BadRequest, 400)
    }
    pub fn is_method_not_supported(&self) -> bool {
        self.is(Reason::MethodNotAllowed, 405)
    }
    pub fn is_not_acceptable(&self) -> bool {
        self.is(Reason::NotAcceptable, 406)
    }
    pub fn is_unsupported_media_type(&self) -> bool {
        self.is(Reason::UnsupportedMediaType, 415)
    }
    pub fn is_service_unavailable(&self) -> bool {
        self.is(Reason::ServiceUnavailable, 503)
    }
    pub fn is_timeout(&self) -> bool {
        self.is(Reason::Timeout, 504)
    }
    pub fn is_server_timeout(&self) -> bool {
        self.reason == Reason::ServerTimeout
    }
    pub fn is_internal(&self) -> bool {
        self.is(Reason::InternalError, 500)
    }
    pub fn is_too_many_requests(&self) -> bool {
        self.reason == Reason::TooManyRequests || self.code == 429
    }
    pub fn is_request_entity_too_large(&self) -> bool {
        self.reason == Reason::RequestEntityTooLarge || self.code == 413
    }
    /// Whether a cause of this type (such as `NamespaceTerminating`) is among the details.
    pub fn has_cause(&self, reason: &str) -> bool {
        self.details
            .as_ref()
            .is_some_and(|d| d.causes.iter().any(|c| c.reason == reason))
    }
    /// Seconds that the server asks the client to wait, if it asks.
    pub fn suggests_client_delay(&self) -> Option<u32> {
        let seconds = self.details.as_ref().map_or(0, |d| d.retry_after_seconds);
        (seconds > 0 || self.reason == Reason::ServerTimeout).then_some(seconds.max(0) as u32)
    }
    /// The code as an HTTP status; 500 if it is none.
    pub fn http_status(&self) -> http::StatusCode {
        u16::try_from(self.code)
            .ok()
            .and_then(|c| http::StatusCode::from_u16(c).ok())
            .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

macro_rules! reasons {
    ($($name:ident),* $(,)?) => {
        impl Reason {
            /// The text on the wire; empty for [`Reason::Unknown`].
            pub fn as_str(&self) -> &str {
                match self {
                    Self::Unknown => "",
                    $(Self::$name => stringify!($name),)*
                    Self::Other(s) => s,
                }
            }
        }
        impl From<&str> for Reason {
            fn from(s: &str) -> Self {
                match s {
                    "" => Self::Unknown,
                    $(stringify!($name) => Self::$name,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }
    };
}
reasons!(
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StorageReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
);

impl Reason {
    fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown | Self::Other(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The wire form, in upstream's field order.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(default, borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(default, borrow)]
    api_version: std::borrow::Cow<'a, str>,
    #[serde(default, deserialize_with = "null_is_default")]
    metadata: ListMeta,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    status: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    message: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    reason: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<std::borrow::Cow<'a, StatusDetails>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    code: i32,
}

impl Serialize for Status {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Wire {
            kind: "Status".into(),
            api_version: "v1".into(),
            metadata: self.metadata.as_deref().cloned().unwrap_or_default(),
            status: if self.success { "Success" } else { "Failure" }.into(),
            message: self.message.as_str().into(),
            reason: self.reason.as_str().into(),
            details: self.details.as_deref().map(std::borrow::Cow::Borrowed),
            code: self.code,
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(d)?;
        Ok(Self {
            code: wire.code,
            success: wire.status == "Success",
            reason: Reason::from(wire.reason.as_ref()),
            message: wire.message.into_owned(),
            details: wire.details.map(|d| Box::new(d.into_owned())),
            metadata: (wire.metadata != ListMeta::default()).then(|| Box::new(wire.metadata)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{FieldError, Path};

    fn pods() -> GroupResource {
        GroupResource::new("", "pods")
    }

    fn deployments() -> GroupResource {
        GroupResource::new("apps", "deployments")
    }

    #[test]
    fn wire_form_is_upstreams() {
        let json = serde_json::to_string(&Status::not_found(&deployments(), "x")).unwrap();
        assert_eq!(
            json,
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"deployments.apps \"x\" not found","reason":"NotFound","details":{"name":"x","group":"apps","kind":"deployments"},"code":404}"#
        );
        let back: Status = serde_json::from_str(&json).unwrap();
        assert_eq!(back, Status::not_found(&deployments(), "x"));
    }

    #[test]
    fn messages() {
        let text = |s: Status| s.to_string();
        assert_eq!(
            text(Status::already_exists(&pods(), "a")),
            r#"pods "a" already exists"#
        );
        assert_eq!(
            text(Status::conflict(&pods(), "a", "changed")),
            r#"Operation cannot be fulfilled on pods "a": changed"#
        );
        assert_eq!(
            text(Status::forbidden(&pods(), "", "no")),
            "pods is forbidden: no"
        );
        assert_eq!(
            text(Status::forbidden(&GroupResource::default(), "", "no")),
            "forbidden: no"
        );
        assert_eq!(
            text(Status::method_not_supported(&deployments(), "patch")),
            r#"patch is not supported on resources of kind "deployments.apps""#
        );
        assert_eq!(text(Status::unauthorized("")), "not authorized");
        assert_eq!(text(Status::internal("x")), "Internal error occurred: x");
        assert_eq!(text(Status::timeout("x", 0)), "Timeout: x");
    }

    #[test]
    fn invalid_lists_its_causes() {
        let errs = ErrorList::from(vec![
            FieldError::required(&Path::new("spec").child("a"), ""),
            FieldError::invalid(&Path::new("spec").child("b"), "x", "bad"),
        ]);
        let s = Status::invalid(&GroupKind::new("", "Pod"), "p", &errs);
        assert_eq!(
            s.message,
            r#"Pod "p" is invalid: [spec.a: Required value, spec.b: Invalid value: "x": bad]"#
        );
        let causes = &s.details.as_ref().unwrap().causes;
        assert_eq!(causes[1].reason, "FieldValueInvalid");
        assert_eq!(causes[1].message, r#"Invalid value: "x": bad"#);
        assert_eq!(causes[1].field, "spec.b");
        assert!(s.is_invalid() && !s.is_conflict());
    }

    #[test]
    fn predicates_fall_back_on_the_code() {
        let s = Status {
            code: 404,
            reason: Reason::Other("Odd".into()),
            ..Status::default()
        };
        assert!(s.is_not_found());
        let s = Status {
            code: 404,
            reason: Reason::Expired,
            ..Status::default()
        };
        assert!(!s.is_not_found() && s.is_expired());
    }

    #[test]
    fn generic_responses() {
        let s = Status::generic_server_response(500, "GET", &pods(), "a", "oops", 3, true);
        assert_eq!(
            s.message,
            r#"an error on the server ("oops") has prevented the request from succeeding (get pods a)"#
        );
        assert!(s.has_cause(CAUSE_UNEXPECTED_SERVER_RESPONSE));
        assert_eq!(s.suggests_client_delay(), Some(3));
        let s = Status::generic_server_response(409, "POST", &pods(), "", "", 0, false);
        assert!(s.is_already_exists());
    }

    #[test]
    fn reads_nulls_and_successes() {
        let s: Status = serde_json::from_str(
            r#"{"kind":"Status","apiVersion":"v1","metadata":null,"status":"Success","details":{"name":"x","causes":null}}"#,
        )
        .unwrap();
        assert!(s.success);
        assert_eq!(s.details.unwrap().name, "x");
    }
}
