//! What etcd's and gRPC's errors mean here.
//!
//! What must not be here: HTTP statuses (the registry's).

use tonic::{Code, Status};

use crate::storage::{Revision, StorageError};

/// Whether a request that failed may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It reached no member that would have done it: anybody may repeat it.
    Undone,
    /// It may have been done: only reads may be repeated.
    Unknown,
    /// An answer.
    Final,
}

/// etcd refuses these before it proposes anything. ("server stopped" is not among them: a
/// member that is stopped says so of what it has proposed as well.)
const UNDONE: &[&str] = &[
    "etcdserver: no leader",
    "etcdserver: not leader",
    "etcdserver: rpc not supported for learner",
    "etcdserver: too many requests",
];

pub(super) fn fate(status: &Status) -> Fate {
    if UNDONE.contains(&status.message()) || never_sent(status) {
        Fate::Undone
    } else if matches!(status.code(), Code::Unavailable | Code::Cancelled) || broke_off(status) {
        Fate::Unknown
    } else {
        Fate::Final
    }
}

/// Whether the connection broke while the request was under way. tonic calls that `Unknown`
/// where Go's gRPC says `Unavailable`; what etcd itself says has neither mark.
fn broke_off(status: &Status) -> bool {
    let of_transport = std::error::Error::source(status).is_some();
    status.code() == Code::Unknown
        && (of_transport || status.message().starts_with("h2 protocol error"))
}

fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// `asked` is the revision that the request named.
pub(super) fn storage_error(status: &Status, asked: Revision) -> StorageError {
    let message = status.message();
    match status.code() {
        Code::OutOfRange if message.contains("required revision has been compacted") => {
            StorageError::Compacted { asked, oldest: 0 }
        }
        Code::OutOfRange if message.contains("required revision is a future revision") => {
            StorageError::Future { asked, current: 0 }
        }
        Code::InvalidArgument if message == "etcdserver: request is too large" => {
            StorageError::TooLarge
        }
        Code::ResourceExhausted if message.contains("database space exceeded") => {
            StorageError::NoSpace(format!(
                "{message}: compact and defragment etcd, then disarm its NOSPACE alarm"
            ))
        }
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Unknown => StorageError::Unavailable(describe(status)),
        _ => StorageError::Internal(describe(status)),
    }
}

/// The message with the innermost cause, which says what an operator can act on.
fn describe(status: &Status) -> String {
    let mut innermost = None;
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        innermost = Some(error);
        source = error.source();
    }
    match innermost.map(ToString::to_string) {
        Some(cause) if cause != status.message() => format!("{}: {cause}", status.message()),
        _ => status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_done_is_undone() {
        let fates = [
            (Status::unavailable("etcdserver: no leader"), Fate::Undone),
            (
                Status::unavailable("etcdserver: request timed out"),
                Fate::Unknown,
            ),
            (
                Status::unavailable("etcdserver: leader changed"),
                Fate::Unknown,
            ),
            (
                Status::unknown("h2 protocol error: http2 error"),
                Fate::Unknown,
            ),
            (
                Status::from_error(Box::new(std::io::Error::from(
                    std::io::ErrorKind::ConnectionReset,
                ))),
                Fate::Unknown,
            ),
            (Status::unknown("etcdserver: whatever"), Fate::Final),
            (
                Status::invalid_argument("etcdserver: key not found"),
                Fate::Final,
            ),
            (
                Status::from_error(Box::new(tonic::ConnectError("refused".into()))),
                Fate::Undone,
            ),
        ];
        for (status, expected) in fates {
            assert_eq!(fate(&status), expected, "{status}");
        }
    }

    #[test]
    fn errors_keep_what_matters() {
        let compacted =
            Status::out_of_range("etcdserver: mvcc: required revision has been compacted");
        assert!(matches!(
            storage_error(&compacted, 7),
            StorageError::Compacted { asked: 7, .. }
        ));
        let full = Status::resource_exhausted("etcdserver: mvcc: database space exceeded");
        let full = storage_error(&full, 0);
        assert!(matches!(&full, StorageError::NoSpace(text) if text.contains("NOSPACE")));
        let large = Status::invalid_argument("etcdserver: request is too large");
        assert!(matches!(storage_error(&large, 0), StorageError::TooLarge));
    }
}
