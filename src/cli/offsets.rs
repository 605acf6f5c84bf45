//! `offsets`: a connector's positions, and how to leave events out.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use reqwest::Method;
use serde_json::{Value as Json, json};

use super::Failure;
use super::client::{Named, Worker};
use crate::explain::At;
use crate::printable;

/// What is asked of positions.
#[derive(Debug, clap::Args)]
pub(super) struct Offsets {
    #[command(flatten)]
    named: Named,
    /// Move the positions of a stopped connector forward and leave out what lies between: to the log's end
    /// (latest), a moment in RFC 3339, or topic:partition=offset, which may come several times.
    #[arg(long, value_name = "WHERE")]
    skip_to: Vec<String>,
    /// Let the next rebuild fold what was left out by --skip-to.
    #[arg(long, conflicts_with = "skip_to")]
    forget_holes: bool,
    /// Do not ask first.
    #[arg(long, requires = "skip_to")]
    yes: bool,
}

/// Positions by topic and partition.
type Positions = BTreeMap<(String, i64), i64>;

pub(super) async fn run(args: &Offsets, config: &Path) -> Result<(), Failure> {
    let worker = args.named.remote.resolve(config)?;
    if args.forget_holes {
        return forget(&worker, &args.named.name).await;
    }
    let path = format!("/connectors/{}/offsets", args.named.name);
    let stand = positions(&worker, &path, None).await?;
    if args.skip_to.is_empty() {
        println!("{:<40} {:>9} {:>14}", "TOPIC", "PARTITION", "POSITION");
        for ((topic, partition), at) in stand {
            println!("{:<40} {partition:>9} {at:>14}", printable::line(&topic));
        }
        return Ok(());
    }
    let mut to = Positions::new();
    for wanted in &args.skip_to {
        to.extend(places(&worker, &path, wanted, &stand).await?);
    }
    if to.is_empty() {
        println!("{}: every position is there already", args.named.name);
        return Ok(());
    }
    for ((topic, partition), at) in &to {
        let from = stand.get(&(topic.clone(), *partition)).map_or_else(String::new, i64::to_string);
        let topic = printable::line(topic);
        println!("{topic}:{partition} from {from} to {at}: what lies between is left out");
    }
    if !args.yes && std::io::stdin().is_terminal() && !agreed()? {
        return Err(Failure::Failed("nothing was changed".to_owned()));
    }
    worker.patch(&path, &body(&to)).await?;
    println!(
        "{0}: moved; `foldline resume {0}` goes on from there. Rebuilds leave the same events out, until `foldline \
         offsets {0} --forget-holes`",
        args.named.name
    );
    Ok(())
}

async fn forget(worker: &Worker, name: &str) -> Result<(), Failure> {
    let answer = worker.ask(Method::DELETE, &format!("/connectors/{name}/holes")).await?;
    match answer["holes"].as_array().map_or(0, Vec::len) {
        0 => println!("{name}: nothing is left out"),
        count => println!(
            "{name}: {count} stretches are still left out of its rows; `foldline rebuild {name}` folds them"
        ),
    }
    Ok(())
}

/// Where the positions stand, or where they would at a moment.
async fn positions(worker: &Worker, path: &str, at: Option<&str>) -> Result<Positions, Failure> {
    let query: Vec<(&str, String)> = at.iter().map(|at| ("at", (*at).to_owned())).collect();
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let answer = worker.open(Method::GET, &segments, &query).await?;
    let answer: Json = serde_json::from_str(&answer.text().await.map_err(Failure::failed)?)
        .map_err(Failure::failed)?;
    let one = |entry: &Json| {
        let partition = &entry["partition"];
        let place =
            (partition["kafka_topic"].as_str()?.to_owned(), partition["kafka_partition"].as_i64()?);
        Some((place, entry["offset"]["kafka_offset"].as_i64()?))
    };
    Ok(answer["offsets"].as_array().into_iter().flatten().filter_map(one).collect())
}

/// The positions that `wanted` means, of those partitions that it moves forward.
async fn places(
    worker: &Worker,
    path: &str,
    wanted: &str,
    stand: &Positions,
) -> Result<Positions, Failure> {
    if wanted != "latest"
        && let At::Place(partition, offset) = At::parse(wanted).map_err(|_| misread(wanted))?
    {
        let place = (partition.topic.to_string(), i64::from(partition.partition));
        let moves = stand.get(&place) != Some(&offset);
        return Ok(moves.then_some((place, offset)).into_iter().collect());
    }
    let mut found = positions(worker, path, Some(wanted)).await?;
    found.retain(|place, at| stand.get(place).is_some_and(|from| from < at));
    Ok(found)
}

fn misread(wanted: &str) -> Failure {
    Failure::Failed(format!(
        "--skip-to {wanted:?}: allowed are latest, a moment such as 2026-01-31T12:00:00Z, and topic:partition=offset"
    ))
}

/// Kafka Connect's form.
fn body(to: &Positions) -> Json {
    let one = |((topic, partition), at): (&(String, i64), &i64)| {
        json!({
            "partition": { "kafka_topic": topic, "kafka_partition": partition },
            "offset": { "kafka_offset": at },
        })
    };
    json!({ "offsets": to.iter().map(one).collect::<Vec<_>>() })
}

fn agreed() -> Result<bool, Failure> {
    print!("These events will be in no row. Go on? [y/N] ");
    std::io::stdout().flush().map_err(Failure::failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(Failure::failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
