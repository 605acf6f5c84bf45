//! A projection as the config spells it: checked in form, its expressions not yet compiled.

use indexmap::IndexMap;

use super::topic_facts::SourceFacts;

/// Text as the config has it, with the key path that error messages name
/// (`projections.orders.on[0].set.price`).
#[derive(Clone, Debug, PartialEq)]
pub struct Located<T> {
    /// Dotted key path; array items by index.
    pub path: String,
    /// What stands there.
    pub value: T,
}

/// The right side of an assignment: a TOML string is an expression, all else is itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A CEL expression.
    Expression(String),
    /// A number, boolean, date or list.
    Literal(toml::Value),
}

/// A name, a list of names, or a regex that starts with `^`.
#[derive(Clone, Debug, PartialEq)]
pub enum Names {
    /// Any of these names; a single name is a list of one.
    List(Vec<String>),
    /// Names that the regex matches, `^` included.
    Regex(String),
}

/// What `set`, `merge`, `patch` and a child take.
#[derive(Clone, Debug, PartialEq)]
pub enum Assignments {
    /// One expression that stands for all fields not mentioned, each by its own name.
    All(Located<Operand>),
    /// Field by field, in the order written.
    Fields(IndexMap<String, Located<Operand>>),
}

/// One `[projections.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectionConfig {
    /// Its name in the config.
    pub name: String,
    /// The file that defines it, for error messages.
    pub file: String,
    /// Source topics.
    pub topics: Names,
    /// What unwraps the record before handlers see it.
    pub envelope: Option<Envelope>,
    /// The sources that its connectors read, where it has an envelope; none where nothing is known of them.
    pub sources: Vec<SourceFacts>,
    /// Names the event; where null, the converter's name stands.
    pub event_type: Option<Located<Operand>>,
    /// Key columns and their expressions, in order.
    pub key: IndexMap<String, Located<Operand>>,
    /// The read model; order is column order.
    pub fields: IndexMap<String, Located<FieldConfig>>,
    /// Secondary indexes over several columns.
    pub indexes: Vec<Vec<String>>,
    /// Deletes rows by the clock.
    pub expire: Option<Expire>,
    /// Handlers; the first that matches applies.
    pub on: Vec<Located<HandlerConfig>>,
    /// Cases for `foldline test`.
    pub tests: Vec<Located<TestConfig>>,
}

/// What Debezium or CloudEvents put around an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// Debezium's change event.
    Debezium,
    /// Debezium's, unwrapped to the row (ExtractNewRecordState).
    DebeziumFlat,
    /// CloudEvents, structured or binary mode.
    CloudEvents,
}

/// `expire = { field, after }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Expire {
    /// A key column of type timestamptz or date.
    pub field: String,
    /// Age at which the row goes.
    pub after: std::time::Duration,
}

/// One field: `"bigint"` is short for `{ type = "bigint" }`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldConfig {
    /// PostgreSQL's name, `children` for objects inside the row; arrays as `text[]`.
    pub ty: String,
    /// A secondary index on this column alone.
    pub index: bool,
    /// The value of a new row.
    pub default: Option<toml::Value>,
    /// Evaluated over the state after each event.
    pub computed: Option<String>,
    /// `children` only: the child's key field.
    pub by: Option<String>,
    /// `children` only: the child's fields.
    pub fields: IndexMap<String, Located<FieldConfig>>,
    /// `projection.field`, or on `children` a projection.
    pub lookup: Option<String>,
    /// The column whose value is the other row's key.
    pub via: Option<String>,
}

/// One `[[projections.NAME.on]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HandlerConfig {
    /// Topics it listens to; none is all.
    pub topic: Option<Names>,
    /// Event names; none is all.
    pub event: Option<Names>,
    /// Applies only where this is true.
    pub when: Option<Located<Operand>>,
    /// Another key for this handler, same columns.
    pub key: Option<IndexMap<String, Located<Operand>>>,
    /// Runs once per item of this list.
    pub for_each: Option<Located<Operand>>,
    /// Absent becomes null.
    pub set: Option<Assignments>,
    /// Null and absent leave the field.
    pub merge: Option<Assignments>,
    /// Absent leaves the field, null clears it.
    pub patch: Option<Assignments>,
    /// Null adds nothing; an empty field counts as 0.
    pub add: IndexMap<String, Located<Operand>>,
    /// The smaller; null leaves it.
    pub min: IndexMap<String, Located<Operand>>,
    /// The larger; null leaves it.
    pub max: IndexMap<String, Located<Operand>>,
    /// Adds to the end of a list.
    pub append: IndexMap<String, Located<Operand>>,
    /// Takes equal elements out of a list.
    pub remove: IndexMap<String, Located<Operand>>,
    /// Sets what it names of the child with that key.
    pub put: IndexMap<String, Located<Assignments>>,
    /// Takes the child with that key out.
    pub take: IndexMap<String, Located<Operand>>,
    /// Deletes the row.
    pub delete: bool,
    /// Filters the event.
    pub ignore: bool,
    /// Goes on to the next handlers.
    pub continues: bool,
}

/// One `[[projections.NAME.tests]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TestConfig {
    /// Shown in the report.
    pub name: String,
    /// Records, in order.
    pub given: Vec<Located<TestRecord>>,
    /// The rows and no others; a string is a row in JSON.
    pub expect: Vec<Located<toml::Value>>,
    /// How many records must be bad.
    pub bad: u64,
    /// How many must be filtered; none is any.
    pub filtered: Option<u64>,
    /// Only the interleaving that is written.
    pub order_given: bool,
}

/// One record of a test; only a value is short for `{ value = … }`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TestRecord {
    /// Else the projection's first topic.
    pub topic: Option<String>,
    /// The record's key.
    pub key: Option<toml::Value>,
    /// A string is JSON; none is a tombstone.
    pub value: Option<toml::Value>,
    /// Header texts.
    pub headers: IndexMap<String, String>,
    /// The record's timestamp; else the epoch.
    pub timestamp: Option<toml::Value>,
    /// The converter's name for the event.
    pub event: Option<String>,
}
