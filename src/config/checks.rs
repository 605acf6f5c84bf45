//! What can only be checked over the whole config.

use std::collections::BTreeMap;

use super::connector::{OnBadRecord, Start};
use super::diagnostic::{Diagnostic, closest, join, listed};
use super::load::Config;
use super::names::is_topic;
use super::projection::{FieldConfig, Located, ProjectionConfig};
use super::projections::covers;
use super::sink::SinkKind;

pub(super) fn check(config: &Config) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    check_targets(config, &mut problems);
    check_groups(config, &mut problems);
    check_dead_letters(config, &mut problems);
    check_state_of(config, &mut problems);
    for projection in config.projections.values() {
        check_lookups(config, projection, &mut problems);
        check_test_topics(config, projection, &mut problems);
    }
    check_looked_up_run(config, &mut problems);
    problems
}

fn key_of(name: &str, key: &str) -> String {
    join(&join("connectors", name), key)
}

/// A table, index or topic has one writer.
fn check_targets(config: &Config, problems: &mut Vec<Diagnostic>) {
    let mut taken: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for connector in config.connectors.values() {
        let target = (connector.sink.as_str(), connector.target.as_str());
        let Some(first) = taken.insert(target, &connector.name) else { continue };
        let key = config.sinks.get(&connector.sink).map_or("table", |sink| sink.kind.target_key());
        let message = format!(
            "the connector `{first}` already writes {:?} of the sink `{}`",
            connector.target, connector.sink
        );
        let help = format!("{key} = {:?}", format!("{}_2", connector.target));
        problems.push(config.places.problem(&key_of(&connector.name, key), message).help(help));
    }
}

fn check_groups(config: &Config, problems: &mut Vec<Diagnostic>) {
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for connector in config.connectors.values() {
        // The rebuild's group is the connector's own as well.
        for group in [connector.group.clone(), format!("{}.rebuild", connector.group)] {
            if let Some(first) = taken.get(&group) {
                let message = format!("the connector `{first}` already uses the group {group:?}");
                let path = key_of(&connector.name, "group");
                problems.push(config.places.problem(&path, message));
                break;
            }
            taken.insert(group, &connector.name);
        }
    }
}

/// Dead letters that come back as records would go round for ever.
fn check_dead_letters(config: &Config, problems: &mut Vec<Diagnostic>) {
    for connector in config.connectors.values() {
        let Some(projection) = config.projections.get(&connector.projection) else { continue };
        let topic = &connector.errors.dead_letter_topic;
        if !is_topic(topic) {
            let message = format!("dead letters would go to {topic:?}, which is no topic's name");
            let help = "errors = { dead_letter_topic = \"dead-letters\" }";
            problems
                .push(config.places.problem(&key_of(&connector.name, "group"), message).help(help));
            continue;
        }
        let sends =
            matches!(connector.errors.on_bad_record, OnBadRecord::DeadLetter | OnBadRecord::Park);
        if sends && covers(&projection.topics, topic) {
            let path = format!("{}.dead_letter_topic", key_of(&connector.name, "errors"));
            let message = format!(
                "dead letters would go to {topic:?}, which the projection `{}` reads",
                projection.name
            );
            problems.push(config.places.problem(&path, message));
        }
    }
}

fn check_state_of(config: &Config, problems: &mut Vec<Diagnostic>) {
    for connector in config.connectors.values() {
        let Start::StateOf(of) = &connector.start else { continue };
        let Some(other) = config.connectors.get(of) else { continue };
        let kind = config.sinks.get(&other.sink).map(|sink| &sink.kind);
        let path = format!("{}.state_of", key_of(&connector.name, "start"));
        if kind.is_some_and(|kind| !matches!(kind, SinkKind::Kafka { .. })) {
            let message = format!("the connector `{of}` writes no state topic");
            problems.push(config.places.problem(&path, message));
        } else if other.projection != connector.projection {
            let message =
                format!("the connector `{of}` runs the projection `{}`", other.projection);
            problems.push(config.places.problem(&path, message));
        }
    }
}

fn check_lookups(config: &Config, projection: &ProjectionConfig, problems: &mut Vec<Diagnostic>) {
    let looked_up = projection.fields.values().filter(|field| field.value.lookup.is_some());
    for field in looked_up {
        let message = if field.value.ty == "children" {
            children_lookup_fault(config, &field.value)
        } else {
            lookup_fault(config, projection, &field.value)
        };
        if let Some((key, message)) = message {
            let path = format!("{}.{key}", field.path);
            problems.push(config.places.problem(&path, message));
        }
    }
}

type Fault = Option<(&'static str, String)>;

/// `lookup = "authors.name", via = "author_id"`.
fn lookup_fault(config: &Config, projection: &ProjectionConfig, field: &FieldConfig) -> Fault {
    let lookup = field.lookup.as_deref()?;
    let Some((name, shown)) = lookup.split_once('.') else {
        return Some(("lookup", format!("found {lookup:?}, expected `projection.field`")));
    };
    let Some(other) = config.projections.get(name) else {
        return Some(("lookup", unknown("projection", name, config.projections.keys())));
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
fn children_lookup_fault(config: &Config, field: &FieldConfig) -> Fault {
    let name = field.lookup.as_deref()?;
    let Some(other) = config.projections.get(name) else {
        return Some(("lookup", unknown("projection", name, config.projections.keys())));
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
    fields: &indexmap::IndexMap<String, Located<FieldConfig>>,
) -> impl Iterator<Item = &String> + Clone {
    fields.iter().filter(|(_, field)| field.value.lookup.is_none()).map(|(name, _)| name)
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a String> + Clone) -> String {
    let near = closest(name, known.clone().map(String::as_str));
    let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    format!("{name:?} is no {what}; there are {}{near}", listed(known.map(String::as_str)))
}

/// A test's topic is one that some projection reads: lookups' records are given as well.
fn check_test_topics(
    config: &Config,
    projection: &ProjectionConfig,
    problems: &mut Vec<Diagnostic>,
) {
    for record in projection.tests.iter().flat_map(|test| &test.value.given) {
        let Some(topic) = &record.value.topic else { continue };
        if config.projections.values().any(|other| covers(&other.topics, topic)) {
            continue;
        }
        let path = format!("{}.topic", record.path);
        let message = format!("{topic:?} is none of the topics that projections read");
        problems.push(config.places.problem(&path, message));
    }
}

/// What a connector's projection looks up must run into the same sink.
fn check_looked_up_run(config: &Config, problems: &mut Vec<Diagnostic>) {
    for connector in config.connectors.values() {
        let Some(projection) = config.projections.get(&connector.projection) else { continue };
        for field in projection.fields.values() {
            let Some(lookup) = &field.value.lookup else { continue };
            let wanted = lookup.split_once('.').map_or(lookup.as_str(), |(name, _)| name);
            let runs = config
                .connectors
                .values()
                .any(|other| other.sink == connector.sink && other.projection == wanted);
            if runs || !config.projections.contains_key(wanted) {
                continue;
            }
            let message = format!(
                "`{}` looks up `{wanted}`, which no connector runs into the sink `{}`",
                projection.name, connector.sink
            );
            let help = format!(
                "[connectors.{wanted}-for-{}]\nprojection = {wanted:?}\nsink = {:?}",
                connector.name, connector.sink
            );
            let path = key_of(&connector.name, "projection");
            problems.push(config.places.problem(&path, message).help(help));
        }
    }
}
