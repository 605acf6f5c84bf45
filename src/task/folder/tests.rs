//! One batch, without a task around it.

use bytes::Bytes;
use foldline_api::record::Headers;

use super::*;
use crate::dead_letter::Origin;
use crate::task::Allowance;
use crate::task::simulation::{OneDecoder, decoder, projection};

fn record(offset: i64) -> Item {
    Item::Record(Record {
        topic: "events".into(),
        partition: 0,
        offset,
        timestamp: None,
        key: None,
        value: Some(Bytes::from_static(br#"{"id":1}"#)),
        headers: Headers::new(),
    })
}

/// A source may deliver a record twice, after a rebalance or a seek.
#[test]
fn what_lies_below_the_position_is_not_folded_again() {
    let projection = projection("hot");
    let mut folder = Folder {
        decoders: Arc::new(OneDecoder(decoder(&projection))),
        on_bad_record: OnBadRecord::DeadLetter,
        keeps_marks: false,
        verdicts: HashMap::default(),
        decisions: Decisions::default(),
        parking: Parking::new(Allowance::new(0)),
        origin: Arc::new(Origin::default()),
        projection: Arc::clone(&projection),
    };
    let (mut cache, mut watch) = (Cache::new(1 << 20), Watch::new(&projection));
    cache.set_complete(true);
    let before = |_: &TopicPartition| Position(5);
    let items = [3, 4, 5, 5, 6, 4].map(record).to_vec();
    let decoded = folder.decode(&mut watch, Batch::new(1), items, &mut cache, &before);
    let (batch, _) = folder.fold(decoded, &mut cache, &before);
    assert_eq!((batch.duplicates, batch.counts.applied), (4, 2));
    let steps: Vec<_> = batch.steps.values().copied().collect();
    assert_eq!(steps, [(Position(5), Position(7))]);
}
