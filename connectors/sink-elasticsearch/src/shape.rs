//! What an index was made with, and whether it still is so.
//!
//! The index itself keeps it, in its mapping's `_meta`, so that each generation has its own, also after a
//! rollback: a hash of the connector's `mapping` and `settings`, and the fields as the cluster had them right
//! after they were applied. A changed hash is a changed config: what can be applied is, the rest takes a
//! rebuild. Changed fields under the same hash are drift: someone else changed the mapping.

use std::collections::BTreeMap;

use foldline_api::sink::{Configured, OnChange, TargetSpec};
use foldline_api::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use crate::compare::text;
use crate::document::hex;
use crate::mapping::{self, mapping, named_settings};
use crate::survey::Index;
use crate::target::ElasticsearchTarget;

/// The parameters of each field, by its path; the mapping's own under the empty path.
pub(crate) type Fields = BTreeMap<String, Map<String, Json>>;

/// What an index says it was made with.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Made {
    /// [`options`] of the config; empty where an older version of Foldline made the index.
    #[serde(default)]
    options: String,
    /// The settings that the config named.
    #[serde(default)]
    settings: Vec<String>,
    /// The plan's fields as the cluster had them then; empty until they were read back.
    #[serde(default)]
    pub(crate) fields: Fields,
}

impl Made {
    pub(crate) fn of(index: &Index) -> Made {
        let made = index.mappings.pointer("/_meta/foldline");
        made.and_then(|made| Made::deserialize(made).ok()).unwrap_or_default()
    }

    /// Whether it was made with this connector's `mapping` and `settings`.
    pub(crate) fn is_with(&self, spec: &TargetSpec) -> bool {
        self.options == options(spec)
    }
}

/// A hash of the connector's `mapping` and `settings`.
pub(crate) fn options(spec: &TargetSpec) -> String {
    let mut text = String::new();
    for options in [&spec.mapping, &spec.settings] {
        canonical(options.as_ref().unwrap_or(&Json::Null), &mut text);
    }
    let hash = hex(&Sha256::digest(text.as_bytes()));
    hash.get(..24).unwrap_or_default().to_owned()
}

/// The same text for the same JSON, whatever the order of its names.
fn canonical(json: &Json, out: &mut String) {
    let Json::Object(entries) = json else {
        out.push_str(&json.to_string());
        out.push('\n');
        return;
    };
    let entries: BTreeMap<&String, &Json> = entries.iter().collect();
    out.push('{');
    for (name, value) in entries {
        out.push_str(&json!(name).to_string());
        canonical(value, out);
    }
    out.push('}');
}

/// The plan's fields as a mapping has them.
pub(crate) fn fields(spec: &TargetSpec, mappings: &Json) -> Fields {
    let mut planned = Fields::new();
    collect(&mapping(spec, ""), "", &mut planned);
    let mut stand = Fields::new();
    collect(mappings, "", &mut stand);
    stand.retain(|path, _| planned.contains_key(path));
    stand
}

fn collect(of: &Json, path: &str, out: &mut Fields) {
    let own = of.as_object().into_iter().flatten();
    let own = own.filter(|(name, _)| *name != "properties" && *name != "_meta");
    out.insert(path.to_owned(), own.map(|(name, value)| (name.clone(), value.clone())).collect());
    let below = of.get("properties").and_then(Json::as_object);
    for (name, field) in below.into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(field, &path, out);
    }
}

/// How fields drifted, one sentence each: lost, mapped as something else, or taking less than they did. What
/// only searches notice is no drift. What alone may refuse documents (`fields`, `copy_to`, a strict `dynamic`)
/// is one once documents were `refused`.
fn drift(then: &Fields, now: &Fields, refused: bool) -> Vec<String> {
    let mut out = Vec::new();
    for (path, was) in then {
        let of = if path.is_empty() { "the mapping".to_owned() } else { format!("field {path}") };
        let Some(is) = now.get(path) else {
            out.push(format!("{of} is gone"));
            continue;
        };
        let names: std::collections::BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        for name in names {
            let (was, is) = (was.get(name).map(text), is.get(name).map(text));
            if was != is && takes_less(name, was.as_deref(), is.as_deref(), refused) {
                let shown = |value: Option<String>| value.unwrap_or_else(|| "not set".to_owned());
                out.push(format!("{name} of {of} was {} and is {}", shown(was), shown(is)));
            }
        }
    }
    out
}

