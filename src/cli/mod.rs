//! The command line. Exit codes: 0 done, 1 failed, 2 usage, 78 config.

mod clean;
mod client;
mod letters;
mod offline;
mod offsets;
mod online;
mod parked;
mod produce;
mod rebuild;
mod replays;
mod suggest;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use foldline_api::failpoint;
use foldline_language::config::diagnostic::Diagnostic;
use foldline_language::config::env::Env;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, process_env};
use crate::printable;
use crate::worker::Worker;

/// `EX_CONFIG` of sysexits.
const CONFIG: u8 = 78;
/// `EX_UNAVAILABLE` of sysexits: a comparison could not be made.
const UNAVAILABLE: u8 = 69;
/// `EX_NOINPUT` of sysexits: a comparison had nothing to compare.
const NOTHING: u8 = 66;

/// Folds Kafka event streams into PostgreSQL, Elasticsearch and SQLite, from TOML alone.
#[derive(Debug, Parser)]
#[command(name = "foldline", version, arg_required_else_help = true)]
struct Cli {
    /// Config: a TOML file, or a directory whose *.toml files are one config.
    #[arg(short, long, global = true, env = "FOLDLINE_CONFIG", value_name = "PATH")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

/// Which config a command reads.
#[derive(Debug, clap::Args)]
struct ConfigPath {
    /// The config, instead of -c; `config/` where neither is given.
    path: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the worker.
    Run {
        #[command(flatten)]
        config: ConfigPath,
    },
    /// Check the config, all problems at once.
    Validate {
        #[command(flatten)]
        config: ConfigPath,
        /// Also ask sources, registries and stores: connections, topics, privileges. Nothing is changed there.
        #[arg(long)]
        online: bool,
        /// Machine-readable output.
        #[arg(long)]
        json: bool,
    },
    /// Run the tests that the config holds.
    Test {
        #[command(flatten)]
        config: ConfigPath,
        #[command(flatten)]
        options: test::Options,
    },
    /// Show the DDL, mapping and statements that a connector will use.
    Plan {
        /// The connector.
        name: String,
    },
    /// Print the JSON Schema of the config, for editors.
    Schema,
    /// Append NDJSON from standard input to a topic: {"key", "value", "headers", "event", "partition",
    /// "timestamp"} a line. Nothing is sent where a line is no such record, or does not fit the topic's schema.
    Produce {
        /// The topic.
        topic: String,
        /// The source, where there are several.
        #[arg(long)]
        source: Option<String>,
    },
    /// Sample a topic and print a projection of it, with tests: a beginning, with comments where it guessed.
    Suggest(suggest::Args),
    /// Fold a growing log of orders into SQLite, with nothing installed.
    Demo(crate::demo::Args),
    /// Show a running worker's connectors.
    Status {
        /// Only this connector.
        name: Option<String>,
        /// Again every second, until Ctrl-C.
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        remote: client::Remote,
        /// Machine-readable output.
        #[arg(long)]
        json: bool,
    },
    /// Pause a connector: it keeps its partitions and consumes nothing.
    Pause(client::Named),
    /// Let a paused or stopped connector go on, or rows expire again (--expiry).
    Resume {
        #[command(flatten)]
        named: client::Named,
        /// Let `expire` go on after a step of the clock of more than a day; the connector stays as it is.
        #[arg(long)]
        expiry: bool,
    },
    /// Stop a connector: it leaves its group.
    Stop(client::Named),
    /// Restart a connector, a failed one too.
    Restart(client::Named),
    /// Fold everything again, beside the live target, and swap when it has caught up.
    Rebuild {
        #[command(flatten)]
        named: client::Named,
        #[command(flatten)]
        how: rebuild::Args,
    },
    /// Take over what a restore from a backup left in the store, rows and Foldline's own tables together, while no
    /// worker runs the connector.
    Adopt {
        /// The connector.
        name: String,
    },
    /// Remove what a connector left that the config has no more: its tables or indexes, what Foldline keeps of them, its group.
    /// Shows it and asks first.
    Clean(clean::Args),
    /// Show a connector's positions, or leave events out (--skip-to).
    Offsets(offsets::Offsets),
    /// Fold the log again and compare with what the store holds, while the connector runs on.
    Verify(replays::Verify),
    /// Show the events that made a row, the state after each, and whether the store holds the last.
    Explain(replays::Explain),
    /// Keys set aside with their events: see them, try them again, leave them out.
    #[command(subcommand)]
    Parked(parked::Parked),
    /// Dead letters: see them by reason, and give them back to their topic.
    #[command(subcommand)]
    Letters(letters::Letters),
    /// Print a shell's completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How a command ends that does not end well.
#[derive(Debug)]
enum Failure {
    /// The config is wrong.
    Config(Vec<Diagnostic>),
    /// Something else, in a sentence.
    Failed(String),
    /// A comparison could not be made; why, in a sentence.
    Unavailable(String),
    /// A comparison had nothing to compare, in a sentence.
    Nothing(String),
    /// It has been said already.
    Silent,
}

impl Failure {
    fn failed(error: impl std::fmt::Display) -> Self {
        Failure::Failed(error.to_string())
    }

