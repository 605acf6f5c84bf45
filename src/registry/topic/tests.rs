use bytes::Bytes;
use foldline_testkit::MemoryLog;

use super::*;

const TOPIC: &str = "schemas";
const ONE: u64 = 0x0ec8_e268_d713_c23d;
const TWO: u64 = 7;

/// A log with the topic, and who reads it.
struct World {
    log: MemoryLog,
    schemas: TopicSchemas,
}

fn decimal(scale: u32, doc: &str) -> String {
    format!(
        r#"{{"type":"record","name":"A","doc":"{doc}","fields":[
            {{"name":"a","type":{{"type":"bytes","logicalType":"decimal","precision":9,"scale":{scale}}}}}]}}"#
    )
}

impl World {
    fn new() -> Self {
        let log = MemoryLog::new("log");
        let group = log.group("schemas", &[TOPIC]);
        World { schemas: TopicSchemas::new("catalog", TOPIC, group), log }
    }

    fn with_topic() -> Self {
        let world = World::new();
        world.log.create_topic(TOPIC, 2);
        world
    }

    fn append(&self, key: &[u8], value: Option<&str>) {
        let of = (Some(Bytes::copy_from_slice(key)), value.map(|v| Bytes::from(v.to_owned())));
        let partition = i32::from(key.last().copied().unwrap_or_default() % 2);
        self.log.append_record(TOPIC, partition, of, Vec::new(), None);
    }

    fn has(&self, fingerprint: u64, value: &str) {
        self.append(&fingerprint.to_be_bytes(), Some(value));
    }

    fn loses(&self, fingerprint: u64) {
        self.append(&fingerprint.to_be_bytes(), None);
    }

    async fn get(&self, fingerprint: u64) -> Result<String> {
        let mut answers = self.schemas.get(&[SchemaId::Fingerprint(fingerprint)]).await?;
        Ok(match answers.remove(0) {
            Answer::Schema(schema) => schema.text.clone(),
            Answer::Gone(why) => format!("gone: {why}"),
        })
    }

