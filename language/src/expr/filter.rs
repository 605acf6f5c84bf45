//! Filters over rows: the part of CEL that every store can answer. Names are fields, and each comparison has a field on one
//! side and a value on the other.

use std::sync::Arc;

use foldline_api::column::ColumnType;
use foldline_api::model::Model;
use foldline_api::query::{Filter, Side};
use foldline_api::value::Value;

use super::Scope;
use super::compile::compile;
use super::error::ExprError;
use super::node::{Node, Op};

/// Values that one filter may name.
const VALUES_MAX: usize = 1_000;

const KNOWN: &str = "a filter is made of comparisons of a field with a value (==, !=, <, <=, >, >=, in [a, b]), &&, || and !";

/// Reads a filter over the rows of `model`.
///
/// # Errors
/// Where it is no CEL, names no field, or asks for what is no comparison of a field with a value.
pub fn filter(source: &str, model: &Model) -> Result<Filter, ExprError> {
    let columns: Vec<(Arc<str>, ColumnType)> =
        model.columns.iter().map(|c| (Arc::clone(&c.name), c.ty.clone())).collect();
    let scope = Scope { columns: &columns, fields: true, ..Scope::default() };
    let compiled = compile(source, &scope)?;
    let wrong = |reason: String| ExprError::new(source, (0, source.len()), reason).help(KNOWN);
    let mut values = 0;
    let filter = lower(&compiled.node, model, &mut values).map_err(wrong)?;
    if values > VALUES_MAX {
        return Err(wrong(format!("it names {values} values, and {VALUES_MAX} are allowed")));
    }
    Ok(filter)
}

fn lower(node: &Node, model: &Model, values: &mut usize) -> Result<Filter, String> {
    match node {
        Node::And(pair) => Ok(Filter::All(both(pair, model, values)?)),
        Node::Or(pair) => Ok(Filter::Any(both(pair, model, values)?)),
        Node::Not(inner) => lower(inner, model, values).map(Filter::negated),
        Node::Const(Value::Bool(true)) => Ok(Filter::all()),
        Node::Const(Value::Bool(false)) => Ok(Filter::all().negated()),
        Node::State(column) if is_boolean(model, *column) => {
            *values += 1;
            Filter::equals(model, *column, Value::Bool(true))
        }
        Node::State(column) => Err(format!("{} alone is no condition", name(model, *column))),
        Node::Binary(op, sides) => compare(*op, sides, model, values),
        _ => Err("this is no comparison of a field with a value".to_owned()),
    }
}

fn both(pair: &(Node, Node), model: &Model, values: &mut usize) -> Result<Vec<Filter>, String> {
    Ok(vec![lower(&pair.0, model, values)?, lower(&pair.1, model, values)?])
}

fn compare(
    op: Op,
    sides: &(Node, Node),
    model: &Model,
    values: &mut usize,
) -> Result<Filter, String> {
    let (column, value, op) = match sides {
        (Node::State(column), Node::Const(value)) => (*column, value, op),
        (Node::Const(value), Node::State(column)) => (*column, value, turned(op)?),
        (Node::State(one), Node::State(other)) => {
            return Err(format!(
                "{} and {} are both fields: a field is compared with a value",
                name(model, *one),
                name(model, *other)
            ));
        }
        _ => return Err("a comparison has a field on one side and a value on the other".to_owned()),
    };
    *values += 1;
    let side = match op {
        Op::Equal => return Filter::equals(model, column, value.clone()),
        Op::NotEqual => return Filter::equals(model, column, value.clone()).map(Filter::negated),
        Op::In => {
            let Value::List(items) = value else {
                return Err(format!("{} in …: behind `in` stands a list", name(model, column)));
            };
            *values += items.len();
            return Filter::one_of(model, column, items.to_vec());
        }
        Op::Less => Side::Less,
        Op::LessOrEqual => Side::LessOrEqual,
        Op::Greater => Side::Greater,
        Op::GreaterOrEqual => Side::GreaterOrEqual,
        other => return Err(format!("`{}` is no comparison", other.symbol())),
    };
    Filter::side(model, column, side, value.clone())
}

/// The operator with its sides changed.
fn turned(op: Op) -> Result<Op, String> {
    Ok(match op {
        Op::Less => Op::Greater,
        Op::LessOrEqual => Op::GreaterOrEqual,
        Op::Greater => Op::Less,
        Op::GreaterOrEqual => Op::LessOrEqual,
        Op::In => return Err("what is in a field that is a list cannot be asked for".to_owned()),
        same => same,
    })
}

fn is_boolean(model: &Model, column: usize) -> bool {
    model.columns.get(column).is_some_and(|column| column.ty == ColumnType::Boolean)
}

fn name(model: &Model, column: usize) -> &str {
    model.columns.get(column).map_or("?", |column| &column.name)
}

