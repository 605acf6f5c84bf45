//! The way back of dead letters.

use serde_json::{Value, json};

use crate::support::kafka::{self, Raw};
use crate::support::setup::{Setup, connector, kafka_source, orders_projection, postgres_sink};
use crate::support::stores::{Columns, Kind, postgres_rows};
use crate::support::use_servers;
use crate::support::wait::{self, SOON};

const COLUMNS: Columns = &[("id", Kind::Plain), ("amount", Kind::Plain), ("changes", Kind::Plain)];
const CANARY: &str = "canary";

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one letter's way, each step on what the last one left")]
async fn a_letter_goes_back_mended_once_and_is_folded_as_a_new_event() {
    let _servers = use_servers().await;
    let setup = Setup::new();
    let (topic, table) = (setup.name("orders"), setup.name("orders"));
    kafka::create(&topic, 2).await;
    let bad = |id: u32| {
        let mut raw =
            Raw::value(1, &id.to_string(), format!("{{\"id\":{id},\"amount\":\"{CANARY}\"}}"));
        raw.headers = vec![("trace".to_owned(), format!("t{id}"))];
        raw
    };
    let good = |id: u32| Raw::value(1, &id.to_string(), format!("{{\"id\":{id},\"amount\":1}}"));
    kafka::produce_raw(&topic, &[good(1), bad(1), bad(2), Raw::value(1, "3", CANARY), good(2)]);
    setup.config(&[
        kafka_source(),
        orders_projection(&topic, "", ""),
        postgres_sink(),
        connector("orders", "orders", "warehouse", &table, ""),
    ]);
    let daemon = setup.start().await;
    daemon.metric("orders", "events_dead_lettered_total", |letters| letters == 3).await;

    let reasons = daemon.cli(&["letters", "list", "orders"]);
    assert!(reasons.code == Some(0) && !reasons.out.contains(CANARY), "{reasons:?}");
    let counts = async || {
        let (status, answer) = daemon.get("/connectors/orders/letters").await;
        assert_eq!(status, 200, "{answer}");
        let mut all: Vec<(u64, u64, String)> = answer["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .map(|reason| {
                let number = |name: &str| reason[name].as_u64().unwrap();
                (number("count"), number("open"), reason["reason"].as_str().unwrap().to_owned())
            })
            .collect();
        all.sort();
        all
    };
    let [(1, 1, no_json), (2, 2, no_number)] = &*counts().await else {
        panic!("{:?}", counts().await)
    };
    assert!(no_number.contains("amount") && reasons.out.contains(&**no_number), "{reasons:?}");
    let list = |reason: &str| -> Vec<Value> {
        let listed = daemon.cli(&["letters", "list", "orders", "--reason", reason, "--json"]);
        let listed: Value = serde_json::from_str(&listed.out).unwrap();
        listed["letters"].as_array().unwrap().clone()
    };
    let numbers = list(no_number);
    assert_eq!(numbers.len(), 2, "{numbers:?}");
    let (first, place) = (numbers[0]["id"].as_str().unwrap(), &numbers[0]);
    assert_eq!(
        (&place["topic"], &place["partition"], &place["offset"]),
        (&json!(topic), &json!(1), &json!(1))
    );
    let show =
        |more: &[&str]| daemon.cli(&[&["letters", "show", "orders", first], more].concat()).out;
    assert!(
        show(&[]).contains("\"replayed\": false") && !show(&[]).contains(CANARY),
        "{}",
        show(&[])
    );
    assert!(show(&["--payload"]).contains(CANARY), "{}", show(&["--payload"]));

    // Mended: its event is the last of its partition now.
    let value = setup.path("mended.json");
    std::fs::write(&value, "{\"id\":1,\"amount\":50}").unwrap();
    let replay = |more: &[&str]| daemon.cli(&[&["letters", "replay", "orders"], more].concat());
    let done = replay(&[first, "--value", value.to_str().unwrap()]);
    assert_eq!((done.code, done.out.trim()), (Some(0), "1 given back"), "{done:?}");
    let rows = async |wanted: &[(&str, &str, &str)]| {
        let wanted: Vec<Vec<Option<String>>> = wanted
            .iter()
            .map(|(id, amount, changes)| {
                [id, amount, changes].map(|t| Some((*t).to_string())).to_vec()
            })
            .collect();
        wait::until("the rows", SOON, async || {
            let found: Vec<_> = postgres_rows(&table, COLUMNS).await.into_values().collect();
            if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    rows(&[("1", "50", "2"), ("2", "1", "1")]).await;
    let back = kafka::read_back(&topic).into_iter().last().unwrap();
    assert_eq!(back.key.as_deref(), Some(b"1".as_slice()));
    assert_eq!(back.header("trace"), Some("t1"));
    assert_eq!(back.header("foldline.replay.of"), Some(&*format!("{topic}:1:1")));
    assert!(back.header("foldline.replay.timestamp").is_some(), "{:?}", back.headers);
    assert!(back.header("__connect.errors.topic").is_none(), "{:?}", back.headers);
    assert_eq!(kafka::ends(&topic), [0, 6], "in its partition");

    // Once: also after the worker was killed.
    daemon.kill9();
    let daemon = setup.start().await;
    daemon.state("orders", "RUNNING").await;
    let again = daemon.cli(&["letters", "replay", "orders", first]);
    assert!(again.code == Some(1) && again.err.contains("given back already"), "{again:?}");
    for (id, why) in [("0:999", "has no letter"), ("seven", "is no letter")] {
        let refused = daemon.cli(&["letters", "replay", "orders", id]);
        assert!(refused.code == Some(1) && refused.err.contains(why), "{refused:?}");
    }
    assert_eq!(kafka::ends(&topic), [0, 6]);

    // All of a reason that are left, as they are: it is bad again, and has a letter again.
    let done = daemon.cli(&["letters", "replay", "orders", "--reason", no_number]);
    assert_eq!((done.code, done.out.trim()), (Some(0), "1 given back"), "{done:?}");
    daemon.metric("orders", "events_dead_lettered_total", |letters| letters == 1).await;
    let (_, answer) = daemon.get("/connectors/orders/letters").await;
    let of = |reason: &str| {
        let all = answer["reasons"].as_array().unwrap();
        let found = all.iter().find(|one| one["reason"] == reason).unwrap();
        (found["count"].as_u64().unwrap(), found["open"].as_u64().unwrap())
    };
    assert_eq!((of(no_number), of(no_json)), ((3, 1), (1, 1)), "{answer}");

    // By REST, with a value as it is written there.
    let (_, listed) = daemon.get("/connectors/orders/letters/0:2").await;
    let id = listed["id"].as_str().unwrap();
    let client = crate::support::http(SOON);
    let url = daemon.url(&format!("/connectors/orders/letters/{id}/replay"));
    let answer =
        client.post(url).body("{\"value\": {\"id\": 3, \"amount\": 7}}").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    rows(&[("1", "50", "2"), ("2", "1", "1"), ("3", "7", "1")]).await;
    let back = kafka::read_back(&topic).into_iter().last().unwrap();
    assert_eq!(back.value.as_deref(), Some(b"{\"id\": 3, \"amount\": 7}".as_slice()));
    daemon.stop().await;
    assert!(!setup.log().contains(CANARY));
    setup.clean().await;
}
