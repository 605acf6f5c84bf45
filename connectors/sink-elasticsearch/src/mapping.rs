//! The index that a model becomes: mapping, settings, names, and what Foldline cannot work with.

use foldline_api::column::ColumnType;
use foldline_api::model::Model;
use foldline_api::sink::TargetSpec;
use foldline_api::{Error, Result};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use crate::document::{META, hex};
use crate::shape;

/// The names that a target has in the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    target: String,
}

impl Names {
    pub(crate) fn new(target: &str) -> Self {
        Names { target: target.to_owned() }
    }

    /// The alias that readers use: the target's name.
    pub(crate) fn alias(&self) -> &str {
        &self.target
    }

    /// A generation's index.
    pub(crate) fn index(&self, generation: u64) -> String {
        format!("{}-g{generation}", self.target)
    }

    /// Whether an alias is one that writers of a generation use.
    pub(crate) fn is_write_alias(&self, generation: u64, alias: &str) -> bool {
        let hash = alias.strip_prefix(&self.index(generation)).and_then(|a| a.strip_prefix("-w-"));
        hash.is_some_and(|hash| hash.len() == 12 && hash.chars().all(|c| c.is_ascii_hexdigit()))
    }

    /// The alias that writers of one model use. A bulk request with `require_alias` fails once it is
    /// gone, where one to the index's own name would create the index anew.
    pub(crate) fn write_alias(&self, generation: u64, fingerprint: &str) -> String {
        let hash = hex(&Sha256::digest(fingerprint.as_bytes()));
        format!("{}-g{generation}-w-{}", self.target, hash.get(..12).unwrap_or_default())
    }

    /// The generation of an index, if its name is one of this target's.
    pub(crate) fn generation(&self, index: &str) -> Option<u64> {
        let digits = index.strip_prefix(&self.target)?.strip_prefix("-g")?;
        let generation = digits.parse().ok()?;
        (self.index(generation) == index).then_some(generation)
    }

    /// Refuses a name that Elasticsearch would, or would have to be escaped in a path.
    pub(crate) fn check(&self) -> Result<()> {
        let name = &self.target;
        let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if name.is_empty() || name.len() > 200 || !starts || !name.chars().all(plain) {
            return Err(Error::config(format!(
                "{name:?} cannot be an index: use at most 200 lower-case letters, digits, '.', '_' and \
                 '-', starting with a letter or a digit"
            )));
        }
        Ok(())
    }
}

/// The filter of the readers' alias.
pub(crate) fn alive() -> Json {
    json!({ "bool": { "must_not": { "term": { format!("{META}.deleted"): true } } } })
}

/// The body that creates a generation's index; `build` tells this very index from another of its
/// name.
pub(crate) fn index_body(spec: &TargetSpec, build: &str) -> Json {
    json!({ "settings": settings(spec), "mappings": mapping(spec, build) })
}

/// The index settings: the user's laid over ours, as flat names.
pub(crate) fn settings(spec: &TargetSpec) -> Json {
    let mut out = Map::new();
    // Hidden: a search over `orders*` finds each document once, through the alias and its filter.
    out.insert("index.hidden".to_owned(), json!(true));
    out.extend(named_settings(spec));
    Json::Object(out)
}

/// The settings that the connector names, by flat name.
pub(crate) fn named_settings(spec: &TargetSpec) -> Map<String, Json> {
    let mut out = Map::new();
    if let Some(user) = &spec.settings {
        flatten(user, "", &mut out);
    }
    out
}

fn flatten(settings: &Json, prefix: &str, out: &mut Map<String, Json>) {
    let Json::Object(entries) = settings else { return };
    for (name, value) in entries {
        let name = format!("{prefix}{name}");
        match value {
            Json::Object(_) => flatten(value, &format!("{name}."), out),
            _ if name.starts_with("index.") => drop(out.insert(name, value.clone())),
            _ => drop(out.insert(format!("index.{name}"), value.clone())),
        }
    }
}

