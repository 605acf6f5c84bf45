//! Every type comes back as it was written.

use std::sync::Arc;

use foldline_api::ErrorClass;
use foldline_api::column::{Children, ColumnType};
use foldline_api::json;
use foldline_api::model::{Column, Key, Model, Row};
use foldline_api::sink::Version;
use foldline_api::value::Value;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::support::{Fixture, key, model, parse, put};

/// Types with values at their edges.
fn extremes() -> Vec<(ColumnType, Vec<&'static str>)> {
    let children = ColumnType::Children(Arc::new(Children {
        by: "line".into(),
        fields: vec![
            ("line".into(), ColumnType::Integer),
            ("sku".into(), ColumnType::Text),
            ("price".into(), ColumnType::Numeric(Some((12, 2)))),
            ("weight".into(), ColumnType::Real),
            ("at".into(), ColumnType::TimestampTz),
        ],
    }));
    let named = [
        ("bigint", vec!["-9223372036854775808", "9223372036854775807", "0"]),
        ("integer", vec!["-2147483648", "2147483647"]),
        ("smallint", vec!["-32768", "32767"]),
        ("double precision", vec!["1.7976931348623157e308", "5e-324", "-0.0", "0.1", "100"]),
        ("real", vec!["3.4028235e38", "1e-45", "0.1", "16777217"]),
        (
            "numeric",
            vec![
                "0",
                "-0.00",
                "1.50",
                "1e-400",
                "123456789012345678901234567890.000000000000000000000000000000123456789",
                "1e400",
                "-99999999999999999999",
                "10000",
                "0.0001",
            ],
        ),
        ("numeric(12,2)", vec!["5", "-9999999999.99", "0.005", "9999999999.99"]),
        ("numeric(30,0)", vec!["123456789012345678901234567890"]),
        ("boolean", vec!["true", "false"]),
        (
            "text",
            vec![
                r#""""#,
                r#""a\"b'c\\d\n\r\t{},NULL""#,
                "\"\u{1}\u{7f}äö\u{1F600}\u{FFFF}\"",
                "\"  \"",
            ],
        ),
        ("varchar(3)", vec!["\"äöü\"", "\"   \""]),
        (
            "timestamptz",
            vec![
                "\"0001-01-01T00:00:00Z\"",
                "\"9999-12-31T23:59:59.999999Z\"",
                "\"1969-12-31T23:59:59.999999Z\"",
            ],
        ),
        ("date", vec!["\"0001-01-01\"", "\"9999-12-31\"", "\"2000-02-29\""]),
        ("time", vec!["\"00:00:00\"", "\"23:59:59.999999\""]),
        (
            "uuid",
            vec![
                "\"00000000-0000-0000-0000-000000000000\"",
                "\"6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a01\"",
            ],
        ),
        ("bytea", vec!["\"\"", "\"AP8=\"", "\"XHhkZQ==\""]),
        (
            "jsonb",
            vec![
                "{}",
                "[]",
                "\"\"",
                "0",
                "false",
                r#"{"b":[1,2.50,null,{"a":1e3}],"a":"\"\\\u00e4","":{}}"#,
                "123456789012345678901234567890.5",
                "1e-300",
            ],
        ),
    ];
    let arrays = [
        ("bigint[]", vec!["[]", "[1,null,-9223372036854775808]"]),
        ("smallint[]", vec!["[-32768]"]),
        ("text[]", vec!["[]", r#"["","NULL",null,"a\"b\\c","{x,y}"," ","\n","ä"]"#]),
        ("varchar(3)[]", vec![r#"["äöü",null]"#]),
        ("numeric[]", vec!["[1.50,null,1e-30]"]),
        ("numeric(12,2)[]", vec!["[1.5,null]"]),
        ("double precision[]", vec!["[5e-324,1.7976931348623157e308,0.1]"]),
        ("real[]", vec!["[1e-45,3.4028235e38,0.1]"]),
        ("boolean[]", vec!["[true,false,null]"]),
        ("timestamptz[]", vec!["[\"0001-01-01T00:00:00Z\",\"9999-12-31T23:59:59.999999Z\"]"]),
        ("date[]", vec!["[\"0001-01-01\",null]"]),
        ("time[]", vec!["[\"23:59:59.999999\"]"]),
        ("uuid[]", vec!["[\"6f1c8a52-94a8-4c1d-9d3e-0c8f0c7b1a01\"]"]),
        ("bytea[]", vec!["[\"AP8=\",\"\",\"XHhkZQ==\"]"]),
        ("jsonb[]", vec![r#"[{"a":"\"\\"},[1],"x",1.5]"#]),
    ];
    let mut out: Vec<_> = named
        .into_iter()
        .chain(arrays)
        .map(|(ty, list)| (ColumnType::parse(ty).unwrap(), list))
        .collect();
    out.push((
        children,
        vec![
            "[]",
            r#"[{"line":2,"sku":"b"},{"line":1,"sku":null,"price":1,"weight":0.1,"at":"2026-01-01T00:00:00.5Z"}]"#,
        ],
    ));
    out
}

fn wide() -> Model {
    let column =
        |name: String, ty| Column { name: name.into(), ty, index: false, default: Value::Null };
    let types = extremes().into_iter().map(|(ty, _)| ty);
    let mut columns = vec![column("id".into(), ColumnType::BigInt)];
    columns.extend(types.enumerate().map(|(at, ty)| column(format!("c{at}"), ty)));
    Model { columns, key: vec![0], indexes: Vec::new() }
}

#[tokio::test]
async fn every_type_comes_back_at_its_extremes() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(wide()).await;
    let mut rows = Vec::new();
    for at in 0..10 {
        let mut values = vec![Value::Int(at as i64)];
        for (ty, list) in extremes() {
            // The last row is all null.
            values.push(list.get(at).map_or(Value::Null, |text| parse(&ty, text)));
        }
        rows.push(Row::new(values));
    }
    let writes = rows.iter().map(|row| put(row.clone(), Version::Absent)).collect();
    let version = held.durable(writes).await;
    let keys: Vec<Key> = (0..10).map(key).collect();
    let check = |loaded: Vec<foldline_api::sink::Loaded>, version: Version| {
        for (loaded, row) in loaded.iter().zip(&rows) {
            let read = loaded.row.as_ref().unwrap();
            for ((read, wrote), column) in
                read.values().iter().zip(row.values()).zip(&held.model.columns)
            {
                assert_eq!(read, wrote, "{}", column.ty);
                assert_eq!(json::to_string(read), json::to_string(wrote), "{}", column.ty);
            }
            assert_eq!(loaded.version, version);
        }
    };
    check(held.writer.load(&keys).await.unwrap(), version);
    // The same again through UPDATE.
    let writes = rows.iter().map(|row| put(row.clone(), version)).collect();
    let flush = held.flush(writes);
    let written = held.writer.write(&flush).await.unwrap();
    let foldline_api::sink::Written::Durable(foldline_api::sink::Versions::All(next)) = written
    else {
        panic!("{written:?}");
    };
    assert_ne!(next, version);
    check(held.writer.load(&keys).await.unwrap(), next);
    assert_eq!(fixture.text("SELECT count(*) FROM {s}.orders").await, "10");
}

/// A value for a column of `ty`, already as a fold would leave it.
fn values_of(ty: &ColumnType) -> BoxedStrategy<Value> {
    let own = ty.clone();
    let raw: BoxedStrategy<Value> = match ty {
        ColumnType::BigInt => any::<i64>().prop_map(Value::Int).boxed(),
        ColumnType::Integer => any::<i32>().prop_map(|v| Value::Int(v.into())).boxed(),
        ColumnType::SmallInt => any::<i16>().prop_map(|v| Value::Int(v.into())).boxed(),
        ColumnType::DoublePrecision => prop::num::f64::NORMAL.prop_map(Value::Double).boxed(),
        ColumnType::Real => prop::num::f32::NORMAL.prop_map(|v| Value::Double(v.into())).boxed(),
        ColumnType::Numeric(None) => {
            "-?[0-9]{1,60}(\\.[0-9]{1,60})?".prop_map(|t| Value::text(&t)).boxed()
        }
        ColumnType::Numeric(Some((p, s))) => {
            let pattern = format!("-?[0-9]{{1,{}}}\\.[0-9]{{1,5}}", (p - s - 1).max(1));
            proptest::string::string_regex(&pattern).unwrap().prop_map(|t| Value::text(&t)).boxed()
        }
        ColumnType::Boolean => any::<bool>().prop_map(Value::Bool).boxed(),
        ColumnType::Text => "[^\0]{0,40}".prop_map(|t| Value::text(&t)).boxed(),
        ColumnType::Varchar(n) => proptest::string::string_regex(&format!("[^\0]{{0,{n}}}"))
            .unwrap()
            .prop_map(|t| Value::text(&t))
            .boxed(),
        ColumnType::TimestampTz => (-62_135_596_800_000_000i64..253_402_300_799_999_999)
            .prop_filter_map("range", |m| {
                foldline_api::time::Timestamp::from_micros(m).map(Value::Timestamp)
            })
            .boxed(),
        ColumnType::Date => (-719_162i32..2_932_896)
            .prop_filter_map("range", |d| foldline_api::time::Date::from_days(d).map(Value::Date))
            .boxed(),
        ColumnType::Time => (0i64..86_400_000_000)
            .prop_filter_map("range", |m| foldline_api::time::Time::from_micros(m).map(Value::Time))
            .boxed(),
        ColumnType::Uuid => any::<[u8; 16]>().prop_map(Value::Uuid).boxed(),
        ColumnType::Bytea => {
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|v| Value::Bytes(v.into())).boxed()
        }
        ColumnType::Jsonb => any_json().boxed(),
        ColumnType::Array(item) => {
            prop::collection::vec(values_of(item), 0..5).prop_map(Value::list).boxed()
        }
        ColumnType::Children(children) => {
            let fields: Vec<_> = children
                .fields
                .iter()
                .map(|(name, ty)| (Just(name.clone()), values_of(ty)))
                .collect();
            prop::collection::vec(fields, 0..4)
                .prop_map(|list| {
                    let child = |(at, mut fields): (usize, Vec<(Arc<str>, Value)>)| {
                        fields[0].1 = Value::Int(at as i64);
                        Value::map(fields)
                    };
                    Value::list(list.into_iter().enumerate().map(child).collect())
                })
                .boxed()
        }
    };
    prop_oneof![9 => raw, 1 => Just(Value::Null)]
        .prop_map(move |value| own.coerce(value).unwrap())
        .boxed()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        prop::num::f64::NORMAL.prop_map(Value::Double),
        "-?[0-9]{1,30}\\.[0-9]{1,30}".prop_map(|t| Value::Decimal(t.parse().unwrap())),
        "[^\0]{0,20}".prop_map(|t| Value::text(&t)),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::list),
            prop::collection::vec(("[^\0]{0,8}", inner), 0..4).prop_map(|list| {
                Value::map(list.into_iter().map(|(k, v)| (Arc::from(k), v)).collect())
            }),
        ]
    })
}

