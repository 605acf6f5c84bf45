//! `verify` and `explain`, of a running worker.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::path::Path;

use reqwest::Method;
use serde_json::Value as Json;

use super::Failure;
use super::client::{Named, Worker};
use crate::printable;

/// How to verify.
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    #[command(flatten)]
    named: Named,
    /// Look at one key in N, chosen by hash: the same ones each time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    sample: Option<u64>,
    /// Write the folded row over each that differs, under live traffic.
    #[arg(long)]
    repair: bool,
    /// Machine-readable output, a line for each difference.
    #[arg(long)]
    json: bool,
}

/// What to explain.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    #[command(flatten)]
    named: Named,
    /// The row's key; parts of a composite one joined by `:`.
    key: String,
    /// What the row was then: a moment in RFC 3339, or topic:partition=offset.
    #[arg(long, value_name = "TIME|PLACE")]
    at: Option<String>,
    /// Machine-readable output, a line for each event.
    #[arg(long)]
    json: bool,
}

/// Prints what `verify` finds. Ends apart where rows differ and were not repaired, where it could not run, and where there was nothing
/// to compare.
pub(super) async fn verify(args: &Verify, config: &Path) -> Result<(), Failure> {
    verified_by(args, config).await.map_err(Failure::unavailable)
}

async fn verified_by(args: &Verify, config: &Path) -> Result<(), Failure> {
    let worker = args.named.remote.resolve(config)?;
    let mut query = vec![("repair", args.repair.to_string())];
    query.extend(args.sample.map(|n| ("sample", n.to_string())));
    let path: [&str; 3] = ["connectors", &args.named.name, "verify"];
    let shows_progress = std::io::stderr().is_terminal() && !args.json;
    let mut last = Json::Null;
    stream(&worker, Method::POST, &path, &query, |line| {
        if args.json {
            if line["progress"].is_null() {
                println!("{}", printable::json(&line).unwrap_or_default());
            }
        } else if shows_progress && line["progress"].is_object() {
            eprint!("\r\x1b[2K{}", progress(&line["progress"]));
            let _ = std::io::stderr().flush();
        } else if line["progress"].is_null() {
            if shows_progress {
                eprint!("\r\x1b[2K");
            }
            print!("{}", printable::lines(&verified(&line)));
        }
        last = line;
    })
    .await?;
    let summary = &last["summary"];
    let count = |name: &str| summary[name].as_u64().unwrap_or(0);
    if count("drift") > count("repaired") {
        return Err(Failure::Silent);
    }
    match count("rows") + count("events") {
        0 => Err(Failure::Nothing("there is nothing to compare: no event and no row".to_owned())),
        _ => Ok(()),
    }
}

/// Prints the events that made a row. Ends apart where the store holds another, where it could not run, and where neither the log
/// nor the store knows the key.
pub(super) async fn explain(args: &Explain, config: &Path) -> Result<(), Failure> {
    explained_by(args, config).await.map_err(Failure::unavailable)
}

async fn explained_by(args: &Explain, config: &Path) -> Result<(), Failure> {
    let worker = args.named.remote.resolve(config)?;
    let mut query = vec![("key", args.key.clone())];
    query.extend(args.at.iter().map(|at| ("at", at.clone())));
    let path: [&str; 3] = ["connectors", &args.named.name, "explain"];
    let mut last = Json::Null;
    stream(&worker, Method::GET, &path, &query, |line| {
        if args.json {
            println!("{}", printable::json(&line).unwrap_or_default());
        } else {
            print!("{}", printable::lines(&explained(&line)));
        }
        last = line;
    })
    .await?;
    let summary = &last["summary"];
    if summary["differences"].as_array().is_some_and(|list| !list.is_empty()) {
        return Err(Failure::Silent);
    }
    if summary["events"] == 0 && summary["stored"].is_null() {
        return Err(Failure::Nothing(format!("nothing is known of the key {}", args.key)));
    }
    Ok(())
}

