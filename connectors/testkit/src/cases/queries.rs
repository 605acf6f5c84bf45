//! Rows asked for by what they hold, against a plain filter and sort that know nothing of stores.

mod plain;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foldline_api::ErrorClass;
use foldline_api::model::{Key, Row};
use foldline_api::query::{Filter, Queries, RowQuery, Sort, page};
use foldline_api::sink::{RowWrite, Version};

use self::plain::{Kind, Plain, PlainRow, Want};
use crate::contract::{Bench, Store, model_of, spec_of};
use crate::rng::Rng;

const ROWS: u64 = 70;
const QUERIES: u64 = 60;
const TIME: Duration = Duration::from_secs(30);

/// A target with rows of every type that the store orders, and what is in them.
struct Shelf {
    bench: Bench,
    kinds: Vec<Kind>,
    rows: BTreeMap<Key, (PlainRow, Version)>,
    rng: Rng,
}

impl Shelf {
    async fn new(store: &dyn Store, case: &str, seed: u64) -> Self {
        let all = [
            ("region", "text", Kind::Text),
            ("id", "bigint", Kind::Whole),
            ("small", "smallint", Kind::Small),
            ("amount", "numeric(12,2)", Kind::Scaled(2)),
            ("wide", "numeric", Kind::Scaled(6)),
            ("at", "timestamptz", Kind::Moment),
            ("day", "date", Kind::Day),
            ("clock", "time", Kind::Clock),
            ("name", "text", Kind::Text),
            ("code", "varchar(40)", Kind::Text),
            ("uid", "uuid", Kind::Uuid),
            ("paid", "boolean", Kind::Bool),
            ("ratio", "double precision", Kind::Double),
            ("single", "real", Kind::Double),
        ];
        let of: Vec<_> = all.into_iter().filter(|(_, ty, _)| store.orders(ty)).collect();
        let columns: Vec<(&str, &str)> = of.iter().map(|(name, ty, _)| (*name, *ty)).collect();
        let bench = Bench::of(store, case, spec_of(&store.name(case), model_of(&columns, 2))).await;
        let kinds = of.iter().map(|(.., kind)| *kind).collect();
        let mut shelf = Shelf { bench, kinds, rows: BTreeMap::new(), rng: Rng::new(seed) };
        let rows: Vec<PlainRow> = (0..ROWS).map(|_| shelf.draw()).collect();
        shelf.put(rows).await;
        shelf.queries().refresh().await.unwrap();
        shelf
    }

    /// A row with any values.
    fn draw(&mut self) -> PlainRow {
        let kinds = self.kinds.clone();
        let rng = &mut self.rng;
        let value = |(at, kind): (usize, &Kind)| match at {
            // The key is filled, and mostly its own.
            0 => Some(kind.draw(rng)),
            1 => Some(Plain::Whole(i128::from(rng.below(5_000)) - 2_500)),
            _ => (!rng.chance(250)).then(|| kind.draw(rng)),
        };
        kinds.iter().enumerate().map(value).collect()
    }

