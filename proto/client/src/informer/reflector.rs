//! The list-and-watch protocol as a state machine without I/O: it says what to do next and
//! is told how that went.
//!
//! It follows client-go's reflector: begin with a streamed list (KEP-3157) where the server
//! has it, else with a list from the server's cache; watch from there, with bookmarks; when a
//! watch ends take it up where it was; when the revision is too old start over; back off
//! between failures.

use std::time::Duration;

use meta::Status;
use meta::status::CAUSE_RESOURCE_VERSION_TOO_LARGE;

use crate::api::ListOptions;
use crate::error::Error;

/// Delay after the first failure; doubles up to the second number.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(30));
/// Watches are asked to end after this many seconds, or up to twice as many: not all at once.
const WATCH_SECONDS: u32 = 300;
/// Closing watches without an event are a failure when they come this often in a row.
const IDLE_CLOSES: u32 = 3;

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// List everything, then call [`Reflector::listed`] or [`Reflector::failed`].
    List(ListOptions),
    /// Watch, beginning with what exists. Call [`Reflector::listed`] at the bookmark that ends
    /// it, then treat the rest as [`Action::Watch`].
    Stream(ListOptions),
    /// Watch. Call [`Reflector::progressed`] for every event and [`Reflector::closed`],
    /// [`Reflector::refused`] or [`Reflector::failed`] at the end.
    Watch(ListOptions),
    Wait(Duration),
}

#[derive(Debug)]
enum State {
    /// Nothing known, or too old.
    Unsynced,
    /// Everything up to `revision` is known.
    Watching,
}

#[derive(Debug)]
pub(super) struct Reflector {
    selection: ListOptions,
    state: State,
    revision: String,
    /// The server does not have `revision` (any more): ask for the newest.
    revision_unavailable: bool,
    streaming: bool,
    failures: u32,
    /// Whether the delay of the last failure is still to be waited for.
    waiting: bool,
    idle_closes: u32,
    progressed: bool,
}

impl Reflector {
    /// `selection` gives the selectors.
    pub fn new(selection: ListOptions) -> Self {
        Self {
            selection,
            state: State::Unsynced,
            revision: String::new(),
            revision_unavailable: false,
            streaming: true,
            failures: 0,
            waiting: false,
            idle_closes: 0,
            progressed: false,
        }
    }

    /// `random` is uniform in 0..1.
    pub fn next(&mut self, random: f64) -> Action {
        if std::mem::take(&mut self.waiting) {
            let exponent = (self.failures - 1).min(16);
            let delay = BACKOFF.0.saturating_mul(1 << exponent).min(BACKOFF.1);
            return Action::Wait(delay.mul_f64(1.0 + random));
        }
        let mut options = self.selection.clone();
        let timeout = WATCH_SECONDS + (f64::from(WATCH_SECONDS) * random) as u32;
        self.progressed = false;
        match self.state {
            State::Watching => {
                options.resource_version = Some(self.revision.clone());
                options.allow_watch_bookmarks = true;
                options.timeout_seconds = Some(timeout);
                Action::Watch(options)
            }
            State::Unsynced if self.streaming => {
                let known = !self.revision_unavailable && !self.revision.is_empty();
                options.resource_version = known.then(|| self.revision.clone());
                options.resource_version_match = Some("NotOlderThan");
                options.send_initial_events = Some(true);
                options.allow_watch_bookmarks = true;
                options.timeout_seconds = Some(timeout);
                Action::Stream(options)
            }
            State::Unsynced => {
                options.resource_version = match self.revision.as_str() {
                    _ if self.revision_unavailable => None,
                    "" => Some("0".to_owned()),
                    revision => Some(revision.to_owned()),
                };
                Action::List(options)
            }
        }
    }

    /// Everything that exists at `revision` has been taken in.
    pub fn listed(&mut self, revision: &str) {
        self.state = State::Watching;
        self.revision_unavailable = false;
        self.progress(revision);
    }

    /// An event or a bookmark of a watch has been taken in.
    pub fn progressed(&mut self, revision: &str) {
        self.progress(revision);
    }

    fn progress(&mut self, revision: &str) {
        if !revision.is_empty() {
            revision.clone_into(&mut self.revision);
        }
        self.failures = 0;
        self.idle_closes = 0;
        self.progressed = true;
    }

    /// The server has ended the watch, as it does after the timeout.
    pub fn closed(&mut self) {
        match self.state {
            State::Unsynced => {
                // It ended without the bookmark that was asked for.
                self.streaming = false;
                self.fail();
            }
            State::Watching if !self.progressed => {
                self.idle_closes += 1;
                if self.idle_closes >= IDLE_CLOSES {
                    self.fail();
                }
            }
            State::Watching => {}
        }
    }

    /// A request or a watch was refused by the server.
    pub fn refused(&mut self, status: &Status) {
        if status.is_expired() || status.is_gone() {
            // Once may happen to anybody; then it is better to hurry.
            let first = !self.revision_unavailable;
            self.state = State::Unsynced;
            self.revision_unavailable = true;
            if !first {
                self.fail();
            }
            return;
        }
        if status.has_cause(CAUSE_RESOURCE_VERSION_TOO_LARGE) {
            self.revision_unavailable = true;
        }
        if matches!(self.state, State::Unsynced)
            && self.streaming
            && (status.is_invalid() || status.is_bad_request())
        {
            // This server has no streamed lists.
            self.streaming = false;
            return;
        }
        self.fail();
    }

