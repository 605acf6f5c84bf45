//! The schema registries of a config, each made once for all that read from it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldline_api::error::{Error, Result};
use foldline_language::converter::schema::Schemas;

use super::topic::TopicSchemas;
use super::topic_log;
use crate::config::{Config, RegistryConfig, RegistryKind};

/// Those that were made.
#[derive(Debug, Default)]
pub(crate) struct Registries {
    made: Mutex<HashMap<String, Arc<dyn Schemas>>>,
}

impl Registries {
    /// The one of this name.
    ///
    /// # Errors
    /// A config error where it cannot be made.
    pub(crate) fn of(&self, config: &Config, name: &str) -> Result<Arc<dyn Schemas>> {
        let missing = || Error::config(format!("there is no registry {name:?}"));
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(schemas) = made.get(name) {
            return Ok(Arc::clone(schemas));
        }
        let schemas = make(config, config.registries.get(name).ok_or_else(missing)?)?;
        made.insert(name.to_owned(), Arc::clone(&schemas));
        Ok(schemas)
    }
}

fn make(config: &Config, registry: &RegistryConfig) -> Result<Arc<dyn Schemas>> {
    let RegistryKind::Topic { topic, source } = &registry.kind else {
        return Ok(registry.server()?);
    };
    let source = config.source_of(source.as_deref()).ok_or_else(|| {
        Error::config(format!("the registry {:?} needs the `source` of its topic", registry.name))
    })?;
    let reader = format!("{}-{}-schemas", config.worker.name, registry.name);
    let log = topic_log(source, topic, &reader)?;
    Ok(Arc::new(TopicSchemas::new(&registry.name, topic, log)))
}
