//! State topics that go for good: the states first, the books last, so that whoever is cut off between them finds the rest by the
//! books.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldline_api::binding::check_owner;
use foldline_api::removal::{Keep, Owned, Removed};
use foldline_api::source::Log;
use foldline_api::{Error, ErrorClass, Result};
use foldline_sink_sqlite::Journal;
use foldline_source_kafka::{KafkaConfig, KafkaLog, Topics, delete_topics};

use crate::config::{BOOKS_OF, KafkaSinkConfig, books};
use crate::target::Copy;
use crate::values::{ValueFormat, Values};

/// A topic that was deleted is shown no more within so long.
const GONE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// The state topics of a connector on this cluster, by their books.
pub(crate) async fn owned(config: &KafkaSinkConfig, connector: &str) -> Result<Vec<Owned>> {
    let spec = |states: &str| {
        let (target, connector) = (states.to_owned(), connector.to_owned());
        let (worker, group, log) = (String::new(), String::new(), String::new());
        Owned { target, worker, connector, group, log }.spec()
    };
    let pattern = format!("^.+{BOOKS_OF}$");
    let topics = Topics::Regex { pattern, except: Vec::new() };
    let any = KafkaConfig { topics, declared: Vec::new(), ..config.kafka(&spec("any"))? };
    let there = KafkaLog::new(any)?.survey().await?;
    let mut owned = Vec::new();
    for info in there.partitions.iter().filter(|info| info.partition.partition == 0) {
        let Some(states) = info.partition.topic.strip_suffix(BOOKS_OF) else { continue };
        let spec = spec(states);
        let values = Values::new(ValueFormat::Json, &spec)?;
        let copy = Copy::new(config.kafka(&spec)?, spec, values)?;
        match copy.local.binding().await {
            Ok(Some(binding)) if binding.connector == connector => {
                owned.push(Owned::new(states, binding));
            }
            Ok(_) => {}
            Err(error) if error.class() == ErrorClass::Config => {
                tracing::warn!(topic = %info.partition.topic, %error, "no books of a state topic");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(owned)
}

/// See [`foldline_api::sink::Target::remove`].
pub(crate) async fn remove(copy: &Copy, keep: Keep) -> Result<Removed> {
    let Copy { config, spec, log, local, .. } = copy;
    let mut removed = Removed::default();
    let Some(binding) = local.binding().await? else { return Ok(removed) };
    check_owner(&binding, spec)?;
    let (states, books) = (&spec.target, books(&spec.target));
    let members = log.topics().members().await?;
    if members > 0 {
        return Err(Error::config(format!(
            "group {books:?} has {members} members, which write `{states}` or stand by: have the workers read their config anew, or \
             stop them"
        )));
    }
    let asked = Arc::clone(log);
    let is_ours = tokio::task::spawn_blocking(move || asked.is_of_books()).await;
    let is_ours =
        is_ours.map_err(|e| Error::retriable("a question was abandoned").with_source(e))??;
    let mut gone = vec![&*books];
    match (is_ours, keep) {
        (Some(true), Keep::Nothing) => {
            delete_topics(config, &[states]).await?;
            removed.dropped.push(states.clone());
            gone.push(states);
        }
        (Some(false), _) => removed.strangers.push(states.clone()),
        (Some(true), Keep::Live) | (None, _) => {}
    }
    log.topics().delete_group().await?;
    delete_topics(config, &[&books]).await?;
    let deadline = Instant::now() + GONE;
    loop {
        let survey = log.topics().survey().await?;
        let is_gone = |topic: &&str| survey.missing.iter().any(|one| &*one.name == *topic);
        if gone.iter().all(is_gone) {
            break;
        }
        if Instant::now() >= deadline {
            let message = format!("`{}` were deleted, and are still there", gone.join("`, `"));
            return Err(Error::retriable(message));
        }
        tokio::time::sleep(LOOK).await;
    }
    local.forget_copy().await?;
    log.forget();
    Ok(removed)
}
