//! Commands to a running worker, over its REST.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value as Json;

use super::Failure;
use crate::config::{self, process_env};
use crate::printable;

/// A week: whoever asks can end it.
const FOR_EVER: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Which worker.
#[derive(Debug, clap::Args)]
pub(super) struct Remote {
    /// The worker; else the config's `worker.listen`.
    #[arg(long)]
    url: Option<String>,
    /// A file that holds the worker's token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// One connector of one worker.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// The connector.
    pub(super) name: String,
    #[command(flatten)]
    pub(super) remote: Remote,
}

/// A worker that can be asked.
pub(super) struct Worker {
    url: String,
    token: Option<String>,
    client: Client,
}

impl Remote {
    /// Finds the worker: `--url`, else the config.
    pub(super) fn resolve(&self, path: &Path) -> Result<Worker, Failure> {
        let mut token = match &self.token_file {
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?
                    .trim()
                    .to_owned(),
            ),
            None => None,
        };
        let url = match &self.url {
            Some(url) => with_scheme(url.trim_end_matches('/')),
            None => {
                let env = process_env().with_placeholders();
                let config = config::load(path, &env).map_err(Failure::Config)?;
                let own = config.worker.token.as_ref().map(|token| token.expose().to_owned());
                token = token.or(own);
                format!("http://{}", config.worker.listen)
            }
        };
        let client =
            Client::builder().timeout(Duration::from_secs(60)).build().map_err(Failure::failed)?;
        Ok(Worker { url, token, client })
    }
}

/// `host:port` is meant as HTTP.
fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

impl Worker {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<Json, Failure> {
        let answer = self.send(self.request(method, path)).await?;
        let text = answer.text().await.map_err(Failure::failed)?;
        Ok(serde_json::from_str(&text).unwrap_or(Json::Null))
    }

    /// Sends JSON.
    pub(super) async fn patch(&self, path: &str, body: &Json) -> Result<(), Failure> {
        let request = self.request(Method::PATCH, path);
        let request = request.header("content-type", "application/json").body(body.to_string());
        self.send(request).await.map(drop)
    }

    /// Sends a request that may take long, with JSON where there is a body; each part of `path` is a segment.
    pub(super) async fn ask_long(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<Json>,
    ) -> Result<Json, Failure> {
        let mut request = self.long(method, path, query)?;
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let text = self.send(request).await?.text().await.map_err(Failure::failed)?;
        Ok(serde_json::from_str(&text).unwrap_or(Json::Null))
    }

