//! The fold: what an event does to the states that it names.
//!
//! It takes two steps, so that states can be loaded for a whole batch in between:
//! [`Projection::prepare`] decides all that needs no state, [`Projection::apply`] the rest. Both are
//! pure. Every handler leaves each field of its column's type, just as the sink would return it, so
//! where a batch ends makes no difference.

use std::sync::Arc;

use foldline_api::budget::{
    Budget, COMPUTED_STEPS_MAX, Exceeded, ROW_BYTES_CHECKED, ROW_BYTES_MAX, row_bytes,
};
use foldline_api::model::{Key, Row};
use foldline_api::value::Value;
use smallvec::SmallVec;

use super::Projection;
use super::handler::Effect;
use super::ops::coerce;
use super::prepare::{Prepared, Step, bad, over, says};
use crate::event::Event;
use crate::expr::{Env, Expr};

/// States by key, as far as the caller loaded them.
pub trait States {
    /// The state of `key`; none where it was not loaded. The caller makes sure that all of [`Prepared::keys`] are there,
    /// but for what [is over](Prepared::exceed).
    fn get(&self, key: &Key) -> Option<StateRef<'_>>;
}

/// A loaded state.
#[derive(Clone, Copy, Debug)]
pub struct StateRef<'a> {
    /// The row; none where there is none.
    pub row: Option<&'a Row>,
}

/// Why an event cannot be applied. It has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BadRecord {
    /// Names handler, field and expression; no payload.
    pub reason: String,
    /// `key`, `when`, `field` or `expression`; `state` where the caller did not load a key.
    pub stage: &'static str,
    /// The keys whose state the verdict depended on.
    pub read: Vec<Key>,
}

/// What an event does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effects {
    /// Nothing.
    Filtered {
        /// The keys whose state decided that.
        read: Vec<Key>,
    },
    /// Writes rows.
    Applied {
        /// Rows as they shall be; none deletes. At most one per key.
        writes: SmallVec<[(Key, Option<Row>); 1]>,
        /// Keys that are not written, and whose state decided something.
        reads: Vec<Key>,
    },
}

/// What an event with a single step does to its only row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// The row is another now, or gone. By how many bytes it has grown, or shrunk, where there is one as before.
    Written(Option<isize>),
    /// The row is as it was, and had a say in that.
    Read,
    /// The row is as it was.
    No,
}

impl Projection {
    /// Applies an event of a [single step](Prepared::single) to its row, in place. The same as
    /// [`Projection::apply`], without a copy of the row. Nothing is applied on error.
    ///
    /// # Errors
    /// When the record is bad.
    pub fn apply_single(
        &self,
        event: &Event,
        prepared: &Prepared,
        row: &mut Option<Row>,
    ) -> Result<Touched, BadRecord> {
        let mut slots = [Slot::new(row.take())];
        let budget = Budget::resume(prepared.left);
        let run = Run { event, prepared, budget: &budget };
        let ran = prepared
            .steps
            .iter()
            .try_for_each(|step| self.run(&run, (0, step), &mut slots).map(|_| ()));
        let [mut slot] = slots;
        if let Err(mut fault) = ran {
            // A step changes the row when nothing of it can fail any more: what is here was here.
            *row = slot.state.take().filter(|_| slot.existed);
            if slot.consulted {
                fault.read = prepared.keys.to_vec();
            }
            return Err(fault);
        }
        if slot.touched && slot.exists && slot.stale {
            self.compute(&mut slot);
        }
        *row = slot.state.take().filter(|_| slot.exists);
        Ok(match (slot.touched && (slot.exists || slot.existed), slot.consulted) {
            (true, _) => Touched::Written((slot.exists && slot.existed).then_some(slot.grown)),
            (false, true) => Touched::Read,
            (false, false) => Touched::No,
        })
    }

    /// Applies the event to the states it names. Nothing is applied on error.
    ///
    /// # Errors
    /// When the record is bad.
    pub fn apply(
        &self,
        event: &Event,
        prepared: &Prepared,
        states: &dyn States,
    ) -> Result<Effects, BadRecord> {
        self.apply_noting(event, prepared, states, &mut Vec::new())
    }

    /// As [`Projection::apply`]; notes which steps the states refused, for [`Prepared::bind`].
    ///
    /// # Errors
    /// When the record is bad.
    pub fn apply_noting(
        &self,
        event: &Event,
        prepared: &Prepared,
        states: &dyn States,
        refused: &mut Vec<u32>,
    ) -> Result<Effects, BadRecord> {
        let mut slots = load(prepared, states)?;
        let budget = Budget::resume(prepared.left);
        let run = Run { event, prepared, budget: &budget };
        let mut steps = (0u32..).zip(&prepared.steps).peekable();
        while let Some(first) = steps.peek().map(|(_, step)| step.handler) {
            let handler = self.handler(first);
            let mut applied = handler.is_none_or(|handler| handler.when.is_none());
            while let Some((at, step)) = steps.next_if(|(_, step)| step.handler == first) {
                match self.run(&run, (at, step), &mut slots) {
                    Ok(true) => applied = true,
                    Ok(false) => refused.push(at),
                    Err(mut fault) => {
                        fault.read = consulted(prepared, &slots);
                        return Err(fault);
                    }
                }
            }
            if applied && !handler.is_some_and(|handler| handler.continues) {
                break;
            }
        }
        Ok(self.finish(prepared, slots))
    }