/// Whether a field's changed parameter lets the index take less than before.
fn takes_less(name: &str, was: Option<&str>, is: Option<&str>, refused: bool) -> bool {
    let limit = |value: Option<&str>| value.and_then(|v| v.parse().ok()).unwrap_or(u64::MAX);
    match name {
        "type" | "format" | "enabled" => true,
        "ignore_malformed" => was == Some("true"),
        "coerce" => is == Some("false"),
        // Longer texts are indexed now, and may be longer than a term can be.
        "ignore_above" => limit(is) > limit(was),
        "dynamic" => refused && is == Some("strict"),
        "fields" | "copy_to" => refused,
        _ => false,
    }
}

/// Refuses an index that is no longer what it was made as.
pub(crate) fn check(
    spec: &TargetSpec,
    (name, index): (&str, &Index),
    then: &Fields,
    refused: bool,
) -> Result<()> {
    mapping::refuse(name, &index.settings, &index.mappings)?;
    let drift = drift(then, &fields(spec, &index.mappings), refused);
    if drift.is_empty() {
        return Ok(());
    }
    let connector = &spec.connector;
    Err(Error::config(format!(
        "the mapping of index {name:?} was changed under connector {connector:?}: {}: undo it, or put it into \
         connectors.{connector}.mapping, or rebuild with `foldline rebuild {connector}`",
        drift.join("; ")
    )))
}

impl ElasticsearchTarget {
    /// Makes the live index what the connector's `mapping` and `settings` say, as far as it can be changed.
    pub(crate) async fn configured(&self) -> Result<Configured> {
        let stored = self.stored().await?;
        let binding = &stored.value.binding;
        let name = self.index(binding.generation);
        if !stored.value.ready || binding.fingerprint != self.spec.fingerprint {
            return Ok(Configured::AsItIs);
        }
        let Some(index) = self.cluster.index(&name).await? else { return Ok(Configured::AsItIs) };
        let made = Made::of(&index);
        if made.is_with(&self.spec) {
            if made.fields.is_empty() {
                self.keep_fields(&name, &index).await?;
            }
            return Ok(Configured::AsItIs);
        }
        let refused = self.apply(&name, &index, &made, &stored.value.build).await?;
        let (spec, connector) = (&self.spec, &self.spec.connector);
        let Some(refused) = refused else {
            return Ok(Configured::Changed(format!(
                "index {name:?} has the mapping and settings of connector {connector:?} now; what was written \
                 before is indexed as it was until it is written again, or until a rebuild"
            )));
        };
        let says = format!(
            "the mapping or the settings of connector {connector:?} cannot be applied to index {name:?}: {refused}"
        );
        if made.options.is_empty() {
            // Nobody knows whether they changed since: said once, and no reason to stop.
            self.keep_options(&name, &index).await?;
            return Ok(Configured::Changed(format!(
                "{says}: rebuild with `foldline rebuild {connector}` to have them"
            )));
        }
        match spec.on_change {
            OnChange::Rebuild => Ok(Configured::Outdated(says)),
            OnChange::Refuse | OnChange::Continue => Err(Error::config(format!(
                "{says}: rebuild with `foldline rebuild {connector}`, or set connectors.{connector}.on_change to \
                 \"rebuild\""
            ))),
        }
    }

    /// Applies settings and mapping, the mapping last, since the hash comes with it. Why they cannot be.
    async fn apply(
        &self,
        name: &str,
        index: &Index,
        made: &Made,
        build: &str,
    ) -> Result<Option<String>> {
        let planned = named_settings(&self.spec);
        let stands = |name: &String| index.settings.get(name).map(text);
        let mut changed: Map<String, Json> = planned
            .iter()
            .filter(|(name, value)| stands(name) != Some(text(value)))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let gone = made.settings.iter().filter(|name| !planned.contains_key(*name));
        // Null is the default again.
        changed.extend(gone.map(|name| (name.clone(), Json::Null)));
        if !changed.is_empty()
            && let Some(refused) = self.cluster.try_put(name, "_settings", &changed.into()).await?
        {
            return Ok(Some(refused));
        }
        let Some(refused) =
            self.cluster.try_put(name, "_mapping", &mapping(&self.spec, build)).await?
        else {
            if let Some(index) = self.cluster.index(name).await? {
                self.keep_fields(name, &index).await?;
            }
            return Ok(None);
        };
        Ok(Some(refused))
    }

    /// Keeps the fields of an index as they are now, which they are to stay.
    pub(crate) async fn keep_fields(&self, name: &str, index: &Index) -> Result<()> {
        let made = Made { fields: fields(&self.spec, &index.mappings), ..Made::of(index) };
        self.keep(name, index, &made).await
    }

