//! The state topic and the topic of its books, as one log that a local copy follows.
//!
//! Whoever initialises the transactional id has fenced all others, and what they had committed is whole: from then on what is
//! read to the end is all there is, and stays so until somebody else does the same, by which this producer's next transaction
//! fails. So a flush is decided on the local copy, and durable by one transaction.

mod send;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldline_api::model::{Key, Row};
use foldline_api::record::Record;
use foldline_api::source::{Log, Reader, Stretch};
use foldline_api::{Error, ErrorClass, Result};
use foldline_sink_sqlite::{Changes, Journal, Replica, Rows, Stands};
use foldline_source_kafka::{KafkaConfig, KafkaLog, from_kafka};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::runtime::Handle;

use crate::books::{Life, Of, TOPIC, There, check_life, entry_of, is_missing, stretch};
use crate::producer::{Span, Transactions};
use crate::state::decode;
use crate::values::Values;

/// No question waits longer for a broker.
const ASK: Duration = Duration::from_secs(10);
/// So long after a commit its marker may take to show in the books.
const SETTLES: Duration = Duration::from_millis(500);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// So many bytes of a topic are taken at once.
const CHUNK: usize = 1 << 20;
/// What names a log.
pub(crate) struct Names {
    /// The state topic.
    pub(crate) states: String,
    /// The topic of its books.
    pub(crate) books: String,
    /// The transactional id.
    pub(crate) id: String,
}

/// See the module.
pub(crate) struct StateLog {
    config: KafkaConfig,
    names: Names,
    values: Arc<Values>,
    log: KafkaLog,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The next offset of the books that the copy does not have.
    books: i64,
    /// The same of each partition of the state topic.
    states: Vec<i64>,
    /// Somebody else wrote to the state topic: the copy does not have it.
    behind: bool,
    /// Which topic the books are of.
    of: Option<Of>,
    transactions: Option<Transactions>,
    reader: Option<Box<dyn Reader>>,
    /// Tells ends: of what is committed, and of all.
    committed: Option<BaseConsumer>,
    all: Option<BaseConsumer>,
}

impl std::fmt::Debug for StateLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateLog").field("states", &self.names.states).finish_non_exhaustive()
    }
}

impl StateLog {
    /// Checks the config, without asking the cluster.
    pub(crate) fn new(config: KafkaConfig, names: Names, values: Arc<Values>) -> Result<Self> {
        let log = KafkaLog::new(config.clone())?;
        Ok(StateLog { config, names, values, log, state: Mutex::default() })
    }

    /// What makes the topics and compares them.
    pub(crate) fn topics(&self) -> &KafkaLog {
        &self.log
    }

