//! What a DELETE does to an object, decided purely (`rest.BeforeDelete` and the generic
//! store's finalizer rules): remove it, mark it, or leave it as it is because it is going
//! already.
//!
//! What must not be here: I/O, admission.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use meta::{GroupResource, Status};
use serde_json::{Value, json};

use super::object_meta::{
    FINALIZER_FOREGROUND, FINALIZER_ORPHAN, meta, meta_mut, set_finalizers, set_generation, time,
};
use super::options::{DeleteOptions, Propagation};

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Remove the object from storage.
    Remove,
    /// Write this object, and nothing more for now: finalizers or a grace period are pending.
    Mark(Value),
    /// Write this object, then remove it: others shall see that it goes.
    MarkAndRemove(Value),
    /// It is being deleted already, at least as fast as is asked now.
    Pending,
}

/// What the strategy says about deleting a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GarbageCollection {
    /// Dependents go with their owner unless the request says otherwise.
    Dependents,
    /// Dependents stay unless the request says otherwise (jobs, replication controllers).
    Orphan,
    /// Objects of the kind own nothing (events).
    Unsupported,
}

/// What a kind's strategy says of an object that is to be deleted.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub gc: GarbageCollection,
    /// Objects of the kind wait for a grace period.
    pub graceful: bool,
    /// What the strategy makes of the asked period; `None`: this object goes at once.
    pub grace: Option<Duration>,
    /// Held back by something else than `metadata.finalizers`.
    pub held: bool,
}

pub fn plan(object: &Value, options: &DeleteOptions, kind: Kind, now: Timestamp) -> Plan {
    let Kind {
        gc,
        graceful: graceful_kind,
        grace,
        held,
    } = kind;
    let (mut marked, graceful) = match graceful(object, options, grace, graceful_kind, now) {
        Graceful::Pending => return Plan::Pending,
        Graceful::No => (None, None),
        Graceful::Marked { object, seconds } => (Some(object), Some(seconds)),
    };
    let current = marked.as_ref().unwrap_or(object);
    let pending = match finalizers(current, options, gc) {
        Some(finalizers) => {
            let object = marked.get_or_insert_with(|| object.clone());
            set_finalizers(object, &finalizers);
            held || !finalizers.is_empty()
        }
        None => held || meta(current).has_finalizers(),
    };
    if held && meta(object).is_deleting() && marked.is_none() {
        // Nothing new to say.
        return Plan::Pending;
    }
    let marked = marked.unwrap_or_else(|| object.clone());
    match graceful {
        None if pending => Plan::Mark(as_deleting(marked, now)),
        None => Plan::Remove,
        Some(0) if !pending => Plan::MarkAndRemove(marked),
        Some(_) => Plan::Mark(marked),
    }
}

enum Graceful {
    No,
    Pending,
    Marked { object: Value, seconds: i64 },
}

fn graceful(
    object: &Value,
    options: &DeleteOptions,
    grace: Option<Duration>,
    graceful_kind: bool,
    now: Timestamp,
) -> Graceful {
    if !graceful_kind {
        return Graceful::No;
    }
    let m = meta(object);
    if let Some(deadline) = m.deletion_timestamp() {
        let period = m.deletion_grace_period().unwrap_or(0);
        let period = if period < 0 { 1 } else { period };
        if period == 0 {
            // The mark was written and the removal was not: finish it.
            return Graceful::No;
        }
        // A period may only be shortened.
        let Some(mut asked) = options.grace_period.filter(|asked| *asked < period) else {
            return Graceful::Pending;
        };
        let mut deadline = later(deadline, asked.wrapping_sub(period));
        if deadline < now {
            deadline = now;
            if asked != 0 {
                // The period is over, but whoever acts on it must still see it end.
                asked = 1;
            }
        }
        let mut object = object.clone();
        let m = meta_mut(&mut object);
        m.insert("deletionTimestamp".into(), time(deadline));
        m.insert("deletionGracePeriodSeconds".into(), json!(asked));
        return Graceful::Marked {
            object,
            seconds: asked,
        };
    }
    let Some(grace) = grace else {
        return Graceful::No;
    };
    let seconds = grace.as_secs() as i64;
    let mut object = object.clone();
    let m = meta_mut(&mut object);
    m.insert("deletionTimestamp".into(), time(later(now, seconds)));
    m.insert("deletionGracePeriodSeconds".into(), json!(seconds));
    bump_generation(&mut object);
    Graceful::Marked { object, seconds }
}

/// So many seconds later as upstream has it: a Go duration is 64 bits of nanoseconds, and what
/// does not fit wraps around.
fn later(at: Timestamp, seconds: i64) -> Timestamp {
    let duration = SignedDuration::from_nanos(seconds.wrapping_mul(1_000_000_000));
    at.saturating_add(duration).unwrap_or(at)
}

