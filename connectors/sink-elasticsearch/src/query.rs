//! Queries as searches of the readers' alias, which hides tombstones.
//!
//! What an index holds is not always what the document does, and each time it differs is seen to here, without scripts, which a
//! cluster may not have. A date has milliseconds there: a search finds what may match, in the order of milliseconds, and rows are looked at and
//! those of one millisecond put in order here. A text beyond `ignore_above` is left out: who compares or orders by a field that has
//! one is told. A null stands where the greatest integer does when documents are ordered: the same field as a double, where null is
//! infinite, tells them apart. Bounds of dates are written as whole moments and with `gte` and `lt` only, as the others round.

mod field;
mod sorted;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::binding::check_projection;
use foldline_api::column::{ColumnType, scalar_text};
use foldline_api::json;
use foldline_api::model::{Column, Key, Model, Row};
use foldline_api::query::{Filter, Lookup, Queries, RowQuery, Side, column_of};
use foldline_api::time::{Date, Timestamp};
use foldline_api::value::Value;
use foldline_api::{Error, Result};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::field::{By, Compared, refused};
use self::sorted::Sorted;
use crate::document;
use crate::search::Page;
use crate::target::ElasticsearchTarget;
use crate::writer::ElasticsearchWriter;

/// What is written is made visible no more often.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);
const DOING: &str = "reading documents";

/// Documents of one search.
const CHUNK: usize = 500;
/// When the index was refreshed last.
pub(crate) type Refreshed = Mutex<Option<Instant>>;

/// A search as it grows.
struct Search<'q> {
    model: &'q Model,
    properties: &'q Json,
    /// Fields of which no text may be left out, with the column's name.
    whole: BTreeMap<String, String>,
}

impl<'q> Search<'q> {
    fn new(model: &'q Model, properties: &'q Json) -> Self {
        Search { model, properties, whole: BTreeMap::new() }
    }

