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
    // A GRANT cures it, and nobody has to come back and restart.
    ("42501", ErrorClass::Retriable),
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
        format!("{doing}: {}{}", db.message(), way_out(&code, db.message()))
    };
    // The source is left out: its text is the server's message again.
    Error::new(class, message).with_code(code)
}

/// The way out that the server's words leave out, where there is one.
fn way_out(code: &str, message: &str) -> String {
    if code == SqlState::READ_ONLY_SQL_TRANSACTION.code() {
        return "; a standby is waited for, but default_transaction_read_only may be set on the role or the database"
            .to_owned();
    }
    if code == SqlState::INSUFFICIENT_PRIVILEGE.code() { grant(message) } else { String::new() }
}

/// The statement that an administrator is to run, by the server's words; a server of another language has others.
fn grant(message: &str) -> String {
    let of = |kind: &str| message.rsplit_once(&format!(" {kind} ")).map(|(_, name)| name);
    let to = "TO the user of the sink's url";
    let statement = if let Some(name) = of("database") {
        format!(
            "GRANT CREATE ON DATABASE {name} {to}, or make the schema: CREATE SCHEMA … AUTHORIZATION that user"
        )
    } else if let Some(name) = of("schema") {
        format!("GRANT USAGE, CREATE ON SCHEMA {name} {to}")
    } else if let Some(name) = of("owner of table") {
        format!("ALTER TABLE {name} OWNER {to}")
    } else if let Some(name) = of("sequence") {
        format!("GRANT USAGE ON SEQUENCE {name} {to}")
    } else if let Some(name) = of("table") {
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {name} {to}")
    } else {
        return "; docs/getting-started.md lists what to grant".to_owned();
    };
    format!(": {statement} (docs/getting-started.md lists all of it)")
}

/// Whether the table is not there.
pub(crate) fn is_missing(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::UNDEFINED_TABLE)
}

/// Whether the statement was cut off for the time that it took.
pub(crate) fn is_cut_off(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
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

    /// `docs/errors.md`: prefix, examples, what it is, class.
    #[test]
    fn the_page_of_errors_tells_every_sqlstates_class() {
        let rows = foldline_testkit::page::table("docs/errors.md", "## PostgreSQL");
        for row in &rows {
            let [prefix, examples, _, label] = row.as_slice() else { panic!("{row:?}") };
            let known = CLASSES.iter().find(|(known, _)| prefix[0] == *known);
            let Some((known, expect)) = known else {
                assert_eq!(prefix[0], "anything else", "on the page only");
                assert!(examples.iter().all(|code| class(code).label() == label[0]), "{row:?}");
                continue;
            };
            assert_eq!(expect.label(), label[0], "{row:?}");
            for code in examples {
                assert!(code.starts_with(known) && code.len() == 5, "{row:?}");
                assert_eq!(class(code), *expect, "{code}");
            }
        }
        for (prefix, _) in CLASSES {
            let count = rows.iter().filter(|row| row[0][0] == *prefix).count();
            assert_eq!(count, 1, "rows of {prefix} on the page");
        }
    }
    /// What the driver makes of a server that turns it away with `code`.
    async fn refused(code: &str, message: &str) -> tokio_postgres::Error {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (ours, mut server) = tokio::io::duplex(1 << 10);
        let answer = async {
            let length = server.read_u32().await.unwrap();
            let mut startup = vec![0; usize::try_from(length).unwrap() - 4];
            server.read_exact(&mut startup).await.unwrap();
            let mut fields = Vec::new();
            for (field, text) in
                [(b'S', "ERROR"), (b'C', code), (b'M', message), (b'c', "total"), (b't', "orders")]
            {
                fields.push(field);
                fields.extend_from_slice(text.as_bytes());
                fields.push(0);
            }
            fields.push(0);
            server.write_u8(b'E').await.unwrap();
            server.write_u32(u32::try_from(fields.len()).unwrap() + 4).await.unwrap();
            server.write_all(&fields).await.unwrap();
        };
        let mut config = tokio_postgres::Config::new();
        config.user("foldline");
        let connect = config.connect_raw(ours, tokio_postgres::NoTls);
        tokio::join!(connect, answer).0.err().unwrap()
    }

    #[tokio::test]
    async fn what_the_server_says_is_told_but_for_data() {
        let full = refused("53100", "could not extend file: no space").await;
        assert!(!is_missing(&full) && !is_deadlock(&full));
        let full = classify(full, "writing into \"orders\"");
        assert_eq!((full.class(), full.code()), (ErrorClass::Retriable, Some("53100")));
        assert_eq!(full.message(), "writing into \"orders\": could not extend file: no space");

        let data = refused("22P02", "invalid input syntax for type integer: \"canary\"").await;
        let data = classify(data, "writing");
        assert_eq!(data.class(), ErrorClass::Record);
        assert_eq!(
            data.message(),
            "writing: PostgreSQL refused the data, column \"total\", table \"orders\""
        );
        assert!(!format!("{data:?}").contains("canary"));

        let missing = refused("42P01", "relation \"orders\" does not exist").await;
        assert!(is_missing(&missing) && !is_deadlock(&missing));
        let deadlock = refused("40P01", "deadlock detected").await;
        assert!(is_deadlock(&deadlock) && !is_missing(&deadlock));
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_waited_for_and_settings_that_cannot_be_are_not() {
        let (ours, server) = tokio::io::duplex(1 << 10);
        drop(server);
        let mut config = tokio_postgres::Config::new();
        let away = config.user("foldline").connect_raw(ours, tokio_postgres::NoTls).await;
        let away = classify(away.err().unwrap(), "connecting");
        assert_eq!((away.class(), away.code()), (ErrorClass::Retriable, None));
        let nowhere = tokio_postgres::Config::new().connect(tokio_postgres::NoTls).await;
        let nowhere = classify(nowhere.err().unwrap(), "connecting");
        assert_eq!(nowhere.class(), ErrorClass::Config, "{nowhere}");
        assert!(nowhere.message().starts_with("connecting: invalid configuration"), "{nowhere}");
    }

    #[tokio::test]
    async fn a_missing_privilege_is_waited_for_and_its_grant_named() {
        for (message, part) in [
            ("permission denied for schema app", "GRANT USAGE, CREATE ON SCHEMA app TO"),
            ("permission denied for database app", "GRANT CREATE ON DATABASE app TO"),
            ("permission denied for table t", "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE t TO"),
            ("permission denied for sequence s", "GRANT USAGE ON SEQUENCE s TO"),
            ("must be owner of table t", "ALTER TABLE t OWNER TO"),
            ("droit refusé pour la table t", "docs/getting-started.md lists"),
        ] {
            let error = classify(refused("42501", message).await, "opening");
            assert_eq!(error.class(), ErrorClass::Retriable);
            assert!(error.message().contains(part), "{error}");
            assert!(error.message().contains(message), "{error}");
        }
    }

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl std::fmt::Display for Layer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Layer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_deref().map(|layer| layer as _)
        }
    }

    #[test]
    fn each_cause_is_told_once() {
        let inner = Layer("no route", None);
        let middle = Layer("no connection", Some(Box::new(inner)));
        let outer = Layer("cannot ask: no connection", Some(Box::new(middle)));
        assert_eq!(chain(&outer), "cannot ask: no connection: no route");
    }
}