#[cfg(test)]
mod tests {
    use foldline_api::model::Column;

    use super::*;

    fn model() -> Model {
        let columns = [
            ("id", "bigint"),
            ("owner", "text"),
            ("price", "numeric(12,2)"),
            ("since", "timestamptz"),
            ("paid", "boolean"),
            ("tags", "text[]"),
            ("key", "uuid"),
            ("size", "double precision"),
        ];
        let column = |(name, ty): &(&str, &str)| Column {
            name: Arc::from(*name),
            ty: ColumnType::parse(ty).unwrap(),
            index: false,
            default: Value::Null,
        };
        Model { columns: columns.iter().map(column).collect(), key: vec![0], indexes: Vec::new() }
    }

    fn read(source: &str) -> Filter {
        filter(source, &model()).unwrap_or_else(|error| panic!("{source}: {error}"))
    }

    #[test]
    fn comparisons_have_a_field_and_a_value_of_its_type() {
        let text = |text: &str| Value::text(text);
        assert_eq!(read("owner == 'ann'"), Filter::In(1, vec![text("ann")]));
        assert_eq!(read("owner != 'ann'"), Filter::NotIn(1, vec![text("ann")]));
        assert_eq!(read("7 < id"), Filter::Compare(0, Side::Greater, Value::Int(7)));
        assert_eq!(read("-7 >= id"), Filter::Compare(0, Side::LessOrEqual, Value::Int(-7)));
        let price = Value::Decimal("1.50".parse().unwrap());
        assert_eq!(read("price <= 1.5"), Filter::Compare(2, Side::LessOrEqual, price.clone()));
        assert_eq!(read("price == decimal('1.5')"), Filter::In(2, vec![price]));
        let since = Value::Timestamp("2026-01-01T00:00:00.000001Z".parse().unwrap());
        let wanted = Filter::Compare(3, Side::Less, since);
        assert_eq!(read("since < '2026-01-01T01:00:00.000001+01:00'"), wanted);
        assert_eq!(read("since < timestamp('2026-01-01T00:00:00.000001Z')"), wanted);
        assert_eq!(
            read("key == '00000000-0000-0000-0000-00000000000A'"),
            Filter::In(6, vec![Value::Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10])])
        );
        assert_eq!(read("size > 0.1"), Filter::Compare(7, Side::Greater, Value::Double(0.1)));
    }

    #[test]
    fn null_is_a_value_that_a_field_may_be() {
        assert_eq!(read("owner == null"), Filter::Null(1));
        assert_eq!(read("owner != null"), Filter::Filled(1));
        assert_eq!(read("tags == null"), Filter::Null(5));
        assert_eq!(
            read("owner in ['ann', null]"),
            Filter::Any(vec![Filter::In(1, vec![Value::text("ann")]), Filter::Null(1)])
        );
        assert_eq!(read("owner in []"), Filter::Any(vec![]));
    }

    #[test]
    fn not_is_the_rest_of_the_rows() {
        let (yes, no) = (vec![Value::Bool(true)], vec![Value::Int(1)]);
        assert_eq!(read("paid"), Filter::In(4, yes.clone()));
        assert_eq!(
            read("!(paid && id != 1)"),
            Filter::Any(vec![Filter::NotIn(4, yes), Filter::In(0, no)])
        );
        assert_eq!(
            read("!(id < 3 || false)"),
            Filter::All(vec![
                Filter::Any(vec![
                    Filter::Compare(0, Side::GreaterOrEqual, Value::Int(3)),
                    Filter::Null(0)
                ]),
                Filter::all()
            ])
        );
    }

    #[test]
    fn what_is_no_comparison_is_refused_by_name() {
        for (source, says) in [
            ("ownr == 'ann'", "no field `ownr`"),
            ("owner", "owner alone is no condition"),
            ("owner == key", "owner and key are both fields"),
            ("owner == 7", "is no text"),
            ("id > 3.5", "id: a decimal does not fit bigint: it has a fraction"),
            ("price > 1.005", "more digits than it keeps"),
            ("since > 5", "a number is no time"),
            ("since > '2026-01-01'", "not RFC 3339"),
            ("owner > null", "holds for no row"),
            ("tags == ['a']", "tags is text[], which is compared with null only"),
            ("'a' in tags", "a list cannot be asked for"),
            ("owner in 'ann'", "behind `in` stands a list"),
            ("owner.startsWith('a')", "no comparison of a field with a value"),
            ("id + 1 == 2", "a field on one side and a value on the other"),
            ("id =", ""),
            ("event.id == 1", "no field `event`"),
        ] {
            let error = filter(source, &model()).unwrap_err().to_string();
            assert!(error.contains(says), "{source}: {error}");
        }
        let many = format!("id in [{}]", vec!["1"; 1_001].join(","));
        assert!(filter(&many, &model()).unwrap_err().to_string().contains("1000 are allowed"));
    }
}
