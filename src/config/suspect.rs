//! What a config says and hardly means: warnings, since it may be meant.

use foldline_language::config::diagnostic::{Diagnostic, join};
use foldline_language::config::projection::{Names, ProjectionConfig};

use super::load::Config;

/// Operators that stand in expressions, and in no event's name.
const OPERATORS: [&str; 6] = ["==", "!=", "&&", "||", ">=", "<="];

/// What is silently something else than it looks like.
pub fn suspects(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if config.connectors.is_empty() {
        let problem = config.places.problem("connectors", "there is none, so nothing is folded");
        let help = "[connectors.orders]\nprojection = \"orders\"\nsink = \"warehouse\"";
        found.push(problem.warning().help(help));
    }
    for projection in config.projections.values() {
        quoted_defaults(config, projection, &mut found);
        events_that_are_expressions(config, projection, &mut found);
    }
    found
}

/// A text in quotes of its own, as expressions have it.
fn quoted_defaults(config: &Config, projection: &ProjectionConfig, found: &mut Vec<Diagnostic>) {
    for field in projection.fields.values() {
        let Some(text) = field.value.default.as_ref().and_then(toml::Value::as_str) else {
            continue;
        };
        let inner = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
        let Some(inner) = inner.filter(|inner| !inner.is_empty()) else { continue };
        let path = format!("{}.default", field.path);
        let message = "a default is a value and no expression: new rows get the quotes too";
        let help = format!("default = {inner:?}");
        found.push(config.places.problem(&path, message).warning().help(help));
    }
}

/// An event's name that is written as a condition.
fn events_that_are_expressions(
    config: &Config,
    projection: &ProjectionConfig,
    found: &mut Vec<Diagnostic>,
) {
    for handler in &projection.on {
        let Some(Names::List(names)) = &handler.value.event else { continue };
        let reads = |name: &&String| OPERATORS.iter().any(|operator| name.contains(operator));
        let Some(name) = names.iter().find(reads) else { continue };
        let path = join(&handler.path, "event");
        let message = format!("{name:?} is the name of an event here, and reads as an expression");
        let help = format!("when = {name:?}");
        found.push(config.places.problem(&path, message).warning().help(help));
    }
}

#[cfg(test)]
mod tests {
    use foldline_language::config::env::Env;

    use super::*;

    const CONFIG: &str = r#"
[sources.events]
type = "kafka"
bootstrap_servers = "localhost:9092"
[projections.o]
topics = ["orders"]
key = { id = "event.id" }
fields = { id = "bigint", n = { type = "bigint", default = 0 } }
on = [{ event = "A", add = { n = 1 } }]
[sinks.w]
type = "sqlite"
path = "w.db"
[connectors.o]
projection = "o"
sink = "w"
"#;

    /// What is said of the config with `old` as `new`.
    fn told(old: &str, new: &str) -> String {
        assert!(CONFIG.contains(old), "{old}");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        std::fs::write(&file, CONFIG.replace(old, new)).unwrap();
        let found = match crate::config::load(&file, &Env::default()) {
            Ok(config) => suspects(&config),
            Err(problems) => problems,
        };
        found.iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn what_is_silently_something_else_is_told_with_a_way_out() {
        assert_eq!(told("localhost", "kafka"), "");
        for (old, new, words) in [
            (
                "[connectors.o]\nprojection = \"o\"\nsink = \"w\"",
                "",
                &["so nothing is folded", "[connectors."][..],
            ),
            ("default = 0", "default = \"'0'\"", &["no expression", "default = \"0\""]),
            (
                "event = \"A\"",
                "event = \"event.type == 'A'\"",
                &["reads as an expression", "when = "],
            ),
            ("[\"orders\"]", "[\"abc-*\"]", &["no topic's name", "topics = \"^abc-.*$\""]),
            ("localhost:9092", "http://localhost:9092", &["is a URL", "kafka-1:9092"]),
            ("localhost:9092", "localhost:99999", &["no port between"]),
            (
                "[projections.o]\n",
                "[sources.events.properties]\n\"securty.protocol\" = \"ssl\"\n[projections.o]\n",
                &["no such property", "did you mean `security.protocol`?", "c.toml:6"],
            ),
            ("add = { n", "increment = { n", &["unknown key", "`add = { n = 1 }` counts"]),
            (
                "on = [{ event = \"A\", add = { n = 1 } }]",
                "[projections.o.on]\nevent = \"A\"\n[projections.o.on]\nevent = \"B\"",
                &["duplicate key", "[[projections.NAME.on]]"],
            ),
        ] {
            let told = told(old, new);
            for word in words {
                assert!(told.contains(word), "{word} in: {told}");
            }
        }
    }
}