    /// Runs one step; whether it applied.
    fn run(
        &self,
        &Run { event, prepared, budget }: &Run<'_>,
        (at, step): (u32, &Step),
        slots: &mut [Slot],
    ) -> Result<bool, BadRecord> {
        let place = match &step.key {
            Ok(place) => *place,
            Err(fault) => return Err(BadRecord::clone(fault)),
        };
        if let Some(applied) = prepared.decided(at, place) {
            return Ok(applied);
        }
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let (Some(slot), Some(key)) = (slots.get_mut(place), prepared.keys.get(place)) else {
            return Ok(false);
        };
        let Some(handler) = self.handler(step.handler) else {
            slot.delete();
            return Ok(true);
        };
        if step.ask
            && let Some(when) = &handler.when
        {
            slot.consulted = true;
            let applies = says(handler, when, &slot.env(self, key, event, step, budget))?;
            budget.kept().map_err(over)?;
            if !applies {
                return Ok(false);
            }
        }
        match &handler.effect {
            Effect::Ignore => {}
            Effect::Delete => slot.delete(),
            Effect::Write(actions) => {
                // What was not sent is what the row has: whether there is one decides.
                let lacks = event.of_key || !event.unavailable.is_empty();
                slot.consulted |= handler.reads_state || lacks;
                let stands = slot.stands;
                let env = slot.env(self, key, event, step, budget);
                let mut changes: SmallVec<[(usize, Value); 8]> = SmallVec::new();
                for action in actions {
                    let old = env.state.get(action.column).unwrap_or(&Value::Null);
                    match action.next(&env, old, stands) {
                        Ok(None) => {}
                        Ok(Some(value)) => changes.push((action.column, value)),
                        Err(fault) => {
                            return Err(bad(fault.stage(), format!("{} {fault}", action.named())));
                        }
                    }
                }
                budget.kept().map_err(over)?;
                check_size(env.state, &changes).map_err(over)?;
                self.write(slot, changes, budget);
            }
        }
        Ok(true)
    }

    fn write(&self, slot: &mut Slot, changes: SmallVec<[(usize, Value); 8]>, budget: &Budget) {
        slot.exists = true;
        slot.touched = true;
        let Some(row) = &mut slot.state else { return };
        if !changes.is_empty() {
            let values = row.values_mut();
            for (column, value) in changes {
                if let Some(place) = values.get_mut(column) {
                    slot.grown += value.grown_from(place);
                    *place = value;
                }
            }
        }
        slot.stale = !self.computed.is_empty();
        if self.computed_is_read {
            let spent = self.compute(slot);
            // The next step sees it where that was too much.
            let _ = budget.steps(spent);
        }
    }

    /// Computed columns follow the folded ones; what fails, does not fit or costs too much is null. They have a budget of
    /// each row's own: what they are must not depend on what else an event does, some of which a row may hold already.
    /// How many steps that took.
    fn compute(&self, slot: &mut Slot) -> usize {
        slot.stale = false;
        let Some(row) = &mut slot.state else { return 0 };
        let (grown, spent) = self.compute_columns(&self.computed, row);
        slot.grown += grown;
        spent
    }

    /// Evaluates these columns over the row: by how much it has grown, and how many steps that took.
    pub(super) fn compute_columns(
        &self,
        columns: &[(usize, Expr)],
        row: &mut Row,
    ) -> (isize, usize) {
        let budget = &Budget::computed();
        let mut grown = 0;
        for (column, expr) in columns {
            let ty = self.model.columns.get(*column).map(|column| &column.ty);
            let value = expr.eval(&computing(row.values(), budget)).ok();
            let value = value.zip(ty).and_then(|(value, ty)| coerce(ty, value, budget).ok());
            let fits =
                |value: &Value| check_size(row.values(), &[(*column, value.clone())]).is_ok();
            let value = value.filter(fits).unwrap_or_default();
            if row.get(*column) != &value
                && let Some(place) = row.values_mut().get_mut(*column)
            {
                grown += value.grown_from(place);
                *place = value;
            }
        }
        (grown, budget.spent(COMPUTED_STEPS_MAX))
    }

    /// A row that is not there: defaults, and its key.
    fn blank(&self, key: &Key) -> Row {
        let mut row = self.blank.clone();
        let values = row.values_mut();
        for (&column, part) in self.model.key.iter().zip(key.values()) {
            if let Some(place) = values.get_mut(column) {
                *place = part.clone();
            }
        }
        row
    }

