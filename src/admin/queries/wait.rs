//! Read your writes: a read that waits until the store has what was written to the log.

use std::time::Duration;

use axum::http::StatusCode;
use foldline_api::record::TopicPartition;
use foldline_api::sink::StoredPosition;
use foldline_language::config::names::covers;
use tokio::time::{Instant, sleep};

use super::super::{Answer, App, Failure};
use crate::connector::Connector;

/// The store is asked so often at first, and half as often each time, down to the other.
const ASK: Duration = Duration::from_millis(20);
const ASK_MAX: Duration = Duration::from_millis(320);

/// A record that the store is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) struct Wait {
    partition: TopicPartition,
    offset: i64,
}

impl Wait {
    /// Reads `topic:partition:offset`.
    ///
    /// # Errors
    /// A sentence with the form.
    pub(in crate::admin) fn parse(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (place, offset) = text.rsplit_once(':')?;
            let (topic, partition) = place.rsplit_once(':')?;
            let offset = offset.parse().ok().filter(|offset| *offset >= 0)?;
            let partition = partition.parse().ok().filter(|partition| *partition >= 0)?;
            let partition = TopicPartition::new(topic, partition);
            (!topic.is_empty()).then_some(Wait { partition, offset })
        };
        parsed().ok_or_else(|| {
            format!("wait is topic:partition:offset, as POST /topics answers them, not {text:?}")
        })
    }

    /// Reads several, with commas between.
    ///
    /// # Errors
    /// As of [`Wait::parse`].
    pub(in crate::admin) fn all(text: &str) -> Result<Vec<Self>, String> {
        text.split(',').map(Wait::parse).collect()
    }

    /// Where the partition stands, where that is not behind the record.
    fn missing(&self, positions: &[StoredPosition]) -> Option<String> {
        let found = positions.iter().find(|stored| stored.partition == self.partition);
        match found {
            Some(stored) if stored.position.0 > self.offset => None,
            Some(stored) => Some(format!(
                "{} stands at {}, and the record at {} is waited for",
                self.partition, stored.position, self.offset
            )),
            None => Some(format!(
                "nothing of {} is in the store, and the record at {} is waited for",
                self.partition, self.offset
            )),
        }
    }
}

/// Waits until the live generation has folded these records, for `worker.query_wait` at most.
pub(in crate::admin) async fn until_durable(
    app: &App,
    connector: &Connector,
    waits: &[Wait],
) -> Answer<()> {
    if waits.is_empty() {
        return Ok(());
    }
    check_topics(app, connector.name(), waits)?;
    let busy = |_| {
        let message = "as many reads wait as this worker lets wait: ask again";
        Failure(StatusCode::SERVICE_UNAVAILABLE, message.to_owned())
    };
    let _turn = app.turns.waits.try_acquire().map_err(busy)?;
    let target = connector.parts()?.target;
    let limit = app.config.worker.query_wait;
    let end = Instant::now() + limit;
    let mut pause = ASK;
    loop {
        let read = tokio::time::timeout_at(end, target.status()).await;
        let missing = match read {
            Ok(opened) => {
                let positions = opened?.positions;
                waits.iter().find_map(|wait| wait.missing(&positions))
            }
            Err(_) => Some("the store does not tell its positions".to_owned()),
        };
        let Some(missing) = missing else { return Ok(()) };
        if Instant::now() + pause >= end {
            let state = connector.view().state.name();
            let message = format!(
                "{missing}: not durable within {} s (worker.query_wait), while {} is {state}",
                limit.as_secs_f64(),
                connector.name()
            );
            return Err(Failure(StatusCode::GATEWAY_TIMEOUT, message));
        }
        sleep(pause).await;
        pause = (pause * 2).min(ASK_MAX);
    }
}

/// Refuses a topic that the connector never folds: it would be waited for in vain.
fn check_topics(app: &App, name: &str, waits: &[Wait]) -> Answer<()> {
    let projection = app.config.connectors.get(name).map(|connector| &connector.projection);
    let topics = projection.and_then(|name| app.config.projections.get(name)).map(|of| &of.topics);
    let Some(topics) = topics else { return Ok(()) };
    match waits.iter().find(|wait| !covers(topics, &wait.partition.topic)) {
        Some(wait) => Err(Failure(
            StatusCode::BAD_REQUEST,
            format!("wait: {name} does not read topic {}", wait.partition.topic),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use foldline_api::record::Position;

    use super::*;

    #[test]
    fn a_record_is_there_once_the_position_is_behind_it() {
        let wait = Wait::parse("a:b:3:41").unwrap();
        assert_eq!(wait, Wait { partition: TopicPartition::new("a:b", 3), offset: 41 });
        let stands = |partition, position| StoredPosition {
            partition: TopicPartition::new("a:b", partition),
            topic_id: None,
            beginning: Position(0),
            position: Position(position),
            epoch: 1,
        };
        assert_eq!(wait.missing(&[stands(3, 42)]), None);
        let says = wait.missing(&[stands(2, 99), stands(3, 41)]).unwrap();
        assert!(says.contains("stands at 41, and the record at 41 is waited for"), "{says}");
        assert!(wait.missing(&[stands(2, 99)]).unwrap().contains("nothing of"));
        for wrong in ["", "orders", "orders:0", "orders:x:1", "orders:0:-1", ":0:1", "o:-1:1"] {
            assert!(Wait::parse(wrong).unwrap_err().contains("topic:partition:offset"), "{wrong}");
        }
    }
}
