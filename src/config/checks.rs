//! What can only be checked over the whole config.

use std::collections::BTreeMap;

use foldline_language::config::checks::check_projections;
use foldline_language::config::diagnostic::{Diagnostic, join};
use foldline_language::config::names::covers;
use foldline_language::config::projection::Names;
use foldline_language::config::sink::TargetKey;

use super::connector::{OnBadRecord, Start};
use super::load::Config;
use super::names::is_topic;
use super::schema_topics;
use super::sink::Store;
use super::source::SourceKind;

pub(super) fn check(config: &Config) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    check_targets(config, &mut problems);
    check_groups(config, &mut problems);
    check_topics(config, &mut problems);
    check_dead_letters(config, &mut problems);
    check_state_of(config, &mut problems);
    check_state_topics(config, &mut problems);
    schema_topics::check(config, &mut problems);
    check_projections(&config.projections, &config.places, &mut problems);
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
        let key = config.sinks.get(&connector.sink).and_then(|sink| sink.store.target_key());
        let key = key.map_or("table", TargetKey::name);
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

/// Topics of Kafka that can never be there.
fn check_topics(config: &Config, problems: &mut Vec<Diagnostic>) {
    let mut seen = Vec::new();
    for connector in config.connectors.values() {
        let is_kafka = config
            .sources
            .get(&connector.source)
            .is_some_and(|source| matches!(source.kind, SourceKind::Kafka { .. }));
        let Some(projection) = config.projections.get(&connector.projection) else { continue };
        let Names::List(names) = &projection.topics else { continue };
        if !is_kafka || seen.contains(&&projection.name) {
            continue;
        }
        seen.push(&projection.name);
        for name in names.iter().filter(|name| !is_topic(name) && !name.contains("${")) {
            let message = format!(
                "{name:?} is no topic's name: letters, digits, `.`, `_` and `-`, at most 249 bytes"
            );
            let path = format!("{}.topics", join("projections", &projection.name));
            let regex = name.replace('.', "\\.").replace('*', ".*");
            let help = format!(
                "a regex starts with ^ and stands alone: topics = {:?}",
                format!("^{regex}$")
            );
            problems.push(config.places.problem(&path, message).help(help));
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

/// One task writes a state topic, and it does not read what it writes.
fn check_state_topics(config: &Config, problems: &mut Vec<Diagnostic>) {
    for connector in config.connectors.values() {
        let store = config.sinks.get(&connector.sink).map(|sink| &sink.store);
        let Some(Store::Kafka(sink)) = store else { continue };
        if connector.tasks_max > 1 {
            let message = "a state topic has one writer: several tasks would write a key that several partitions feed in any \
                           order";
            let path = key_of(&connector.name, "tasks_max");
            problems.push(config.places.problem(&path, message).help("tasks_max = 1"));
        }
        let source = config.sources.get(&connector.source).map(|source| &source.kind);
        let Some(SourceKind::Kafka { bootstrap_servers, .. }) = source else { continue };
        let Some(projection) = config.projections.get(&connector.projection) else { continue };
        if *bootstrap_servers == sink.bootstrap_servers
            && covers(&projection.topics, &connector.target)
        {
            let path = key_of(&connector.name, "topic");
            let message = format!(
                "states would go to {:?}, which the projection `{}` reads",
                connector.target, projection.name
            );
            problems.push(config.places.problem(&path, message));
        }
    }
}

fn check_state_of(config: &Config, problems: &mut Vec<Diagnostic>) {
    for connector in config.connectors.values() {
        let Start::StateOf(of) = &connector.start else { continue };
        let Some(other) = config.connectors.get(of) else { continue };
        let store = config.sinks.get(&other.sink).map(|sink| &sink.store);
        let path = format!("{}.state_of", key_of(&connector.name, "start"));
        if store.is_some_and(|store| !matches!(store, Store::Kafka(_))) {
            let message = format!("the connector `{of}` writes no state topic");
            problems.push(config.places.problem(&path, message));
        } else if other.projection != connector.projection {
            let message =
                format!("the connector `{of}` runs the projection `{}`", other.projection);
            problems.push(config.places.problem(&path, message));
        }
    }
}

/// What a connector's projection looks up must run into the same sink.
fn check_looked_up_run(config: &Config, problems: &mut Vec<Diagnostic>) {
    for connector in config.connectors.values() {
        let Some(projection) = config.projections.get(&connector.projection) else { continue };
        for field in projection.fields.values() {
            let Some(lookup) = &field.value.lookup else { continue };
            let wanted = lookup.split_once('.').map_or(lookup.as_str(), |(name, _)| name);
            let mut runs = config
                .connectors
                .values()
                .filter(|other| other.sink == connector.sink && other.projection == wanted);
            let (first, second) = (runs.next(), runs.next());
            let path = key_of(&connector.name, "projection");
            if let (Some(first), Some(second)) = (first, second) {
                let message = format!(
                    "`{}` looks up `{wanted}`, which the connectors `{}` and `{}` run into the sink `{}`: there must be one",
                    projection.name, first.name, second.name, connector.sink
                );
                problems.push(config.places.problem(&path, message));
                break;
            }
            if first.is_some() || !config.projections.contains_key(wanted) {
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
            problems.push(config.places.problem(&path, message).help(help));
            break;
        }
    }
}
