//! Writers that meet: at a row, which costs a flush, or at a position, which costs all that is in flight. Pure: it counts how
//! often, and tells how long this task leaves the rows to the other one. The clock and chance are arguments.

use std::time::Duration;

use tokio::time::Instant;

use crate::policy::backoff;

/// After so many fences in a row the member leaves its group, so that the partition can move.
const FENCES_MAX: u32 = 8;

/// After two writers met on a row, so many flushes leave room for the other.
const CONTENDED_FLUSHES: u32 = 64;
/// The longest that a task stands back for another writer.
const TURN_MAX: Duration = Duration::from_millis(500);

/// How long to stand back after so many conflicts in a row: by chance, so that two do not meet in step.
fn turn(conflicts: u32, chance: f64) -> Duration {
    let full = Duration::from_millis(2_u64 << conflicts.min(8));
    full.min(TURN_MAX).mul_f64(chance)
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Contention {
    /// Fences in a row.
    fences: u32,
    /// Conflicts in a row.
    conflicts: u32,
    /// So many flushes more leave room for other writers of the same rows.
    contended: u32,
    /// Until then nothing is folded or written, so that another writer gets its turn.
    until: Option<Instant>,
}

impl Contention {
    /// Another writer of the same rows came first.
    pub(super) fn conflict(&mut self, now: Instant, chance: f64) {
        self.conflicts += 1;
        self.contended = CONTENDED_FLUSHES;
        self.until = Some(now + turn(self.conflicts, chance));
    }

    /// Whether the last conflicts came one after the other, so that smaller batches may help.
    pub(super) fn repeats(&self) -> bool {
        self.conflicts > 2
    }

    /// A flush that took so long is durable.
    pub(super) fn durable(&mut self, now: Instant, took: Duration, chance: impl FnOnce() -> f64) {
        (self.fences, self.conflicts) = (0, 0);
        if self.contended > 0 {
            // Else whoever came first would stay first: its next batch is ready before another's is read.
            self.contended -= 1;
            self.until = Some(now + took.min(TURN_MAX).mul_f64(chance()));
        }
    }

    /// Another writer moved this task's positions: how long to wait before they are acquired again; none where that has
    /// happened too often.
    pub(super) fn fenced(&mut self) -> Option<Duration> {
        self.fences += 1;
        match self.fences {
            // The first fence may be one's own forgotten commit; later ones give the other side room.
            1 => Some(Duration::ZERO),
            fences if fences > FENCES_MAX => None,
            fences => Some(backoff(fences)),
        }
    }

    /// Fences in a row.
    pub(super) fn fences(&self) -> u32 {
        self.fences
    }

    /// Ends the other writer's turn where it is over.
    pub(super) fn pass(&mut self, now: Instant) {
        self.until = self.until.filter(|until| *until > now);
    }

    /// Until when it is another writer's turn.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_met_another_writer_leaves_it_turns_for_a_while() {
        let mut contention = Contention::default();
        let now = Instant::now();
        let took = Duration::from_millis(40);
        contention.durable(now, took, || 1.0);
        assert_eq!(contention.until(), None, "nobody else is there");
        let turns: Vec<Duration> = (0..10)
            .map(|_| {
                contention.conflict(now, 1.0);
                contention.until().unwrap() - now
            })
            .collect();
        assert!(turns.is_sorted() && turns.last() == Some(&TURN_MAX), "{turns:?}");
        assert!(contention.repeats());
        contention.pass(now + TURN_MAX);
        assert_eq!(contention.until(), None);
        for _ in 0..CONTENDED_FLUSHES {
            contention.durable(now, took, || 0.5);
            assert_eq!(contention.until(), Some(now + took / 2));
            assert!(!contention.repeats());
        }
        contention.pass(now + took);
        contention.durable(now, took, || 0.5);
        assert_eq!(contention.until(), None, "the other one is gone");
    }

    #[test]
    fn who_is_fenced_again_and_again_leaves() {
        let mut contention = Contention::default();
        assert_eq!(contention.fenced(), Some(Duration::ZERO));
        for _ in 1..FENCES_MAX {
            assert!(contention.fenced() > Some(Duration::ZERO));
        }
        assert_eq!(contention.fenced(), None);
        assert_eq!(contention.fences(), FENCES_MAX + 1);
    }
}
