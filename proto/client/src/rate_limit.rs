//! A token bucket, as client-go's flow control: `qps` on average, `burst` at once.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Shared by all requests of a client.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// May be negative: those who wait have already taken theirs.
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// Full at first. `per_second` must be positive.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            per_second,
            burst,
            state: Mutex::new(State {
                tokens: burst,
                at: Instant::now(),
            }),
        }
    }

    /// Takes a token and returns how long to wait until it is there.
    pub fn reserve(&self) -> Duration {
        let mut s = self.state.lock();
        self.gain(&mut s);
        s.tokens -= 1.0;
        if s.tokens >= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(-s.tokens / self.per_second)
    }

    /// Takes a token, if there is one.
    pub fn try_take(&self) -> bool {
        let mut s = self.state.lock();
        self.gain(&mut s);
        let there = s.tokens >= 1.0;
        if there {
            s.tokens -= 1.0;
        }
        there
    }

    fn gain(&self, s: &mut State) {
        let now = Instant::now();
        let gained = now.saturating_duration_since(s.at).as_secs_f64() * self.per_second;
        s.tokens = (s.tokens + gained).min(self.burst);
        s.at = now;
    }

    /// Waits until a token is there, and takes it.
    pub async fn acquire(&self) {
        let wait = self.reserve();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bursts_then_paces() {
        let bucket = TokenBucket::new(10.0, 3);
        let start = Instant::now();
        for _ in 0..3 {
            bucket.acquire().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..5 {
            bucket.acquire().await;
        }
        assert!(
            start.elapsed() >= Duration::from_millis(490),
            "{:?}",
            start.elapsed()
        );
        assert!(
            start.elapsed() <= Duration::from_millis(520),
            "{:?}",
            start.elapsed()
        );
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(bucket.reserve(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn takes_what_is_there() {
        let bucket = TokenBucket::new(10.0, 2);
        let taken = [(); 3].map(|()| bucket.try_take());
        assert_eq!(taken, [true, true, false]);
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(bucket.try_take() && !bucket.try_take());
    }
}
