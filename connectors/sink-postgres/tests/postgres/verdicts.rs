//! What the store refuses, and how long a refusal holds.

use foldline_api::ErrorClass;
use foldline_api::rebuild::By;
use foldline_api::record::Position;
use foldline_api::sink::{Advance, Flush, StoredVerdict, Target, Version, Written};

use crate::support::{Fixture, Held, claim, model, orders, part, put, row};

#[tokio::test]
async fn what_the_store_refuses_is_named_without_its_content() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    fixture
        .run(
            "ALTER TABLE {s}.orders ADD CONSTRAINT small CHECK (amount < 100), ADD CONSTRAINT one_note \
             UNIQUE (note), ADD CONSTRAINT late UNIQUE (amount) DEFERRABLE INITIALLY DEFERRED",
        )
        .await;
    let version = held.durable(vec![put(row(1, 1, "hunter2"), Version::Absent)]).await;
    for (write, code, constraint) in [
        (put(row(1, 100, "hunter2"), version), "23514", "small"),
        (put(row(2, 100, "x"), Version::Absent), "23514", "small"),
        (put(row(2, 2, "hunter2"), Version::Absent), "23505", "one_note"),
        // Checked only by the commit.
        (put(row(2, 1, "x"), Version::Absent), "23505", "late"),
        (put(row(2, 2, "longer than nine"), Version::Absent), "22001", ""),
    ] {
        let Written::Rejected(error) = held.write(vec![write]).await else { panic!("{code}") };
        assert_eq!((error.class(), error.code()), (ErrorClass::Record, Some(code)), "{error}");
        let text = format!("{error:?}");
        assert!(text.contains(constraint) && !text.contains("hunter2"), "{text}");
    }
    assert_eq!(held.load(1).await, (Some(row(1, 1, "hunter2")), version));
    held.durable(vec![put(row(1, 2, "hunter2"), version)]).await;
}

/// The definition that an insert of `row` was refused by.
async fn refused_by(held: &mut Held, row: foldline_api::model::Row) -> Option<String> {
    let written = held.write(vec![put(row, Version::Absent)]).await;
    let Written::Rejected(error) = written else { panic!("{written:?}") };
    error.definition().map(str::to_owned)
}

#[tokio::test]
async fn a_verdict_holds_while_the_tables_own_rule_stands() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let mut held = Held::new(&target, 1, orders()).await;
    fixture
        .run(
            "ALTER TABLE {s}.orders ADD CONSTRAINT small CHECK (amount < 100); CREATE UNIQUE INDEX ON {s}.orders \
             (note) WHERE amount > 0",
        )
        .await;
    held.durable(vec![put(row(1, 1, "a"), Version::Absent)]).await;
    let check = refused_by(&mut held, row(2, 100, "b")).await;
    assert!(
        check.as_deref().is_some_and(|known| known.ends_with("CHECK ((amount < 100))")),
        "{check:?}"
    );
    let unique = refused_by(&mut held, row(2, 1, "a")).await;
    assert!(
        unique.as_deref().is_some_and(|known| known.contains("UNIQUE USING btree (note)")),
        "{unique:?}"
    );
    let verdicts: Vec<_> = [&check, &unique, &None]
        .into_iter()
        .zip(0..)
        .map(|(known, offset)| StoredVerdict::new(part(0), offset, "no", known.clone()))
        .collect();
    let flush = Flush { verdicts, ..held.flush(vec![]) };
    assert!(matches!(held.send(flush).await, Written::Durable(_)));
    let holds = async |target: &dyn Target, generation| -> Vec<bool> {
        let writer = target.writer(generation).await.unwrap();
        let verdicts = writer.acquire(&[claim(0)]).await.unwrap().verdicts;
        verdicts.iter().map(|verdict| verdict.holds).collect()
    };
    // A build's table has no secondary index yet, and will have it.
    let build = target.rebuilds().begin(By::Operator, &[claim(0)], &[]).await.unwrap();
    assert_eq!(holds(&target, build).await, [true, true, false]);
    fixture.run("ALTER TABLE {s}.orders RENAME CONSTRAINT small TO little").await;
    target.rebuilds().cancel(None).await.unwrap();
    let build = target.rebuilds().begin(By::Operator, &[claim(0)], &[]).await.unwrap();
    assert_eq!(
        holds(&target, build).await,
        [true, true, false],
        "by another name it refuses the same"
    );
    target.rebuilds().cancel(None).await.unwrap();
    fixture.run("ALTER TABLE {s}.orders DROP CONSTRAINT little, ADD CHECK (amount < 200)").await;
    let mut told = target.snapshot().await.unwrap().books().verdicts.clone();
    told.sort_by_key(|verdict| verdict.offset);
    let told: Vec<_> = told.iter().map(|v| (v.holds, v.is_unknown())).collect();
    assert_eq!(told, [(false, false), (true, false), (false, true)]);
    let build = target.rebuilds().begin(By::Operator, &[claim(0)], &[]).await.unwrap();
    assert_eq!(holds(&target, build).await, [false, true, false]);
    let mut spec = fixture.spec(orders());
    spec.fingerprint = "another".into();
    let other = fixture.target(spec);
    let next = other.rebuild(1, None).await.unwrap();
    assert_eq!(holds(&other, next).await, [false; 3], "another model makes other rows");
}