/// Asks, and hands on the lines of the answer as they come.
async fn stream(
    worker: &Worker,
    method: Method,
    path: &[&str],
    query: &[(&str, String)],
    mut each: impl FnMut(Json),
) -> Result<(), Failure> {
    let mut answer = worker.open(method, path, query).await?;
    let (mut rest, mut ended) = (Vec::new(), false);
    while let Some(bytes) = answer.chunk().await.map_err(Failure::failed)? {
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let text: Vec<u8> = rest.drain(..=end).collect();
            let line: Json = serde_json::from_slice(&text).map_err(Failure::failed)?;
            if let Some(message) = line["error"]["message"].as_str() {
                return Err(Failure::Failed(message.to_owned()));
            }
            ended = line["summary"].is_object();
            each(line);
        }
    }
    let broken = "the worker broke off: it stopped, or nobody read its answer for half a minute";
    if ended { Ok(()) } else { Err(Failure::Failed(broken.to_owned())) }
}

fn progress(progress: &Json) -> String {
    let number = |name: &str| progress[name].as_u64().unwrap_or(0);
    let (done, total) = (number("done"), number("total").max(1));
    format!("folding the log again: {} %, {done} of {total} offsets", done * 100 / total)
}

fn shown(value: &Json) -> String {
    if value.is_null() { "null".to_owned() } else { value.to_string() }
}

/// A text of the answer, on one line.
fn text<'a>(of: &'a Json, name: &str) -> Cow<'a, str> {
    printable::line(of[name].as_str().unwrap_or_default())
}

/// `a 1 → 2`, for each field that differs.
fn fields(list: &Json) -> String {
    let one = |field: &Json| {
        let side = |name: &str| field.get(name).map_or_else(|| "no row".to_owned(), shown);
        let name = field["field"].as_str().unwrap_or_default();
        format!("    {name}: stored {}, the log gives {}\n", side("stored"), side("folded"))
    };
    list.as_array().into_iter().flatten().map(one).collect()
}

fn verified(line: &Json) -> String {
    if let Some(drift) = line.get("drift") {
        let (key, kind) = (text(drift, "key"), text(drift, "kind"));
        let order = match drift["order_dependent"].as_bool() {
            Some(true) => " (order-dependent: another order of the same events explains it)",
            _ => "",
        };
        return format!("{kind} {key}{order}\n{}", fields(&drift["fields"]));
    }
    if line["repaired"]["key"].is_string() {
        return format!("repaired {}\n", text(&line["repaired"], "key"));
    }
    let summary = &line["summary"];
    let number = |name: &str| summary[name].as_u64().unwrap_or(0);
    let mut text = format!(
        "{}: {} rows compared with {} events of the log, {} differ",
        summary["connector"].as_str().unwrap_or_default(),
        number("rows"),
        number("events"),
        number("drift")
    );
    for (name, words) in [
        ("repaired", "repaired"),
        ("order_dependent", "differ by the order of partitions only"),
        ("unasked", "left out that the store refused and might take now (a rebuild asks it again)"),
        ("unsettled", "changed all the while and were not judged"),
        ("waiting", "have still to show what they look up"),
    ] {
        if number(name) > 0 {
            text.push_str(&format!(", {} {words}", number(name)));
        }
    }
    text.push('\n');
    text + &left_out(summary)
}

/// What an operator left out, in the store and in the fold.
fn left_out(of: &Json) -> String {
    let stretches = of["left_out"].as_array().into_iter().flatten().filter_map(Json::as_str);
    let line = |stretch| format!("left out, as an operator asked: {stretch}\n");
    stretches.map(line).collect()
}