fn bump_generation(object: &mut Value) {
    let generation = meta(object).generation();
    if generation > 0 {
        set_generation(object, generation + 1);
    }
}

/// For kinds without a grace period: deleted as soon as the finalizers are gone.
fn as_deleting(mut object: Value, now: Timestamp) -> Value {
    let existing = meta(&object).deletion_timestamp();
    if existing.is_none() {
        bump_generation(&mut object);
    }
    let m = meta_mut(&mut object);
    if existing.is_none_or(|at| at > now) {
        m.insert("deletionTimestamp".into(), time(now));
    }
    m.insert("deletionGracePeriodSeconds".into(), json!(0));
    object
}

/// The finalizers that the object shall have for the garbage collector's sake; `None` when
/// it has them already.
fn finalizers(
    object: &Value,
    options: &DeleteOptions,
    gc: GarbageCollection,
) -> Option<Vec<String>> {
    let wants = |finalizer: &str, propagation: Propagation| {
        if gc == GarbageCollection::Unsupported {
            return false;
        }
        if let Some(orphan) = options.orphan_dependents {
            return orphan && propagation == Propagation::Orphan;
        }
        if let Some(asked) = options.propagation {
            return asked == propagation;
        }
        // What was asked before stays; the first of the two that is there decides.
        match meta(object)
            .finalizers()
            .find(|f| matches!(*f, FINALIZER_ORPHAN | FINALIZER_FOREGROUND))
        {
            Some(before) => before == finalizer,
            None => gc == GarbageCollection::Orphan && propagation == Propagation::Orphan,
        }
    };
    let orphan = wants(FINALIZER_ORPHAN, Propagation::Orphan);
    let foreground = wants(FINALIZER_FOREGROUND, Propagation::Foreground);
    let mut new: Vec<String> = meta(object)
        .finalizers()
        .filter(|f| !matches!(*f, FINALIZER_ORPHAN | FINALIZER_FOREGROUND))
        .map(str::to_owned)
        .collect();
    if orphan {
        new.push(FINALIZER_ORPHAN.into());
    }
    if foreground {
        new.push(FINALIZER_FOREGROUND.into());
    }
    let mut before: Vec<&str> = meta(object).finalizers().collect();
    let mut after: Vec<&str> = new.iter().map(String::as_str).collect();
    before.sort_unstable();
    before.dedup();
    after.sort_unstable();
    after.dedup();
    (before != after).then_some(new)
}

/// The preconditions of a DELETE against the object as it is. `kind` stands in the message
/// where the resource would be expected, as upstream has it.
pub fn check_preconditions(
    object: &Value,
    options: &DeleteOptions,
    group: &str,
    kind: &str,
) -> Result<(), Status> {
    let m = meta(object);
    let conflict =
        |message: String| Status::conflict(&GroupResource::new(group, kind), m.name(), message);
    if let Some(uid) = &options.preconditions.uid
        && uid != m.uid()
    {
        return Err(conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            m.uid()
        )));
    }
    if let Some(version) = &options.preconditions.resource_version
        && version != m.resource_version()
    {
        return Err(conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
            m.resource_version()
        )));
    }
    Ok(())
}

