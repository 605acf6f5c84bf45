//! Which rows a bad event would have touched, as far as that can be told: their later events have to wait
//! where bad records are parked.

use foldline_api::model::Key;
use foldline_api::value::Value;

use super::Projection;
use super::handler::Handler;
use super::prepare::{matches, says, stateless};
use crate::event::Event;
use crate::expr::Expr;

impl Projection {
    /// The keys of all rows that a decoded event might have touched, whatever was wrong with it: those of
    /// every handler that it may reach, and can be told.
    #[must_use]
    pub fn keys_of_bad(&self, event: &Event) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut known = true;
        if !event.tombstone {
            match self.event_name(event) {
                Ok(name) => {
                    let (candidates, ask) = self.dispatch.candidates(name.as_deref());
                    for handler in candidates.iter().filter_map(|&at| self.handler(at)) {
                        let named = !ask || matches(handler, name.as_deref());
                        if named && handler.hears_topic(&event.topic) {
                            self.keys_of_handler(handler, event, &mut keys);
                        }
                    }
                }
                Err(_) => known = false,
            }
        }
        if event.tombstone || !known {
            self.add_key(&self.key, event, None, &mut keys);
        }
        keys
    }

    /// The keys of the rows that a record might have touched whose value cannot be decoded: none, unless
    /// rows go by what stands beside the value.
    #[must_use]
    pub fn keys_without_value(&self, event: &Event) -> Vec<Key> {
        let own = self.handlers.iter().filter_map(|handler| handler.key.as_deref());
        let all = std::iter::once(&*self.key).chain(own);
        let mut keys = Vec::new();
        for exprs in all {
            if exprs.iter().any(|expr| expr.reads_event() || expr.reads_item()) {
                return Vec::new();
            }
            self.add_key(exprs, event, None, &mut keys);
        }
        keys
    }

    fn keys_of_handler(&self, handler: &Handler, event: &Event, keys: &mut Vec<Key>) {
        let exprs = handler.key.as_deref().unwrap_or(&self.key);
        let when = handler.when.as_ref().filter(|when| !when.reads_state() && !when.reads_item());
        if let Some(when) = when
            && says(handler, when, &stateless(event, None)) == Ok(false)
        {
            return;
        }
        let Some(for_each) = &handler.for_each else {
            return self.add_key(exprs, event, None, keys);
        };
        if let Ok(Value::List(items)) = for_each.eval(&stateless(event, None)) {
            for item in items.iter() {
                self.add_key(exprs, event, Some(item), keys);
            }
        }
    }

    fn add_key(&self, exprs: &[Expr], event: &Event, item: Option<&Value>, keys: &mut Vec<Key>) {
        if let Ok(key) = self.key_of(exprs, &stateless(event, item), "")
            && !keys.contains(&key)
        {
            keys.push(key);
        }
    }
}