/// The mapping: the user's laid over the model's.
pub(crate) fn mapping(spec: &TargetSpec, build: &str) -> Json {
    let mut mapping = json!({ "dynamic": false, "properties": properties(&spec.model) });
    if let Some(user) = &spec.mapping {
        lay_over(&mut mapping, &below_properties(&spec.model, user));
    }
    if let Some(properties) = mapping.get_mut("properties").and_then(Json::as_object_mut) {
        properties.insert(META.to_owned(), meta());
    }
    if let Some(mapping) = mapping.as_object_mut() {
        let ours = json!({
            "worker": spec.worker,
            "connector": spec.connector,
            "fingerprint": spec.fingerprint,
            "build": build,
            "options": shape::options(spec),
            "settings": named_settings(spec).keys().collect::<Vec<_>>(),
        });
        let meta = mapping.entry("_meta").or_insert_with(|| json!({}));
        if let Some(meta) = meta.as_object_mut() {
            meta.insert("foldline".to_owned(), ours);
        }
    }
    mapping
}

/// The user's mapping in Elasticsearch's form: a column may be named directly, `name = { type = "text" }`, which
/// is short for the same below `properties`.
fn below_properties(model: &Model, user: &Json) -> Json {
    let Json::Object(entries) = user else { return user.clone() };
    let (mut root, mut fields) = (Map::new(), Map::new());
    for (name, value) in entries {
        let field = value.is_object() && name != "properties" && model.position(name).is_some();
        let place = if field { &mut fields } else { &mut root };
        place.insert(name.clone(), value.clone());
    }
    if !fields.is_empty() {
        let properties = root.entry("properties").or_insert_with(|| json!({}));
        lay_over(properties, &Json::Object(fields));
    }
    Json::Object(root)
}

fn meta() -> Json {
    json!({ "properties": {
        "deleted": { "type": "boolean" },
        "at": { "type": "date", "format": "epoch_millis" },
        "marks": { "type": "object", "enabled": false },
    } })
}

fn properties(model: &Model) -> Json {
    let columns = model.columns.iter().map(|c| (c.name.to_string(), field(&c.ty)));
    Json::Object(columns.collect())
}

/// How a column is indexed. What a column may hold and an index may not (a number beyond a double, a
/// text beyond a term) is left out of the index and kept in the document: the index never refuses
/// what the model takes.
fn field(ty: &ColumnType) -> Json {
    match ty {
        ColumnType::BigInt => json!({ "type": "long" }),
        ColumnType::Integer => json!({ "type": "integer" }),
        ColumnType::SmallInt => json!({ "type": "short" }),
        ColumnType::DoublePrecision => json!({ "type": "double" }),
        ColumnType::Real => json!({ "type": "float" }),
        // For searching and sorting only: the exact digits are in `_source`, which is what is read.
        ColumnType::Numeric(_) => json!({ "type": "double", "ignore_malformed": true }),
        ColumnType::Boolean => json!({ "type": "boolean" }),
        // A term has at most 32,766 bytes, and a character up to four.
        ColumnType::Text | ColumnType::Varchar(_) => {
            json!({ "type": "keyword", "ignore_above": 8191 })
        }
        ColumnType::TimestampTz | ColumnType::Date => json!({
            "type": "date",
            "format": "strict_date_optional_time_nanos||strict_date_optional_time",
        }),
        ColumnType::Time | ColumnType::Uuid => json!({ "type": "keyword" }),
        ColumnType::Bytea => json!({ "type": "binary" }),
        ColumnType::Jsonb => json!({ "type": "object", "enabled": false }),
        ColumnType::Array(item) => field(item),
        ColumnType::Children(children) => {
            let fields = children.fields.iter().map(|(name, ty)| (name.to_string(), field(ty)));
            json!({
                "type": "nested",
                "dynamic": false,
                "properties": Json::Object(fields.collect()),
            })
        }
    }
}

