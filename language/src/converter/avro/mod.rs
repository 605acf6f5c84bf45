//! Avro, read by the writer's schema and by nothing else: a path that the schema lacks is absent, and what no expression
//! names is passed over without being built. Written here since it is the hot path, and since the libraries read some bad
//! records as if they were good: a truncated one as nulls, one with bytes left over as if they were not there.

mod cursor;
mod fault;
mod frame;
mod parse;
mod plan;
mod read;
mod scalar;
mod schema;

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::value::Value;

pub use frame::Avro;
pub use schema::{Reference, Schema, SchemaError};

use self::plan::Plan;
use self::read::Reader;
use super::{ConvertError, Filled};
use crate::event::Mask;

/// A schema, compiled for one mask.
#[derive(Clone, Debug)]
pub struct Compiled {
    schema: Arc<Schema>,
    plan: Plan,
}

impl Compiled {
    /// Compiles.
    #[must_use]
    pub fn new(schema: Arc<Schema>, mask: &Mask) -> Self {
        let plan = Plan::new(&schema, mask);
        Compiled { schema, plan }
    }

    /// The schema.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Fills the slots that the mask names, from the bytes of one value.
    ///
    /// # Errors
    /// When they are not what the schema says, with `hint` of what else they may be; when they are more than the record has
    /// left.
    pub fn fill(
        &self,
        bytes: &[u8],
        slots: &mut [Option<Value>],
        budget: &Budget,
        hint: impl FnOnce() -> Option<String>,
    ) -> Result<Filled, ConvertError> {
        self.plan
            .fill(bytes, &self.schema, slots, budget)
            .map_err(|fault| fault.told("Avro", hint()))
    }

    /// The value, whole.
    ///
    /// # Errors
    /// As [`Compiled::fill`].
    pub fn decode(
        &self,
        bytes: &[u8],
        budget: &Budget,
        hint: impl FnOnce() -> Option<String>,
    ) -> Result<Value, ConvertError> {
        let mut reader = Reader::new(bytes, &self.schema, budget);
        let whole = reader.take(self.schema.root, false, 0);
        let whole = whole.and_then(|value| reader.finish().map(|()| value));
        whole.map_err(|fault| fault.told("Avro", hint()))
    }
}
