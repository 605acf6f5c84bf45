//! `verify`: folds the log again and compares with what the store holds, while live traffic goes on.
//!
//! The fold goes to the positions that the books name, then a snapshot of the store is opened, and the
//! fold goes on to the snapshot's own positions: the two stand at one place. A row that is newer by its
//! marks (Elasticsearch writes rows before positions) waits until the fold passes those marks. A repair
//! writes the folded row over exactly the version that was judged, so it undoes no event; it is believed
//! only when a later snapshot agrees, since an event that the wrong row had filtered leaves no trace in
//! the version.

mod ahead;
mod repair;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use foldline_api::error::{Error, Result};
use foldline_api::hole::Hole;
use foldline_api::model::{Key, Model, Row};
use foldline_api::parked::Place;
use foldline_api::record::Position;
use foldline_api::sink::{Books, Loaded, Mark, Marks, Writer};
use foldline_api::value::Value;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use self::ahead::Ahead;
use self::repair::rewrite;
use self::shown::shown;
use crate::offload::Pace;
use crate::policy::backoff;
use crate::replay::{Fold, Merge, Outcome, Parts, State, whole};

/// Rows of one page, at most, and about their bytes.
const PAGE: usize = 1_000;
const PAGE_BYTES: usize = 4 << 20;

/// How many rows are read at a time: few at first, and as many as fit by the size of the last ones.
#[derive(Clone, Copy, Debug)]
struct Page(usize);

impl Page {
    const FIRST: Page = Page(4);

    /// For what comes after these rows.
    fn after<'l>(self, rows: impl ExactSizeIterator<Item = &'l Loaded>) -> Page {
        let count = rows.len().max(1);
        let largest = rows.map(Loaded::heap_bytes).max().unwrap_or(0);
        Page((PAGE_BYTES / largest.max(1)).clamp(1, PAGE.min(count.max(self.0) * 2)))
    }
}

/// Rows that are newer than the fold are held up to this part of the replay's memory.
const AHEAD_SHARE: usize = 8;
/// Progress is told once in so many records.
const TELL_EVERY: u64 = 50_000;
/// Rows that the fold meets at no moment in so many rounds stay as they are.
const ROUNDS: u32 = 20;

/// What to verify.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request {
    /// One key in so many, by hash; all where there is none.
    pub(crate) sample: Option<u64>,
    /// Rewrite what differs.
    pub(crate) repair: bool,
}

/// One line of the answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// How far the fold is, in offsets.
    Progress { done: u64, total: u64 },
    /// A row that is not what the log gives.
    Drift(Drift),
    /// A row that was rewritten, and found right afterwards.
    Repaired { key: String },
    /// The end.
    Summary(Summary),
    /// It could not be finished.
    Error { message: String },
}

/// Where the lines go; the one who asked may have gone away.
pub(crate) type Lines = mpsc::Sender<Line>;

/// A row that is not what the log gives.
#[derive(Debug, Serialize)]
pub(crate) struct Drift {
    pub(crate) key: String,
    /// `changed`, `missing` (the store has no row) or `extra` (the log gives none).
    pub(crate) kind: &'static str,
    /// Several partitions feed this key and handlers do not commute: another order of the same events
    /// explains the difference, and nothing is wrong with the row.
    pub(crate) order_dependent: bool,
    pub(crate) fields: Vec<Field>,
}

/// A field that differs; absent where there is no row.
#[derive(Debug, Serialize)]
pub(crate) struct Field {
    pub(crate) field: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stored: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) folded: Option<Box<RawValue>>,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    pub(crate) connector: String,
    pub(crate) generation: u64,
    /// Records folded.
    pub(crate) events: u64,
    /// Rows compared.
    pub(crate) rows: u64,
    /// Rows that differ, but for those that another order explains.
    pub(crate) drift: u64,
    pub(crate) order_dependent: u64,
    pub(crate) repaired: u64,
    /// Records left out, as the store refused them, of which only a rebuild can tell whether it still would.
    pub(crate) unasked: u64,
    /// Rows that changed all the while and that the fold met at no moment; not judged.
    pub(crate) unsettled: u64,
    /// Rows that have still to show what they look up: of those the rest was compared.
    #[serde(skip_serializing_if = "shown::is_zero")]
    pub(crate) waiting: u64,
    /// What an operator left out of this generation, and so did the fold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<String>,
}

