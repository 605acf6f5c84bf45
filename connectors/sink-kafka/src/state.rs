//! A row as a record of the state topic, and back.

use foldline_api::model::{Key, Model, Row};
use foldline_api::record::Record;
use foldline_api::schemas::KeptSchema;
use foldline_api::{Error, Result};
use foldline_sink_sqlite::Replica;

use crate::values::Values;

/// What a record says: a key's row, or that it has none.
///
/// # Errors
/// A config error where somebody else wrote what is no state.
pub(crate) fn decode(
    values: &Values,
    replica: &Replica<'_>,
    record: &Record,
) -> Result<(Key, Option<Row>)> {
    read(values, replica.model(), record, || replica.schemas())
}

fn read(
    values: &Values,
    model: &Model,
    record: &Record,
    kept: impl FnOnce() -> Result<Vec<KeptSchema>>,
) -> Result<(Key, Option<Row>)> {
    let unfit = |reason: &str| {
        Error::config(format!(
            "`{}`/{} holds at offset {} what is no state of this projection ({reason}): only Foldline may write to a \
             state topic; write a tombstone for that key, or delete the topic, which is built anew then",
            record.topic, record.partition, record.offset
        ))
    };
    let key = record.key.as_deref().ok_or_else(|| unfit("a record without a key"))?;
    let key = std::str::from_utf8(key).map_err(|_| unfit("its key is not UTF-8"))?;
    let key = model.parse_key(key).map_err(|reason| unfit(&reason))?;
    let Some(value) = &record.value else { return Ok((key, None)) };
    let fields = values.decode(value, kept)?.map_err(|reason| unfit(&reason))?;
    let mut row = Vec::with_capacity(model.columns.len());
    for column in &model.columns {
        row.push(match fields.get(&column.name) {
            // The column was added after the row was written.
            None => column.default.clone(),
            Some(value) => column
                .ty
                .from_json(value.clone())
                .map_err(|error| unfit(&format!("column {}: {error}", column.name)))?,
        });
    }
    let row = Row::new(row);
    if model.key_of(&row) != key {
        return Err(unfit("its value has another key"));
    }
    Ok((key, Some(row)))
}

/// The partition that Java's producers put a key into.
pub(crate) fn partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key).cast_signed() & i32::MAX) % partitions.max(1)
}