    /// Takes an index as one that has this config's mapping and settings.
    async fn keep_options(&self, name: &str, index: &Index) -> Result<()> {
        let settings = named_settings(&self.spec).keys().cloned().collect();
        let fields = fields(&self.spec, &index.mappings);
        let made = Made { options: options(&self.spec), settings, fields };
        self.keep(name, index, &made).await
    }

    async fn keep(&self, name: &str, index: &Index, made: &Made) -> Result<()> {
        let mut meta = index.mappings.get("_meta").cloned().unwrap_or_else(|| json!({}));
        let ours =
            json!({ "options": made.options, "settings": made.settings, "fields": made.fields });
        if let Some(meta) = meta.as_object_mut() {
            let foldline = meta.entry("foldline").or_insert_with(|| json!({}));
            if let (Some(foldline), Json::Object(ours)) = (foldline.as_object_mut(), ours) {
                foldline.extend(ours);
            }
        }
        self.cluster.extend(name, &json!({ "_meta": meta })).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::tests::spec;

    #[test]
    fn a_hash_tells_other_options_and_not_another_order() {
        let mut one = spec(&[("id", "bigint")]);
        let none = options(&one);
        one.mapping = Some(json!({ "a": { "type": "text" }, "b": { "type": "long" } }));
        let mut other = one.clone();
        other.mapping = Some(json!({ "b": { "type": "long" }, "a": { "type": "text" } }));
        assert_eq!(options(&one), options(&other));
        assert_ne!(options(&one), none);
        (other.mapping, other.settings) = (None, one.mapping.clone());
        assert_ne!(options(&one), options(&other));
    }

    #[test]
    fn drift_is_what_makes_an_index_take_less() {
        let spec = spec(&[("id", "bigint"), ("name", "text"), ("lines", "children")]);
        let stands = mapping(&spec, "b");
        let then = fields(&spec, &stands);
        assert!(
            then.contains_key("lines.sku")
                && then.contains_key("")
                && then.contains_key("_foldline")
        );
        let after = |pointer: &str, value: Json| {
            let mut now = stands.clone();
            *now.pointer_mut(pointer).unwrap() = value;
            fields(&spec, &now)
        };
        let kept = |now: &Fields, refused| drift(&then, now, refused);
        assert_eq!(kept(&then, true), Vec::<String>::new());

        let retyped = after("/properties/name", json!({ "type": "text" }));
        assert_eq!(kept(&retyped, false)[0], "ignore_above of field name was 8191 and is not set");
        assert_eq!(kept(&retyped, false)[1], "type of field name was keyword and is text");
        let below = after("/properties/lines/properties/sku/type", json!("long"));
        assert_eq!(kept(&below, false), ["type of field lines.sku was keyword and is long"]);
        let lost = after("/properties", json!({}));
        assert!(kept(&lost, false).contains(&"field id is gone".to_owned()));

        // What searches only notice, and what an operator adds, is none until it refuses something.
        let keyword = |more: Json| {
            let mut field = json!({ "type": "keyword", "ignore_above": 8191 });
            field.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            after("/properties/name", field)
        };
        assert!(kept(&keyword(json!({ "ignore_above": 256, "norms": true })), true).is_empty());
        for more in [json!({ "fields": { "n": { "type": "long" } } }), json!({ "copy_to": "id" })] {
            assert!(kept(&keyword(more.clone()), false).is_empty());
            assert_eq!(kept(&keyword(more), true).len(), 1);
        }
        let strict = after("/dynamic", json!("strict"));
        assert!(kept(&strict, false).is_empty());
        assert_eq!(kept(&strict, true), ["dynamic of the mapping was false and is strict"]);
        let mut more = stands.clone();
        more["properties"]["another"] = json!({ "type": "long" });
        assert!(kept(&fields(&spec, &more), true).is_empty(), "a field that is nobody's");
    }

    #[test]
    fn malformed_values_that_are_no_longer_ignored_are_drift() {
        let spec = spec(&[("id", "numeric(12,2)")]);
        let stands = mapping(&spec, "b");
        let mut now = stands.clone();
        now["properties"]["id"] = json!({ "type": "double" });
        let (then, now) = (fields(&spec, &stands), fields(&spec, &now));
        assert_eq!(
            drift(&then, &now, false),
            ["ignore_malformed of field id was true and is not set"]
        );
        assert!(drift(&now, &then, true).is_empty(), "it takes more");
    }
}
