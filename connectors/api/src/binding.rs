//! Whether a target is this connector's, decided the same way by every sink (rules 1 and 15 of the
//! exactness rules): positions belong to one physical target, one log, one group and one model.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::sink::TargetSpec;

/// What the books say about a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The fleet.
    pub worker: String,
    /// The connector.
    pub connector: String,
    /// Its group.
    pub group: String,
    /// The log's identity.
    pub log: String,
    /// The physical target: a table's OID, an index's UUID.
    pub physical: String,
    /// The live generation.
    pub generation: u64,
    /// The fingerprint that builds it.
    pub fingerprint: String,
    /// Fingerprints that came before: never taken back, so that a rolling deploy cannot flip.
    pub superseded: Vec<String>,
    /// The projection in its stable JSON form.
    pub projection: Json,
    /// Generations that another projection began and this one carried on (`continue`), where the sink
    /// keeps them here.
    #[serde(default)]
    pub continued: Vec<u64>,
}

/// What stands in the store under the target's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The physical target.
    pub physical: String,
    /// Whether it has rows.
    pub has_rows: bool,
}

/// Whether a target is this connector's. Every sink asks it before each command: a connector that is not the
/// owner neither changes nor learns anything.
///
/// # Errors
/// A config error that names the owner.
pub fn check_owner(stored: &Binding, spec: &TargetSpec) -> Result<()> {
    let owner = (&stored.worker, &stored.connector, &stored.group);
    if owner != (&spec.worker, &spec.connector, &spec.group) {
        return Err(Error::config(format!(
            "{:?} belongs to connector {:?} of worker {:?} (group {:?}), not to connector {:?} of worker \
             {:?} (group {:?}): take the old names back, or free the target \
             (docs/operating.md, \"Removing a connector\")",
            spec.target,
            stored.connector,
            stored.worker,
            stored.group,
            spec.connector,
            spec.worker,
            spec.group
        )));
    }
    Ok(())
}

/// Whether what stands in a target is of this projection: another one's rows mean something else. `target` is its name as the store has
/// it, `cannot` what is refused, such as `its rows cannot be read`.
///
/// # Errors
/// A config error with that sentence.
pub fn check_projection(
    fingerprint: &str,
    spec: &TargetSpec,
    target: &str,
    cannot: &str,
) -> Result<()> {
    if fingerprint == spec.fingerprint {
        return Ok(());
    }
    Err(Error::config(format!(
        "{target:?} was built by another version of the projection: {cannot} by this one"
    )))
}

/// What differs between two projections in their stable JSON form, one sentence each.
#[must_use]
pub fn changes(old: &Json, new: &Json) -> Vec<String> {
    let mut out = column_changes(old, new);
    if old.get("key") != new.get("key") {
        out.push("the key".to_owned());
    }
    for (part, name) in [
        ("on", "the handlers"),
        ("topics", "the topics"),
        ("event_type", "event_type"),
        ("envelope", "the envelope"),
        ("expire", "expire"),
        ("fold", "the limits of a record"),
    ] {
        if old.get(part) != new.get(part) {
            out.push(name.to_owned());
        }
    }
    out
}

fn columns(projection: &Json) -> Vec<(&str, &Json)> {
    let list = projection.get("columns").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(|c| Some((c.get("name")?.as_str()?, c))).collect()
}

fn column_changes(old: &Json, new: &Json) -> Vec<String> {
    let (old, new) = (columns(old), columns(new));
    let mut out = Vec::new();
    for (name, column) in &new {
        match old.iter().find(|(other, _)| other == name) {
            None => out.push(format!("column {name} is new")),
            Some((_, before)) if before.get("type") != column.get("type") => out.push(format!(
                "column {name} was {} and is {}",
                text(before.get("type")),
                text(column.get("type"))
            )),
            Some((_, before)) if before != column => out.push(format!("column {name}")),
            Some(_) => {}
        }
    }
    for (name, _) in &old {
        if !new.iter().any(|(other, _)| other == name) {
            out.push(format!("column {name} is gone"));
        }
    }
    out
}

fn text(json: Option<&Json>) -> String {
    json.map_or_else(
        || "nothing".to_owned(),
        |j| j.as_str().map_or_else(|| j.to_string(), str::to_owned),
    )
}

/// What `continue` cannot carry over: the key, and the type or absence of a column.
#[must_use]
pub fn breaking_changes(old: &Json, new: &Json) -> Vec<String> {
    let mut out = Vec::new();
    if old.get("key").map(key_names) != new.get("key").map(key_names) {
        out.push("the key columns changed".to_owned());
    }
    let (old, new) = (columns(old), columns(new));
    for (name, before) in &old {
        match new.iter().find(|(other, _)| other == name) {
            None => out.push(format!("column {name} is gone")),
            Some((_, after)) if before.get("type") != after.get("type") => {
                out.push(format!("column {name} changed its type"));
            }
            Some(_) => {}
        }
    }
    out
}

fn key_names(key: &Json) -> Vec<&str> {
    let list = key.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(|part| part.get("name").and_then(Json::as_str)).collect()
}
