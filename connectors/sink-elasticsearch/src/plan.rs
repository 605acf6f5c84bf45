//! What a connector will send, before it does.

use foldline_api::Result;
use foldline_api::sink::TargetSpec;
use serde_json::json;

use crate::document::META;
use crate::mapping::{self, Names, alive, index_body};

/// Refuses, without asking the cluster, what Foldline could not be exact with.
///
/// # Errors
/// Config errors with the way out.
pub fn check(spec: &TargetSpec) -> Result<()> {
    mapping::check(spec)
}

/// What the connector will send: the index's body, the aliases and the bulk actions.
pub(crate) fn plan(spec: &TargetSpec) -> Vec<String> {
    let names = Names::new(&spec.target);
    let pretty = |json: &serde_json::Value| format!("{json:#}");
    let (index, alias) = (names.index(1), names.alias());
    let writers = names.write_alias(1, &spec.fingerprint);
    let aliases = json!({ "actions": [
        { "add": { "index": index, "alias": alias, "filter": alive() } },
        { "add": { "index": index, "alias": writers, "is_hidden": true } },
    ] });
    let marks = "{\"marks\":{\"<topic>/<partition>\":<position>}}";
    let mut plan = vec![
        format!("PUT /{index}\n{}", pretty(&index_body(spec, "<build>"))),
        format!("POST /_aliases\n{}", pretty(&aliases)),
        format!("POST /{writers}/_mget\n{{\"ids\":[\"<key>\"]}}"),
        format!(
            "POST /{writers}/_bulk?require_alias=true&pipeline=_none\n\
             {{\"create\":{{\"_id\":\"<new key>\"}}}}\n\
             {{<columns>,\"{META}\":{marks}}}\n\
             {{\"index\":{{\"_id\":\"<key>\",\"if_seq_no\":<read>,\"if_primary_term\":<read>}}}}\n\
             {{<columns>,\"{META}\":{marks}}}\n\
             {{\"index\":{{\"_id\":\"<deleted key>\",\"if_seq_no\":<read>,\"if_primary_term\":<read>}}}}\n\
             {{\"{META}\":{{\"deleted\":true,\"at\":<milliseconds>,{}}}",
            marks.trim_start_matches('{')
        ),
    ];
    plan.extend(looked_up(spec, &writers));
    plan
}

/// How other targets' documents are read as documents are written, and which documents follow a change of one.
fn looked_up(spec: &TargetSpec, writers: &str) -> Vec<String> {
    let mut out = Vec::new();
    for lookup in spec.joins.iter().flat_map(|joins| joins.lookups()) {
        let other = Names::new(&lookup.target).index(1);
        let via = spec.model.columns.get(lookup.via).map_or("", |column| &*column.name);
        out.push(format!("POST /{other}/_mget\n{{\"ids\":[\"<{via}>\"]}}"));
        let query =
            json!({ "query": { "terms": { via: ["<changed key>"] } }, "sort": ["_seq_no"] });
        out.push(format!("POST /{writers}/_search\n{query}"));
    }
    for gather in spec.joins.iter().flat_map(|joins| joins.gathers()) {
        let other = Names::new(&gather.target).index(1);
        let via = gather.model.columns.get(gather.via).map_or("", |column| &*column.name);
        let own = spec.model.columns.get(gather.column).map_or("", |column| &*column.name);
        let query = json!({ "query": { "terms": { via: ["<key>"] } }, "sort": [gather.by()] });
        out.push(format!("POST /{other}/_search\n{query}"));
        let by = format!("{own}.{}", gather.by());
        let nested = json!({ "path": own, "query": { "terms": { by: ["<changed key>"] } } });
        out.push(format!("POST /{writers}/_search\n{}", json!({ "query": { "nested": nested } })));
    }
    out
}
