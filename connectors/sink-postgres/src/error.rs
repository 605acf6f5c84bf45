//! What PostgreSQL's errors mean: SQLSTATE to class, in one table.

use foldline_api::{Error, ErrorClass};
use tokio_postgres::error::SqlState;

/// Classes by SQLSTATE: the longest prefix that fits wins. What is not here is a machine problem, since
/// waiting loses nothing.
const CLASSES: &[(&str, ErrorClass)] = &[
    // Connections, resources, shutdowns, failovers: wait.
    ("08", ErrorClass::Retriable),
    ("25", ErrorClass::Retriable),
    ("26", ErrorClass::Retriable),
    ("28", ErrorClass::Retriable),
    ("40", ErrorClass::Retriable),
    ("53", ErrorClass::Retriable),
    ("55", ErrorClass::Retriable),
    ("57", ErrorClass::Retriable),
    ("58", ErrorClass::Retriable),
    ("72", ErrorClass::Retriable),
    ("F0", ErrorClass::Retriable),
    ("XX", ErrorClass::Retriable),
    // Values and constraints, and whatever a user's trigger raises: the record.
    ("22", ErrorClass::Record),
    ("23", ErrorClass::Record),
    ("38", ErrorClass::Record),
    ("39", ErrorClass::Record),
    ("44", ErrorClass::Record),
    ("54", ErrorClass::Record),
    ("P0", ErrorClass::Record),
    // Objects, privileges, features: the config.
    ("0A", ErrorClass::Config),
    ("2B", ErrorClass::Config),
    ("3D", ErrorClass::Config),
    ("3F", ErrorClass::Config),
    ("42", ErrorClass::Config),
    ("54011", ErrorClass::Config),
    ("54023", ErrorClass::Config),
    ("55P02", ErrorClass::Config),
];

/// The class of a SQLSTATE.
pub(crate) fn class(code: &str) -> ErrorClass {
    CLASSES
        .iter()
        .filter(|(prefix, _)| code.starts_with(prefix))
        .max_by_key(|(prefix, _)| prefix.len())
        .map_or(ErrorClass::Retriable, |(_, class)| *class)
}

/// The error at the boundary. `doing` says what for: "writing into \"orders\"".
pub(crate) fn classify(error: tokio_postgres::Error, doing: &str) -> Error {
    let Some(db) = error.as_db_error() else {
        let message = format!("{doing}: {}", chain(&error));
        // What the client itself refuses about its settings has no code.
        let class = if error.to_string().starts_with("invalid configuration") {
            ErrorClass::Config
        } else {
            ErrorClass::Retriable
        };
        return Error::new(class, message).with_source(error);
    };
    let code = db.code().code().to_owned();
    let class = class(&code);
    // A message about data may hold the data ("invalid input syntax for type integer: ..."), so only the
    // names of what was hurt are kept; the detail, which prints whole rows, is never used.
    let message = if class == ErrorClass::Record {
        let mut message = format!("{doing}: PostgreSQL refused the data");
        for (what, name) in [
            ("constraint", db.constraint()),
            ("column", db.column()),
            ("type", db.datatype()),
            ("table", db.table()),
        ] {
            if let Some(name) = name {
                message.push_str(&format!(", {what} {name:?}"));
            }
        }
        message
    } else {
        format!("{doing}: {}", db.message())
    };
    // The source is left out: its text is the server's message again.
    Error::new(class, message).with_code(code)
}

/// Whether the table is not there.
pub(crate) fn is_missing(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::UNDEFINED_TABLE)
}

/// Whether two transactions waited for each other.
pub(crate) fn is_deadlock(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlstate_has_its_class() {
        use ErrorClass::{Config, Record, Retriable};
        for (code, expect) in [
            ("08006", Retriable),
            ("25006", Retriable),
            ("25P03", Retriable),
            ("26000", Retriable),
            ("28P01", Retriable),
            ("40001", Retriable),
            ("40P01", Retriable),
            ("53100", Retriable),
            ("53300", Retriable),
            ("55P03", Retriable),
            ("57014", Retriable),
            ("57P01", Retriable),
            ("57P03", Retriable),
            ("58030", Retriable),
            ("72000", Retriable),
            ("F0000", Retriable),
            ("XX000", Retriable),
            ("22001", Record),
            ("22003", Record),
            ("22P02", Record),
            ("22P05", Record),
            ("23502", Record),
            ("23505", Record),
            ("23514", Record),
            ("38000", Record),
            ("39000", Record),
            ("44000", Record),
            ("54000", Record),
            ("P0001", Record),
            ("0A000", Config),
            ("2BP01", Config),
            ("3D000", Config),
            ("3F000", Config),
            ("42501", Config),
            ("42P01", Config),
            ("42703", Config),
            ("54011", Config),
            ("54023", Config),
            ("55P02", Config),
            ("99999", Retriable),
        ] {
            assert_eq!(class(code), expect, "{code}");
        }
    }

    #[test]
    fn every_row_of_the_table_is_tested_to_be_a_prefix_of_its_own() {
        for (prefix, expect) in CLASSES {
            let code = format!("{prefix:Z<5}");
            assert_eq!(class(&code), *expect, "{code}");
        }
    }
}
