//! `explain`: the events that made a row, the state after each, and whether the store holds the last; or
//! what the row was at an earlier moment.

use std::collections::BTreeSet;

use foldline_api::error::{Error, Result};
use foldline_api::expiry::Horizon;
use foldline_api::hole::Hole;
use foldline_api::model::{Key, Model, Row};
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::sink::{Books, Loaded, StoredPosition};
use foldline_api::source::{PartitionInfo, Start, Stretch};
use foldline_api::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::offload::Pace;
use crate::policy::{OnBadRecord, Reaction, backoff, reaction};
use crate::replay::{Fold, Folded, Merge, Outcome, Parts, Placement, place, whole};
use crate::verify::{Field, differences, is_ahead, meets};

/// A row that is newer than every one of so many snapshots is compared with none.
const ROUNDS: u32 = 20;

/// A moment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// After all records up to this moment, in milliseconds since the epoch.
    Time(i64),
    /// After the record at this offset; of other partitions, after what is not later than it.
    Place(TopicPartition, i64),
}

impl At {
    /// Reads a moment in RFC 3339 or `topic:partition=offset`.
    ///
    /// # Errors
    /// A sentence with both forms.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(At::Time(moment.micros().div_euclid(1_000)));
        }
        let place = || {
            let (place, offset) = text.rsplit_once('=')?;
            let (topic, partition) = place.rsplit_once(':')?;
            let offset: i64 = offset.parse().ok().filter(|offset| *offset >= 0)?;
            Some(At::Place(TopicPartition::new(topic, partition.parse().ok()?), offset))
        };
        place().ok_or_else(|| {
            Error::config(format!(
                "at {text:?}: allowed is a moment such as 2026-01-31T12:00:00Z, or topic:partition=offset"
            ))
        })
    }
}

/// One line of the answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// Which partitions are read, of how many, and why these.
    Reading {
        partitions: Vec<String>,
        of: usize,
        why: String,
        /// What an operator left out of this generation, and so does the fold.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        left_out: Vec<String>,
    },
    /// A record that names the key.
    Event(Event),
    /// The end.
    Summary(Summary),
    /// It could not be finished.
    Error { message: String },
}

/// A record that names the key, and what it did.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<String>,
    /// `applied`, `filtered`, `dead_lettered`, `skipped` or `stopped`.
    pub(crate) outcome: &'static str,
    /// Why a bad record is bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// The row after it; none where there is none.
    pub(crate) row: Option<Box<RawValue>>,
    /// The fields that it changed.
    pub(crate) changed: Vec<String>,
}

/// What all events come to.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) key: String,
    /// Records that name the key.
    pub(crate) events: u64,
    /// The row that they give; none where they give none.
    pub(crate) row: Option<Box<RawValue>>,
    /// The row that the store holds now; absent where another moment was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stored: Option<Option<Box<RawValue>>>,
    /// Why there is no row of this key, if the clock has deleted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expired: Option<String>,
    /// Why the store can hold no row of this key, if it cannot even name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unnamed: Option<String>,
    /// Where the two differ.
    pub(crate) differences: Vec<Field>,
    /// Whether the row changed all the while, and was compared with none.
    pub(crate) unsettled: bool,
}

/// A row as a JSON object.
pub(crate) fn object(model: &Model, row: Option<&Row>) -> Option<Box<RawValue>> {
    let row = row?;
    let mut out = String::from("{");
    for (at, column) in model.columns.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        foldline_api::json::write_text(&column.name, &mut out);
        out.push(':');
        foldline_api::json::write(row.get(at), &mut out);
    }
    out.push('}');
    RawValue::from_string(out).ok()
}

/// What is said of a row that the horizon has passed, and of its events.
fn expired(horizon: Horizon) -> String {
    format!("expired: its moment lies before {horizon}")
}

