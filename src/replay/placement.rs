//! Which partitions can hold a key's events. Kafka does not tell how producers place keys, so records at
//! both ends of the partitions are asked: where all of them lie where one of the two known
//! partitioners puts them, that one is the topic's.

use std::collections::BTreeSet;

use foldline_api::error::Result;
use foldline_api::hole::{Hole, without};
use foldline_api::model::Key;
use foldline_api::record::{Position, Record, TopicPartition};
use foldline_api::source::{Reader, Stretch};

use super::Parts;

/// Bytes of records that are looked at from each end of a partition.
const SAMPLE: usize = 64 << 10;
/// Offsets that are looked at before a partition's end.
const TAIL: i64 = 50;
/// Fewer keyed records than this prove nothing.
const ENOUGH: usize = 40;

/// Where a key's events can lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Only in these partitions, and how that is known.
    Known(BTreeSet<TopicPartition>, String),
    /// In any, and why.
    Any(String),
}

type Partitioner = fn(&[u8], i32) -> i32;

/// Kafka's own, and librdkafka's default.
const PARTITIONERS: [(&str, Partitioner); 2] =
    [("murmur2", foldline_source_file::partition_of), ("crc32", crc32_of)];

fn crc32_of(key: &[u8], count: i32) -> i32 {
    let count = u32::try_from(count).unwrap_or(1).max(1);
    let crc = key.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    });
    i32::try_from(!crc % count).unwrap_or(0)
}

/// Finds out where the events of `key` can lie within `stretches`.
pub(crate) async fn place(
    parts: &Parts,
    (stretches, holes): (&[Stretch], &[Hole]),
    key: &Key,
) -> Result<Placement> {
    if stretches.len() <= 1 {
        let all = stretches.iter().map(|stretch| stretch.partition.clone()).collect();
        return Ok(Placement::Known(all, "there is one partition".to_owned()));
    }
    if !parts.projection.is_keyed_by_record() {
        return Ok(Placement::Any("the row's key is not the record's key".to_owned()));
    }
    let mut reader = parts.log.reader()?;
    let topics: BTreeSet<_> = stretches.iter().map(|s| s.partition.topic.clone()).collect();
    let (mut found, mut how) = (BTreeSet::new(), BTreeSet::new());
    for topic in topics {
        let mine: Vec<&Stretch> = stretches.iter().filter(|s| s.partition.topic == topic).collect();
        let decoder = parts.decoders.of(&topic);
        let Some(bytes) = key.values().first().and_then(|value| decoder.encode_key(value)) else {
            return Ok(Placement::Any(format!("the key's bytes in topic {topic:?} are not known")));
        };
        let Ok(count) = i32::try_from(mine.len()) else { continue };
        let mut records = Vec::new();
        for stretch in &mine {
            sample(&mut *reader, &without(stretch, holes), &mut records).await?;
        }
        let plain = |record: &&Record| {
            let value = decoder.decode_key(record).unwrap_or_default();
            !value.is_null() && decoder.encode_key(&value).as_deref() == record.key.as_deref()
        };
        if records.len() < ENOUGH || !records.iter().all(|record| plain(&record)) {
            return Ok(Placement::Any(format!(
                "too few of the records of topic {topic:?} tell how their keys are placed"
            )));
        }
        let fits = |(_, of): &&(&str, Partitioner)| {
            records.iter().all(|r| of(r.key.as_deref().unwrap_or_default(), count) == r.partition)
        };
        let Some((name, of)) = PARTITIONERS.iter().find(fits) else {
            return Ok(Placement::Any(format!(
                "the records of topic {topic:?} lie where neither murmur2 nor crc32 of their keys puts them"
            )));
        };
        how.insert(format!("{topic:?} is partitioned by {name} of the key"));
        found.insert(TopicPartition::new(topic, of(&bytes, count)));
    }
    Ok(Placement::Known(found, how.into_iter().collect::<Vec<_>>().join(", ")))
}

/// Records with a key, from both ends.
async fn sample(reader: &mut dyn Reader, of: &[Stretch], out: &mut Vec<Record>) -> Result<()> {
    let (Some(first), Some(last)) = (of.first(), of.last()) else { return Ok(()) };
    let tail = Position((last.to.0 - TAIL).max(last.from.0));
    for (from, end) in [(first.from, first.to), (tail, last.to)] {
        let to = Position((from.0 + TAIL).min(end.0));
        let mut wanted = Stretch { partition: first.partition.clone(), from, to };
        while wanted.from < wanted.to {
            let chunk = reader.read(std::slice::from_ref(&wanted), SAMPLE).await?;
            wanted.from = chunk.next;
            out.extend(chunk.records.into_iter().filter(|record| record.key.is_some()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_is_that_of_the_standard() {
        assert_eq!(crc32_of(b"123456789", i32::MAX), (0xcbf4_3926_u32 % 0x7fff_ffff) as i32);
        assert_eq!(crc32_of(b"", 7), 0);
    }
}
