//! The TOML of a plan.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use foldline_api::json;
use foldline_api::value::{Map, Value};
use toml::Value as Toml;

use super::Sample;
use super::masks::Masks;
use super::plan::{Column, Handler, Named, Plan, text};

/// Records of a case.
const GIVEN_MAX: usize = 8;

/// One test, its records as TOML.
#[derive(Clone, Debug)]
pub(super) struct Cases {
    name: &'static str,
    given: Vec<String>,
}

/// What a case comes to.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    pub(super) rows: Vec<String>,
    pub(super) bad: u64,
    pub(super) filtered: u64,
}

impl Plan {
    /// Tests from what was sampled: some records of one key, and one of each event.
    pub(super) fn cases(&self, samples: &[Sample]) -> Vec<Cases> {
        let key = |sample: &Sample| json::to_string(&sample.key);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for sample in samples {
            *counts.entry(key(sample)).or_default() += 1;
        }
        let most = counts.iter().max_by_key(|(_, count)| **count).map(|(key, _)| key.clone());
        let of_one: Vec<&Sample> =
            samples.iter().filter(|sample| Some(key(sample)) == most).take(GIVEN_MAX).collect();
        let mut cases = vec![self.case("records of one key", &of_one)];
        let mut seen = std::collections::BTreeSet::new();
        let each: Vec<&Sample> = samples
            .iter()
            .filter(|sample| self.name_of(sample).is_some_and(|name| seen.insert(name)))
            .take(GIVEN_MAX)
            .collect();
        if each.len() > 1 {
            cases.push(self.case("one of each event", &each));
        }
        cases
    }

    fn case(&self, name: &'static str, samples: &[&Sample]) -> Cases {
        let mut masks = Masks::default();
        let given = samples.iter().map(|sample| self.given(sample, &mut masks)).collect();
        Cases { name, given }
    }

    /// A record as it stands in a test.
    fn given(&self, sample: &Sample, masks: &mut Masks) -> String {
        let name = self.name_of(sample);
        let value = match &sample.value {
            Value::Map(event) => Some(self.masked(event, name.as_deref(), masks)),
            Value::Null => None,
            other => Some(masks.value(other)),
        };
        let mut record = Vec::new();
        match masks.value(&sample.key) {
            Value::Null => {}
            Value::Text(key) => record.push(format!("key = {}", quoted(&key))),
            key => record.push(format!("key = {}", quoted(&json::to_string(&key)))),
        }
        if let Some(value) = value {
            record.push(format!("value = {}", quoted(&json::to_string(&value))));
        }
        match (&self.named, name) {
            (Named::ByHeader(header), Some(name)) => {
                record.push(format!("headers = {{ {} = {} }}", quoted(header), quoted(&name)));
            }
            (Named::ByConverter, Some(name)) => record.push(format!("event = {}", quoted(&name))),
            _ => {}
        }
        match record.as_slice() {
            [] => "{}".to_owned(),
            parts => format!("{{ {} }}", parts.join(", ")),
        }
    }

    fn masked(&self, event: &Map, name: Option<&str>, masks: &mut Masks) -> Value {
        let entry = |(field, value): (&Arc<str>, &Value)| {
            let value = match (&self.named, self.debezium) {
                // What names an event, or says what it does, stays.
                (Named::ByField(own), _) if **own == **field => {
                    Value::text(name.unwrap_or_default())
                }
                (_, true) if **field == *"op" => value.clone(),
                // Where the change came from.
                (_, true) if !matches!(&**field, "before" | "after") => return None,
                _ => masks.value(value),
            };
            Some((Arc::clone(field), value))
        };
        Value::Map(Arc::new(event.iter().filter_map(entry).collect::<Map>()))
    }
}

/// A TOML string; `${` is one that stands for itself.
fn quoted(text: &str) -> String {
    Toml::String(text.replace("${", "$${")).to_string()
}

/// A comment on one line.
fn comment(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("# {plain}")
}

