//! What is in the log: partial updates of orders, the same for each seed, in the shapes that are measured.

use std::collections::HashMap;
use std::fmt::Write as _;

/// All of an order's events are in one partition.
pub(crate) const PARTITIONS: i32 = 4;

/// The shape of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Events that name only what changed, over many keys.
    Partial,
    /// The rows that the partial updates lead to, whole, one for each event.
    Rows,
    /// The same rows as Kafka Connect's JSON with its schema.
    ConnectRows,
    /// Partial updates of a single key.
    Hot,
    /// Partial updates inside 2 KB of what no expression names.
    Wide,
    /// A key never comes twice.
    Unique,
}

/// A topic's content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) shape: Shape,
    pub(crate) events: u64,
    pub(crate) keys: u64,
}

/// One event, not in the log yet.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// A row of the read model; the price is in cents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) user_id: Option<i64>,
    pub(crate) product_id: Option<i64>,
    pub(crate) amount: Option<i64>,
    pub(crate) price: Option<i64>,
    pub(crate) changes: i64,
}

/// The plain fold of a workload.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub(crate) rows: HashMap<i64, Row>,
    /// The last event's key of each partition, and the changes that its row has then: a store that has these has all.
    pub(crate) last: Vec<(i64, i64)>,
}

/// What one event says of a field: nothing, null or a number.
type Said = Option<Option<i64>>;

struct Update {
    id: i64,
    user_id: Said,
    product_id: Said,
    amount: Said,
    price: Said,
}

impl Update {
    fn apply(&self, row: &mut Row) {
        // A `merge`: null leaves what was there.
        let merge = |field: &mut Option<i64>, said: Said| *field = said.flatten().or(*field);
        merge(&mut row.user_id, self.user_id);
        merge(&mut row.product_id, self.product_id);
        merge(&mut row.amount, self.amount);
        merge(&mut row.price, self.price);
        row.changes += 1;
    }
}

/// Where an order's events are.
pub(crate) fn partition_of(id: i64) -> i32 {
    i32::try_from(id.rem_euclid(i64::from(PARTITIONS))).unwrap_or_default()
}

impl Workload {
    pub(crate) fn new(shape: Shape, events: u64, keys: u64) -> Self {
        Workload { shape, events, keys }
    }

    /// A name that tells the content, so that a topic is filled once.
    pub(crate) fn topic(&self) -> String {
        format!("bench-{:?}-{}-{}", self.shape, self.events, self.keys).to_lowercase()
    }

    fn update(&self, index: u64) -> Update {
        let mut dice = Dice(0x0f01_d11e_u64.wrapping_add(index.wrapping_mul(0x2545_f491)));
        let id = match self.shape {
            Shape::Hot => 1,
            Shape::Unique => index + 1,
            _ => dice.roll(self.keys) + 1,
        };
        let mut said = |sides: u64| -> Said {
            let value = dice.roll(sides).cast_signed();
            match dice.roll(10) {
                0..5 => Some(Some(value)),
                5..7 => Some(None),
                _ => None,
            }
        };
        Update {
            id: id.cast_signed(),
            user_id: said(1_000),
            product_id: said(10_000),
            amount: said(100),
            price: said(100_000),
        }
    }

    /// The plain fold.
    pub(crate) fn expected(&self) -> Expected {
        let mut expected = Expected::default();
        let mut last: HashMap<i32, i64> = HashMap::new();
        for index in 0..self.events {
            let update = self.update(index);
            update.apply(expected.rows.entry(update.id).or_default());
            last.insert(partition_of(update.id), update.id);
        }
        let changes = |id: &i64| expected.rows.get(id).map_or(0, |row| row.changes);
        expected.last = last.into_values().map(|id| (id, changes(&id))).collect();
        expected
    }

    /// All events, in the order of the log.
    pub(crate) fn events(self) -> impl Iterator<Item = Event> {
        let mut rows: HashMap<i64, Row> = HashMap::new();
        (0..self.events).map(move |index| {
            let update = self.update(index);
            let value = match self.shape {
                Shape::Rows | Shape::ConnectRows => {
                    let row = rows.entry(update.id).or_default();
                    update.apply(row);
                    let text = row_text(update.id, row);
                    if self.shape == Shape::Rows { text } else { enveloped(&text) }
                }
                Shape::Wide => update_text(&update, &padding(index)),
                _ => update_text(&update, ""),
            };
            Event { partition: partition_of(update.id), key: update.id.to_string(), value }
        })
    }

