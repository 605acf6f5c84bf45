//! The projection: the pure fold, event by event, from state to state.
//!
//! In reading order: `compile` and `actions` (config to [`Projection`], every semantic check), `handler` (what a
//! handler is made of), `prepare` (which handlers and keys an event reaches), `fold` (what becomes of
//! their states), `shown` (what other rows lend to one), `blame` (which rows a bad event would have touched), `ops` (what each verb does to one field), [`test`](mod@test) (`foldline test`), `describe` (what `plan` says), `expire` (what the clock deletes)
//! and `coverage` (paths that no event ever had). No I/O and no clock: the same events give the same
//! rows, however they are batched.

mod actions;
mod blame;
mod compile;
mod coverage;
mod describe;
mod expire;
mod fold;
mod handler;
mod json;
mod literal;
mod matcher;
mod ops;
mod prepare;
mod shown;
pub mod test;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use foldline_api::expiry::Rule;
use foldline_api::model::{Model, Row};
use indexmap::IndexMap;
use serde_json::Value as Json;

pub use coverage::{Coverage, EVENTS_WATCHED, NeverSeen};
pub use describe::Description;
pub use fold::{BadRecord, Effects, StateRef, States, Touched};
pub use prepare::Prepared;
pub use shown::{Gathered, Show, joins};

use crate::config::diagnostic::Diagnostic;
use crate::config::places::Places;
use crate::config::projection::ProjectionConfig;
use crate::config::topic_facts::SourceFacts;
use crate::converter::envelope::Opener;
use crate::event::{Layout, Mask};
use crate::expr::Expr;
use handler::{Dispatch, Handler};
use matcher::Matcher;

/// What is wrong with a projection, for the place in the config that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted key path, as in [`Located`](crate::config::projection::Located).
    pub path: String,
    /// What was found, and what is allowed.
    pub message: String,
    /// How to put it right.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Compiles all projections of a config.
///
/// # Errors
/// Everything that is wrong, with file, line and key path.
pub fn compile(
    projections: &IndexMap<String, ProjectionConfig>,
    places: &Places,
) -> Result<IndexMap<String, Arc<Projection>>, Vec<Diagnostic>> {
    let mut compiled = IndexMap::new();
    let mut diagnostics = Vec::new();
    for (name, projection) in projections {
        match Projection::compile(projection) {
            Ok(projection) => {
                compiled.insert(name.clone(), Arc::new(projection));
            }
            Err(problems) => diagnostics.extend(problems.into_iter().map(|problem| {
                let diagnostic = places.problem(&problem.path, problem.message);
                match problem.help {
                    Some(help) => diagnostic.help(help),
                    None => diagnostic,
                }
            })),
        }
    }
    if diagnostics.is_empty() { Ok(compiled) } else { Err(diagnostics) }
}

/// A compiled projection.
#[derive(Debug)]
pub struct Projection {
    name: Arc<str>,
    model: Arc<Model>,
    topics: Matcher,
    event_type: Option<Expr>,
    /// In the order of `model.key`, as every handler's own key.
    key: Vec<Expr>,
    handlers: Vec<Handler>,
    dispatch: Dispatch,
    /// Column and expression, in column order: of those that are computed from folded ones.
    computed: Vec<(usize, Expr)>,
    /// The same of those that are computed from shown ones, which the fold leaves null.
    computed_of_shown: Vec<(usize, Expr)>,
    /// What is shown of other projections' rows.
    shows: Vec<Show>,
    /// The columns that hold other projections' rows as children.
    gathers: Vec<Gathered>,
    /// Whether some handler reads a computed column: then it must be fresh between handlers too.
    computed_is_read: bool,
    /// What a new row holds before its key is filled in.
    blank: Row,
    layout: Layout,
    /// What its envelope is opened by: where `before` is not believed, and where it is.
    openers: Option<[Arc<Opener>; 2]>,
    /// What sources say of its topics.
    sources: Vec<SourceFacts>,
    reads_key: bool,
    json: Json,
    fingerprint: String,
    rule: Option<Rule>,
}

impl Projection {
    /// Its name in the config.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The read model that a sink stores.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What it reads of each event: what a converter decodes, where the event has no envelope.
    #[must_use]
    pub fn mask(&self) -> &Mask {
        &self.layout.event
    }

    /// What takes the envelope off records of `topic`, or of topics that one regex of the source means; none where it has
    /// none.
    #[must_use]
    pub fn opener(&self, topic: &str) -> Option<&Arc<Opener>> {
        let [doubted, believed] = self.openers.as_ref()?;
        Some(if is_full(&self.sources, topic) { believed } else { doubted })
    }

    /// Whether the record's key is read, by some expression or as what was deleted.
    #[must_use]
    pub fn reads_key(&self) -> bool {
        self.reads_key
    }

    /// How many slots an event has.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.layout.slots
    }

    /// SHA-256 of [`Projection::projection_json`], in hex: equal for two configs that fold the same.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The projection in its stable JSON form: all that decides what is stored, and nothing else
    /// (indexes and tests stay out).
    #[must_use]
    pub fn projection_json(&self) -> &Json {
        &self.json
    }

    /// Whether it folds records of `topic`.
    #[must_use]
    pub fn topics_match(&self, topic: &str) -> bool {
        self.topics.is_match(topic)
    }
}

/// Whether all sources say that `before` is believed.
fn is_full(sources: &[SourceFacts], topic: &str) -> bool {
    !sources.is_empty() && sources.iter().all(|source| source.of(topic).full)
}