/// Whether an update that leaves `new` finishes a deletion: the last finalizer went and no
/// grace period is left.
pub fn finished_by_update(new: &Value, old: &Value) -> bool {
    !meta(new).has_finalizers()
        && meta(old).is_deleting()
        && meta(old).deletion_grace_period().unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Kind = Kind {
        gc: GarbageCollection::Dependents,
        graceful: false,
        grace: None,
        held: false,
    };
    const NOW: &str = "2024-01-01T00:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn decide(object: Value, options: DeleteOptions) -> Plan {
        plan(&object, &options, PLAIN, now())
    }

    fn decide_pod(object: Value, asked: Option<i64>) -> Plan {
        let options = DeleteOptions {
            grace_period: asked,
            ..Default::default()
        };
        let grace = Some(Duration::from_secs(asked.unwrap_or(30) as u64));
        plan(
            &object,
            &options,
            Kind {
                graceful: true,
                grace,
                ..PLAIN
            },
            now(),
        )
    }

    #[test]
    fn a_plain_object_goes_at_once() {
        assert_eq!(
            decide(json!({"metadata": {"name": "a"}}), Default::default()),
            Plan::Remove
        );
    }

    #[test]
    fn finalizers_hold_an_object_back() {
        let object = json!({"metadata": {"name": "a", "generation": 2, "finalizers": ["x/y"]}});
        assert_eq!(
            decide(object, Default::default()),
            Plan::Mark(json!({"metadata": {
                "name": "a", "generation": 3, "finalizers": ["x/y"],
                "deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0,
            }}))
        );
    }

    #[test]
    fn propagation_becomes_a_finalizer() {
        let options = |p| DeleteOptions {
            propagation: Some(p),
            ..Default::default()
        };
        for (propagation, finalizer) in [
            (Propagation::Foreground, FINALIZER_FOREGROUND),
            (Propagation::Orphan, FINALIZER_ORPHAN),
        ] {
            let Plan::Mark(marked) = decide(json!({"metadata": {}}), options(propagation)) else {
                panic!("{propagation:?} must mark");
            };
            assert_eq!(meta(&marked).finalizers().collect::<Vec<_>>(), [finalizer]);
        }
        let orphaning = json!({"metadata": {"finalizers": ["orphan"]}});
        assert_eq!(
            decide(orphaning, options(Propagation::Background)),
            Plan::Remove
        );
        let kept = plan(
            &json!({"metadata": {}}),
            &options(Propagation::Orphan),
            Kind {
                gc: GarbageCollection::Unsupported,
                ..PLAIN
            },
            now(),
        );
        assert_eq!(kept, Plan::Remove);
    }

    #[test]
    fn a_grace_period_can_only_be_shortened() {
        let Plan::Mark(first) = decide_pod(json!({"metadata": {"generation": 1}}), None) else {
            panic!("a grace period must mark");
        };
        assert_eq!(
            first,
            json!({"metadata": {"generation": 2, "deletionTimestamp": "2024-01-01T00:00:30Z",
                                "deletionGracePeriodSeconds": 30}})
        );
        assert_eq!(decide_pod(first.clone(), None), Plan::Pending);
        assert_eq!(decide_pod(first.clone(), Some(60)), Plan::Pending);
        let Plan::Mark(shorter) = decide_pod(first.clone(), Some(10)) else {
            panic!("a shorter period must mark");
        };
        assert_eq!(
            shorter["metadata"]["deletionTimestamp"],
            "2024-01-01T00:00:10Z"
        );
        let Plan::MarkAndRemove(gone) = decide_pod(first, Some(0)) else {
            panic!("no period must remove");
        };
        assert_eq!(gone["metadata"]["deletionGracePeriodSeconds"], 0);
    }

    #[test]
    fn a_removal_that_was_cut_short_is_finished() {
        let object =
            json!({"metadata": {"deletionTimestamp": NOW, "deletionGracePeriodSeconds": 0}});
        assert_eq!(decide_pod(object, None), Plan::Remove);
    }

    #[test]
    fn a_grace_period_that_is_over_still_ends_visibly() {
        let object = json!({"metadata": {"deletionTimestamp": "2023-12-31T00:00:00Z",
                                         "deletionGracePeriodSeconds": 30}});
        let Plan::Mark(marked) = decide_pod(object, Some(5)) else {
            panic!("must mark");
        };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 1);
        assert_eq!(marked["metadata"]["deletionTimestamp"], NOW);
    }

    #[test]
    fn what_is_held_is_marked_once() {
        let held = Kind {
            held: true,
            ..PLAIN
        };
        let object = json!({"metadata": {"name": "ns"}});
        let Plan::Mark(marked) = plan(&object, &DeleteOptions::default(), held, now()) else {
            panic!("must mark");
        };
        assert_eq!(
            plan(&marked, &DeleteOptions::default(), held, now()),
            Plan::Pending
        );
        assert_eq!(
            plan(&marked, &DeleteOptions::default(), PLAIN, now()),
            Plan::Remove
        );
    }

    #[test]
    fn preconditions_are_compared() {
        let object = json!({"metadata": {"name": "a", "uid": "u1", "resourceVersion": "5"}});
        let mut options = DeleteOptions::default();
        assert!(check_preconditions(&object, &options, "", "Pod").is_ok());
        options.preconditions.uid = Some("u2".into());
        let err = check_preconditions(&object, &options, "", "Pod").unwrap_err();
        assert!(
            err.message
                .starts_with("Operation cannot be fulfilled on Pod \"a\": the UID")
        );
    }

    #[test]
    fn periods_that_no_clock_counts_wrap_as_in_go() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (seconds, then) in [
            (i64::MAX, "2025-12-31T23:59:59Z"),
            (253_000_000_000, "1859-06-30T23:42:48.066277376Z"),
            (9_223_372_036, "2318-04-12T23:47:16Z"),
        ] {
            assert_eq!(later(now, seconds), then.parse().unwrap(), "{seconds}");
        }
    }
}
