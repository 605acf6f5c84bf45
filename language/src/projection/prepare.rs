//! The first half of the fold: what can be decided of an event before any state is known.

use std::sync::Arc;

use foldline_api::budget::{Budget, Exceeded, Left, ROWS_MAX, Together};
use foldline_api::column::scalar_text;
use foldline_api::model::Key;
use foldline_api::value::Value;
use smallvec::SmallVec;

use super::Projection;
use super::fold::{BadRecord, States};
use super::handler::{DELETE, Handler, TOMBSTONE};
use super::ops::coerce;
use crate::converter::{JSON_TEXT, looks_like_json};
use crate::event::{Event, Kind};
use crate::expr::{Env, Expr};
use hashbrown::HashMap;

/// What could be decided of an event without any state.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    pub(super) steps: SmallVec<[Step; 1]>,
    pub(super) keys: SmallVec<[Key; 1]>,
    /// Places of keys, once there are too many to look through.
    index: Option<Box<HashMap<Key, u32>>>,
    /// Some step has still to ask the state whether it applies.
    asks: bool,
    /// No further handler can be reached.
    closed: bool,
    /// Places of keys whose rows hold this event already.
    held: SmallVec<[u32; 1]>,
    /// Steps that were refused when the event was first applied.
    refused: Vec<u32>,
    /// Its rows are known to take more than one record may touch, though they are not all there.
    over: bool,
    /// What deciding this has left of the record's budget.
    pub(super) left: Left,
}

/// One run of a handler: for the event, or for one item.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Index of the handler; [`DELETE_BY_TOMBSTONE`] is none of the config's.
    pub(super) handler: u32,
    /// Whether `when` has still to be asked, since it reads the state.
    pub(super) ask: bool,
    pub(super) item: Option<Value>,
    /// Index of the key, or why there is none: the record is bad if the step is reached.
    pub(super) key: Result<u32, Box<BadRecord>>,
}

const DELETE_BY_TOMBSTONE: u32 = u32::MAX;

/// Above this many keys, one event's keys are found by hash.
const KEYS_SCANNED_MAX: usize = 16;

impl Prepared {
    /// The keys that folding the event may touch, in no order, each once.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Whether no handler hears the event.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether the event runs one handler once, on one key: nearly every event does.
    #[must_use]
    pub fn single(&self) -> Option<&Key> {
        match (&*self.steps, &*self.keys) {
            ([Step { key: Ok(0), .. }], [key])
                if self.held.is_empty() && self.refused.is_empty() =>
            {
                Some(key)
            }
            _ => None,
        }
    }

    /// Binds the event to what it did before. `held` are the keys whose rows hold it already and are left
    /// as they are; `refused` are the steps that it was refused then. The steps of a held key that were not
    /// refused have applied: their `when` must not be asked again, of a row that has moved on.
    pub fn bind(&mut self, held: &[Key], refused: &[u32]) {
        let scanned = |key: &Key| self.keys.iter().position(|other| other == key);
        let place = |key: &Key| match &self.index {
            Some(index) => index.get(key).copied(),
            None => scanned(key).and_then(|at| u32::try_from(at).ok()),
        };
        self.held = held.iter().filter_map(place).collect();
        self.refused = refused.to_vec();
    }

    /// Whether what its rows take together is still to be judged: it touches several, and was not applied before.
    #[must_use]
    pub fn is_weighed(&self) -> bool {
        self.keys.len() > 1 && self.held.is_empty() && self.refused.is_empty()
    }

    /// Some of its rows alone take more than one record may touch, so that the others need not be loaded.
    pub fn exceed(&mut self) {
        self.over = true;
    }

    /// Whether that is known.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.over
    }

    /// Whether its rows take more than one record may touch.
    pub(super) fn is_over_with(&self, states: &dyn States) -> bool {
        self.over
            || self.is_weighed() && {
                let mut together = Together::default();
                let rows = self.keys.iter().filter_map(|key| states.get(key));
                rows.for_each(|state| together.add(state.row));
                together.is_over()
            }
    }

    /// What is known of step `at` without asking: whether it applied, if it has been decided.
    pub(super) fn decided(&self, at: u32, place: u32) -> Option<bool> {
        if self.refused.contains(&at) {
            return Some(false);
        }
        self.held.contains(&place).then_some(true)
    }

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

    fn push(
        &mut self,
        handler: u32,
        item: Option<Value>,
        ask: bool,
        key: Key,
    ) -> Result<(), BadRecord> {
        let key = Ok(self.place(key));
        if self.keys.len() > ROWS_MAX {
            return Err(over(Exceeded::Rows));
        }
        self.asks |= ask;
        self.steps.push(Step { handler, ask, item, key });
        Ok(())
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

pub(super) fn bad(stage: &'static str, reason: String) -> BadRecord {
    BadRecord { reason, stage, read: Vec::new() }
}

/// The stage of a record that costs too much.
pub(super) const BUDGET: &str = "budget";
/// What an item of `for_each` costs, beside what its expressions do.
const ITEM_STEPS: usize = 4;

pub(super) fn over(limit: Exceeded) -> BadRecord {
    bad(BUDGET, limit.to_string())
}

pub(super) fn stateless<'a>(
    event: &'a Event,
    item: Option<&'a Value>,
    budget: &'a Budget,
) -> Env<'a> {
    Env { event, state: &[], exists: false, item, child: None, budget }
}

