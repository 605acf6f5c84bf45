//! The wall clock: for what is shown, and for rows that expire ([`crate::expiry`]).

/// Milliseconds since the epoch, now.
pub(crate) fn now_millis() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A clock that a test sets, for all that its thread runs.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<i64> = const { Cell::new(0) };
    }

    /// It is this moment, in milliseconds since the epoch.
    pub(crate) fn set(now: i64) {
        NOW.set(now);
    }

    /// Milliseconds since the epoch, now.
    pub(crate) fn now() -> i64 {
        NOW.get()
    }
}
