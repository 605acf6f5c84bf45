//! What can only be checked over all projections.

use foldline_api::column::ColumnType;
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

/// Gives children that are looked up the folded fields of the other projection, and an index to the column there by which
/// they are found. What cannot be is told by [`check_projections`].
pub fn resolve_children(all: &mut All) {
    let mut found = Vec::new();
    for (name, projection) in all.iter() {
        for (column, field) in &projection.fields {
            let config = &field.value;
            let other = config.lookup.as_ref().filter(|_| config.ty == "children");
            let Some(other) = other.and_then(|other| all.get(other)) else { continue };
            let fields = other.fields.iter().filter(|(_, field)| is_child_field(&field.value));
            let child = |(name, field): (&String, &Located<FieldConfig>)| {
                let value = FieldConfig::plain(field.value.ty.clone());
                (name.clone(), Located { path: field.path.clone(), value })
            };
            let fields: IndexMap<String, Located<FieldConfig>> = fields.map(child).collect();
            found.push((name.clone(), column.clone(), fields));
        }
    }
    for (name, column, fields) in found {
        let Some(field) = all.get_mut(&name).and_then(|it| it.fields.get_mut(&column)) else {
            continue;
        };
        field.value.fields = fields;
        let Some((other, via)) = field.value.lookup.clone().zip(field.value.via.clone()) else {
            continue;
        };
        let there = all.get_mut(&other).and_then(|other| other.fields.get_mut(&via));
        // A key has its own.
        if let Some(there) = there {
            there.value.index = true;
        }
    }
}

fn is_child_field(field: &FieldConfig) -> bool {
    field.lookup.is_none() && field.computed.is_none() && field.ty != "children"
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
            children_lookup_fault(all, projection, &field.value)
        } else {
            lookup_fault(all, projection, &field.value)
        };
        let message = message.or_else(|| Some(("lookup", cycle(all, projection, &field.value)?)));
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
    let Some(there) = other.fields.get(shown).map(|field| &field.value) else {
        return Some(("lookup", unknown("field", shown, other.fields.keys())));
    };
    if there.lookup.is_some() {
        return Some(("lookup", format!("`{lookup}` is looked up itself")));
    }
    if there.computed.is_some() && looks_up(other) {
        let message =
            format!("`{lookup}` may be computed from what `{name}` looks up: show a folded field");
        return Some(("lookup", message));
    }
    if there.ty == "children" || !same_type(&field.ty, &there.ty) {
        let message = format!("found `{}`, and `{lookup}` is `{}`", field.ty, there.ty);
        return Some(("type", message));
    }
    if other.key.len() != 1 {
        return Some(("lookup", format!("`{name}` has a composite key, and `via` is one column")));
    }
    let via = field.via.as_deref()?;
    let folded = |f: &&Located<FieldConfig>| f.value.lookup.is_none() && f.value.computed.is_none();
    let Some(here) = projection.fields.get(via).filter(folded) else {
        return Some(("via", unknown("folded field", via, folded_names(&projection.fields))));
    };
    let (key, _) = other.key.first()?;
    let key_type = &other.fields.get(key)?.value.ty;
    let message = || {
        format!(
            "`{via}` is `{}`, and the key of `{name}` is `{key_type}`: give both one type",
            here.value.ty
        )
    };
    (!same_type(&here.value.ty, key_type)).then(|| ("via", message()))
}

fn looks_up(projection: &ProjectionConfig) -> bool {
    projection.fields.values().any(|field| field.value.lookup.is_some())
}

fn same_type(one: &str, other: &str) -> bool {
    match (ColumnType::parse(one), ColumnType::parse(other)) {
        (Ok(one), Ok(other)) => one == other,
        // What is wrong with a type is told where it stands.
        _ => true,
    }
}

/// The projection that a field looks up.
fn looked_up(field: &FieldConfig) -> Option<&str> {
    let lookup = field.lookup.as_deref()?;
    Some(lookup.split_once('.').map_or(lookup, |(name, _)| name))
}

/// The way from what a field looks up back to its own projection, if there is one.
fn cycle(all: &All, projection: &ProjectionConfig, field: &FieldConfig) -> Option<String> {
    let mut ways = vec![vec![looked_up(field)?]];
    let mut seen: Vec<&str> = Vec::new();
    while let Some(way) = ways.pop() {
        let last = *way.last()?;
        if last == projection.name {
            let names: Vec<String> = way.iter().map(|name| format!("`{name}`")).collect();
            return Some(format!(
                "lookups lead back: `{}` looks up {}",
                projection.name,
                names.join(", which looks up ")
            ));
        }
        if seen.contains(&last) {
            continue;
        }
        seen.push(last);
        let Some(next) = all.get(last) else { continue };
        ways.extend(next.fields.values().filter_map(|field| {
            let next = looked_up(&field.value)?;
            Some(way.iter().copied().chain(std::iter::once(next)).collect())
        }));
    }
    None
}

/// `lookup = "books", via = "author_id"` on children.
fn children_lookup_fault(all: &All, own: &ProjectionConfig, field: &FieldConfig) -> Fault {
    let name = field.lookup.as_deref()?;
    let Some(other) = all.get(name) else {
        return Some(("lookup", unknown("projection", name, all.keys())));
    };
    let via = field.via.as_deref()?;
    let there = other.fields.get(via).map(|field| &field.value);
    let Some(there) = there.filter(|there| is_child_field(there)) else {
        return Some(("via", unknown("folded field", via, folded_names(&other.fields))));
    };
    let by = field.by.as_deref()?;
    if !other.fields.contains_key(by) {
        return Some(("by", unknown("field", by, other.fields.keys())));
    }
    if other.key.len() != 1 {
        return Some(("lookup", format!("`{name}` has a composite key, and `by` is one field")));
    }
    let (key, _) = other.key.first()?;
    if by != key {
        return Some((
            "by",
            format!(
                "found `{by}`, and the key of `{name}` is `{key}`: children that are looked up have that key"
            ),
        ));
    }
    if own.key.len() != 1 {
        let message =
            format!("`{}` has a composite key, and `{name}.{via}` is one field", own.name);
        return Some(("via", message));
    }
    let (own_key, _) = own.key.first()?;
    let own_type = &own.fields.get(own_key)?.value.ty;
    let message = || {
        format!(
            "`{name}.{via}` is `{}`, and the key of `{}` is `{own_type}`: give both one type",
            there.ty, own.name
        )
    };
    (!same_type(&there.ty, own_type)).then(|| ("via", message()))
}

fn folded_names(
    fields: &IndexMap<String, Located<FieldConfig>>,
) -> impl Iterator<Item = &String> + Clone {
    let folded = |f: &FieldConfig| f.lookup.is_none() && f.computed.is_none();
    fields.iter().filter(move |(_, field)| folded(&field.value)).map(|(name, _)| name)
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
