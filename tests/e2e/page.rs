//! The page in a real browser, beside a worker that folds files into SQLite.

use std::path::PathBuf;

use foldline_source_file::{FileProducer, NewRecord};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::daemon::Daemon;
use crate::support::setup::{Setup, connector, file_source, orders_projection, sqlite_sink};
use crate::support::wait;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";
const BROWSER_ACCEPTS: &str =
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";

/// A worker's files: its config, its log and its database.
struct Case {
    setup: Setup,
    producer: FileProducer,
}

impl Case {
    fn new() -> Self {
        let setup = Setup::new();
        let producer = FileProducer::new(&setup.path("log"));
        producer.create_topic("orders", 1).unwrap();
        Case { setup, producer }
    }

    fn produce(&self, events: &[&str]) {
        for event in events {
            let value = Some(event.as_bytes().to_vec().into());
            let record = NewRecord {
                partition: Some(0),
                value,
                timestamp: Some(1_769_860_000_000),
                ..NewRecord::default()
            };
            self.producer.append("orders", record).unwrap();
        }
    }

    fn database(&self) -> PathBuf {
        self.setup.path("rows.db")
    }

    /// One connector, with these lines more; `worker` are lines of the worker's table.
    fn config(&self, worker: &str, more: &str) {
        self.setup.config(&[
            worker.to_owned(),
            file_source(&self.setup.path("log")),
            orders_projection("orders", "note = \"text\"", ", note = \"event.note\""),
            sqlite_sink(&self.database()),
            connector("orders", "orders", "file", "orders", more),
        ]);
    }

    async fn browse(&self, daemon: &Daemon, path: &str) -> Browser {
        let browser = Browser::start().await;
        browser.size(1280, 800).await;
        browser.open(&daemon.url(path)).await;
        browser
    }

    async fn end(self, daemon: Daemon, browser: Browser) {
        // A refusal is no fault of the page; what its policy forbids is.
        let mut complaints = browser.complaints().await;
        complaints
            .retain(|complaint| !complaint.contains("the server responded with a status of 4"));
        assert_eq!(complaints, [] as [String; 0]);
        browser.close().await;
        daemon.stop().await;
    }
}

