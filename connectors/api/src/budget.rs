//! What one record may cost, in counts that are the same on every machine: no record may hold up the others or
//! fill the memory, and every worker, rebuild and `verify` must judge it alike. Time and memory only schedule.
//!
//! All of it is in this file. Whoever builds a value, goes through a list or touches a row on a record's behalf takes
//! that from the record's [`Budget`]; one that is used up makes the record bad.

use std::cell::Cell;

use crate::decimal::Decimal;
use crate::model::Row;
use crate::value::Value;

/// Of these limits and of what counts against them. A change of either is another fold: raise it, and every projection has
/// another fingerprint, so that `on_change` decides. Version 1 has no place in the fingerprint: stores that were written
/// before there were limits open with it.
pub const FOLD_VERSION: u32 = 1;

/// Bytes of the values that are made for one record: decoded, computed by expressions, brought to their columns' types.
pub const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Steps through lists, texts and patterns, over all handlers and items of one record.
pub const STEPS_MAX: usize = 1_000_000;
/// Steps that the computed fields of one row may take, after each event.
pub const COMPUTED_STEPS_MAX: usize = 100_000;
/// Rows that one record may touch.
pub const ROWS_MAX: usize = 10_000;
/// The largest row, in bytes of its values in memory; looked at where a value of more than [`ROW_BYTES_CHECKED`] is
/// written, so that small events on large rows cost little.
pub const ROW_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A value of no more than this is written without a look at the whole row.
pub const ROW_BYTES_CHECKED: usize = 64 * 1024;

/// The rows that one record touches together, as they are before it, in bytes of their values in memory. Not asked of a
/// record that touches one row alone, which has [`ROW_BYTES_MAX`].
///
/// Nobody can fold a record without all of its rows, so a task holds so much, and one row more, whatever its memory. That
/// is why it is no more: two rows as large as can be fit into it, and it is half of what a worker with the default
/// `worker.memory` has for rows.
pub const TOGETHER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of a text that one step passes over.
const STEP_TEXT: usize = 1_024;
/// Items of a list that one step moves or compares.
const STEP_ITEMS: usize = 64;
/// States of a pattern times bytes of a text that one step goes through.
const STEP_PATTERN: usize = 512;
/// Squared bytes of a long number that one step works on: its digits come and go in quadratic time.
const STEP_NUMBER: usize = 65_536;

/// Which limit a record is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// [`STEPS_MAX`].
    #[error("the record takes more than 1,000,000 steps")]
    Steps,
    /// [`BYTES_MAX`].
    #[error("the record's values take more than 32 MiB")]
    Bytes,
    /// [`ROWS_MAX`].
    #[error("the record touches more than 10,000 rows")]
    Rows,
    /// [`ROW_BYTES_MAX`].
    #[error("the row would be larger than 16 MiB")]
    Row,
    /// [`TOGETHER_BYTES_MAX`], of so many rows.
    #[error(
        "the {0} rows that the record touches take more than 32 MiB (33,554,432 bytes) together, and one record may \
         touch no more: send an event for each of fewer rows, or keep less in the rows"
    )]
    Together(usize),
}

/// What a row with these values takes, wherever they come from: a column's value has one form in memory.
pub fn row_bytes<'v>(values: impl Iterator<Item = &'v Value>) -> usize {
    values.map(|value| size_of::<Value>() + value.heap_bytes()).sum()
}

/// What the rows of one record take together, as they are before it: in whatever order they come, it is over once some of
/// them are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Together(usize);

impl Together {
    /// One more of its rows.
    pub fn add(&mut self, row: Option<&Row>) {
        let bytes = row.map_or(0, |row| row_bytes(row.values().iter()));
        self.0 = self.0.saturating_add(bytes);
    }

    /// Whether that is more than one record may touch.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0 > TOGETHER_BYTES_MAX
    }
}

/// What is left of a budget, to go on with later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    steps: usize,
    bytes: usize,
}

impl Left {
    /// Bytes that were made so far.
    #[must_use]
    pub fn made(self) -> usize {
        BYTES_MAX.saturating_sub(self.bytes)
    }
}

impl Default for Left {
    fn default() -> Self {
        Left { steps: STEPS_MAX, bytes: BYTES_MAX }
    }
}

/// What one record may still cost.
#[derive(Debug)]
pub struct Budget {
    steps: Cell<usize>,
    bytes: Cell<usize>,
    exceeded: Cell<Option<Exceeded>>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget::resume(Left::default())
    }
}

