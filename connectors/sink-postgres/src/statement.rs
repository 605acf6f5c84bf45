//! The SQL of rows, as text: pure, the same for every batch size.

use foldline_api::column::ColumnType;
use foldline_api::expiry::Rule;
use foldline_api::model::{Column, Model};

use crate::codec::{cast, wire_array_type};
use crate::identifier::{quote, quote_list};

/// One connector's statements on its table. `$n` are arrays, one element per row; the last array of
/// those that check a version is of `xid`.
#[derive(Clone, Debug)]
pub(crate) struct Statements {
    /// Reads states by key: position of the key, all columns, version.
    pub(crate) load: String,
    /// Writes rows that are at their version.
    pub(crate) update: String,
    /// Writes rows that are not there.
    pub(crate) insert: String,
    /// Writes the many rows of a load.
    pub(crate) copy: String,
    /// Deletes rows that are at their version.
    pub(crate) delete: String,
    /// Yields a row for each key that is not at its version.
    pub(crate) present: String,
    /// Yields a row for each key that is there.
    pub(crate) absent: String,
    /// Locks what rows there are, in the order of the keys.
    pub(crate) lock: String,
    /// Whether the table has no rows.
    pub(crate) empty: String,
}

impl Statements {
    /// For `table`, already quoted.
    pub(crate) fn new(table: &str, model: &Model) -> Self {
        let all: Vec<&Column> = model.columns.iter().collect();
        let keys: Vec<&Column> = model.key_columns().collect();
        let names = quote_list(all.iter().map(|column| &*column.name));
        let key_names = quote_list(keys.iter().map(|column| &*column.name));
        let shown: Vec<String> =
            all.iter().map(|column| format!("t.{}", quote(&column.name))).collect();
        let values: Vec<String> = all
            .iter()
            .enumerate()
            .map(|(at, column)| format!("u.c{at}{}", cast(&column.ty)))
            .collect();
        // Keys stand at their own place in `update`, whose arrays are all columns.
        let by_key = same_key(keys.iter().copied().zip(0..));
        let by_own = same_key(keys.iter().copied().zip(model.key.iter().copied()));
        let by_key_at_version = format!("{by_key} AND t.xmin = u.v");
        let (all_rows, key_rows) = (arrays(&all, false), arrays(&keys, false));
        let (all_versions, key_versions) = (arrays(&all, true), arrays(&keys, true));
        let (all_aliases, key_aliases) = (aliases(all.len()), aliases(keys.len()));
        Statements {
            load: format!(
                "SELECT u.ord, {}, t.xmin FROM unnest({key_rows}) WITH ORDINALITY AS u({key_aliases}, ord) \
                 JOIN {table} AS t ON {by_key}",
                shown.join(", "),
            ),
            update: format!(
                "UPDATE {table} AS t SET {} FROM unnest({all_versions}) AS u({all_aliases}, v) \
                 WHERE {by_own} AND t.xmin = u.v",
                assignments(model, &values),
            ),
            insert: format!(
                "INSERT INTO {table} ({names}) SELECT {} FROM unnest({all_rows}) WITH ORDINALITY AS \
                 u({all_aliases}, ord) ORDER BY u.ord ON CONFLICT ({key_names}) DO NOTHING",
                values.join(", "),
            ),
            copy: format!("COPY {table} ({names}) FROM STDIN"),
            delete: format!(
                "DELETE FROM {table} AS t USING unnest({key_versions}) AS u({key_aliases}, v) \
                 WHERE {by_key_at_version}",
            ),
            present: format!(
                "SELECT 1 FROM unnest({key_versions}) AS u({key_aliases}, v) WHERE NOT EXISTS (SELECT 1 \
                 FROM {table} AS t WHERE {by_key_at_version})",
            ),
            absent: format!(
                "SELECT 1 FROM unnest({key_rows}) AS u({key_aliases}) JOIN {table} AS t ON {by_key}",
            ),
            lock: format!(
                "SELECT 1 FROM unnest({key_rows}) WITH ORDINALITY AS u({key_aliases}, ord) \
                 JOIN {table} AS t ON {by_key} ORDER BY u.ord FOR NO KEY UPDATE OF t",
            ),
            empty: format!("SELECT NOT EXISTS (SELECT 1 FROM {table})"),
        }
    }

    /// In the order in which `foldline plan` shows them.
    pub(crate) fn into_texts(self) -> Vec<String> {
        vec![self.load, self.update, self.insert, self.delete, self.present, self.absent]
    }
}