/// Explains a row, line by line.
pub(crate) async fn explain(parts: Parts, key: Key, at: Option<At>, lines: mpsc::Sender<Line>) {
    let explain = Explain { parts, key, lines: Some(lines.clone()) };
    let last = match explain.run(at).await {
        Ok((summary, _)) => Line::Summary(summary),
        Err(error) => Line::Error { message: error.to_string() },
    };
    // Nobody may be listening any more.
    let _ = lines.send(last).await;
}

/// What the row was at a moment.
pub(crate) async fn row_at(parts: Parts, key: Key, at: At) -> Result<Option<Row>> {
    let explain = Explain { parts, key, lines: None };
    explain.run(Some(at)).await.map(|(_, row)| row)
}

struct Explain {
    parts: Parts,
    key: Key,
    lines: Option<mpsc::Sender<Line>>,
}

/// One pass over the log.
struct Pass {
    merge: Merge,
    fold: Fold,
    row: Option<Row>,
    events: u64,
    /// The partitions that are read; all where there is none.
    only: Option<BTreeSet<TopicPartition>>,
    /// The stored row, where it is newer than the fold.
    ahead: Option<Loaded>,
    /// The fold stands just where that row does, and goes no further.
    met: bool,
    /// Why the store has no name for the key.
    unnamed: Option<String>,
    /// The stored row with what it is to show, where that is known.
    shown: Option<Row>,
}

impl Pass {
    fn extend(&mut self, mut stretches: Vec<Stretch>) {
        if let Some(only) = &self.only {
            stretches.retain(|stretch| only.contains(&stretch.partition));
        }
        self.merge.extend(&stretches);
    }
}

impl Explain {
    async fn run(&self, at: Option<At>) -> Result<(Summary, Option<Row>)> {
        let books = self.parts.target.snapshot().await?.books().clone();
        let infos = self.parts.check_log(&books).await?;
        let stretches = match &at {
            None => whole(&books.positions),
            Some(at) => self.stretches_at(&books.positions, &infos, at).await?,
        };
        let holes = self.parts.target.holes().holes(books.generation).await?;
        let all = whole(&books.positions);
        let placement = place(&self.parts, (&all, &holes), &self.key).await?;
        let (only, why) = match placement {
            Placement::Known(only, why) => (Some(only), why),
            Placement::Any(why) => (None, why),
        };
        let narrowed = only.as_ref().is_some_and(|only| only.len() < stretches.len());
        let mut pass = self.pass(only, &books, stretches.clone(), &why).await?;
        if at.is_some() {
            self.parts.same_topics(&books.positions).await?;
            let row = pass.row.take();
            return Ok((self.summary(&pass, row.as_ref(), None, false), row));
        }
        let (mut stored, mut settled) = self.compare(&mut pass).await?;
        if narrowed && settled && stored != self.expected(&pass, stored.as_ref()) {
            // The partitioner was told from a sample: before the store is called wrong, all are read.
            let why = "the stored row differs from what these partitions give, so all are read";
            pass = self.pass(None, &books, stretches, why).await?;
            (stored, settled) = self.compare(&mut pass).await?;
        }
        self.parts.same_topics(&books.positions).await?;
        let row = self.expected(&pass, stored.as_ref());
        Ok((self.summary(&pass, row.as_ref(), Some(stored.as_ref()), settled), row))
    }

    /// The row that the events give, with what it is to show; where that is not known, with what the stored one shows.
    fn expected(&self, pass: &Pass, stored: Option<&Row>) -> Option<Row> {
        let folded = pass.row.as_ref()?;
        let Some(shown) = pass.shown.as_ref().or(stored) else { return Some(folded.clone()) };
        Some(self.parts.projection.overlay(folded, shown))
    }

    async fn tell(&self, line: Line) -> Result<()> {
        let Some(lines) = &self.lines else { return Ok(()) };
        let told = lines.send(line).await;
        told.map_err(|_| Error::retriable("nobody waits for the answer any more"))
    }

