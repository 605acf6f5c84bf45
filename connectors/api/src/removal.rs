//! What a connector leaves for good: `foldline clean`.

use std::sync::Arc;

use crate::binding::Binding;
use crate::column::ColumnType;
use crate::error::Result;
use crate::lifecycle::Record;
use crate::model::{Column, Model};
use crate::sink::{OnChange, TargetSpec};
use crate::value::Value;

/// A target in a store's books, by whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owned {
    /// The target, as the books call it.
    pub target: String,
    /// The fleet.
    pub worker: String,
    /// The connector.
    pub connector: String,
    /// Its group.
    pub group: String,
    /// The log's identity.
    pub log: String,
}

impl Owned {
    /// What the books say of `target`.
    #[must_use]
    pub fn new(target: impl Into<String>, binding: Binding) -> Self {
        let Binding { worker, connector, group, log, .. } = binding;
        Owned { target: target.into(), worker, connector, group, log }
    }

    /// What a sink makes a target of that is only to be removed: its owner's, of no projection.
    #[must_use]
    pub fn spec(&self) -> TargetSpec {
        let (name, ty, default) = ("key".into(), ColumnType::Text, Value::Null);
        let key = Column { name, ty, index: false, default };
        let model = Model { columns: vec![key], key: vec![0], indexes: Vec::new() };
        TargetSpec {
            worker: self.worker.clone(),
            connector: self.connector.clone(),
            group: self.group.clone(),
            log: self.log.clone(),
            target: self.target.clone(),
            model: Arc::new(model),
            joins: None,
            fingerprint: String::new(),
            projection: serde_json::Value::Null,
            on_change: OnChange::Refuse,
            auto_create: false,
            mapping: None,
            settings: None,
            expire: None,
        }
    }
}

/// What [`crate::sink::Target::remove`] leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// The live generation with its rows, which is nobody's then.
    Live,
}

/// What [`crate::sink::Target::remove`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The tables or indexes that were dropped, the live one last.
    pub dropped: Vec<String>,
    /// Those that stand under a name of Foldline's and are somebody else's: they stay.
    pub strangers: Vec<String>,
}

/// The generations of a target that go for good, each with its physical target: those beside the live one, and that last.
///
/// # Errors
/// A config error where it is another connector's. A target that the books do not know has none.
pub fn generations(
    record: Option<&Record>,
    spec: &TargetSpec,
    keep: Keep,
) -> Result<Vec<(u64, String)>> {
    let Some(Record { binding, beside, .. }) = record else { return Ok(Vec::new()) };
    crate::binding::check_owner(binding, spec)?;
    let others = beside.iter().map(|beside| (beside.number, beside.physical.clone()));
    let live = (keep == Keep::Nothing).then(|| (binding.generation, binding.physical.clone()));
    Ok(others.chain(live).collect())
}
