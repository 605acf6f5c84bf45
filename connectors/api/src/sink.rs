//! What the worker asks of a sink.

mod adopted;
mod loaded;
mod snapshot;
mod turn;

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::expiry::{Horizon, Horizons, Rule};
use crate::hole::{Hole, Holes};
use crate::letters::BadRecord;
use crate::lifecycle::LogNow;
use crate::lookup::Joins;
pub use crate::lookup::Refreshed;
use crate::model::{Key, Model, Row};
use crate::parked::{Changes, DROPPED, Parked, Parking};
use crate::query::Queries;
use crate::rebuild::Rebuilds;
use crate::record::{Position, TopicPartition};
use crate::removal::{Keep, Removed};
use crate::schemas::KeptSchemas;
pub use adopted::Adopted;
pub use loaded::{Loaded, Mark, Marks, Version};
pub use snapshot::{Books, Snapshot};
pub use turn::Turn;

/// What a connector writes into: everything a sink needs to create, check and bind a target.
#[derive(Clone, Debug)]
pub struct TargetSpec {
    /// The fleet's name.
    pub worker: String,
    /// The connector's name.
    pub connector: String,
    /// Its consumer group.
    pub group: String,
    /// The log's identity, see [`crate::source::Log::identity`].
    pub log: String,
    /// Table or index name as the config has it, maybe with a schema.
    pub target: String,
    /// The read model.
    pub model: Arc<Model>,
    /// What it shows of other targets' rows; none where it shows nothing.
    pub joins: Option<Arc<Joins>>,
    /// Hash of everything in the projection that decides what is stored.
    pub fingerprint: String,
    /// The projection in a stable JSON form, kept to tell later what changed.
    pub projection: serde_json::Value,
    /// What to do when the projection is not the one that built the target.
    pub on_change: OnChange,
    /// Whether a missing target is created.
    pub auto_create: bool,
    /// Elasticsearch's own mapping, laid over the generated one.
    pub mapping: Option<serde_json::Value>,
    /// Elasticsearch's own index settings.
    pub settings: Option<serde_json::Value>,
    /// The rule by which rows are deleted by the clock.
    pub expire: Option<Rule>,
}

/// `on_change`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// Stop and say what changed.
    Refuse,
    /// Start a new generation.
    Rebuild,
    /// Add new columns and go on from here.
    Continue,
}

/// What the operator wants of a connector; kept beside the positions, for every worker of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DesiredState {
    /// Consume.
    #[default]
    Running,
    /// Keep the assignment, consume nothing.
    Paused,
    /// Leave the group.
    Stopped,
}

/// The live generation of an open target.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its number, from 1.
    pub generation: u64,
    /// Its partitions' positions; empty on a first start, before [`Target::begin`].
    pub positions: Vec<StoredPosition>,
    /// What the operator wants.
    pub desired: DesiredState,
    /// Why this projection does not fold into the live generation, where another one built it.
    pub waits: Option<Waits>,
    /// Sentences for the log: what was created, adopted, added or voided.
    pub notices: Vec<String>,
}

/// What [`Target::configure`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Configured {
    /// Nothing: the target is what the config says.
    AsItIs,
    /// The target was changed, or is as good as it gets: a sentence for the log.
    Changed(String),
    /// Only a rebuild makes it so, and `on_change` asks for one: why.
    Outdated(String),
}

/// What a projection waits for that does not fold into the live generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    /// A rebuild with this projection takes the place of the live generation, which serves its readers until
    /// then: why.
    Rebuild(String),
    /// Another config's projection has taken, or is taking, the place of this one: the worker waits to be replaced. What
    /// became of it, and the way out.
    Replaced(String),
}

/// A partition's place in the target's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPosition {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's id when this was recorded.
    pub topic_id: Option<String>,
    /// Where the fold began; a rebuild starts here.
    pub beginning: Position,
    /// The next offset to fold.
    pub position: Position,
    /// Rises by one each time a task takes the partition.
    pub epoch: i64,
}

/// Where the fold begins in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's id.
    pub topic_id: Option<String>,
    /// The first offset to fold.
    pub position: Position,
}

