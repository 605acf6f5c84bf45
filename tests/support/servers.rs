//! Where the servers are, and how one of them is disturbed.

use std::path::PathBuf;
use std::process::Command;

pub(crate) fn required(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: `./test` starts the servers and sets it"))
}

/// Kafka's bootstrap servers.
pub(crate) fn kafka() -> String {
    required("KAFKA")
}

/// Elasticsearch's URL, without a slash at the end.
pub(crate) fn elasticsearch() -> String {
    required("ELASTICSEARCH").trim_end_matches('/').to_owned()
}

/// PostgreSQL's URL.
pub(crate) fn postgres() -> String {
    required("DATABASE_URL")
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs Kafka's own `kafka-consumer-groups`.
pub(crate) fn consumer_groups(arguments: &[&str]) -> String {
    let tool = PathBuf::from(required("FOLDLINE_KAFKA_BIN")).join("kafka-consumer-groups");
    let mut command = Command::new(tool);
    command.args(["--bootstrap-server", &kafka()]).args(arguments);
    run(&mut command)
}

/// Stops, starts, restarts or kills `service` (tests/services/ctl).
pub(crate) fn ctl(service: &str, action: &str) {
    let tool = PathBuf::from(required("FOLDLINE_KAFKA_BIN")).join("ctl");
    run(Command::new(tool).args([service, action]));
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
