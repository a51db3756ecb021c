//! Waiting for a value. The limit bounds a failure and decides nothing else.

use std::time::{Duration, Instant};

/// How long anything may take before the test fails: generous, because a loaded
/// machine is not what is tested.
pub const LIMIT: Duration = Duration::from_secs(150);

/// Between two looks at what is waited for.
const INTERVAL: Duration = Duration::from_millis(150);

/// Looks again and again until `look` returns a value, and returns it.
///
/// # Panics
///
/// When that does not happen within [`LIMIT`], saying what was waited for and
/// what the last look saw.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > LIMIT => {
                panic!("waited {}s for {what}; last seen: {seen}", LIMIT.as_secs())
            }
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}

/// [`until`] for a look that is a future.
///
/// # Panics
///
/// Likewise.
pub async fn until_async<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > LIMIT => {
                panic!("waited {}s for {what}; last seen: {seen}", LIMIT.as_secs())
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// `Ok` when `actual` is `expected`: the usual end of a look.
pub fn equals<T: PartialEq<U> + std::fmt::Debug, U: ?Sized>(
    actual: T,
    expected: &U,
) -> Result<T, String> {
    if actual == *expected {
        Ok(actual)
    } else {
        Err(format!("{actual:?}"))
    }
}
