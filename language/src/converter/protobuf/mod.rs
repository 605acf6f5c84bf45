//! Protobuf, read by a message of a schema: what no expression names is passed over without being built. The descriptors come
//! from libraries; the walk over a record's bytes is written here, since it is the hot path.

mod build;
mod cursor;
mod fault;
mod frame;
mod parse;
mod read;
mod scalar;
mod schema;
mod special;
mod steps;

use std::sync::Arc;

use foldline_api::budget::Budget;
use foldline_api::value::Value;

pub use frame::{Messages, Protobuf};
pub use parse::Reference;
pub use schema::{Schema, SchemaError};

use self::fault::Read;
use self::read::Reader;
use self::schema::{Message, Special};
use self::steps::Steps;
use super::{ConvertError, Filled, Shape, take};
use crate::event::Mask;

/// A message of a schema, compiled for one mask.
#[derive(Clone, Debug)]
pub struct Compiled {
    schema: Arc<Schema>,
    message: usize,
    plan: Plan,
}

#[derive(Clone, Debug)]
enum Plan {
    /// Into this slot.
    Whole(usize),
    Steps(Steps),
    /// From what it is as a whole.
    Built(Mask),
}

impl Compiled {
    /// Compiles the message of that name; none where the schema has none.
    #[must_use]
    pub fn new(schema: Arc<Schema>, message: &str, mask: &Mask) -> Option<Self> {
        let message = schema.named(message)?;
        Self::of(schema, message, mask)
    }

    fn of(schema: Arc<Schema>, at: usize, mask: &Mask) -> Option<Self> {
        let message = schema.message(at)?;
        let plan = match mask {
            Mask::Whole(slot) => Plan::Whole(*slot),
            Mask::Fields(named) if message.special == Special::No => {
                Plan::Steps(Steps::new(&schema.messages, message, named))
            }
            Mask::Fields(_) => Plan::Built(mask.clone()),
        };
        Some(Compiled { schema, message: at, plan })
    }

    /// Fills the slots that the mask names, from the bytes of one message.
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
        let reader = Reader { bytes, schema: &self.schema, budget };
        let filled = self.read(&reader, slots);
        filled.map_err(|fault| fault.told("Protobuf", hint()))
    }

    fn read(&self, reader: &Reader<'_>, slots: &mut [Option<Value>]) -> Read<Filled> {
        let name = self.schema.message(self.message).map(|message| Arc::clone(&message.short));
        let shape = match &self.plan {
            Plan::Steps(steps) => {
                reader.fields(steps, &[reader.whole_span()], slots, 0)?;
                Shape::Object
            }
            Plan::Whole(_) | Plan::Built(_) => {
                let value = reader.message(self.message, &[reader.whole_span()], 0)?;
                let shape = Shape::of(&value);
                // Nothing is taken of what is nothing.
                match (&self.plan, shape) {
                    (_, Shape::Null) => {}
                    (Plan::Built(mask), _) => take(&value, mask, slots),
                    (Plan::Whole(slot), _) => take(&value, &Mask::Whole(*slot), slots),
                    (Plan::Steps(_), _) => {}
                }
                shape
            }
        };
        Ok(Filled { shape, name })
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
        let reader = Reader { bytes, schema: &self.schema, budget };
        let whole = reader.message(self.message, &[reader.whole_span()], 0);
        whole.map_err(|fault| fault.told("Protobuf", hint()))
    }

    fn message(&self) -> Option<&Message> {
        self.schema.message(self.message)
    }
}
