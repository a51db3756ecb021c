//! What is to be done about migrations: whose turn it is, what has to happen before objects are
//! written anew, which of them are, and what an answer means. Nothing here asks or writes.

use std::cmp::Ordering;
use std::sync::Arc;

use client::{Error, Object as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, GroupResource, Time};

use crate::discovery::{Resource, Resources};

const RUNNING: &str = "Running";
const SUCCEEDED: &str = "Succeeded";
const FAILED: &str = "Failed";

/// How long after a migration was created its resource may still be unknown: a definition that
/// came with it is served a little later.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// What the API must offer of a resource.
const VERBS: [&str; 3] = ["update", "patch", "list"];

/// A condition that is set, with upstream's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Running,
    Succeeded,
    /// With the reason in a sentence.
    Failed(String),
}

/// Where a migration stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Phase<'a> {
    /// It has ended, or its turn has not come.
    Idle,
    /// Its turn has come, but up to where it goes is not written down yet.
    Unbounded,
    /// Objects up to this revision are to be written anew.
    Bounded(&'a str),
}

/// What is to become of the migrations of one resource.
#[derive(Debug, PartialEq)]
pub struct Turn {
    /// These have ended and still say that they run.
    pub completed: Vec<Arc<StorageVersionMigration>>,
    /// The turn is this one's.
    pub next: Option<Arc<StorageVersionMigration>>,
}

/// What the resource of a migration allows.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Found(&'a Resource),
    /// It may come yet.
    Awaited,
    Never(String),
}

/// What an error says of a migration.
#[derive(Debug, PartialEq, Eq)]
pub enum Consequence {
    /// The object has been changed, deleted or made anew since it was listed, and whoever did
    /// that has written it in today's version.
    Unneeded,
    Again,
    Fails,
}

/// A revision that is no number by which others could be older or newer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("resource version is not well formed: {0}")]
pub struct Malformed(pub String);

fn conditions(migration: &StorageVersionMigration) -> &[Condition] {
    let status = migration.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default()
}

fn is_true(migration: &StorageVersionMigration, ty: &str) -> bool {
    let mut conditions = conditions(migration).iter();
    conditions.any(|c| c.type_ == ty && c.status == "True")
}

fn is_running(migration: &StorageVersionMigration) -> bool {
    is_true(migration, RUNNING)
}

pub fn has_succeeded(migration: &StorageVersionMigration) -> bool {
    is_true(migration, SUCCEEDED)
}

fn has_ended(migration: &StorageVersionMigration) -> bool {
    has_succeeded(migration) || is_true(migration, FAILED)
}

/// What a migration is of; the default for one without a spec, which the API does not let in.
pub fn resource_of(migration: &StorageVersionMigration) -> GroupResource {
    let spec = migration.spec.as_ref();
    spec.map(|spec| spec.resource.clone()).unwrap_or_default()
}

pub fn phase(migration: &StorageVersionMigration) -> Phase<'_> {
    let status = migration.status.as_ref();
    let revision = status.and_then(|status| status.resource_version.as_deref());
    match revision.unwrap_or_default() {
        _ if has_ended(migration) => Phase::Idle,
        "" if is_running(migration) => Phase::Unbounded,
        "" => Phase::Idle,
        revision => Phase::Bounded(revision),
    }
}

/// One migration of a resource runs at a time: the oldest first, and of those of one second the
/// first by name. `all` are those of one resource.
pub fn turn(all: &[Arc<StorageVersionMigration>]) -> Turn {
    let completed = all.iter().filter(|m| is_running(m) && has_ended(m));
    let mut waiting: Vec<_> = all.iter().filter(|m| !has_ended(m)).collect();
    waiting.sort_by(|a, b| {
        let age = |m: &StorageVersionMigration| m.metadata.creation_timestamp.as_ref().map(|t| t.0);
        age(a).cmp(&age(b)).then_with(|| a.name().cmp(b.name()))
    });
    let taken = waiting.iter().any(|m| is_running(m));
    Turn {
        completed: completed.cloned().collect(),
        next: waiting.first().filter(|_| !taken).map(|m| Arc::clone(m)),
    }
}

