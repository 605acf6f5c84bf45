//! What stands in the cluster under a target's names, and the steps that change it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use elasticsearch::http::Method;
use foldline_api::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::client::{Client, READ_ATTEMPTS, is_unavailable, pause};
use crate::error::Fault;
use crate::mapping::{Names, alive};

/// One index as it is.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Index {
    aliases: BTreeMap<String, Json>,
    /// The data stream that it is a part of.
    #[serde(default)]
    data_stream: Option<String>,
    /// The mapping.
    pub(crate) mappings: Json,
    /// The settings, by flat name.
    pub(crate) settings: Map<String, Json>,
}

impl Index {
    /// What tells it from another of its name.
    pub(crate) fn uuid(&self) -> &str {
        self.settings.get("index.uuid").and_then(Json::as_str).unwrap_or_default()
    }

    /// The fingerprint of the projection that its mapping was made for.
    pub(crate) fn fingerprint(&self) -> Option<&str> {
        self.mappings.pointer("/_meta/foldline/fingerprint").and_then(Json::as_str)
    }

    /// What its creator wrote into `_meta`, if that was Foldline.
    pub(crate) fn build(&self) -> Option<&str> {
        self.mappings.pointer("/_meta/foldline/build").and_then(Json::as_str)
    }
}

/// What stands under a target's names.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// This target's indexes by generation.
    pub(crate) generations: BTreeMap<u64, Index>,
    /// What else the target's name leads to: an index of that name, a data stream, someone's alias.
    pub(crate) strangers: Vec<String>,
    /// Generations whose names are an alias or a data stream of someone's: no index can be made there.
    taken: BTreeSet<u64>,
}

impl Survey {
    /// The numbers that no new generation can have.
    pub(crate) fn used(&self) -> impl Iterator<Item = u64> {
        self.generations.keys().chain(&self.taken).copied()
    }

    /// The number of a target's first generation.
    pub(crate) fn first(&self) -> u64 {
        self.used().max().map_or(1, |last| last + 1)
    }
}

/// A target's indexes and aliases.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) client: Arc<Client>,
    pub(crate) names: Names,
}

impl Cluster {
    /// Looks at all of the target's indexes and at what its name leads to.
    pub(crate) async fn survey(&self) -> Result<Survey> {
        let alias = self.names.alias();
        let query = [
            ("expand_wildcards", "all"),
            ("ignore_unavailable", "true"),
            ("allow_no_indices", "true"),
            ("flat_settings", "true"),
        ];
        let path = format!("/{alias}-g*,{alias}");
        let reply = self.client.json(Method::Get, &path, &query, None).await?;
        let indexes: BTreeMap<String, Index> = reply.read("looking at the target's indexes")?;
        Ok(self.sorted(indexes))
    }

    /// One index as it is; none where there is none.
    pub(crate) async fn index(&self, name: &str) -> Result<Option<Index>> {
        let path = format!("/{name}");
        let reply =
            self.client.json(Method::Get, &path, &[("flat_settings", "true")], None).await?;
        if reply.status == 404 {
            return Ok(None);
        }
        let mut found: BTreeMap<String, Index> =
            reply.read(&format!("looking at index {name:?}"))?;
        Ok(found.remove(name))
    }

    fn sorted(&self, indexes: BTreeMap<String, Index>) -> Survey {
        let alias = self.names.alias();
        let mut survey = Survey::default();
        for (name, index) in indexes {
            let names = index.aliases.keys().chain(&index.data_stream);
            // The wildcard also finds what only begins so: aliases of others, indexes of other targets. Only
            // the exact name is the target's.
            let leads = name == alias || names.clone().any(|name| name == alias);
            match self.names.generation(&name) {
                Some(generation) => drop(survey.generations.insert(generation, index)),
                None => {
                    survey.taken.extend(names.filter_map(|name| self.names.generation(name)));
                    if leads {
                        survey.strangers.push(name);
                    }
                }
            }
        }
        survey
    }

    /// Refuses a name that is taken.
    pub(crate) fn check_name(&self, survey: &Survey) -> Result<()> {
        let alias = self.names.alias();
        let Some(stranger) = survey.strangers.first() else { return Ok(()) };
        let what = if stranger == alias {
            format!("{alias:?} is an index, where an alias of that name must go")
        } else {
            format!("{alias:?} leads to {stranger:?}, which is not Foldline's")
        };
        Err(Error::config(format!(
            "{what}: give the connector another index, or move the data there to an index of another name \
             (_reindex or _clone) and delete {stranger:?}"
        )))
    }

    /// Whether an index has documents, tombstones too.
    pub(crate) async fn has_rows(&self, index: &str) -> Result<bool> {
        let mut attempt = 0;
        loop {
            match self.count(index).await {
                Err(error) if attempt < READ_ATTEMPTS && is_unavailable(&error) => {
                    pause(attempt).await;
                    attempt += 1;
                }
                result => return result.map(|count| count > 0),
            }
        }
    }