/// A value as exact JSON.
fn raw(value: &Value) -> Option<Box<RawValue>> {
    RawValue::from_string(foldline_api::json::to_string(value)).ok()
}

/// Where two rows differ.
pub(crate) fn differences(model: &Model, stored: Option<&Row>, folded: Option<&Row>) -> Vec<Field> {
    let columns = model.columns.iter().enumerate();
    columns
        .filter(|(at, _)| stored.map(|row| row.get(*at)) != folded.map(|row| row.get(*at)))
        .map(|(at, column)| Field {
            field: column.name.to_string(),
            stored: stored.and_then(|row| raw(row.get(at))),
            folded: folded.and_then(|row| raw(row.get(at))),
        })
        .collect()
}

/// Verifies, and tells what it finds line by line.
pub(crate) async fn verify(parts: Parts, request: Request, lines: Lines) {
    let done = match Verify::start(parts, request, lines.clone()) {
        Ok(verify) => verify.run().await,
        Err(error) => Err(error),
    };
    let last = match done {
        Ok(summary) => Line::Summary(summary),
        Err(error) => Line::Error { message: error.to_string() },
    };
    // Nobody may be listening any more.
    let _ = lines.send(last).await;
}

struct Verify {
    parts: Parts,
    request: Request,
    lines: Lines,
    merge: Merge,
    fold: Fold,
    generation: u64,
    /// What was parked when the books were last looked at.
    parked: BTreeSet<Place>,
    /// For each column, whether it may depend on the order of partitions.
    by_order: Vec<bool>,
    /// Rows that are newer than the fold.
    ahead: Ahead,
    drifted: Vec<Key>,
    summary: Summary,
}

impl Verify {
    fn start(parts: Parts, request: Request, lines: Lines) -> Result<Self> {
        let (merge, mut fold) = parts.start()?;
        if let Some(n) = request.sample {
            fold.sample(n);
        }
        let by_order = parts.projection.order_dependent();
        let summary = Summary { connector: parts.connector.clone(), ..Summary::default() };
        let (drifted, generation) = (Vec::new(), 0);
        let ahead = Ahead::new(parts.memory / AHEAD_SHARE);
        let parked = BTreeSet::new();
        Ok(Verify {
            parts,
            request,
            lines,
            merge,
            fold,
            generation,
            parked,
            by_order,
            ahead,
            drifted,
            summary,
        })
    }

    async fn run(mut self) -> Result<Summary> {
        self.compare_all().await?;
        self.settle().await?;
        if self.request.repair && !self.drifted.is_empty() {
            let writer = self.parts.target.writer(self.generation).await?;
            self.mend(&*writer).await?;
        }
        Ok(self.end())
    }

    fn end(mut self) -> Summary {
        self.summary.unsettled = self.ahead.len() as u64;
        self.summary.generation = self.generation;
        self.summary.events = self.fold.folded;
        self.summary
    }

    // Not a borrow: the future must not hold on to what cannot be shared between threads.
    fn tell(&self, line: Line) -> impl Future<Output = Result<()>> + Send + use<> {
        let lines = self.lines.clone();
        async move {
            let told = lines.send(line).await;
            told.map_err(|_| Error::retriable("nobody waits for the answer any more"))
        }
    }

    /// Folds on to the books' positions.
    async fn fold_to(&mut self, books: &Books) -> Result<()> {
        if books.generation != self.generation {
            return Err(Error::retriable(
                "the target was rebuilt meanwhile: verify the new generation",
            ));
        }
        self.fold.expire(books.horizon);
        self.ahead.retain(|key| self.fold.wants(key));
        self.summary.unasked = self.fold.repeat(&books.verdicts);
        let parked = self.parts.parked(books.generation).await?;
        let places: BTreeSet<Place> =
            parked.iter().map(|it| (it.partition.clone(), it.offset)).collect();
        if !self.parked.is_subset(&places) {
            return Err(Error::retriable("parked events were taken back meanwhile: verify again"));
        }
        self.parked = places;
        self.fold.repeat(&parked);
        let holes = self.parts.target.holes().holes(books.generation).await?;
        self.summary.left_out = holes.iter().map(Hole::told).collect();
        self.merge.leave_out(&holes);
        self.merge.extend(&whole(&books.positions));
        self.drain().await?;
        self.parts.same_topics(&books.positions).await
    }