/// As `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use foldline_api::column::ColumnType;
    use foldline_api::model::Column;
    use std::sync::Arc;

    use async_trait::async_trait;
    use foldline_api::sink::TargetSpec;
    use foldline_api::value::Value;
    use foldline_language::converter::SchemaId;
    use foldline_language::converter::schema::{Answer, Register, Registered, Schemas};
    use foldline_testkit::contract::{model_of, row, spec_of};
    use proptest::prelude::*;

    use super::*;
    use crate::values::{StateRegistry, ValueFormat};

    /// A registry that has one schema, whatever it is.
    #[derive(Debug)]
    struct One;

    #[async_trait]
    impl Schemas for One {
        async fn get(&self, ids: &[SchemaId]) -> Result<Vec<Answer>> {
            Ok(ids
                .iter()
                .map(|id| Answer::Gone(format!("is of {id}, which is gone").into()))
                .collect())
        }
    }

    #[async_trait]
    impl Register for One {
        async fn register(&self, _: &str, _: &Registered) -> Result<u32> {
            Ok(0x0001_0203)
        }
    }

    /// How a topic of this model is written, and what its books tell of ids.
    struct Written {
        values: Values,
        model: Model,
        kept: Vec<KeptSchema>,
    }

    impl Written {
        fn json(model: Model) -> Self {
            let spec = spec_of("states", model.clone());
            let values = Values::new(ValueFormat::Json, &spec).unwrap();
            Written { values, model, kept: Vec::new() }
        }

        fn avro(model: Model) -> Self {
            let registry = StateRegistry { name: "main".to_owned(), registry: Arc::new(One) };
            let spec: TargetSpec = spec_of("states", model.clone());
            let values = Values::new(ValueFormat::Avro(registry), &spec).unwrap();
            let kept = values.registered();
            Written { values, model, kept: vec![kept] }
        }

        fn both(model: &Model) -> [Self; 2] {
            [Self::json(model.clone()), Self::avro(model.clone())]
        }

        fn encode(&self, row: &Row) -> Vec<u8> {
            let mut out = Vec::new();
            self.values.encode(&self.model, row, &mut out).unwrap();
            out
        }

        fn decode(&self, key: &str, value: Option<&[u8]>) -> Result<(Key, Option<Row>)> {
            read(&self.values, &self.model, &record(key, value), || Ok(self.kept.clone()))
        }
    }

    fn record(key: &str, value: Option<&[u8]>) -> Record {
        Record {
            topic: Arc::from("states"),
            partition: 1,
            offset: 7,
            timestamp: None,
            key: Some(key.to_owned().into()),
            value: value.map(|value| value.to_vec().into()),
            headers: Vec::new(),
        }
    }

    /// Values of `UtilsTest.testMurmur2` in Apache Kafka.
    #[test]
    fn keys_hash_as_javas_do() {
        for (text, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
        assert_eq!(partition(b"21", 6), (-973_932_308_i32 & i32::MAX) % 6);
    }

    #[test]
    fn what_somebody_else_wrote_is_named_by_its_place_only() {
        let model = model_of(&[("id", "bigint"), ("name", "text")], 1);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let [json, avro] = Written::both(&model);
        let frame = |id: u8| [&[0, 0, 1, 2, id][..], &[2, 0]].concat();
        for (written, key, value, reason) in [
            (&json, "x", b"{}".to_vec(), "id"),
            (&json, "1", b"[]".to_vec(), "no JSON object"),
            (&json, "1", b"{\"id\":2,\"name\":\"secret\"}".to_vec(), "another key"),
            (&json, "1", b"{\"id\":1,\"name\":{\"a\":\"secret\"}}".to_vec(), "column name"),
            (&json, "1", frame(3), "framed as of schema 66051, and the topic has value = \"json\""),
            (&avro, "1", frame(4), "its value is of schema 66052, which is gone"),
            (&avro, "1", frame(3)[..6].to_vec(), "its value: not what its Avro schema says"),
            (&avro, "2", frame(3), "another key"),
            (&avro, "1", b"[]".to_vec(), "no JSON object"),
        ] {
            let error = written.decode(key, Some(&value)).unwrap_err();
            assert!(error.message().contains(reason), "{error}");
            assert!(error.message().contains("`states`/1 holds at offset 7"), "{error}");
            assert!(!error.message().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_column_that_came_later_has_its_default() {
        let mut model = model_of(&[("id", "bigint"), ("changes", "bigint")], 1);
        model.columns[1].default = Value::Int(3);
        let older = Written::avro(model_of(&[("id", "bigint")], 1));
        let before = older.encode(&Row::new(vec![Value::Int(1)]));
        let [json, mut avro] = Written::both(&model);
        // As the registry tells of an id of before.
        avro.kept = older.kept;
        for (written, value) in [(json, &b"{\"id\":1}"[..]), (avro, &before)] {
            let (key, row) = written.decode("1", Some(value)).unwrap();
            assert_eq!(key.to_string(), "1");
            assert_eq!(row.unwrap().values(), [Value::Int(1), Value::Int(3)]);
            assert_eq!(written.decode("1", None).unwrap().1, None);
        }
    }

    fn value() -> impl Strategy<Value = (&'static str, Value)> {
        let int = any::<i64>().prop_map(|n| ("bigint", Value::Int(n)));
        let text = any::<String>().prop_map(|t| ("text", Value::text(&t.replace('\0', ""))));
        let double = any::<f64>().prop_map(|d| ("double precision", Value::Double(d)));
        let single = any::<f32>().prop_map(|d| ("real", Value::Double(d.into())));
        let bytes = any::<Vec<u8>>().prop_map(|b| ("bytea", Value::Bytes(Arc::from(b))));
        let uuid = any::<[u8; 16]>().prop_map(|u| ("uuid", Value::Uuid(u)));
        let bool = any::<bool>().prop_map(|b| ("boolean", Value::Bool(b)));
        let exact = (any::<i64>(), 0..30u8).prop_map(|(n, scale)| {
            let decimal = foldline_api::decimal::Decimal::new(n.into(), scale);
            ("numeric", Value::Decimal(decimal))
        });
        let bounded = (any::<i64>(), 0..30u8).prop_map(|(n, scale)| {
            let decimal = foldline_api::decimal::Decimal::new(n.into(), scale);
            ("numeric(60,17)", Value::Decimal(decimal))
        });
        let small = any::<i16>().prop_map(|n| ("smallint", Value::Int(n.into())));
        let day = (-700_000..2_900_000i32).prop_map(|days| {
            let date = foldline_api::time::Date::from_days(days);
            ("date", date.map(Value::Date).unwrap_or_default())
        });
        let hour = (0..86_400_000_000i64).prop_map(|micros| {
            let time = foldline_api::time::Time::from_micros(micros);
            ("time", time.map(Value::Time).unwrap_or_default())
        });
        let list = proptest::collection::vec(any::<Option<i32>>(), 0..4).prop_map(|list| {
            let item = |item: &Option<i32>| item.map_or(Value::Null, |n| Value::Int(n.into()));
            ("integer[]", Value::list(list.iter().map(item).collect()))
        });
        let nothing = Just(("timestamptz", Value::Null));
        let moment = (-62_135_596_800_000_000..=253_402_300_799_999_999i64).prop_map(|micros| {
            let moment = foldline_api::time::Timestamp::from_micros(micros);
            ("timestamptz", moment.map(Value::Timestamp).unwrap_or_default())
        });
        let document = proptest::collection::vec(any::<String>(), 0..3).prop_map(|list| {
            let list = list.iter().map(|text| Value::text(&text.replace('\0', ""))).collect();
            ("jsonb", Value::list(list))
        });
        let plain = prop_oneof![int, text, double, single, bytes, uuid, bool, small, nothing];
        prop_oneof![plain, exact, bounded, moment, document, day, hour, list]
    }

    proptest! {
        #[test]
        fn a_row_comes_back_the_same((ty, value) in value(), key in any::<(String, i64)>()) {
            let column = |name: &str, ty: &str| Column {
                name: Arc::from(name),
                ty: ColumnType::parse(ty).unwrap(),
                index: false,
                default: Value::Null,
            };
            let columns = vec![column("k", "text"), column("n", "bigint"), column("v", ty)];
            let model = Model { columns, key: vec![1, 0], indexes: Vec::new() };
            // As the fold does before it hands a row over.
            let Ok(value) = model.columns[2].ty.coerce(value) else { return Ok(()) };
            let text = Value::text(&key.0.replace('\0', ""));
            let row = Row::new(vec![text, Value::Int(key.1), value]);
            let key = model.key_of(&row);
            for written in Written::both(&model) {
                let encoded = written.encode(&row);
                let back = written.decode(&key.to_string(), Some(&encoded)).unwrap();
                prop_assert_eq!(&back, &(key.clone(), Some(row.clone())));
                prop_assert_eq!(written.decode(&key.to_string(), None).unwrap(), (key.clone(), None));
                let again = written.encode(back.1.as_ref().unwrap());
                prop_assert_eq!(again, encoded, "a row that did not change is not written again");
            }
        }
    }

    #[test]
    fn a_name_with_a_quote_is_a_name_of_json() {
        let written = Written::json(model_of(&[("id", "bigint"), ("a \"b\"", "text")], 1));
        let row = row(&written.model, &["1", "\"x\""]);
        let encoded = written.encode(&row);
        assert_eq!(encoded, br#"{"id":1,"a \"b\"":"x"}"#);
        assert_eq!(written.decode("1", Some(&encoded)).unwrap().1, Some(row));
    }

    #[test]
    fn children_come_back() {
        let model = model_of(&[("id", "bigint"), ("lines", "children")], 1);
        let row =
            row(&model, &["1", "[{\"line\":1,\"sku\":\"a\",\"price\":\"1.50\",\"since\":null}]"]);
        for written in Written::both(&model) {
            let encoded = written.encode(&row);
            assert_eq!(written.decode("1", Some(&encoded)).unwrap().1, Some(row.clone()));
        }
    }
}
