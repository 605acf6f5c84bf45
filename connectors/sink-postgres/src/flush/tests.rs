use super::*;
use foldline_api::model::Row;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::Marks;

fn write(id: i64, row: bool, version: Version) -> RowWrite {
    let row = row.then(|| Row::new(vec![Value::Int(id)]));
    RowWrite { key: Key::new(vec![Value::Int(id)]), row, version, marks: Marks::new() }
}

fn names(windows: &[Vec<Part<'_>>]) -> Vec<Vec<String>> {
    let name = |part: &Part<'_>| {
        format!("{part:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()
    };
    windows.iter().map(|window| window.iter().map(name).collect()).collect()
}

#[test]
fn the_fence_is_first_and_each_row_goes_where_its_version_says() {
    let advance = Advance {
        partition: TopicPartition::new("t", 0),
        epoch: 1,
        from: Position(0),
        to: Position(4),
    };
    let flush = Flush {
        advances: vec![advance],
        writes: vec![
            write(1, true, Version::Absent),
            write(2, true, Version::At(7, 0)),
            write(3, false, Version::At(7, 0)),
            write(4, false, Version::Absent),
        ],
        ..Flush::default()
    };
    assert_eq!(
        names(&cut(&flush, false, false, ROWS_MAX)),
        [["Fence", "Absent", "Update", "Insert", "Delete"]]
    );
    assert_eq!(names(&cut(&flush, true, false, ROWS_MAX))[0][1], "Lock");
    assert_eq!(names(&cut(&Flush::default(), false, false, ROWS_MAX)), [["Live"]]);
}

#[test]
fn a_large_flush_is_cut() {
    let rows = i64::try_from(ROWS_MAX).unwrap() * 2 + 1;
    let flush = Flush {
        writes: (0..rows).map(|id| write(id, true, Version::Absent)).collect(),
        ..Flush::default()
    };
    assert_eq!(
        names(&cut(&flush, false, false, ROWS_MAX)),
        [vec!["Live", "Insert"], vec!["Insert"], vec!["Insert"]]
    );
    let copied = names(&cut(&flush, false, true, ROWS_MAX));
    assert_eq!(copied[0], ["Live", "Copy"]);
    let halved = names(&cut(&flush, false, true, ROWS_MAX / 2));
    assert_eq!(halved.concat().len(), 6, "each statement has half of the rows");
}

#[test]
fn what_is_sent_at_once_is_bounded_by_its_bytes() {
    let large = |id: i64, bytes: usize| {
        let row = Row::new(vec![Value::Int(id), Value::text(&"x".repeat(bytes))]);
        let version = if id % 2 == 0 { Version::Absent } else { Version::At(7, 0) };
        RowWrite { row: Some(row), ..write(id, true, version) }
    };
    let mut writes: Vec<RowWrite> = (0..40).map(|id| large(id, 300_000)).collect();
    writes.push(large(40, BYTES_MAX * 2));
    let flush = Flush { writes, ..Flush::default() };
    for copy in [false, true] {
        let windows = cut(&flush, false, copy, ROWS_MAX);
        let bytes = |part: &Part<'_>| match part {
            Part::Update(rows) => rows.iter().map(|(write, _)| bytes_of(write)).sum(),
            Part::Insert(rows) | Part::Copy(rows) => rows.iter().map(|w| bytes_of(w)).sum(),
            _ => 0_usize,
        };
        let bytes: Vec<usize> = windows.iter().map(|w| w.iter().map(bytes).sum()).collect();
        let over: Vec<_> = bytes.iter().filter(|bytes| **bytes > BYTES_MAX).collect();
        assert_eq!(over.len(), 1, "the one row that is larger itself: {bytes:?}");
        assert!(bytes.len() <= 6, "{bytes:?}");
    }
}

#[test]
fn copied_texts_cannot_break_out_of_their_field() {
    let column = |name: &str, ty: &str| Column {
        name: name.into(),
        ty: ColumnType::parse(ty).unwrap(),
        index: false,
        default: Value::Null,
    };
    let columns = vec![column("a", "text"), column("b", "bigint"), column("c", "text[]")];
    let model = Model { columns, key: vec![0], indexes: Vec::new() };
    let list = Value::list(vec![Value::text("x\"\\y"), Value::Null]);
    let row = Row::new(vec![Value::text("a\tb\\N\n"), Value::Null, list]);
    let write = RowWrite { row: Some(row), ..write(1, true, Version::Absent) };
    let text = copy_text(&model, &[&write]).unwrap();
    assert_eq!(&text[..], b"a\\tb\\\\N\\n\t\\N\t{\"x\\\\\"\\\\\\\\y\",NULL}\n");
}
