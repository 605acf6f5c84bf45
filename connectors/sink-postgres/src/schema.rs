//! Tables: the DDL that makes one, and whether one that stands there fits.

use foldline_api::column::ColumnType;
use foldline_api::model::{Column, Model};
use foldline_api::{Error, Result};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::codec::{literal_text, sql_type};
use crate::error::classify;
use crate::identifier::{TableName, index_name, literal, quote, quote_list};

/// What stands under a table's name.
#[derive(Debug)]
pub(crate) struct Relation {
    /// Its OID: the physical target.
    pub(crate) oid: u32,
    /// Why rows cannot be kept in it, whatever its columns.
    pub(crate) refused: Option<String>,
    /// Its columns.
    pub(crate) columns: Vec<Found>,
    /// Its indexes.
    pub(crate) indexes: Vec<Index>,
}

/// A column that stands there.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    name: String,
    ty: String,
    not_null: bool,
    filled: bool,
    written_by_server: bool,
    deterministic: bool,
}

/// An index that stands there.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    columns: Vec<String>,
    primary: bool,
    /// Whether `ON CONFLICT` can use it: unique, immediate, valid, whole.
    arbiter: bool,
    plain: bool,
    constraint: Option<String>,
}

const RELATION: &str = "\
SELECT c.oid, c.relkind::text, c.relpersistence::text, c.relhasrules, row_security_active(c.oid), \
EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = c.oid) AND c.relkind = 'r', \
EXISTS (SELECT 1 FROM pg_partition_tree(c.oid) p JOIN pg_class l ON l.oid = p.relid \
WHERE c.relkind = 'p' AND (l.relkind NOT IN ('r', 'p') OR l.relpersistence <> 'p')) \
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";

const COLUMNS: &str = "\
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, \
a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '', \
a.attidentity = 'a' OR a.attgenerated <> '', coalesce(l.collisdeterministic, true) \
FROM pg_attribute a LEFT JOIN pg_collation l ON l.oid = a.attcollation \
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

const INDEXES: &str = "\
SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(n, ord) \
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n \
WHERE k.ord <= i.indnkeyatts ORDER BY k.ord), i.indisprimary, \
i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL, \
i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL, k.conname::text \
FROM pg_index i LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype = 'p' \
WHERE i.indrelid = $1";

const READING: &str = "reading the catalog";

/// Looks at what stands under `schema`.`table`.
pub(crate) async fn inspect(
    client: &Client,
    schema: &str,
    table: &str,
) -> Result<Option<Relation>> {
    let wrong = |error| classify(error, READING);
    let rows = client
        .query_typed(RELATION, &[(&schema, Type::TEXT), (&table, Type::TEXT)])
        .await
        .map_err(wrong)?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let oid: u32 = row.try_get(0).map_err(wrong)?;
    let (kind, persistence): (&str, &str) =
        (row.try_get(1).map_err(wrong)?, row.try_get(2).map_err(wrong)?);
    let (rules, security) = (row.try_get(3).map_err(wrong)?, row.try_get(4).map_err(wrong)?);
    let (inherited, foreign) = (row.try_get(5).map_err(wrong)?, row.try_get(6).map_err(wrong)?);
    let refused = match (kind, persistence) {
        ("v", _) => Some("a view"),
        ("m", _) => Some("a materialized view"),
        ("f", _) => Some("a foreign table"),
        ("r" | "p", "u") => Some("UNLOGGED: a crash of the server empties it behind its positions"),
        ("r" | "p", "t") => Some("a temporary table"),
        ("r" | "p", _) if rules => Some("a table with rewrite rules"),
        ("r" | "p", _) if security => Some("a table with row security for this role"),
        ("r" | "p", _) if inherited => Some("a table that others inherit from"),
        ("r" | "p", _) if foreign => Some("a table with foreign or unlogged partitions"),
        ("r" | "p", _) => None,
        _ => Some("no table"),
    };
    let refused = refused.map(ToOwned::to_owned);
    let by_oid: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] = &[(&oid, Type::OID)];
    let columns = columns(client, oid).await?;
    let indexes = client.query_typed(INDEXES, by_oid).await.map_err(wrong)?;
    Ok(Some(Relation {
        oid,
        refused,
        columns,
        indexes: indexes.iter().map(Index::read).collect::<Result<_, _>>().map_err(wrong)?,
    }))
}

