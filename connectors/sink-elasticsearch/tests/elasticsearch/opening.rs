//! What a target is when it is opened: whose, which index, which columns.

use foldline_api::ErrorClass;
use foldline_api::model::Row;
use foldline_api::record::Position;
use foldline_api::sink::{DesiredState, OnChange, RowWrite, Target, Version, Waits, Written};
use foldline_api::value::Value;
use serde_json::json;

use crate::support::{Bench, SMALL, beginning, durable, flush, key, opened, write};

#[tokio::test]
async fn workers_that_open_at_once_end_with_one_index() {
    let bench = Bench::new("race");
    let spec = bench.spec(&SMALL);
    let targets: Vec<_> = (0..6).map(|_| bench.target(&spec)).collect();
    let opened = futures_util::future::join_all(targets.iter().map(|target| target.open())).await;
    for opened in opened {
        assert_eq!(opened.unwrap().generation, 1);
    }
    let (_, indexes) = bench.call("GET", &format!("/{}", bench.name), None).await;
    assert_eq!(
        indexes.as_object().unwrap().keys().collect::<Vec<_>>(),
        [&format!("{}-g1", bench.name)]
    );

    let generations =
        futures_util::future::join_all(targets.iter().map(|t| t.rebuild(1, None))).await;
    for generation in generations {
        assert_eq!(generation.unwrap(), 2);
    }
    let (_, indexes) =
        bench.call("GET", &format!("/{}-g*?expand_wildcards=all", bench.name), None).await;
    assert_eq!(
        indexes.as_object().unwrap().keys().collect::<Vec<_>>(),
        [&format!("{}-g2", bench.name)]
    );
    bench.clean().await;
}

#[tokio::test]
async fn an_index_where_the_alias_must_go_is_a_config_error() {
    let bench = Bench::new("taken");
    bench.call("PUT", &format!("/{}", bench.name), Some(json!({}))).await;
    let error = bench.target(&bench.spec(&SMALL)).open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config);
    assert!(error.message().contains("alias of that name must go"), "{error}");
    bench.clean().await;

    let bench = Bench::new("alias");
    let body = json!({ "aliases": { bench.name.as_str(): {} } });
    let other = format!("/other-{}", bench.name);
    bench.call("PUT", &other, Some(body)).await;
    let error = bench.target(&bench.spec(&SMALL)).open().await.unwrap_err();
    assert!(error.message().contains("not Foldline's"), "{error}");
    bench.call("DELETE", &other, None).await;
    bench.clean().await;
}

#[tokio::test]
async fn only_its_own_connector_opens_a_target() {
    let bench = Bench::new("owner");
    let mut spec = bench.spec(&SMALL);
    let (target, _) = opened(&bench, &spec).await;
    target.set_desired(DesiredState::Paused).await.unwrap();
    let again = bench.target(&spec).open().await.unwrap();
    assert_eq!(again.desired, DesiredState::Paused);
    assert!(again.notices.is_empty());
    let stored = &again.positions[0];
    assert_eq!((stored.beginning, stored.epoch), (Position(0), 1));
    assert_eq!(stored.topic_id.as_deref(), Some("life-1"));

    spec.connector = "renamed".to_owned();
    let error = bench.target(&spec).open().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config);
    assert!(error.message().contains("belongs to connector \"c\""), "{error}");
    assert_eq!(bench.target(&spec).rebuild(1, None).await.unwrap_err().class(), ErrorClass::Config);
    bench.clean().await;
}

#[tokio::test]
async fn an_index_with_documents_of_others_is_refused_and_an_empty_one_taken() {
    let bench = Bench::new("adopt");
    let mut spec = bench.spec(&SMALL);
    let index = format!("/{}-g1", bench.name);
    bench.call("PUT", &index, Some(json!({}))).await;
    bench.call("PUT", &format!("{index}/_doc/1"), Some(json!({ "n": 1 }))).await;
    let error = bench.target(&spec).open().await.unwrap_err();
    assert!(error.message().contains("already has rows"), "{error}");
    bench.call("DELETE", &index, None).await;

    spec.auto_create = false;
    let error = bench.target(&spec).open().await.unwrap_err();
    assert!(error.message().contains("does not exist"), "{error}");
    bench.call("PUT", &index, Some(json!({}))).await;
    let (_, writer) = opened(&bench, &spec).await;
    durable(
        writer.write(&flush(1, 0, 1, vec![write(1, Some(1), Version::Absent, 1)])).await.unwrap(),
    );
    assert_eq!(bench.search().await, 1);
    bench.clean().await;
}

#[tokio::test]
async fn a_dropped_index_voids_its_positions() {
    let bench = Bench::new("dropped");
    let spec = bench.spec(&SMALL);
    let (target, writer) = opened(&bench, &spec).await;
    durable(
        writer.write(&flush(1, 0, 5, vec![write(1, Some(1), Version::Absent, 5)])).await.unwrap(),
    );
    let index = format!("/{}-g1", bench.name);
    bench.call("DELETE", &index, None).await;
    let late = writer.write(&flush(1, 5, 6, vec![write(2, Some(1), Version::Absent, 6)])).await;
    assert!(matches!(late, Ok(Written::Fenced)), "{late:?}");
    assert_eq!(bench.call("GET", &index, None).await.0, 404, "a late write made the index anew");
    assert_eq!(writer.load(&[key(1)]).await.unwrap_err().class(), ErrorClass::Fenced);
    assert_eq!(writer.acquire(&[beginning(0)]).await.unwrap_err().class(), ErrorClass::Fenced);

    let again = target.open().await.unwrap();
    assert_eq!((again.generation, again.positions[0].position), (2, Position(0)));
    assert!(again.notices[0].contains("dropped"), "{:?}", again.notices);
    bench.clean().await;
}

