//! Names in SQL: the only place where a name from the config becomes SQL text.

use foldline_api::column::IDENTIFIER_BYTES_MAX;

/// A table's name in two parts. Names are taken as they are written, in upper and lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableName {
    /// The schema, unless the search path decides.
    pub(crate) schema: Option<String>,
    /// The table.
    pub(crate) table: String,
}

impl TableName {
    /// Reads `orders`, `sales.orders` or `sales."order.items"`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = split(text)?;
        for part in &parts {
            check(part)?;
        }
        match (parts.pop(), parts.pop(), parts.is_empty()) {
            (Some(table), schema, true) => Ok(TableName { schema, table }),
            _ => Err(format!("{text:?} has too many parts: write table or schema.table")),
        }
    }

    /// The name as SQL.
    pub(crate) fn sql(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quote(schema), quote(&self.table)),
            None => quote(&self.table),
        }
    }

    /// The name as people write it, and as the books keep it: quoted only where it must be.
    pub(crate) fn label(&self) -> String {
        let odd = |part: &str| part.contains(['.', '"']);
        match &self.schema {
            Some(schema) if !odd(schema) && !odd(&self.table) => format!("{schema}.{}", self.table),
            None if !odd(&self.table) => self.table.clone(),
            _ => self.sql(),
        }
    }
}

fn split(text: &str) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut part = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => part.push('"'),
                    Some('"') => break,
                    Some(other) => part.push(other),
                    None => return Err(format!("{text:?} lacks a closing quote")),
                }
            }
        } else {
            while let Some(other) = chars.next_if(|&c| c != '.') {
                if other == '"' {
                    return Err(format!("{text:?} has a quote in the middle of a name"));
                }
                part.push(other);
            }
        }
        parts.push(part);
        match chars.next() {
            None => return Ok(parts),
            Some('.') => {}
            Some(_) => return Err(format!("{text:?} goes on after a closing quote")),
        }
    }
}

/// Whether PostgreSQL can keep this name as it is: it cuts a longer one off silently.
pub(crate) fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a name must not be empty".to_owned());
    }
    if name.contains('\0') {
        return Err(format!("the name {name:?} holds a NUL"));
    }
    if name.len() > IDENTIFIER_BYTES_MAX {
        return Err(format!(
            "the name {name:?} has {} bytes, and PostgreSQL keeps {IDENTIFIER_BYTES_MAX}",
            name.len()
        ));
    }
    Ok(())
}

/// A name as SQL.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A list of names as SQL.
pub(crate) fn quote_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// A text constant as SQL, read the same under any `standard_conforming_strings`.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// The name of the index on `columns`: as PostgreSQL would choose it, but the same every time.
pub(crate) fn index_name(table: &str, columns: &[&str]) -> String {
    let full = format!("{table}_{}_idx", columns.join("_"));
    if full.len() <= IDENTIFIER_BYTES_MAX {
        return full;
    }
    // The hash is over the whole, so that two long names that begin alike stay two.
    let hash = format!("_{:08x}_idx", fnv1a(full.as_bytes()) as u32);
    let mut end = IDENTIFIER_BYTES_MAX - hash.len();
    while !full.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{hash}", full.get(..end).unwrap_or_default())
}

/// FNV-1a: a hash that is the same in every release, for names and lock numbers.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_read_and_print() {
        for (text, sql) in [
            ("orders", "\"orders\""),
            ("sales.orders", "\"sales\".\"orders\""),
            ("Sales.Orders", "\"Sales\".\"Orders\""),
            ("sales.\"order.items\"", "\"sales\".\"order.items\""),
            ("\"say \"\"hi\"\"\"", "\"say \"\"hi\"\"\""),
            ("x; drop table y", "\"x; drop table y\""),
        ] {
            assert_eq!(TableName::parse(text).unwrap().sql(), sql, "{text}");
        }
        let long = "x".repeat(64);
        for wrong in ["", ".", "a.", ".a", "a.b.c", "\"a", "a\"b", "\"a\"b", "a\0", &long] {
            assert!(TableName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'; --"), "E'a\\\\''; --'");
    }

    #[test]
    fn index_names_fit_and_stay_apart() {
        assert_eq!(index_name("orders", &["user_id", "at"]), "orders_user_id_at_idx");
        let (a, b) = ("ä".repeat(40), format!("{}b", "ä".repeat(40)));
        let (a, b) = (index_name("orders", &[&a]), index_name("orders", &[&b]));
        assert!(a.len() <= 63 && b.len() <= 63 && a != b, "{a} {b}");
    }
}