/// A handler being run for an event.
struct Run<'a> {
    at: u32,
    handler: &'a Handler,
    event: &'a Event,
    budget: &'a Budget,
}

impl Projection {
    /// All that can be decided of an event before states are known: its name, the handlers it may
    /// reach, their items and keys. `when` is asked where it reads no state.
    ///
    /// # Errors
    /// When the record is bad whatever the states are.
    pub fn prepare(&self, event: &Event) -> Result<Prepared, BadRecord> {
        let mut prepared = Prepared::default();
        let budget = Budget::resume(event.left);
        self.prepare_within(event, &budget, &mut prepared)?;
        // Met where an expression made something else of it: `a || b` does not care why `a` failed.
        budget.kept().map_err(over)?;
        prepared.left = budget.left();
        Ok(prepared)
    }

    fn prepare_within(
        &self,
        event: &Event,
        budget: &Budget,
        prepared: &mut Prepared,
    ) -> Result<(), BadRecord> {
        if event.kind != Kind::Plain {
            return self.prepare_named(event, budget, prepared);
        }
        let name = self.event_name(event, budget)?;
        let (candidates, ask) = self.dispatch.candidates(name.as_deref());
        for &at in candidates {
            let Some(handler) = self.handler(at) else { continue };
            let named = !ask || matches(handler, name.as_deref());
            if !named || !handler.hears_topic(&event.topic) {
                continue;
            }
            self.prepare_handler((at, handler), event, budget, prepared)?;
            if prepared.closed {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn handler(&self, at: u32) -> Option<&Handler> {
        usize::try_from(at).ok().and_then(|at| self.handlers.get(at))
    }

    /// The event's name, where it has one.
    #[must_use]
    pub fn name_of(&self, event: &Event) -> Option<Arc<str>> {
        self.event_name(event, &Budget::resume(event.left)).ok().flatten()
    }

    /// The row that a record's key names; none where rows do not go by it.
    #[must_use]
    pub fn key_by_record_key(&self, key: Value) -> Option<Key> {
        let column = self.model.key_columns().next().filter(|_| self.is_keyed_by_record())?;
        match column.ty.coerce(key) {
            Ok(Value::Null) | Err(_) => None,
            Ok(value) => Some(Key::of(value)),
        }
    }

    pub(super) fn event_name(
        &self,
        event: &Event,
        budget: &Budget,
    ) -> Result<Option<Arc<str>>, BadRecord> {
        let Some(expr) = &self.event_type else { return Ok(event.name.clone()) };
        let named =
            |fault: String| bad("expression", format!("event_type ({}): {fault}", expr.source()));
        match expr
            .eval(&stateless(event, None, budget))
            .map_err(|error| named(error.to_string()))?
        {
            Value::Null => Ok(event.name.clone()),
            Value::Text(text) => Ok(Some(text)),
            found @ (Value::List(_) | Value::Map(_) | Value::Bytes(_)) => {
                Err(named(format!("{} is no name", found.type_name())))
            }
            scalar => Ok(Some(Arc::from(scalar_text(&scalar)))),
        }
    }

    /// The name that an event has whatever `event_type` says.
    pub(super) fn own_name(&self, event: &Event) -> Arc<str> {
        event
            .name
            .clone()
            .filter(|_| event.kind != Kind::Tombstone)
            .unwrap_or_else(|| TOMBSTONE.into())
    }

    /// Handlers hear a tombstone or a delete by its name; else it deletes the row that the key names, where it
    /// can be known which. What is no row's is heard by its name only.
    fn prepare_named(
        &self,
        event: &Event,
        budget: &Budget,
        prepared: &mut Prepared,
    ) -> Result<(), BadRecord> {
        let (mut heard, name) = (false, self.own_name(event));
        for &at in self.dispatch.listing(&name) {
            let Some(handler) = self.handler(at).filter(|h| h.hears_topic(&event.topic)) else {
                continue;
            };
            heard = true;
            self.prepare_handler((at, handler), event, budget, prepared)?;
            if prepared.closed {
                break;
            }
        }
        if heard || event.kind == Kind::Aside || self.dispatch.names_topics {
            return Ok(());
        }
        // Debezium writes a tombstone behind each delete: whoever decided that one has decided this.
        let follows = event.kind == Kind::Tombstone && event.of_key;
        let unread = event.kind == Kind::Tombstone && !event.of_key;
        if (follows && !self.dispatch.listing(DELETE).is_empty())
            || (unread && self.key.iter().any(Expr::reads_event))
        {
            return Ok(());
        }
        match self.key_of(&self.key, &stateless(event, None, budget), &name) {
            Ok(key) => prepared.push(DELETE_BY_TOMBSTONE, None, false, key),
            // Of a row that the record's key does not name.
            Err(_) if follows => Ok(()),
            Err(fault) => prepared.fail(DELETE_BY_TOMBSTONE, fault),
        }
    }

    fn prepare_handler(
        &self,
        (at, handler): (u32, &Handler),
        event: &Event,
        budget: &Budget,
        prepared: &mut Prepared,
    ) -> Result<(), BadRecord> {
        let run = Run { at, handler, event, budget };
        // Without `when` it applies, be it to no item at all.
        let mut applies = handler.when.is_none();
        match &handler.for_each {
            None => applies |= self.prepare_item(&run, None, prepared)?,
            Some(expr) => {
                let fault = |fault: &str| {
                    let source = expr.source();
                    bad("expression", format!("{} for_each ({source}): {fault}", handler.label))
                };
                match expr.eval(&stateless(event, None, budget)) {
                    Ok(Value::Null) => {}
                    Ok(Value::List(items)) => {
                        for item in items.iter() {
                            budget.steps(ITEM_STEPS).map_err(over)?;
                            let item = Some(item.clone());
                            applies |= self.prepare_item(&run, item, prepared)?;
                            if prepared.closed {
                                break;
                            }
                        }
                    }
                    Ok(found) => {
                        let called = match &found {
                            Value::Text(text) if looks_like_json(text) => JSON_TEXT,
                            found => found.type_name(),
                        };
                        prepared.fail(at, fault(&format!("{called} is no list")))?;
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
        &Run { at, handler, event, budget }: &Run<'_>,
        item: Option<Value>,
        prepared: &mut Prepared,
    ) -> Result<bool, BadRecord> {
        let env = stateless(event, item.as_ref(), budget);
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
            Ok(key) => prepared.push(at, item, ask, key)?,
            Err(fault) => prepared.fail(at, fault)?,
        }
        Ok(!ask)
    }

    pub(super) fn key_of(
        &self,
        exprs: &[Expr],
        env: &Env<'_>,
        label: &str,
    ) -> Result<Key, BadRecord> {
        let part = |place: usize, expr: &Expr| -> Result<Value, BadRecord> {
            let column = self.model.key.get(place).and_then(|&at| self.model.columns.get(at));
            let Some(column) = column else { return Ok(Value::Null) };
            let fault = |fault: String| {
                let source = expr.source();
                bad("key", format!("{label} key {} ({source}): {fault}", column.name))
            };
            let value = expr.eval(env).map_err(|error| fault(error.to_string()))?;
            match coerce(&column.ty, value, env.budget).map_err(|error| fault(error.to_string()))? {
                Value::Null => Err(fault("it is null".to_owned())),
                value => Ok(value),
            }
        };
        if let [only] = exprs {
            return Ok(Key::of(part(0, only)?));
        }
        let parts: Result<Vec<Value>, _> =
            exprs.iter().enumerate().map(|(place, expr)| part(place, expr)).collect();
        parts.map(Key::new)
    }
}

pub(super) fn matches(handler: &Handler, name: Option<&str>) -> bool {
    match (&handler.event, name) {
        (None, _) => true,
        (Some(event), Some(name)) => event.is_match(name),
        (Some(_), None) => false,
    }
}

/// What `when` says.
pub(super) fn says(handler: &Handler, when: &Expr, env: &Env<'_>) -> Result<bool, BadRecord> {
    let fault =
        |fault: &str| bad("when", format!("{} when ({}): {fault}", handler.label, when.source()));
    when.eval(env).and_then(|value| Expr::as_bool(&value)).map_err(|e| fault(&e.to_string()))
}
