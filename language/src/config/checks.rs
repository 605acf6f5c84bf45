//! What can only be checked over all projections.

use indexmap::IndexMap;

use super::diagnostic::{Diagnostic, closest, listed};
use super::names::covers;
use super::places::Places;
use super::projection::{FieldConfig, Located, ProjectionConfig};

type All = IndexMap<String, ProjectionConfig>;

/// The problems found so far, and where each is told.
struct Problems<'a> {
    places: &'a Places,
    found: &'a mut Vec<Diagnostic>,
}

impl Problems<'_> {
    fn push(&mut self, path: &str, message: String) {
        self.found.push(self.places.problem(path, message));
    }
}

/// Checks lookups, and the topics that tests name.
pub fn check_projections(all: &All, places: &Places, found: &mut Vec<Diagnostic>) {
    let mut problems = Problems { places, found };
    for projection in all.values() {
        check_lookups(all, projection, &mut problems);
        check_test_topics(all, projection, &mut problems);
    }
}

fn check_lookups(all: &All, projection: &ProjectionConfig, problems: &mut Problems<'_>) {
    let looked_up = projection.fields.values().filter(|field| field.value.lookup.is_some());
    for field in looked_up {
        let message = if field.value.ty == "children" {
            children_lookup_fault(all, &field.value)
        } else {
            lookup_fault(all, projection, &field.value)
        };
        if let Some((key, message)) = message {
            let path = format!("{}.{key}", field.path);
            problems.push(&path, message);
        }
    }
}

type Fault = Option<(&'static str, String)>;

/// `lookup = "authors.name", via = "author_id"`.
fn lookup_fault(all: &All, projection: &ProjectionConfig, field: &FieldConfig) -> Fault {
    let lookup = field.lookup.as_deref()?;
    let Some((name, shown)) = lookup.split_once('.') else {
        return Some(("lookup", format!("found {lookup:?}, expected `projection.field`")));
    };
    let Some(other) = all.get(name) else {
        return Some(("lookup", unknown("projection", name, all.keys())));
    };
    match other.fields.get(shown).map(|field| &field.value) {
        None => return Some(("lookup", unknown("field", shown, other.fields.keys()))),
        Some(shown) if shown.lookup.is_some() => {
            return Some(("lookup", format!("`{lookup}` is looked up itself")));
        }
        Some(_) => {}
    }
    if other.key.len() != 1 {
        return Some(("lookup", format!("`{name}` has a composite key, and `via` is one column")));
    }
    let via = field.via.as_deref()?;
    let folded = projection.fields.get(via).is_some_and(|field| field.value.lookup.is_none());
    (!folded).then(|| ("via", unknown("folded field", via, folded_names(&projection.fields))))
}

/// `lookup = "books", via = "author_id"` on children.
fn children_lookup_fault(all: &All, field: &FieldConfig) -> Fault {
    let name = field.lookup.as_deref()?;
    let Some(other) = all.get(name) else {
        return Some(("lookup", unknown("projection", name, all.keys())));
    };
    let via = field.via.as_deref()?;
    if other.fields.get(via).is_none_or(|field| field.value.lookup.is_some()) {
        return Some(("via", unknown("folded field", via, folded_names(&other.fields))));
    }
    let by = field.by.as_deref()?;
    let known = other.fields.contains_key(by);
    (!known).then(|| ("by", unknown("field", by, other.fields.keys())))
}

fn folded_names(
    fields: &IndexMap<String, Located<FieldConfig>>,
) -> impl Iterator<Item = &String> + Clone {
    fields.iter().filter(|(_, field)| field.value.lookup.is_none()).map(|(name, _)| name)
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a String> + Clone) -> String {
    let near = closest(name, known.clone().map(String::as_str));
    let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    format!("{name:?} is no {what}; there are {}{near}", listed(known.map(String::as_str)))
}

/// A test's topic is one that some projection reads: lookups' records are given as well.
fn check_test_topics(all: &All, projection: &ProjectionConfig, problems: &mut Problems<'_>) {
    for record in projection.tests.iter().flat_map(|test| &test.value.given) {
        let Some(topic) = &record.value.topic else { continue };
        if all.values().any(|other| covers(&other.topics, topic)) {
            continue;
        }
        let path = format!("{}.topic", record.path);
        let message = format!("{topic:?} is none of the topics that projections read");
        problems.push(&path, message);
    }
}
