//! [`Error`]: how a request to the API server can fail.

use std::time::Duration;

use meta::Status;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How a request to the API server failed. The predicates answer the questions that
/// controllers ask; match on the variants only to tell the network from the server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a failure. Displays as the server's message.
    #[error("{0}")]
    Status(Box<Status>),
    /// The request did not get through, or the connection broke before the answer was complete.
    /// The request may have been carried out.
    #[error("cannot reach {server}: {message}")]
    Transport {
        server: String,
        message: String,
        /// Nobody listens there: the request was not carried out.
        refused: bool,
        /// There was no connection yet: the request was not carried out.
        connecting: bool,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// No complete answer within the client's timeout. The request may have been carried out.
    #[error("no answer from {server} within {after:?}")]
    Timeout { server: String, after: Duration },
    /// The server's answer is not what this client can read.
    #[error("cannot decode {what}: {message}")]
    Decode { what: String, message: String },
    /// The object to be sent cannot be written.
    #[error("cannot encode {what}: {message}")]
    Encode { what: String, message: String },
    /// A name, namespace or header that cannot be put into a request.
    #[error("bad request to the API: {0}")]
    Request(String),
    /// The term of this leader has ended, another may lead: nothing was sent.
    #[error("the lease was not renewed in time")]
    NotLeading,
    /// Credentials that are to be sent could not be read.
    #[error("cannot read credentials: {0}")]
    Credentials(String),
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Error {
    /// The server's `Status`, if it was the server that refused.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    fn is(&self, f: impl FnOnce(&Status) -> bool) -> bool {
        self.status().is_some_and(f)
    }

    /// There is no such object, or no such resource.
    pub fn is_not_found(&self) -> bool {
        self.is(Status::is_not_found)
    }
    /// An object of that name exists.
    pub fn is_already_exists(&self) -> bool {
        self.is(Status::is_already_exists)
    }
    /// The object has changed since it was read (or another precondition failed).
    pub fn is_conflict(&self) -> bool {
        self.is(Status::is_conflict)
    }
    /// The object did not pass validation.
    pub fn is_invalid(&self) -> bool {
        self.is(Status::is_invalid)
    }
    pub fn is_bad_request(&self) -> bool {
        self.is(Status::is_bad_request)
    }
    pub fn is_forbidden(&self) -> bool {
        self.is(Status::is_forbidden)
    }
    pub fn is_unauthorized(&self) -> bool {
        self.is(Status::is_unauthorized)
    }
    pub fn is_method_not_supported(&self) -> bool {
        self.is(Status::is_method_not_supported)
    }
    pub fn is_too_many_requests(&self) -> bool {
        self.is(Status::is_too_many_requests)
    }
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. }) || self.is(Status::is_timeout)
    }
    pub fn is_server_timeout(&self) -> bool {
        self.is(Status::is_server_timeout)
    }
    pub fn is_internal(&self) -> bool {
        self.is(Status::is_internal)
    }
    pub fn is_service_unavailable(&self) -> bool {
        self.is(Status::is_service_unavailable)
    }
    /// The resourceVersion or continue token is too old: list anew.
    pub fn is_expired(&self) -> bool {
        self.is(|s| s.is_expired() || s.is_gone())
    }
    /// The object cannot be created because its namespace is going away. Controllers stop
    /// trying instead of reporting it.
    pub fn is_namespace_terminating(&self) -> bool {
        self.is(|s| s.is_forbidden() && s.has_cause("NamespaceTerminating"))
    }
    /// Nobody listens at the server's address.
    pub fn is_connection_refused(&self) -> bool {
        matches!(self, Self::Transport { refused: true, .. })
    }
    /// The request never reached the API's logic, or was turned away for now: trying again
    /// later may help.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Transport { .. } | Self::Timeout { .. })
            || self.is(|s| {
                s.is_too_many_requests()
                    || s.is_server_timeout()
                    || s.is_timeout()
                    || s.is_service_unavailable()
                    || s.is_internal()
            })
    }
    /// How long the server asks to wait before trying again.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.status()?.suggests_client_delay()?;
        Some(Duration::from_secs(seconds.into()))
    }
}

/// `Ok(None)` in place of a "not found" failure.
pub fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(v) => Ok(Some(v)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}
