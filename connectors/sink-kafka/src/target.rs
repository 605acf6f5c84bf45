//! One connector's state topic.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::expiry::Horizons;
use foldline_api::hole::Holes;
use foldline_api::lifecycle::LogNow;
use foldline_api::parked::{Parking, Place};
use foldline_api::rebuild::{By, Generations, Rebuilds, Step, Stepped};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::removal::{Keep, Removed};
use foldline_api::schemas::KeptSchemas;
use foldline_api::sink::{
    Adopted, Beginning, DesiredState, Opened, Snapshot, Target, TargetSpec, Turn, Writer,
};
use foldline_api::source::{DeadLetter, Log};
use foldline_api::{Error, Result};
use foldline_sink_sqlite::{Journal, SqliteTarget};
use foldline_source_kafka::{KafkaConfig, property};
use tempfile::TempDir;

use crate::config::{POLICY, books};
use crate::log::{Names, StateLog};
use crate::removal;
use crate::turn::Line;
use crate::values::Values;

/// A swap compares the whole topic with the build, while the live tasks wait.
const HOLD_MAX: Duration = Duration::from_secs(300);

/// The copy of a state topic and its books that this process has.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) config: KafkaConfig,
    pub(crate) spec: TargetSpec,
    pub(crate) log: Arc<StateLog>,
    pub(crate) local: SqliteTarget,
    line: Arc<Line>,
    values: Arc<Values>,
    /// Goes with the copy.
    _folder: TempDir,
}

impl Copy {
    pub(crate) fn new(config: KafkaConfig, spec: TargetSpec, values: Values) -> Result<Self> {
        let names = Names {
            states: spec.target.clone(),
            books: books(&spec.target),
            id: books(&spec.target),
        };
        let values = Arc::new(values);
        let log = Arc::new(StateLog::new(config.clone(), names, Arc::clone(&values))?);
        let folder = tempfile::Builder::new().prefix("foldline-").tempdir().map_err(|error| {
            let place = std::env::temp_dir();
            let message = format!("cannot make a folder in {} (TMPDIR): {error}", place.display());
            Error::retriable(message).with_source(error)
        })?;
        let journal: Arc<dyn Journal> = Arc::<StateLog>::clone(&log);
        let local = SqliteTarget::copy(&folder.path().join("copy.db"), spec.clone(), journal)?;
        let line = Arc::new(Line::new(config.clone(), books(&spec.target)));
        Ok(Copy { config, spec, log, local, line, values, _folder: folder })
    }
}

/// A state topic with its books.
#[derive(Debug)]
pub struct KafkaTarget {
    copy: Arc<Copy>,
}

impl KafkaTarget {
    pub(crate) fn new(copy: Arc<Copy>) -> Self {
        KafkaTarget { copy }
    }

    fn local(&self) -> &dyn Target {
        &self.copy.local
    }

    /// Makes the topics that are missing; where those that are there differ from the config.
    async fn settle_topics(&self) -> Result<Vec<String>> {
        let Copy { config, spec, log, .. } = &*self.copy;
        if !spec.auto_create {
            let survey = log.topics().survey().await?;
            if let Some(missing) = survey.missing.first() {
                return Err(missing.error());
            }
        }
        let differences = log.topics().settle_topics(&[]).await?;
        for topic in [&spec.target, &books(&spec.target)] {
            let (name, wanted) = POLICY;
            match property(config, topic, name).await? {
                Some(policy) if policy.trim() != wanted => {
                    return Err(Error::config(format!(
                        "the topic `{topic}` has {name} = {policy:?}: what a broker deletes by time or size is a state that \
                         is lost. kafka-configs.sh --bootstrap-server … --alter --topic {topic} --add-config {name}={wanted}"
                    )));
                }
                _ => {}
            }
        }
        Ok(differences)
    }
}

#[async_trait]
impl Target for KafkaTarget {
    async fn open(&self) -> Result<Opened> {
        let mut differences = self.settle_topics().await?;
        let mut opened = self.local().open().await?;
        self.copy.values.settle(self.local().schemas()).await?;
        // What the copy is made of is nobody's concern; what became of the topic is.
        opened.notices.retain(|notice| !notice.starts_with("created table"));
        for notice in &mut opened.notices {
            *notice = notice.replacen("table ", "topic ", 1);
        }
        opened.notices.append(&mut differences);
        Ok(opened)
    }

    async fn check(&self) -> Result<()> {
        let survey = self.copy.log.topics().survey().await?;
        match survey.missing.first() {
            Some(missing) if !self.copy.spec.auto_create => Err(missing.error()),
            _ => self.local().check().await,
        }
    }

