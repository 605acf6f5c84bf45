//! Warns of paths that the first events of a handler never had. An event that is folded again is looked at
//! once.

use std::sync::Arc;

use foldline_language::event::{Event, Kind};
use foldline_language::projection::{Coverage, Prepared, Projection};

use crate::maps::{HashMap, HashSet};

/// What one task has seen of its handlers' paths.
#[derive(Debug)]
pub(crate) struct Watch {
    coverage: Coverage,
    /// The offset behind the last event looked at.
    seen: HashMap<(Arc<str>, i32), i64>,
    /// Topics of which a truncate was told that no handler hears.
    truncated: HashSet<Arc<str>>,
}

impl Watch {
    pub(crate) fn new(projection: &Projection) -> Self {
        Watch {
            coverage: Coverage::new(projection),
            seen: HashMap::default(),
            truncated: HashSet::default(),
        }
    }

    /// Looks at an event while one of its handlers is watched.
    pub(crate) fn observe(&mut self, projection: &Projection, event: &Event, prepared: &Prepared) {
        if event.kind == Kind::Aside {
            self.observe_truncate(event, prepared);
        }
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

    /// A truncate has no order against the changes of rows, since it may be in any partition: it deletes nothing by itself.
    fn observe_truncate(&mut self, event: &Event, prepared: &Prepared) {
        let is_truncate = event.name.as_deref() == Some("truncate");
        if is_truncate && prepared.is_unheard() && self.truncated.insert(Arc::clone(&event.topic)) {
            tracing::warn!(
                topic = &*event.topic,
                partition = event.partition,
                offset = event.offset,
                "the table was truncated, and its rows stay here: no handler hears `truncate`, which has no order against \
                 changes of rows; a rebuild from a topic that begins behind it leaves them out"
            );
        }
    }
}