    /// The projection, as TOML.
    pub(crate) fn projection(&self) -> String {
        let effect = if self.shape == Shape::Rows {
            "set = { user_id = \"event.userId\", product_id = \"event.productId\", amount = \"event.amount\", \
             price = \"event.price\", changes = \"event.changes\", updated_at = \"timestamp\" }"
        } else {
            "merge = { user_id = \"event.userId\", product_id = \"event.productId\", amount = \"event.amount\", \
             price = \"event.price\" }\nset = { updated_at = \"timestamp\" }\nadd = { changes = 1 }"
        };
        format!(
            "[projections.orders]\ntopics = [{:?}]\nkey = {{ id = \"event.id\" }}\n[projections.orders.fields]\n\
             id = \"bigint\"\nuser_id = \"bigint\"\nproduct_id = \"bigint\"\namount = \"bigint\"\n\
             price = \"numeric(12,2)\"\nchanges = {{ type = \"bigint\", default = 0 }}\n\
             updated_at = \"timestamptz\"\n[[projections.orders.on]]\n{effect}\n",
            self.topic()
        )
    }
}

/// The table that a connector of this projection has.
pub(crate) const TABLE: &str = "create table orders (id bigint primary key, user_id bigint, product_id bigint, amount bigint, \
                         price numeric(12,2), changes bigint, updated_at timestamptz)";

/// A row for Connect whose key comes only once.
pub(crate) fn connect_probe(id: i64) -> String {
    enveloped(&row_text(id, &Row { amount: Some(1), changes: 1, ..Row::default() }))
}

fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn update_text(update: &Update, more: &str) -> String {
    let mut text = format!("{{\"id\":{}{more}", update.id);
    let fields = [
        ("userId", update.user_id),
        ("productId", update.product_id),
        ("amount", update.amount),
        ("price", update.price),
    ];
    for (name, said) in fields {
        let value = match said {
            None => continue,
            Some(None) => "null".to_owned(),
            Some(Some(cents)) if name == "price" => money(cents),
            Some(Some(value)) => value.to_string(),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, ",\"{name}\":{value}");
    }
    text.push('}');
    text
}

fn or_null(value: Option<i64>) -> String {
    value.map_or("null".to_owned(), |value| value.to_string())
}

fn row_text(id: i64, row: &Row) -> String {
    format!(
        "{{\"id\":{id},\"userId\":{},\"productId\":{},\"amount\":{},\"price\":{},\"changes\":{}}}",
        or_null(row.user_id),
        or_null(row.product_id),
        or_null(row.amount),
        row.price.map_or("null".to_owned(), money),
        row.changes
    )
}

/// The row as Connect's JsonConverter reads it with `schemas.enable`, its fields named as the columns are.
fn enveloped(row: &str) -> String {
    let payload = row.replace("userId", "user_id").replace("productId", "product_id");
    format!(
        "{{\"schema\":{{\"type\":\"struct\",\"optional\":false,\"fields\":[\
         {{\"field\":\"id\",\"type\":\"int64\",\"optional\":false}},\
         {{\"field\":\"user_id\",\"type\":\"int64\",\"optional\":true}},\
         {{\"field\":\"product_id\",\"type\":\"int64\",\"optional\":true}},\
         {{\"field\":\"amount\",\"type\":\"int64\",\"optional\":true}},\
         {{\"field\":\"price\",\"type\":\"double\",\"optional\":true}},\
         {{\"field\":\"changes\",\"type\":\"int64\",\"optional\":true}}]}},\"payload\":{payload}}}"
    )
}

/// About 2 KB, nested, of which nothing is named.
fn padding(index: u64) -> String {
    let mut text = String::from(",\"shipping\":{\"lines\":[");
    for line in 0..16 {
        let comma = if line == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}{{\"line\":{line},\"note\":\"item {index} of the order, to be handled with care\",\
             \"weights\":[1.25,{line}.5,3],\"fragile\":true,\"sku\":\"SKU-{index:08}\"}}"
        );
    }
    text.push_str("]}");
    text
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lead_where_partial_updates_lead() {
        let partial = Workload::new(Shape::Partial, 500, 20);
        let rows = Workload::new(Shape::Rows, 500, 20);
        assert_eq!(partial.expected().rows, rows.expected().rows);
        let last = rows.events().last().unwrap();
        let row: serde_json::Value = serde_json::from_str(&last.value).unwrap();
        let id = row["id"].as_i64().unwrap();
        assert_eq!(row["changes"].as_i64(), Some(rows.expected().rows[&id].changes));
    }

    #[test]
    fn every_shape_is_json() {
        for shape in [
            Shape::Partial,
            Shape::Rows,
            Shape::ConnectRows,
            Shape::Hot,
            Shape::Wide,
            Shape::Unique,
        ] {
            for event in Workload::new(shape, 50, 5).events() {
                let value: serde_json::Value = serde_json::from_str(&event.value).unwrap();
                assert!(value.is_object(), "{shape:?}");
                assert_eq!(
                    shape == Shape::Wide,
                    event.value.len() > 1_900,
                    "{}",
                    event.value.len()
                );
            }
        }
    }
}