impl Budget {
    /// What is left from before.
    #[must_use]
    #[inline]
    pub fn resume(left: Left) -> Self {
        Budget {
            steps: Cell::new(left.steps),
            bytes: Cell::new(left.bytes),
            exceeded: Cell::new(None),
        }
    }

    /// For what is no record's: rows that are read back, the config's own values.
    #[must_use]
    pub fn unlimited() -> Self {
        Budget::resume(Left { steps: usize::MAX, bytes: usize::MAX })
    }

    /// Of one row's computed fields.
    #[must_use]
    pub fn computed() -> Self {
        Budget::resume(Left { steps: COMPUTED_STEPS_MAX, bytes: BYTES_MAX })
    }

    /// How many steps were taken of so many; all of them where a limit was met.
    #[must_use]
    pub fn spent(&self, of: usize) -> usize {
        of.saturating_sub(self.steps.get())
    }

    /// What is left.
    #[must_use]
    #[inline]
    pub fn left(&self) -> Left {
        Left { steps: self.steps.get(), bytes: self.bytes.get() }
    }

    /// An error once a limit was met, also where an expression made something else of it (`a || b`).
    ///
    /// # Errors
    /// The limit.
    #[inline]
    pub fn kept(&self) -> Result<(), Exceeded> {
        self.exceeded.get().map_or(Ok(()), Err)
    }

    #[cold]
    fn exceed(&self, limit: Exceeded) -> Exceeded {
        // Used up stays used up: what comes after fails at once.
        self.steps.set(0);
        self.bytes.set(0);
        self.exceeded.set(Some(limit));
        limit
    }

    /// Takes steps.
    ///
    /// # Errors
    /// When there are no more.
    #[inline]
    pub fn steps(&self, steps: usize) -> Result<(), Exceeded> {
        match self.steps.get().checked_sub(steps) {
            Some(left) if self.exceeded.get().is_none() => {
                self.steps.set(left);
                Ok(())
            }
            _ => Err(self.exceed(self.exceeded.get().unwrap_or(Exceeded::Steps))),
        }
    }

    /// Takes bytes that a value is made of.
    ///
    /// # Errors
    /// When there are no more.
    #[inline]
    pub fn bytes(&self, bytes: usize) -> Result<(), Exceeded> {
        match self.bytes.get().checked_sub(bytes) {
            Some(left) if self.exceeded.get().is_none() => {
                self.bytes.set(left);
                Ok(())
            }
            _ => Err(self.exceed(self.exceeded.get().unwrap_or(Exceeded::Bytes))),
        }
    }

    /// Room for a list of `items`, beside what they hold.
    ///
    /// # Errors
    /// As [`Budget::bytes`].
    pub fn list(&self, items: usize) -> Result<(), Exceeded> {
        self.bytes(items.saturating_mul(size_of::<Value>()))
    }

    /// A pass over a text of so many bytes.
    ///
    /// # Errors
    /// As [`Budget::steps`].
    #[inline]
    pub fn pass(&self, bytes: usize) -> Result<(), Exceeded> {
        self.steps(bytes / STEP_TEXT)
    }

    /// A walk through so many items of a list: to move, hash or compare them.
    ///
    /// # Errors
    /// As [`Budget::steps`].
    pub fn items(&self, items: usize) -> Result<(), Exceeded> {
        self.steps(items / STEP_ITEMS)
    }

    /// A search of a pattern of so many states in a text of so many bytes.
    ///
    /// # Errors
    /// As [`Budget::steps`].
    pub fn search(&self, states: usize, bytes: usize) -> Result<(), Exceeded> {
        self.steps((states.saturating_mul(bytes) / STEP_PATTERN).saturating_add(bytes / STEP_TEXT))
    }

    /// Work on one value, whatever it holds: to compare, hash or convert it. Small ones cost nothing.
    ///
    /// # Errors
    /// As [`Budget::steps`].
    pub fn work(&self, value: &Value) -> Result<(), Exceeded> {
        match value {
            Value::Text(text) => self.pass(text.len()),
            Value::Bytes(bytes) => self.pass(bytes.len()),
            Value::Decimal(decimal) => self.number(decimal),
            Value::List(_) | Value::Map(_) => self.pass(value.heap_bytes()),
            _ => Ok(()),
        }
    }

