//! Generations: indexes beside the one that the alias names.

use foldline_api::ErrorClass;
use foldline_api::letters::BadRecord;
use foldline_api::rebuild::{By, Step};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{Flush, Target, Version, Written};
use foldline_api::source::DeadLetter;
use serde_json::json;

use crate::support::{Bench, SMALL, beginning, durable, flush, opened, partition, write};

#[tokio::test]
async fn a_rebuild_moves_the_alias_and_leaves_nothing_to_zombies() {
    let bench = Bench::new("rebuild");
    let (target, zombie) = opened(&bench, &bench.spec(&SMALL)).await;
    durable(
        zombie.write(&flush(1, 0, 2, vec![write(1, Some(1), Version::Absent, 2)])).await.unwrap(),
    );
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2);
    assert_eq!(target.rebuild(1, None).await.unwrap(), 2, "a rebuild asked for twice is one");
    let place =
        |generation| format!("/foldline-books/_doc/position:{}:{generation}:events:0", bench.name);
    assert_eq!(
        bench.call("GET", &place(1), None).await.0,
        404,
        "a generation takes its places along"
    );
    assert_eq!(bench.call("GET", &place(2), None).await.0, 200);
    assert_eq!(bench.search().await, 0);
    let (_, aliases) = bench.call("GET", &format!("/_alias/{}", bench.name), None).await;
    assert_eq!(
        aliases.as_object().unwrap().keys().collect::<Vec<_>>(),
        [&format!("{}-g2", bench.name)]
    );

    let late = zombie.write(&flush(1, 2, 3, vec![write(2, Some(1), Version::Absent, 3)])).await;
    assert!(matches!(late, Ok(Written::Fenced)), "{late:?}");
    let late = zombie.write(&flush(1, 2, 3, vec![])).await;
    assert!(matches!(late, Ok(Written::Fenced)), "{late:?}");
    assert_eq!(bench.call("GET", &format!("/{}-g1", bench.name), None).await.0, 404);
    assert_eq!(zombie.acquire(&[beginning(0)]).await.unwrap_err().class(), ErrorClass::Fenced);

    let status = target.status().await.unwrap();
    assert_eq!((status.generation, status.positions[0].position), (2, Position(0)));
    let beginnings = [beginning(7)];
    assert_eq!(target.rebuild(2, Some(&beginnings)).await.unwrap(), 3);
    let status = target.status().await.unwrap();
    assert_eq!(status.positions[0].beginning, Position(7));
    assert_eq!((status.positions[0].position, status.positions[0].epoch), (Position(7), 0));
    bench.clean().await;
}

#[tokio::test]
async fn a_rebuild_that_died_in_the_middle_is_finished_by_the_next_open() {
    let bench = Bench::new("resume");
    let spec = bench.spec(&SMALL);
    let (target, writer) = opened(&bench, &spec).await;
    durable(
        writer.write(&flush(1, 0, 2, vec![write(1, Some(1), Version::Absent, 2)])).await.unwrap(),
    );
    // The record as the rebuild's first step leaves it.
    let path = format!("/foldline-books/_doc/target:{}", bench.name);
    let (_, got) = bench.call("GET", &path, None).await;
    let mut doc = got["_source"].clone();
    doc["binding"]["generation"] = json!(2);
    doc["binding"]["physical"] = json!("");
    doc["build"] = json!("half");
    doc["ready"] = json!(false);
    doc["dropping"] = json!([1]);
    bench.call("PUT", &path, Some(doc)).await;
    // An empty leftover of another attempt stands in the way.
    let leftover = json!({ "mappings": { "_meta": { "foldline": { "build": "older" } } } });
    bench.call("PUT", &format!("/{}-g2", bench.name), Some(leftover)).await;
    assert_eq!(writer.acquire(&[beginning(0)]).await.unwrap_err().class(), ErrorClass::Fenced);

    let again = bench.target(&spec).open().await.unwrap();
    assert_eq!((again.generation, again.positions[0].position), (2, Position(0)));
    assert_eq!(bench.search().await, 0);
    assert_eq!(bench.call("GET", &format!("/{}-g1", bench.name), None).await.0, 404);
    let writer = target.writer(2).await.unwrap();
    writer.acquire(&[beginning(0)]).await.unwrap();
    durable(
        writer.write(&flush(1, 0, 2, vec![write(1, Some(1), Version::Absent, 2)])).await.unwrap(),
    );
    assert_eq!(bench.search().await, 1);
    bench.clean().await;
}

