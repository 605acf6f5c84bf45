//! What asks for the config to be read anew: SIGHUP, and a change of its files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::reload::Ask;
use crate::admin::App;
use crate::config::{self, Content};

/// How often the files are looked at. Two looks that find the same make a change: who is still writing writes on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Asks on each SIGHUP.
pub(super) fn signals(ask: mpsc::Sender<Ask>) -> std::io::Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            // One that waits already means the config as it stands, too.
            _ = ask.try_send(Ask::Signal);
        }
    })
}

/// Asks when the config's files, or those that it names, have changed and rest.
pub(super) async fn files(app: watch::Receiver<Arc<App>>, ask: mpsc::Sender<Ask>) {
    let mut rest = Rest::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let app = Arc::clone(&app.borrow());
        if !app.config.worker.watch {
            continue;
        }
        let (path, named) = (app.config.path.clone(), app.config.named_files());
        let look = tokio::task::spawn_blocking(move || contents(&path, named)).await;
        if look.is_ok_and(|look| rest.changed(look)) && ask.send(Ask::Files).await.is_err() {
            return;
        }
    }
}

type Look = Vec<(PathBuf, Content)>;

fn contents(path: &Path, named: Vec<PathBuf>) -> Look {
    let mut look = config::contents(path);
    look.extend(named.into_iter().map(|file| (file.clone(), config::content(&file))));
    look
}

/// What was seen of the files.
#[derive(Default)]
struct Rest {
    /// As they were when they were asked about last.
    taken: Option<Look>,
    seen: Option<Look>,
}

impl Rest {
    /// Whether they rest as nobody has asked about yet. That holds of the first look too: they may have changed since the
    /// worker read them.
    fn changed(&mut self, look: Look) -> bool {
        let rests = self.seen.as_ref() == Some(&look);
        let new = self.taken.as_ref() != Some(&look);
        if rests && new {
            self.taken = Some(look.clone());
        }
        self.seen = Some(look);
        rests && new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(text: &str) -> Look {
        vec![(PathBuf::from("a.toml"), Some(text.as_bytes().to_vec()))]
    }

    #[test]
    fn files_that_changed_are_asked_about_once_and_only_when_they_rest() {
        let mut rest = Rest::default();
        let seen = ["1", "1", "2", "23", "23", "23", "2", "23", "23", "1", "1"];
        let asked: Vec<bool> = seen.iter().map(|text| rest.changed(look(text))).collect();
        let expect = [false, true, false, false, true, false, false, false, false, false, true];
        assert_eq!(asked, expect);
    }
}