/// The whole text.
pub(super) fn toml(
    (name, topic): (&str, &str),
    plan: &Plan,
    cases: &[Cases],
    expected: &[Expected],
    notes: &[String],
) -> String {
    let mut out = format!(
        "# Suggested by {} records of a topic: read it, and correct what was guessed.\n",
        plan.samples
    );
    for note in notes {
        out.push_str(&comment(note));
        out.push('\n');
    }
    let table = format!("projections.{name}");
    head(&mut out, &table, topic, plan);
    let _ = write!(out, "\n[{table}.fields]\n");
    let updated = Column {
        name: plan.updated.clone(),
        ty: "timestamptz",
        from: "timestamp".to_owned(),
        guess: None,
    };
    for column in plan.key.columns.iter().chain(&plan.columns).chain([&updated]) {
        let guess = column.guess.map(|guess| format!("    {}", comment(guess))).unwrap_or_default();
        let _ = writeln!(out, "{} = {}{guess}", column.name, quoted(column.ty));
    }
    if plan.left_out > 0 {
        let _ = writeln!(out, "# {} more fields of the events are left out", plan.left_out);
    }
    for handler in &plan.handlers {
        write_handler(&mut out, &table, plan, handler);
    }
    for (at, case) in cases.iter().enumerate() {
        write_case(&mut out, &table, case, expected.get(at));
    }
    out
}

fn head(out: &mut String, table: &str, topic: &str, plan: &Plan) {
    let _ = write!(out, "\n[{table}]\ntopics = [{}]\n", quoted(topic));
    if plan.debezium {
        out.push_str("envelope = \"debezium\"\n");
    }
    match &plan.named {
        Named::No => {}
        Named::ByField(field) => {
            let from = super::plan::access(field);
            let _ =
                writeln!(out, "event_type = {}    # a guess: it names each event", quoted(&from));
        }
        Named::ByHeader(header) => {
            let from = format!("headers[{}]", text(header));
            let _ =
                writeln!(out, "event_type = {}    # a guess: it names each event", quoted(&from));
        }
        Named::ByConverter => {
            out.push_str("# each event is named by its schema\n");
        }
    }
    let parts: Vec<String> =
        plan.key.columns.iter().map(|c| format!("{} = {}", c.name, quoted(&c.from))).collect();
    let _ = writeln!(out, "key = {{ {} }}    {}", parts.join(", "), comment(&plan.key.why));
}

fn write_handler(out: &mut String, table: &str, plan: &Plan, handler: &Handler) {
    let _ = write!(out, "\n[[{table}.on]]\n");
    if let Some(event) = &handler.event {
        let _ = writeln!(out, "event = {}", quoted(event));
    }
    if handler.delete {
        out.push_str("delete = true    # a guess, by its name\n");
        return;
    }
    let assign = |fields: &[(String, String)]| {
        let parts: Vec<String> =
            fields.iter().map(|(name, from)| format!("{name} = {}", quoted(from))).collect();
        format!("{{ {} }}", parts.join(", "))
    };
    let updated = (plan.updated.clone(), "timestamp".to_owned());
    if handler.full {
        let mut fields = handler.fields.clone();
        fields.push(updated);
        let _ = writeln!(
            out,
            "# a guess: each event had all of these, so what is absent or null clears its field"
        );
        let _ = writeln!(out, "set = {}", assign(&fields));
    } else {
        let _ = writeln!(
            out,
            "# a guess: events hold only what changed, so null and absent leave a field"
        );
        let _ = writeln!(out, "merge = {}", assign(&handler.fields));
        let _ = writeln!(out, "set = {}", assign(&[updated]));
    }
}

fn write_case(out: &mut String, table: &str, case: &Cases, expected: Option<&Expected>) {
    let _ = write!(out, "\n[[{table}.tests]]\n");
    let _ = writeln!(out, "name = \"{}, their values replaced\"", case.name);
    let list = |out: &mut String, name: &str, items: &[String]| {
        let _ = writeln!(out, "{name} = [");
        for item in items {
            let _ = writeln!(out, "  {item},");
        }
        out.push_str("]\n");
    };
    list(out, "given", &case.given);
    let Some(Expected { rows, bad, filtered }) = expected else {
        out.push_str("expect = []\n");
        return;
    };
    let rows: Vec<String> = rows.iter().map(|row| quoted(row)).collect();
    list(out, "expect", &rows);
    if *bad > 0 {
        let _ =
            writeln!(out, "bad = {bad}    # records that this projection cannot apply: see why");
    }
    let _ = writeln!(out, "filtered = {filtered}");
}