    async fn count(&self, index: &str) -> Result<u64> {
        let doing = "counting documents";
        self.client.refresh(index, doing).await?;
        let query = [("terminate_after", "1")];
        let path = format!("/{index}/_count");
        let counted: Json =
            self.client.json(Method::Get, &path, &query, None).await?.read(doing)?;
        let number = |path| counted.pointer(path).and_then(Json::as_u64);
        // Shards that did not answer count nothing, and are not always called failed.
        match (number("/_shards/total"), number("/_shards/successful"), number("/count")) {
            (Some(total), Some(successful), Some(count)) if total == successful => Ok(count),
            _ => Err(Error::retriable(format!("not all shards of {index:?} could be counted"))
                .with_code("503 no_shard_available_action_exception")),
        }
    }

    /// Creates an index, which may stand already. Readers find it no sooner than they are pointed at it.
    pub(crate) async fn create(&self, index: &str, body: &Json) -> Result<()> {
        let shielded = self.shield(index).await?;
        let created = self.create_from_templates(index, body).await;
        if shielded {
            self.unshield(index).await?;
        }
        created
    }

    async fn create_from_templates(&self, index: &str, body: &Json) -> Result<()> {
        let reply = self.client.json(Method::Put, &format!("/{index}"), &[], Some(body)).await?;
        match reply.success() {
            Ok(_) => Ok(()),
            Err(failure) if failure.cause.kind == "resource_already_exists_exception" => Ok(()),
            Err(failure) if failure.fault() == Fault::Rejected => {
                Err(self.wrong(index, "create", &failure.error("creating it")))
            }
            Err(failure) => Err(failure.error(&format!("creating index {index:?}"))),
        }
    }

    /// Adds fields to an index's mapping.
    pub(crate) async fn extend(&self, index: &str, mapping: &Json) -> Result<()> {
        let path = format!("/{index}/_mapping");
        match self.client.json(Method::Put, &path, &[], Some(mapping)).await?.success() {
            Ok(_) => Ok(()),
            Err(failure) if failure.fault() == Fault::Rejected => {
                Err(self.wrong(index, "extend", &failure.error("extending it")))
            }
            Err(failure) => Err(failure.error(&format!("extending index {index:?}"))),
        }
    }

    /// Changes an index's settings or mapping, all of it or nothing; why it cannot be changed so.
    pub(crate) async fn try_put(
        &self,
        index: &str,
        what: &str,
        body: &Json,
    ) -> Result<Option<String>> {
        let path = format!("/{index}/{what}");
        match self.client.json(Method::Put, &path, &[], Some(body)).await?.success() {
            Ok(_) => Ok(None),
            Err(failure) if failure.fault() == Fault::Rejected => Ok(Some(failure.sentence())),
            Err(failure) => Err(failure.error(&format!("changing index {index:?}"))),
        }
    }

    fn wrong(&self, index: &str, verb: &str, says: &Error) -> Error {
        Error::config(format!(
            "cannot {verb} index {index:?}: {}: check the connector's mapping and settings, and the index \
             templates that match",
            says.message()
        ))
    }

    /// Blocks writes, and returns when those under way have ended. An index that is gone is as good.
    pub(crate) async fn block(&self, index: &str) -> Result<()> {
        let path = format!("/{index}/_block/write");
        match self.client.json(Method::Put, &path, &[], None).await?.success() {
            Ok(_) => Ok(()),
            Err(failure) if failure.fault() == Fault::Gone => Ok(()),
            Err(failure) => Err(failure.error(&format!("blocking writes to {index:?}"))),
        }
    }

    /// Lets writes through again.
    pub(crate) async fn unblock(&self, index: &str) -> Result<()> {
        let path = format!("/{index}/_settings");
        let body = json!({ "index.blocks.write": null });
        let reply = self.client.json(Method::Put, &path, &[], Some(&body)).await?;
        reply.read::<Json>(&format!("unblocking {index:?}")).map(drop)
    }

    /// Changes an index's settings; a null one becomes the default again.
    pub(crate) async fn set(&self, index: &str, settings: &Json) -> Result<()> {
        let path = format!("/{index}/_settings");
        let reply = self.client.json(Method::Put, &path, &[], Some(settings)).await?;
        reply.read::<Json>(&format!("changing the settings of {index:?}")).map(drop)
    }

    /// Makes everything written visible to searches.
    pub(crate) async fn refresh(&self, index: &str) -> Result<()> {
        self.client.refresh(index, &format!("refreshing {index:?}")).await
    }

    /// 2 where all copies of an index are there, 1 where all primaries are, else 0.
    pub(crate) async fn health(&self, index: &str) -> Result<u8> {
        let path = format!("/_cluster/health/{index}");
        let reply = self.client.json(Method::Get, &path, &[], None).await?;
        let health: Json = reply.read(&format!("asking for the health of {index:?}"))?;
        Ok(match health.get("status").and_then(Json::as_str) {
            Some("green") => 2,
            Some("yellow") => 1,
            _ => 0,
        })
    }

    /// Drops an index, which may be gone already.
    pub(crate) async fn drop_index(&self, index: &str) -> Result<()> {
        match self.client.json(Method::Delete, &format!("/{index}"), &[], None).await?.success() {
            Ok(_) => Ok(()),
            Err(failure) if failure.fault() == Fault::Gone => Ok(()),
            Err(failure) => Err(failure.error(&format!("dropping index {index:?}"))),
        }
    }