/// The columns of a table.
pub(crate) async fn columns(client: &Client, oid: u32) -> Result<Vec<Found>> {
    let wrong = |error| classify(error, READING);
    let rows = client.query_typed(COLUMNS, &[(&oid, Type::OID)]).await.map_err(wrong)?;
    rows.iter().map(Found::read).collect::<Result<_, _>>().map_err(wrong)
}

/// What of a table's columns keeps the model's rows out of it.
pub(crate) fn misfits(columns: &[Found], model: &Model) -> Vec<String> {
    let mut out = Vec::new();
    let of = |name: &str| columns.iter().find(|column| column.name == name);
    for column in &model.columns {
        let name = &*column.name;
        let Some(found) = of(name) else {
            out.push(format!("column {name:?} ({}) is missing", sql_type(&column.ty)));
            continue;
        };
        if !fits(&column.ty, &found.ty) {
            out.push(format!(
                "column {name:?} is {} and must be {}",
                found.ty,
                sql_type(&column.ty)
            ));
        }
        if found.written_by_server {
            out.push(format!("column {name:?} is generated by the server"));
        }
    }
    for column in model.key_columns() {
        if of(&column.name).is_some_and(|found| !found.deterministic) {
            out.push(format!(
                "key column {:?} has a nondeterministic collation: there two keys can be one",
                column.name
            ));
        }
    }
    for found in columns {
        if found.not_null && !found.filled && model.position(&found.name).is_none() {
            out.push(format!(
                "column {:?} is NOT NULL without a default, and the projection does not have it",
                found.name
            ));
        }
    }
    out
}

/// The model's columns that the table does not let be null, but for its key's.
pub(crate) fn filled(columns: &[Found], model: &Model) -> Vec<String> {
    let key: Vec<&str> = model.key_columns().map(|column| &*column.name).collect();
    let filled = columns.iter().filter(|found| found.not_null && !key.contains(&&*found.name));
    let ours = filled.filter(|found| model.position(&found.name).is_some());
    ours.map(|found| found.name.clone()).collect()
}

impl Found {
    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Found {
            name: row.try_get(0)?,
            ty: row.try_get(1)?,
            not_null: row.try_get(2)?,
            filled: row.try_get(3)?,
            written_by_server: row.try_get(4)?,
            deterministic: row.try_get(5)?,
        })
    }
}

impl Index {
    fn read(row: &tokio_postgres::Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Index {
            columns: row.try_get(0)?,
            primary: row.try_get(1)?,
            arbiter: row.try_get(2)?,
            plain: row.try_get(3)?,
            constraint: row.try_get(4)?,
        })
    }
}

impl Found {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Relation {
    /// Whether there is such a column.
    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.column(name).is_some()
    }