/// Looks with axe in both themes, on a desktop and on a phone, and sees that nothing is wider than the phone.
async fn assert_good_to_see(browser: &Browser, what: &str) {
    for dark in [false, true] {
        browser.prefer_dark(dark).await;
        let theme = if dark { "dark" } else { "light" };
        // The page hears of it a moment later.
        let script = "return document.documentElement.dataset.theme";
        browser.until(script, |found| found == theme).await;
        for (width, height) in [(1280, 800), (390, 844)] {
            browser.size(width, height).await;
            browser.assert_accessible(&format!("{what}, {width} wide, dark: {dark}")).await;
            let root = "document.documentElement";
            let wider = format!("return {root}.scrollWidth > {root}.clientWidth");
            assert_eq!(browser.run(&wider).await, json!(false), "{what}, {width} wide");
        }
    }
    browser.size(1280, 800).await;
    browser.prefer_dark(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_the_worker_does_and_axe_finds_nothing() {
    let case = Case::new();
    case.produce(&[r#"{"id":1,"amount":2}"#, r#"{"id":2,"amount":3}"#]);
    case.config("", "");
    let daemon = case.setup.start().await;
    let browser = case.browse(&daemon, "/").await;
    browser.sees("The connector is up to date").await;
    browser.sees("RUNNING").await;
    assert_good_to_see(&browser, "all connectors").await;
    browser.click("//a[normalize-space()='orders']").await;
    browser.sees("Partitions of this worker").await;
    // The focus goes to the heading of what is shown.
    browser.until("return document.activeElement.textContent", |found| found == "orders").await;
    browser.sees("orders:0").await;
    assert_good_to_see(&browser, "a connector").await;
    browser.press("Dark").await;
    let theme = browser.run("return document.documentElement.dataset.theme").await;
    assert_eq!(theme, "dark", "the button wins over the system");
    // The keyboard skips the frame, and stays where it is.
    browser.run("document.querySelector('.skip').click()").await;
    assert_eq!(browser.run("return document.activeElement.id").await, "main");
    browser.sees("Partitions of this worker").await;
    assert_eq!(browser.complaints().await, [] as [String; 0]);
    daemon.stop().await;
    browser.sees("The worker does not answer. What is shown is as of").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_the_page_and_everyone_else_gets_json() {
    let case = Case::new();
    case.config("token = \"sesame\"\n", "");
    let daemon = case.setup.start().await;
    let http = crate::support::http(wait::SOON);
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let request = headers.iter().fold(http.get(daemon.url(path)), |request, (name, value)| {
            request.header(*name, *value)
        });
        let answer = request.send().await.unwrap();
        let header = |name: &str| {
            answer
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default()
        };
        let told =
            (answer.status().as_u16(), header("content-type"), header("content-security-policy"));
        (told, answer.text().await.unwrap())
    };
    let html = "text/html; charset=utf-8".to_owned();
    let ((status, kind, policy), text) = get("/", &[("accept", BROWSER_ACCEPTS)]).await;
    assert_eq!((status, kind, policy.as_str()), (200, html.clone(), POLICY));
    // All that it names is served without the token, and under the same policy.
    let names = text.split("\"/page/").skip(1).map(|rest| rest.split('"').next().unwrap());
    let names: Vec<&str> = names.collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let ((status, _, policy), _) = get(&format!("/page/{name}"), &[]).await;
        assert_eq!((status, policy.as_str()), (200, POLICY), "{name}");
    }
    // The page holds no data: what it asks wants the token.
    for path in ["/connectors", "/metrics", "/connectors/orders/status"] {
        assert_eq!(get(path, &[("accept", BROWSER_ACCEPTS)]).await.0.0, 401, "{path}");
    }
    for (method, path) in
        [("PUT", "/pause"), ("POST", "/rebuild"), ("DELETE", "/parked/orders:0:1")]
    {
        let (status, body) =
            daemon.request(method, &format!("/connectors/orders{path}")).await.unwrap();
        assert_eq!(status, 401, "{method} {path}: {body}");
    }
    let bearer = ("authorization", "Bearer sesame");
    for accept in ["*/*", "application/json", "application/json, text/html;q=0.9"] {
        assert_eq!(get("/", &[("accept", accept)]).await.0.0, 401, "{accept}");
        let ((status, kind, _), text) = get("/", &[("accept", accept), bearer]).await;
        assert_eq!((status, kind.as_str()), (200, "application/json"), "{accept}");
        assert!(serde_json::from_str::<Value>(&text).unwrap()["version"].is_string());
    }
    // A link from elsewhere leads to the page, and to nothing else.
    let elsewhere = ("sec-fetch-site", "cross-site");
    assert_eq!(get("/", &[("accept", BROWSER_ACCEPTS), elsewhere]).await.0.1, html);
    for path in ["/connectors", "/page/main.js"] {
        assert_eq!(
            get(path, &[("accept", BROWSER_ACCEPTS), elsewhere, bearer]).await.0.0,
            403,
            "{path}"
        );
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_is_no_way_to_the_page() {
    let case = Case::new();
    case.config("", "");
    let daemon = case.setup.start().await;
    for path in ["/", "/page/main.js"] {
        let request =
            crate::support::http(wait::SOON).get(daemon.url(path)).header("host", "evil.example");
        let answer = request.header("accept", BROWSER_ACCEPTS).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{path}");
    }
    daemon.stop().await;
}

/// Makes SQLite refuse negative amounts, or lets it take them again.
fn refuse_negative(case: &Case, refuse: bool) {
    let shell = rusqlite::Connection::open(case.database()).unwrap();
    shell.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    for what in ["insert", "update"] {
        let sql = if refuse {
            format!(
                "create trigger no_{what} before {what} on orders when new.amount < 0 \
                 begin select raise(abort, 'no negative amounts'); end"
            )
        } else {
            format!("drop trigger no_{what}")
        };
        shell.execute_batch(&sql).unwrap();
    }
}

/// A worker whose store refuses the second event, and a browser that looks at its connector.
async fn refused(on_bad_record: &str) -> (Case, Daemon, Browser) {
    let case = Case::new();
    case.produce(&[r#"{"id":7,"amount":1}"#]);
    case.config("", &format!("errors = {{ on_bad_record = {on_bad_record:?} }}"));
    let daemon = case.setup.start().await;
    daemon.idle("orders", 1).await;
    refuse_negative(&case, true);
    let browser = case.browse(&daemon, "/#/connectors/orders").await;
    browser.sees("Up to date").await;
    case.produce(&[r#"{"id":7,"amount":-1}"#]);
    (case, daemon, browser)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_appears_and_goes() {
    let (case, daemon, browser) = refused("stop").await;
    browser.sees("It has failed, and waiting does not cure it").await;
    browser.sees("no negative amounts").await;
    assert_good_to_see(&browser, "a failed connector").await;
    browser.click("//a[normalize-space()='All connectors']").await;
    browser.sees("1 of 1 connector needs you").await;
    browser.sees("no negative amounts").await;
    assert_good_to_see(&browser, "all connectors, one failed").await;
    browser.click("//a[normalize-space()='orders']").await;
    refuse_negative(&case, false);
    browser.press("Restart").await;
    browser.sees("Up to date").await;
    browser.sees_no("It has failed").await;
    case.end(daemon, browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_key_is_retried_and_another_left_out() {
    let (case, daemon, browser) = refused("park").await;
    browser.sees("1 key set aside").await;
    browser.sees("no negative amounts").await;
    browser.press("Retry").await;
    browser.sees("It was tried, and stays parked").await;
    browser.click("//summary[normalize-space()='Its events']").await;
    browser.sees("\"amount\": -1").await;
    assert_good_to_see(&browser, "a parked key").await;
    refuse_negative(&case, false);
    browser.press("Retry").await;
    browser.sees_no("Parked keys").await;
    browser.sees("Up to date").await;
    refuse_negative(&case, true);
    case.produce(&[r#"{"id":8,"amount":-2}"#]);
    browser.press("Drop…").await;
    browser.sees("Leave these events out for good?").await;
    browser.press("Leave out").await;
    browser.sees_no("Parked keys").await;
    for (key, status) in [("7", 200), ("8", 404)] {
        let (found, row) = daemon.get(&format!("/connectors/orders/rows/{key}")).await;
        assert_eq!(found, status, "{row}");
    }
    case.end(daemon, browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_is_paused_resumed_rebuilt_and_led_back() {
    let case = Case::new();
    case.produce(&[r#"{"id":1,"amount":2}"#]);
    case.config("", "keep_generations = 1");
    let daemon = case.setup.start().await;
    let browser = case.browse(&daemon, "/#/connectors/orders").await;
    browser.sees("Up to date").await;
    browser.press("Pause").await;
    browser.sees("It is paused. No event waits.").await;
    case.produce(&[r#"{"id":1,"amount":3}"#]);
    browser.sees("It is paused. 1 event waits.").await;
    assert_good_to_see(&browser, "a paused connector").await;
    browser.press("Resume").await;
    browser.sees("Up to date").await;
    browser.press("Rebuild…").await;
    browser.sees("All events are folded again.").await;
    assert_good_to_see(&browser, "a question").await;
    browser.press("Rebuild").await;
    browser.sees("Generation 2 is live. Generation 1 is kept").await;
    browser.press("Roll back…").await;
    browser.press("Roll back").await;
    browser.sees("Generation 1 is live").await;
    // What is asked of a stopped connector waits for it: so a build can be looked at, and cancelled.
    browser.press("Stop…").await;
    browser.press("Stop").await;
    browser.sees("It is stopped, and has left its group.").await;
    browser.press("Rebuild…").await;
    browser.press("Rebuild").await;
    browser.sees("is being built").await;
    assert_good_to_see(&browser, "a rebuild").await;
    browser.press("Cancel the rebuild…").await;
    browser.press("Cancel the rebuild").await;
    browser.sees("Generation 1 is live").await;
    browser.press("Resume").await;
    browser.sees("Up to date").await;
    case.end(daemon, browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_looked_up_and_explained_and_no_text_is_markup() {
    let case = Case::new();
    let note = "<img src=x onerror=alert(1)>";
    case.produce(&[
        r#"{"id":7,"amount":1,"note":"first"}"#,
        r#"{"id":8,"amount":2}"#,
        r#"{"id":7,"amount":9007199254740993,"note":"<img src=x onerror=alert(1)>\u202e"}"#,
    ]);
    case.config("", "");
    let daemon = case.setup.start().await;
    let browser = case.browse(&daemon, "/#/connectors/orders").await;
    browser.sees("Up to date").await;
    browser.fill("Key", "7").await;
    browser.press("Show the row").await;
    browser.sees("What the store holds").await;
    // Every digit, and what turns the reading direction as an escape.
    browser.sees("9007199254740993").await;
    browser.sees(&format!("{note}\\u202e")).await;
    browser.fill("At", "orders:0=1").await;
    browser.press("Show the row").await;
    browser.sees("The row at orders:0=1").await;
    browser.sees("first").await;
    browser.fill("At", "").await;
    browser.press("Explain it").await;
    browser.sees("2 events, oldest first.").await;
    browser.sees("2 events give exactly this.").await;
    browser.sees(&format!("{note}\\u202e")).await;
    assert_eq!(browser.run("return document.images.length").await, 0);
    assert_good_to_see(&browser, "an explained row").await;
    browser.fill("Key", "9").await;
    browser.press("Show the row").await;
    browser.sees("orders has no row 9").await;
    case.end(daemon, browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_asked_for_refused_taken_and_forgotten() {
    let case = Case::new();
    case.produce(&[r#"{"id":1,"amount":2}"#]);
    case.config("token = \"sesame\"\n", "");
    let daemon = case.setup.start().await;
    let browser = case.browse(&daemon, "/").await;
    browser.sees("This worker wants its token").await;
    assert_good_to_see(&browser, "the token's question").await;
    browser.fill("Token", "wrong").await;
    browser.press("Continue").await;
    browser.sees("The worker does not take this token.").await;
    browser.fill("Token", "sesame").await;
    browser.press("Continue").await;
    browser.sees("The connector is up to date").await;
    // It is kept for this tab alone.
    let kept = browser.run("return [Object.values(localStorage), Object.values(sessionStorage), document.cookie, location.href.includes('sesame')]").await;
    assert_eq!(kept, json!([[], ["sesame"], "", false]));
    browser.open(&daemon.url("/")).await;
    browser.sees("The connector is up to date").await;
    browser.press("Forget token").await;
    browser.sees("This worker wants its token").await;
    let kept = browser.run("return Object.values(sessionStorage)").await;
    assert_eq!(kept, json!([]));
    case.end(daemon, browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_was_refused_is_told_until_it_is_right() {
    let case = Case::new();
    case.config("watch = true", "");
    let daemon = case.setup.start().await;
    let browser = case.browse(&daemon, "/").await;
    browser.sees("The connector is up to date").await;
    case.config("watch = true", "tasks_max = 0");
    browser.sees("stays in use").await;
    browser.sees("connectors.orders.tasks_max").await;
    assert_good_to_see(&browser, "a refused config").await;
    case.config("watch = true", "tasks_max = 1");
    browser.sees_no("stays in use").await;
    browser.sees("The connector is up to date").await;
    case.end(daemon, browser).await;
}
