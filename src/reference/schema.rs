//! The JSON Schema against the page's configs, the scenarios and the project's own: it takes them all, and each of its
//! words stands in an example.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{GUIDES, configs, page};
use crate::config::json_schema;

/// The keys met: definition and property.
type Met = BTreeSet<(String, String)>;

struct Checker {
    schema: Value,
}

impl Checker {
    /// Checks `value` against `schema`, which is the definition `name`. Knows what our schema is made of, and panics
    /// at any other keyword.
    fn check(&self, name: &str, schema: &Value, value: &Value, path: &str) -> Result<Met, String> {
        let mut met = Met::new();
        for (keyword, rule) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "description" | "definitions" | "$schema" | "additionalProperties" => {}
                "$ref" => {
                    let name = rule.as_str().unwrap().strip_prefix("#/definitions/").unwrap();
                    let definition = &self.schema["definitions"][name];
                    met.extend(self.check(name, definition, value, path)?);
                }
                "anyOf" | "oneOf" => met.extend(self.choose(name, keyword, rule, value, path)?),
                "properties" => met.extend(self.table(name, schema, value, path)?),
                "required" => {
                    for key in rule.as_array().unwrap() {
                        let key = key.as_str().unwrap();
                        if value.get(key).is_none() {
                            return Err(format!("{path}: lacks {key}"));
                        }
                    }
                }
                "items" => {
                    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                        met.extend(self.check(name, rule, item, &format!("{path}[{at}]"))?);
                    }
                }
                _ if plain(keyword, rule, value) => {}
                _ => return Err(format!("{path}: {value} is against {keyword} {rule}")),
            }
        }
        if schema.get("properties").is_none()
            && let Some(entry) = schema.get("additionalProperties").filter(|rule| rule.is_object())
        {
            for (key, value) in value.as_object().into_iter().flatten() {
                met.extend(self.check(name, entry, value, &format!("{path}.{key}"))?);
            }
        }
        Ok(met)
    }

    fn choose(
        &self,
        name: &str,
        keyword: &str,
        rules: &Value,
        value: &Value,
        path: &str,
    ) -> Result<Met, String> {
        let tried: Vec<Result<Met, String>> = rules
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| self.check(name, rule, value, path))
            .collect();
        let fits = tried.iter().filter(|tried| tried.is_ok()).count();
        if fits == 0 || keyword == "oneOf" && fits > 1 {
            return Err(format!("{path}: fits {fits} of {keyword}: {tried:?}"));
        }
        Ok(tried.into_iter().flatten().flatten().collect())
    }

    fn table(&self, name: &str, schema: &Value, value: &Value, path: &str) -> Result<Met, String> {
        assert_eq!(schema["additionalProperties"], false, "{name}");
        let mut met = Met::new();
        for (key, value) in value.as_object().into_iter().flatten() {
            let Some(property) = schema["properties"].get(key) else {
                return Err(format!("{path}: the schema knows no {key} in {name}"));
            };
            met.insert((name.to_owned(), key.clone()));
            met.extend(self.check(name, property, value, &format!("{path}.{key}"))?);
        }
        Ok(met)
    }

    /// Checks a whole config, and the records of its tests by their own definition.
    fn config(&self, shown: &str, text: &str) -> Met {
        let config = json(&toml::Value::Table(text.parse().unwrap()));
        let mut met = self
            .check("root", &self.schema, &config, "")
            .unwrap_or_else(|problem| panic!("{shown}: {problem}"));
        let projections = config["projections"].as_object().cloned().unwrap_or_default();
        for test in projections.values().flat_map(|p| p["tests"].as_array().into_iter().flatten()) {
            for record in test["given"].as_array().into_iter().flatten() {
                let definition = &self.schema["definitions"]["record"];
                let keys: BTreeSet<&str> = definition["properties"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(String::as_str)
                    .collect();
                if record.as_object().is_some_and(|r| r.keys().any(|k| keys.contains(k.as_str()))) {
                    met.extend(self.check("record", definition, record, shown).unwrap());
                }
            }
        }
        met
    }
}

/// The keywords that look at one value alone.
fn plain(keyword: &str, rule: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        other => panic!("a type {other}"),
    };
    let least = usize::try_from(rule.as_u64().unwrap_or(0)).unwrap();
    match keyword {
        "type" => match rule {
            Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
            name => is(name.as_str().unwrap()),
        },
        "enum" => rule.as_array().unwrap().contains(value),
        "pattern" => {
            let regex = regex::Regex::new(rule.as_str().unwrap()).unwrap();
            value.as_str().is_none_or(|text| regex.is_match(text))
        }
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= least),
        "minItems" => value.as_array().is_none_or(|items| items.len() >= least),
        "minimum" => value.as_i64().is_none_or(|n| n >= rule.as_i64().unwrap()),
        other => panic!("the checker does not know the keyword {other}"),
    }
}

/// TOML as an editor hands it to a validator: dates are texts.
fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::Table(table) => {
            let map: Map<String, Value> = table.iter().map(|(k, v)| (k.clone(), json(v))).collect();
            map.into()
        }
        toml::Value::Array(items) => items.iter().map(json).collect(),
        toml::Value::Datetime(time) => time.to_string().into(),
        other => serde_json::to_value(other).unwrap(),
    }
}

#[test]
fn the_page_shows_every_word_of_the_schema() {
    let checker = Checker { schema: json_schema() };
    let mut met = Met::new();
    for (line, text) in configs(&page()) {
        met.extend(checker.config(&format!("docs/reference.md:{line}"), &text));
    }
    let mut missing = Vec::new();
    let definitions = checker.schema["definitions"].as_object().unwrap();
    let root = ("root".to_owned(), checker.schema.clone());
    for (name, schema) in definitions.iter().map(|(n, s)| (n.clone(), s.clone())).chain([root]) {
        for key in schema["properties"].as_object().into_iter().flat_map(|keys| keys.keys()) {
            if !met.contains(&(name.clone(), key.clone())) {
                missing.push(format!("{name}.{key}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/reference.md shows no {}", missing.join(", "));
}

fn toml_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            toml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
}

#[test]
fn the_schema_takes_every_config_that_the_project_has() {
    let checker = Checker { schema: json_schema() };
    let mut files = vec![PathBuf::from("tests/fixtures/reference.toml")];
    for directory in ["tests/fixtures/scenarios", "config"] {
        toml_files(Path::new(directory), &mut files);
    }
    assert!(files.len() >= 10, "{} files", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        checker.config(&file.display().to_string(), &text);
    }
    for guide in GUIDES {
        for (line, text) in configs(&page::text(guide)) {
            checker.config(&format!("{guide}:{line}"), &text);
        }
    }
}

#[test]
fn the_schema_refuses_what_it_does_not_know() {
    let checker = Checker { schema: json_schema() };
    for (text, part) in [
        ("[worker]\nnam = 'a'", "knows no nam"),
        ("[sinks.a]\ntype = 'postgres'\npath = 'x'", "fits 0 of oneOf"),
        ("[connectors.a]\nprojection = 'p'", "lacks sink"),
        ("[connectors.a]\nprojection = 'p'\nsink = 's'\nbatch = { age = '10' }", "pattern"),
    ] {
        let config = json(&toml::Value::Table(text.parse().unwrap()));
        let problem = checker.check("root", &checker.schema, &config, "").unwrap_err();
        assert!(problem.contains(part), "{text}: {problem}");
    }
}
