//! The judge: a plain fold, event by event, written without any of Foldline's code.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::kafka::Record;

/// Rows by key, each a list of canonical texts in the order of the columns; none is null.
pub(crate) type Rows = BTreeMap<String, Vec<Option<String>>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    id: i64,
    user_id: Option<i64>,
    product_id: Option<i64>,
    amount: Option<i64>,
    #[serde(borrow)]
    price: Option<&'a RawValue>,
}

#[derive(Default)]
struct Order {
    user_id: Option<i64>,
    product_id: Option<i64>,
    amount: Option<i64>,
    cents: Option<i64>,
    changes: i64,
    updated_at: i64,
}

#[derive(Default)]
struct User {
    events: i64,
    spent: i64,
}

/// The plain fold of an orders log: the orders, and a counter for each user.
#[derive(Default)]
pub(crate) struct Oracle {
    orders: HashMap<i64, Order>,
    users: HashMap<i64, User>,
    pub(crate) events: u64,
}

impl Oracle {
    pub(crate) fn fold(&mut self, value: &[u8], timestamp: i64) {
        let event: Event = serde_json::from_slice(value).unwrap();
        self.events += 1;
        let order = self.orders.entry(event.id).or_default();
        order.user_id = event.user_id.or(order.user_id);
        order.product_id = event.product_id.or(order.product_id);
        order.amount = event.amount.or(order.amount);
        order.cents = event.price.map(|price| cents(price.get())).or(order.cents);
        order.changes += 1;
        order.updated_at = timestamp;
        if let Some(user) = event.user_id {
            let user = self.users.entry(user).or_default();
            user.events += 1;
            user.spent += event.amount.unwrap_or(0);
        }
    }

    /// Folds all of a topic.
    pub(crate) fn of_topic(topic: &str) -> Self {
        let mut oracle = Oracle::default();
        super::kafka::each(topic, |record: Record<'_>| {
            oracle.fold(record.value.unwrap(), record.timestamp);
        });
        oracle
    }

    pub(crate) fn orders(&self) -> Rows {
        let text = |number: i64| number.to_string();
        let row = |(id, order): (&i64, &Order)| {
            let row = vec![
                Some(text(*id)),
                order.user_id.map(text),
                order.product_id.map(text),
                order.amount.map(text),
                order.cents.map(|cents| {
                    super::stores::decimal(&format!("{}.{:02}", cents / 100, cents % 100))
                }),
                Some(text(order.changes)),
                Some(text(order.updated_at)),
            ];
            (id.to_string(), row)
        };
        self.orders.iter().map(row).collect()
    }

    pub(crate) fn users(&self) -> Rows {
        let row = |(id, user): (&i64, &User)| {
            let row = [*id, user.events, user.spent].map(|number| Some(number.to_string()));
            (id.to_string(), row.to_vec())
        };
        self.users.iter().map(row).collect()
    }
}

/// Cents of a positive decimal, a half rounded up.
fn cents(text: &str) -> i64 {
    let text = text.trim_matches('"');
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let thousandths: i64 = format!("{fraction:0<3}").parse().unwrap();
    whole.parse::<i64>().unwrap() * 100 + (thousandths + 5) / 10
}

/// Panics with the first differences where the rows are not the same.
pub(crate) fn assert_same(what: &str, expected: &Rows, found: &Rows) {
    let missing = expected.keys().filter(|key| !found.contains_key(*key));
    let extra = found.keys().filter(|key| !expected.contains_key(*key));
    let other = expected.iter().filter(|(key, row)| found.get(*key).is_some_and(|f| f != *row));
    let missing: Vec<_> = missing.collect();
    let extra: Vec<_> = extra.collect();
    let other: Vec<_> = other.map(|(key, row)| (key, row, &found[key])).collect();
    let count = (missing.len(), extra.len(), other.len());
    if count != (0, 0, 0) {
        let mut text = format!(
            "{what}: of {} rows {} are missing, {} too many, {} differ\n",
            expected.len(),
            count.0,
            count.1,
            count.2
        );
        for (key, expected, found) in other.iter().take(8) {
            text += &format!("  {key}: expected {expected:?}\n  {key}: found    {found:?}\n");
        }
        panic!(
            "{text}  missing {:?}\n  too many {:?}",
            &missing[..count.0.min(8)],
            &extra[..count.1.min(8)]
        );
    }
    assert!(!expected.is_empty(), "{what}: nothing was compared");
}