    /// A request failed, or a watch broke off.
    pub fn failed(&mut self, err: &Error) {
        match err.status() {
            Some(status) => self.refused(status),
            None => self.fail(),
        }
    }

    fn fail(&mut self) {
        self.failures += 1;
        self.waiting = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: Status) -> Error {
        status.into()
    }

    fn stream(r: &mut Reflector) -> ListOptions {
        match r.next(0.0) {
            Action::Stream(o) => o,
            other => panic!("{other:?}"),
        }
    }

    fn watch(r: &mut Reflector) -> ListOptions {
        match r.next(0.5) {
            Action::Watch(o) => o,
            other => panic!("{other:?}"),
        }
    }

    fn lost() -> Error {
        Error::Transport {
            server: "s".into(),
            message: "m".into(),
            refused: true,
            connecting: true,
            source: None,
        }
    }

    #[test]
    fn streams_then_watches_on() {
        let mut r = Reflector::new(ListOptions::new().labels("a=b"));
        let o = stream(&mut r);
        assert_eq!(o.send_initial_events, Some(true));
        assert_eq!(o.resource_version_match, Some("NotOlderThan"));
        assert_eq!(o.resource_version, None);
        r.listed("10");
        r.progressed("11");
        r.closed();
        let o = watch(&mut r);
        assert_eq!(o.resource_version.as_deref(), Some("11"));
        assert_eq!(o.label_selector.as_deref(), Some("a=b"));
        assert_eq!(o.timeout_seconds, Some(450));
        assert!(o.allow_watch_bookmarks);
    }

    #[test]
    fn servers_without_streaming_are_listed() {
        let mut r = Reflector::new(ListOptions::new());
        stream(&mut r);
        r.failed(&refused(Status {
            code: 422,
            ..Status::default()
        }));
        let Action::List(o) = r.next(0.0) else {
            panic!()
        };
        assert_eq!(o.resource_version.as_deref(), Some("0"));
        r.listed("5");
        assert_eq!(watch(&mut r).resource_version.as_deref(), Some("5"));
    }

    #[test]
    fn an_old_revision_starts_over_from_the_newest() {
        let mut r = Reflector::new(ListOptions::new());
        stream(&mut r);
        r.listed("10");
        watch(&mut r);
        r.refused(&Status::expired("too old resource version"));
        assert_eq!(stream(&mut r).resource_version, None);
        r.refused(&Status::expired("again"));
        assert!(matches!(r.next(0.0), Action::Wait(_)));
        r.next(0.0);
        r.listed("20");
        assert_eq!(watch(&mut r).resource_version.as_deref(), Some("20"));
    }

    #[test]
    fn a_lost_connection_takes_the_watch_up_again() {
        let mut r = Reflector::new(ListOptions::new());
        stream(&mut r);
        r.listed("10");
        for want in [800, 1600, 3200] {
            watch(&mut r);
            r.failed(&lost());
            assert_eq!(r.next(0.0), Action::Wait(Duration::from_millis(want)));
        }
        assert_eq!(watch(&mut r).resource_version.as_deref(), Some("10"));
        r.progressed("11");
        r.failed(&lost());
        assert_eq!(r.next(1.0), Action::Wait(Duration::from_millis(1600)));
    }

    #[test]
    fn delays_are_bounded() {
        let mut r = Reflector::new(ListOptions::new());
        for _ in 0..100 {
            r.failed(&lost());
        }
        assert_eq!(r.next(0.0), Action::Wait(Duration::from_secs(30)));
    }

    #[test]
    fn watches_that_keep_closing_are_slowed_down() {
        let mut r = Reflector::new(ListOptions::new());
        stream(&mut r);
        r.listed("1");
        for _ in 0..2 {
            watch(&mut r);
            r.closed();
        }
        watch(&mut r);
        r.closed();
        assert!(matches!(r.next(0.0), Action::Wait(_)));
    }

    #[test]
    fn a_stream_without_its_end_falls_back_to_listing() {
        let mut r = Reflector::new(ListOptions::new());
        stream(&mut r);
        r.closed();
        assert!(matches!(r.next(0.0), Action::Wait(_)));
        assert!(matches!(r.next(0.0), Action::List(_)));
    }

    #[test]
    fn a_revision_from_the_future_is_forgotten() {
        let mut r = Reflector::new(ListOptions::new());
        r.streaming = false;
        r.next(0.0);
        r.listed("100");
        r.refused(&Status::expired(""));
        r.revision_unavailable = false;
        let mut status = Status::timeout("Too large resource version: 100, current: 5", 1);
        status.details_mut().causes.push(meta::status::StatusCause {
            reason: CAUSE_RESOURCE_VERSION_TOO_LARGE.to_owned(),
            ..Default::default()
        });
        r.failed(&refused(status));
        r.next(0.0);
        let Action::List(o) = r.next(0.0) else {
            panic!()
        };
        assert_eq!(o.resource_version, None);
    }
}
