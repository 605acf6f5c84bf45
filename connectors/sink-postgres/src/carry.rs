//! What users put on a table, carried over to the next generation: the catalog's own texts with another
//! table's name in them. What cannot be carried is refused by name before anything is built.
//!
//! | carried when | what |
//! |---|---|
//! | the build begins | columns with their defaults and comments, checks, foreign keys to other tables, unique and exclusion constraints, `BEFORE` triggers, storage parameters, extended statistics, owner |
//! | the load is durable | other indexes |
//! | the names are swapped | grants, the table's comment, other triggers, views, foreign keys from other tables, owned sequences |
//!
//! All of it runs with `search_path` set to `pg_catalog`, so that every name in those texts has its schema.

use foldline_api::{Error, Result};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::classify;
use crate::generations::name_in;
use crate::identifier::{TableName, literal, quote};

/// Makes the catalog print every name with its schema, until the transaction ends.
pub(crate) const WHOLE_NAMES: &str = "SET LOCAL search_path = pg_catalog";

/// A table by name and OID.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Its name, with its schema.
    pub(crate) name: TableName,
    /// Its OID.
    pub(crate) oid: u32,
}

impl Table {
    fn sql(&self) -> String {
        self.name.sql()
    }
}

/// The first column of a query's rows.
pub(crate) async fn texts(client: &Client, sql: &str) -> Result<Vec<String>> {
    let doing = "reading what users put on the table";
    let messages = client.simple_query(sql).await.map_err(|error| classify(error, doing))?;
    let text = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(messages.iter().filter_map(text).collect())
}

/// Refuses what a swap would lose. `changed` are columns whose type changes or that go away.
pub(crate) async fn check(client: &Client, live: &Table, changed: &[String]) -> Result<()> {
    // In the server's words.
    let mut lost = texts(client, &sql!("carry/lost", oid = live.oid)).await?;
    if !changed.is_empty() {
        let names: Vec<String> = changed.iter().map(|name| literal(name)).collect();
        let columns = names.join(", ");
        let views = sql!("carry/views_on_columns", oid = live.oid, columns = columns);
        lost.extend(texts(client, &views).await?);
    }
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::config(format!(
        "a rebuild beside {} would lose: {}. Drop it first and make it again after, or rebuild with --in-place",
        live.name.label(),
        lost.join("; ")
    )))
}

/// Refuses columns of the user's own that hold what no fold can bring back. `own` are the columns that
/// neither projection has.
pub(crate) async fn check_own(client: &Client, live: &Table, own: &[String]) -> Result<()> {
    for column in own {
        let default = sql!("carry/own_default", oid = live.oid, column = literal(column));
        let default = texts(client, &default).await?;
        let Some(default) = default.first().filter(|default| *default != "fine") else { continue };
        let filled = texts(
            client,
            &format!(
                "SELECT 1 FROM {} WHERE {} IS DISTINCT FROM {default} LIMIT 1",
                live.sql(),
                quote(column)
            ),
        )
        .await?;
        if !filled.is_empty() {
            return Err(Error::config(format!(
                "column {column:?} of {} is not the projection's and holds values of its own, which a rebuild \
                 cannot bring back: move it to a table of its own, or make it GENERATED ALWAYS",
                live.name.label()
            )));
        }
    }
    Ok(())
}

/// Makes `next`, empty, as the live table is without its key and its plain indexes.
pub(crate) async fn create(
    client: &Client,
    live: &Table,
    next: &TableName,
    number: u64,
) -> Result<Vec<String>> {
    let (oid, name) = (live.oid, next.sql());
    let mut out =
        vec![format!("CREATE TABLE {name} (LIKE {} INCLUDING ALL EXCLUDING INDEXES)", live.sql())];
    let (next_name, on_next) = (literal(&name), literal(&format!(" ON {name} ")));
    let of_class = [
        sql!("carry/storage_parameters", next = next_name, oid = oid),
        sql!("carry/tablespace", next = next_name, oid = oid),
        sql!("carry/replica_identity", next = next_name, oid = oid),
        sql!("carry/foreign_keys", next = next_name, oid = oid),
        // A trigger before the row decides what the row is; one after it is for whoever watches.
        sql!("carry/triggers_before", on_next = on_next, oid = oid),
        sql!("carry/owner", next = next_name, oid = oid),
    ];
    for sql in of_class {
        out.extend(texts(client, &sql).await?);
    }
    out.extend(indexes(client, live, next, number, true).await?);
    Ok(out)
}

/// Statements for the live table's indexes on the other table: those that decide what a row may be
/// (`deciding`: keys, unique and exclusion constraints), or the others. Those there are left out.
pub(crate) async fn indexes(
    client: &Client,
    live: &Table,
    next: &TableName,
    number: u64,
    deciding: bool,
) -> Result<Vec<String>> {
    let schema = literal(next.schema.as_deref().unwrap_or_default());
    // An index on a column that the other table lacks is left out.
    let found =
        sql!("carry/indexes", oid = live.oid, deciding = deciding, next = literal(&next.sql()));
    let found = client.simple_query(&found).await;
    let found = found.map_err(|error| classify(error, "reading the table's indexes"))?;
    let taken = texts(client, &sql!("carry/names_in_schema", schema = schema)).await?;
    let mut out = Vec::new();
    for message in &found {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let get = |column: &str| row.get(column).unwrap_or_default();
        let (name, definition) = (name_in(get("name"), number), get("definition"));
        if taken.contains(&name) {
            continue;
        }
        out.push(if get("is_constraint") == "t" {
            format!("ALTER TABLE {} ADD CONSTRAINT {} {definition}", next.sql(), quote(&name))
        } else {
            let unique = if get("is_unique") == "t" { "UNIQUE " } else { "" };
            format!("CREATE {unique}INDEX {} ON {}{definition}", quote(&name), next.sql())
        });
        if let (Some(comment), Some(schema)) = (row.get("comment"), &next.schema) {
            let index = format!("{}.{}", quote(schema), quote(&name));
            out.push(format!("COMMENT ON INDEX {index} IS {}", literal(comment)));
        }
    }
    Ok(out)
}

