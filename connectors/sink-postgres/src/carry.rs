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

/// What a swap would lose, in the server's words.
const LOST: &str = "\
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_depend d WHERE d.refclassid = \
'pg_class'::regclass AND d.refobjid = {oid} AND NOT (d.classid = 'pg_class'::regclass AND d.objid = {oid}) AND \
NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = d.objid AND (c.relkind \
IN ('i', 'I', 't') OR (c.relkind = 'S' AND d.deptype IN ('a', 'i'))))) AND d.classid NOT IN \
('pg_attrdef'::regclass, 'pg_trigger'::regclass, 'pg_type'::regclass, 'pg_statistic_ext'::regclass, \
'pg_constraint'::regclass) AND NOT (d.classid = 'pg_rewrite'::regclass AND EXISTS (SELECT 1 FROM pg_rewrite r \
JOIN pg_class v ON v.oid = r.ev_class WHERE r.oid = d.objid AND v.relkind = 'v')) \
UNION SELECT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_depend d JOIN pg_class c ON c.oid = {oid} \
JOIN pg_type t ON t.oid = c.reltype WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, \
t.typarray) AND d.deptype <> 'i' \
UNION SELECT 'the foreign key ' || quote_ident(conname) || ' to itself' FROM pg_constraint WHERE contype = 'f' \
AND conrelid = {oid} AND confrelid = {oid} \
UNION SELECT 'a partitioned table' FROM pg_class WHERE oid = {oid} AND relkind = 'p' \
UNION SELECT 'replica identity by an index' FROM pg_class WHERE oid = {oid} AND relreplident = 'i' \
UNION SELECT 'security label' FROM pg_seclabel WHERE objoid = {oid} AND classoid = 'pg_class'::regclass \
UNION SELECT 'row security policy ' || quote_ident(polname) FROM pg_policy WHERE polrelid = {oid} \
UNION SELECT 'table or view ' || c.oid::regclass || ', which this role does not own' FROM pg_class c WHERE NOT \
pg_has_role(c.relowner, 'USAGE') AND (c.oid = {oid} OR c.oid IN (SELECT conrelid FROM pg_constraint WHERE contype \
= 'f' AND confrelid = {oid}) OR c.oid IN (SELECT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid \
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = {oid})) \
ORDER BY 1 LIMIT 5";