#[tokio::test]
async fn an_index_that_was_replaced_is_not_the_one_that_was_filled() {
    let bench = Bench::new("replaced");
    let spec = bench.spec(&SMALL);
    let (target, writer) = opened(&bench, &spec).await;
    let one = flush(1, 0, 5, vec![write(1, Some(1), Version::Absent, 5)]);
    durable(writer.write(&one).await.unwrap());
    let index = format!("/{}-g1", bench.name);
    bench.call("DELETE", &index, None).await;
    bench.call("PUT", &format!("{index}/_doc/1"), Some(json!({ "n": 1 }))).await;
    let error = target.open().await.unwrap_err();
    assert!(error.message().contains("replaced by another"), "{error}");
    bench.call("DELETE", &format!("{index}/_doc/1"), None).await;

    let again = target.open().await.unwrap();
    assert_eq!((again.generation, again.positions[0].position), (2, Position(0)));
    assert_eq!(bench.call("GET", &index, None).await.0, 404);
    bench.clean().await;
}

#[tokio::test]
async fn another_projection_is_refused_or_adds_its_columns() {
    let bench = Bench::new("change");
    let (_, old) = opened(&bench, &bench.spec(&SMALL)).await;
    let first = vec![write(1, Some(1), Version::Absent, 1)];
    let versions = durable(old.write(&flush(1, 0, 1, first)).await.unwrap());

    let mut spec = bench.spec(&[("id", "bigint"), ("n", "bigint"), ("name", "text")]);
    let error = bench.target(&spec).open().await.unwrap_err();
    assert!(error.message().contains("column name is new"), "{error}");

    spec.on_change = OnChange::Continue;
    let target = bench.target(&spec);
    let opened = target.open().await.unwrap();
    assert_eq!((opened.generation, opened.positions[0].position), (1, Position(1)));
    let (_, mapping) = bench.call("GET", &format!("/{}/_mapping", bench.name), None).await;
    let fields = &mapping[format!("{}-g1", bench.name)]["mappings"]["properties"];
    assert_eq!(fields["name"]["type"], "keyword");

    // The old model's writer can no longer reach the documents, which now have a column it lacks.
    let late = old.write(&flush(1, 1, 2, vec![write(1, Some(2), versions[0], 2)])).await;
    assert!(matches!(late, Ok(Written::Fenced)), "{late:?}");
    let writer = target.writer(1).await.unwrap();
    let epoch = writer.acquire(&[beginning(0)]).await.unwrap().leases[0].epoch;
    let loaded = writer.load(&[key(1)]).await.unwrap().remove(0);
    let row = Row::new(vec![Value::Int(1), Value::Int(1), Value::Null]);
    assert_eq!((loaded.row, loaded.version), (Some(row), versions[0]));
    let row = Row::new(vec![Value::Int(1), Value::Int(2), Value::text("ann")]);
    let next = RowWrite { row: Some(row), ..write(1, None, versions[0], 2) };
    durable(writer.write(&flush(epoch, 1, 2, vec![next])).await.unwrap());

    // The old projection does not come back, and a changed type is no new column.
    let mut back = bench.spec(&SMALL);
    back.on_change = OnChange::Rebuild;
    let waits = bench.target(&back).open().await.unwrap().waits;
    assert!(matches!(waits, Some(Waits::Replaced(why)) if why.contains("superseded")));
    let mut retyped = bench.spec(&[("id", "bigint"), ("n", "text"), ("name", "text")]);
    retyped.on_change = OnChange::Continue;
    assert!(bench.target(&retyped).open().await.is_err());
    retyped.on_change = OnChange::Rebuild;
    let target = bench.target(&retyped);
    let waiting = target.open().await.unwrap();
    assert!(waiting.generation == 1 && waiting.waits.is_some(), "what stands there serves on");
    assert_eq!(bench.search().await, 1);
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2);
    assert_eq!(bench.search().await, 0);
    bench.clean().await;
}

#[tokio::test]
async fn an_index_template_that_would_change_documents_is_refused() {
    let bench = Bench::new("template");
    let template = format!("/_index_template/{}", bench.name);
    let body = json!({
        "index_patterns": [format!("{}-g*", bench.name)],
        "priority": 999,
        "template": { "settings": { "index.final_pipeline": "enrich" } },
    });
    let (status, answer) = bench.call("PUT", &template, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    let spec = bench.spec(&SMALL);
    let error = bench.target(&spec).open().await.unwrap_err();
    assert!(error.message().contains("final_pipeline"), "{error}");
    bench.call("DELETE", &template, None).await;
    // With the template gone the very same start works: nothing is left of the refused index.
    assert_eq!(bench.target(&spec).open().await.unwrap().generation, 1);
    let path = format!("/{}-g1/_settings", bench.name);
    bench.call("PUT", &path, Some(json!({ "index.translog.durability": "async" }))).await;
    let error = bench.target(&spec).open().await.unwrap_err();
    assert!(error.message().contains("durability"), "{error}");
    bench.clean().await;
}
