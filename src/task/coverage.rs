//! Warns of paths that the first events of a handler never had. An event that is folded again is looked at
//! once.

use std::sync::Arc;

use foldline_language::event::Event;
use foldline_language::projection::{Coverage, Prepared, Projection};

use crate::maps::HashMap;

/// What one task has seen of its handlers' paths.
#[derive(Debug)]
pub(crate) struct Watch {
    coverage: Coverage,
    /// The offset behind the last event looked at.
    seen: HashMap<(Arc<str>, i32), i64>,
}

impl Watch {
    pub(crate) fn new(projection: &Projection) -> Self {
        Watch { coverage: Coverage::new(projection), seen: HashMap::default() }
    }

    /// Looks at an event while one of its handlers is watched.
    pub(crate) fn observe(&mut self, projection: &Projection, event: &Event, prepared: &Prepared) {
        if !self.coverage.watches(prepared) {
            return;
        }
        let seen = self.seen.entry((Arc::clone(&event.topic), event.partition)).or_default();
        if event.offset < *seen {
            return;
        }
        *seen = event.offset + 1;
        for never in self.coverage.observe(projection, event, prepared) {
            tracing::warn!("{never}");
        }
    }
}