    fn row(&self, plain: &PlainRow) -> Row {
        let texts: Vec<String> = plain.iter().zip(&self.kinds).map(|(v, k)| k.json(v)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        crate::contract::row(&self.bench.model, &texts)
    }

    /// Writes rows, new ones and others.
    async fn put(&mut self, rows: Vec<PlainRow>) {
        let marks = self.bench.write(0, None, Version::Absent).marks;
        let mut writes: BTreeMap<Key, (PlainRow, RowWrite)> = BTreeMap::new();
        for plain in rows {
            let row = self.row(&plain);
            let key = self.bench.model.key_of(&row);
            let version = self.rows.get(&key).map_or(Version::Absent, |(_, version)| *version);
            let (row, marks) = (Some(row), marks.clone());
            writes.insert(key.clone(), (plain, RowWrite { key, row, version, marks }));
        }
        let flush = writes.values().map(|(_, write)| write.clone()).collect();
        let versions = self.bench.durable(flush).await;
        for ((key, (plain, _)), version) in writes.into_iter().zip(versions) {
            self.rows.insert(key, (plain, version));
        }
    }

    async fn delete(&mut self, key: &Key) {
        let (_, version) = self.rows.remove(key).unwrap();
        let marks = self.bench.write(0, None, Version::Absent).marks;
        self.bench.durable(vec![RowWrite { key: key.clone(), row: None, version, marks }]).await;
    }

    fn queries(&self) -> &dyn Queries {
        self.bench.target.queries().unwrap()
    }

    /// The keys that a plain filter and a plain sort give.
    fn expected(&self, want: &Want, order: &[Sort]) -> Vec<Key> {
        let mut found: Vec<(&PlainRow, &Key)> = self
            .rows
            .iter()
            .filter(|(_, (row, _))| want.holds(row))
            .map(|(key, (row, _))| (row, key))
            .collect();
        found.sort_by(|(one, _), (other, _)| {
            let by = order.iter().map(|sort| plain::by(one, other, sort.column, sort.descending));
            by.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
        found.into_iter().map(|(_, key)| key.clone()).collect()
    }

    fn filter(&self, want: &Want) -> Filter {
        let model = &self.bench.model;
        let value = |column: usize, plain: &Option<Plain>| {
            let text = self.kinds[column].json(plain);
            let json = foldline_api::json::parse(text.as_bytes()).unwrap();
            model.columns[column].ty.coerce(json).unwrap()
        };
        match want {
            Want::And(list) => Filter::All(list.iter().map(|want| self.filter(want)).collect()),
            Want::Or(list) => Filter::Any(list.iter().map(|want| self.filter(want)).collect()),
            Want::Not(inner) => self.filter(inner).negated(),
            Want::In(column, values) => {
                let values = values.iter().map(|plain| value(*column, plain)).collect();
                Filter::one_of(model, *column, values).unwrap()
            }
            Want::Side(column, side, plain) => {
                Filter::side(model, *column, *side, value(*column, &Some(plain.clone()))).unwrap()
            }
        }
    }

    fn order(&mut self) -> Vec<Sort> {
        let count = self.rng.below(4);
        let mut asked: Vec<Sort> = Vec::new();
        for _ in 0..count {
            let column = self.rng.below(self.kinds.len() as u64) as usize;
            if asked.iter().all(|sort| sort.column != column) {
                asked.push(Sort { column, descending: self.rng.chance(500) });
            }
        }
        RowQuery::order(&self.bench.model, &asked).unwrap()
    }

    fn query(&mut self, want: &Want) -> RowQuery {
        let order = self.order();
        let max = 1 + self.rng.below(25) as usize;
        let bytes_max = usize::MAX;
        RowQuery { filter: self.filter(want), search: None, order, max, bytes_max, time: TIME }
    }

    /// All pages of a query; `between` happens between each two.
    async fn read(
        &mut self,
        query: &RowQuery,
        mut between: impl AsyncFnMut(&mut Self),
    ) -> Vec<(Key, Row)> {
        let (mut out, mut after) = (Vec::new(), None);
        for _ in 0..200 {
            let model = std::sync::Arc::clone(&self.bench.model);
            let next = page(self.queries(), &model, query, after.as_deref()).await.unwrap();
            assert!(next.rows.len() <= query.max, "no more than asked for");
            out.extend(next.rows.into_iter().map(|row| (model.key_of(&row), row)));
            after = next.after;
            if after.is_none() {
                return out;
            }
            between(self).await;
        }
        panic!("pages without an end: {query:?}");
    }
}

pub(crate) async fn queries_give_what_a_plain_filter_and_sort_give(store: &dyn Store) {
    if !store.answers() {
        return;
    }
    let mut shelf = Shelf::new(store, "queries", 7).await;
    for nth in 0..QUERIES {
        let mut rng = Rng::new(1_000 + nth);
        let want = Want::draw(&mut rng, &shelf.kinds, 3);
        let query = shelf.query(&want);
        let found = shelf.read(&query, async |_| ()).await;
        let keys: Vec<Key> = found.iter().map(|(key, _)| key.clone()).collect();
        let wanted = shelf.expected(&want, &query.order);
        assert_eq!(keys, wanted, "query {nth}: {want:?} in order {:?}", query.order);
        for (key, row) in found {
            assert_eq!(row, shelf.row(&shelf.rows[&key].0), "query {nth}: {key} is read whole");
        }
    }
}

pub(crate) async fn rows_that_stay_are_on_one_page_while_others_move(store: &dyn Store) {
    if !store.answers() {
        return;
    }
    let mut shelf = Shelf::new(store, "pages-of-queries", 11).await;
    for round in 0..5 {
        let all = Want::And(Vec::new());
        let mut query = shelf.query(&all);
        query.max = 9 + 2 * round;
        let keys: Vec<Key> = shelf.rows.keys().cloned().collect();
        let mut moved: BTreeSet<Key> = BTreeSet::new();
        let found = shelf
            .read(&query, async |shelf| {
                // The key stays, all else of the row changes.
                let at = shelf.rng.below(keys.len() as u64) as usize;
                let key = keys[at].clone();
                if let Some((old, _)) = shelf.rows.get(&key).cloned() {
                    let mut new = shelf.draw();
                    new[..2].clone_from_slice(&old[..2]);
                    shelf.put(vec![new]).await;
                    moved.insert(key);
                }
                let fresh = shelf.draw();
                moved.insert(shelf.bench.model.key_of(&shelf.row(&fresh)));
                shelf.put(vec![fresh]).await;
                let gone = keys[shelf.rng.below(keys.len() as u64) as usize].clone();
                if shelf.rows.contains_key(&gone) && shelf.rng.chance(300) {
                    shelf.delete(&gone).await;
                    moved.insert(gone);
                }
                shelf.queries().refresh().await.unwrap();
            })
            .await;
        let stayed = |key: &Key| !moved.contains(key);
        let found: Vec<Key> = found.into_iter().map(|(key, _)| key).filter(stayed).collect();
        let mut wanted = shelf.expected(&all, &query.order);
        wanted.retain(stayed);
        assert_eq!(found, wanted, "round {round}, in order {:?}", query.order);
    }
}

pub(crate) async fn a_row_is_read_by_its_key(store: &dyn Store) {
    if !store.answers() {
        return;
    }
    let mut shelf = Shelf::new(store, "row-by-key", 13).await;
    let keys: Vec<Key> = shelf.rows.keys().take(3).cloned().collect();
    for key in &keys {
        let row = shelf.row(&shelf.rows[key].0);
        assert_eq!(shelf.queries().row(key).await.unwrap(), Some(row));
    }
    shelf.delete(&keys[0]).await;
    shelf.queries().refresh().await.unwrap();
    assert_eq!(shelf.queries().row(&keys[0]).await.unwrap(), None, "deleted");
    // Whose rows they are, and whose model, is asked each time.
    let mut stranger = shelf.bench.spec.clone();
    stranger.connector = "stranger".to_owned();
    let mut newer = shelf.bench.spec.clone();
    newer.fingerprint = "another".to_owned();
    let want = Want::And(Vec::new());
    let query = shelf.query(&want);
    for spec in [stranger, newer] {
        let target = store.target(spec).await;
        let queries = target.queries().unwrap();
        let error = queries.row(&keys[1]).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "{error}");
        let error = queries.rows(&query).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "{error}");
    }
    // A page ends where its bytes end, after one row at least, and the next goes on there.
    let small = RowQuery { bytes_max: 1, max: 50, ..query };
    let found = shelf.read(&small, async |_| ()).await;
    assert_eq!(found.len(), shelf.rows.len());
    let model = std::sync::Arc::clone(&shelf.bench.model);
    let first = page(shelf.queries(), &model, &small, None).await.unwrap();
    assert_eq!(first.rows.len(), 1);
}