fn explained(line: &Json) -> String {
    if let Some(reading) = line.get("reading") {
        let partitions = reading["partitions"].as_array().map_or(0, Vec::len);
        let why = reading["why"].as_str().unwrap_or_default();
        let told = format!("reading {partitions} of {} partitions: {why}\n", reading["of"]);
        return told + &left_out(reading);
    }
    if let Some(event) = line.get("event") {
        let text = |name: &str| text(event, name);
        let place = format!("{}:{}={}", text("topic"), event["partition"], event["offset"]);
        let mut out = format!("{} {place} {}", text("timestamp"), text("outcome"));
        if !text("event").is_empty() {
            out.push_str(&format!(" {}", text("event")));
        }
        if !text("reason").is_empty() {
            out.push_str(&format!(" ({})", text("reason")));
        }
        let changed = event["changed"].as_array().into_iter().flatten().filter_map(Json::as_str);
        let row = &event["row"];
        if text("outcome") == "applied" && row.is_null() {
            out.push_str("\n    the row is deleted");
        } else {
            changed.for_each(|name| out.push_str(&format!("\n    {name} = {}", shown(&row[name]))));
        }
        out.push('\n');
        return out;
    }
    let summary = &line["summary"];
    let mut out = format!("{} events; the row is {}\n", summary["events"], shown(&summary["row"]));
    if summary["unnamed"].is_string() {
        let why = text(summary, "unnamed");
        out.push_str(&format!("the store can hold no row of this key: {why}\n"));
    }
    if summary["expired"].is_string() {
        out.push_str(&format!("the row has {}\n", text(summary, "expired")));
    } else if summary["unsettled"] == true {
        out.push_str("the stored row changed all the while and was not compared\n");
    } else if summary["differences"].as_array().is_some_and(|list| !list.is_empty()) {
        out.push_str("the stored row differs:\n");
        out.push_str(&fields(&summary["differences"]));
    } else if summary.get("stored").is_some() && !summary["unnamed"].is_string() {
        out.push_str("the stored row is the same\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_names_both_sides() {
        let line = json!({"drift": {"key": "7", "kind": "changed", "order_dependent": false,
            "fields": [{"field": "amount", "stored": 3, "folded": null}]}});
        assert_eq!(verified(&line), "changed 7\n    amount: stored 3, the log gives null\n");
        let line = json!({"drift": {"key": "7", "kind": "missing", "order_dependent": true,
            "fields": [{"field": "id", "folded": 7}]}});
        let text = verified(&line);
        assert!(text.contains("order-dependent") && text.contains("stored no row"), "{text}");
    }

    #[test]
    fn the_summary_counts_what_there_is() {
        let line = json!({"summary": {"connector": "orders", "rows": 10, "events": 50, "drift": 1,
            "repaired": 1, "order_dependent": 0, "unsettled": 0}});
        let expect = "orders: 10 rows compared with 50 events of the log, 1 differ, 1 repaired\n";
        assert_eq!(verified(&line), expect);
        let line = json!({"summary": {"connector": "orders", "left_out": ["offsets 5 to 8 of `t-0`; the next rebuild folds them"]}});
        let text = verified(&line);
        assert!(text.ends_with(
            "left out, as an operator asked: offsets 5 to 8 of `t-0`; the next rebuild folds them\n"
        ));
        let line = json!({"summary": {"connector": "orders", "rows": 1, "events": 2, "drift": 0, "unasked": 1}});
        assert!(verified(&line).ends_with("0 differ, 1 left out that the store refused and might take now (a rebuild asks it again)\n"));
    }

    #[test]
    fn an_event_shows_what_it_changed() {
        let line = json!({"event": {"topic": "t", "partition": 0, "offset": 4, "timestamp": "T",
            "event": "OrderPlaced", "outcome": "applied", "row": {"id": 1, "n": 2}, "changed": ["n"]}});
        assert_eq!(explained(&line), "T t:0=4 applied OrderPlaced\n    n = 2\n");
        let line = json!({"summary": {"events": 1, "row": null, "stored": null, "differences": [],
            "unnamed": "no such letter (22P05)", "unsettled": false}});
        assert_eq!(
            explained(&line),
            "1 events; the row is null\nthe store can hold no row of this key: no such letter (22P05)\n"
        );
    }
}
