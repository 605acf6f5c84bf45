//! The whole loader: good configs load, wrong ones say what is wrong.

use std::path::{Path, PathBuf};

use foldline_api::secret::Secret;
use foldline_language::config::diagnostic::Diagnostic;
use foldline_language::config::env::Env;
use foldline_language::config::projection;

use super::*;

fn fixture(name: &str) -> PathBuf {
    // Tests run in the package's directory, so messages show the same path everywhere.
    Path::new("tests/fixtures").join(name)
}

fn env() -> Env {
    Env::new([("DATABASE_URL", "postgres://foldline@localhost/app"), ("OTHER_KAFKA", "other:9092")])
}

fn shown(problems: &[Diagnostic]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

fn loaded(text: &str, env: &Env) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, text).unwrap();
    let prefix = format!("{}/", directory.path().display());
    load(&file, env).map_err(|problems| shown(&problems).replace(&prefix, ""))
}

fn toml_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

/// Each `NN-name.toml` is wrong, and `NN-name.txt` is what it is told. `BLESS=1` writes the texts.
#[test]
fn wrong_configs_are_told_what_is_wrong() {
    let files = toml_files(&fixture("config-errors"));
    assert!(files.len() >= 30, "{} cases", files.len());
    let mut differing = Vec::new();
    for file in files {
        let found = match load(&file, &env()) {
            Ok(_) => "no problem\n".to_owned(),
            Err(problems) => shown(&problems),
        };
        assert!(!found.contains("hunter2"), "{} shows a password:\n{found}", file.display());
        let expected = file.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&expected, &found).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != found {
            differing.push(format!("{}:\n{found}", file.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn scenario(file: &Path) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "hunter2\n").unwrap();
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.replace("/run/secrets/other-kafka", &secret.display().to_string());
    loaded(&text, &env()).unwrap_or_else(|problems| panic!("{}:\n{problems}", file.display()))
}

#[test]
fn the_scenarios_load_up_to_what_is_left_for_later() {
    let files = toml_files(&fixture("scenarios"));
    assert_eq!(files.len(), 5);
    for file in files {
        let config = scenario(&file);
        assert!(!config.connectors.is_empty());
        for problem in unsupported(&config) {
            let text = problem.to_string();
            assert!(text.contains("not available yet") || text.contains("not created"), "{text}");
            assert!(problem.line.is_some(), "{text}");
        }
    }
}

/// The config that the documentation shows.
#[test]
fn the_reference_config_loads() {
    let config = scenario(&fixture("reference.toml"));
    assert_eq!(config.connectors["orders"].target, "sales.orders");
    assert_eq!(config.projections["orders"].on.len(), 2);
}

#[test]
fn secrets_show_nowhere() {
    let config = scenario(&fixture("scenarios/5-profiles.toml"));
    assert!(!format!("{config:?}").contains("hunter2"));
    let Store::Kafka(sink) = &config.sinks["other-cluster"].store else { panic!("a kafka sink") };
    assert_eq!(sink.properties["sasl.password"].expose(), "hunter2");
}

#[test]
fn orders_reads_as_it_is_written() {
    let config = scenario(&fixture("scenarios/4-orders.toml"));
    let orders = &config.projections["orders"];
    assert_eq!(
        orders.fields.keys().collect::<Vec<_>>(),
        ["id", "user_id", "product_id", "amount", "price", "changes", "updated_at"]
    );
    let handler = &orders.on[0];
    assert_eq!(handler.path, "projections.orders.on[0]");
    let Some(projection::Assignments::Fields(merge)) = &handler.value.merge else {
        panic!("fields")
    };
    assert_eq!(merge["user_id"].path, "projections.orders.on[0].merge.user_id");
    assert_eq!(merge.keys().next_back().map(String::as_str), Some("price"));
    assert_eq!(orders.tests[1].value.bad, 2);
    let connector = &config.connectors["orders-search"];
    assert_eq!((connector.target.as_str(), connector.source.as_str()), ("orders", "events"));
    assert_eq!(connector.group, "orders-orders-search");
    assert_eq!(connector.errors.dead_letter_topic, "dlq-orders-orders-search");
    let flat = connector.flat();
    assert_eq!(flat["batch.bytes"], "8MiB");
    assert_eq!(flat["errors.on_bad_record"], "dead_letter");
    let problem = config.places.problem("projections.orders.fields.price.type", "unknown type");
    assert_eq!(problem.line, Some(22));
}

const SMALL: &str = r#"
[sources.events]
type = "kafka"
bootstrap_servers = "${KAFKA:-localhost:9092}"
[sources.events.topics."^raw-"]
value = "bytes"
[projections.orders]
topics = "^orders$"
key = { id = "event.id" }
fields = { id = "bigint", born = { type = "date", default = 2026-01-01 } }
on = [{ set = { born = 2026-02-03 } }]
[sinks.ware-house]
type = "elasticsearch"
urls = ["http://localhost:9200"]
[connectors.orders]
projection = "orders"
sink = "ware-house"
tasks_max = "${TASKS:-2}"
start = 2026-01-01T00:00:00Z
"#;

#[test]
fn variables_are_read_by_the_type_that_is_wanted() {
    let config = loaded(SMALL, &env()).unwrap();
    assert_eq!(config.connectors["orders"].tasks_max, 2);
    let env = Env::new([
        ("FOLDLINE__CONNECTORS__ORDERS__TASKS_MAX", "7"),
        ("FOLDLINE__CONNECTORS__ORDERS__AUTO_CREATE", "false"),
        ("FOLDLINE__CONNECTORS__ORDERS__BATCH__AGE", "1s"),
        ("FOLDLINE__SINKS__WARE_HOUSE__URLS", "http://a:1, http://b:2"),
        ("FOLDLINE__SINKS__WARE_HOUSE__API_KEY", "hunter2"),
        ("FOLDLINE__WORKER__TOKEN", "a${b}"),
        ("KAFKA", "kafka:9092"),
    ]);
    let config = loaded(SMALL, &env).unwrap();
    let connector = &config.connectors["orders"];
    assert_eq!((connector.tasks_max, connector.auto_create), (7, false));
    assert_eq!(connector.batch.age.as_secs(), 1);
    let sink = format!("{:?}", config.sinks["ware-house"].store.sink().unwrap());
    assert!(sink.contains(r#"["http://a:1", "http://b:2"], api_key: Some("***")"#), "{sink}");
    assert_eq!(config.worker.token.as_ref().map(Secret::expose), Some("a${b}"));
}

#[test]
fn a_wrong_variable_is_named() {
    let env = Env::new([("FOLDLINE__CONNECTORS__ORDERS__TASKS_MAX", "many")]);
    assert_eq!(
        loaded(SMALL, &env).unwrap_err(),
        "$FOLDLINE__CONNECTORS__ORDERS__TASKS_MAX: connectors.orders.tasks_max: found the text \
         \"many\", expected an integer from 1 to 1000\n"
    );
}

#[test]
fn dates_stay_dates_and_topics_find_their_converters() {
    let config = loaded(SMALL, &env()).unwrap();
    let born = config.projections["orders"].fields["born"].value.default.as_ref().unwrap();
    assert!(born.is_datetime());
    assert_eq!(config.connectors["orders"].start, Start::Timestamp(1_767_225_600_000));
    let source = &config.sources["events"];
    assert_eq!(source.converters("raw-x"), (&ConverterKind::Text, &ConverterKind::Bytes));
    assert_eq!(source.converters("orders"), (&ConverterKind::Text, &ConverterKind::Json));
}

#[test]
fn a_directory_is_one_config() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let (sources, rest) = SMALL.split_once("[projections.orders]").unwrap();
    write("a.toml", sources);
    write("b/c.toml", &format!("[projections.orders]{rest}"));
    write(".hidden/d.toml", "= broken");
    write("examples/orders/orders.toml", SMALL);
    write("e.md", "no TOML");
    let config = load(directory.path(), &env()).unwrap();
    assert_eq!(config.connectors.len(), 1);
    write("z.toml", "[sinks.ware-house]\ntype = 'sqlite'\npath = 'a.db'\n");
    let problems = load(directory.path(), &env()).unwrap_err();
    let text = shown(&problems).replace(&format!("{}/", directory.path().display()), "");
    assert_eq!(text, "z.toml:1: sinks.ware-house: given twice; it is also in b/c.toml:6\n");
}

#[test]
fn placeholders_let_a_config_load_without_its_secrets() {
    let text = "[sinks.a]\ntype = 'postgres'\nurl = { env = 'NOT_SET' }\n\
                [sinks.b]\ntype = 'elasticsearch'\nurls = ['${NOT_SET}']\n\
                [worker]\nmemory = '${NOT_SET}'\n";
    assert!(loaded(text, &Env::default()).is_err());
    assert!(loaded(text, &Env::default().with_placeholders()).is_ok());
}

#[test]
fn an_inline_table_may_span_lines() {
    let text = "worker = {\n  name = 'a',\n  memory = '1GiB',\n}\n";
    assert_eq!(loaded(text, &env()).unwrap().worker.memory, 1 << 30);
}

/// A definition of the schema for each kind of table, with the keys that the loader asks for.
#[test]
fn the_schema_knows_the_keys_that_the_loader_knows() {
    let mut known = std::collections::BTreeMap::<String, std::collections::BTreeSet<String>>::new();
    for directory in ["config-errors", "scenarios"] {
        for file in toml_files(&fixture(directory)) {
            for (kind, keys) in load::load_knowing(&file, &env()).1 {
                known
                    .entry(kind.into_owned())
                    .or_default()
                    .extend(keys.iter().map(|k| (*k).to_owned()));
            }
        }
    }
    let schema = json_schema();
    let keys = |schema: &serde_json::Value| {
        schema["properties"].as_object().map(|keys| keys.keys().cloned().collect())
    };
    let definitions = schema["definitions"].as_object().unwrap();
    let mut described: std::collections::BTreeMap<String, _> = definitions
        .iter()
        .filter_map(|(name, schema)| Some((name.clone(), keys(schema)?)))
        .collect();
    described.insert("root".to_owned(), keys(&schema).unwrap());
    assert_eq!(described, known);
}

#[test]
fn every_reference_of_the_schema_leads_somewhere() {
    fn references(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(object) => {
                found.extend(object.get("$ref").and_then(|r| r.as_str()).map(str::to_owned));
                object.values().for_each(|value| references(value, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
    let schema = json_schema();
    let mut found = Vec::new();
    references(&schema, &mut found);
    for reference in found {
        let name = reference.strip_prefix("#/definitions/").unwrap();
        assert!(schema["definitions"].get(name).is_some(), "{reference}");
    }
}

/// Every secret of a config, under a name that nothing else has.
const SECRETS: &str = r#"
[worker]
token = "CANARY"
[registries.r]
type = "confluent"
url = "http://ann:CANARY@localhost:8081"
username = "ann"
password = "CANARY"
[sources.k]
type = "kafka"
bootstrap_servers = "localhost:9092"
[sources.k.properties]
"sasl.password" = "CANARY"
"ssl.key.pem" = """
-----BEGIN PRIVATE KEY-----
CANARY
-----END PRIVATE KEY-----
"""
[sinks.pg]
type = "postgres"
url = "postgres://ann:CANARY@localhost/app?password=CANARY"
[sinks.pairs]
type = "postgres"
url = "host=localhost user=ann password='CANARY'"
[sinks.beside]
type = "postgres"
url = "postgres://ann@localhost/app"
password = "CANARY"
[sinks.es]
type = "elasticsearch"
urls = ["https://ann:CANARY@localhost:9200"]
[sinks.keyed]
type = "elasticsearch"
urls = ["https://localhost:9200"]
api_key = "CANARY"
"#;

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

    /// One or two slips of the hand anywhere, and the secrets stay hidden.
    #[test]
    fn no_diagnostic_shows_a_secret(
        slips in proptest::collection::vec((0..SECRETS.len(), 0..SLIPS.len() + 2), 0..3)
    ) {
        let mut text: Vec<char> = SECRETS.chars().collect();
        for (at, slip) in slips {
            let at = at.min(text.len() - 1);
            match SLIPS.get(slip) {
                Some(written) => text.splice(at..at, written.chars()).for_each(drop),
                None if slip == SLIPS.len() => drop(text.remove(at)),
                None => {
                    let next = (at + 1) % text.len();
                    text.swap(at, next);
                }
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(told) = loaded(&text, &env()) {
            proptest::prop_assert!(!told.contains("CANARY"), "{told}\nof\n{text}");
        }
    }
}

const SLIPS: [&str; 14] =
    ["\"", "'", "[", "]", "{", "}", "=", "\n", "#", "\\", ",", " ", "${", "@"];

#[test]
fn a_value_in_the_wrong_place_is_not_shown() {
    for (text, part) in [
        (
            "[sinks.a]\ntype = 'elasticsearch'\nurls = 'https://ann:hunter2@h:9200'",
            "found a text, expected a list",
        ),
        ("[sinks.a]\ntype = 'elasticsearch'\nurls = ['ann:hunter2@h:9200']", "found no URL"),
        (
            "[sinks.a]\ntype = 'postgres'\nurl = 'mysql://hunter2@h/d'",
            "must begin with postgres://",
        ),
        ("[sinks.a]\ntype = 'postgres'\nurl = 'postgres://u:p@hunter2@h/d'", "write @ as %40"),
        ("[sinks.a]\ntype = 'postgres'\nurl = 'postgres://h/d?passw%6Frt=hunter2'", "none of user"),
        ("[sinks.a]\nurl = hunter2", "not TOML"),
        ("[sources.a.properties]\n'ssl.key.pem' = \"\"\"\nhunter2\\q\n\"\"\"", "not TOML"),
        ("[sources.a.properties]\n'sasl.oauthbearer.config' = 'principal=x hunter2", "not TOML"),
        ("[sinks.a]\ntype = 'postgres'\nurl = 'postgres://u:${!hunter2}@h/d'", "names no variable"),
        (
            "[sinks.a]\ntype = 'postgres'\nurl = 'postgres://u@h/d'\npassword = 'hunter2'\ncert = 'a.pem'",
            "needs the `key`",
        ),
        ("worker = { token = 12345hunter2 }", "not TOML"),
    ] {
        let told = loaded(text, &env()).unwrap_err();
        assert!(told.contains(part) && !told.contains("hunter2"), "{text}:\n{told}");
    }
    // What is no secret is shown as before.
    let told = loaded("[connectors.a]\nsink = = 1", &env()).unwrap_err();
    assert!(told.contains("sink = = 1"), "{told}");
}
