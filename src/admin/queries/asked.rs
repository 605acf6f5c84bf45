//! What a reader asks for, from the parameters of a path.

use foldline_api::model::Model;
use foldline_api::query::{Filter, RowQuery, Sort};
use foldline_api::value::Value;
use foldline_language::expr::filter;

use super::Wait;

/// Rows of a page, unless it is told.
const LIMIT: usize = 100;

/// The parameters that are no fields.
const WORDS: [&str; 8] = ["filter", "sort", "limit", "cursor", "q", "scan", "wait", "at"];

/// See the module.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) filter: Filter,
    pub(super) search: Option<String>,
    pub(super) order: Vec<Sort>,
    pub(super) limit: usize,
    pub(super) cursor: Option<String>,
    pub(super) scan: bool,
    pub(super) wait: Vec<Wait>,
}

impl Asked {
    /// Of a query's pairs; `limit_max` rows are a page at most.
    ///
    /// # Errors
    /// A sentence that names the parameter, and what may stand there.
    pub(super) fn read(
        model: &Model,
        pairs: &[(String, String)],
        limit_max: usize,
    ) -> Result<Self, String> {
        let mut conditions = Vec::new();
        let mut asked = Asked {
            filter: Filter::all(),
            search: None,
            order: RowQuery::order(model, &[])?,
            limit: LIMIT.min(limit_max),
            cursor: None,
            scan: false,
            wait: Vec::new(),
        };
        for (at, (name, text)) in pairs.iter().enumerate() {
            let before = pairs.get(..at).unwrap_or_default();
            if before.iter().any(|(known, _)| known == name) {
                return Err(format!("{name} stands twice: several conditions are one filter"));
            }
            match name.as_str() {
                "filter" => conditions.push(filter(text, model).map_err(|error| {
                    let help = error.help.as_ref().map(|help| format!(": {help}"));
                    format!("filter: {error}{}", help.unwrap_or_default())
                })?),
                "sort" => asked.order = sort(model, text)?,
                "limit" => asked.limit = limit(text, limit_max)?,
                "cursor" => asked.cursor = Some(text.clone()),
                "q" => asked.search = Some(text.clone()),
                "scan" => asked.scan = flag(name, text)?,
                "wait" => asked.wait = Wait::all(text)?,
                "at" => {
                    return Err(
                        "at is for one row: GET …/rows/{key}?at= tells what the log made of it"
                            .to_owned(),
                    );
                }
                field => conditions.push(equals(model, field, text)?),
            }
        }
        if !conditions.is_empty() {
            asked.filter = Filter::All(conditions);
        }
        Ok(asked)
    }
}

fn position(model: &Model, name: &str) -> Result<usize, String> {
    model.position(name).ok_or_else(|| {
        let fields: Vec<&str> = model.columns.iter().map(|column| &*column.name).collect();
        format!(
            "{name} is no field, and none of {}; fields are: {}",
            WORDS.join(", "),
            fields.join(", ")
        )
    })
}

fn equals(model: &Model, name: &str, text: &str) -> Result<Filter, String> {
    Filter::equals(model, position(model, name)?, Value::text(text))
}

fn sort(model: &Model, text: &str) -> Result<Vec<Sort>, String> {
    let one = |part: &str| {
        let (name, descending) = match part.strip_prefix('-') {
            Some(name) => (name, true),
            None => (part, false),
        };
        let column = model.position(name).ok_or_else(|| {
            format!(
                "sort: {name:?} is no field; allowed is sort=field,-field, the latter descending"
            )
        })?;
        Ok(Sort { column, descending })
    };
    let asked: Vec<Sort> = text.split(',').map(one).collect::<Result<_, String>>()?;
    RowQuery::order(model, &asked).map_err(|reason| format!("sort: {reason}"))
}

fn limit(text: &str, limit_max: usize) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=limit_max).contains(limit));
    limit.ok_or_else(|| format!("limit is a number from 1 to {limit_max} (worker.query_rows)"))
}

fn flag(name: &str, text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{name} is true or false"))
}

#[cfg(test)]
mod tests {
    use foldline_api::query::Side;
    use foldline_testkit::contract::model;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Asked, String> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Asked::read(&model(), &pairs, 500)
    }

    #[test]
    fn names_of_fields_compare_for_equality() {
        let asked = read(&[("name", "ann"), ("changes", "7"), ("filter", "amount < 2")]).unwrap();
        let two = Value::Decimal("2.00".parse().unwrap());
        assert_eq!(
            asked.filter,
            Filter::All(vec![
                Filter::In(1, vec![Value::text("ann")]),
                Filter::In(3, vec![Value::Int(7)]),
                Filter::Compare(2, Side::Less, two),
            ])
        );
        assert_eq!((asked.limit, asked.scan, asked.cursor), (100, false, None));
        assert_eq!(asked.order, [Sort { column: 0, descending: false }]);
        let asked =
            read(&[("sort", "-updated_at,id"), ("limit", "500"), ("scan", "true")]).unwrap();
        let order = [Sort { column: 4, descending: true }, Sort { column: 0, descending: false }];
        assert_eq!((asked.limit, asked.scan, &asked.order[..]), (500, true, &order[..]));
        assert!(asked.filter.is_all());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (pairs, says) in [
            (&[("nam", "x")][..], "nam is no field, and none of filter, sort"),
            (&[("changes", "x")], "changes: a text does not fit bigint: not a number"),
            (&[("changes", "")], "changes: a text does not fit bigint"),
            (&[("doc", "{}")], "doc is jsonb, which is compared with null only"),
            (&[("name", "a"), ("name", "b")], "name stands twice"),
            (&[("sort", "tags")], "sort: tags is text[], which has no order"),
            (&[("sort", "id,-id")], "sort: id stands twice"),
            (&[("sort", "")], "sort: \"\" is no field"),
            (&[("limit", "501")], "limit is a number from 1 to 500"),
            (&[("limit", "0")], "limit is a number from 1 to 500"),
            (&[("scan", "yes")], "scan is true or false"),
            (&[("filter", "nme == 'a'")], "filter: there is no field `nme`"),
            (&[("wait", "orders:0")], "wait is topic:partition:offset"),
            (&[("at", "2026-01-01T00:00:00Z")], "at is for one row"),
        ] {
            let error = read(pairs).unwrap_err();
            assert!(error.contains(says), "{pairs:?}: {error}");
        }
    }
}