/// One connector's target: a table or an index with its books. One per connector.
#[async_trait]
pub trait Target: Send + Sync {
    /// Under the target's lock: creates what is missing, checks what is there, binds it. Idempotent;
    /// any number of workers may call it at once.
    ///
    /// # Errors
    /// Config errors name what was found and the way out.
    async fn open(&self) -> Result<Opened>;

    /// Finds what stands against [`Target::open`] and against the writes behind it, and changes nothing. It may be asked
    /// while workers run the connector. A store that cannot tell says nothing.
    ///
    /// # Errors
    /// The first that it finds, with the way out: of class Retriable what an administrator or time may mend.
    async fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Takes over what a restore from a backup left under the target's name, rows, books and parked events
    /// together: see [`crate::lifecycle::Command::Adopt`]. `log` was asked just before.
    ///
    /// # Errors
    /// Config errors name what stands against it and the way out; nothing is changed then.
    async fn adopt(&self, log: &LogNow) -> Result<Adopted>;

    /// Drops the tables or indexes of all generations that are not to be kept, and all that the books keep of the
    /// target: see [`crate::removal`]. A target that the books do not know is gone. In a store without transactions the books go
    /// last, so that a removal that was cut off is carried on by the next one.
    ///
    /// # Errors
    /// Config errors name the owner, or what hangs on a table; of a store with transactions nothing is changed then.
    async fn remove(&self, _keep: Keep) -> Result<Removed> {
        Err(Error::config("a sink of this type removes no target: drop it by hand"))
    }

    /// Called once this worker's tasks have left because the connector is stopped. A store whose backups are not
    /// of one moment notes what a copy that is made from now on must hold.
    async fn note_stopped(&self) -> Result<()> {
        Ok(())
    }

    /// Makes an open target what the config says of it beside the projection (Elasticsearch's mapping and
    /// settings), as far as it can be changed as it stands. Asked once by each worker, after
    /// [`Target::open`], so that one that was started before a newer config never takes that one's back.
    ///
    /// # Errors
    /// A config error where it cannot be changed and `on_change` does not ask for a rebuild.
    async fn configure(&self) -> Result<Configured> {
        Ok(Configured::AsItIs)
    }

    /// Where one worker at a time runs a connector of such a store: what says whose turn it is. None where any number do.
    fn turn(&self) -> Option<Arc<dyn Turn>> {
        None
    }

    /// Records where the fold begins, for partitions that have no position yet. Idempotent.
    async fn begin(&self, generation: u64, beginnings: &[Beginning]) -> Result<()>;

    /// In place: empties the target and makes the next generation, whose positions are the fold's
    /// beginnings, or `beginnings` where given. Returns the live generation, which is another
    /// worker's new one if `generation` is no longer live.
    async fn rebuild(&self, generation: u64, beginnings: Option<&[Beginning]>) -> Result<u64>;

    /// The live generation's number, positions and desired state.
    async fn status(&self) -> Result<Opened>;

    /// Of what [`Target::status`] says, the live generation's number and the desired state. It is asked
    /// every few seconds, whether anything happens or not.
    async fn live(&self) -> Result<(u64, DesiredState)> {
        let Opened { generation, desired, .. } = self.status().await?;
        Ok((generation, desired))
    }

    /// Keeps what the operator wants.
    async fn set_desired(&self, desired: DesiredState) -> Result<()>;

    /// Called about once an hour: clears away what only served a bounded time, such as the tombstones
    /// of documents deleted long ago.
    async fn maintain(&self) -> Result<()> {
        Ok(())
    }

