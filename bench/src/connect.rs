//! Kafka Connect with the Debezium JDBC sink, as a process, on the ready-made rows.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use crate::process::Process;
use crate::report::Sample;
use crate::store::{Store, connect, database_url};
use crate::worker::{any_row, arrived};
use crate::workload::{Expected, TABLE, Workload};
use crate::{Result, required};

/// Connect, standalone, with one connector of two tasks.
pub(crate) struct Connect {
    _directory: TempDir,
    pub(crate) process: Process,
    pub(crate) store: Store,
}

fn properties(directory: &Path, topic: &str) -> Result<()> {
    let worker = format!(
        "bootstrap.servers={}\nkey.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=org.apache.kafka.connect.json.JsonConverter\nvalue.converter.schemas.enable=true\n\
         offset.storage.file.filename={}\nlisteners=http://127.0.0.1:0\nconsumer.max.poll.records=5000\n",
        required("KAFKA")?,
        directory.join("offsets").display()
    );
    std::fs::write(directory.join("worker.properties"), worker)?;
    let url = database_url()?;
    let (account, place) = url
        .trim_start_matches("postgres://")
        .split_once('@')
        .ok_or("DATABASE_URL names no user")?;
    let (user, password) = account.split_once(':').unwrap_or((account, ""));
    // The name is the group's; a new one each time starts at the beginning.
    let unique = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_micros();
    let connector = format!(
        "name=bench{unique}\nconnector.class=io.debezium.connector.jdbc.JdbcSinkConnector\ntasks.max=2\n\
         topics={topic}\nconnection.url=jdbc:postgresql://{place}\nconnection.username={user}\n\
         connection.password={password}\ninsert.mode=upsert\nprimary.key.mode=record_value\n\
         primary.key.fields=id\nschema.evolution=none\ncollection.name.format=orders\nbatch.size=5000\n\
         use.reduction.buffer=true\nconsumer.override.auto.offset.reset=earliest\n"
    );
    std::fs::write(directory.join("connector.properties"), connector)?;
    Ok(())
}

impl Connect {
    /// Starts it on an empty table.
    pub(crate) async fn start(topic: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("foldline-bench-").tempdir()?;
        properties(directory.path(), topic)?;
        let store = Store::postgres().await?;
        connect(&database_url()?).await?.batch_execute(TABLE).await?;
        let jars = required("FOLDLINE_BENCH_CONNECT")?;
        let mut command = Command::new(required("FOLDLINE_BENCH_JAVA")?);
        command.arg("-Xmx1g").arg("-cp").arg(format!("{jars}/*"));
        command.arg("org.apache.kafka.connect.cli.ConnectStandalone");
        command.args(["worker.properties", "connector.properties"]).current_dir(directory.path());
        let process = Process::start(&mut command, &directory.path().join("log"))?;
        Ok(Connect { _directory: directory, process, store })
    }

    /// Waits for its first row.
    pub(crate) async fn first_row(&mut self) -> Result<Instant> {
        any_row(&mut self.process, &mut self.store).await
    }
}

/// Writes all rows; counted from the first one, since a JVM takes its time to start.
pub(crate) async fn catch_up(workload: Workload, expected: &Expected) -> Result<Sample> {
    let mut connect = Connect::start(&workload.topic()).await?;
    let first = connect.first_row().await?;
    let end = arrived(&mut connect.process, &mut connect.store, &expected.last).await?;
    let usage = connect.process.usage()?;
    let started = connect.process.started;
    let sample = Sample {
        events: workload.events,
        seconds: (end - first).as_secs_f64(),
        first: (first - started).as_secs_f64(),
        cpu: usage.cpu,
        peak: Some(usage.peak),
        right: connect.store.is_right(expected).await?,
    };
    connect.process.stop()?;
    Ok(sample)
}