/// Lays `user` over `base`: objects merge, but a field that the user gives a type is the user's
/// whole, since parameters of the old type may not fit the new one.
fn lay_over(base: &mut Json, user: &Json) {
    match (base, user) {
        (Json::Object(base), Json::Object(user)) => {
            for (name, value) in user {
                match base.get_mut(name) {
                    Some(below) if value.get("type").is_none_or(|ty| !ty.is_string()) => {
                        lay_over(below, value);
                    }
                    _ => drop(base.insert(name.clone(), value.clone())),
                }
            }
        }
        (base, user) => *base = user.clone(),
    }
}

/// Refuses, before anything is sent, what Foldline could not be exact with.
pub(crate) fn check(spec: &TargetSpec) -> Result<()> {
    Names::new(&spec.target).check()?;
    if spec.model.position(META).is_some() {
        return Err(Error::config(format!(
            "a column cannot be called {META}: in Elasticsearch that field is Foldline's own"
        )));
    }
    for (name, json) in [("mapping", &spec.mapping), ("settings", &spec.settings)] {
        if json.as_ref().is_some_and(|json| !json.is_object()) {
            return Err(Error::config(format!(
                "connectors.{}.{name} must be a table",
                spec.connector
            )));
        }
    }
    check_expire(spec)?;
    check_lookups(spec)?;
    check_children(spec)?;
    let Json::Object(settings) = settings(spec) else { return Ok(()) };
    refuse(&spec.target, &settings, &mapping(spec, ""))
}

/// Refuses another mapping of the field by which rows are found that expire.
fn check_expire(spec: &TargetSpec) -> Result<()> {
    let Some(rule) = &spec.expire else { return Ok(()) };
    let mapped = spec.mapping.as_ref().and_then(|m| m.get("properties")?.get(&*rule.field));
    if mapped.is_some() {
        return Err(Error::config(format!(
            "connectors.{}.mapping.properties.{}: by this field rows are found that `expire` deletes: leave its mapping to Foldline",
            spec.connector, rule.field
        )));
    }
    Ok(())
}

/// Refuses what would hide from a search which documents show another one.
fn check_lookups(spec: &TargetSpec) -> Result<()> {
    for lookup in spec.joins.iter().flat_map(|joins| joins.lookups()) {
        let Some(via) = spec.model.columns.get(lookup.via) else { continue };
        if mapped(spec, &via.name) {
            return Err(Error::config(format!(
                "connectors.{}.mapping.properties.{}: by this field documents are found that look up {:?}: leave its mapping to Foldline",
                spec.connector, via.name, lookup.target
            )));
        }
        if via.ty == ColumnType::Bytea {
            return Err(Error::config(format!(
                "connectors.{}: Elasticsearch finds no documents by {:?}, which is bytea: look {:?} up by another type",
                spec.connector, via.name, lookup.target
            )));
        }
    }
    Ok(())
}

/// Refuses what would hide from a search which documents hold a child.
fn check_children(spec: &TargetSpec) -> Result<()> {
    for gather in spec.joins.iter().flat_map(|joins| joins.gathers()) {
        let Some(column) = spec.model.columns.get(gather.column) else { continue };
        let user = spec.mapping.as_ref().map(|user| below_properties(&spec.model, user));
        let user = user.as_ref().and_then(|user| user.get("properties")?.get(&*column.name));
        let by = user.is_some_and(|user| {
            user.get("type").is_some_and(|ty| ty != "nested")
                || user.get("enabled").is_some()
                || user.get("properties").is_some_and(|all| all.get(gather.by()).is_some())
        });
        if by {
            return Err(Error::config(format!(
                "connectors.{}.mapping.properties.{}: by {:?} in it documents are found that hold a row of {:?}: leave the mapping of both to Foldline",
                spec.connector,
                column.name,
                gather.by(),
                gather.target
            )));
        }
    }
    Ok(())
}

/// Whether the connector gives a field a mapping of its own.
fn mapped(spec: &TargetSpec, field: &str) -> bool {
    let user = spec.mapping.as_ref().map(|user| below_properties(&spec.model, user));
    user.is_some_and(|user| user.get("properties").is_some_and(|all| all.get(field).is_some()))
}

