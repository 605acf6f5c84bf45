//! What sources say of their topics that decides how an envelope is opened.

use regex::Regex;

use super::names::covers;
use super::projection::Names;

/// What is said of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicFacts {
    /// `replica_identity = "full"`: what Debezium says of the row before a change is true.
    pub full: bool,
    /// Its keys are read as texts or bytes, which have no columns.
    pub flat_key: bool,
}

/// A source that a projection's connectors read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFacts {
    /// Its name in the config.
    pub source: String,
    /// By topic, or by regex that starts with `^`, in config order.
    pub topics: Vec<(String, TopicFacts)>,
    /// Of all other topics.
    pub other: TopicFacts,
}

impl SourceFacts {
    /// What is said of a topic: by its name, else by the first regex that matches. A regex stands for itself.
    #[must_use]
    pub fn of(&self, topic: &str) -> TopicFacts {
        let matches = |name: &str| {
            name.starts_with('^') && Regex::new(name).is_ok_and(|regex| regex.is_match(topic))
        };
        let named = self.topics.iter().find(|(name, _)| name == topic);
        let found = named.or_else(|| self.topics.iter().find(|(name, _)| matches(name)));
        found.map_or(self.other, |(_, facts)| *facts)
    }

    /// The first of the projection's topics, or the regex, of which `fault` holds.
    #[must_use]
    pub fn first_of<'a>(
        &'a self,
        topics: &'a Names,
        fault: fn(TopicFacts) -> bool,
    ) -> Option<&'a str> {
        match topics {
            Names::List(list) => list.iter().map(String::as_str).find(|name| fault(self.of(name))),
            Names::Regex(regex) => {
                let mut own = self
                    .topics
                    .iter()
                    .filter(|(name, _)| !name.starts_with('^') && covers(topics, name));
                let own = own.find(|(_, facts)| fault(*facts)).map(|(name, _)| name.as_str());
                own.or_else(|| fault(self.of(regex)).then_some(regex.as_str()))
            }
        }
    }
}
