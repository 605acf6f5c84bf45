//! What stands in the cluster beside what the plan makes.

use std::collections::BTreeMap;

use foldline_api::sink::TargetSpec;
use serde_json::{Map, Value as Json};

use crate::document::META;
use crate::mapping::{mapping, settings};

/// Where an index differs from the plan, one sentence each: fields of the mapping, then the settings that
/// the connector names. `stands` has flat names.
pub(crate) fn differences(
    spec: &TargetSpec,
    mappings: &Json,
    stands: &Map<String, Json>,
) -> Vec<String> {
    let (planned, found) = (fields(&mapping(spec, "")), fields(mappings));
    let mut out = Vec::new();
    for (path, field) in &planned {
        match found.get(path) {
            None => out.push(format!("the mapping has no field {path}, and the plan has {field}")),
            Some(there) if there != field => {
                out.push(format!("field {path} is mapped as {there}, and planned as {field}"));
            }
            Some(_) => {}
        }
    }
    for (path, there) in found.iter().filter(|(path, _)| !planned.contains_key(*path)) {
        out.push(format!("the mapping has a field {path} ({there}), and the plan has none"));
    }
    if let Json::Object(planned) = settings(spec) {
        for (name, value) in &planned {
            let (wanted, there) = (text(value), stands.get(name).map(text));
            if there.as_ref() != Some(&wanted) {
                let there = there.as_deref().unwrap_or("not set");
                out.push(format!("setting {name} is {there}, and planned as {wanted}"));
            }
        }
    }
    out
}

/// Elasticsearch gives numbers and booleans back as texts here and there.
pub(crate) fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Each field's definition by its path, without those below it.
fn fields(mapping: &Json) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    collect(mapping, "", &mut out);
    out
}

fn collect(of: &Json, prefix: &str, out: &mut BTreeMap<String, String>) {
    let properties = of.get("properties").and_then(Json::as_object);
    for (name, field) in properties.into_iter().flatten() {
        if prefix.is_empty() && name == META {
            continue;
        }
        let parameters = field.as_object().into_iter().flatten();
        let parameters: Vec<String> = parameters
            .filter(|(name, _)| *name != "properties")
            // What an object is called where it has fields.
            .filter(|(name, value)| *name != "type" || value.as_str() != Some("object"))
            .map(|(name, value)| match name.as_str() {
                "type" => text(value),
                _ => format!("{name} {}", text(value)),
            })
            .collect();
        let path = format!("{prefix}{name}");
        collect(field, &format!("{path}."), out);
        let parameters =
            if parameters.is_empty() { "object".to_owned() } else { parameters.join(", ") };
        out.insert(path, parameters);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mapping::index_body;
    use crate::mapping::tests::spec;

    #[test]
    fn what_stands_as_planned_differs_nowhere() {
        let mut spec = spec(&[("id", "bigint"), ("extra", "jsonb"), ("lines", "children")]);
        spec.settings = Some(json!({ "number_of_shards": 3 }));
        let mut body = index_body(&spec, "b");
        // As the cluster gives it back.
        body["mappings"]["properties"]["lines"]["dynamic"] = json!("false");
        let mut stands = Map::new();
        stands.insert("index.hidden".to_owned(), json!("true"));
        stands.insert("index.number_of_shards".to_owned(), json!("3"));
        assert_eq!(differences(&spec, &body["mappings"], &stands), Vec::<String>::new());
    }

    #[test]
    fn a_field_that_is_mapped_otherwise_is_named_with_both() {
        let old = spec(&[("id", "bigint"), ("name", "text"), ("gone", "text")]);
        let mut new = spec(&[("id", "bigint"), ("name", "text"), ("lines", "children")]);
        new.mapping = Some(json!({ "name": { "type": "text" } }));
        new.settings = Some(json!({ "refresh_interval": "5s" }));
        let mut stands = Map::new();
        stands.insert("index.hidden".to_owned(), json!("true"));
        let told = differences(&new, &index_body(&old, "b")["mappings"], &stands).join("\n");
        for part in [
            "no field lines, and the plan has dynamic false, nested",
            "no field lines.sku",
            "field name is mapped as ignore_above 8191, keyword, and planned as text",
            "a field gone (ignore_above 8191, keyword), and the plan has none",
            "index.refresh_interval is not set, and planned as 5s",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