    /// Where each partition is to be read to, for a moment.
    async fn stretches_at(
        &self,
        stored: &[StoredPosition],
        infos: &[PartitionInfo],
        at: &At,
    ) -> Result<Vec<Stretch>> {
        let mut stretches = whole(stored);
        let partitions: Vec<TopicPartition> =
            stored.iter().map(|stored| stored.partition.clone()).collect();
        let (moment, place) = match at {
            At::Time(moment) => (Some(*moment), None),
            At::Place(partition, offset) => {
                let record = self.record_at(stored, infos, partition, *offset).await?;
                (record.and_then(|record| record.timestamp), Some((partition, *offset)))
            }
        };
        if let Some(moment) = moment {
            let found = self
                .parts
                .log
                .find(&partitions, Start::Timestamp(moment.saturating_add(1)))
                .await?;
            for (stretch, found) in stretches.iter_mut().zip(found) {
                stretch.to = stretch.to.min(found).max(stretch.from);
            }
        }
        if let Some((partition, offset)) = place
            && let Some(stretch) = stretches.iter_mut().find(|s| s.partition == *partition)
        {
            stretch.to = Position(offset + 1);
        }
        Ok(stretches)
    }

    /// The record at a place; none where the log has none there any more.
    async fn record_at(
        &self,
        stored: &[StoredPosition],
        infos: &[PartitionInfo],
        partition: &TopicPartition,
        offset: i64,
    ) -> Result<Option<Record>> {
        let known = stored.iter().find(|stored| stored.partition == *partition);
        let info = infos.iter().find(|info| info.partition == *partition);
        let (Some(known), Some(info)) = (known, info) else {
            return Err(Error::config(format!("{partition} is not read by this connector")));
        };
        if offset < known.beginning.0 || offset >= info.high.0 {
            return Err(Error::config(format!(
                "{partition} has no offset {offset}: the fold began at {}, and the log ends before {}",
                known.beginning, info.high
            )));
        }
        let (from, to) = (Position(offset), Position(offset + 1));
        let mut merge = Merge::new(self.parts.log.reader()?, 1);
        merge.extend(&[Stretch { partition: partition.clone(), from, to }]);
        merge.next().await
    }

    async fn pass(
        &self,
        only: Option<BTreeSet<TopicPartition>>,
        books: &Books,
        stretches: Vec<Stretch>,
        why: &str,
    ) -> Result<Pass> {
        let (mut merge, mut fold) = self.parts.start()?;
        fold.only(self.key.clone());
        fold.expire(books.horizon);
        fold.repeat(&books.verdicts);
        fold.repeat(&self.parts.parked(books.generation).await?);
        let partitions = match &only {
            Some(only) => only.iter().map(ToString::to_string).collect(),
            None => stretches.iter().map(|stretch| stretch.partition.to_string()).collect(),
        };
        let (of, why) = (stretches.len(), why.to_owned());
        let holes = self.parts.target.holes().holes(books.generation).await?;
        let left_out = holes.iter().map(Hole::told).collect();
        self.tell(Line::Reading { partitions, of, why, left_out }).await?;
        merge.leave_out(&holes);
        let (row, ahead, unnamed) = (None, None, None);
        let shown = None;
        let mut pass =
            Pass { merge, fold, row, events: 0, only, ahead, met: false, unnamed, shown };
        pass.extend(stretches);
        self.drain(&mut pass).await?;
        Ok(pass)
    }

    async fn drain(&self, pass: &mut Pass) -> Result<()> {
        let mut pace = Pace::new();
        while !pass.met
            && let Some(record) = pass.merge.next().await?
        {
            let folded = pace.run(record.bytes(), || pass.fold.fold(&record))?;
            if folded.keys.contains(&self.key) {
                self.event(pass, &record, folded).await?;
            }
            pace.rest().await;
        }
        Ok(())
    }

