//! What leads readers to a target: an alias of exactly its name, with its filter, to one index.

use std::sync::atomic::{AtomicBool, Ordering};

use foldline_api::rebuild::By;
use foldline_api::record::Position;
use foldline_api::sink::{Target, Version};
use serde_json::{Value as Json, json};

use crate::support::{Bench, SMALL, beginning, durable, flush, opened, write};

/// The indexes behind the readers' alias, each with the alias as it is.
async fn readers(bench: &Bench) -> Vec<(String, Json)> {
    let (_, found) = bench.call("GET", &format!("/_alias/{}", bench.name), None).await;
    let of = |index: &Json| index["aliases"][bench.name.as_str()].clone();
    found.as_object().unwrap().iter().map(|(name, index)| (name.clone(), of(index))).collect()
}

fn filtered() -> Json {
    json!({ "filter": { "bool": { "must_not": { "term": { "_foldline.deleted": true } } } } })
}

/// A template that gives all indexes of the target's names its alias.
async fn template(bench: &Bench) -> String {
    let template = format!("/_index_template/{}", bench.name);
    let body = json!({
        "index_patterns": [format!("{}*", bench.name)],
        "priority": 998,
        "template": {
            "aliases": { bench.name.as_str(): {} },
            "settings": { "index.refresh_interval": "7s" },
        },
    });
    let (status, answer) = bench.call("PUT", &template, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    template
}

#[tokio::test]
async fn an_alias_from_a_template_neither_loses_its_filter_nor_leads_to_two_indexes() {
    let bench = Bench::new("shield");
    let template = template(&bench).await;
    let (target, writer) = opened(&bench, &bench.spec(&SMALL)).await;
    assert_eq!(readers(&bench).await, [(format!("{}-g1", bench.name), filtered())]);
    let gone = vec![write(1, Some(1), Version::Absent, 2), write(2, None, Version::Absent, 2)];
    durable(writer.write(&flush(1, 0, 2, gone)).await.unwrap());
    assert_eq!(bench.search().await, 1, "readers do not find what was deleted");

    let over = AtomicBool::new(false);
    let watch = async {
        while !over.load(Ordering::Relaxed) {
            let behind = readers(&bench).await;
            assert_eq!(behind.len(), 1, "{behind:?}");
            assert_eq!(behind[0].1, filtered());
        }
    };
    let build = async {
        for _ in 0..3 {
            let rebuilds = target.rebuilds();
            rebuilds.begin(By::Operator, &[beginning(0)], &[]).await.unwrap();
            rebuilds.cancel(None).await.unwrap();
        }
        rebuilt_in_place(&target).await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(watch, build);
    // What the template gives beside the alias stays, and nothing of the shield.
    let (_, settings) =
        bench.call("GET", &format!("/{}/_settings?flat_settings=true", bench.name), None).await;
    let text = settings.to_string();
    assert!(text.contains("\"index.refresh_interval\":\"7s\""), "{text}");
    let ours = format!("/_index_template/foldline-{}*", bench.name);
    let (_, left) = bench.call("GET", &ours, None).await;
    assert!(left["index_templates"].as_array().is_none_or(Vec::is_empty), "{left}");
    bench.call("DELETE", &template, None).await;
    bench.clean().await;
}

async fn rebuilt_in_place(target: &dyn Target) {
    let generation = target.status().await.unwrap().generation;
    assert!(target.rebuild(generation, None).await.unwrap() > generation);
}

#[tokio::test]
async fn an_alias_that_lost_its_filter_is_set_right_by_the_next_open() {
    let bench = Bench::new("filter");
    let spec = bench.spec(&SMALL);
    let (target, writer) = opened(&bench, &spec).await;
    let gone = vec![write(1, Some(1), Version::Absent, 2), write(2, None, Version::Absent, 2)];
    durable(writer.write(&flush(1, 0, 2, gone)).await.unwrap());
    let (name, index) = (bench.name.as_str(), format!("{}-g1", bench.name));
    let bare = json!({ "actions": [{ "add": { "index": index, "alias": name } }] });
    bench.call("POST", "/_aliases", Some(bare)).await;
    assert_eq!(bench.search().await, 2);
    let again = bench.target(&spec).open().await.unwrap();
    assert!(again.notices[0].contains("aliases"), "{:?}", again.notices);
    assert_eq!((again.generation, again.positions[0].position), (1, Position(2)));
    assert_eq!(readers(&bench).await, [(index, filtered())]);
    assert!(target.open().await.unwrap().notices.is_empty());
    bench.clean().await;
}

#[tokio::test]
async fn names_that_only_begin_like_the_targets_are_nobodys_concern() {
    let bench = Bench::new("prefix");
    let spec = bench.spec(&SMALL);
    let name = bench.name.clone();
    let (target, _) = opened(&bench, &spec).await;
    // Another's index behind aliases of which one even has a generation's name, and one with such a name.
    let other = format!("/other-{name}");
    let aliases = json!({ format!("{name}-global"): {}, format!("{name}-g2"): {} });
    let made = bench.call("PUT", &other, Some(json!({ "aliases": aliases }))).await;
    assert_eq!(made.0, 200, "{}", made.1);
    bench.call("PUT", &format!("/{name}-gold"), Some(json!({}))).await;
    // Ours has an alias of an operator's that looks like a writer's.
    let weekly = json!({ "actions": [
        { "add": { "index": format!("{name}-g1"), "alias": format!("{name}-g1-w-eekly") } },
    ] });
    bench.call("POST", "/_aliases", Some(weekly)).await;
    assert!(target.open().await.unwrap().notices.is_empty());
    let (status, _) = bench.call("GET", &format!("/_alias/{name}-g1-w-eekly"), None).await;
    assert_eq!(status, 200, "it is left alone");
    assert_eq!(target.rebuild(1, None).await.unwrap(), 3, "the name of generation 2 is taken");
    for stays in [&other, &format!("/{name}-gold")] {
        assert_eq!(bench.call("GET", stays, None).await.0, 200);
        bench.call("DELETE", stays, None).await;
    }
    bench.clean().await;

    // The first generation, too, takes a name that is free.
    let bench = Bench::new("prefix-first");
    let other = format!("/other-{}", bench.name);
    let aliases = json!({ format!("{}-g1", bench.name): {} });
    bench.call("PUT", &other, Some(json!({ "aliases": aliases }))).await;
    assert_eq!(bench.target(&bench.spec(&SMALL)).open().await.unwrap().generation, 2);
    bench.call("DELETE", &other, None).await;
    bench.clean().await;
}