    /// Sends a request whose answer comes bit by bit and may take hours; each part of `path` is a
    /// segment.
    pub(super) async fn open(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<Response, Failure> {
        self.send(self.long(method, path, query)?).await
    }

    fn long(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<RequestBuilder, Failure> {
        let mut url = reqwest::Url::parse(&self.url).map_err(Failure::failed)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.client.request(method, url).query(query).timeout(FOR_EVER);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(request)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let answer = request.send().await.map_err(|error| {
            let why = if error.is_connect() {
                "no worker answers there".to_owned()
            } else {
                error.to_string()
            };
            Failure::Failed(format!("{}: {why}", self.url))
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.map_err(Failure::failed)?;
        let json: Json = serde_json::from_str(&text).unwrap_or(Json::Null);
        Err(Failure::Failed(json["message"].as_str().unwrap_or(&text).to_owned()))
    }
}

pub(super) async fn put(named: &Named, config: &Path, verb: &str) -> Result<(), Failure> {
    let worker = named.remote.resolve(config)?;
    worker.ask(Method::PUT, &format!("/connectors/{}/{verb}", named.name)).await?;
    println!("{}: {verb} accepted; workers follow within two seconds", named.name);
    Ok(())
}

pub(super) async fn resume_expiry(named: &Named, config: &Path) -> Result<(), Failure> {
    let worker = named.remote.resolve(config)?;
    let path = format!("/connectors/{}/resume?expiry=true", named.name);
    let moved = worker.ask(Method::PUT, &path).await?;
    let [from, to] = [&moved["from"], &moved["horizon"]].map(text);
    println!("{}: rows before {to} expire now (before: {from})", named.name);
    Ok(())
}

pub(super) async fn restart(named: &Named, config: &Path) -> Result<(), Failure> {
    let worker = named.remote.resolve(config)?;
    worker.ask(Method::POST, &format!("/connectors/{}/restart", named.name)).await?;
    println!("{}: restarting", named.name);
    Ok(())
}

pub(super) async fn status(
    worker: &Worker,
    name: Option<&str>,
    watch: bool,
    json: bool,
) -> Result<(), Failure> {
    loop {
        let all = statuses(worker, name).await?;
        let config = worker.ask(Method::GET, "/").await?["config"].take();
        if json {
            println!("{}", printable::json_pretty(&all).map_err(Failure::failed)?);
        } else {
            if watch {
                // Home and clear, as `watch` does.
                print!("\x1b[H\x1b[2J");
            }
            print!("{}{}", table(&all), of_config(&config));
        }
        if !watch {
            let failed = all.iter().any(|status| status["connector"]["state"] == "FAILED");
            return if failed { Err(Failure::Silent) } else { Ok(()) };
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn statuses(worker: &Worker, name: Option<&str>) -> Result<Vec<Json>, Failure> {
    if let Some(name) = name {
        return Ok(vec![worker.ask(Method::GET, &format!("/connectors/{name}/status")).await?]);
    }
    let all = worker.ask(Method::GET, "/connectors?expand=status").await?;
    let all = all.as_object().cloned().unwrap_or_default();
    Ok(all.into_iter().map(|(_, one)| one["status"].clone()).collect())
}

/// The table that `status` prints.
fn table(all: &[Json]) -> String {
    let head =
        ["NAME", "STATE", "TASKS", "LAG", "EVENTS/S", "GENERATION", "BLOCKED BY", "LAST ERROR"];
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).to_vec()];
    for status in all {
        rows.push(vec![
            text(&status["name"]),
            text(&status["connector"]["state"]),
            status["tasks"].as_array().map_or(0, Vec::len).to_string(),
            status["lag"].as_i64().map_or_else(|| "?".to_owned(), |lag| lag.to_string()),
            status["rate"].to_string(),
            status["generation"].to_string(),
            text(&status["blocked_by"]),
            last_error(status),
        ]);
    }
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let cell = match column {
                2..=5 => format!("{cell:>width$}  "),
                _ => format!("{cell:<width$}  "),
            };
            line.push_str(&cell);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    for status in all {
        out.push_str(&past_error(status));
        out.push_str(&bad_records(status));
        out.push_str(&left_out(status));
    }
    out
}

fn text(json: &Json) -> String {
    printable::line(json.as_str().unwrap_or_default()).into_owned()
}

/// What fails, and since when; else why nothing is folded.
fn last_error(status: &Json) -> String {
    match status["last_error_since"].as_str() {
        Some(since) => format!("{} (since {since})", text(&status["last_error"])),
        None => text(&status["connector"]["trace"]),
    }
}

/// A line for the last error that is over.
fn past_error(status: &Json) -> String {
    let past = &status["past_error"];
    if past.is_null() {
        return String::new();
    }
    let [name, message] = [&status["name"], &past["message"]].map(text);
    let [since, until] = [&past["since"], &past["until"]].map(text);
    format!("{name}: is over: {message} ({since} to {until})\n")
}

/// A line for the bad records, where there are any.
fn bad_records(status: &Json) -> String {
    let (bad, last) = (&status["bad_records"], &status["bad_records"]["last"]);
    if last.is_null() {
        return String::new();
    }
    let [name, topic, at, reason] =
        [&status["name"], &last["topic"], &last["at"], &last["reason"]].map(text);
    let all = if bad["all"] == true {
        format!(", ALL of the last {}", bad["in_a_row"])
    } else {
        String::new()
    };
    format!(
        "{name}: {} bad records since this worker started{all}, {}/s now; the last is {topic}:{}:{} at {at}: {reason}\n",
        bad["count"], bad["rate"], last["partition"], last["offset"]
    )
}

/// Lines for a config that was refused, and for connectors that are missing in the one that was taken.
fn of_config(config: &Json) -> String {
    let refused = config["error"].as_str().map(|error| {
        let loaded = text(&config["loaded"]);
        format!(
            "the config is wrong, and the one of {loaded} stays in use:\n{}\n",
            printable::lines(error)
        )
    });
    let missing = config["missing"].as_array().into_iter().flatten().map(|name| {
        format!("{}: is missing in the config's files and runs on: SIGHUP removes it\n", text(name))
    });
    refused.into_iter().chain(missing).collect()
}

/// A line for each stretch that an operator left out.
fn left_out(status: &Json) -> String {
    let one = |hole: &Json| {
        let last = hole["to"].as_i64().unwrap_or(0) - 1;
        let repeated = hole["repeated"].as_bool().unwrap_or(true);
        let fate =
            if repeated { "rebuilds leave them out too" } else { "the next rebuild folds them" };
        format!(
            "{}: offsets {} to {last} of {}:{} are left out, as an operator asked; {fate}\n",
            status["name"].as_str().unwrap_or_default(),
            hole["from"],
            hole["topic"].as_str().unwrap_or_default(),
            hole["partition"]
        )
    };
    status["holes"].as_array().into_iter().flatten().map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_alone_is_a_url() {
        assert_eq!(with_scheme("127.0.0.1:8083"), "http://127.0.0.1:8083");
        assert_eq!(with_scheme("https://worker"), "https://worker");
    }

    #[test]
    fn the_table_lines_up() {
        let all = [
            json!({"name": "orders", "connector": {"state": "RUNNING"}, "tasks": [{}], "lag": 1200,
                   "rate": 40000.5, "generation": 1, "blocked_by": "contention", "last_error": null,
                   "past_error": {"message": "refused", "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:01:00Z"},
                   "bad_records": {"count": 12, "rate": 0.5, "in_a_row": 12, "all": true, "last":
                       {"topic": "es", "partition": 1, "offset": 7, "at": "2026-01-01T00:02:00Z", "reason": "key: null"}}}),
            json!({"name": "orders-search", "connector": {"state": "FAILED"}, "tasks": [], "lag": null,
                   "rate": 0.0, "generation": 12, "last_error": "no such index",
                   "last_error_since": "2026-01-01T00:00:00Z", "bad_records": {"count": 0, "last": null},
                   "holes": [{"topic": "es", "partition": 2, "from": 5, "to": 9, "repeated": true},
                             {"topic": "es", "partition": 3, "from": 1, "to": 2, "repeated": false}]}),
        ];
        let expect = "\
NAME           STATE    TASKS   LAG  EVENTS/S  GENERATION  BLOCKED BY  LAST ERROR
orders         RUNNING      1  1200   40000.5           1  contention
orders-search  FAILED       0     ?       0.0          12              no such index (since 2026-01-01T00:00:00Z)
orders: is over: refused (2026-01-01T00:00:00Z to 2026-01-01T00:01:00Z)
orders: 12 bad records since this worker started, ALL of the last 12, 0.5/s now; the last is es:1:7 at 2026-01-01T00:02:00Z: key: null
orders-search: offsets 5 to 8 of es:2 are left out, as an operator asked; rebuilds leave them out too
orders-search: offsets 1 to 1 of es:3 are left out, as an operator asked; the next rebuild folds them
";
        assert_eq!(table(&all), expect);
    }

    #[test]
    fn a_config_that_was_refused_and_what_is_missing_in_one_are_told() {
        let fine = json!({"loaded": "2026-01-01T00:00:00Z", "error": null, "missing": []});
        assert_eq!(of_config(&fine), "");
        let config = json!({"loaded": "2026-01-01T00:00:00Z", "error": "a.toml:1: k: no\n  help: yes", "missing": ["b"]});
        let expect = "\
the config is wrong, and the one of 2026-01-01T00:00:00Z stays in use:
a.toml:1: k: no
  help: yes
b: is missing in the config's files and runs on: SIGHUP removes it
";
        assert_eq!(of_config(&config), expect);
    }
}