/// Refuses an index whose settings (flat names) or mapping would lose or change documents.
pub(crate) fn refuse(index: &str, settings: &Map<String, Json>, mapping: &Json) -> Result<()> {
    let text = |name: &str| {
        settings.get(name).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
    };
    let problem = |what: &str, way_out: &str| {
        Err(Error::config(format!("index {index:?} {what}: {way_out}")))
    };
    for pipeline in ["index.final_pipeline", "index.default_pipeline"] {
        if text(pipeline).is_some_and(|name| name != "_none") {
            let way_out =
                "set it to \"_none\" in the connector's settings or in the index template";
            return problem(&format!("has {pipeline}, which would change documents"), way_out);
        }
    }
    if text("index.translog.durability").is_some_and(|d| d.eq_ignore_ascii_case("async")) {
        let way_out = "set index.translog.durability to \"request\"";
        return problem("would acknowledge writes before they are on disk", way_out);
    }
    let modes = ["logsdb", "time_series", "lookup"];
    if text("index.mode").is_some_and(|mode| modes.contains(&mode.as_str())) {
        return problem("has an index.mode that does not keep documents as written", "remove it");
    }
    let source = mapping.get("_source");
    let part = |name: &str| source.and_then(|source| source.get(name));
    let given =
        |part: Option<&Json>| part.is_some_and(|p| p.as_array().is_none_or(|a| !a.is_empty()));
    let stored = text("index.mapping.source.mode").is_none_or(|mode| mode == "stored")
        && part("mode").and_then(Json::as_str).is_none_or(|mode| mode == "stored")
        && part("enabled").and_then(Json::as_bool) != Some(false)
        && !given(part("includes"))
        && !given(part("excludes"));
    if !stored {
        let way_out = "keep _source enabled, stored and whole, since rows are read back from it";
        return problem("does not keep its _source as written", way_out);
    }
    if mapping.pointer("/_routing/required").and_then(Json::as_bool) == Some(true) {
        return problem("requires a routing", "remove _routing from the mapping");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use foldline_api::column::Children;
    use foldline_api::model::Column;
    use foldline_api::sink::OnChange;
    use foldline_api::value::Value;

    use super::*;

    pub(crate) fn spec(types: &[(&str, &str)]) -> TargetSpec {
        let column = |(name, ty): &(&str, &str)| Column {
            name: Arc::from(*name),
            ty: if *ty == "children" {
                ColumnType::Children(Arc::new(Children {
                    by: "line".to_owned(),
                    fields: vec![
                        (Arc::from("line"), ColumnType::Integer),
                        (Arc::from("sku"), ColumnType::Text),
                    ],
                }))
            } else {
                ColumnType::parse(ty).unwrap()
            },
            index: false,
            default: Value::Null,
        };
        let columns = types.iter().map(column).collect();
        TargetSpec {
            worker: "w".to_owned(),
            connector: "c".to_owned(),
            group: "w-c".to_owned(),
            log: "log".to_owned(),
            target: "orders".to_owned(),
            model: Arc::new(Model { columns, key: vec![0], indexes: vec![] }),
            joins: None,
            fingerprint: "f1".to_owned(),
            projection: json!({}),
            on_change: OnChange::Refuse,
            auto_create: true,
            mapping: None,
            settings: None,
            expire: None,
        }
    }

    #[test]
    fn columns_become_fields_and_nothing_else_is_indexed() {
        let mapping = mapping(
            &spec(&[
                ("id", "bigint"),
                ("name", "text"),
                ("price", "numeric(12,2)"),
                ("tags", "text[]"),
                ("extra", "jsonb"),
                ("lines", "children"),
            ]),
            "b",
        );
        assert_eq!(mapping["dynamic"], json!(false));
        let properties = &mapping["properties"];
        assert_eq!(properties["id"], json!({ "type": "long" }));
        assert_eq!(properties["name"], json!({ "type": "keyword", "ignore_above": 8191 }));
        assert_eq!(properties["tags"], properties["name"]);
        assert_eq!(properties["price"]["type"], "double");
        assert_eq!(properties["extra"], json!({ "type": "object", "enabled": false }));
        assert_eq!(properties["lines"]["type"], "nested");
        assert_eq!(properties["lines"]["properties"]["line"], json!({ "type": "integer" }));
        assert_eq!(properties[META]["properties"]["deleted"], json!({ "type": "boolean" }));
        assert_eq!(mapping["_meta"]["foldline"]["build"], "b");
    }

    #[test]
    fn the_users_mapping_and_settings_lie_over_ours() {
        let mut spec = spec(&[("id", "bigint"), ("name", "text"), ("lines", "children")]);
        spec.mapping = Some(json!({
            "dynamic": "strict",
            "properties": {
                "lines": { "properties": { "sku": { "type": "text" } } },
                META: { "type": "keyword" },
            },
            // Short for the same below `properties`.
            "name": { "type": "text", "fields": { "raw": { "type": "keyword" } } },
        }));
        spec.settings =
            Some(json!({ "number_of_shards": 3, "index": { "refresh_interval": "5s" } }));
        let body = index_body(&spec, "b");
        let properties = &body["mappings"]["properties"];
        assert_eq!(body["mappings"]["dynamic"], "strict");
        assert!(properties["name"].get("ignore_above").is_none());
        assert_eq!(properties["name"]["fields"]["raw"]["type"], "keyword");
        assert!(body["mappings"].get("name").is_none());
        assert_eq!(properties["lines"]["type"], "nested");
        assert_eq!(properties["lines"]["properties"]["sku"], json!({ "type": "text" }));
        assert_eq!(properties[META], meta());
        assert_eq!(
            body["settings"],
            json!({
                "index.hidden": true,
                "index.number_of_shards": 3,
                "index.refresh_interval": "5s",
            })
        );
    }

    #[test]
    fn what_would_lose_or_change_documents_is_refused() {
        for (mapping, settings) in [
            (json!({ "_source": { "enabled": false } }), json!({})),
            (json!({ "_source": { "mode": "synthetic" } }), json!({})),
            (json!({ "_source": { "excludes": ["name"] } }), json!({})),
            (json!({ "_routing": { "required": true } }), json!({})),
            (json!({}), json!({ "mapping": { "source": { "mode": "synthetic" } } })),
            (json!({}), json!({ "index.translog.durability": "async" })),
            (json!({}), json!({ "final_pipeline": "p" })),
            (json!({}), json!({ "index": { "default_pipeline": "p" } })),
            (json!({}), json!({ "mode": "logsdb" })),
            (json!([]), json!({})),
        ] {
            let mut spec = spec(&[("id", "bigint")]);
            (spec.mapping, spec.settings) = (Some(mapping.clone()), Some(settings.clone()));
            assert!(check(&spec).is_err(), "{mapping} {settings}");
        }
        let mut spec = spec(&[("id", "bigint")]);
        spec.settings =
            Some(json!({ "final_pipeline": "_none", "translog.durability": "request" }));
        assert!(check(&spec).is_ok());
        assert!(check(&self::spec(&[("id", "bigint"), (META, "text")])).is_err());
    }

    #[test]
    fn names_tell_their_generation() {
        let names = Names::new("orders");
        assert_eq!(names.generation("orders-g12"), Some(12));
        for other in ["orders", "orders-gold-g1", "orders-g01", "orders-g1-w-abc", "order-g1"] {
            assert_eq!(names.generation(other), None, "{other}");
        }
        assert!(names.is_write_alias(1, &names.write_alias(1, "f")));
        for other in [&names.write_alias(11, "f"), "orders-g1", "orders-g1-w-eekly-numbers"] {
            assert!(!names.is_write_alias(1, other), "{other}");
        }
        for wrong in ["", "Orders", "a b", "a/b", "a%41", "-a", ".a", "a,b", "a*", &"a".repeat(201)]
        {
            assert!(Names::new(wrong).check().is_err(), "{wrong}");
        }
        assert!(Names::new("sales.orders_2-x").check().is_ok());
    }
}