    fn column(&self, name: &str) -> Option<&Found> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The model's columns that are not there.
    pub(crate) fn missing<'m>(&self, model: &'m Model) -> Vec<&'m Column> {
        model.columns.iter().filter(|column| self.column(&column.name).is_none()).collect()
    }

    fn has_key(&self, model: &Model) -> bool {
        let mut wanted: Vec<&str> = model.key_columns().map(|column| &*column.name).collect();
        wanted.sort_unstable();
        self.indexes.iter().any(|index| {
            let mut columns: Vec<&str> = index.columns.iter().map(String::as_str).collect();
            columns.sort_unstable();
            index.arbiter && columns == wanted
        })
    }

    /// What keeps the model's rows out of this table; empty where it fits.
    pub(crate) fn misfits(&self, model: &Model) -> Vec<String> {
        let mut out = misfits(&self.columns, model);
        if !self.has_key(model) {
            let names = quote_list(model.key_columns().map(|column| &*column.name));
            out.push(format!(
                "there is no primary key or immediate unique constraint on exactly ({names})"
            ));
        }
        out
    }

    /// Statements for the model's indexes that are not there, under any name.
    pub(crate) fn missing_indexes(&self, table: &TableName, model: &Model) -> Vec<String> {
        indexes(model)
            .into_iter()
            .filter(|columns| {
                !self.indexes.iter().any(|index| index.plain && index.columns == *columns)
            })
            .map(|columns| create_index(table, &columns))
            .collect()
    }

    /// Statements that bring this table, when it is empty, to another model. The user's own columns,
    /// indexes and constraints stay.
    pub(crate) fn reshape(&self, table: &TableName, model: &Model) -> Vec<String> {
        let (name, mut out) = (table.sql(), Vec::new());
        let key: Vec<&str> = model.key_columns().map(|column| &*column.name).collect();
        if !self.has_key(model)
            && let Some(old) = self.indexes.iter().find(|index| index.primary)
            && let Some(constraint) = &old.constraint
        {
            out.push(format!("ALTER TABLE {name} DROP CONSTRAINT {}", quote(constraint)));
            for column in old.columns.iter().filter(|column| !key.contains(&column.as_str())) {
                out.push(format!(
                    "ALTER TABLE {name} ALTER COLUMN {} DROP NOT NULL",
                    quote(column)
                ));
            }
        }
        for column in &model.columns {
            match self.column(&column.name) {
                None => out.push(add_column(table, column)),
                Some(found) if !fits(&column.ty, &found.ty) => out.push(format!(
                    "ALTER TABLE {name} ALTER COLUMN {column} DROP DEFAULT, ALTER COLUMN {column} TYPE {ty} \
                     USING NULL::{ty}",
                    column = quote(&column.name),
                    ty = sql_type(&column.ty),
                )),
                Some(_) => {}
            }
        }
        if !self.has_key(model) {
            out.push(format!("ALTER TABLE {name} ADD PRIMARY KEY ({})", quote_list(key)));
        }
        out.extend(self.missing_indexes(table, model));
        out
    }
}

/// Whether a column of `found`, as `format_type` prints it, keeps values of `ty` as they are.
fn fits(ty: &ColumnType, found: &str) -> bool {
    match ty {
        ColumnType::Text => matches!(found, "text" | "character varying"),
        ColumnType::Numeric(Some(_)) => found == "numeric" || found == sql_type(ty),
        ColumnType::Varchar(n) => found == format!("character varying({n})"),
        ColumnType::TimestampTz => found == "timestamp with time zone",
        ColumnType::Time => found == "time without time zone",
        ColumnType::Array(item) => found.strip_suffix("[]").is_some_and(|found| fits(item, found)),
        other => found == sql_type(other),
    }
}

fn definition(column: &Column) -> String {
    let ty = sql_type(&column.ty);
    if column.default.is_null() {
        return format!("{} {ty}", quote(&column.name));
    }
    let default = literal(&literal_text(&column.ty, &column.default));
    format!("{} {ty} DEFAULT {default}::{ty}", quote(&column.name))
}

/// `ALTER TABLE .. ADD COLUMN`: rows that are there get the default, which is what a new row holds.
pub(crate) fn add_column(table: &TableName, column: &Column) -> String {
    format!("ALTER TABLE {} ADD COLUMN {}", table.sql(), definition(column))
}

fn create_index(table: &TableName, columns: &[&str]) -> String {
    format!(
        "CREATE INDEX {} ON {} ({})",
        quote(&index_name(&table.table, columns)),
        table.sql(),
        quote_list(columns.iter().copied())
    )
}

/// Columns of the model's indexes, each list once.
fn indexes(model: &Model) -> Vec<Vec<&str>> {
    let name = |at: &usize| model.columns.get(*at).map(|column| &*column.name);
    let mut out: Vec<Vec<&str>> = Vec::new();
    let single = model.columns.iter().filter(|c| c.index).map(|c| vec![&*c.name]);
    let several = model.indexes.iter().map(|list| list.iter().filter_map(name).collect());
    for columns in single.chain(several) {
        if !out.contains(&columns) {
            out.push(columns);
        }
    }
    out
}

