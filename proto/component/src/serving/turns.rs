//! Requests of HTTP/1 that come in one write (pipelining, RFC 9112, 9.3.2) are answered within
//! one poll of their connection, one after the other, as long as none of them has to wait. Those
//! of others would wait for all of them.
//!
//! What must not be here: HTTP/2, whose requests are tasks of their own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use parking_lot::Mutex;
use pin_project_lite::pin_project;

use crate::aside::{TURN, others_first};

/// A turn of a connection: one poll of it. Clones are of the same connection.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    began: Arc<Mutex<Instant>>,
}

impl Turn {
    pub fn new() -> Self {
        Self {
            began: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Waits for the next turn if this one has lasted long enough.
    pub async fn unless_over(&self) {
        let is_over = self.began.lock().elapsed() >= TURN;
        if is_over {
            others_first().await;
        }
    }
}

pin_project! {
    /// A connection that notes when its turns begin.
    pub(super) struct InTurns<C> {
        #[pin]
        connection: C,
        turn: Turn,
    }
}

impl<C> InTurns<C> {
    pub fn new(connection: C, turn: Turn) -> Self {
        Self { connection, turn }
    }
}

impl<C: Future> Future for InTurns<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.project();
        *this.turn.began.lock() = Instant::now();
        this.connection.poll(cx)
    }
}