/// The migration with a further condition; a condition is not set twice.
pub fn with(
    migration: &StorageVersionMigration,
    verdict: &Verdict,
    now: Timestamp,
) -> StorageVersionMigration {
    let (ty, reason, message) = match verdict {
        Verdict::Running => (RUNNING, "MigrationRunning", "The migration is running"),
        Verdict::Succeeded => (SUCCEEDED, "StorageVersionMigrationSucceeded", ""),
        Verdict::Failed(why) => (FAILED, "StorageVersionMigrationFailed", why.as_str()),
    };
    let mut changed = migration.clone();
    let status = changed.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    let said = |c: &&Condition| c.type_ == ty && ["True", "False"].contains(&c.status.as_str());
    if conditions.iter().find(said).is_none() {
        conditions.retain(|c| c.type_ != ty);
        conditions.push(Condition {
            type_: ty.to_owned(),
            status: "True".to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: Time(now),
            // Upstream says of no generation that these were seen at it.
            observed_generation: None,
        });
    }
    changed
}

/// The migration, which has ended, running no more.
pub fn completed(migration: &StorageVersionMigration, now: Timestamp) -> StorageVersionMigration {
    let mut changed = migration.clone();
    let status = changed.status.get_or_insert_default();
    let conditions = status.conditions.iter_mut().flatten();
    for running in conditions.filter(|c| c.type_ == RUNNING) {
        "False".clone_into(&mut running.status);
        "MigrationCompleted".clone_into(&mut running.reason);
        "Migration completed".clone_into(&mut running.message);
        running.last_transition_time = Time(now);
        running.observed_generation = migration.metadata.generation;
    }
    changed
}

/// The migration with the revision up to which it goes.
pub fn bounded(migration: &StorageVersionMigration, revision: &str) -> StorageVersionMigration {
    let mut changed = migration.clone();
    let status = changed.status.get_or_insert_default();
    status.resource_version = Some(revision.to_owned());
    changed
}

/// What is served of a migration's resource, in the version that its group prefers. `absent` is
/// said of one that is not served, nor will be.
pub fn target<'a>(
    migration: &StorageVersionMigration,
    served: &'a Resources,
    absent: &str,
    now: Timestamp,
) -> Target<'a> {
    let wanted = resource_of(migration);
    let mut resources = served.preferred();
    let found = resources.find(|r| {
        let gvr = &r.gvr;
        gvr.group == wanted.group && gvr.resource == wanted.resource
    });
    if let Some(found) = found {
        return Target::Found(found);
    }
    let created = migration.metadata.creation_timestamp.as_ref();
    let created = created.map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    if now.duration_since(created) < GRACE {
        return Target::Awaited;
    }
    Target::Never(absent.to_owned())
}

/// Why the objects of a resource cannot be written anew, where they cannot.
pub fn hindrance(resource: &Resource) -> Option<String> {
    let able = VERBS.iter().all(|verb| resource.supports(verb));
    let (gvr, verbs) = (&resource.gvr, VERBS.join(" "));
    (!able).then(|| format!("resource \"{gvr}\" does not support discovery operations: [{verbs}]"))
}

/// Which of two revisions of one resource is newer. They are numbers of any length.
///
/// # Errors
///
/// When one of them is no such number: neither 0 nor leading zeros are.
pub fn compare(a: &str, b: &str) -> Result<Ordering, Malformed> {
    for revision in [a, b] {
        let digits = revision.bytes().all(|b| b.is_ascii_digit());
        if revision.is_empty() || revision.starts_with('0') || !digits {
            return Err(Malformed(revision.to_owned()));
        }
    }
    Ok(a.len().cmp(&b.len()).then_with(|| a.cmp(b)))
}

/// What follows from an object that could not be written anew.
pub fn consequence(error: &Error) -> Consequence {
    match error {
        error if error.is_conflict() => Consequence::Unneeded,
        error if error.is_retriable() => Consequence::Again,
        // Neither says anything of the object: nothing was sent.
        Error::NotLeading | Error::Credentials(_) => Consequence::Again,
        _ => Consequence::Fails,
    }
}