    fn column(&self, column: usize) -> Result<&'q Column> {
        column_of(self.model, column).map_err(Error::config)
    }

    fn compared(&self, column: usize) -> Result<Compared> {
        Compared::of(self.column(column)?, self.properties)
    }

    /// What finds all documents that the filter holds for, and of those within a millisecond of its moments maybe more.
    fn filter(&mut self, filter: &Filter) -> Result<Json> {
        Ok(match filter {
            Filter::All(list) if list.is_empty() => json!({ "match_all": {} }),
            Filter::Any(list) if list.is_empty() => json!({ "match_none": {} }),
            Filter::All(list) => all(self.each(list)?),
            Filter::Any(list) => any(self.each(list)?),
            Filter::In(column, values) => self.among(*column, values)?,
            Filter::NotIn(column, values) => match self.compared(*column)?.by {
                // Others lie in the same millisecond.
                By::Moment => json!({ "match_all": {} }),
                _ => not(self.among(*column, values)?),
            },
            Filter::Compare(column, side, value) => self.side(*column, *side, value)?,
            Filter::Null(column) => not(self.filled(*column)?),
            Filter::Filled(column) => self.filled(*column)?,
        })
    }

    fn each(&mut self, list: &[Filter]) -> Result<Vec<Json>> {
        list.iter().map(|each| self.filter(each)).collect()
    }

    fn filled(&self, column: usize) -> Result<Json> {
        let of = self.column(column)?;
        Compared::check_null(of, self.properties)?;
        let name = &*of.name;
        // What the index left out is there all the same. A subfield leaves out under its own name.
        let field = Compared::of(of, self.properties).map_or_else(|_| name.to_owned(), |c| c.field);
        Ok(any(vec![
            json!({ "exists": { "field": field } }),
            json!({ "term": { "_ignored": field } }),
        ]))
    }

    fn among(&mut self, column: usize, values: &[Value]) -> Result<Json> {
        let Compared { field, by } = self.compared(column)?;
        match by {
            By::Moment | By::Day => {
                let each = values.iter().map(|value| match value {
                    Value::Timestamp(at) => Ok(range(&field, millis_bounds(*at))),
                    Value::Date(day) => Ok(range(&field, day_bounds(*day))),
                    _ => Err(Error::config(format!("{field}: no moment"))),
                });
                Ok(any(each.collect::<Result<_>>()?))
            }
            By::Text(above) => {
                for value in values {
                    check_length(&field, value, above)?;
                }
                Ok(terms(&field, values))
            }
            By::Itself => Ok(terms(&field, values)),
        }
    }

    fn side(&mut self, column: usize, side: Side, value: &Value) -> Result<Json> {
        let Compared { field, by } = self.compared(column)?;
        match (by, value) {
            (By::Moment, Value::Timestamp(at)) => {
                let (from, to) = millis_bounds(*at);
                let micros = at.micros().rem_euclid(1_000);
                Ok(match side {
                    Side::Less if micros == 0 => range(&field, (None, from)),
                    Side::Less | Side::LessOrEqual => range(&field, (None, to)),
                    Side::Greater if micros == 999 => {
                        to.map_or(none(), |to| range(&field, (Some(to), None)))
                    }
                    Side::Greater | Side::GreaterOrEqual => range(&field, (from, None)),
                })
            }
            (By::Day, Value::Date(day)) => {
                let (from, to) = day_bounds(*day);
                Ok(match side {
                    Side::Less => range(&field, (None, from)),
                    Side::LessOrEqual => range(&field, (None, to)),
                    Side::GreaterOrEqual => range(&field, (from, None)),
                    Side::Greater => to.map_or(none(), |to| range(&field, (Some(to), None))),
                })
            }
            (By::Text(above), value) => {
                check_length(&field, value, above)?;
                self.must_be_whole(column, &field, above)?;
                Ok(compare(&field, side, value))
            }
            _ => Ok(compare(&field, side, value)),
        }
    }

    /// Texts that the index left out are in no order.
    fn must_be_whole(&mut self, column: usize, field: &str, above: u64) -> Result<()> {
        let of = self.column(column)?;
        // A character is two of Java's at most.
        let fits = matches!(of.ty, ColumnType::Varchar(max) if u64::from(max) * 2 <= above);
        if !fits {
            self.whole.insert(field.to_owned(), of.name.to_string());
        }
        Ok(())
    }

    /// Null is the greatest. Told with it is how many of the keys are in order up to the first that has milliseconds only.
    fn order(&mut self, query: &RowQuery) -> Result<(Vec<Json>, Option<usize>)> {
        let (mut keys, mut coarse) = (Vec::new(), None);
        for sort in &query.order {
            let Compared { field, by } = self.compared(sort.column)?;
            let (order, missing) =
                if sort.descending { ("desc", "_first") } else { ("asc", "_last") };
            keys.push(json!({ &field: { "order": order, "missing": missing } }));
            let whole = matches!(
                self.column(sort.column)?.ty,
                ColumnType::BigInt | ColumnType::Integer | ColumnType::SmallInt
            );
            match by {
                By::Moment => coarse = coarse.or(Some(keys.len())),
                By::Text(above) => self.must_be_whole(sort.column, &field, above)?,
                By::Itself if whole && !self.model.key.contains(&sort.column) => {
                    let double =
                        json!({ "order": order, "missing": missing, "numeric_type": "double" });
                    keys.push(json!({ field: double }));
                }
                By::Itself | By::Day => {}
            }
        }
        Ok((keys, coarse))
    }
}

fn all(list: Vec<Json>) -> Json {
    json!({ "bool": { "filter": list } })
}

fn any(list: Vec<Json>) -> Json {
    json!({ "bool": { "should": list, "minimum_should_match": 1 } })
}

fn not(one: Json) -> Json {
    json!({ "bool": { "must_not": one } })
}

fn none() -> Json {
    json!({ "match_none": {} })
}

/// A value as the document has it.
fn written(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!(&**text),
        Value::Bool(bool) => json!(bool),
        Value::Int(int) => json!(int),
        Value::Double(double) => json!(double),
        Value::Decimal(_) => serde_json::from_str(&json::to_string(value)).unwrap_or_default(),
        other => json!(scalar_text(other)),
    }
}

fn terms(field: &str, values: &[Value]) -> Json {
    json!({ "terms": { field: values.iter().map(written).collect::<Vec<Json>>() } })
}

fn bound(side: Side) -> &'static str {
    match side {
        Side::Less => "lt",
        Side::LessOrEqual => "lte",
        Side::Greater => "gt",
        Side::GreaterOrEqual => "gte",
    }
}

fn compare(field: &str, side: Side, value: &Value) -> Json {
    json!({ "range": { field: { bound(side): written(value) } } })
}

/// From a moment on, and before another one; neither where there is none.
type Bounds = (Option<String>, Option<String>);