    /// Work on one number: a long one is read, written and multiplied in quadratic time.
    ///
    /// # Errors
    /// As [`Budget::steps`].
    pub fn number(&self, decimal: &Decimal) -> Result<(), Exceeded> {
        match decimal.long_bytes() {
            None => Ok(()),
            Some(bytes) => self.digits(bytes),
        }
    }

    /// What an operation of two numbers costs: at most each digit of one with each of the other.
    ///
    /// # Errors
    /// As [`Budget::steps`].
    pub fn numbers(&self, left: &Decimal, right: &Decimal) -> Result<(), Exceeded> {
        let (left, right) = match (left.long_bytes(), right.long_bytes()) {
            (None, None) => return Ok(()),
            (left, right) => (left.unwrap_or(1), right.unwrap_or(1)),
        };
        self.pass(left.saturating_add(right))?;
        self.steps(left.saturating_mul(right) / STEP_NUMBER)
    }

    /// As [`Budget::number`], for one that fills so many bytes.
    ///
    /// # Errors
    /// As [`Budget::steps`].
    pub fn digits(&self, bytes: usize) -> Result<(), Exceeded> {
        self.steps(bytes.saturating_mul(bytes) / STEP_NUMBER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_stays_used_up() {
        let budget = Budget::default();
        assert_eq!(budget.steps(STEPS_MAX), Ok(()));
        assert_eq!(budget.kept(), Ok(()));
        assert_eq!(budget.steps(1), Err(Exceeded::Steps));
        assert_eq!(budget.bytes(0), Err(Exceeded::Steps), "the record is bad already");
        assert_eq!(budget.kept(), Err(Exceeded::Steps));
    }

    #[test]
    fn what_was_spent_stays_spent() {
        let budget = Budget::default();
        budget.bytes(BYTES_MAX).unwrap();
        let later = Budget::resume(budget.left());
        assert_eq!(later.bytes(1), Err(Exceeded::Bytes));
    }

    /// Who changes one of these changes what a rebuild gives: raise [`FOLD_VERSION`] with it.
    #[test]
    fn the_limits_are_those_of_their_version() {
        let limits = (BYTES_MAX, STEPS_MAX, ROWS_MAX, ROW_BYTES_MAX, ROW_BYTES_CHECKED);
        assert_eq!(COMPUTED_STEPS_MAX, 100_000);
        let steps = (STEP_TEXT, STEP_ITEMS, STEP_PATTERN, STEP_NUMBER);
        assert_eq!(FOLD_VERSION, 1);
        assert_eq!(limits, (33_554_432, 1_000_000, 10_000, 16_777_216, 65_536));
        assert_eq!(TOGETHER_BYTES_MAX, 33_554_432);
        assert_eq!(steps, (1_024, 64, 512, 65_536));
        // As the messages say them.
        assert!(Exceeded::Steps.to_string().contains("1,000,000"));
        assert!(Exceeded::Bytes.to_string().contains(&format!("{} MiB", BYTES_MAX >> 20)));
        assert!(Exceeded::Rows.to_string().contains("10,000"));
        assert!(Exceeded::Row.to_string().contains(&format!("{} MiB", ROW_BYTES_MAX >> 20)));
        let together = Exceeded::Together(7).to_string();
        assert!(together.contains("the 7 rows") && together.contains("33,554,432 bytes"));
        assert!(together.contains(&format!("{} MiB", TOGETHER_BYTES_MAX >> 20)));
    }

    /// It decides which record is bad: another size is another fold.
    #[test]
    fn a_row_is_as_large_as_its_values_whatever_store_they_come_from() {
        let json = Value::map(vec![("a".into(), Value::list(vec![Value::Int(1), Value::Null]))]);
        let long: Decimal = "1e40".parse().unwrap();
        let values = [Value::text("abc"), Value::Int(1), Value::Null, json, Value::Decimal(long)];
        assert_eq!(size_of::<Value>(), 24);
        assert_eq!(row_bytes(values.iter()), 5 * 24 + 19 + (16 + 40 + 16 + 1 + 16 + 48) + 64);
        let mut together = Together::default();
        let half = Row::new(vec![Value::text(&"x".repeat(TOGETHER_BYTES_MAX / 2 - 40))]);
        together.add(Some(&half));
        together.add(None);
        together.add(Some(&half));
        assert!(!together.is_over(), "{together:?}");
        together.add(Some(&Row::new(vec![Value::Null])));
        assert!(together.is_over(), "{together:?}");
    }
}