/// The statements of a swap, in their order.
#[derive(Debug, Default)]
pub(crate) struct Swap {
    /// While the live table has its name.
    pub(crate) before: Vec<String>,
    /// The renames.
    pub(crate) renames: Vec<String>,
    /// When the next table has the name.
    pub(crate) after: Vec<String>,
    /// After the commit, each alone: foreign keys from other tables are checked again.
    pub(crate) later: Vec<String>,
}

/// What makes `next` stand where `live` stands; `live` becomes `old_name`, the table of generation `old`.
pub(crate) async fn swap(
    client: &Client,
    live: &Table,
    next: &Table,
    (old, number): (u64, u64),
) -> Result<Swap> {
    let mut swap = Swap::default();
    let schema = live.name.schema.clone().unwrap_or_default();
    let old_name = name_in(&live.name.table, old);
    for (from, to) in index_renames(client, live, next, (old, number)).await? {
        let from = format!("{}.{}", quote(&schema), quote(&from));
        swap.renames.push(format!("ALTER INDEX {from} RENAME TO {}", quote(&to)));
    }
    let rename =
        |from: &Table, to: &str| format!("ALTER TABLE {} RENAME TO {}", from.sql(), quote(to));
    swap.renames.push(rename(live, &old_name));
    swap.renames.push(rename(next, &live.name.table));
    grants(client, live, next, &mut swap).await?;
    triggers(client, live, next, &mut swap).await?;
    references(client, live, &mut swap).await?;
    let name = literal(&live.sql());
    let comment = sql!("carry/comment", live = name, oid = live.oid);
    swap.after.extend(texts(client, &comment).await?);
    // Views keep their grants, owners, comments and dependents: they are only made to read another table.
    swap.after.extend(texts(client, &sql!("carry/views", oid = live.oid)).await?);
    let sequences =
        sql!("carry/owned_sequences", live = name, live_oid = live.oid, next_oid = next.oid);
    swap.after.extend(texts(client, &sequences).await?);
    Ok(swap)
}

async fn names(client: &Client, oid: u32) -> Result<Vec<String>> {
    texts(client, &sql!("carry/index_names", oid = oid)).await
}

/// The live table's indexes make room, then the other's take their names.
async fn index_renames(
    client: &Client,
    live: &Table,
    next: &Table,
    (old, number): (u64, u64),
) -> Result<Vec<(String, String)>> {
    let (of_live, of_next) = (names(client, live.oid).await?, names(client, next.oid).await?);
    let mut out: Vec<(String, String)> =
        of_live.iter().map(|name| (name.clone(), name_in(name, old))).collect();
    // Names that something else in the schema has.
    let others = sql!("carry/names_of_others", live = live.oid, next = next.oid);
    let mut taken = texts(client, &others).await?;
    for name in &of_next {
        let of_copy = of_live.iter().find(|live| name_in(live, number) == *name).cloned();
        let own = || {
            let rest = name.strip_prefix(&next.name.table)?;
            Some(format!("{}{rest}", live.name.table))
        };
        if let Some(to) = of_copy.or_else(own)
            && !taken.contains(&to)
        {
            taken.push(to.clone());
            out.push((name.clone(), to));
        }
    }
    Ok(out)
}

async fn grants(client: &Client, live: &Table, next: &Table, swap: &mut Swap) -> Result<()> {
    // What default privileges gave the new table goes; what the live one has comes.
    let (name, live_oid, next_oid) = (literal(&next.sql()), live.oid, next.oid);
    for sql in [
        sql!("carry/revokes", next = name, next_oid = next_oid),
        sql!("carry/grants", next = name, live_oid = live_oid),
        sql!("carry/column_grants", next = name, live_oid = live_oid, next_oid = next_oid),
    ] {
        swap.before.extend(texts(client, &sql).await?);
    }
    Ok(())
}

async fn triggers(client: &Client, live: &Table, next: &Table, swap: &mut Swap) -> Result<()> {
    let others = sql!("carry/other_triggers", live = live.oid, next = next.oid);
    swap.after.extend(texts(client, &others).await?);
    let states = sql!("carry/trigger_states", live = literal(&live.sql()), oid = live.oid);
    swap.after.extend(texts(client, &states).await?);
    Ok(())
}

/// Foreign keys of other tables follow the name; whether they hold is checked after the swap, which
/// would otherwise keep the readers waiting.
async fn references(client: &Client, live: &Table, swap: &mut Swap) -> Result<()> {
    let oid = live.oid;
    swap.before.extend(texts(client, &sql!("carry/drop_references", oid = oid)).await?);
    swap.after.extend(texts(client, &sql!("carry/add_references", oid = oid)).await?);
    swap.later.extend(texts(client, &sql!("carry/validate_references", oid = oid)).await?);
    Ok(())
}

/// What users changed on the live table since the build began and the build does not have: columns and
/// constraints.
pub(crate) async fn missing(
    client: &Client,
    live: &Table,
    next: &Table,
    gone: &[String],
) -> Result<Vec<String>> {
    let gone: Vec<String> = gone.iter().map(|name| literal(name)).collect();
    let gone = if gone.is_empty() { "''".to_owned() } else { gone.join(", ") };
    texts(client, &sql!("carry/missing", live = live.oid, next = next.oid, gone = gone)).await
}