    /// The failure of a comparison: told apart from one whose sides differ.
    fn unavailable(self) -> Self {
        match self {
            Failure::Failed(message) => Failure::Unavailable(message),
            other => other,
        }
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Logs of events, databases and offsets are their owner's alone, whatever the shell's mask allows.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(diagnostics)) => {
            for diagnostic in &diagnostics {
                eprintln!("{}\n", printable::lines(&diagnostic.to_string()));
            }
            let count = diagnostics.len();
            eprintln!("{count} problem{} in the config", if count == 1 { "" } else { "s" });
            ExitCode::from(CONFIG)
        }
        Err(Failure::Failed(message)) => said(&message, ExitCode::FAILURE),
        Err(Failure::Unavailable(message)) => said(&message, ExitCode::from(UNAVAILABLE)),
        Err(Failure::Nothing(message)) => said(&message, ExitCode::from(NOTHING)),
        Err(Failure::Silent) => ExitCode::FAILURE,
    }
}

fn said(message: &str, code: ExitCode) -> ExitCode {
    eprintln!("error: {}", printable::lines(message));
    code
}

fn run(cli: Cli) -> Result<(), Failure> {
    let path = |own: Option<PathBuf>| {
        own.or_else(|| cli.config.clone()).unwrap_or_else(|| PathBuf::from("config"))
    };
    match cli.command {
        Command::Run { config } => run_worker(load(path(config.path), &process_env())?),
        Command::Validate { config, online, json } => {
            offline::validate(path(config.path), (online, json))
        }
        Command::Test { config, options } => test::test(&path(config.path), &options),
        Command::Plan { name } => offline::plan(path(None), &name),
        Command::Schema => offline::schema(),
        Command::Produce { topic, source } => {
            produce::produce(&load(path(None), &process_env())?, &topic, source.as_deref())
        }
        Command::Suggest(args) => suggest::run(&load(path(None), &process_env())?, &args),
        Command::Demo(args) => runtime()?.block_on(crate::demo::run(args)).map_err(Failure::failed),
        Command::Status { name, watch, remote, json } => {
            let remote = remote.resolve(&path(None))?;
            runtime()?.block_on(client::status(&remote, name.as_deref(), watch, json))
        }
        Command::Pause(named) => runtime()?.block_on(client::put(&named, &path(None), "pause")),
        Command::Resume { named, expiry: true } => {
            runtime()?.block_on(client::resume_expiry(&named, &path(None)))
        }
        Command::Resume { named, expiry: false } => {
            runtime()?.block_on(client::put(&named, &path(None), "resume"))
        }
        Command::Stop(named) => runtime()?.block_on(client::put(&named, &path(None), "stop")),
        Command::Restart(named) => runtime()?.block_on(client::restart(&named, &path(None))),
        Command::Rebuild { named, how } => {
            runtime()?.block_on(rebuild::run(&named, &path(None), &how))
        }
        Command::Adopt { name } => offline::adopt(path(None), &name),
        Command::Clean(args) => clean::run(&args, path(None)),
        Command::Offsets(args) => runtime()?.block_on(offsets::run(&args, &path(None))),
        Command::Verify(args) => runtime()?.block_on(replays::verify(&args, &path(None))),
        Command::Explain(args) => runtime()?.block_on(replays::explain(&args, &path(None))),
        Command::Letters(command) => runtime()?.block_on(letters::run(&command, &path(None))),
        Command::Parked(command) => runtime()?.block_on(parked::run(&command, &path(None))),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "foldline", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn load(path: PathBuf, env: &Env) -> Result<Config, Failure> {
    config::load(&path, env).map_err(Failure::Config)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // A step of a task may fold a batch. Where more tasks than cores catch up nobody is idle, and sockets would be
    // looked at once in 61 such steps: probes would wait for seconds.
    const SOCKETS_EVERY: u32 = 5;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().event_interval(SOCKETS_EVERY).build().map_err(Failure::failed)
}

/// Runs until SIGTERM or Ctrl-C; a second one ends at once.
fn run_worker(config: Config) -> Result<(), Failure> {
    crate::log::start("info");
    if let Ok(armed) = std::env::var(failpoint::VARIABLE) {
        let point = failpoint::arm(&armed).map_err(Failure::Failed)?;
        tracing::warn!(%point, "armed to die, as a test asks");
    }
    let listen = config.worker.listen;
    let place = config.places.problem("worker.listen", "").to_string();
    let place = place.trim_end_matches(": ").to_owned();
    let worker = Worker::new(config).map_err(Failure::Config)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let cancel = CancellationToken::new();
        tokio::spawn(crate::signals::cancel_on_signal(cancel.clone()));
        worker.run_reloading(cancel).await.map_err(|error| {
            Failure::Failed(format!(
                "the listener {listen} cannot be opened: {error}: give another `worker.listen` [{place}]"
            ))
        })
    });
    // A call into a client library that hangs must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ended
}
