//! Kafka topics as a source, and the dead-letter topic.