    /// Whether writers of another model can still reach the index.
    pub(crate) fn has_other_writers(
        &self,
        index: &Index,
        generation: u64,
        write_alias: &str,
    ) -> bool {
        let writers = |alias: &String| self.names.is_write_alias(generation, alias);
        index.aliases.keys().any(|alias| writers(alias) && alias != write_alias)
    }

    /// What points readers and writers at a generation: both aliases lead to it alone, but for the writers
    /// of a generation that is being built `beside` it, and the readers' one has the filter and nothing
    /// else. An index template, or someone's hand, may have made it otherwise.
    pub(crate) fn pointing(
        &self,
        survey: &Survey,
        (generation, beside): (u64, Option<u64>),
        write_alias: &str,
    ) -> Vec<Json> {
        let (reader, live) = (self.names.alias(), self.names.index(generation));
        let filtered = json!({ "filter": alive() });
        let mut actions = Vec::new();
        for (&number, index) in &survey.generations {
            let name = self.names.index(number);
            for (alias, made) in &index.aliases {
                let stale = (alias == reader && (number != generation || *made != filtered))
                    || (self.names.is_write_alias(number, alias)
                        && alias != write_alias
                        && Some(number) != beside);
                if stale {
                    // `must_exist` makes this a compare-and-set: of two workers one loses and looks again.
                    let remove = json!({ "index": name, "alias": alias, "must_exist": true });
                    actions.push(json!({ "remove": remove }));
                }
            }
        }
        let stands = survey.generations.get(&generation).map(|index| &index.aliases);
        let stands = |alias: &str| stands.and_then(|aliases| aliases.get(alias));
        if stands(reader) != Some(&filtered) {
            let add = json!({ "index": live, "alias": reader, "filter": alive() });
            actions.push(json!({ "add": add }));
        }
        if stands(write_alias).is_none() {
            let add = json!({ "index": live, "alias": write_alias, "is_hidden": true });
            actions.push(json!({ "add": add }));
        }
        actions
    }

    /// Points them, in one step. False where another worker changed them after the survey.
    pub(crate) async fn point(
        &self,
        survey: &Survey,
        (generation, beside): (u64, Option<u64>),
        write_alias: &str,
    ) -> Result<bool> {
        let (reader, live) = (self.names.alias(), self.names.index(generation));
        let actions = self.pointing(survey, (generation, beside), write_alias);
        if actions.is_empty() {
            return Ok(true);
        }
        let body = json!({ "actions": actions });
        match self.client.json(Method::Post, "/_aliases", &[], Some(&body)).await?.success() {
            Ok(_) => Ok(true),
            Err(failure) if failure.fault() == Fault::Gone => Ok(false),
            Err(failure) if failure.fault() == Fault::Rejected => Err(Error::config(format!(
                "{} while pointing {reader:?} at {live:?}: the server's alias actions lack `must_exist`, without \
                 which two workers could undo each other; Elasticsearch has it from version 8, OpenSearch from 2.12",
                failure.cause.kind
            ))),
            Err(failure) => Err(failure.error(&format!("pointing {reader:?} at {live:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ElasticsearchConfig;

    #[test]
    fn only_what_has_exactly_the_targets_name_is_the_targets() {
        let urls = vec!["http://localhost:9200".to_owned()];
        let client = Client::new(&ElasticsearchConfig { urls, ..Default::default() }).unwrap();
        let cluster = Cluster { client: Arc::new(client), names: Names::new("orders") };
        let index = |aliases: &[&str], stream: Option<&str>| Index {
            aliases: aliases.iter().map(|alias| ((*alias).to_owned(), json!({}))).collect(),
            data_stream: stream.map(str::to_owned),
            mappings: json!({}),
            settings: Map::new(),
        };
        let survey = |of: &[(&str, Index)]| {
            let of = of.iter().map(|(name, index)| ((*name).to_owned(), index.clone()));
            cluster.sorted(of.collect())
        };
        let found = survey(&[
            ("orders-g3", index(&["orders", "orders-g3-w-000000000000"], None)),
            ("orders-gold", index(&["gold"], None)),
            ("orders-gold-g1", index(&["orders-gold"], None)),
            ("crm-2024", index(&["orders-global", "orders-g9"], None)),
            (".ds-orders-g11-2024", index(&[], Some("orders-g11"))),
            (".ds-orders-goods-2024", index(&[], Some("orders-goods"))),
        ]);
        assert_eq!(found.strangers, Vec::<String>::new());
        assert_eq!(found.used().collect::<Vec<_>>(), [3, 9, 11]);
        assert_eq!((found.first(), Survey::default().first()), (12, 1));
        for stranger in [
            ("orders", index(&[], None)),
            ("orders-000001", index(&["orders"], None)),
            (".ds-orders-2024", index(&[], Some("orders"))),
        ] {
            let name = stranger.0;
            assert_eq!(survey(&[stranger]).strangers, [name]);
        }
    }
}
