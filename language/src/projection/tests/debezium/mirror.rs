//! A table that changes at random, the log that Debezium writes of it, and the rows that are folded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use foldline_api::json::to_string;
use foldline_api::value::Value;
use proptest::prelude::*;

use super::{Log, PLACEHOLDER, change, compile};

const BYTES: &str = "\"X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==\"";
const TEXTS: &str = "[\"__debezium_unavailable_value\"]";
const CODES: &str = "[95,95,100,101,98,101,122,105,117,109,95,117,110,97,118,97,105,108,97,98,108,101,95,118,97,108,117,101]";

/// A row of the source: `big`, `raw`, `tags` and `codes` may be out of line.
#[derive(Clone, Debug)]
struct Source {
    name: Option<String>,
    number: i64,
    big: [u32; 4],
}

impl Source {
    /// In JSON, but for what is not sent.
    fn json(&self, id: i64, untouched: [bool; 4]) -> String {
        let name = self.name.as_ref().map_or("null".to_owned(), |name| format!("\"{name}\""));
        let [big, raw, tags, codes] = self.big;
        let raw = to_string(&Value::Bytes(Arc::from(raw.to_be_bytes())));
        let sent =
            [format!("\"{big}\""), raw, format!("[\"{tags}\",null]"), format!("[{codes},1]")];
        let mut text = format!(r#"{{"id":{id},"name":{name},"number":{}"#, self.number);
        let stand_ins = [PLACEHOLDER, BYTES, TEXTS, CODES];
        for (at, column) in ["big", "raw", "tags", "codes"].into_iter().enumerate() {
            let value = if untouched[at] { stand_ins[at] } else { &sent[at] };
            let _ = write!(text, r#","{column}":{value}"#);
        }
        text.push('}');
        text
    }

    fn row(&self, id: i64, changes: u64) -> String {
        let name = self.name.as_ref().map_or("null".to_owned(), |name| format!("\"{name}\""));
        let [big, raw, tags, codes] = self.big;
        let raw = to_string(&Value::Bytes(Arc::from(raw.to_be_bytes())));
        format!(
            r#"{id} {name} {} "{big}" {raw} ["{tags}",null] [{codes},1] "x{big}" {changes}"#,
            self.number
        )
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        id: i64,
        row: Source,
        snapshot: bool,
    },
    /// Which of the large columns change.
    Update {
        id: i64,
        row: Source,
        touched: [bool; 4],
    },
    Rename {
        id: i64,
        to: i64,
        row: Source,
    },
    Delete {
        id: i64,
        tombstone: bool,
        lost: bool,
    },
    Noise(u8),
}

fn source() -> impl Strategy<Value = Source> {
    let name = proptest::option::of("[a-z]{0,3}");
    (name, -5..5i64, any::<[u32; 4]>()).prop_map(|(name, number, big)| Source { name, number, big })
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..6i64;
    prop_oneof![
        (id.clone(), source(), any::<bool>()).prop_map(|(id, row, snapshot)| Step::Insert {
            id,
            row,
            snapshot
        }),
        (id.clone(), source(), any::<[bool; 4]>()).prop_map(|(id, row, touched)| Step::Update {
            id,
            row,
            touched
        }),
        (id.clone(), id.clone(), source()).prop_map(|(id, to, row)| Step::Rename { id, to, row }),
        (id, any::<bool>(), any::<bool>()).prop_map(|(id, tombstone, lost)| Step::Delete {
            id,
            tombstone,
            lost
        }),
        (0..4u8).prop_map(Step::Noise),
    ]
}

const FIELDS: &str = r#"fields = { id = "bigint", name = "text", number = "bigint", big = "text", raw = "bytea", tags = "text[]", codes = "bigint[]", shown = "text", changes = { type = "bigint", default = 0 } }"#;

fn mirror(envelope: &str) -> String {
    format!(
        "[projections.p]\ntopics = [\"t\"]\nenvelope = \"{envelope}\"\nkey = {{ id = \"event.id\" }}\n{FIELDS}\n\
         [[projections.p.on]]\nset = \"event\"\nmerge = {{ shown = \"'x' + event.big\" }}\nadd = {{ changes = 1 }}"
    )
}

/// The mirrored table, and the log that Debezium writes of it.
struct Table {
    log: Log,
    flat: bool,
    full: bool,
    rows: BTreeMap<i64, (Source, u64)>,
}

impl Table {
    fn send(&mut self, id: i64, op: &str, before: &str, after: &str) {
        let value = if self.flat {
            let (row, deleted) = if op == "d" { (before, true) } else { (after, false) };
            let row = row.strip_suffix('}').unwrap();
            format!(r#"{row},"__deleted":"{deleted}","__op":"{op}"}}"#)
        } else {
            change(op, before, after)
        };
        let outcome = self.log.fold(Some(&format!("{{\"id\":{id}}}")), Some(&value));
        assert!(outcome == "applied" || op == "d", "{op}: {outcome}\n{value}");
        assert!(outcome == "applied" || outcome == "filtered", "{op}: {outcome}\n{value}");
    }

    /// What Debezium says of the row before: the truth, or what it invents.
    fn before(&self, id: i64, row: &Source) -> String {
        if self.full {
            return row.json(id, [false; 4]);
        }
        format!(
            r#"{{"id":{id},"name":"","number":0,"big":null,"raw":null,"tags":null,"codes":null}}"#
        )
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Insert { id, row, snapshot } => {
                if self.rows.contains_key(&id) {
                    return;
                }
                self.send(id, if snapshot { "r" } else { "c" }, "null", &row.json(id, [false; 4]));
                self.rows.insert(id, (row, 1));
            }
            Step::Update { id, row, touched } => self.update(id, row, touched),
            Step::Rename { id, to, row } => {
                let Some((old, _)) = self.rows.get(&id).cloned() else { return };
                if self.rows.contains_key(&to) {
                    return;
                }
                self.rows.remove(&id);
                self.send(id, "d", &self.before(id, &old), "null");
                self.log.fold(Some(&format!("{{\"id\":{id}}}")), None);
                self.send(to, "c", "null", &row.json(to, [false; 4]));
                self.rows.insert(to, (row, 1));
            }
            Step::Delete { id, tombstone, lost } => {
                let Some((old, _)) = self.rows.remove(&id) else { return };
                // Compaction may leave the tombstone alone.
                if !(tombstone && lost) {
                    self.send(id, "d", &self.before(id, &old), "null");
                }
                if tombstone {
                    self.log.fold(Some(&format!("{{\"id\":{id}}}")), None);
                }
            }
            Step::Noise(_) if self.flat => {}
            Step::Noise(which) => {
                let value = match which {
                    0 => r#"{"ts_ms":1}"#.to_owned(),
                    1 => r#"{"status":"BEGIN","id":"1:2","event_count":null,"data_collections":null,"ts_ms":1}"#.to_owned(),
                    2 => r#"{"source":{},"ts_ms":1,"databaseName":"d","ddl":"create table t ()","tableChanges":[]}"#.to_owned(),
                    _ => change("t", "null", "null"),
                };
                assert_eq!(self.log.fold(None, Some(&value)), "filtered");
            }
        }
    }

    fn update(&mut self, id: i64, mut row: Source, touched: [bool; 4]) {
        let Some((old, changes)) = self.rows.get(&id).cloned() else { return };
        for (at, touched) in touched.into_iter().enumerate() {
            if !touched {
                row.big[at] = old.big[at];
            }
        }
        // With all columns in the replica identity, Debezium takes what was not sent from there.
        let untouched = touched.map(|touched| !touched && !self.full);
        let before = if self.full { old.json(id, [false; 4]) } else { "null".to_owned() };
        self.send(id, "u", &before, &row.json(id, untouched));
        self.rows.insert(id, (row, changes + 1));
    }
}

proptest! {
    #[test]
    fn the_rows_are_those_of_the_source(
        steps in proptest::collection::vec(step(), 1..60),
        flat: bool,
        full: bool,
    ) {
        let text = mirror(if flat { "debezium-flat" } else { "debezium" });
        let log = Log::new(compile(&text, full));
        let mut table = Table { log, flat, full, rows: BTreeMap::new() };
        for step in steps {
            table.run(step);
            let wanted: Vec<String> =
                table.rows.iter().map(|(id, (row, changes))| row.row(*id, *changes)).collect();
            prop_assert_eq!(table.log.rows(), wanted);
        }
    }
}
