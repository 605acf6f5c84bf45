//! The client that tells topics' ids: one per cluster, for all connectors of the worker.
//!
//! It is no member's. A broker answers what comes over one connection in order, so a question behind a fetch waits as long
//! as that fetch does.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use foldline_api::error::{Error, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::admin::asking;
use crate::config::KafkaConfig;
use crate::context::Context;
use crate::heard::Heard;
use crate::topic_id::topic_ids;

/// A flush waits for the answer; it is asked again when none came.
const ASK: Duration = Duration::from_secs(5);
/// So long a client waits for the next question. Nothing polls it meanwhile, so it does not wait for ever.
const KEPT: Duration = Duration::from_secs(120);
/// Lines of its log that are taken over at a time.
const LINES: usize = 32;

/// The tellers that are in use.
static TELLERS: Mutex<Vec<Weak<Teller>>> = Mutex::new(Vec::new());

#[derive(Default)]
struct Kept {
    client: Option<Arc<BaseConsumer<Context>>>,
    used: Option<Instant>,
}

/// See the module.
pub(crate) struct Teller {
    config: KafkaConfig,
    kept: Mutex<Kept>,
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Teller {
    /// That of the cluster.
    pub(crate) fn of(config: &KafkaConfig) -> Arc<Teller> {
        let mut tellers = TELLERS.lock().unwrap_or_else(PoisonError::into_inner);
        tellers.retain(|teller| teller.strong_count() > 0);
        let same = |teller: &Arc<Teller>| {
            teller.config.bootstrap_servers == config.bootstrap_servers
                && teller.config.properties == config.properties
        };
        if let Some(found) = tellers.iter().filter_map(Weak::upgrade).find(same) {
            return found;
        }
        let teller = Arc::new(Teller { config: config.clone(), kept: Mutex::default() });
        tellers.push(Arc::downgrade(&teller));
        teller
    }

    /// The ids of these topics as they are now.
    pub(crate) async fn ids(
        self: Arc<Self>,
        topics: Vec<Arc<str>>,
    ) -> Result<HashMap<String, String>> {
        let told = tokio::task::spawn_blocking(move || {
            let client = self.client()?;
            for _ in 0..LINES {
                // What it has to say goes to the worker's log.
                if client.poll(Duration::ZERO).is_none() {
                    break;
                }
            }
            topic_ids(client.client().native_client(), &topics, ASK)
                .map_err(|error| Heard::explain_unpolled(&client, error))
        });
        told.await.map_err(|e| Error::retriable("asking for topic ids broke off").with_source(e))?
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client that is kept, or a new one.
    fn client(self: &Arc<Self>) -> Result<Arc<BaseConsumer<Context>>> {
        let mut kept = self.lock();
        kept.used = Some(Instant::now());
        if let Some(client) = &kept.client {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(asking(&self.config)?);
        kept.client = Some(Arc::clone(&client));
        tokio::spawn(let_go(Arc::downgrade(self)));
        Ok(client)
    }
}

/// Lets the client go when nobody has asked it for long. That takes a tenth of a second.
async fn let_go(teller: Weak<Teller>) {
    loop {
        tokio::time::sleep(KEPT).await;
        let Some(teller) = teller.upgrade() else { return };
        let mut kept = teller.lock();
        if kept.used.is_none_or(|at| at.elapsed() >= KEPT) {
            let client = kept.client.take();
            drop(kept);
            tokio::task::spawn_blocking(move || drop(client));
            return;
        }
    }
}