#[tokio::test]
async fn what_more_than_the_row_decides_has_no_definition() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(orders()).await;
    fixture
        .run(
            "CREATE TABLE {s}.parents (id bigint PRIMARY KEY); ALTER TABLE {s}.orders ADD FOREIGN KEY (amount) \
             REFERENCES {s}.parents; CREATE FUNCTION {s}.small(bigint) RETURNS boolean LANGUAGE sql IMMUTABLE AS \
             'SELECT $1 < 100'; ALTER TABLE {s}.orders ADD CHECK ({s}.small(amount)), ADD CONSTRAINT note CHECK \
             (note <> 'no'); INSERT INTO {s}.parents VALUES (1), (500)",
        )
        .await;
    assert_eq!(refused_by(&mut held, row(1, 2, "a")).await, None, "a foreign key");
    assert_eq!(refused_by(&mut held, row(1, 500, "a")).await, None, "a function of the user's");
    assert!(refused_by(&mut held, row(1, 1, "no")).await.is_some());
    fixture
        .run(
            "CREATE FUNCTION {s}.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note = ''no''; RETURN NEW; \
             END'; CREATE TRIGGER no BEFORE INSERT ON {s}.orders FOR EACH ROW EXECUTE FUNCTION {s}.no()",
        )
        .await;
    assert_eq!(
        refused_by(&mut held, row(1, 1, "a")).await,
        None,
        "a trigger changes the row first"
    );
}

#[tokio::test]
async fn verdicts_of_an_earlier_version_are_carried_on_as_unknown() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let mut held = Held::new(&target, 1, orders()).await;
    let known = Some("known".to_owned());
    let verdicts = (0..2).map(|n| StoredVerdict::new(part(0), n, "no", known.clone())).collect();
    let flush = Flush { verdicts, ..held.flush(vec![]) };
    assert!(matches!(held.send(flush).await, Written::Durable(_)));
    fixture.run("ALTER TABLE {s}_books.verdicts DROP COLUMN definition, DROP COLUMN open").await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let told = target.snapshot().await.unwrap().books().verdicts.clone();
    let told: Vec<_> = told.iter().map(|v| (v.offset, v.is_unknown())).collect();
    assert_eq!(told, [(0, true)], "behind the position it was decided, at it it is to be asked");
    let open = target.writer(1).await.unwrap().acquire(&[claim(0)]).await.unwrap().verdicts;
    assert_eq!(open, [StoredVerdict::new(part(0), 1, "no", None).judged(|_| false)]);
}

#[tokio::test]
async fn a_key_too_long_for_its_index_is_refused() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(model(&[("id", "text")])).await;
    // Random enough not to be compressed below a third of a page.
    let mut state = 1u64;
    let long: String = (0..9_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
        })
        .collect();
    let row = foldline_api::model::Row::new(vec![foldline_api::value::Value::text(&long)]);
    let Written::Rejected(error) = held.write(vec![put(row, Version::Absent)]).await else {
        panic!("accepted")
    };
    assert_eq!((error.class(), error.code()), (ErrorClass::Record, Some("54000")));
}

#[tokio::test]
async fn a_number_longer_than_numeric_holds_is_refused() {
    let fixture = Fixture::new().await;
    let mut held = fixture.writer(model(&[("id", "bigint"), ("n", "numeric")])).await;
    let number = |digits| foldline_api::value::Value::Decimal("7".repeat(digits).parse().unwrap());
    let row = |digits| foldline_api::model::Row::new(vec![1i64.into(), number(digits)]);
    let Written::Rejected(error) = held.write(vec![put(row(140_000), Version::Absent)]).await
    else {
        panic!("accepted")
    };
    assert_eq!(error.class(), ErrorClass::Record);
    assert!(error.message().contains("column \"n\": a number with too many digits"), "{error}");
    held.durable(vec![put(row(131_000), Version::Absent)]).await;
    assert_eq!(held.load(1).await.0, Some(row(131_000)));
}

#[tokio::test]
async fn verdicts_are_kept_as_long_as_they_hold() {
    let fixture = Fixture::new().await;
    let target = fixture.target(fixture.spec(orders()));
    target.open().await.unwrap();
    let mut held = Held::new(&target, 1, orders()).await;
    let verdict =
        |offset, reason: &str| StoredVerdict::new(part(0), offset, reason, None).judged(|_| false);
    let flush = Flush {
        verdicts: vec![verdict(0, "behind"), verdict(1, "at\0"), verdict(5, "ahead")],
        ..held.flush(vec![])
    };
    assert!(matches!(held.send(flush).await, Written::Durable(_)));
    // The newest of a record counts.
    let flush = Flush { verdicts: vec![verdict(5, "again")], ..held.flush(vec![]) };
    let flush =
        Flush { advances: vec![Advance { to: Position(1), ..flush.advances[0].clone() }], ..flush };
    assert!(matches!(held.send(flush).await, Written::Durable(_)));
    let found = held.writer.acquire(&[claim(0), claim(1)]).await.unwrap().verdicts;
    assert_eq!(found, [verdict(1, "at\u{fffd}"), verdict(5, "again")]);
    // A rebuild knows of them, whatever its projection: it asks again.
    target.rebuild(1, None).await.unwrap();
    let held = Held::new(&target, 2, orders()).await;
    assert_eq!(held.writer.acquire(&[claim(0)]).await.unwrap().verdicts.len(), 3);
    let mut spec = fixture.spec(orders());
    spec.fingerprint = "another".into();
    let target = fixture.target(spec);
    target.rebuild(2, None).await.unwrap();
    let held = Held::new(&target, 3, orders()).await;
    assert_eq!(held.writer.acquire(&[claim(0)]).await.unwrap().verdicts.len(), 3);
}
