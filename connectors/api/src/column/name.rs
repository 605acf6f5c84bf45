//! A column type's name, read and written.

use std::fmt;

use super::ColumnType;

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnType::BigInt => f.write_str("bigint"),
            ColumnType::Integer => f.write_str("integer"),
            ColumnType::SmallInt => f.write_str("smallint"),
            ColumnType::DoublePrecision => f.write_str("double precision"),
            ColumnType::Real => f.write_str("real"),
            ColumnType::Numeric(None) => f.write_str("numeric"),
            ColumnType::Numeric(Some((p, s))) => write!(f, "numeric({p},{s})"),
            ColumnType::Boolean => f.write_str("boolean"),
            ColumnType::Text => f.write_str("text"),
            ColumnType::Varchar(n) => write!(f, "varchar({n})"),
            ColumnType::TimestampTz => f.write_str("timestamptz"),
            ColumnType::Date => f.write_str("date"),
            ColumnType::Time => f.write_str("time"),
            ColumnType::Uuid => f.write_str("uuid"),
            ColumnType::Bytea => f.write_str("bytea"),
            ColumnType::Jsonb => f.write_str("jsonb"),
            ColumnType::Array(item) => write!(f, "{item}[]"),
            ColumnType::Children(_) => f.write_str("children"),
        }
    }
}

impl ColumnType {
    /// Reads a type's name: `bigint`, `numeric(12,2)`, `varchar(200)`, `text[]` and PostgreSQL's short
    /// names such as `int8` and `timestamp with time zone`. Children are made by the config.
    ///
    /// # Errors
    /// A sentence that names the allowed types.
    pub fn parse(name: &str) -> Result<Self, String> {
        let name = name.trim().to_ascii_lowercase();
        if let Some(item) = name.strip_suffix("[]") {
            let item = Self::parse(item)?;
            if matches!(item, ColumnType::Array(_)) {
                return Err("arrays of arrays are not kept: use jsonb".to_owned());
            }
            return Ok(ColumnType::Array(Box::new(item)));
        }
        let (base, args) = match name.split_once('(') {
            Some((base, rest)) => (base.trim_end(), rest.strip_suffix(')')),
            None => (name.as_str(), None),
        };
        if name.contains('(') && args.is_none() {
            return Err(format!("unknown type {name:?}: a closing parenthesis is missing"));
        }
        let numbers: Option<Vec<u32>> = args
            .map(|a| a.split(',').map(|n| n.trim().parse().ok()).collect())
            .unwrap_or(Some(vec![]));
        let plain = |ty| {
            if args.is_none() { Ok(ty) } else { Err(format!("type {base} takes no arguments")) }
        };
        match (base, numbers.as_deref()) {
            ("bigint" | "int8", _) => plain(ColumnType::BigInt),
            ("integer" | "int" | "int4", _) => plain(ColumnType::Integer),
            ("smallint" | "int2", _) => plain(ColumnType::SmallInt),
            ("double precision" | "float8", _) => plain(ColumnType::DoublePrecision),
            ("real" | "float4", _) => plain(ColumnType::Real),
            ("numeric" | "decimal", Some([])) => Ok(ColumnType::Numeric(None)),
            ("numeric" | "decimal", Some(&[p])) if (1..=1_000).contains(&p) => {
                Ok(ColumnType::Numeric(Some((p as u16, 0))))
            }
            ("numeric" | "decimal", Some(&[p, s])) if (1..=1_000).contains(&p) && s <= p => {
                Ok(ColumnType::Numeric(Some((p as u16, s as u16))))
            }
            ("numeric" | "decimal", _) => Err(
                "numeric takes a precision of 1 to 1000 and a scale of 0 to the precision, as in numeric(12,2)"
                    .to_owned(),
            ),
            ("boolean" | "bool", _) => plain(ColumnType::Boolean),
            ("text", _) => plain(ColumnType::Text),
            ("varchar" | "character varying", Some(&[n])) if (1..=10_485_760).contains(&n) => {
                Ok(ColumnType::Varchar(n))
            }
            ("varchar" | "character varying", Some([])) => Ok(ColumnType::Text),
            ("varchar" | "character varying", _) => {
                Err("varchar takes a length of 1 to 10485760, as in varchar(200)".to_owned())
            }
            ("timestamptz" | "timestamp with time zone", _) => plain(ColumnType::TimestampTz),
            ("date", _) => plain(ColumnType::Date),
            ("time", _) => plain(ColumnType::Time),
            ("uuid", _) => plain(ColumnType::Uuid),
            ("bytea", _) => plain(ColumnType::Bytea),
            ("jsonb", _) => plain(ColumnType::Jsonb),
            ("json", _) => Err("type json is not kept: use jsonb".to_owned()),
            ("timestamp", _) => Err("timestamp has no zone: use timestamptz".to_owned()),
            ("char" | "character", _) => Err("char pads with spaces: use varchar(n) or text".to_owned()),
            _ => Err(format!(
                "unknown type {name:?}: allowed are bigint, integer, smallint, double precision, real, \
                 numeric(p,s), boolean, text, varchar(n), timestamptz, date, time, uuid, bytea, jsonb, \
                 children and arrays such as text[]"
            )),
        }
    }
}
