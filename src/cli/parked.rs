//! `foldline parked`: keys that a running worker has set aside with their events.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value as Json;

use super::Failure;
use super::client::{Named, Worker};
use crate::printable;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The owner of a partition looks for requests every two seconds.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What to do about parked keys.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Parked {
    /// List what is set aside: each entry's events share keys and wait for one of them.
    List {
        #[command(flatten)]
        named: Named,
        /// Machine-readable output.
        #[arg(long)]
        json: bool,
    },
    /// Show an entry's events, in order, with the reason.
    Show(One),
    /// Fold an entry's events again, in order, and free its keys if all of them apply.
    Retry(One),
    /// Leave an entry's events out for good, and free its keys.
    Drop {
        #[command(flatten)]
        one: One,
        /// Leave out only those that are bad, and fold those that wait behind them.
        #[arg(long)]
        bad: bool,
    },
}

/// One entry of the list.
#[derive(Debug, clap::Args)]
pub(super) struct One {
    #[command(flatten)]
    named: Named,
    /// The entry, as `parked list` shows it: topic:partition:offset of its first event.
    id: String,
}

pub(super) async fn run(command: &Parked, config: &Path) -> Result<(), Failure> {
    match command {
        Parked::List { named, json } => list(named, config, *json).await,
        Parked::Show(one) => {
            let worker = one.named.remote.resolve(config)?;
            let answer = worker.ask(Method::GET, &one.path("")).await?;
            println!("{}", printable::json_pretty(&answer).map_err(Failure::failed)?);
            Ok(())
        }
        Parked::Retry(one) => ask(one, config, Method::POST, "/retry").await,
        Parked::Drop { one, bad } => {
            ask(one, config, Method::DELETE, if *bad { "?bad=true" } else { "" }).await
        }
    }
}

impl One {
    // A topic's name, digits and colons: nothing that a path would have to escape.
    fn path(&self, verb: &str) -> String {
        format!("/connectors/{}/parked/{}{verb}", self.named.name, self.id)
    }
}

/// Asks, and waits until the owner of the partition has done it or has said why not.
async fn ask(one: &One, config: &Path, method: Method, verb: &str) -> Result<(), Failure> {
    let worker = one.named.remote.resolve(config)?;
    let asked = worker.ask(method, &one.path(verb)).await?;
    let (id, events) = (asked["id"].as_str().unwrap_or(&one.id), &asked["events"]);
    let begun = Instant::now();
    loop {
        match entry(&worker, &one.named.name, id).await? {
            None => {
                println!("{id}: freed, {events} events");
                return Ok(());
            }
            Some(entry) if entry["request"].is_null() => {
                let reason = entry["reason"].as_str().unwrap_or_default();
                return Err(Failure::Failed(format!("{id} stays parked: {reason}")));
            }
            Some(_) if begun.elapsed() > WAIT_MAX => {
                println!("{id}: asked for; whoever holds its partition does it as soon as it runs");
                return Ok(());
            }
            Some(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

async fn parked(worker: &Worker, name: &str) -> Result<Json, Failure> {
    worker.ask(Method::GET, &format!("/connectors/{name}/parked")).await
}

async fn entry(worker: &Worker, name: &str, id: &str) -> Result<Option<Json>, Failure> {
    let answer = parked(worker, name).await?;
    let mut entries = answer["parked"].as_array().into_iter().flatten();
    Ok(entries.find(|entry| entry["id"] == id).cloned())
}

async fn list(named: &Named, config: &Path, json: bool) -> Result<(), Failure> {
    let worker = named.remote.resolve(config)?;
    let answer = parked(&worker, &named.name).await?;
    if json {
        println!("{}", printable::json_pretty(&answer).map_err(Failure::failed)?);
        return Ok(());
    }
    println!("{:<40} {:>7}  {:<9}  {:<30}  REASON", "ID", "EVENTS", "ASKED FOR", "KEYS");
    for entry in answer["parked"].as_array().into_iter().flatten() {
        let text = |name: &str| printable::line(entry[name].as_str().unwrap_or_default());
        let keys = entry["keys"].as_array().into_iter().flatten().filter_map(Json::as_str);
        let keys: Vec<_> = keys.map(printable::line).collect();
        println!(
            "{:<40} {:>7}  {:<9}  {:<30}  {}",
            text("id"),
            entry["events"].to_string(),
            text("request"),
            keys.join(" "),
            text("reason")
        );
    }
    Ok(())
}
