//! Carries the effects of decisions out, all of them in one task.
//!
//! What was decided in one go is begun in one go, so that it leaves in one packet; a task for
//! each would have the connection write each by itself.

use std::future::Future;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

/// Takes effects. Unbounded: there are no more than pods that have been taken out of the
/// queue, and whoever decides must not wait.
pub struct Courier {
    effects: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
}

impl Courier {
    /// Spawns the task, which ends when the courier is dropped and all has been carried out.
    pub fn start() -> Self {
        let (effects, taken) = mpsc::unbounded_channel();
        tokio::spawn(run(taken));
        Self { effects }
    }

    pub fn carry(&self, effect: impl Future<Output = ()> + Send + 'static) {
        // The task is there as long as its runtime is.
        let _ = self.effects.send(Box::pin(effect));
    }
}

async fn run(mut taken: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>) {
    /// At most so many are begun before others have their turn.
    const AT_ONCE: usize = 256;
    let mut running = FuturesUnordered::new();
    let mut fresh = Vec::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            biased;
            count = taken.recv_many(&mut fresh, AT_ONCE), if open => {
                open = count > 0;
                running.extend(fresh.drain(..));
            }
            Some(()) = running.next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Barrier, Notify};

    use super::*;

    #[tokio::test]
    async fn effects_do_not_wait_for_each_other() {
        let courier = Courier::start();
        let together = Arc::new(Barrier::new(4));
        let done = Arc::new(Notify::new());
        for _ in 0..3 {
            let together = Arc::clone(&together);
            courier.carry(async move {
                together.wait().await;
            });
        }
        together.wait().await;
        let told = Arc::clone(&done);
        courier.carry(async move { told.notify_one() });
        drop(courier);
        done.notified().await;
    }
}
