//! `docs/keys.md` is what the declarations of the keys say; `BLESS=1` writes it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use foldline_testkit::page;
use serde_json::Value;

use crate::config::json_schema;

const PAGE: &str = "docs/keys.md";
const HEAD: &str = "\
# All keys

Each table of the config with its keys, as the loader has them; [the language](reference.md) shows them in examples. A key in **bold** must be
there. This page is written by `BLESS=1 cargo test --lib -- page_of_keys`.
";

/// What may stand at a key, and where its table is described.
fn form(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.trim_start_matches("#/definitions/");
        return format!("[{name}](#{})", name.replace('.', ""));
    }
    let any = ["anyOf", "oneOf"].into_iter().find_map(|several| schema[several].as_array());
    if let Some(any) = any {
        // A text with a variable in it may stand for any value.
        let own = any.iter().filter(|one| one["pattern"] != "\\$\\{");
        return own.map(form).collect::<Vec<_>>().join(" or ");
    }
    if let Some(names) = schema["enum"].as_array() {
        let names: Vec<String> =
            names.iter().filter_map(Value::as_str).map(|name| format!("`{name}`")).collect();
        return names.join(", ");
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        return if pattern.contains("KiB") { "size" } else { "duration" }.to_owned();
    }
    if let Some(entry) = schema.get("additionalProperties").filter(|entry| entry.is_object()) {
        return format!("names, each {}", form(entry));
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("list: {}", form(&schema["items"])),
        Value::String(name) => plain(name).to_owned(),
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).map(plain).collect::<Vec<_>>().join(", ")
        }
        _ => "anything".to_owned(),
    }
}

/// TOML's words.
fn plain(name: &str) -> &str {
    match name {
        "string" => "text",
        "object" => "table",
        "number" => "float",
        other => other,
    }
}

fn whole() -> String {
    let schema = json_schema();
    let definitions = schema["definitions"].as_object().unwrap();
    let all: BTreeMap<&str, &Value> =
        definitions.iter().map(|(name, schema)| (name.as_str(), schema)).collect();
    let mut page = HEAD.to_owned();
    for (name, schema) in [("The whole", &schema)].into_iter().chain(all) {
        let doc = schema["description"].as_str().unwrap_or("One of these.");
        write!(page, "\n## {name}\n\n{doc}\n").unwrap();
        let Some(keys) = schema["properties"].as_object() else {
            writeln!(page, "\n{}", form(schema)).unwrap();
            continue;
        };
        page.push_str("\n| key | what stands there | what it is for |\n|---|---|---|\n");
        let keys: BTreeMap<&str, &Value> = keys.iter().map(|(k, s)| (k.as_str(), s)).collect();
        for (key, rule) in keys {
            let must = schema["required"].as_array().unwrap().iter().any(|must| must == key);
            let key = if must { format!("**`{key}`**") } else { format!("`{key}`") };
            let name = rule["$ref"].as_str().map(|r| r.trim_start_matches("#/definitions/"));
            let of = name.map(|name| &definitions[name]);
            let doc = rule["description"].as_str().or_else(|| of?["description"].as_str());
            let doc = doc.unwrap_or_default().replace('|', "\\|");
            writeln!(page, "| {key} | {} | {doc} |", form(rule)).unwrap();
        }
    }
    page
}

#[test]
fn the_page_of_keys_is_what_is_declared() {
    let whole = whole();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(PAGE, &whole).unwrap();
    }
    assert!(page::text(PAGE) == whole, "{PAGE} is not what is declared: write it with BLESS=1");
}
