//! A mapping and settings that change: in the connector's config, or under its worker.

use std::time::Duration;

use foldline_api::ErrorClass;
use foldline_api::rebuild::By;
use foldline_api::sink::{Configured, OnChange, Target, TargetSpec, Version, Written};
use serde_json::{Value as Json, json};

use crate::support::{Bench, SMALL, beginning, durable, flush, opened, write};

async fn index(bench: &Bench, generation: u64) -> Json {
    let name = format!("{}-g{generation}", bench.name);
    let (_, found) = bench.call("GET", &format!("/{name}?flat_settings=true"), None).await;
    found[name.as_str()].clone()
}

async fn change(bench: &Bench, generation: u64, mapping: Json) {
    let path = format!("/{}-g{generation}/_mapping", bench.name);
    let (status, answer) = bench.call("PUT", &path, Some(mapping)).await;
    assert_eq!(status, 200, "{answer}");
}

fn with(spec: &TargetSpec, mapping: Option<Json>, settings: Option<Json>) -> TargetSpec {
    TargetSpec { mapping, settings, ..spec.clone() }
}

#[tokio::test]
async fn changed_settings_and_fields_are_applied_to_the_index_that_stands() {
    let bench = Bench::new("options");
    let settings = json!({ "number_of_replicas": 0, "refresh_interval": "7s" });
    let spec = with(&bench.spec(&SMALL), None, Some(settings));
    let (target, _) = opened(&bench, &spec).await;
    assert_eq!(target.configure().await.unwrap(), Configured::AsItIs);

    let mapping = json!({ "n": { "type": "long", "fields": { "t": { "type": "keyword" } } } });
    let changed = with(&spec, Some(mapping), Some(json!({ "refresh_interval": "9s" })));
    let again = bench.target(&changed);
    assert!(again.open().await.unwrap().notices.is_empty());
    let Configured::Changed(notice) = again.configure().await.unwrap() else { panic!("as it is") };
    assert!(notice.contains("until a rebuild"), "{notice}");
    assert_eq!(again.configure().await.unwrap(), Configured::AsItIs, "it is done once");
    let stands = index(&bench, 1).await;
    assert_eq!(stands["settings"]["index.refresh_interval"], "9s");
    assert_eq!(stands["settings"]["index.number_of_replicas"], "1", "the default again");
    assert_eq!(stands["mappings"]["properties"]["n"]["fields"]["t"]["type"], "keyword");
    // What the config asked for is no drift.
    assert!(again.open().await.is_ok());
    bench.clean().await;
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_or_rebuilt_as_on_change_says() {
    let bench = Bench::new("outdated");
    let spec = bench.spec(&SMALL);
    let (_, writer) = opened(&bench, &spec).await;
    for (mapping, settings, says) in [
        (Some(json!({ "n": { "type": "keyword" } })), None, "mapper [n] cannot be changed"),
        (None, Some(json!({ "number_of_shards": 2 })), "number_of_shards"),
    ] {
        let mut changed = with(&spec, mapping, settings);
        let target = bench.target(&changed);
        target.open().await.unwrap();
        let error = target.configure().await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config);
        assert!(error.message().contains(says) && error.message().contains("rebuild"), "{error}");
        assert!(!error.message().contains("document"), "{error}");
        changed.on_change = OnChange::Rebuild;
        let Configured::Outdated(why) = bench.target(&changed).configure().await.unwrap() else {
            panic!("applied")
        };
        assert!(why.contains(says), "{why}");
    }
    // Events go on into the live generation meanwhile.
    let one = vec![write(1, Some(1), Version::Absent, 1)];
    durable(writer.write(&flush(1, 0, 1, one)).await.unwrap());

    let keyword = with(&spec, Some(json!({ "n": { "type": "keyword" } })), None);
    let target = bench.target(&keyword);
    let generation = target.rebuilds().begin(By::Operator, &[beginning(0)], &[]).await.unwrap();
    assert_eq!(
        target.rebuilds().begin(By::Operator, &[beginning(0)], &[]).await.unwrap(),
        generation
    );
    let built = index(&bench, generation).await;
    assert_eq!(built["mappings"]["properties"]["n"]["type"], "keyword");
    // A build that another config began has other fields: it is begun anew.
    let short = with(&spec, Some(json!({ "n": { "type": "short" } })), None);
    let other = bench.target(&short);
    let anew = other.rebuilds().begin(By::Operator, &[beginning(0)], &[]).await.unwrap();
    assert_eq!(index(&bench, anew).await["mappings"]["properties"]["n"]["type"], "short");
    other.rebuilds().cancel(None).await.unwrap();
    bench.clean().await;
}

