//! The bad records of each generation, and the letters of a build that wait for its swap.

use foldline_api::Result;
use foldline_api::letters::read_letter;
use foldline_api::parked::Place;
use foldline_api::source::DeadLetter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::books::{Books, Param, Partitions};
use crate::row::{FromRow, get, partition_of};

impl Books {
    /// Keeps bad records.
    pub(crate) fn bad_sql(&self) -> String {
        sql!("keep_bad_records", schema = self.schema)
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
        let sql = sql!("keep_new_letters", schema = self.schema);
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
        let sql = sql!("waiting_letters", schema = self.schema);
        let (generation, max) = (generation.cast_signed(), i64::try_from(max).unwrap_or(i64::MAX));
        let params: [Param<'_>; 3] =
            [(&target, Type::TEXT), (&generation, Type::INT8), (&max, Type::INT8)];
        self.select(client, &sql, &params).await
    }

    /// What one generation knows of letters that were sent, the next knows too, for topics of the same id.
    pub(crate) async fn take_over_sent(
        &self,
        client: &Client,
        target: &str,
        (from, to): (u64, u64),
    ) -> Result<()> {
        let sql = sql!("take_sent_over", schema = self.schema);
        let (from, to) = (from.cast_signed(), to.cast_signed());
        let params: [Param<'_>; 3] =
            [(&target, Type::TEXT), (&from, Type::INT8), (&to, Type::INT8)];
        self.execute(client, &sql, &params).await.map(|_| ())
    }

    /// These letters are acknowledged.
    pub(crate) async fn letters_sent(
        &self,
        client: &Client,
        place: (&str, u64),
        places: &[Place],
    ) -> Result<()> {
        let sql = sql!("letters_sent", schema = self.schema);
        self.of_places(client, &sql, place, places).await.map(|_| ())
    }

    /// Of these records, those whose letters were sent.
    pub(crate) async fn were_sent(
        &self,
        client: &Client,
        place: (&str, u64),
        places: &[Place],
    ) -> Result<Vec<Place>> {
        let sql = sql!("were_sent", schema = self.schema);
        let rows = self.of_places(client, &sql, place, places).await?;
        rows.iter().map(|row| Ok((partition_of(row)?, get(row, "record_offset")?))).collect()
    }

    async fn of_places(
        &self,
        client: &Client,
        sql: &str,
        (target, generation): (&str, u64),
        places: &[Place],
    ) -> Result<Vec<Row>> {
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
        self.query(client, sql, &params).await
    }
}

impl FromRow for (Place, DeadLetter) {
    fn from_row(row: &Row) -> Result<Self> {
        let place: Place = (partition_of(row)?, get(row, "record_offset")?);
        let letter = read_letter(&place, get(row, "letter")?)?;
        Ok((place, letter))
    }
}
