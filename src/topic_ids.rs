//! Whether topics are still the ones that stored positions belong to: an id never comes back, a name does.

use std::sync::Arc;

use foldline_api::error::{Error, Result};
use foldline_api::sink::StoredPosition;
use foldline_api::source::Log;

use crate::maps::HashMap;

/// Topics with their ids as the store has them.
pub(crate) type Known = HashMap<Arc<str>, String>;

/// Whether positions of a topic are stored: it may not be missing.
pub(crate) fn folded(positions: &[StoredPosition]) -> impl Fn(&str) -> bool {
    |topic| positions.iter().any(|stored| *stored.partition.topic == *topic)
}

/// Asks the log whether these topics have these ids.
///
/// # Errors
/// A config error where one was made anew.
pub(crate) async fn same_topics(log: &dyn Log, known: &Known) -> Result<()> {
    let topics: Vec<Arc<str>> = known.keys().cloned().collect();
    for (topic, id) in topics.iter().zip(log.topic_ids(&topics).await?) {
        if id.is_some() && id.as_ref() != known.get(topic) {
            return Err(recreated(topic));
        }
    }
    Ok(())
}

/// The sentence for a topic that was deleted and made again under its name.
pub(crate) fn recreated(topic: &str) -> Error {
    Error::config(format!(
        "topic {topic:?} was deleted and created again since its events were folded: its offsets start \
         anew and the stored positions belong to the old one. Rebuild from the new topic with `foldline \
         rebuild NAME --in-place`, or restore the old topic"
    ))
}
