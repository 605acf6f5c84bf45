//! What a registry has said, and what follows of what it does not say.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::error::{Error, Result};
use foldline_language::converter::SchemaId;
use foldline_language::converter::schema::{Answer, Registered, Schemas};
use tokio::time::Instant;

use crate::RegistryConfig;
use crate::client::Client;
use crate::fetch::{Found, fetch, has_any, is_one};

/// A replica may lag behind the one that gave an id to a producer: so long it is asked again.
const MISSING: Duration = Duration::from_secs(30);
/// What does not exist is asked for again after so long: it may have been registered since.
const GONE: Duration = Duration::from_secs(60);
/// After a failure others are told the same for so long, and do not wait for its timeouts in turn.
const FAILED: Duration = Duration::from_millis(500);

/// A registry, and what it has said.
pub struct Registry {
    name: String,
    client: Client,
    state: Mutex<State>,
    /// Whoever asks; the others wait, and find what they wanted.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    known: HashMap<SchemaId, Arc<Registered>>,
    missing: HashMap<SchemaId, Missing>,
    failed: Option<(Instant, Error)>,
    /// What it had last.
    witness: Option<SchemaId>,
}

/// An id that the registry does not have.
struct Missing {
    /// Since when it was asked for.
    since: Instant,
    /// Until when it is told to be gone, and how.
    gone: Option<(Instant, Arc<str>)>,
}

impl Registry {
    /// The registry of a config. Nothing is asked yet.
    ///
    /// # Errors
    /// Of class Config, where its address or its certificates are none.
    pub fn new(config: &RegistryConfig) -> Result<Self> {
        let client = Client::new(config)?;
        let (state, asking) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Registry { name: config.name.clone(), client, state, asking })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of an id without a question.
    fn known(&self, id: SchemaId) -> Option<Answer> {
        let state = self.state();
        if let Some(schema) = state.known.get(&id) {
            return Some(Answer::Schema(Arc::clone(schema)));
        }
        let (until, why) = state.missing.get(&id)?.gone.as_ref()?;
        (Instant::now() < *until).then(|| Answer::Gone(Arc::clone(why)))
    }

    /// Asks for an id; none where it is to be asked for again.
    async fn ask(&self, id: SchemaId) -> Result<Option<Answer>> {
        let why = match fetch(&self.client, id).await? {
            Found::Schema(schema) => {
                let schema = Arc::new(schema);
                let mut state = self.state();
                state.known.insert(id, Arc::clone(&schema));
                state.missing.remove(&id);
                state.witness = Some(id);
                return Ok(Some(Answer::Schema(schema)));
            }
            Found::Missing(why) => why,
        };
        let now = Instant::now();
        let missing = Missing { since: now, gone: None };
        let since = self.state().missing.entry(id).or_insert(missing).since;
        if now - since < MISSING {
            return Ok(None);
        }
        self.vouch().await?;
        let gone: Arc<str> =
            format!("is of {id}, which the registry {:?} does not have: {why}", self.name).into();
        let until = Instant::now() + GONE;
        tracing::warn!(registry = self.name, %id, why, "the registry does not have a schema that records name");
        let told = Missing { since, gone: Some((until, Arc::clone(&gone))) };
        self.state().missing.insert(id, told);
        Ok(Some(Answer::Gone(gone)))
    }

    /// A registry that lost what it had is not believed when it says that it has nothing.
    async fn vouch(&self) -> Result<()> {
        let witness = {
            let state = self.state();
            state.witness.and_then(|id| Some((id, Arc::clone(state.known.get(&id)?))))
        };
        let Some((id, had)) = witness else {
            return match has_any(&self.client).await? {
                true => Ok(()),
                false => Err(self.client.outage("it has no subjects at all")),
            };
        };
        match fetch(&self.client, id).await? {
            Found::Schema(has) if has.is_same(&had) => Ok(()),
            Found::Schema(has) => Err(Error::config(format!(
                "the schema registry {:?} has another schema under the id of {id} than it had: it was {} and is {}",
                self.name, had.text, has.text
            ))),
            Found::Missing(_) => {
                Err(self.client.outage(&format!("it has lost {id}, which it had: was it emptied?")))
            }
        }
    }

    /// The failure of a moment ago.
    fn failed(&self) -> Result<()> {
        match &self.state().failed {
            Some((until, error)) if Instant::now() < *until => {
                Err(Error::new(error.class(), error.message()))
            }
            _ => Ok(()),
        }
    }

    /// The answers, or an id that is to be asked for again.
    async fn ask_all(
        &self,
        ids: &[SchemaId],
    ) -> Result<std::result::Result<Vec<Answer>, SchemaId>> {
        let (mut answers, mut missing) = (Vec::with_capacity(ids.len()), None);
        for id in ids {
            let answer = match self.known(*id) {
                Some(answer) => Some(answer),
                None => self.ask(*id).await?,
            };
            match answer {
                Some(answer) => answers.push(answer),
                // The others are asked for all the same: their half minutes pass at once.
                None => missing = Some(*id),
            }
        }
        Ok(missing.map_or(Ok(answers), Err))
    }
}

#[async_trait]
impl Schemas for Registry {
    async fn get(&self, ids: &[SchemaId]) -> Result<Vec<Answer>> {
        let known = || ids.iter().map(|id| self.known(*id)).collect::<Option<Vec<_>>>();
        if let Some(answers) = known() {
            return Ok(answers);
        }
        let _asking = self.asking.lock().await;
        if let Some(answers) = known() {
            return Ok(answers);
        }
        self.failed()?;
        match self.ask_all(ids).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(id)) => Err(self.client.outage(&format!(
                "it does not have {id}; it is asked again for {} seconds before its records are bad",
                MISSING.as_secs()
            ))),
            Err(error) => {
                let again = Error::new(error.class(), error.message());
                self.state().failed = Some((Instant::now() + FAILED, again));
                Err(error)
            }
        }
    }

    async fn reach(&self) -> Result<()> {
        is_one(&self.client).await
    }

    fn doubt(&self, id: SchemaId) {
        let mut state = self.state();
        state.known.remove(&id);
        state.witness.take_if(|witness| *witness == id);
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("name", &self.name).finish_non_exhaustive()
    }
}