    async fn drain(&mut self) -> Result<()> {
        let (total, mut folded) = (self.merge.remaining(), 0_u64);
        let mut pace = Pace::new();
        while let Some(record) = self.merge.next().await? {
            let outcome = pace.run(record.bytes(), || self.fold.fold(&record))?.outcome;
            if let Outcome::Applied(keys) = outcome
                && !self.ahead.is_empty()
            {
                self.meet(keys).await?;
            }
            folded += 1;
            if folded.is_multiple_of(TELL_EVERY) {
                let done = total.saturating_sub(self.merge.remaining());
                self.tell(Line::Progress { done, total }).await?;
            }
            pace.rest().await;
        }
        Ok(())
    }

    /// Judges those of these keys that were found as the fold has them now.
    async fn meet(&mut self, keys: Vec<Key>) -> Result<()> {
        for key in keys {
            let Some(found) = self.ahead.get(&key) else { continue };
            let state = self.fold.state(&key)?;
            if meets(found, &state)
                && let Some(found) = self.ahead.remove(&key)
            {
                self.judge(key, (found.row.as_ref(), None), &state).await?;
            }
        }
        Ok(())
    }

    /// Compares all rows of a snapshot; those that are newer than its books are kept for later.
    async fn compare_all(&mut self) -> Result<()> {
        // Most of the log is folded before the snapshot that is compared with, which is held for less.
        let first = self.parts.target.snapshot().await?.books().clone();
        self.generation = first.generation;
        self.parts.check_log(&first).await?;
        self.fold_to(&first).await?;
        let mut snapshot = self.parts.target.snapshot().await?;
        let books = snapshot.books().clone();
        self.fold_to(&books).await?;
        let mut few = Page::FIRST;
        loop {
            let page = snapshot.next(few.0).await?;
            // What a row is gone by was durable before.
            self.fold.expire(snapshot.books().horizon);
            if page.is_empty() {
                break;
            }
            few = few.after(page.iter().map(|(_, loaded)| loaded));
            let rows = page.iter().map(|(_, loaded)| loaded.row.clone()).collect();
            let joined = shown(self.shows(), &mut *snapshot, rows).await?;
            for ((key, loaded), shown) in page.into_iter().zip(joined) {
                if self.fold.wants(&key) {
                    self.summary.rows += 1;
                    self.summary.waiting += u64::from(self.waits(&loaded, shown.as_ref()));
                    self.compare(key, (loaded, shown), &books).await?;
                }
            }
        }
        // What the pages did not show may be a tombstone that is newer than the books.
        let missing = self.fold.unseen()?;
        let (mut rest, mut few) = (&*missing, Page::FIRST);
        while !rest.is_empty() {
            let (keys, behind) = rest.split_at(rest.len().min(few.0));
            let rows = snapshot.load(keys).await?;
            (rest, few) = (behind, few.after(rows.iter()));
            self.fold.expire(snapshot.books().horizon);
            for (key, loaded) in keys.iter().zip(rows) {
                if self.fold.wants(key) {
                    self.summary.rows += 1;
                    self.compare(key.clone(), (loaded, None), &books).await?;
                }
            }
        }
        Ok(())
    }

    async fn compare(
        &mut self,
        key: Key,
        (loaded, shown): (Loaded, Option<Row>),
        books: &Books,
    ) -> Result<()> {
        if !self.fold.wants(&key) {
            self.ahead.remove(&key);
            return Ok(());
        }
        let state = self.fold.state(&key)?;
        if is_ahead(&loaded.marks, books) {
            self.ahead.keep(key, loaded);
            return Ok(());
        }
        self.judge(key, (loaded.row.as_ref(), shown.as_ref()), &state).await
    }

