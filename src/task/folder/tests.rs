//! One batch, without a task around it.

use bytes::Bytes;
use foldline_api::model::Row;
use foldline_api::record::Headers;
use foldline_api::sink::{Loaded, Mark, Marks, Version};
use foldline_api::value::Value;

use super::*;
use crate::dead_letter::Origin;
use crate::task::Allowance;
use crate::task::simulation::{OneDecoder, Registry, decoder, projection};

fn record(offset: i64) -> Item {
    record_of(offset, br#"{"id":1}"#)
}

fn record_of(offset: i64, value: &[u8]) -> Item {
    Item::Record(Record {
        topic: "events".into(),
        partition: 0,
        offset,
        timestamp: None,
        key: None,
        value: Some(Bytes::copy_from_slice(value)),
        headers: Headers::new(),
    })
}

fn folder(keeps_marks: bool) -> Folder {
    folder_of("hot", keeps_marks)
}

fn folder_of(projection: &'static str, keeps_marks: bool) -> Folder {
    let projection = self::projection(projection);
    Folder {
        expiry: None,
        decoders: Arc::new(OneDecoder(decoder(&projection))),
        on_bad_record: OnBadRecord::DeadLetter,
        keeps_marks,
        verdicts: HashMap::default(),
        asked: Asked::default(),
        decisions: Decisions::default(),
        parking: Parking::new(Allowance::new(0)),
        slice: None,
        decoded_max: usize::MAX,
        origin: Arc::new(Origin::default()),
        projection,
    }
}

/// The batch that these offsets make, of a partition that stands at `before`.
fn fold(folder: &mut Folder, cache: &mut Cache, before: i64, offsets: &[i64]) -> Batch {
    let mut watch = Watch::new(&folder.projection);
    let before = |_: &TopicPartition| Position(before);
    let items = offsets.iter().copied().map(record).collect();
    let decoded = folder.decode(&mut watch, Batch::new(1), items, cache, &before);
    folder.fold(decoded, cache, &before).0
}

/// A source may deliver a record twice, after a rebalance or a seek.
#[test]
fn what_lies_below_the_position_is_not_folded_again() {
    let mut cache = Cache::new(1 << 20);
    cache.set_complete(true);
    let batch = fold(&mut folder(false), &mut cache, 5, &[3, 4, 5, 5, 6, 4]);
    assert_eq!((batch.duplicates, batch.counts.applied), (4, 2));
    let steps: Vec<_> = batch.steps.values().copied().collect();
    assert_eq!(steps, [(Position(5), Position(7))]);
}

/// Slow records must not hold up a revocation: the batch ends, the rest is folded in the next.
#[test]
fn a_batch_that_takes_long_ends_where_it_is() {
    let mut cache = Cache::new(1 << 20);
    cache.set_complete(true);
    let mut folder = Folder { slice: Some(Duration::ZERO), ..folder(false) };
    let batch = fold(&mut folder, &mut cache, 0, &[0, 1, 2, 3, 4, 5]);
    let rest: Vec<i64> =
        batch.aside.rest.iter().filter_map(|item| Some(item.record()?.offset)).collect();
    assert_eq!((batch.counts.applied, rest), (4, vec![4, 5]));
    let steps: Vec<_> = batch.steps.values().copied().collect();
    assert_eq!(steps, [(Position(0), Position(4))]);
}

/// Whoever decodes without asking for the schema is at fault, and not the record.
#[test]
fn what_was_not_asked_for_ends_the_task_and_makes_no_record_bad() {
    let mut cache = Cache::new(1 << 20);
    cache.set_complete(true);
    let mut folder = folder(false);
    folder.decoders = Registry::new(1).decoders(decoder(&folder.projection));
    let batch = fold(&mut folder, &mut cache, 0, &[0]);
    let stop = batch.stop.unwrap_or_default();
    assert!(stop.contains("events-0 at offset 0") && stop.contains("not asked for"), "{stop}");
    assert!(batch.letters.is_empty() && batch.bad.is_empty());
    assert!(batch.steps.values().all(|(from, to)| from == to), "the position stays before it");
}

/// An isolated primary answers a read with a write that will be lost.
#[test]
fn a_row_whose_marks_were_only_read_is_written_once_before_its_events_count_as_folded() {
    let key = Key::of(Value::Int(1));
    let row = Row::new(vec![Value::Int(1), Value::Int(1)]);
    let mark = Mark { partition: TopicPartition::new("events", 0), position: Position(1) };
    let read = Loaded {
        row: Some(row.clone()),
        version: Version::At(7, 1),
        marks: Marks::from_iter([mark]),
    };
    let mut cache = Cache::new(1 << 20);
    cache.insert(key.clone(), read, 0);
    let batch = fold(&mut folder(true), &mut cache, 0, &[0]);
    assert_eq!((batch.counts.replayed, batch.counts.applied, batch.rows()), (1, 0, 1));
    assert_eq!(cache.get(&key).unwrap().row, Some(row), "the event is in it");
    cache.written(&key, Version::At(8, 1));
    let batch = fold(&mut folder(true), &mut cache, 0, &[0]);
    assert_eq!((batch.counts.replayed, batch.rows()), (1, 0), "that write was acknowledged");
}

/// How large a row of `grown` becomes, and what the cache may hold.
const ROW: usize = 100_000;
const ROOM: usize = 1_000_000;

/// Folds these ids into batch after batch as a task does that writes each at once; the most bytes that any batch held.
fn most_held(
    folder: &mut Folder,
    cache: &mut Cache,
    ids: &[i64],
    load: impl Fn(&Key) -> Loaded,
) -> usize {
    let mut watch = Watch::new(&folder.projection);
    let record =
        |(offset, id): (i64, &i64)| record_of(offset, format!(r#"{{"id":{id}}}"#).as_bytes());
    let mut items: Vec<Item> = (0..).zip(ids).map(record).collect();
    let (mut at, mut most, mut number) = (0, 0, 0);
    while !items.is_empty() {
        number += 1;
        let before = |_: &TopicPartition| Position(at);
        let decoded = folder.decode(&mut watch, Batch::new(number), items, cache, &before);
        let mut room = cache.make_room(ROW * decoded.missing.len());
        for (nth, key) in decoded.missing.iter().enumerate() {
            let loaded = load(key);
            if nth >= decoded.needed.keys && loaded.heap_bytes() > room {
                break;
            }
            room = room.saturating_sub(loaded.heap_bytes());
            cache.insert(key.clone(), loaded, number);
        }
        let (mut batch, folded) = folder.fold(decoded, cache, &before);
        assert!(!folded.is_empty(), "each batch takes at least one record");
        most = most.max(cache.bytes());
        at += i64::try_from(folded.len()).unwrap();
        items = std::mem::take(&mut batch.aside.rest);
        cache.shrink(number);
    }
    assert_eq!(at, i64::try_from(ids.len()).unwrap(), "all are folded, each once");
    most
}

fn grown(length: usize) -> impl Fn(&Key) -> Loaded {
    move |key: &Key| {
        let text = Value::text(&"x".repeat(length));
        let row = Row::new(vec![key.values()[0].clone(), text]);
        Loaded { row: Some(row), version: Version::At(1, 0), marks: Marks::new() }
    }
}

/// Tiny events on large rows, in all of which they would take sixty times what there is room for.
#[test]
fn a_batch_holds_no_more_than_there_is_room_for_and_one_row() {
    for keeps_marks in [false, true] {
        let mut folder = folder_of("grown", keeps_marks);
        let ids: Vec<i64> = (0..600).collect();
        let mut cache = Cache::new(ROOM);
        let most = most_held(&mut folder, &mut cache, &ids, grown(ROW - 500));
        assert!(most < ROOM + ROW, "{most} with states that are loaded");
        assert!(most > ROOM / 2, "{most}: the room is used");
    }
}

/// Rows that their own handler doubles, again and again within one batch.
#[test]
fn a_batch_ends_where_its_rows_outgrow_the_room() {
    let mut folder = folder_of("grown", false);
    let ids: Vec<i64> = (0..12).flat_map(|_| 0..200).collect();
    let mut cache = Cache::new(ROOM);
    cache.set_complete(true);
    let most = most_held(&mut folder, &mut cache, &ids, |_: &Key| Loaded::absent());
    // The longest row: 32 bytes, doubled eleven times.
    assert!(most < ROOM + (32 << 12), "{most}");
}