fn range(field: &str, (from, to): Bounds) -> Json {
    let mut bounds = Map::new();
    bounds.insert("format".to_owned(), json!("strict_date_optional_time"));
    bounds.extend(from.map(|from| ("gte".to_owned(), json!(from))));
    bounds.extend(to.map(|to| ("lt".to_owned(), json!(to))));
    json!({ "range": { field: bounds } })
}

/// The millisecond that a moment lies in, and the next one: there is none behind the last.
fn millis_bounds(at: Timestamp) -> Bounds {
    let millis = at.micros().div_euclid(1_000);
    let text = |millis| Timestamp::from_millis(millis).map(|moment| moment.to_string());
    (text(millis), text(millis + 1))
}

fn day_bounds(day: Date) -> Bounds {
    let text = |day| Date::from_days(day).map(|day| format!("{day}T00:00:00Z"));
    (text(day.days()), text(day.days() + 1))
}

fn is_refused(error: &Error) -> bool {
    error.code().is_some_and(|code| code.starts_with("400 "))
}

fn check_length(field: &str, value: &Value, above: u64) -> Result<()> {
    let length = match value {
        Value::Text(text) => text.encode_utf16().count() as u64,
        _ => 0,
    };
    if length <= above {
        return Ok(());
    }
    let why = format!("texts of more than {above} characters are left out of the index");
    Err(refused(field, &why, "compare with a shorter one"))
}

impl ElasticsearchTarget {
    /// Refuses to compare what the index lacks though the rows have it.
    async fn check(&self, search: &Search<'_>, query: &RowQuery, continued: bool) -> Result<()> {
        let columns = query.filter.columns().into_iter().map(|(column, _)| column);
        let columns = columns.chain(query.order.iter().map(|sort| sort.column));
        for column in columns.filter(|_| continued) {
            let of = search.column(column)?;
            if !of.default.is_null() {
                let why = "documents of before it was added (on_change = \"continue\") have only its default, which no search sees";
                return Err(refused(&of.name, why, "rebuild the connector to compare it"));
            }
        }
        if search.whole.is_empty() {
            return Ok(());
        }
        let fields: Vec<&String> = search.whole.keys().collect();
        let left_out = json!({
            "size": 1,
            "track_total_hits": false,
            "seq_no_primary_term": true,
            "sort": ["_doc"],
            "_source": false,
            "query": { "terms": { "_ignored": fields } },
            "docvalue_fields": [],
        });
        let path = format!("/{}/_search", self.cluster.names.alias());
        let page: Page<Option<Json>> = self.cluster.client.search(&path, &left_out, DOING).await?;
        if page.into_hits().is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = search.whole.values().map(String::as_str).collect();
        Err(refused(
            &names.join(", "),
            "some texts are longer than `ignore_above` of your mapping (8,191 by default) and left out of the index, so they have no order there",
            "order and compare by other fields, or by == and in",
        ))
    }

    /// The rows' generation, once it is sure that they are this projection's; whether another one began it.
    async fn readable(&self) -> Result<(u64, bool)> {
        let binding = self.stored().await?.value.binding;
        let cannot = "its documents cannot be read";
        check_projection(&binding.fingerprint, &self.spec, &self.spec.target, cannot)?;
        Ok((binding.generation, binding.continued.contains(&binding.generation)))
    }

    async fn found(&self, query: &RowQuery) -> Result<Vec<Row>> {
        let (_, continued) = self.readable().await?;
        let alias = self.cluster.names.alias();
        let mapping = self.cluster.mapping(alias).await?;
        let properties = mapping.get("properties").cloned().unwrap_or_default();
        let model = &self.spec.model;
        let mut search = Search::new(model, &properties);
        let mut filters = vec![search.filter(&query.filter)?];
        let text = query.search.as_ref();
        filters.extend(text.map(|text| json!({ "query_string": { "query": text } })));
        let (sort, coarse) = search.order(query)?;
        self.check(&search, query, continued).await?;
        let size = query.max.clamp(1, CHUNK);
        let mut body = json!({
            "size": size,
            "seq_no_primary_term": true,
            "track_total_hits": false,
            "timeout": format!("{}ms", query.time.as_millis().max(1)),
            "query": all(filters),
            "sort": sort,
        });
        let path = format!("/{alias}/_search");
        let mut sorted = Sorted::new(query, coarse);
        loop {
            let page: Page<Box<RawValue>> = self.cluster.client.search(&path, &body, DOING).await?;
            let mut hits = page.into_hits();
            for hit in &hits {
                if let (Some(row), _) = document::decode(model, hit.source.get().as_bytes())? {
                    sorted.push(row, &hit.sort)?;
                }
            }
            let last = hits.pop().filter(|_| hits.len() + 1 == size);
            let Some(last) = last.filter(|_| !sorted.is_full()) else { break };
            if let Some(body) = body.as_object_mut() {
                body.insert("search_after".to_owned(), Json::Array(last.sort));
            }
        }
        Ok(sorted.rows())
    }
}

