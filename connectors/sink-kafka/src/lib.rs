//! State topics as a sink: the current state of each key as JSON or Avro, tombstones for what is deleted.
//!
//! **Exactness.** A flush is one Kafka transaction: states, and the positions and whatever else there is of books, which lie in
//! a compacted topic of their own beside the state topic, so that both move together on whichever cluster they are. The
//! transactional id is that of the topic: who initialises it has fenced all others.
//!
//! **Reading.** A topic has no point read and no row version. So the process that has the charge keeps a copy of both topics in a
//! SQLite file, made anew from them when it begins, thrown away when it ends, and never trusted beyond that: what a flush
//! decides is decided on the copy, which nobody else can have made out of date without fencing the transaction by which the flush
//! becomes true. The copy is the SQLite sink behind a journal, so that lifecycle, parking, holes, letters and rebuilds are
//! those of that sink.
//!
//! **Rebuilds.** A build is loaded into the copy alone. The swap compares it with what the topic holds and writes the difference,
//! with the books, in one transaction: readers of committed records see the old states or the new.
//!
//! **Whose turn.** One worker at a time runs the connector: the one that has the partition of the books in a group of its own. That
//! spares workers from fencing each other, and no more depends on it.
//!
//! **Partitions.** A key lies where Java's producers put it; a topic whose partitions were added to is refused.

mod avro;
mod books;
mod config;
mod log;
mod producer;
mod removal;
mod state;
mod target;
mod turn;
mod values;

pub use config::{KafkaSink, KafkaSinkConfig};
pub use target::KafkaTarget;
pub use values::{StateRegistry, ValueFormat};
