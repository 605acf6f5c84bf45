//! The config's JSON Schema, for editors: draft 7, and plain enough for those that know less.
//!
//! Each kind of table is a definition; a test holds their keys against those that the loader asks
//! for.

use foldline_language::config::schema::{
    Definitions, choice, duration, flag, integer, named, object, of, secret, text, texts,
};
use foldline_language::config::schema_projection;
use serde_json::{Map, Value, json};

use super::sink::{KAFKA, KINDS, lacking};

/// The JSON Schema of the whole config.
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    let groups = [
        worker_and_registries(),
        sources(),
        topics(),
        connectors(),
        schema_projection::definitions(),
    ];
    for (name, schema) in groups.into_iter().flatten() {
        definitions.insert(name.to_owned(), schema);
    }
    definitions.extend(sinks());
    let mut root = object(
        "Foldline's config",
        &[],
        &[
            ("worker", of("worker")),
            ("registries", named("Where schemas come from.", &of("registry"))),
            ("sources", named("Where events come from.", &of("source"))),
            ("projections", named("Pure folds, event by event.", &of("projection"))),
            ("sinks", named("Target stores.", &of("sink"))),
            ("connectors", named("Projections running into sinks.", &of("connector"))),
        ],
    );
    root["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    root["definitions"] = definitions.into();
    root
}

fn idle_poll_interval() -> Value {
    json!({
        "type": "string",
        "pattern": "^([0-9]+(ms|s|m|h|d)|never)$|\\$\\{",
        "description": "How often an idle connector asks its store; by default 30s. A duration, or never.",
    })
}

fn size(description: &str) -> Value {
    json!({
        "type": "string",
        "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$|\\$\\{",
        "description": format!("{description} A size such as 64KiB, 8MiB or 1GiB."),
    })
}

fn any_text(description: &str) -> Value {
    let types = ["string", "integer", "number", "boolean"];
    named(description, &json!({ "type": types }))
}

fn worker_and_registries() -> Definitions {
    let kind = |name: &str| choice("What kind of registry.", &[name]);
    let secret_forms = [
        ("env", text("An environment variable that holds it.")),
        ("file", text("A file that holds it; a relative path starts at this file's directory.")),
    ];
    let worker = [
        ("name", text("Name of the fleet: workers with one name share the work.")),
        ("listen", text("Address of REST, metrics and status page; beyond loopback with a token.")),
        (
            "memory",
            size("What queues and caches share; a rebuild takes its connector's share once more."),
        ),
        ("token", secret("Bearer token of the listener.")),
    ];
    let confluent = [
        ("type", kind("confluent")),
        ("url", secret("Its address.")),
        ("username", text("With `password`.")),
        ("password", secret("With `username`.")),
        ("ca", text("PEM file of the authority that signed its certificate.")),
    ];
    let topic = [
        ("type", kind("topic")),
        ("topic", text("Topic of schemas, by CRC-64-AVRO fingerprint.")),
        ("source", text("The source that has the topic, where there are several.")),
    ];
    vec![
        ("secret", object("A secret from elsewhere.", &[], &secret_forms)),
        ("worker", object("What belongs to the process.", &[], &worker)),
        ("registry", json!({ "oneOf": [of("registry.confluent"), of("registry.topic")] })),
        ("registry.confluent", object("A schema registry.", &["type", "url"], &confluent)),
        ("registry.topic", object("Schemas in a topic.", &["type", "topic"], &topic)),
    ]
}