    async fn adopt(&self, log: &LogNow) -> Result<Adopted> {
        // Only a topic of its own is read: what is refused otherwise, the books say.
        if self.status().await.is_ok() {
            self.copy.local.catch_up().await?;
        }
        self.local().adopt(log).await
    }

    async fn remove(&self, keep: Keep) -> Result<Removed> {
        removal::remove(&self.copy, keep).await
    }

    fn turn(&self) -> Option<Arc<dyn Turn>> {
        Some(Arc::<Line>::clone(&self.copy.line))
    }

    async fn begin(&self, generation: u64, beginnings: &[Beginning]) -> Result<()> {
        self.local().begin(generation, beginnings).await
    }

    async fn rebuild(&self, generation: u64, beginnings: Option<&[Beginning]>) -> Result<u64> {
        self.local().rebuild(generation, beginnings).await
    }

    async fn status(&self) -> Result<Opened> {
        self.local().status().await
    }

    async fn set_desired(&self, desired: DesiredState) -> Result<()> {
        self.local().set_desired(desired).await
    }

    async fn differences(&self) -> Result<Vec<String>> {
        let log = self.copy.log.topics();
        let survey = log.survey().await?;
        let missing: Vec<String> = survey
            .missing
            .iter()
            .map(|topic| format!("topic `{}` does not exist", topic.name))
            .collect();
        // Where none is missing, none is made.
        if missing.is_empty() { log.settle_topics(&[]).await } else { Ok(missing) }
    }

    async fn writer(&self, generation: u64) -> Result<Arc<dyn Writer>> {
        self.local().writer(generation).await
    }

    fn parking(&self) -> &dyn Parking {
        self.local().parking()
    }

    fn holes(&self) -> &dyn Holes {
        self.local().holes()
    }

    fn horizons(&self) -> Option<&dyn Horizons> {
        self.local().horizons()
    }

    fn schemas(&self) -> &dyn KeptSchemas {
        self.local().schemas()
    }

    fn rebuilds(&self) -> &dyn Rebuilds {
        self
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        // Whose it is comes before the charge is taken.
        self.status().await?;
        self.copy.local.catch_up().await?;
        self.local().snapshot().await
    }
}

/// A build is loaded into the copy. The swap writes to the topic what differs, in one transaction, and nothing is kept of what
/// was: the topic holds one state of each key.
#[async_trait]
impl Rebuilds for KafkaTarget {
    async fn begin(
        &self,
        by: By,
        beginnings: &[Beginning],
        goals: &[(TopicPartition, Position)],
    ) -> Result<u64> {
        self.local().rebuilds().begin(by, beginnings, goals).await
    }

    async fn generations(&self) -> Result<Generations> {
        let generations = self.local().rebuilds().generations().await?;
        Ok(Generations { old: Vec::new(), ..generations })
    }

    fn hold_max(&self) -> Duration {
        HOLD_MAX
    }

    async fn step(&self, generation: u64, step: Step) -> Result<Stepped> {
        let stepped = self.local().rebuilds().step(generation, step).await?;
        if step == Step::Swap && matches!(stepped, Stepped::Done(_)) {
            self.local().rebuilds().drop_old(0).await?;
        }
        Ok(stepped)
    }

    async fn cancel(&self, expected: Option<u64>) -> Result<Option<u64>> {
        self.local().rebuilds().cancel(expected).await
    }

    async fn roll_back(&self, _: Option<u64>) -> Result<u64> {
        // Whose it is comes first.
        self.generations().await?;
        let connector = &self.copy.spec.connector;
        Err(Error::config(format!(
            "the state topic `{}` keeps no generation for a rollback: deploy the config of before and `foldline rebuild \
             {connector}`, which writes only what differs",
            self.copy.spec.target
        )))
    }

    async fn letters(&self, generation: u64, max: usize) -> Result<Vec<(Place, DeadLetter)>> {
        self.local().rebuilds().letters(generation, max).await
    }

    async fn sent(&self, generation: u64, places: &[Place]) -> Result<()> {
        self.local().rebuilds().sent(generation, places).await
    }

    async fn were_sent(&self, generation: u64, places: &[Place]) -> Result<Vec<Place>> {
        self.local().rebuilds().were_sent(generation, places).await
    }

    async fn drop_old(&self, _: usize) -> Result<Vec<u64>> {
        self.local().rebuilds().drop_old(0).await
    }
}