    fn finish(&self, prepared: &Prepared, slots: Slots) -> Effects {
        let mut writes: SmallVec<[(Key, Option<Row>); 1]> = SmallVec::new();
        let mut reads = Vec::new();
        for (key, mut slot) in prepared.keys.iter().zip(slots) {
            if slot.touched && slot.exists {
                if slot.stale {
                    self.compute(&mut slot);
                }
                writes.push((key.clone(), slot.state));
            } else if slot.touched && slot.existed {
                writes.push((key.clone(), None));
            } else if slot.consulted {
                reads.push(key.clone());
            }
        }
        if writes.is_empty() {
            Effects::Filtered { read: reads }
        } else {
            Effects::Applied { writes, reads }
        }
    }
}

/// A key's state during one event.
struct Slot {
    /// Whether there was a row before the event: what `exists` says all along.
    existed: bool,
    /// Whether there is one now.
    exists: bool,
    /// Whether it is the one that was there: it was not deleted in between.
    stands: bool,
    /// The row, or the one it would be; made when first needed.
    state: Option<Row>,
    touched: bool,
    /// Whether the state decided something.
    consulted: bool,
    /// Whether computed columns must be evaluated again.
    stale: bool,
    /// By how many bytes the row has grown.
    grown: isize,
}

type Slots = SmallVec<[Slot; 1]>;

impl Slot {
    fn new(row: Option<Row>) -> Self {
        let exists = row.is_some();
        Slot {
            existed: exists,
            exists,
            stands: exists,
            state: row,
            touched: false,
            consulted: false,
            stale: false,
            grown: 0,
        }
    }

    fn delete(&mut self) {
        (self.exists, self.stands, self.state) = (false, false, None);
        (self.touched, self.consulted) = (true, true);
    }

    fn env<'a>(
        &'a mut self,
        projection: &Projection,
        key: &Key,
        event: &'a Event,
        step: &'a Step,
        budget: &'a Budget,
    ) -> Env<'a> {
        if self.state.is_none() {
            self.state = Some(projection.blank(key));
            if projection.computed_is_read {
                projection.compute(self);
            }
        }
        let state = self.state.as_ref().map_or(&[][..], Row::values);
        Env { event, state, exists: self.existed, item: step.item.as_ref(), child: None, budget }
    }
}

/// An event being applied.
struct Run<'a> {
    event: &'a Event,
    prepared: &'a Prepared,
    budget: &'a Budget,
}

/// Whether the row stays within its limit with `changes`. Asked where one of them is large only: to measure a row for
/// each small event on it would cost more than the event.
fn check_size(state: &[Value], changes: &[(usize, Value)]) -> Result<(), Exceeded> {
    let is_small = |value: &Value| match value {
        Value::Text(text) => text.len() <= ROW_BYTES_CHECKED,
        Value::Decimal(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => {
            value.heap_bytes() <= ROW_BYTES_CHECKED
        }
        _ => true,
    };
    if changes.iter().all(|(_, value)| is_small(value)) {
        return Ok(());
    }
    let stays = state.iter().enumerate().filter(|(at, _)| changes.iter().all(|c| c.0 != *at));
    let values = stays.map(|(_, value)| value).chain(changes.iter().map(|(_, value)| value));
    if row_bytes(values) > ROW_BYTES_MAX { Err(Exceeded::Row) } else { Ok(()) }
}

fn load(prepared: &Prepared, states: &dyn States) -> Result<Slots, BadRecord> {
    if prepared.is_over_with(states) {
        let mut bad = over(Exceeded::Together(prepared.keys.len()));
        bad.read.extend(prepared.keys.iter().filter(|key| states.get(key).is_some()).cloned());
        return Err(bad);
    }
    let slot = |key: &Key| {
        let Some(StateRef { row }) = states.get(key) else {
            return Err(bad("state", "the state of a key was not loaded".to_owned()));
        };
        Ok(Slot::new(row.cloned()))
    };
    prepared.keys.iter().map(slot).collect()
}

fn consulted(prepared: &Prepared, slots: &Slots) -> Vec<Key> {
    let keys = prepared.keys.iter().zip(slots);
    keys.filter(|(_, slot)| slot.consulted).map(|(key, _)| key.clone()).collect()
}

/// What a computed column sees: the state alone. Its expressions were compiled so that they cannot
/// name the event.
fn computing<'a>(state: &'a [Value], budget: &'a Budget) -> Env<'a> {
    static NOTHING: std::sync::LazyLock<Event> = std::sync::LazyLock::new(|| Event {
        slots: crate::event::Slots::new(),
        name: None,
        kind: crate::event::Kind::Plain,
        of_key: false,
        unavailable: Vec::new(),
        no_object: None,
        key: Value::Null,
        headers: Vec::new(),
        topic: Arc::from(""),
        partition: 0,
        offset: 0,
        timestamp: None,
        left: foldline_api::budget::Left::default(),
    });
    Env { event: &NOTHING, state, exists: true, item: None, child: None, budget }
}
