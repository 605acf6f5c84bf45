//! Which rows a bad event would have touched, as far as that can be told: their later events have to wait
//! where bad records are parked.

use foldline_api::budget::{Budget, ROWS_MAX};
use foldline_api::model::Key;
use foldline_api::value::Value;
use indexmap::IndexSet;

use super::Projection;
use super::handler::Handler;
use super::prepare::{matches, says, stateless};
use crate::event::{Event, Kind};
use crate::expr::{Env, Expr};

impl Projection {
    /// The keys of all rows that a decoded event might have touched, whatever was wrong with it: those of
    /// every handler that it may reach, and can be told.
    #[must_use]
    pub fn keys_of_bad(&self, event: &Event) -> Vec<Key> {
        let mut keys = IndexSet::new();
        let mut known = true;
        let budget = &Budget::resume(event.left);
        if event.kind != Kind::Plain {
            let name = self.own_name(event);
            for handler in self.dispatch.listing(&name).iter().filter_map(|&at| self.handler(at)) {
                if handler.hears_topic(&event.topic) {
                    self.keys_of_handler(handler, event, budget, &mut keys);
                }
            }
        } else {
            match self.event_name(event, budget) {
                Ok(name) => {
                    let (candidates, ask) = self.dispatch.candidates(name.as_deref());
                    for handler in candidates.iter().filter_map(|&at| self.handler(at)) {
                        let named = !ask || matches(handler, name.as_deref());
                        if named && handler.hears_topic(&event.topic) {
                            self.keys_of_handler(handler, event, budget, &mut keys);
                        }
                    }
                }
                Err(_) => known = false,
            }
        }
        if matches!(event.kind, Kind::Tombstone | Kind::Delete) || !known {
            self.add_key(&self.key, &stateless(event, None, budget), &mut keys);
        }
        keys.into_iter().collect()
    }

    /// The keys of the rows that a record might have touched whose value cannot be decoded: none, unless
    /// rows go by what stands beside the value.
    #[must_use]
    pub fn keys_without_value(&self, event: &Event) -> Vec<Key> {
        let own = self.handlers.iter().filter_map(|handler| handler.key.as_deref());
        let all = std::iter::once(&*self.key).chain(own);
        let mut keys = IndexSet::new();
        let budget = &Budget::resume(event.left);
        for exprs in all {
            if exprs.iter().any(|expr| expr.reads_event() || expr.reads_item()) {
                return Vec::new();
            }
            self.add_key(exprs, &stateless(event, None, budget), &mut keys);
        }
        keys.into_iter().collect()
    }

    fn keys_of_handler(
        &self,
        handler: &Handler,
        event: &Event,
        budget: &Budget,
        keys: &mut IndexSet<Key>,
    ) {
        let env = stateless(event, None, budget);
        let exprs = handler.key.as_deref().unwrap_or(&self.key);
        let when = handler.when.as_ref().filter(|when| !when.reads_state() && !when.reads_item());
        if let Some(when) = when
            && says(handler, when, &env) == Ok(false)
        {
            return;
        }
        let Some(for_each) = &handler.for_each else {
            return self.add_key(exprs, &env, keys);
        };
        if let Ok(Value::List(items)) = for_each.eval(&env) {
            for item in items.iter() {
                self.add_key(exprs, &stateless(event, Some(item), budget), keys);
            }
        }
    }

    /// Keys beyond what a record may touch are none that it would have touched.
    fn add_key(&self, exprs: &[Expr], env: &Env<'_>, keys: &mut IndexSet<Key>) {
        if keys.len() < ROWS_MAX
            && let Ok(key) = self.key_of(exprs, env, "")
        {
            keys.insert(key);
        }
    }
}