/// Refuses what a swap would lose. `changed` are columns whose type changes or that go away.
pub(crate) async fn check(client: &Client, live: &Table, changed: &[String]) -> Result<()> {
    let mut lost = texts(client, &LOST.replace("{oid}", &live.oid.to_string())).await?;
    if !changed.is_empty() {
        let names: Vec<String> = changed.iter().map(|name| literal(name)).collect();
        lost.extend(texts(client, &format!(
            "SELECT DISTINCT 'view ' || r.ev_class::regclass || ' on column ' || quote_ident(a.attname) FROM \
             pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_attribute a ON a.attrelid = d.refobjid \
             AND a.attnum = d.refobjsubid WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = \
             'pg_class'::regclass AND d.refobjid = {} AND a.attname IN ({})",
            live.oid, names.join(", ")
        )).await?);
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
        let default = texts(client, &format!(
            "SELECT CASE WHEN a.attgenerated <> '' OR a.attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) \
             LIKE 'nextval(%' THEN 'fine' ELSE coalesce('(' || pg_get_expr(d.adbin, d.adrelid) || ')', 'NULL') \
             END FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
             WHERE a.attrelid = {} AND a.attname = {}",
            live.oid, literal(column)
        )).await?;
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
    let next_lit = literal(&format!(" ON {name} "));
    let mut out =
        vec![format!("CREATE TABLE {name} (LIKE {} INCLUDING ALL EXCLUDING INDEXES)", live.sql())];
    let of_class = [
        format!(
            "SELECT format('ALTER TABLE %s SET (%s)', {0}, array_to_string(reloptions, ', ')) FROM pg_class \
             WHERE oid = {oid} AND reloptions IS NOT NULL",
            literal(&name)
        ),
        format!(
            "SELECT format('ALTER TABLE %s SET TABLESPACE %I', {0}, t.spcname) FROM pg_class c JOIN pg_tablespace \
             t ON t.oid = c.reltablespace WHERE c.oid = {oid}",
            literal(&name)
        ),
        format!(
            "SELECT format('ALTER TABLE %s REPLICA IDENTITY %s', {0}, CASE relreplident WHEN 'f' THEN 'FULL' ELSE \
             'NOTHING' END) FROM pg_class WHERE oid = {oid} AND relreplident IN ('f', 'n')",
            literal(&name)
        ),
        format!(
            "SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', {0}, conname, pg_get_constraintdef(oid)) FROM \
             pg_constraint WHERE conrelid = {oid} AND contype = 'f' AND conparentid = 0",
            literal(&name)
        ),
        // A trigger before the row decides what the row is; one after it is for whoever watches.
        format!(
            "SELECT replace(pg_get_triggerdef(g.oid), format(' ON %I.%I ', n.nspname, c.relname), {next_lit}) FROM \
             pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE tgrelid = {oid} \
             AND NOT tgisinternal AND tgtype & 2 <> 0 ORDER BY tgname"
        ),
        format!(
            "SELECT format('ALTER TABLE %s OWNER TO %I', {0}, pg_get_userbyid(relowner)) FROM pg_class WHERE oid \
             = {oid} AND relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)",
            literal(&name)
        ),
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
    let found = client.simple_query(&format!(
        "SELECT c.relname, k.conname IS NOT NULL, coalesce(pg_get_constraintdef(k.oid), \
         substr(pg_get_indexdef(i.indexrelid), length(format('CREATE %sINDEX %I ON %I.%I', CASE WHEN \
         i.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname, n.nspname, t.relname)) + 1)), i.indisunique, \
         obj_description(c.oid, 'pg_class') FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class \
         t ON t.oid = i.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace LEFT JOIN pg_constraint k ON \
         k.conindid = c.oid AND k.contype IN ('p', 'u', 'x') AND k.conrelid = t.oid WHERE i.indrelid = {0} AND \
         i.indisvalid AND (i.indisunique OR coalesce(k.contype = 'x', false)) = {deciding} AND NOT EXISTS (SELECT 1 FROM pg_depend \
         d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE d.refobjid = {0} \
         AND d.objid IN (c.oid, k.oid) AND to_regclass({1}) IS NOT NULL AND NOT EXISTS (SELECT 1 FROM \
         pg_attribute o WHERE o.attrelid = to_regclass({1}) AND o.attname = a.attname AND NOT \
         o.attisdropped)) ORDER BY c.relname",
        live.oid, literal(&next.sql())
    )).await.map_err(|error| classify(error, "reading the table's indexes"))?;
    let taken = texts(client, &format!(
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {schema}"
    )).await?;
    let mut out = Vec::new();
    for message in &found {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let get = |at: usize| row.get(at).unwrap_or_default();
        let name = name_in(get(0), number);
        if taken.contains(&name) {
            continue;
        }
        out.push(if get(1) == "t" {
            format!("ALTER TABLE {} ADD CONSTRAINT {} {}", next.sql(), quote(&name), get(2))
        } else {
            let unique = if get(3) == "t" { "UNIQUE " } else { "" };
            format!("CREATE {unique}INDEX {} ON {}{}", quote(&name), next.sql(), get(2))
        });
        if let (Some(comment), Some(schema)) = (row.get(4), &next.schema) {
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
    swap.after.extend(texts(client, &format!(
        "SELECT format('COMMENT ON TABLE %s IS %L', {name}, obj_description({}, 'pg_class'))", live.oid
    )).await?);
    // Views keep their grants, owners, comments and dependents: they are only made to read another table.
    swap.after.extend(texts(client, &format!(
        "SELECT DISTINCT format('CREATE OR REPLACE VIEW %I.%I %sAS %s', n.nspname, v.relname, CASE WHEN \
         v.reloptions IS NULL THEN '' ELSE 'WITH (' || array_to_string(v.reloptions, ', ') || ') ' END, \
         pg_get_viewdef(v.oid)) FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = \
         r.ev_class JOIN pg_namespace n ON n.oid = v.relnamespace WHERE d.classid = 'pg_rewrite'::regclass AND \
         d.refclassid = 'pg_class'::regclass AND d.refobjid = {} AND v.relkind = 'v'", live.oid
    )).await?);
    swap.after.extend(texts(client, &format!(
        "SELECT format('ALTER SEQUENCE %I.%I OWNED BY %s.%I', n.nspname, s.relname, {name}, a.attname) FROM \
         pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = \
         s.relnamespace JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid WHERE \
         d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a' AND \
         d.refobjid = {} AND EXISTS (SELECT 1 FROM pg_attribute o WHERE o.attrelid = {} AND o.attname = \
         a.attname AND NOT o.attisdropped)", live.oid, next.oid
    )).await?);
    Ok(swap)
}

async fn names(client: &Client, oid: u32) -> Result<Vec<String>> {
    texts(client, &format!(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = {oid} ORDER \
         BY 1"
    )).await
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
    let strangers = texts(client, &format!(
        "SELECT relname FROM pg_class WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = {0}) AND \
         oid NOT IN (SELECT indexrelid FROM pg_index WHERE indrelid IN ({0}, {1}))", live.oid, next.oid
    )).await?;
    let mut taken = strangers;
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
    let who =
        "CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END";
    let option = "CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END";
    swap.before.extend(texts(client, &format!(
        "SELECT DISTINCT format('REVOKE ALL ON TABLE %s FROM %s', {}, {who}) FROM pg_class c, \
         aclexplode(c.relacl) a WHERE c.oid = {} AND a.grantee <> c.relowner",
        literal(&next.sql()), next.oid
    )).await?);
    swap.before.extend(texts(client, &format!(
        "SELECT format('GRANT %s ON TABLE %s TO %s%s', a.privilege_type, {}, {who}, {option}) FROM pg_class c, \
         aclexplode(c.relacl) a WHERE c.oid = {} AND a.grantee <> c.relowner",
        literal(&next.sql()), live.oid
    )).await?);
    swap.before.extend(texts(client, &format!(
        "SELECT format('GRANT %s (%I) ON TABLE %s TO %s%s', a.privilege_type, t.attname, {}, {who}, {option}) \
         FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = {} AND NOT t.attisdropped AND EXISTS \
         (SELECT 1 FROM pg_attribute o WHERE o.attrelid = {} AND o.attname = t.attname)",
        literal(&next.sql()), live.oid, next.oid
    )).await?);
    Ok(())
}

async fn triggers(client: &Client, live: &Table, next: &Table, swap: &mut Swap) -> Result<()> {
    swap.after.extend(texts(client, &format!(
        "SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE t.tgrelid = {} AND NOT t.tgisinternal AND NOT \
         EXISTS (SELECT 1 FROM pg_trigger o WHERE o.tgrelid = {} AND o.tgname = t.tgname) ORDER BY t.tgname",
        live.oid, next.oid
    )).await?);
    swap.after.extend(texts(client, &format!(
        "SELECT format('ALTER TABLE %s %s TRIGGER %I', {}, CASE tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN \
         'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, tgname) FROM pg_trigger WHERE tgrelid = {} AND NOT \
         tgisinternal AND tgenabled <> 'O'",
        literal(&live.sql()), live.oid
    )).await?);
    Ok(())
}

/// Foreign keys of other tables follow the name; whether they hold is checked after the swap, which
/// would otherwise keep the readers waiting.
async fn references(client: &Client, live: &Table, swap: &mut Swap) -> Result<()> {
    let of = format!(
        "FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'f' AND k.confrelid = {} AND k.conrelid <> k.confrelid AND k.conparentid = 0",
        live.oid
    );
    swap.before.extend(texts(client, &format!(
        "SELECT format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, c.relname, k.conname) {of}"
    )).await?);
    swap.after.extend(texts(client, &format!(
        "SELECT format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s NOT VALID', n.nspname, c.relname, k.conname, \
         regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', '')) {of}"
    )).await?);
    swap.later.extend(texts(client, &format!(
        "SELECT format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname, k.conname) {of} AND \
         k.convalidated"
    )).await?);
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
    texts(client, &format!(
        "SELECT 'column ' || quote_ident(attname) FROM pg_attribute a WHERE attrelid = {0} AND attnum > 0 AND NOT \
         attisdropped AND attname NOT IN ({gone}) AND NOT EXISTS (SELECT 1 FROM pg_attribute o WHERE o.attrelid \
         = {1} AND o.attname = a.attname AND NOT o.attisdropped) UNION ALL SELECT 'constraint ' || \
         quote_ident(conname) FROM pg_constraint k WHERE conrelid = {0} AND contype IN ('c', 'f') AND NOT EXISTS \
         (SELECT 1 FROM pg_constraint o WHERE o.conrelid = {1} AND o.conname = k.conname) AND NOT EXISTS \
         (SELECT 1 FROM pg_attribute a WHERE a.attrelid = {0} AND a.attnum = ANY(k.conkey) AND a.attname IN \
         ({gone}))",
        live.oid, next.oid
    )).await
}