/// Begins a build that comes to this position with these bad records; its number.
async fn built(target: &dyn Target, to: i64, bad: Vec<BadRecord>) -> u64 {
    let number = target.rebuilds().begin(By::Operator, &[beginning(0)], &[]).await.unwrap();
    let writer = target.writer(number).await.unwrap();
    let epoch = writer.acquire(&[beginning(0)]).await.unwrap().leases[0].epoch;
    durable(writer.write(&Flush { bad, ..flush(epoch, 0, to, vec![]) }).await.unwrap());
    number
}

#[tokio::test]
async fn the_letters_of_a_build_that_was_cancelled_at_once_are_gone_too() {
    let bench = Bench::new("letters");
    let (target, _) = opened(&bench, &bench.spec(&SMALL)).await;
    let (settings, every) = ("/foldline-books/_settings", "index.refresh_interval");
    // What is written is found once somebody asks for that, and not before.
    bench.call("PUT", settings, Some(json!({ every: "-1" }))).await;
    let left = tokio::spawn(async move {
        let letter = DeadLetter {
            partition: partition(),
            offset: 1,
            key: None,
            value: None,
            headers: vec![("why".into(), None)],
        };
        let (partition, offset, by_store) = (partition(), 1, true);
        let bad = BadRecord { partition, offset, by_store, letter: Some(letter) };
        let first = built(&target, 6, vec![bad]).await;
        target.rebuilds().cancel(None).await.unwrap();
        let next = built(&target, 6, Vec::new()).await;
        for step in [Step::Follow, Step::Hold { patient: false }, Step::Swap] {
            target.rebuilds().step(next, step).await.unwrap();
        }
        (first, next, target.rebuilds().letters(next, 10).await.unwrap())
    })
    .await;
    bench.call("PUT", settings, Some(json!({ every: null }))).await;
    let (first, next, letters) = left.unwrap();
    assert_eq!(first, next, "a number that was never live is given again");
    assert_eq!(letters, []);
    bench.clean().await;
}

#[tokio::test]
async fn more_bad_records_than_one_answer_holds_are_read_in_parts() {
    // A search finds a thousand at most.
    const RECORDS: i64 = 1_100;
    let bench = Bench::new("letters-many");
    let (target, live) = opened(&bench, &bench.spec(&SMALL)).await;
    let bad = |offset: i64, waits: bool| {
        let headers = vec![("why".into(), None)];
        let (key, value, partition) = (None, None, partition());
        let letter = DeadLetter { partition: partition.clone(), offset, key, value, headers };
        BadRecord { partition, offset, by_store: true, letter: waits.then_some(letter) }
    };
    // The live generation called the even ones bad.
    let known: Vec<BadRecord> = (0..RECORDS).step_by(2).map(|offset| bad(offset, false)).collect();
    let first = Flush { bad: known, ..flush(1, 0, RECORDS, vec![]) };
    durable(live.write(&first).await.unwrap());
    let rebuilds = target.rebuilds();
    let all: Vec<BadRecord> = (0..RECORDS).map(|offset| bad(offset, true)).collect();
    let kept = async |number: u64| {
        bench.call("POST", "/foldline-books/_refresh", None).await;
        let target = format!("{}#{number}!bad", bench.name);
        let query = json!({ "query": { "term": { "target": target } } });
        bench.call("POST", "/foldline-books/_count", Some(query)).await.1["count"].clone()
    };
    // One that is cancelled leaves none of them.
    let first = built(&target, RECORDS, all.clone()).await;
    assert_eq!(kept(first).await, json!(RECORDS));
    rebuilds.cancel(None).await.unwrap();
    assert_eq!(kept(first).await, json!(0));
    let number = built(&target, RECORDS, all).await;
    for step in [Step::Follow, Step::Hold { patient: false }, Step::Swap] {
        rebuilds.step(number, step).await.unwrap();
    }
    let offsets = |letters: Vec<((TopicPartition, i64), DeadLetter)>| -> Vec<i64> {
        letters.into_iter().map(|((_, offset), _)| offset).collect()
    };
    let odd: Vec<i64> = (1..RECORDS).step_by(2).collect();
    assert_eq!(offsets(rebuilds.letters(number, 5_000).await.unwrap()), odd);
    assert_eq!(offsets(rebuilds.letters(number, 520).await.unwrap()), odd[..520]);
    bench.clean().await;
}
