//! The fold: which keys an event may touch, and what becomes of them.
//!
//! It takes two steps, so that states can be loaded for a whole batch in between:
//! [`Projection::prepare`] decides all that needs no state, [`Projection::apply`] the rest. Both are
//! pure. Every handler leaves each field of its column's type, just as the sink would return it, so
//! where a batch ends makes no difference.

use std::sync::Arc;

use foldline_api::column::scalar_text;
use foldline_api::model::{Key, Row};
use foldline_api::value::Value;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::Projection;
use super::handler::{Effect, Handler, TOMBSTONE};
use crate::event::Event;
use crate::expr::{Env, Expr};

/// States by key, as far as the caller loaded them.
pub trait States {
    /// The state of `key`; none where it was not loaded. The caller makes sure that all of
    /// [`Projection::keys`] are there.
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
        reads: Vec<Key>,
    },
    /// Writes rows.
    Applied {
        /// Rows as they shall be; none deletes. At most one per key.
        writes: SmallVec<[(Key, Option<Row>); 1]>,
        /// Keys that are not written, and whose state decided something.
        reads: Vec<Key>,
    },
}

/// What could be decided of an event without any state.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    steps: SmallVec<[Step; 1]>,
    keys: SmallVec<[Key; 1]>,
    /// Places of keys, once there are too many to look through.
    index: Option<Box<HashMap<Key, u32>>>,
    /// Some step has still to ask the state whether it applies.
    asks: bool,
    /// No further handler can be reached.
    closed: bool,
}

/// One run of a handler: for the event, or for one item.
#[derive(Clone, Debug)]
struct Step {
    /// Index of the handler; [`DELETE_BY_TOMBSTONE`] is none of the config's.
    handler: u32,
    /// Whether `when` has still to be asked, since it reads the state.
    ask: bool,
    item: Option<Value>,
    /// Index of the key, or why there is none: the record is bad if the step is reached.
    key: Result<u32, Box<BadRecord>>,
}

const DELETE_BY_TOMBSTONE: u32 = u32::MAX;

/// Above this many keys, one event's keys are found by hash.
const KEYS_SCANNED_MAX: usize = 16;

impl Prepared {
    /// The handlers that the event reached, as indexes in config order; each as often as it runs.
    pub(super) fn handlers(&self) -> impl Iterator<Item = usize> {
        self.steps.iter().filter_map(|step| usize::try_from(step.handler).ok())
    }

    fn place(&mut self, key: Key) -> u32 {
        let next = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        if let Some(index) = &mut self.index {
            let place = *index.entry(key.clone()).or_insert(next);
            if place == next {
                self.keys.push(key);
            }
            return place;
        }
        if let Some(at) = self.keys.iter().position(|known| *known == key) {
            return u32::try_from(at).unwrap_or(u32::MAX);
        }
        self.keys.push(key);
        if self.keys.len() > KEYS_SCANNED_MAX {
            let places = self.keys.iter().cloned().zip(0..);
            self.index = Some(Box::new(places.collect()));
        }
        next
    }

    fn push(&mut self, handler: u32, item: Option<Value>, ask: bool, key: Key) {
        let key = Ok(self.place(key));
        self.asks |= ask;
        self.steps.push(Step { handler, ask, item, key });
    }

    /// Nothing before it can keep the event from reaching this fault, or it is kept for later.
    fn fail(&mut self, handler: u32, bad: BadRecord) -> Result<(), BadRecord> {
        if !self.asks {
            return Err(bad);
        }
        self.closed = true;
        self.steps.push(Step { handler, ask: false, item: None, key: Err(Box::new(bad)) });
        Ok(())
    }
}

fn bad(stage: &'static str, reason: String) -> BadRecord {
    BadRecord { reason, stage, read: Vec::new() }
}

fn stateless<'a>(event: &'a Event, item: Option<&'a Value>) -> Env<'a> {
    Env { event, state: &[], exists: false, item, child: None }
}