#[async_trait]
impl Queries for ElasticsearchTarget {
    async fn row(&self, key: &Key) -> Result<Option<Row>> {
        let (generation, _) = self.readable().await?;
        let client = std::sync::Arc::clone(&self.cluster.client);
        let place = (generation, false);
        let writer = ElasticsearchWriter::new(client, self.books.clone(), &self.spec, place);
        let found = writer.read_some(&[document::id(key)], usize::MAX).await?.pop();
        Ok(found.and_then(|loaded| loaded.row))
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<Row>> {
        match tokio::time::timeout(query.time, self.found(query)).await {
            // What its shards say of it quotes documents.
            Ok(Err(error)) if query.search.is_some() && is_refused(&error) => Err(Error::config(
                "q is no query string that Elasticsearch takes: see its \"Query string query\"",
            )),
            Ok(found) => found,
            Err(_) => {
                let message =
                    format!("Elasticsearch: no answer within {} s", query.time.as_secs_f64());
                Err(Error::retriable(message).too_much())
            }
        }
    }

    /// At most one forced refresh a second; who asks while another one waits is served by the same.
    async fn refresh(&self) -> Result<()> {
        let asked = Instant::now();
        let mut last = self.refreshed.lock().await;
        if let Some(last) = *last {
            if last >= asked {
                return Ok(());
            }
            tokio::time::sleep_until(last + REFRESH_PAUSE).await;
        }
        *last = Some(Instant::now());
        self.cluster.client.refresh(self.cluster.names.alias(), "refreshing the index").await
    }

    /// Each field that is searched by has an index.
    fn indexed(&self, model: &Model) -> Vec<usize> {
        (0..model.columns.len()).collect()
    }

    fn serves(&self, _ty: &ColumnType, _how: Lookup) -> bool {
        true
    }

    fn searches(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn bounds_of_dates_are_whole_moments() {
        let of = |text: &str| millis_bounds(at(text));
        let pair = |from: &str, to: &str| (Some(from.to_owned()), Some(to.to_owned()));
        assert_eq!(
            of("1969-12-31T23:59:59.999999Z"),
            pair("1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00Z")
        );
        assert_eq!(
            of("1970-01-01T00:00:00.000001Z"),
            pair("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.001Z")
        );
        assert_eq!(of("9999-12-31T23:59:59.9995Z").1, None, "nothing is behind the last");
        let last = day_bounds(Date::from_days(2_932_896).unwrap());
        assert_eq!(last, (Some("9999-12-31T00:00:00Z".to_owned()), None));
    }

    #[test]
    fn a_search_finds_what_may_match() {
        let column = |(name, ty): &(&str, &str)| Column {
            name: (*name).into(),
            ty: ColumnType::parse(ty).unwrap(),
            index: false,
            default: Value::Null,
        };
        let columns = [("id", "bigint"), ("at", "timestamptz")].iter().map(column).collect();
        let model = Model { columns, key: vec![0], indexes: Vec::new() };
        let properties = json!({ "id": { "type": "long" }, "at": { "type": "date" } });
        let mut search = Search::new(&model, &properties);
        let mut side = |side, text| {
            let compare = Filter::Compare(1, side, Value::Timestamp(at(text)));
            search.filter(&compare).unwrap()
        };
        let from = |text: &str| range("at", (Some(text.to_owned()), None));
        let to = |text: &str| range("at", (None, Some(text.to_owned())));
        let whole = "1969-12-31T23:59:59Z";
        assert_eq!(side(Side::GreaterOrEqual, whole), from(whole));
        assert_eq!(side(Side::Greater, whole), from(whole));
        assert_eq!(side(Side::Greater, "1969-12-31T23:59:58.999999Z"), from(whole));
        assert_eq!(side(Side::Less, whole), to(whole));
        assert_eq!(side(Side::LessOrEqual, whole), to("1969-12-31T23:59:59.001Z"));
        assert_eq!(side(Side::Less, "1969-12-31T23:59:58.999001Z"), to(whole));
    }
}