    /// How what stands in the store differs from what the plan makes: columns, indexes, mapping,
    /// settings, one sentence each. Nothing is changed.
    async fn differences(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// A writer for one task, on `generation`: the live one, or the one that is being built.
    async fn writer(&self, generation: u64) -> Result<Arc<dyn Writer>>;

    /// The events that are set aside, of all generations.
    fn parking(&self) -> &dyn Parking;

    /// The events that are left out, of all generations.
    fn holes(&self) -> &dyn Holes;

    /// What ids of schema registries stood for.
    fn schemas(&self) -> &dyn KeptSchemas;

    /// Rebuilds beside the live generation.
    fn rebuilds(&self) -> &dyn Rebuilds;

    /// The horizon of the spec's rule; none where the store cannot delete rows by the clock.
    fn horizons(&self) -> Option<&dyn Horizons> {
        None
    }

    /// The live generation's rows, for readers; none where the store answers no queries.
    fn queries(&self) -> Option<&dyn Queries> {
        None
    }

    /// The live generation's rows with its books, as they stand together at one moment: see
    /// [`Snapshot`].
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>>;
}

/// One task's hold on a target. `load` may run beside `write`; two `write`s never do.
#[async_trait]
pub trait Writer: Send + Sync {
    /// Takes partitions over: raises each one's epoch, records `beginning` where there is no
    /// position, and says where to read on.
    ///
    /// # Errors
    /// Class Fenced where the writer's generation is no longer the live one, nor being built. Retriable
    /// while the live one is held for a swap.
    async fn acquire(&self, claims: &[Beginning]) -> Result<Acquired>;

    /// Reads the states of `keys`, in their order: of all, or of the first ones whose rows come to about `bytes_max`, but
    /// always of one. More than that is never in memory, but for one row and what comes from the store at once.
    async fn load_some(&self, keys: &[Key], bytes_max: usize) -> Result<Vec<Loaded>>;

    /// Reads the states of all `keys`, in their order, however large they are.
    async fn load(&self, keys: &[Key]) -> Result<Vec<Loaded>> {
        self.load_some(keys, usize::MAX).await
    }

    /// Writes a flush: rows and positions together, or, where the store has no transactions, guarded
    /// rows first and positions last.
    ///
    /// # Errors
    /// After an error the outcome is unknown: ask [`Writer::positions`].
    async fn write(&self, flush: &Flush) -> Result<Written>;

    /// The deletes of at most `max` rows that `horizon` has passed, in the order of their keys, each of the version that the
    /// row has now. Only of a spec with a rule, by [`Target::horizons`].
    async fn expired(&self, _horizon: Horizon, _max: usize) -> Result<Vec<RowWrite>> {
        Err(Error::config("this sink cannot delete rows by the clock"))
    }

    /// The stored positions and epochs of `partitions`, read anew.
    async fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<StoredPosition>>;

    /// Whether each row carries marks, because rows and positions cannot move together.
    fn keeps_marks(&self) -> bool;

    /// Brings rows up to what they show of other targets' rows, where notes say that those changed: one bounded step, of
    /// about `rows_max` rows. It moves no position and needs no partition: what it writes is what the other rows say while
    /// it holds its own. Beside it the writer does nothing else.
    ///
    /// # Errors
    /// As of [`Writer::write`]. What was not brought up is still noted.
    async fn refresh(&self, rows_max: usize) -> Result<Refreshed> {
        let _ = rows_max;
        Ok(Refreshed::default())
    }
}

/// What [`Writer::acquire`] found.
#[derive(Clone, Debug, Default)]
pub struct Acquired {
    /// One per claim, in their order.
    pub leases: Vec<Lease>,
    /// The target has no rows: until another writer shows up, a key never seen is new.
    pub empty: bool,
    /// Verdicts at or after the leased positions: those of the generation before, in a rebuild, and what an
    /// operator dropped in any generation of the same topic id.
    pub verdicts: Vec<StoredVerdict>,
    /// Decisions at or after the leased positions.
    pub decisions: Vec<StoredDecision>,
    /// What is parked in the leased partitions, in this writer's generation.
    pub parked: Vec<Parked>,
    /// What this writer's generation leaves out of the leased partitions, behind their positions too.
    pub holes: Vec<Hole>,
}

/// A partition held under an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The partition.
    pub partition: TopicPartition,
    /// This task's epoch: a higher one in the store fences it.
    pub epoch: i64,
    /// The next offset to fold.
    pub position: Position,
}