/// Reads the keys and versions of rows whose column lies before a moment, an array of one.
pub(crate) fn past_sql(table: &str, model: &Model, rule: &Rule) -> Option<String> {
    let column = model.columns.get(rule.column)?;
    let array = wire_array_type(&column.ty);
    let keys: Vec<String> =
        model.key_columns().map(|column| format!("t.{}", quote(&column.name))).collect();
    let field = quote(&column.name);
    Some(format!(
        "SELECT {}, t.xmin FROM {table} AS t WHERE t.{field} < ($1::{}[])[1] ORDER BY t.{field} LIMIT $2",
        keys.join(", "),
        array.name().trim_start_matches('_'),
    ))
}

fn same_key<'a>(keys: impl Iterator<Item = (&'a Column, usize)>) -> String {
    let pairs: Vec<String> =
        keys.map(|(column, at)| format!("t.{} = u.c{at}", quote(&column.name))).collect();
    pairs.join(" AND ")
}

fn arrays(columns: &[&Column], versions: bool) -> String {
    let mut list: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| format!("${}::{}", at + 1, array_name(&column.ty)))
        .collect();
    if versions {
        list.push(format!("${}::xid[]", columns.len() + 1));
    }
    list.join(", ")
}

fn array_name(ty: &ColumnType) -> String {
    // PostgreSQL names an array type by its element with an underscore before it.
    format!("{}[]", wire_array_type(ty).name().trim_start_matches('_'))
}

fn aliases(count: usize) -> String {
    (0..count).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ")
}

fn assignments(model: &Model, values: &[String]) -> String {
    let folded = |at: &usize| !model.key.contains(at);
    let mut at: Vec<usize> = (0..model.columns.len()).filter(folded).collect();
    if at.is_empty() {
        // A row of nothing but its key is still written, so that its version moves.
        at.extend(model.key.first());
    }
    let list: Vec<String> = at
        .iter()
        .filter_map(|&at| {
            let column = model.columns.get(at)?;
            Some(format!("{} = {}", quote(&column.name), values.get(at)?))
        })
        .collect();
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldline_api::value::Value;

    fn model(columns: &[(&str, &str)], key: &[usize]) -> Model {
        let column = |(name, ty): &(&str, &str)| Column {
            name: (*name).into(),
            ty: ColumnType::parse(ty).unwrap(),
            index: false,
            default: Value::Null,
        };
        Model {
            columns: columns.iter().map(column).collect(),
            key: key.to_vec(),
            indexes: Vec::new(),
        }
    }

    #[test]
    fn statements_of_a_composite_key() {
        let model = model(
            &[("price", "numeric(12,2)"), ("Day", "date"), ("tags", "varchar(9)[]"), ("u", "text")],
            &[3, 1],
        );
        let sql = Statements::new("\"sales\".\"orders\"", &model);
        assert_eq!(
            sql.load,
            "SELECT u.ord, t.\"price\", t.\"Day\", t.\"tags\", t.\"u\", t.xmin FROM unnest($1::text[], \
             $2::date[]) WITH ORDINALITY AS u(c0, c1, ord) JOIN \"sales\".\"orders\" AS t ON t.\"u\" = \
             u.c0 AND t.\"Day\" = u.c1"
        );
        assert_eq!(
            sql.update,
            "UPDATE \"sales\".\"orders\" AS t SET \"price\" = u.c0, \"tags\" = u.c2::text[] FROM \
             unnest($1::numeric[], $2::date[], $3::text[], $4::text[], $5::xid[]) AS u(c0, c1, c2, c3, v) \
             WHERE t.\"u\" = u.c3 AND t.\"Day\" = u.c1 AND t.xmin = u.v"
        );
        assert_eq!(
            sql.insert,
            "INSERT INTO \"sales\".\"orders\" (\"price\", \"Day\", \"tags\", \"u\") SELECT u.c0, u.c1, \
             u.c2::text[], u.c3 FROM unnest($1::numeric[], $2::date[], $3::text[], $4::text[]) WITH \
             ORDINALITY AS u(c0, c1, c2, c3, ord) ORDER BY u.ord ON CONFLICT (\"u\", \"Day\") DO NOTHING"
        );
        assert_eq!(
            sql.delete,
            "DELETE FROM \"sales\".\"orders\" AS t USING unnest($1::text[], $2::date[], $3::xid[]) AS \
             u(c0, c1, v) WHERE t.\"u\" = u.c0 AND t.\"Day\" = u.c1 AND t.xmin = u.v"
        );
    }

    #[test]
    fn a_row_of_only_its_key_is_written_too() {
        let sql = Statements::new("\"seen\"", &model(&[("id", "bigint")], &[0]));
        assert!(sql.update.contains("SET \"id\" = u.c0"), "{}", sql.update);
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        let sql = Statements::new("\"t\"", &model(&[("a\"; drop table t; --", "bigint")], &[0]));
        assert!(sql.insert.contains("(\"a\"\"; drop table t; --\")"), "{}", sql.insert);
    }
}
