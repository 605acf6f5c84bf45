//! The bad records of each generation, and the letters of a build that wait for its swap.

use foldline_api::Result;
use foldline_api::letters::read_letter;
use foldline_api::parked::Place;
use foldline_api::source::DeadLetter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::books::{Books, Param, Partitions, partition_of, read};

impl Books {
    /// The DDL of their table. A letter goes when it is acknowledged; the place stays.
    pub(crate) fn bad_ddl(table: &str) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (\n    target text NOT NULL,\n    generation bigint NOT NULL,\n    \
             topic text NOT NULL,\n    partition integer NOT NULL,\n    record_offset bigint NOT NULL,\n    by_store \
             boolean NOT NULL,\n    letter text,\n    PRIMARY KEY (target, generation, topic, partition, \
             record_offset)\n)"
        )
    }

    /// Keeps bad records.
    pub(crate) fn bad_sql(&self) -> String {
        format!(
            "INSERT INTO {} (target, generation, topic, partition, record_offset, by_store, letter) SELECT $1, $2, \
             u.topic, u.partition, u.record_offset, u.by_store, u.letter FROM unnest($3::text[], $4::int4[], \
             $5::int8[], $6::bool[], $7::text[]) AS u(topic, partition, record_offset, by_store, letter) ON CONFLICT \
             (target, generation, topic, partition, record_offset) DO UPDATE SET by_store = excluded.by_store, letter \
             = excluded.letter",
            self.bad
        )
    }

    /// Of the letters of `next` only those stay that nobody sent while the other generation was live. One projection calls
    /// the same records bad each time, but for what only the store can tell; so where that one folded a record too, and
    /// has not kept what it called bad, as versions before did not, its letter was sent.
    pub(crate) async fn keep_new_letters(
        &self,
        client: &Client,
        target: &str,
        (live, next): (u64, u64),
        same_projection: bool,
    ) -> Result<()> {
        let place = |of: &str| {
            format!(
                "{of}.target = $1 AND {of}.generation = $2 AND {of}.topic = n.topic AND {of}.partition = n.partition"
            )
        };
        let sql = format!(
            "UPDATE {bad} AS n SET letter = NULL FROM {positions} AS a, {positions} AS b WHERE n.target = $1 AND \
             n.generation = $3 AND n.letter IS NOT NULL AND {live_place} AND b.target = n.target AND b.generation = \
             n.generation AND b.topic = n.topic AND b.partition = n.partition AND (a.topic_id <> b.topic_id) IS NOT \
             TRUE AND (EXISTS (SELECT 1 FROM {bad} AS l WHERE {bad_place} AND l.record_offset = n.record_offset AND \
             l.letter IS NULL) OR $4 AND NOT n.by_store AND n.record_offset >= a.beginning AND n.record_offset < \
             a.position AND NOT EXISTS (SELECT 1 FROM {bad} AS l WHERE {bad_place} AND l.record_offset = \
             n.record_offset) AND NOT EXISTS (SELECT 1 FROM {holes} AS h WHERE {hole_place} AND n.record_offset >= \
             h.from_offset AND n.record_offset < h.to_offset))",
            bad = self.bad,
            positions = self.positions,
            holes = self.holes,
            live_place = place("a"),
            bad_place = place("l"),
            hole_place = place("h"),
        );
        let (live, next) = (live.cast_signed(), next.cast_signed());
        let params: [Param<'_>; 4] = [
            (&target, Type::TEXT),
            (&live, Type::INT8),
            (&next, Type::INT8),
            (&same_projection, Type::BOOL),
        ];
        self.execute(client, &sql, &params).await.map(|_| ())
    }

    /// Letters of a generation that wait.
    pub(crate) async fn letters(
        &self,
        client: &Client,
        (target, generation): (&str, u64),
        max: usize,
    ) -> Result<Vec<(Place, DeadLetter)>> {
        let sql = format!(
            "SELECT topic, partition, record_offset, letter FROM {} WHERE target = $1 AND generation = $2 AND letter IS \
             NOT NULL LIMIT $3",
            self.bad
        );
        let (generation, max) = (generation.cast_signed(), i64::try_from(max).unwrap_or(i64::MAX));
        let params: [Param<'_>; 3] =
            [(&target, Type::TEXT), (&generation, Type::INT8), (&max, Type::INT8)];
        let letter = |row: &Row| -> Result<(Place, DeadLetter)> {
            let row = Some(row);
            let place: Place = (partition_of(row)?, read(row, 2)?);
            let letter = read_letter(&place, read(row, 3)?)?;
            Ok((place, letter))
        };
        self.query(client, &sql, &params).await?.iter().map(letter).collect()
    }

    /// These letters are acknowledged.
    pub(crate) async fn letters_sent(
        &self,
        client: &Client,
        (target, generation): (&str, u64),
        places: &[Place],
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {} AS n SET letter = NULL FROM unnest($3::text[], $4::int4[], $5::int8[]) AS u(topic, partition, \
             record_offset) WHERE n.target = $1 AND n.generation = $2 AND n.topic = u.topic AND n.partition = \
             u.partition AND n.record_offset = u.record_offset",
            self.bad
        );
        let list = Partitions::new(places.iter().map(|(partition, _)| partition));
        let offsets: Vec<i64> = places.iter().map(|(_, offset)| *offset).collect();
        let generation = generation.cast_signed();
        let params: [Param<'_>; 5] = [
            (&target, Type::TEXT),
            (&generation, Type::INT8),
            (&list.topics, Type::TEXT_ARRAY),
            (&list.partitions, Type::INT4_ARRAY),
            (&offsets, Type::INT8_ARRAY),
        ];
        self.execute(client, &sql, &params).await.map(|_| ())
    }
}