    /// Whether the state topic that is there is the one of the books, which were read; none where there is none. Waits.
    pub(crate) fn is_of_books(&self) -> Result<Option<bool>> {
        let mut state = self.lock();
        let there = self.there(&mut state)?;
        let of = state.of.as_ref().map(|of| &of.topic_id);
        Ok(there.map(|there| of == Some(&there.of.topic_id)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first and the end offset of a partition.
    fn ends(&self, state: &mut State, of: (&str, i32), all: bool) -> Result<(i64, i64)> {
        let what = || format!("asking for the end of `{}`/{}", of.0, of.1);
        let slot = if all { &mut state.all } else { &mut state.committed };
        if slot.is_none() {
            let mut client = self.config.asking();
            client.set("isolation.level", if all { "read_uncommitted" } else { "read_committed" });
            let client = client.create::<BaseConsumer>();
            *slot = Some(client.map_err(|error| from_kafka(what(), &error))?);
        }
        let Some(client) = slot else { return Ok((0, 0)) };
        client.fetch_watermarks(of.0, of.1, ASK).map_err(|error| from_kafka(what(), &error))
    }

    /// The end of what is committed of the books. One that was committed just now becomes visible a moment later: that is waited
    /// for, but not for a transaction that somebody left open.
    fn settled_end(&self, state: &mut State) -> Result<i64> {
        let books = (&*self.names.books, 0);
        let (_, all) = self.ends(state, books, true)?;
        if all <= state.books + 1 {
            return Ok(all);
        }
        let until = Instant::now() + SETTLES;
        loop {
            let (_, end) = self.ends(state, books, false)?;
            if end >= all || Instant::now() >= until {
                return Ok(end);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The state topic as it stands; none where there is none.
    fn there(&self, state: &mut State) -> Result<Option<There>> {
        let survey = Handle::current().block_on(self.log.survey())?;
        let states = &*self.names.states;
        if survey.missing.iter().any(|missing| &*missing.name == states) {
            return Ok(None);
        }
        let infos = survey.partitions.iter().filter(|info| &*info.partition.topic == states);
        let (mut ends, mut topic_id) = (Vec::new(), None);
        for (number, info) in (0..).zip(infos) {
            topic_id = topic_id.or_else(|| info.topic_id.clone());
            ends.push(self.ends(state, (states, number), true)?);
        }
        let partitions = i32::try_from(ends.len()).unwrap_or(i32::MAX);
        Ok(Some(There { of: Of { topic_id, partitions }, ends }))
    }

    /// Reads stretches to their ends.
    fn read(
        &self,
        state: &mut State,
        mut wanted: Vec<Stretch>,
        mut take: impl FnMut(Vec<Record>) -> Result<()>,
    ) -> Result<()> {
        wanted.retain(|stretch| stretch.from < stretch.to);
        let runtime = Handle::current();
        if state.reader.is_none() && !wanted.is_empty() {
            state.reader = Some(self.log.reader()?);
        }
        while !wanted.is_empty() {
            let Some(reader) = &mut state.reader else { break };
            let chunk = match runtime.block_on(reader.read(&wanted, CHUNK)) {
                Ok(chunk) => chunk,
                Err(error) => {
                    state.reader = None;
                    return Err(error);
                }
            };
            take(chunk.records)?;
            if let Some(stretch) = wanted.get_mut(chunk.of) {
                stretch.from = chunk.next;
            }
            wanted.retain(|stretch| stretch.from < stretch.to);
        }
        Ok(())
    }

    /// Reads the books up to `end`.
    fn read_books(&self, state: &mut State, replica: &Replica<'_>, end: i64) -> Result<()> {
        let (from, mut of) = (state.books, state.of.clone());
        if end <= from {
            return Ok(());
        }
        let unread = stretch(&self.names.books, 0, from, end);
        self.read(state, vec![unread], |records| {
            for record in records {
                let entry = entry_of(&record)?;
                if entry.table == TOPIC {
                    of = match entry.row.as_deref() {
                        Some(row) => Some(Of::read(row).ok_or_else(|| self.strange_books())?),
                        None => None,
                    };
                } else {
                    replica.put_entry(&entry.table, &entry.key, entry.row.as_deref())?;
                }
            }
            Ok(())
        })?;
        (state.books, state.of) = (end, of);
        Ok(())
    }

    fn strange_books(&self) -> Error {
        Error::config(format!(
            "`{}` holds books that this version of Foldline does not know: deploy the version that wrote them",
            self.names.books
        ))
    }

    /// Reads what the state topic has up to its ends.
    fn read_states(
        &self,
        state: &mut State,
        replica: &Replica<'_>,
        ends: &[(i64, i64)],
    ) -> Result<()> {
        state.states.resize(ends.len(), 0);
        let mut wanted = Vec::new();
        for ((number, from), (low, high)) in (0..).zip(&state.states).zip(ends) {
            wanted.push(stretch(&self.names.states, number, (*from).max(*low), *high));
        }
        if replica.has_table()? {
            self.read(state, wanted, |records| {
                let row = |record| decode(&self.values, replica, record);
                let rows: Result<Vec<(Key, Option<Row>)>> = records.iter().map(row).collect();
                replica.put_rows(&rows?)
            })?;
        }
        state.states = ends.iter().map(|(_, high)| *high).collect();
        state.behind = false;
        Ok(())
    }

    /// Takes the state topic as it stands for that of the books, or not.
    fn settle(
        &self,
        state: &mut State,
        replica: &Replica<'_>,
        there: Option<&There>,
    ) -> Result<()> {
        let stands = match (there, &state.of) {
            (None, _) => Stands::Nothing,
            (Some(there), Some(of)) if of.topic_id == there.of.topic_id => {
                if of.partitions != there.of.partitions {
                    return Err(Error::config(format!(
                        "the state topic `{}` has {} partitions now, and its keys lie in {}: a key would be in two of \
                         them. Delete the topic, which is built anew then",
                        self.names.states, there.of.partitions, of.partitions
                    )));
                }
                Stands::Same
            }
            (Some(_), _) => Stands::Other,
        };
        if replica.settle(stands)? {
            state.states.clear();
            state.behind = true;
        }
        Ok(())
    }

    /// Asks which topic has the name now, while a flush is under way.
    fn ask_for_life(&self) -> Life {
        let (log, states) = (self.log.clone(), self.names.states.as_str().into());
        tokio::spawn(async move { log.topic_ids(&[states]).await })
    }

    /// Notes where a transaction lies.
    fn passed(&self, state: &mut State, spans: &[Span]) {
        for Span { topic, partition, first, last } in spans {
            let known = match usize::try_from(*partition) {
                Ok(0) if *topic == self.names.books => Some(&mut state.books),
                Ok(at) if *topic == self.names.states => state.states.get_mut(at),
                _ => None,
            };
            let Some(known) = known else { continue };
            // Behind each transaction lies its marker.
            if *first <= *known + 1 {
                *known = last + 1;
            } else if *topic == self.names.states {
                state.behind = true;
            }
        }
    }
}

impl Journal for StateLog {
    fn forget(&self) {
        let mut state = self.lock();
        (state.books, state.of, state.behind) = (0, None, false);
        state.states.clear();
        // The charge alone says that the copy has all.
        state.transactions = None;
    }

    fn has_charge(&self) -> bool {
        self.lock().transactions.is_some()
    }

    fn is_current(&self) -> Result<bool> {
        let mut state = self.lock();
        // A transaction that is not whole yet is somebody else's too.
        let (_, end) = self.ends(&mut state, (&self.names.books, 0), true)?;
        // Behind an own transaction lies its marker.
        Ok(state.transactions.is_some() && end <= state.books + 1)
    }

    fn follow(&self, replica: &Replica<'_>) -> Result<()> {
        let mut state = self.lock();
        let end = match self.settled_end(&mut state) {
            Ok(end) => end,
            // Nothing was opened yet.
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let from = state.books;
        self.read_books(&mut state, replica, end)?;
        // Behind an own transaction lies its marker.
        if state.books > from + 1 {
            state.transactions = None;
        }
        let there = self.there(&mut state)?;
        self.settle(&mut state, replica, there.as_ref())
    }

    fn take_charge(&self, replica: &Replica<'_>) -> Result<()> {
        let mut state = self.lock();
        state.transactions = None;
        let transactions =
            Transactions::begin_alone(&self.config, &self.names.states, &self.names.id)?;
        let (_, end) = self.ends(&mut state, (&self.names.books, 0), true)?;
        self.read_books(&mut state, replica, end)?;
        let there = self.there(&mut state)?;
        self.settle(&mut state, replica, there.as_ref())?;
        let ends = there.map(|there| there.ends).unwrap_or_default();
        self.read_states(&mut state, replica, &ends)?;
        state.transactions = Some(transactions);
        Ok(())
    }

    fn read_on(&self, replica: &Replica<'_>, looks: bool) -> Result<()> {
        let mut state = self.lock();
        if !state.behind && !looks {
            return Ok(());
        }
        let there = self.there(&mut state)?;
        self.settle(&mut state, replica, there.as_ref())?;
        self.read_states(&mut state, replica, &there.map(|there| there.ends).unwrap_or_default())
    }

    fn publish(&self, replica: &Replica<'_>, changes: &Changes<'_>) -> Result<()> {
        if !matches!(changes.rows, Rows::These([])) {
            self.values.get_ready()?;
        }
        let mut state = self.lock();
        let Some(transactions) = state.transactions.take() else {
            return Err(Error::fenced("the charge of the state topic is lost"));
        };
        let transaction = transactions.begin()?;
        let life = self.ask_for_life();
        let sent = self.send_all(&mut state, &transaction, replica, changes);
        let sent = sent.and_then(|of| transaction.deliver().map(|()| of));
        let sent = sent.and_then(|of| check_life(life, &of).map(|()| of));
        let refused = match sent {
            Ok(of) => match transaction.commit() {
                Ok(spans) => {
                    self.passed(&mut state, &spans);
                    if matches!(changes.rows, Rows::Any) && state.of.as_ref() != Some(&of) {
                        // Nothing of this topic was read into the copy.
                        state.states = vec![0; usize::try_from(of.partitions).unwrap_or_default()];
                        state.behind = true;
                    }
                    state.of = Some(of);
                    state.transactions = Some(transactions);
                    return Ok(());
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        if matches!(refused.class(), ErrorClass::Record | ErrorClass::Config) {
            transaction.abort()?;
            // None of it is there, and nobody else wrote.
            state.transactions = Some(transactions);
        } else {
            // Whoever takes the charge ends it, if this does not.
            transaction
                .abort()
                .unwrap_or_else(|error| tracing::debug!(%error, "taking a flush back"));
        }
        Err(refused)
    }
}