#[tokio::test]
async fn an_index_of_an_older_version_is_taken_with_a_word() {
    let bench = Bench::new("older");
    let spec = bench.spec(&SMALL);
    opened(&bench, &spec).await;
    // As it was written before there was a hash.
    let mut meta = index(&bench, 1).await["mappings"]["_meta"].clone();
    for name in ["options", "settings", "fields"] {
        meta["foldline"].as_object_mut().unwrap().remove(name);
    }
    change(&bench, 1, json!({ "_meta": meta.clone() })).await;
    let target = bench.target(&spec);
    target.open().await.unwrap();
    assert!(matches!(target.configure().await.unwrap(), Configured::Changed(_)));
    assert_eq!(target.configure().await.unwrap(), Configured::AsItIs);

    change(&bench, 1, json!({ "_meta": meta })).await;
    let keyword = with(&spec, Some(json!({ "n": { "type": "keyword" } })), None);
    let target = bench.target(&keyword);
    target.open().await.unwrap();
    let Configured::Changed(says) = target.configure().await.unwrap() else { panic!("as it is") };
    assert!(says.contains("cannot be applied") && says.contains("foldline rebuild c"), "{says}");
    assert_eq!(target.configure().await.unwrap(), Configured::AsItIs);
    bench.clean().await;
}

#[tokio::test]
async fn a_mapping_that_drifted_stops_the_connector_and_blames_no_record() {
    let bench = Bench::new("drift");
    let spec = bench.spec(&SMALL);
    let (target, writer) = opened(&bench, &spec).await;
    target.configure().await.unwrap();
    let one = vec![write(1, Some(5), Version::Absent, 1)];
    durable(writer.write(&flush(1, 0, 1, one)).await.unwrap());
    // A field below one of the model's that takes no number: each good record would be refused.
    let strict = json!({ "n": { "type": "long", "fields": { "b": { "type": "boolean" } } } });
    change(&bench, 1, json!({ "properties": strict })).await;
    let two = flush(1, 1, 2, vec![write(2, Some(5), Version::Absent, 2)]);
    let error = writer.write(&two).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    for part in ["fields of field n", "connectors.c.mapping", "foldline rebuild c"] {
        assert!(error.message().contains(part), "{error}");
    }
    // In the config it is the config's: then its records are to blame.
    let taken = bench.target(&with(&spec, Some(strict), None));
    taken.open().await.unwrap();
    taken.configure().await.unwrap();
    assert!(matches!(writer.write(&two).await.unwrap(), Written::Rejected(_)));
    bench.clean().await;
}

#[tokio::test]
async fn a_mapping_that_drifted_is_seen_within_half_a_minute_of_writing() {
    let bench = Bench::new("drift-seen");
    let spec = bench.spec(&SMALL);
    let (target, writer) = opened(&bench, &spec).await;
    target.configure().await.unwrap();
    let one = vec![write(1, Some(5), Version::Absent, 1)];
    durable(writer.write(&flush(1, 0, 1, one)).await.unwrap());
    change(&bench, 1, json!({ "properties": { "n": { "type": "long", "coerce": false } } })).await;
    let two = vec![write(2, Some(5), Version::Absent, 2)];
    durable(writer.write(&flush(1, 1, 2, two)).await.unwrap());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(30)).await;
    tokio::time::resume();
    let three = flush(1, 2, 3, vec![write(3, Some(5), Version::Absent, 3)]);
    let error = writer.write(&three).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config, "{error}");
    assert!(error.message().contains("coerce of field n"), "{error}");
    // It stays stopped, until the mapping is as it was.
    assert_eq!(target.open().await.unwrap_err().class(), ErrorClass::Config);
    change(&bench, 1, json!({ "properties": { "n": { "type": "long" } } })).await;
    target.open().await.unwrap();
    durable(writer.write(&three).await.unwrap());

    let path = format!("/{}-g1/_settings", bench.name);
    bench.call("PUT", &path, Some(json!({ "index.final_pipeline": "enrich" }))).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(30)).await;
    tokio::time::resume();
    let four = flush(1, 3, 4, vec![write(4, Some(5), Version::Absent, 4)]);
    let error = writer.write(&four).await.unwrap_err();
    assert!(error.message().contains("final_pipeline"), "{error}");
    bench.clean().await;
}
