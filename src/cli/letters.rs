//! `foldline letters`: the records that a connector has set aside in its topic of dead letters.

use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;

use super::Failure;
use super::client::Named;
use crate::printable;

/// What to do about dead letters.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Letters {
    /// Count the letters of each reason; with --reason, list those that were not given back.
    List {
        #[command(flatten)]
        named: Named,
        /// This reason, as the list without it shows it.
        #[arg(long)]
        reason: Option<String>,
        /// List so many at most.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Machine-readable output.
        #[arg(long)]
        json: bool,
    },
    /// Show a letter: where its record is, and why it is bad.
    Show {
        #[command(flatten)]
        named: Named,
        /// The letter, as `letters list` shows it.
        id: String,
        /// Show the record's key, value and headers, too.
        #[arg(long)]
        payload: bool,
    },
    /// Append a letter's record to its topic, where it is folded as a new event.
    Replay {
        #[command(flatten)]
        named: Named,
        /// The letter, as `letters list` shows it.
        #[arg(required_unless_present = "reason")]
        id: Option<String>,
        /// All letters of this reason that were not given back.
        #[arg(long, conflicts_with_all = ["id", "value", "again"])]
        reason: Option<String>,
        /// With the content of this file as its value (- is standard input).
        #[arg(long, value_name = "FILE")]
        value: Option<PathBuf>,
        /// Although it was given back before.
        #[arg(long)]
        again: bool,
    },
}

pub(super) async fn run(command: &Letters, config: &Path) -> Result<(), Failure> {
    match command {
        Letters::List { named, reason: None, json, .. } => reasons(named, config, *json).await,
        Letters::List { named, reason: Some(reason), limit, json } => {
            list(named, config, (reason, *limit), *json).await
        }
        Letters::Show { named, id, payload } => {
            let worker = named.remote.resolve(config)?;
            let query = [("payload", payload.to_string())];
            let path = ["connectors", &named.name, "letters", id];
            let answer = worker.ask_long(Method::GET, &path, &query, None).await?;
            println!("{}", printable::json_pretty(&answer).map_err(Failure::failed)?);
            Ok(())
        }
        Letters::Replay { named, id, reason, value, again } => {
            let worker = named.remote.resolve(config)?;
            let body = value.as_deref().map(read).transpose()?;
            let body = body.map(|bytes| json!({ "value_base64": STANDARD.encode(bytes) }));
            let (mut path, mut query) = (vec!["connectors", &*named.name, "letters"], Vec::new());
            path.extend(id.as_deref());
            path.push("replay");
            match reason {
                Some(reason) => query.push(("reason", reason.clone())),
                None => query.push(("again", again.to_string())),
            }
            let done = worker.ask_long(Method::POST, &path, &query, body).await?;
            println!("{} given back", done["replayed"]);
            if done["left"] != 0 {
                println!("{} left: they do not hold all of their record", done["left"]);
            }
            Ok(())
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().lock().read_to_end(&mut bytes).map(drop),
        _ => std::fs::read(file).map(|read| bytes = read),
    };
    read.map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
    Ok(bytes)
}

async fn reasons(named: &Named, config: &Path, json: bool) -> Result<(), Failure> {
    let worker = named.remote.resolve(config)?;
    let path = ["connectors", &named.name, "letters"];
    let answer = worker.ask_long(Method::GET, &path, &[], None).await?;
    if json {
        println!("{}", printable::json_pretty(&answer).map_err(Failure::failed)?);
        return Ok(());
    }
    println!("{:>9}  {:>9}  {:<12}  {:<12}  REASON", "LETTERS", "OPEN", "FIRST", "LAST");
    for reason in answer["reasons"].as_array().into_iter().flatten() {
        let text = |name: &str| printable::line(reason[name].as_str().unwrap_or_default());
        println!(
            "{:>9}  {:>9}  {:<12}  {:<12}  {}",
            reason["count"].to_string(),
            reason["open"].to_string(),
            text("first"),
            text("last"),
            text("reason")
        );
    }
    Ok(())
}

async fn list(
    named: &Named,
    config: &Path,
    (reason, limit): (&str, usize),
    json: bool,
) -> Result<(), Failure> {
    let worker = named.remote.resolve(config)?;
    let path = ["connectors", &named.name, "letters"];
    let query = [("reason", reason.to_owned()), ("limit", limit.to_string())];
    let answer = worker.ask_long(Method::GET, &path, &query, None).await?;
    if json {
        println!("{}", printable::json_pretty(&answer).map_err(Failure::failed)?);
        return Ok(());
    }
    println!("{:<12}  {:<40}  {:<17}  WRITTEN", "ID", "RECORD", "STAGE");
    for letter in answer["letters"].as_array().into_iter().flatten() {
        let text = |name: &str| printable::line(letter[name].as_str().unwrap_or_default());
        let record = format!("{}:{}:{}", text("topic"), letter["partition"], letter["offset"]);
        println!("{:<12}  {record:<40}  {:<17}  {}", text("id"), text("stage"), text("written"));
    }
    Ok(())
}