    /// Lets the fold go on until it has met the rows that were newer. One that it passed without meeting
    /// it (several partitions feed it, in another order) is looked at again, and so is one that there was no room for.
    async fn settle(&mut self) -> Result<()> {
        for round in 0..ROUNDS {
            if self.ahead.is_empty() {
                break;
            }
            if round > 1 {
                tokio::time::sleep(backoff(round.min(3))).await;
            }
            let mut snapshot = self.parts.target.snapshot().await?;
            let books = snapshot.books().clone();
            self.fold_to(&books).await?;
            let passed = self.ahead.passed(&books);
            let (mut rest, mut few) = (&*passed, Page::FIRST);
            while !rest.is_empty() {
                let (keys, behind) = rest.split_at(rest.len().min(few.0));
                let rows = snapshot.load(keys).await?;
                (rest, few) = (behind, few.after(rows.iter()));
                self.fold.expire(snapshot.books().horizon);
                for (key, loaded) in keys.iter().zip(rows) {
                    self.compare(key.clone(), (loaded, None), &books).await?;
                }
            }
        }
        Ok(())
    }

    /// Rewrites the rows that differ, each judged in a snapshot that it does not overtake, until a snapshot
    /// agrees.
    async fn mend(&mut self, writer: &dyn Writer) -> Result<()> {
        let mut open = std::mem::take(&mut self.drifted);
        for round in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            if round > 1 {
                tokio::time::sleep(backoff(round.min(3))).await;
            }
            let mut still = Vec::new();
            let (mut rest, mut few) = (&*open, Page::FIRST);
            while !rest.is_empty() {
                let (keys, behind) = rest.split_at(rest.len().min(few.0));
                let mut snapshot = self.parts.target.snapshot().await?;
                let books = snapshot.books().clone();
                let rows = snapshot.load(keys).await?;
                (rest, few) = (behind, few.after(rows.iter()));
                self.fold.expire(snapshot.books().horizon);
                let stored = rows.iter().map(|loaded| loaded.row.clone()).collect();
                let joined = shown(self.shows(), &mut *snapshot, stored).await?;
                drop(snapshot);
                self.fold_to(&books).await?;
                for ((key, loaded), shown) in keys.iter().zip(rows).zip(joined) {
                    if !self.fold.wants(key) {
                        continue;
                    }
                    let state = self.fold.state(key)?;
                    if !is_ahead(&loaded.marks, &books) {
                        let stored = loaded.row.as_ref();
                        if loaded.row == self.expected(&state, stored, shown.as_ref()) {
                            self.summary.repaired += 1;
                            self.tell(Line::Repaired { key: key.to_string() }).await?;
                            continue;
                        }
                        rewrite(writer, key, &loaded, &state).await?;
                    }
                    still.push(key.clone());
                }
            }
            open = still;
        }
        Ok(())
    }

    /// `shown` has what the row is to show, where that is known.
    async fn judge(
        &mut self,
        key: Key,
        (stored, shown): (Option<&Row>, Option<&Row>),
        state: &State,
    ) -> Result<()> {
        let folded = self.expected(state, stored, shown);
        let folded = folded.as_ref();
        if stored == folded {
            return Ok(());
        }
        let unordered = |(at, by_order): (usize, &bool)| {
            *by_order || stored.map(|row| row.get(at)) == folded.map(|row| row.get(at))
        };
        let order_dependent = state.marks.len() > 1
            && stored.is_some()
            && folded.is_some()
            && self.by_order.iter().enumerate().all(unordered);
        let kind = match (stored, folded) {
            (None, _) => "missing",
            (_, None) => "extra",
            _ => "changed",
        };
        let fields = differences(self.parts.projection.model(), stored, folded);
        if order_dependent {
            self.summary.order_dependent += 1;
        } else {
            self.summary.drift += 1;
            if self.request.repair {
                self.drifted.push(key.clone());
            }
        }
        self.tell(Line::Drift(Drift { key: key.to_string(), kind, order_dependent, fields })).await
    }
}

/// Whether the row was found as the fold has it now: with the same events.
pub(crate) fn meets(found: &Loaded, state: &State) -> bool {
    found.marks.len() == state.marks.len()
        && found.marks.iter().all(|mark| state.marks.contains(mark))
}

/// Whether the row holds events behind the books' positions.
pub(crate) fn is_ahead(marks: &Marks, books: &Books) -> bool {
    let position = |mark: &Mark| {
        let stored = books.positions.iter().find(|stored| stored.partition == mark.partition);
        stored.map_or(Position(0), |stored| stored.position)
    };
    marks.iter().any(|mark| mark.position > position(mark))
}