/// The DDL of a new table.
pub(crate) fn create(table: &TableName, model: &Model) -> Vec<String> {
    let mut lines: Vec<String> =
        model.columns.iter().map(|column| format!("    {}", definition(column))).collect();
    let key = quote_list(model.key_columns().map(|column| &*column.name));
    lines.push(format!("    PRIMARY KEY ({key})"));
    let mut out = vec![format!("CREATE TABLE {} (\n{}\n)", table.sql(), lines.join(",\n"))];
    out.extend(indexes(model).iter().map(|columns| create_index(table, columns)));
    out
}

/// Names that PostgreSQL keeps for itself on every table.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

/// Whether PostgreSQL can hold the model at all.
pub(crate) fn check(model: &Model) -> Result<()> {
    for column in &model.columns {
        crate::identifier::check(&column.name).map_err(Error::config)?;
        if SYSTEM_COLUMNS.contains(&&*column.name) {
            return Err(Error::config(format!(
                "column {:?}: PostgreSQL keeps this name for itself, choose another",
                column.name
            )));
        }
    }
    if let Some(column) = model.key_columns().find(|column| !column.ty.can_be_key()) {
        return Err(Error::config(format!(
            "key column {:?} is {}, which cannot be a key",
            column.name, column.ty
        )));
    }
    if model.key.is_empty() {
        return Err(Error::config("the projection has no key column"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldline_api::value::Value;

    fn model() -> Model {
        let column = |name: &str, ty: &str, index: bool, default: Value| Column {
            name: name.into(),
            ty: ColumnType::parse(ty).unwrap(),
            index,
            default,
        };
        Model {
            columns: vec![
                column("id", "bigint", false, Value::Null),
                column("user_id", "bigint", true, Value::Null),
                column("note", "varchar(9)", false, Value::text("it's \\ new")),
                column("tags", "text[]", false, Value::list(vec![Value::text("a\"b")])),
            ],
            key: vec![0],
            indexes: vec![vec![1, 2], vec![1]],
        }
    }

    #[test]
    fn ddl_quotes_everything_and_names_indexes() {
        let table = TableName::parse("sales.orders").unwrap();
        assert_eq!(
            create(&table, &model()),
            [
                "CREATE TABLE \"sales\".\"orders\" (\n    \"id\" bigint,\n    \"user_id\" bigint,\n    \
                 \"note\" varchar(9) DEFAULT E'it''s \\\\ new'::varchar(9),\n    \"tags\" text[] DEFAULT \
                 E'{\"a\\\\\"b\"}'::text[],\n    PRIMARY KEY (\"id\")\n)",
                "CREATE INDEX \"orders_user_id_idx\" ON \"sales\".\"orders\" (\"user_id\")",
                "CREATE INDEX \"orders_user_id_note_idx\" ON \"sales\".\"orders\" (\"user_id\", \"note\")",
            ]
        );
    }

    #[test]
    fn only_a_type_that_keeps_the_value_fits() {
        for (ty, found, expect) in [
            ("bigint", "bigint", true),
            ("bigint", "integer", false),
            ("text", "character varying", true),
            ("text", "citext", false),
            ("varchar(9)", "character varying(9)", true),
            ("varchar(9)", "character varying(8)", false),
            ("numeric(12,2)", "numeric(12,2)", true),
            ("numeric(12,2)", "numeric", true),
            ("numeric", "numeric(12,2)", false),
            ("timestamptz", "timestamp with time zone", true),
            ("timestamptz", "timestamp(3) with time zone", false),
            ("time", "time without time zone", true),
            ("varchar(9)[]", "character varying(9)[]", true),
            ("double precision", "double precision", true),
        ] {
            assert_eq!(fits(&ColumnType::parse(ty).unwrap(), found), expect, "{ty} {found}");
        }
    }

    #[test]
    fn names_of_the_server_are_refused() {
        let mut model = model();
        assert!(check(&model).is_ok());
        if let Some(column) = model.columns.get_mut(2) {
            column.name = "xmin".into();
        }
        assert!(check(&model).is_err());
    }
}
