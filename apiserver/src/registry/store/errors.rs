//! Storage errors as the API tells them to clients (`registry/generic/registry` and
//! `storage/errors` of upstream's apiserver).

use meta::{GroupResource, Reason, Status};

use crate::storage::StorageError;

/// The verb during which storage failed; some errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum During {
    Get,
    List,
    Watch,
    Create,
    Update,
    Delete,
}

impl During {
    fn name(self) -> &'static str {
        match self {
            During::Get => "get",
            During::List => "list",
            During::Watch => "watch",
            During::Create => "create",
            During::Update => "update",
            During::Delete => "delete",
        }
    }
}

/// What a conflicting write is answered with.
pub const OPTIMISTIC_LOCK: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

pub fn conflict(resource: &GroupResource, name: &str) -> Status {
    Status::conflict(resource, name, OPTIMISTIC_LOCK)
}

pub fn status(error: StorageError, resource: &GroupResource, name: &str, during: During) -> Status {
    match error {
        StorageError::NotFound(_) => Status::not_found(resource, name),
        StorageError::Exists(_) if during == During::Create => {
            Status::already_exists(resource, name)
        }
        StorageError::Exists(_) | StorageError::Conflict { .. } => conflict(resource, name),
        StorageError::Compacted { asked, oldest } => match during {
            During::Watch => {
                Status::expired(format!("too old resource version: {asked} ({oldest})"))
            }
            _ => Status::expired("The resourceVersion for the provided list is too old."),
        },
        StorageError::Future { asked, current } => too_large(asked, current),
        StorageError::Unavailable(_) => Status::server_timeout(resource, during.name(), 2),
        e @ StorageError::TooLarge => Status::request_entity_too_large(e),
        // As upstream passes etcd's errors on: no reason, but the text that helps.
        StorageError::NoSpace(message) => Status {
            code: 500,
            message,
            ..Status::default()
        },
        StorageError::Internal(e) => Status::internal(e),
    }
}

/// 504: the revision that a client wants to see is not there yet.
fn too_large(asked: u64, current: u64) -> Status {
    let mut status = Status::timeout(
        format!("Too large resource version: {asked}, current: {current}"),
        1,
    );
    status.reason = Reason::Timeout;
    status.details_mut().causes = vec![meta::status::StatusCause {
        reason: meta::status::CAUSE_RESOURCE_VERSION_TOO_LARGE.into(),
        message: "Too large resource version".into(),
        field: String::new(),
    }];
    status
}
