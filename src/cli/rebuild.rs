//! `foldline rebuild`, and its progress.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value as Json;

use super::Failure;
use super::client::{Named, Worker};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lines of a progress that nobody watches on a terminal: one every so many looks.
const PLAIN_EVERY: u32 = 10;
const BAR: usize = 30;
/// So many looks in a row without a rebuild and without its generation mean that it will not come: after
/// the swap it takes a moment until the new generation's tasks run.
const GONE_AFTER: u32 = 120;

/// What to do.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Empty the target first, instead of building beside it.
    #[arg(long, group = "what")]
    in_place: bool,
    /// End the rebuild under way and drop what it made.
    #[arg(long, group = "what")]
    cancel: bool,
    /// Make the generation that was live before live again; it catches up from its own positions.
    #[arg(long, group = "what")]
    rollback: bool,
    /// `earliest`: from what the log still has, where it has lost its beginning.
    #[arg(long, value_name = "WHERE", conflicts_with_all = ["cancel", "rollback"])]
    from: Option<String>,
    /// Show the progress until the new generation is live.
    #[arg(long, conflicts_with = "what")]
    wait: bool,
}

pub(super) async fn run(named: &Named, config: &Path, how: &Args) -> Result<(), Failure> {
    let (worker, name) = (named.remote.resolve(config)?, &named.name);
    let path = format!("/connectors/{name}/rebuild");
    if how.cancel {
        let path = expecting(&worker, name, path, &["rebuild", "generation"]).await?;
        let answer = worker.ask(Method::DELETE, &path).await?;
        match &answer["cancelled"] {
            Json::Null => println!("{name}: no rebuild is under way"),
            generation => println!("{name}: the rebuild of generation {generation} is cancelled"),
        }
        return Ok(());
    }
    if how.rollback {
        let path = format!("/connectors/{name}/rollback");
        let path = expecting(&worker, name, path, &["generation"]).await?;
        let answer = worker.ask(Method::POST, &path).await?;
        println!("{name}: generation {} is live again and catches up", answer["generation"]);
        return Ok(());
    }
    let from = how.from.as_ref().map(|from| format!("&from={from}")).unwrap_or_default();
    let mut ask = format!("{path}?in_place={}{from}", how.in_place);
    if how.in_place {
        ask = expecting(&worker, name, ask, &["generation"]).await?;
    }
    let generation = worker.ask(Method::POST, &ask).await?["generation"].clone();
    if how.in_place {
        println!("{name}: emptied, generation {generation} is being folded");
        return Ok(());
    }
    println!("{name}: generation {generation} is being built beside the live one");
    if how.wait { wait(&worker, name, &generation).await } else { Ok(()) }
}

/// A path with the generation that the status names now: if another one stands there when the worker is asked,
/// somebody else was faster.
async fn expecting(
    worker: &Worker,
    name: &str,
    path: String,
    keys: &[&str],
) -> Result<String, Failure> {
    let status = worker.ask(Method::GET, &format!("/connectors/{name}/status")).await?;
    let seen = keys.iter().fold(&status, |at, key| &at[*key]).as_u64().filter(|seen| *seen > 0);
    let and = if path.contains('?') { '&' } else { '?' };
    Ok(seen.map_or(path.clone(), |seen| format!("{path}{and}generation={seen}")))
}

async fn wait(worker: &Worker, name: &str, generation: &Json) -> Result<(), Failure> {
    let bar = std::io::stdout().is_terminal();
    let (mut looks, mut gone) = (0, 0);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let status = worker.ask(Method::GET, &format!("/connectors/{name}/status")).await?;
        let now = &status["rebuild"];
        let done = status["generation"] == *generation;
        if bar {
            print!("\r\x1b[K{}", if done { String::new() } else { line(now) });
            std::io::stdout().flush().map_err(Failure::failed)?;
        } else if looks % PLAIN_EVERY == 0 && !done {
            println!("{}", line(now));
        }
        looks += 1;
        if done {
            println!("{name}: generation {generation} is live");
            return Ok(());
        }
        gone = if now.is_null() { gone + 1 } else { 0 };
        if gone > GONE_AFTER {
            return Err(Failure::Failed(format!("{name}: {}", outcome(generation, &status))));
        }
    }
}

/// What became of a generation that is neither built nor live, as the status tells it.
fn outcome(generation: &Json, status: &Json) -> String {
    let (number, live) = (generation.as_u64(), status["generation"].as_u64());
    let kept = status["kept_generations"].as_array().is_some_and(|kept| kept.contains(generation));
    let what = match live {
        _ if kept => "was live, and another one is now",
        Some(live) if Some(live) > number => "is not built any more: another one took its place",
        _ => "is not built any more: it was cancelled, or rolled back as soon as it was live",
    };
    format!("generation {generation} {what}; generation {} is live", status["generation"])
}

/// One line of progress.
fn line(now: &Json) -> String {
    if now.is_null() {
        return "starting".to_owned();
    }
    let ratio = now["progress"].as_f64().unwrap_or_default().clamp(0.0, 1.0);
    let full = (ratio * BAR as f64) as usize;
    let eta = match now["eta_seconds"].as_f64() {
        Some(seconds) => format!("{}:{:02} left", seconds as u64 / 60, seconds as u64 % 60),
        None => "time left unknown".to_owned(),
    };
    let mut line = format!(
        "{} [{}{}] {:>3.0} %, {} records/s, {eta}",
        now["phase"].as_str().unwrap_or_default(),
        "#".repeat(full),
        ".".repeat(BAR - full),
        (ratio * 100.0).floor(),
        now["rate"].as_f64().unwrap_or_default(),
    );
    for (key, what) in [("waiting", "waits"), ("trouble", "trouble")] {
        if let Some(reason) = now[key].as_str() {
            line.push_str(&format!("; {what}: {reason}"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rebuild_that_does_not_come_is_called_what_it_was() {
        let said = |status| outcome(&json!(3), &status);
        let kept = said(json!({"generation": 2, "kept_generations": [3]}));
        assert!(kept.contains("was live") && !kept.contains("cancelled"), "{kept}");
        let replaced = said(json!({"generation": 4, "kept_generations": []}));
        assert!(
            replaced.contains("took its place") && !replaced.contains("cancelled"),
            "{replaced}"
        );
        let gone = said(json!({"generation": 2, "kept_generations": []}));
        assert!(gone.contains("cancelled, or rolled back"), "{gone}");
    }

    #[test]
    fn a_line_shows_share_rate_and_time_left() {
        let now = json!({"phase": "loading", "progress": 0.5049, "rate": 1200.0, "eta_seconds": 61.0,
                         "waiting": null, "trouble": "no route"});
        assert_eq!(
            line(&now),
            "loading [###############...............]  50 %, 1200 records/s, 1:01 left; trouble: no route"
        );
        assert_eq!(line(&Json::Null), "starting");
    }
}