impl Projection {
    /// All that can be decided of an event before states are known: its name, the handlers it may
    /// reach, their items and keys. `when` is asked where it reads no state.
    ///
    /// # Errors
    /// When the record is bad whatever the states are.
    pub fn prepare(&self, event: &Event) -> Result<Prepared, BadRecord> {
        let mut prepared = Prepared::default();
        if event.tombstone {
            self.prepare_tombstone(event, &mut prepared)?;
            return Ok(prepared);
        }
        let name = self.event_name(event)?;
        let (candidates, ask) = self.dispatch.candidates(name.as_deref());
        for &at in candidates {
            let Some(handler) = self.handler(at) else { continue };
            let named = !ask || matches(handler, name.as_deref());
            if !named || !handler.hears_topic(&event.topic) {
                continue;
            }
            self.prepare_handler(at, handler, event, &mut prepared)?;
            if prepared.closed {
                break;
            }
        }
        Ok(prepared)
    }

    /// The keys that folding the event may touch, in no order, each once.
    #[must_use]
    pub fn keys(prepared: &Prepared) -> &[Key] {
        &prepared.keys
    }

    fn handler(&self, at: u32) -> Option<&Handler> {
        usize::try_from(at).ok().and_then(|at| self.handlers.get(at))
    }

    fn event_name(&self, event: &Event) -> Result<Option<Arc<str>>, BadRecord> {
        let Some(expr) = &self.event_type else { return Ok(event.name.clone()) };
        let named =
            |fault: String| bad("expression", format!("event_type ({}): {fault}", expr.source()));
        match expr.eval(&stateless(event, None)).map_err(|error| named(error.to_string()))? {
            Value::Null => Ok(event.name.clone()),
            Value::Text(text) => Ok(Some(text)),
            found @ (Value::List(_) | Value::Map(_) | Value::Bytes(_)) => {
                Err(named(format!("{} is no name", found.type_name())))
            }
            scalar => Ok(Some(Arc::from(scalar_text(&scalar)))),
        }
    }

    /// Handlers hear a tombstone by its name; else it deletes the row that the key names, where it
    /// can be known which.
    fn prepare_tombstone(&self, event: &Event, prepared: &mut Prepared) -> Result<(), BadRecord> {
        let mut heard = false;
        for &at in &self.dispatch.tombstone {
            let Some(handler) = self.handler(at).filter(|h| h.hears_topic(&event.topic)) else {
                continue;
            };
            heard = true;
            self.prepare_handler(at, handler, event, prepared)?;
            if prepared.closed {
                break;
            }
        }
        if heard || self.dispatch.names_topics || self.key.iter().any(Expr::reads_event) {
            return Ok(());
        }
        match self.key_of(&self.key, &stateless(event, None), TOMBSTONE) {
            Ok(key) => prepared.push(DELETE_BY_TOMBSTONE, None, false, key),
            Err(fault) => prepared.fail(DELETE_BY_TOMBSTONE, fault)?,
        }
        Ok(())
    }

    fn prepare_handler(
        &self,
        at: u32,
        handler: &Handler,
        event: &Event,
        prepared: &mut Prepared,
    ) -> Result<(), BadRecord> {
        // Without `when` it applies, be it to no item at all.
        let mut applies = handler.when.is_none();
        match &handler.for_each {
            None => applies |= self.prepare_item(at, handler, event, None, prepared)?,
            Some(expr) => {
                let fault = |fault: &str| {
                    let source = expr.source();
                    bad("expression", format!("{} for_each ({source}): {fault}", handler.label))
                };
                match expr.eval(&stateless(event, None)) {
                    Ok(Value::Null) => {}
                    Ok(Value::List(items)) => {
                        for item in items.iter() {
                            let item = Some(item.clone());
                            applies |= self.prepare_item(at, handler, event, item, prepared)?;
                            if prepared.closed {
                                break;
                            }
                        }
                    }
                    Ok(found) => {
                        prepared.fail(at, fault(&format!("{} is no list", found.type_name())))?;
                    }
                    Err(error) => prepared.fail(at, fault(&error.to_string()))?,
                }
            }
        }
        prepared.closed |= applies && !handler.continues;
        Ok(())
    }