    async fn waits(&self, fingerprint: u64, says: &str) {
        tokio::time::sleep(FAILED).await;
        let error = self.get(fingerprint).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Retriable, "{error}");
        assert!(error.message().contains(says), "{says:?} in {error}");
        assert!(error.message().contains("the schema registry \"catalog\""), "{error}");
    }

    async fn stops(&self, fingerprint: u64) {
        let error = self.get(fingerprint).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "{error}");
        for scale in ["\"scale\":2", "\"scale\":4"] {
            assert!(error.message().contains(scale), "{scale} in {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_schema_is_found_in_any_partition_by_its_big_endian_key() {
    let world = World::with_topic();
    world.has(ONE, "\"long\"");
    world.append(&TWO.to_le_bytes(), Some("\"int\""));
    world.append(b"by-name", Some("\"int\""));
    assert_eq!(world.get(ONE).await.unwrap(), "\"long\"");
    world.waits(TWO, "does not have the schema of fingerprint 0x0000000000000007").await;
    tokio::time::sleep(MISSING).await;
    let gone = world.get(TWO).await.unwrap();
    assert!(gone.contains("gone: is of the schema of fingerprint 0x0000000000000007"), "{gone}");
    assert!(gone.contains("in keys they are big-endian"), "{gone}");
    world.waits(8, "it is read again").await;
    tokio::time::sleep(MISSING).await;
    let gone = world.get(8).await.unwrap();
    assert!(gone.contains("1 records whose keys are no fingerprints"), "{gone}");
    // Added since, and in a partition that was.
    world.log.create_topic(TOPIC, 4);
    let key = Bytes::copy_from_slice(&8u64.to_be_bytes());
    world.log.append_record(TOPIC, 3, (Some(key), Some("\"int\"".into())), Vec::new(), None);
    tokio::time::sleep(GONE).await;
    assert_eq!(world.get(8).await.unwrap(), "\"int\"");
}

#[tokio::test(start_paused = true)]
async fn what_comes_within_half_a_minute_is_waited_for() {
    let world = World::with_topic();
    world.has(ONE, "\"long\"");
    world.waits(TWO, "it is read again for 30 seconds").await;
    world.has(TWO, "\"int\"");
    assert_eq!(world.get(TWO).await.unwrap(), "\"int\"");
}

#[tokio::test(start_paused = true)]
async fn two_schemas_that_read_otherwise_stop_it_until_a_tombstone_takes_them_away() {
    let world = World::with_topic();
    world.has(ONE, &decimal(2, "first"));
    world.has(ONE, &decimal(2, "with other words"));
    assert!(world.get(ONE).await.unwrap().contains("first"));
    // Who wrote records by this one has written it before.
    world.has(ONE, &decimal(4, "with other values"));
    world.stops(ONE).await;
    world.has(ONE, &decimal(2, "the last one does not win"));
    world.stops(ONE).await;
    world.loses(ONE);
    world.has(ONE, &decimal(2, "mended"));
    assert!(world.get(ONE).await.unwrap().contains("mended"));
    // One that was told before, by another topic of the name.
    world.log.delete_topic(TOPIC);
    world.log.create_topic(TOPIC, 2);
    world.has(ONE, &decimal(4, "another"));
    world.has(TWO, "\"int\"");
    assert_eq!(world.get(TWO).await.unwrap(), "\"int\"");
    world.stops(ONE).await;
    world.schemas.doubt(SchemaId::Fingerprint(ONE));
    assert!(world.get(ONE).await.unwrap().contains("another"));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_missing_or_empty_or_lost_what_it_had_is_an_outage() {
    let world = World::new();
    world.waits(ONE, "does not exist").await;
    let error = world.schemas.reach().await.unwrap_err();
    assert!(error.message().contains("does not exist"), "{error}");
    world.log.create_topic(TOPIC, 1);
    world.schemas.reach().await.unwrap();
    world.waits(ONE, "it is read again").await;
    tokio::time::sleep(MISSING).await;
    world.waits(ONE, "it has no schemas at all").await;
    world.log.create_topic(TOPIC, 2);
    world.has(ONE, "\"long\"");
    tokio::time::sleep(FAILED).await;
    assert_eq!(world.get(ONE).await.unwrap(), "\"long\"");
    // Made anew, without it.
    world.log.delete_topic(TOPIC);
    world.waits(ONE, "").await;
    world.log.create_topic(TOPIC, 2);
    world.has(TWO, "\"int\"");
    world.has(TWO, "\"int\"");
    tokio::time::sleep(FAILED).await;
    assert_eq!(world.get(TWO).await.unwrap(), "\"int\"");
    world.waits(8, "it is read again").await;
    tokio::time::sleep(MISSING).await;
    world.waits(8, "it has lost the schema of fingerprint 0x0ec8e268d713c23d").await;
    // Deleted on purpose: nothing is lost.
    world.loses(ONE);
    assert!(world.get(8).await.unwrap().starts_with("gone: "));
}

#[tokio::test(start_paused = true)]
async fn what_the_topic_lost_to_retention_is_passed_over() {
    let world = World::with_topic();
    world.has(TWO, "\"int\"");
    world.has(TWO, "\"int\"");
    assert_eq!(world.get(TWO).await.unwrap(), "\"int\"");
    for _ in 0..3 {
        world.has(TWO, "\"int\"");
    }
    world.has(ONE, "\"long\"");
    world.log.forget_before(&TopicPartition::new(TOPIC, 1), 5);
    world.waits(ONE, "begins at 5").await;
    tokio::time::sleep(FAILED).await;
    assert_eq!(world.get(ONE).await.unwrap(), "\"long\"");
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_no_fingerprint_is_not_looked_for() {
    let world = World::with_topic();
    let answers = world.schemas.get(&[SchemaId::Id(7)]).await.unwrap();
    let [Answer::Gone(why)] = &answers[..] else { panic!("{answers:?}") };
    assert!(why.contains("is of schema 7") && why.contains("by fingerprint alone"), "{why}");
}
