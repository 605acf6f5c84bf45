//! What a connector left that is in the config no more: found, and removed for good. `foldline clean`.
//!
//! The group goes first, the store's books last: whoever is cut off between them finds the rest by the books and carries on.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use foldline_api::error::{Error, Result};
use foldline_api::removal::{Keep, Owned, Removed};
use foldline_api::source::Log;

use crate::config::Config;
use crate::registry;

/// What is left of a connector.
pub(crate) struct Left {
    connector: String,
    /// Each target, by the name of the sink.
    targets: Vec<(String, Owned)>,
    groups: Vec<Group>,
}

/// A consumer group that it folded in.
struct Group {
    name: String,
    source: String,
    log: Arc<dyn Log>,
}

/// Looks for what a connector of this fleet left in the sinks of the config.
///
/// # Errors
/// Where the connector is in the config, where a worker still runs it, and where a sink or a source does not answer. A config error where
/// there is nothing.
pub(crate) async fn look(config: &Config, connector: &str) -> Result<Left> {
    if config.connectors.contains_key(connector) {
        return Err(Error::config(format!(
            "connector {connector:?} is in the config: take it out there, have the workers read that (SIGHUP, or a restart), and clean then"
        )));
    }
    let mut left =
        Left { connector: connector.to_owned(), targets: Vec::new(), groups: Vec::new() };
    let mut others = BTreeSet::new();
    for (name, sink) in &config.sinks {
        let store = sink.store.sink()?;
        let owned = store.owned(connector).await.map_err(|error| at(name, &error))?;
        let (ours, of_others): (Vec<_>, Vec<_>) =
            owned.into_iter().partition(|owned| owned.worker == config.worker.name);
        left.targets.extend(ours.into_iter().map(|owned| (name.clone(), owned)));
        others.extend(of_others.into_iter().map(|owned| owned.worker));
    }
    if left.targets.is_empty() {
        return Err(nothing(config, connector, &others));
    }
    left.groups = groups(config, &left.targets).await?;
    Ok(left)
}

fn at(sink: &str, error: &Error) -> Error {
    Error::config(format!("sinks.{sink}: {error}"))
}

fn nothing(config: &Config, connector: &str, others: &BTreeSet<String>) -> Error {
    let worker = &config.worker.name;
    let mut message = format!(
        "no sink of the config holds anything of connector {connector:?} of worker {worker:?}"
    );
    if !others.is_empty() {
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        message.push_str(&format!(
            ", but of the same name of worker {}: that one's config cleans it",
            others.join(", ")
        ));
    }
    Error::config(message)
}

/// The groups of what is left, none of which has a member.
async fn groups(config: &Config, targets: &[(String, Owned)]) -> Result<Vec<Group>> {
    let wanted: BTreeSet<(&str, &str)> =
        targets.iter().map(|(_, owned)| (owned.log.as_str(), owned.group.as_str())).collect();
    let mut groups = Vec::new();
    for (identity, name) in wanted {
        let source = source_of(config, identity, name).await?;
        for name in [name.to_owned(), registry::rebuild_group(name)] {
            let log = registry::group_log(source, &name)?;
            let members = log.members().await?;
            if members > 0 {
                return Err(Error::config(format!(
                    "group {name:?} has {members} member{}: a worker still runs the connector; have it read its config anew, or stop it",
                    if members == 1 { "" } else { "s" }
                )));
            }
            groups.push(Group { name, source: source.name.clone(), log });
        }
    }
    Ok(groups)
}

/// The source that reads the log of that identity: only there can be asked whether a worker still folds.
async fn source_of<'c>(
    config: &'c Config,
    identity: &str,
    group: &str,
) -> Result<&'c crate::config::SourceConfig> {
    for source in config.sources.values() {
        if registry::group_log(source, group)?.identity().await? == identity {
            return Ok(source);
        }
    }
    Err(Error::config(format!(
        "no source of the config is the log that it folded (id {identity:?}), so nobody can say whether a worker still runs it in group \
         {group:?}: add that source to the config"
    )))
}

impl Left {
    /// Removes it all: a sentence for each thing that went, or that stays.
    ///
    /// # Errors
    /// Where one could not be removed. What went before it is gone, and the next call carries on.
    pub(crate) async fn remove(
        &self,
        config: &Config,
        keep: Keep,
        mut told: impl FnMut(String),
    ) -> Result<()> {
        for Group { name, log, .. } in &self.groups {
            if log.delete_group().await? {
                told(format!("deleted group {name}"));
            }
        }
        for (sink, owned) in &self.targets {
            let Some(of) = config.sinks.get(sink) else { continue };
            let target = of.store.sink()?.target(owned.spec())?;
            let Removed { dropped, strangers } =
                target.remove(keep).await.map_err(|error| at(sink, &error))?;
            for name in dropped {
                told(format!("{sink}: dropped {name}"));
            }
            for name in strangers {
                told(format!("{sink}: {name} is not the one that Foldline made: it stays"));
            }
            let target = &owned.target;
            told(match keep {
                Keep::Nothing => format!("{sink}: forgot {target}"),
                Keep::Live => format!("{sink}: forgot {target}, which stays with its rows"),
            });
        }
        Ok(())
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Of connector {} there are still:", self.connector)?;
        for (sink, owned) in &self.targets {
            writeln!(
                f,
                "  {sink}: {} with all its rows and generations, and what Foldline keeps of it",
                owned.target
            )?;
        }
        for Group { name, source, .. } in &self.groups {
            writeln!(f, "  {source}: group {name}, if there is one")?;
        }
        write!(f, "Its dead letters stay in their topic.")
    }
}