/// A record that only the store could refuse, and did, or that an operator dropped. It belongs to one generation
/// and to the life of the topic that the generation's position names.
///
/// The next generation takes it over as an open question, for topics of the same id: it repeats the verdict while
/// what refused stands, and else asks the store again. An open verdict that its generation's position has passed
/// was answered: it counts for nothing, unless the flush that passed it wrote the verdict once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVerdict {
    /// The record's partition.
    pub partition: TopicPartition,
    /// The record's offset.
    pub offset: i64,
    /// The store's reason.
    pub reason: String,
    /// What refused, as the store spells it, and the model that made the row. None where it cannot be told, or where
    /// more than the row decides: foreign keys, partitions, triggers.
    pub definition: Option<String>,
    /// As read: whether the definition stands now as it did then.
    pub holds: bool,
}

impl StoredVerdict {
    /// A verdict to keep.
    #[must_use]
    pub fn new(
        partition: TopicPartition,
        offset: i64,
        reason: impl Into<String>,
        definition: Option<String>,
    ) -> Self {
        StoredVerdict { partition, offset, reason: reason.into(), definition, holds: true }
    }

    /// As read from the books: `stands` says whether a definition is there now.
    #[must_use]
    pub fn judged(self, stands: impl FnOnce(&str) -> bool) -> Self {
        let dropped = self.reason == DROPPED;
        let holds = dropped || self.definition.as_deref().is_some_and(stands);
        StoredVerdict { holds, ..self }
    }

    /// Whether nobody but the store can say if it would refuse the record again.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        !self.holds && self.definition.is_none()
    }
}

/// What became of an event that may touch several rows, where that was not simply that every handler it
/// asked applied. A store whose rows move one by one keeps it before the first of them: a replay meets
/// rows that hold the event already, and could not decide again as it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDecision {
    /// The record's partition.
    pub partition: TopicPartition,
    /// The record's offset.
    pub offset: i64,
    /// Which of the event's steps, counted as they are prepared, were refused by what `when` saw.
    pub refused: Vec<u32>,
    /// The event was bad: why.
    pub bad: Option<String>,
}

/// One row to write: at most one per key in a flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowWrite {
    /// The key.
    pub key: Key,
    /// The row as it shall be; none deletes it.
    pub row: Option<Row>,
    /// The version it was folded from.
    pub version: Version,
    /// The row's marks after this flush.
    pub marks: Marks,
}

/// A row that was read for a decision but not written: it must still have this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The key.
    pub key: Key,
    /// The version that the decision saw.
    pub version: Version,
}

/// A partition's step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The partition.
    pub partition: TopicPartition,
    /// This task's epoch.
    pub epoch: i64,
    /// Where the store must stand.
    pub from: Position,
    /// Where it shall stand; may equal `from`.
    pub to: Position,
}

/// What one write makes durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flush {
    /// Positions; the fence.
    pub advances: Vec<Advance>,
    /// Rows, sorted by key, one per key.
    pub writes: Vec<RowWrite>,
    /// Rows that only were looked at, sorted by key.
    pub checks: Vec<Check>,
    /// Verdicts to keep.
    pub verdicts: Vec<StoredVerdict>,
    /// Bad records to remember, under the fence.
    pub bad: Vec<BadRecord>,
    /// Decisions to keep, under the fence and before any row; empty where rows and positions move together.
    pub decisions: Vec<StoredDecision>,
    /// What is parked, freed or kept, under the fence. Each partition of it is among `advances`, maybe with a
    /// step that moves nothing.
    pub parking: Changes,
}

/// What became of a flush.
#[derive(Debug)]
pub enum Written {
    /// All of it is durable.
    Durable(Versions),
    /// A row was not at the version it was folded from. Positions did not move. Load and fold again.
    Conflict {
        /// Where rows move one by one, for each write in their order: the version of one that is durable
        /// all the same. Empty where none is.
        written: Vec<Option<Version>>,
    },
    /// A position or an epoch was not what it should be. Ask [`Writer::positions`].
    Fenced,
    /// The store refused the data (a constraint, a mapping): some record in it is to blame. Positions
    /// did not move. The error names the definition that refused, where it can be told.
    Rejected(Error),
}

/// The versions of the rows of a durable flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Versions {
    /// One for all, as PostgreSQL's transaction id is.
    All(Version),
    /// One per write, in their order.
    Each(Vec<Version>),
    /// The store may have changed the rows (a trigger): read them anew before the next use.
    Unknown,
}