#[tokio::test]
async fn random_rows_come_back_equal() {
    let fixture = Fixture::new().await;
    let model = wide();
    let mut held = fixture.writer(model.clone()).await;
    let mut runner = TestRunner::default();
    let columns: Vec<_> =
        model.columns.iter().skip(1).map(|column| values_of(&column.ty)).collect();
    for batch in 0..8 {
        let rows: Vec<Row> = (0..100)
            .map(|at| {
                let mut values = vec![Value::Int(batch * 100 + at)];
                values.extend(columns.new_tree(&mut runner).unwrap().current());
                Row::new(values)
            })
            .collect();
        held.durable(rows.iter().map(|row| put(row.clone(), Version::Absent)).collect()).await;
        let keys: Vec<Key> = rows.iter().map(|row| model.key_of(row)).collect();
        let loaded = held.writer.load(&keys).await.unwrap();
        for (loaded, row) in loaded.iter().zip(&rows) {
            assert_eq!(loaded.row.as_ref(), Some(row));
        }
    }
}

#[tokio::test]
async fn keys_of_every_type_find_their_rows() {
    let fixture = Fixture::new().await;
    let types = [
        "text",
        "varchar(9)",
        "numeric",
        "timestamptz",
        "date",
        "time",
        "uuid",
        "bytea",
        "boolean",
        "integer",
        "smallint",
        "bigint",
        "numeric(12,2)",
    ];
    let columns: Vec<(String, &str)> =
        types.iter().enumerate().map(|(at, ty)| (format!("k{at}"), *ty)).collect();
    let columns: Vec<(&str, &str)> = columns.iter().map(|(n, t)| (n.as_str(), *t)).collect();
    let mut model = model(&columns);
    model.key = (0..types.len()).collect();
    let mut held = fixture.writer(model.clone()).await;
    let mut runner = TestRunner::default();
    let strategies: Vec<_> = model.columns.iter().map(|column| values_of(&column.ty)).collect();
    let mut rows: Vec<Row> = (0..200)
        .map(|_| {
            loop {
                let values = strategies.new_tree(&mut runner).unwrap().current();
                if values.iter().all(|value| !value.is_null()) {
                    break Row::new(values);
                }
            }
        })
        .collect();
    rows.sort_by_key(|row| model.key_of(row));
    let write = |row: &Row, version| foldline_api::sink::RowWrite {
        key: model.key_of(row),
        row: Some(row.clone()),
        version,
        marks: foldline_api::sink::Marks::new(),
    };
    let version = held.durable(rows.iter().map(|row| write(row, Version::Absent)).collect()).await;
    let version = held.durable(rows.iter().map(|row| write(row, version)).collect()).await;
    let keys: Vec<Key> = rows.iter().map(|row| model.key_of(row)).collect();
    let loaded = held.writer.load(&keys).await.unwrap();
    assert!(
        loaded.iter().zip(&rows).all(|(l, r)| l.row.as_ref() == Some(r) && l.version == version)
    );
}

#[tokio::test]
async fn what_cannot_be_read_back_stops_with_its_column() {
    let fixture = Fixture::new().await;
    let held = fixture.writer(model(&[("id", "bigint"), ("n", "numeric")])).await;
    fixture.run("INSERT INTO {s}.orders VALUES (1, 'NaN')").await;
    let error = held.writer.load(&[key(1)]).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config);
    assert!(error.message().contains("column \"n\" (numeric)"), "{error}");
    // The connection goes on.
    fixture.run("UPDATE {s}.orders SET n = 1.50").await;
    assert_eq!(held.load(1).await.0.unwrap().get(1), &Value::Decimal("1.5".parse().unwrap()));
}
