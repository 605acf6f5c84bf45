//! Which topics a connector reads.

use foldline_api::error::{Error, Result};
use regex::Regex;

/// Which topics to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topics {
    /// These; one that is missing is read once it exists.
    List(Vec<String>),
    /// All whose name the regex finds, now and later, but Kafka's internal ones. Starts with `^`.
    Regex {
        /// The regex.
        pattern: String,
        /// Topics that are left out although it finds them: Foldline's own dead letters.
        except: Vec<String>,
    },
}

/// Which topics are read, ready to match.
#[derive(Clone, Debug)]
pub(crate) enum TopicFilter {
    List(Vec<String>),
    Regex(TopicRegex),
}

/// A regex of topics, and those that it must not take.
#[derive(Clone, Debug)]
pub(crate) struct TopicRegex {
    regex: Regex,
    except: Vec<String>,
}

impl TopicRegex {
    /// Whether it takes this topic; internal topics are never taken.
    pub(crate) fn takes(&self, topic: &str) -> bool {
        !topic.starts_with("__")
            && self.regex.is_match(topic)
            && !self.except.iter().any(|name| name == topic)
    }
}

impl TopicFilter {
    pub(crate) fn new(topics: &Topics) -> Result<Self> {
        match topics {
            Topics::List(names) if names.is_empty() => {
                Err(Error::config("`topics` is empty; name at least one topic"))
            }
            Topics::List(names) => Ok(TopicFilter::List(names.clone())),
            Topics::Regex { pattern, .. } if !pattern.starts_with('^') => {
                Err(Error::config(format!("the topic regex `{pattern}` must start with ^")))
            }
            Topics::Regex { pattern, except } => Regex::new(pattern)
                .map(|regex| TopicFilter::Regex(TopicRegex { regex, except: except.clone() }))
                .map_err(|e| Error::config(format!("the topic regex `{pattern}`: {e}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regex_must_be_anchored_and_valid_and_skips_internal_topics_and_dead_letters() {
        let except = vec!["dlq-g".to_owned()];
        let filter = |p: &str| {
            TopicFilter::new(&Topics::Regex { pattern: p.into(), except: except.clone() })
        };
        assert!(filter("orders").is_err());
        assert!(filter("^(").is_err());
        let Ok(TopicFilter::Regex(all)) = filter("^.*") else { panic!("a valid regex") };
        assert!(all.takes("orders") && all.takes("dlq-of-others"));
        assert!(!all.takes("__consumer_offsets") && !all.takes("dlq-g"));
    }
}