    /// Whether the handler surely applies.
    fn prepare_item(
        &self,
        at: u32,
        handler: &Handler,
        event: &Event,
        item: Option<Value>,
        prepared: &mut Prepared,
    ) -> Result<bool, BadRecord> {
        let env = stateless(event, item.as_ref());
        let mut ask = false;
        if let Some(when) = &handler.when {
            if when.reads_state() {
                ask = true;
            } else {
                match says(handler, when, &env) {
                    Ok(true) => {}
                    Ok(false) => return Ok(false),
                    Err(fault) => return prepared.fail(at, fault).map(|()| true),
                }
            }
        }
        let key = handler.key.as_deref().unwrap_or(&self.key);
        match self.key_of(key, &env, &handler.label) {
            Ok(key) => prepared.push(at, item, ask, key),
            Err(fault) => prepared.fail(at, fault)?,
        }
        Ok(!ask)
    }

    fn key_of(&self, exprs: &[Expr], env: &Env<'_>, label: &str) -> Result<Key, BadRecord> {
        let part = |place: usize, expr: &Expr| -> Result<Value, BadRecord> {
            let column = self.model.key.get(place).and_then(|&at| self.model.columns.get(at));
            let Some(column) = column else { return Ok(Value::Null) };
            let fault = |fault: String| {
                let source = expr.source();
                bad("key", format!("{label} key {} ({source}): {fault}", column.name))
            };
            let value = expr.eval(env).map_err(|error| fault(error.to_string()))?;
            match column.ty.coerce(value).map_err(|error| fault(error.to_string()))? {
                Value::Null => Err(fault("it is null".to_owned())),
                value => Ok(value),
            }
        };
        if let [only] = exprs {
            return Ok(Key::from_shared(Arc::from([part(0, only)?])));
        }
        let parts: Result<Vec<Value>, _> =
            exprs.iter().enumerate().map(|(place, expr)| part(place, expr)).collect();
        parts.map(Key::new)
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
        let mut slots = load(prepared, states)?;
        let mut steps = prepared.steps.iter().peekable();
        while let Some(first) = steps.peek().map(|step| step.handler) {
            let handler = self.handler(first);
            let mut applied = handler.is_none_or(|handler| handler.when.is_none());
            while let Some(step) = steps.next_if(|step| step.handler == first) {
                match self.run(event, prepared, step, &mut slots) {
                    Ok(ran) => applied |= ran,
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
        event: &Event,
        prepared: &Prepared,
        step: &Step,
        slots: &mut Slots,
    ) -> Result<bool, BadRecord> {
        let place = match &step.key {
            Ok(place) => usize::try_from(*place).unwrap_or(usize::MAX),
            Err(fault) => return Err(BadRecord::clone(fault)),
        };
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
            if !says(handler, when, &slot.env(self, key, event, step))? {
                return Ok(false);
            }
        }
        match &handler.effect {
            Effect::Ignore => {}
            Effect::Delete => slot.delete(),
            Effect::Write(actions) => {
                slot.consulted |= handler.reads_state;
                let env = slot.env(self, key, event, step);
                let mut changes: SmallVec<[(usize, Value); 8]> = SmallVec::new();
                for action in actions {
                    let old = env.state.get(action.column).unwrap_or(&Value::Null);
                    match action.next(&env, old) {
                        Ok(None) => {}
                        Ok(Some(value)) => changes.push((action.column, value)),
                        Err(fault) => {
                            return Err(bad(fault.stage(), format!("{} {fault}", action.named())));
                        }
                    }
                }
                self.write(slot, changes);
            }
        }
        Ok(true)
    }

    fn write(&self, slot: &mut Slot, changes: SmallVec<[(usize, Value); 8]>) {
        slot.exists = true;
        slot.touched = true;
        let Some(row) = &mut slot.state else { return };
        if !changes.is_empty() {
            let values = row.values_mut();
            for (column, value) in changes {
                if let Some(place) = values.get_mut(column) {
                    *place = value;
                }
            }
        }
        slot.stale = !self.computed.is_empty();
        if self.computed_is_read {
            self.compute(slot);
        }
    }

    /// Computed columns follow the folded ones; what fails or does not fit is null.
    fn compute(&self, slot: &mut Slot) {
        slot.stale = false;
        let Some(row) = &mut slot.state else { return };
        for (column, expr) in &self.computed {
            let ty = self.model.columns.get(*column).map(|column| &column.ty);
            let value = expr.eval(&computing(row.values())).ok();
            let value = value.zip(ty).and_then(|(value, ty)| ty.coerce(value).ok());
            let value = value.unwrap_or_default();
            if row.get(*column) != &value
                && let Some(place) = row.values_mut().get_mut(*column)
            {
                *place = value;
            }
        }
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
            Effects::Filtered { reads }
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
    /// The row, or the one it would be; made when first needed.
    state: Option<Row>,
    touched: bool,
    /// Whether the state decided something.
    consulted: bool,
    /// Whether computed columns must be evaluated again.
    stale: bool,
}

type Slots = SmallVec<[Slot; 1]>;

impl Slot {
    fn delete(&mut self) {
        (self.exists, self.state) = (false, None);
        (self.touched, self.consulted) = (true, true);
    }

    fn env<'a>(
        &'a mut self,
        projection: &Projection,
        key: &Key,
        event: &'a Event,
        step: &'a Step,
    ) -> Env<'a> {
        if self.state.is_none() {
            self.state = Some(projection.blank(key));
            if projection.computed_is_read {
                projection.compute(self);
            }
        }
        let state = self.state.as_ref().map_or(&[][..], Row::values);
        Env { event, state, exists: self.existed, item: step.item.as_ref(), child: None }
    }
}

fn load(prepared: &Prepared, states: &dyn States) -> Result<Slots, BadRecord> {
    let slot = |key: &Key| {
        let Some(StateRef { row }) = states.get(key) else {
            return Err(bad("state", "the state of a key was not loaded".to_owned()));
        };
        Ok(Slot {
            existed: row.is_some(),
            exists: row.is_some(),
            state: row.cloned(),
            touched: false,
            consulted: false,
            stale: false,
        })
    };
    prepared.keys.iter().map(slot).collect()
}

fn consulted(prepared: &Prepared, slots: &Slots) -> Vec<Key> {
    let keys = prepared.keys.iter().zip(slots);
    keys.filter(|(_, slot)| slot.consulted).map(|(key, _)| key.clone()).collect()
}

fn matches(handler: &Handler, name: Option<&str>) -> bool {
    match (&handler.event, name) {
        (None, _) => true,
        (Some(event), Some(name)) => event.is_match(name),
        (Some(_), None) => false,
    }
}

/// What `when` says.
fn says(handler: &Handler, when: &Expr, env: &Env<'_>) -> Result<bool, BadRecord> {
    let fault =
        |fault: &str| bad("when", format!("{} when ({}): {fault}", handler.label, when.source()));
    when.eval(env).and_then(|value| Expr::as_bool(&value)).map_err(|e| fault(&e.to_string()))
}

/// What a computed column sees: the state alone. Its expressions were compiled so that they cannot
/// name the event.
fn computing(state: &[Value]) -> Env<'_> {
    static NOTHING: std::sync::LazyLock<Event> = std::sync::LazyLock::new(|| Event {
        slots: Vec::new(),
        name: None,
        tombstone: false,
        key: Value::Null,
        headers: Vec::new(),
        topic: Arc::from(""),
        partition: 0,
        offset: 0,
        timestamp: None,
    });
    Env { event: &NOTHING, state, exists: true, item: None, child: None }
}
