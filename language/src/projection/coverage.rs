//! Paths that no event ever had. Absent is null, so a misspelled path is otherwise silent.

use std::fmt;
use std::sync::Arc;

use foldline_api::value::Value;

use super::{Prepared, Projection};
use crate::event::{Event, Kind};

/// After this many events of a handler, the paths that none of them had are told.
pub const EVENTS_WATCHED: u32 = 10_000;

/// Counts, per handler, which of the event paths that it names were ever there.
#[derive(Debug)]
pub struct Coverage {
    handlers: Vec<Watched>,
    /// Handlers still watched: at 0 observing costs nothing.
    open: usize,
}

#[derive(Debug)]
struct Watched {
    events: u32,
    open: bool,
    /// Paths that were not there yet.
    missing: Vec<Vec<Arc<str>>>,
}

/// The paths that a handler names and its first events never had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeverSeen {
    /// The handler, as messages call it.
    pub handler: String,
    /// Its paths, as expressions spell them.
    pub paths: Vec<String>,
    /// How many events were looked at.
    pub events: u32,
}

impl fmt::Display for NeverSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NeverSeen { handler, paths, events } = self;
        write!(f, "none of the first {events} events of {handler} had {}", paths.join(", "))?;
        f.write_str(": what is absent is null, so check the spelling")
    }
}

impl Coverage {
    /// Watches every handler that names a path of the event.
    #[must_use]
    pub fn new(projection: &Projection) -> Self {
        let watched = projection.handlers.iter().map(|handler| {
            let key = if handler.key.is_none() { projection.key.as_slice() } else { &[] };
            let mut missing: Vec<Vec<Arc<str>>> = Vec::new();
            for path in handler.expressions().chain(key).flat_map(|e| e.event_path_names()) {
                if !path.is_empty() && !missing.iter().any(|known| known == path) {
                    missing.push(path.to_vec());
                }
            }
            Watched { events: 0, open: !missing.is_empty(), missing }
        });
        let handlers: Vec<Watched> = watched.collect();
        let open = handlers.iter().filter(|watched| watched.open).count();
        Coverage { handlers, open }
    }

    /// Whether a handler that the event reached is still watched. Once all are told of, this is all that an
    /// event costs.
    #[must_use]
    pub fn watches(&self, prepared: &Prepared) -> bool {
        self.open > 0 && prepared.handlers().any(|at| self.handlers.get(at).is_some_and(|w| w.open))
    }

    /// Looks at one event; returns what there is to warn of, once per handler.
    pub fn observe(
        &mut self,
        projection: &Projection,
        event: &Event,
        prepared: &Prepared,
    ) -> Vec<NeverSeen> {
        let mut told = Vec::new();
        if self.open == 0 || event.kind != Kind::Plain {
            return told;
        }
        let mut last = None;
        for at in prepared.handlers() {
            // The runs of one handler, for its items, stand together: the event counts once.
            if last.replace(at) == Some(at) {
                continue;
            }
            let Some(watched) = self.handlers.get_mut(at).filter(|watched| watched.open) else {
                continue;
            };
            watched.events += 1;
            watched.missing.retain(|path| !has(projection, event, path));
            let done = watched.missing.is_empty() || watched.events >= EVENTS_WATCHED;
            if !done {
                continue;
            }
            watched.open = false;
            self.open -= 1;
            let Some(handler) = projection.handlers.get(at).filter(|_| !watched.missing.is_empty())
            else {
                continue;
            };
            let expressions = handler.expressions().chain(&projection.key);
            let named: Vec<(String, &[Arc<str>])> = expressions
                .flat_map(|e| e.event_paths().into_iter().zip(e.event_path_names()))
                .collect();
            let spelled = |path: &Vec<Arc<str>>| {
                let found = named.iter().find(|(_, names)| names == path);
                found.map_or_else(|| path.join("."), |(spelled, _)| spelled.clone())
            };
            told.push(NeverSeen {
                handler: handler.label.clone(),
                paths: watched.missing.iter().map(spelled).collect(),
                events: watched.events,
            });
        }
        told
    }
}

/// Whether the event has the path, be it null.
fn has(projection: &Projection, event: &Event, path: &[Arc<str>]) -> bool {
    if path.first().is_some_and(|name| event.unavailable.contains(name)) {
        return true;
    }
    let Some((slot, depth)) = projection.mask().locate(path) else { return false };
    let Some(Some(value)) = event.slots.get(slot) else { return false };
    let mut value = value;
    for name in path.get(depth..).unwrap_or_default() {
        match value {
            Value::Map(map) => match map.get(name) {
                Some(inner) => value = inner,
                None => return false,
            },
            _ => return false,
        }
    }
    true
}
