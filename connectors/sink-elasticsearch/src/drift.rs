//! A mapping that someone changes under a running worker.
//!
//! Elasticsearch has no transaction that could look at the mapping with the flush. It is looked at before a
//! flush, where that was not done for half a minute, and whenever a document is refused. So documents may be
//! written for so long under a mapping that drifted, but none is set aside for it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foldline_api::sink::TargetSpec;
use foldline_api::{Error, Result};
use tokio::time::Instant;

use crate::shape::{self, Fields, Made};
use crate::survey::Cluster;

/// How often the mapping is looked at while there is something to write.
const EVERY: Duration = Duration::from_secs(30);

/// What one writer knows of its index.
#[derive(Debug)]
pub(crate) struct DriftWatch {
    spec: TargetSpec,
    seen: Mutex<Option<Seen>>,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    uuid: String,
    /// The fields as they were at the first look, where the index does not keep them.
    fields: Fields,
}

impl DriftWatch {
    pub(crate) fn new(spec: TargetSpec) -> Self {
        DriftWatch { spec, seen: Mutex::default() }
    }

    /// Looks at the index where that is due, or where a document was `refused`.
    ///
    /// # Errors
    /// Config where its mapping or settings drifted, Fenced where it is another index.
    pub(crate) async fn look(
        &self,
        cluster: &Cluster,
        generation: u64,
        refused: bool,
    ) -> Result<()> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !refused && seen.as_ref().is_some_and(|seen| seen.at.elapsed() < EVERY) {
            return Ok(());
        }
        let (name, at) = (cluster.names.index(generation), Instant::now());
        // One that is gone shows by the write itself.
        let Some(index) = cluster.index(&name).await? else { return Ok(()) };
        let uuid = index.uuid().to_owned();
        if seen.as_ref().is_some_and(|seen| seen.uuid != uuid) {
            return Err(Error::fenced(format!("{name:?} is another index now")));
        }
        let first = seen.map_or_else(|| shape::fields(&self.spec, &index.mappings), |s| s.fields);
        let kept = Made::of(&index).fields;
        let then = if kept.is_empty() { &first } else { &kept };
        shape::check(&self.spec, (&name, &index), then, refused)?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Seen { at, uuid, fields: first });
        Ok(())
    }
}