fn converters_and_topics() -> [(&'static str, Value); 3] {
    [
        ("key", of("converter_or_name")),
        ("value", of("converter_or_name")),
        ("topics", named("What topics have of their own; ^… is a regex.", &of("topic"))),
    ]
}

fn servers_and_properties() -> [(&'static str, Value); 2] {
    let value =
        json!({ "anyOf": [{ "type": ["string", "integer", "number", "boolean"] }, of("secret")] });
    [
        ("bootstrap_servers", text("host:port, several joined by commas.")),
        ("properties", named("Other librdkafka properties.", &value)),
    ]
}

fn sources() -> Definitions {
    let kind = |name: &str| choice("What kind of source.", &[name]);
    let mut kafka = vec![("type", kind("kafka"))];
    kafka.extend(servers_and_properties());
    kafka.extend(converters_and_topics());
    let protocols = ["classic", "consumer"];
    kafka.push(("group_protocol", choice("Who computes the assignment.", &protocols)));
    kafka.push(("group_instance_id", text("Static membership.")));
    let mut file = vec![("type", kind("file")), ("path", text("Directory of the log."))];
    file.extend(converters_and_topics());
    vec![
        ("source", json!({ "oneOf": [of("source.kafka"), of("source.file")] })),
        ("source.kafka", object("A Kafka cluster.", &["type", "bootstrap_servers"], &kafka)),
        ("source.file", object("NDJSON files.", &["type", "path"], &file)),
    ]
}

fn topics() -> Definitions {
    let names = ["json", "connect-json", "avro", "protobuf", "text", "bytes"];
    let framings = ["auto", "none", "single-object"];
    let converter = [
        ("type", choice("From bytes to a value.", &names)),
        ("registry", text("Where its schemas come from.")),
        ("schema", text("Avro: the schema's file, in place of a registry.")),
        (
            "references",
            texts("Files of types that the schema names, each after those that it names."),
        ),
        ("framing", choice("What stands before a value; by default auto.", &framings)),
    ];
    let ingest = [("schema", text("JSON Schema file that posted values must fit."))];
    let ingest_or_flag = json!({ "description": "Opens POST /topics/NAME.", "anyOf": [{ "type": "boolean" }, of("ingest")] });
    let topic = [
        ("key", of("converter_or_name")),
        ("value", of("converter_or_name")),
        ("partitions", integer("Created with so many when missing, else checked.", 1)),
        ("replication_factor", integer("Created with so many when missing, else checked.", 1)),
        ("config", any_text("Kafka's topic settings.")),
        ("ingest", ingest_or_flag),
    ];
    let converter_or_name = json!({
        "description": "From bytes to a value: by default text for keys and json for values.",
        "anyOf": [{ "type": "string", "enum": names }, of("converter")],
    });
    vec![
        ("converter", object("A converter and its schemas.", &["type"], &converter)),
        ("converter_or_name", converter_or_name),
        ("topic", object("What a topic has of its own.", &[], &topic)),
        ("ingest", object("Ingest that checks what comes.", &[], &ingest)),
    ]
}

/// The definition of a kind of sink by its name; of one that this build lacks, any keys.
fn sinks() -> Vec<(String, Value)> {
    let which = |name: &str| ("type", choice("Which store.", &[name]));
    let mut kinds: Vec<(&str, Value)> = Vec::new();
    for kind in KINDS {
        let keys = (kind.keys)();
        let required = keys.iter().filter(|key| key.required).map(|key| key.name);
        let required: Vec<&str> = ["type"].into_iter().chain(required).collect();
        let own = keys.iter().map(|key| (key.name, key.schema.clone()));
        let keys: Vec<_> = [which(kind.name)].into_iter().chain(own).collect();
        kinds.push((kind.name, object(kind.description, &required, &keys)));
    }
    for name in lacking() {
        let mut any = object("A store that this build lacks.", &["type"], &[which(name)]);
        any["additionalProperties"] = true.into();
        kinds.push((name, any));
    }
    let mut kafka = vec![which(KAFKA)];
    kafka.extend(servers_and_properties());
    kafka.extend(converters_and_topics());
    kinds.push((KAFKA, object("State topics.", &["type", "bootstrap_servers"], &kafka)));
    let named: Vec<(String, Value)> =
        kinds.into_iter().map(|(name, keys)| (format!("sink.{name}"), keys)).collect();
    let each: Vec<Value> = named.iter().map(|(name, _)| of(name)).collect();
    [("sink".to_owned(), json!({ "oneOf": each }))].into_iter().chain(named).collect()
}

fn connectors() -> Definitions {
    let batch = [
        ("rows", integer("So many changed rows; by default 50000.", 1)),
        ("bytes", size("So many bytes of records; by default 8MiB.")),
        ("age", duration("So long after its first record; by default 10ms.")),
    ];
    let actions = ["dead_letter", "park", "stop", "skip"];
    let errors = [
        ("on_bad_record", choice("Where a bad record goes; by default dead_letter.", &actions)),
        ("dead_letter_topic", text("Topic for dead letters; by default dlq-GROUP.")),
        (
            "limit",
            integer("More bad or parked records than this in an hour pause the connector.", 0),
        ),
    ];
    let start = [("state_of", text("The connector that writes the state topic."))];
    let start_forms = json!({
        "description": "Where the first start begins: earliest, latest, a time, or a state topic.",
        "anyOf": [{ "type": "string" }, of("start")],
    });
    let changes = ["refuse", "rebuild", "continue"];
    let own = json!({ "type": "object", "description": "Elasticsearch's own words." });
    let connector = [
        ("source", text("May be left out where there is only one.")),
        ("projection", text("What is folded.")),
        ("sink", text("Where it goes.")),
        ("table", text("PostgreSQL's or SQLite's target; by default the projection's name.")),
        ("index", text("Elasticsearch's target; by default the projection's name.")),
        ("topic", text("Kafka's target; by default the projection's name.")),
        ("group", text("Consumer group; by default WORKER-CONNECTOR.")),
        ("tasks_max", integer("How many tasks share the partitions.", 1)),
        ("start", start_forms),
        ("batch", of("batch")),
        ("errors", of("errors")),
        ("on_change", choice("When the projection is not the one that built it.", &changes)),
        ("auto_create", flag("Whether Foldline creates the target.")),
        ("keep_generations", integer("Generations kept for a rollback; by default 1.", 0)),
        ("snapshot_wait", duration("How long a swap waits for older snapshots; by default 1m.")),
        ("idle_poll_interval", idle_poll_interval()),
        ("mapping", own.clone()),
        ("settings", own),
    ];
    let required = ["projection", "sink"];
    vec![
        ("batch", object("When a batch is flushed: whichever comes first.", &[], &batch)),
        ("errors", object("Records that cannot be folded.", &[], &errors)),
        ("start", object("The first start from a state topic.", &["state_of"], &start)),
        ("connector", object("A projection running into a sink.", &required, &connector)),
    ]
}
