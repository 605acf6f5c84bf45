//! How many items one request has: fewer after one that took too long. It decides only how often the cluster is
//! asked, never what is written.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// After so many answers in a row to more items than one request may have, twice as many are tried.
const LARGER_AFTER: u32 = 8;

/// Half as many items after a request that took too long, down to one.
#[derive(Debug)]
pub(crate) struct Size {
    most: usize,
    items: AtomicUsize,
    passed: AtomicU32,
}

impl Size {
    pub(crate) fn new(most: usize) -> Self {
        Size { most, items: AtomicUsize::new(most), passed: AtomicU32::new(0) }
    }

    /// How many items a request may have.
    pub(crate) fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    /// A request of so many took too long. Of one alone, the number is not to blame.
    pub(crate) fn shrink(&self, items: usize) {
        if items > 1 {
            self.items.fetch_min(items / 2, Ordering::Relaxed);
            self.passed.store(0, Ordering::Relaxed);
        }
    }

    /// So many in all went through. What one request would have held anyhow tells nothing.
    pub(crate) fn passed(&self, items: usize) {
        let now = self.items();
        if items > now && self.passed.fetch_add(1, Ordering::Relaxed) + 1 >= LARGER_AFTER {
            self.items.store(now.saturating_mul(2).min(self.most), Ordering::Relaxed);
            self.passed.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_halved_down_to_one_and_grows_back_where_more_is_asked_for() {
        let size = Size::new(100);
        size.shrink(1);
        assert_eq!(size.items(), 100, "one alone would take as long again");
        size.shrink(6);
        assert_eq!(size.items(), 3);
        size.shrink(100);
        assert_eq!(size.items(), 3, "one that was sent before");
        size.shrink(3);
        assert_eq!(size.items(), 1);
        for _ in 0..100 {
            size.passed(1);
        }
        assert_eq!(size.items(), 1, "nobody asks for more");
        let mut seen = vec![1];
        while size.items() < 100 {
            for _ in 0..LARGER_AFTER {
                assert_eq!(size.items(), seen[seen.len() - 1]);
                size.passed(1_000);
            }
            seen.push(size.items());
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 64, 100]);
    }
}
