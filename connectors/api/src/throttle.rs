//! A trouble that lasts is one story: its first line, then one every half minute.

use std::time::{Duration, Instant};

/// How long a line that repeats is held back.
pub const REPEAT_AFTER: Duration = Duration::from_secs(30);

/// Decides which of many like lines are worth logging. The clock is an argument.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    held_back: u64,
}

impl Throttle {
    /// Whether to log the line at `now`: then, how many were held back since the last.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < REPEAT_AFTER) {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_logged_and_then_one_every_half_minute() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let logged: Vec<(u64, u64)> = (0..100)
            .filter_map(|at| Some((at, throttle.admit(start + Duration::from_secs(at))?)))
            .collect();
        assert_eq!(logged, [(0, 0), (30, 29), (60, 29), (90, 29)]);
    }
}