    async fn event(&self, pass: &mut Pass, record: &Record, folded: Folded) -> Result<()> {
        pass.events += 1;
        let (mut changed, mut reason) = (Vec::new(), None);
        let outcome = match folded.outcome {
            Outcome::Applied(written) if written.contains(&self.key) => {
                let state = pass.fold.state(&self.key)?;
                pass.met = pass.ahead.as_ref().is_some_and(|found| meets(found, &state));
                let row = state.row;
                let model = self.parts.projection.model();
                let fields = differences(model, pass.row.as_ref(), row.as_ref());
                changed.extend(fields.into_iter().map(|field| field.field));
                pass.row = row;
                "applied"
            }
            Outcome::Applied(_) | Outcome::Filtered | Outcome::Passed => {
                reason = pass.fold.passed_by(&self.key).map(expired);
                "filtered"
            }
            Outcome::Bad(stage, why) => {
                reason = Some(format!("{stage}: {why}"));
                match self.parts.on_bad_record {
                    OnBadRecord::DeadLetter => "dead_lettered",
                    OnBadRecord::Skip => "skipped",
                    OnBadRecord::Stop => "stopped",
                    OnBadRecord::Park => "parked",
                }
            }
        };
        let timestamp = record.timestamp.and_then(Timestamp::from_millis);
        let row = object(self.parts.projection.model(), pass.row.as_ref());
        self.tell(Line::Event(Event {
            topic: record.topic.to_string(),
            partition: record.partition,
            offset: record.offset,
            timestamp: timestamp.map(|timestamp| timestamp.to_string()),
            event: folded.name.map(|name| name.to_string()),
            outcome,
            reason,
            row,
            changed,
        }))
        .await
    }

    /// Folds on to where a snapshot stands; the row that it holds, and whether the two stand at one place.
    async fn compare(&self, pass: &mut Pass) -> Result<(Option<Row>, bool)> {
        let mut stored = None;
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(backoff(round.min(3))).await;
            }
            let mut snapshot = self.parts.target.snapshot().await?;
            let books = snapshot.books().clone();
            let loaded = match snapshot.load(std::slice::from_ref(&self.key)).await {
                // As where a task reads states: a key that the store cannot name is in no row.
                Err(error) if reaction(error.class()) == Reaction::Blame => {
                    pass.unnamed = Some(error.to_string());
                    Some(Loaded::absent())
                }
                loaded => loaded?.pop(),
            };
            pass.fold.expire(snapshot.books().horizon);
            let row = loaded.as_ref().and_then(|loaded| loaded.row.clone());
            pass.shown = match row.filter(|_| self.parts.projection.looks_up()) {
                Some(row) => snapshot.shown(&[row]).await?.pop().flatten(),
                None => None,
            };
            drop(snapshot);
            pass.fold.repeat(&books.verdicts);
            pass.fold.repeat(&self.parts.parked(books.generation).await?);
            let holes = self.parts.target.holes().holes(books.generation).await?;
            pass.merge.leave_out(&holes);
            pass.extend(whole(&books.positions));
            self.drain(pass).await?;
            if pass.fold.passed_by(&self.key).is_some() {
                // It is gone, or is about to go.
                pass.row = None;
                return Ok((None, true));
            }
            if pass.met {
                return Ok((pass.ahead.take().and_then(|found| found.row), true));
            }
            let Some(loaded) = loaded else { continue };
            stored.clone_from(&loaded.row);
            if !is_ahead(&loaded.marks, &books) {
                return Ok((stored, true));
            }
            if pass.ahead.as_ref().is_none_or(|found| !is_ahead(&found.marks, &books)) {
                pass.ahead = Some(loaded);
            }
        }
        Ok((stored, false))
    }

    fn summary(
        &self,
        pass: &Pass,
        row: Option<&Row>,
        stored: Option<Option<&Row>>,
        settled: bool,
    ) -> Summary {
        let model = self.parts.projection.model();
        let differences = match stored {
            Some(stored) if settled => differences(model, stored, row),
            _ => Vec::new(),
        };
        Summary {
            key: self.key.to_string(),
            events: pass.events,
            row: object(model, row),
            stored: stored.map(|stored| object(model, stored)),
            expired: pass.fold.passed_by(&self.key).map(expired),
            unnamed: pass.unnamed.clone(),
            differences,
            unsettled: stored.is_some() && !settled,
        }
    }
}

#[cfg(test)]
mod tests;
