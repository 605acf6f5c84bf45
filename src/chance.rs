//! The one source of chance in the loop and its retries, so that a seed of the simulation replays.

/// A number from 0 up to 1: drawn, or under a seeded test the next of its seed.
pub(crate) fn fraction() -> f64 {
    #[cfg(test)]
    if let Some(drawn) = seeded::next() {
        return drawn;
    }
    rand::random()
}

#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::RefCell;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    thread_local! {
        static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    /// From here on this thread's chance is the seed's.
    pub(crate) fn seed(seed: u64) {
        SEEDED.with_borrow_mut(|rng| *rng = Some(StdRng::seed_from_u64(seed)));
    }

    pub(super) fn next() -> Option<f64> {
        SEEDED.with_borrow_mut(|rng| rng.as_mut().map(Rng::random))
    }
}
