//! What the ids of schemas stood for, kept in the books of a connector's target before the first record is decoded by it.
//!
//! The registry is asked all the same, once for each id in a worker's life. Where it tells another schema than the one that is kept,
//! the connector stops, with both. Where it cannot tell, or has lost the id, records are decoded by what is kept, and it is asked
//! again with each batch until it tells: what it says then may be that it is not the registry any more that gave these ids.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::schemas::{KEPT_MAX, KeptSchema};
use foldline_api::sink::Target;
use foldline_language::converter::SchemaId;
use foldline_language::converter::schema::{Answer, Registered, Schemas};
use tokio::time::Instant;

/// So long a registry is waited for that is asked about what is kept: records need not wait for it any longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// One that stood still for so long is left alone for so long.
const REST: Duration = Duration::from_secs(5);

/// The books of a connector's target, once it has one.
#[derive(Default)]
pub(super) struct SchemaBooks {
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    target: Option<Arc<dyn Target>>,
    /// What is kept there; none until it was read.
    kept: Option<Arc<Kept>>,
}

/// By registry and id.
type Kept = HashMap<(String, String), Arc<Registered>>;

impl SchemaBooks {
    /// From now on they are this target's.
    pub(super) fn are_of(&self, target: Arc<dyn Target>) {
        *self.slot() = Slot { target: Some(target), kept: None };
    }

    /// A registry whose schemas are kept here.
    pub(super) fn keeping(
        self: &Arc<Self>,
        name: &str,
        inner: Arc<dyn Schemas>,
    ) -> Arc<dyn Schemas> {
        let (registry, books) = (name.to_owned(), Arc::clone(self));
        Arc::new(Keeping {
            registry,
            inner,
            books,
            unsure: Mutex::default(),
            rests: Mutex::default(),
        })
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self) -> Result<Arc<dyn Target>> {
        let target = self.slot().target.clone();
        target.ok_or_else(|| Error::retriable("the books that keep schemas are not open yet"))
    }

    /// What is kept, read once for each session.
    async fn kept(&self) -> Result<Arc<Kept>> {
        if let Some(kept) = &self.slot().kept {
            return Ok(Arc::clone(kept));
        }
        let target = self.target()?;
        let kept = target.schemas().kept().await?;
        self.remember(&target, kept)
    }

    /// Keeps these; what stands in the books then.
    async fn keep(&self, schemas: &[KeptSchema]) -> Result<Arc<Kept>> {
        let target = self.target()?;
        let kept = target.schemas().keep(schemas).await?;
        self.remember(&target, kept)
    }

    fn remember(&self, target: &Arc<dyn Target>, kept: Vec<KeptSchema>) -> Result<Arc<Kept>> {
        let read = |KeptSchema { registry, id, schema }: KeptSchema| {
            let schema: Registered = serde_json::from_str(&schema).map_err(|error| {
                Error::config(format!(
                    "the books hold what this version of Foldline cannot read of {id} of the schema registry {registry:?}: run \
                     the version that wrote it, or a newer one: {error}"
                ))
            })?;
            Ok(((registry, id), Arc::new(schema)))
        };
        let kept: Arc<Kept> = Arc::new(kept.into_iter().map(read).collect::<Result<_>>()?);
        let mut slot = self.slot();
        if slot.target.as_ref().is_some_and(|now| Arc::ptr_eq(now, target)) {
            slot.kept = Some(Arc::clone(&kept));
        }
        Ok(kept)
    }
}

impl fmt::Debug for SchemaBooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaBooks").finish_non_exhaustive()
    }
}

/// A registry for one connector.
#[derive(Debug)]
struct Keeping {
    registry: String,
    inner: Arc<dyn Schemas>,
    books: Arc<SchemaBooks>,
    /// What was told as it is kept, since the registry could not tell.
    unsure: Mutex<HashSet<SchemaId>>,
    /// Until then it is not asked about what is kept.
    rests: Mutex<Option<Instant>>,
}

impl Keeping {
    fn unsure(&self) -> MutexGuard<'_, HashSet<SchemaId>> {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, id: SchemaId) -> (String, String) {
        (self.registry.clone(), id.name())
    }

    /// What the registry says of an id that is kept; nothing where it cannot tell.
    async fn told(&self, id: SchemaId) -> Result<Option<Answer>> {
        let rests = *self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        if rests.is_some_and(|until| Instant::now() < until) {
            return Ok(None);
        }
        match tokio::time::timeout(PATIENCE, self.inner.get(&[id])).await {
            Ok(Ok(mut answers)) => Ok(answers.pop()),
            Ok(Err(error)) if error.class() == ErrorClass::Retriable => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let until = Some(Instant::now() + REST);
                *self.rests.lock().unwrap_or_else(PoisonError::into_inner) = until;
                Ok(None)
            }
        }
    }

    /// Compares what is kept with what the registry says.
    async fn check(&self, id: SchemaId, kept: &Arc<Registered>) -> Result<Answer> {
        let sure = match self.told(id).await? {
            Some(Answer::Schema(told)) => {
                self.compare(id, kept, &told)?;
                true
            }
            Some(Answer::Gone(_)) | None => false,
        };
        let changed = if sure { self.unsure().remove(&id) } else { self.unsure().insert(id) };
        if changed && !sure {
            tracing::warn!(
                registry = self.registry,
                %id,
                "the registry cannot tell a schema that was read before: records are read by the one that was kept of it"
            );
        }
        Ok(Answer::Schema(Arc::clone(kept)))
    }

    fn compare(&self, id: SchemaId, kept: &Registered, told: &Registered) -> Result<()> {
        if kept.is_same(told) {
            return Ok(());
        }
        self.inner.doubt(id);
        Err(Error::config(format!(
            "the schema registry {:?} has another schema under the id of {id} than the one that records were read by before: it \
             was {} and is {}. Was it emptied and filled anew? Restore it with its ids, or give it another name under \
             [registries], where it is another one on purpose",
            self.registry,
            shown(kept),
            shown(told)
        )))
    }

    /// What the registry says of ids that are not kept yet: kept before anything is read by it.
    async fn ask(&self, ids: &[SchemaId]) -> Result<Vec<Answer>> {
        let answers = self.inner.get(ids).await?;
        let mut new = Vec::new();
        for (id, answer) in ids.iter().zip(&answers) {
            let Answer::Schema(schema) = answer else { continue };
            let schema = serde_json::to_string(&**schema)
                .map_err(|error| Error::config(format!("{id} cannot be kept: {error}")))?;
            let (registry, id) = self.place(*id);
            new.push(KeptSchema { registry, id, schema });
        }
        if new.is_empty() {
            return Ok(answers);
        }
        self.have_room(&new).await?;
        let kept = self.books.keep(&new).await?;
        let mut out = Vec::with_capacity(answers.len());
        for (id, answer) in ids.iter().zip(answers) {
            out.push(match (answer, kept.get(&self.place(*id))) {
                // Another worker may have been told another one.
                (Answer::Schema(told), Some(kept)) => {
                    self.compare(*id, kept, &told)?;
                    Answer::Schema(Arc::clone(kept))
                }
                (answer, _) => answer,
            });
        }
        Ok(out)
    }

    async fn have_room(&self, new: &[KeptSchema]) -> Result<()> {
        let kept = self.books.kept().await?;
        let text = |schema: &Registered| {
            let references = schema.references.iter().map(|(name, text)| name.len() + text.len());
            schema.text.len() + references.sum::<usize>()
        };
        let bytes = kept.values().map(|schema| text(schema)).sum::<usize>()
            + new.iter().map(KeptSchema::bytes).sum::<usize>();
        if bytes <= KEPT_MAX {
            return Ok(());
        }
        Err(Error::config(format!(
            "the schemas of the registry {:?} that this connector has read by would take {bytes} bytes of its books, {KEPT_MAX} are \
             the most: is a schema registered for each record?",
            self.registry
        )))
    }
}

fn shown(schema: &Registered) -> String {
    let references =
        schema.references.iter().map(|(name, text)| format!(", where {name} is {text}"));
    format!("{}{}", schema.text, references.collect::<String>())
}

#[async_trait]
impl Schemas for Keeping {
    async fn get(&self, ids: &[SchemaId]) -> Result<Vec<Answer>> {
        let kept = self.books.kept().await?;
        let of = |id: &SchemaId| kept.get(&self.place(*id)).map(Arc::clone);
        let mut known = HashMap::new();
        // First: a registry that is another one by now is believed nothing.
        for id in ids {
            if let Some(kept) = of(id) {
                known.insert(*id, self.check(*id, &kept).await?);
            }
        }
        let new: Vec<SchemaId> = ids.iter().copied().filter(|id| !known.contains_key(id)).collect();
        if !new.is_empty() {
            known.extend(new.iter().copied().zip(self.ask(&new).await?));
        }
        let answers = ids.iter().filter_map(|id| known.get(id).cloned()).collect();
        Ok(answers)
    }

    fn is_sure(&self, id: SchemaId) -> bool {
        self.inner.is_sure(id) && !self.unsure().contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use foldline_testkit::MemoryStore;
    use foldline_testkit::contract::{model, spec_of};

    use super::*;

    /// What the registry has, and whether it answers.
    #[derive(Debug, Default)]
    struct Double {
        has: Mutex<HashMap<SchemaId, String>>,
        away: Mutex<bool>,
        stands_still: Mutex<bool>,
        asked: Mutex<Vec<SchemaId>>,
        doubted: Mutex<Vec<SchemaId>>,
    }

    fn schema(text: &str) -> Registered {
        let references = vec![("shop.Money".to_owned(), "\"long\"".to_owned())];
        Registered { kind: Some("AVRO".to_owned()), text: text.to_owned(), references }
    }

    #[async_trait]
    impl Schemas for Double {
        async fn get(&self, ids: &[SchemaId]) -> Result<Vec<Answer>> {
            self.asked.lock().unwrap().extend(ids);
            if *self.stands_still.lock().unwrap() {
                std::future::pending::<()>().await;
            }
            if *self.away.lock().unwrap() {
                return Err(Error::retriable("away"));
            }
            let has = self.has.lock().unwrap();
            let answer = |id: &SchemaId| match has.get(id) {
                Some(text) => Answer::Schema(Arc::new(schema(text))),
                None => Answer::Gone("does not exist".into()),
            };
            Ok(ids.iter().map(answer).collect())
        }

        fn doubt(&self, id: SchemaId) {
            self.doubted.lock().unwrap().push(id);
        }
    }

    /// A store, and sessions of workers over it.
    struct World {
        store: MemoryStore,
        double: Arc<Double>,
    }

    const ONE: SchemaId = SchemaId::Id(1);
    const TWO: SchemaId = SchemaId::Id(2);

    impl World {
        fn new() -> Self {
            let (store, double) = (MemoryStore::transactional(), Arc::new(Double::default()));
            let world = World { store, double };
            world.has(&[(ONE, "\"long\""), (TWO, "\"string\"")]);
            world
        }

        fn has(&self, schemas: &[(SchemaId, &str)]) {
            let has = schemas.iter().map(|(id, text)| (*id, (*text).to_owned())).collect();
            *self.double.has.lock().unwrap() = has;
        }

        async fn target(&self) -> Arc<dyn Target> {
            let target = self.store.target(spec_of("t", model()));
            target.open().await.unwrap();
            target
        }

        /// As a worker that starts has it.
        async fn session(&self) -> Arc<dyn Schemas> {
            let books = Arc::new(SchemaBooks::default());
            let schemas = books.keeping("main", Arc::clone(&self.double) as Arc<dyn Schemas>);
            books.are_of(self.target().await);
            schemas
        }
    }

    fn text(answer: &Answer) -> &str {
        match answer {
            Answer::Schema(schema) => &schema.text,
            Answer::Gone(why) => why,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_by_is_kept_before_it_is_told() {
        let world = World::new();
        let target = world.target().await;
        let answers = world.session().await.get(&[TWO, ONE, SchemaId::Id(9)]).await.unwrap();
        let texts: Vec<&str> = answers.iter().map(text).collect();
        assert_eq!(texts, ["\"string\"", "\"long\"", "does not exist"]);
        let kept = target.schemas().kept().await.unwrap();
        let ids: Vec<&str> = kept.iter().map(|kept| &*kept.id).collect();
        assert_eq!(ids, ["id:1", "id:2"], "and nothing of what there is not");
        assert!(
            kept.iter().all(|kept| kept.registry == "main" && kept.schema.contains("shop.Money"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_told_that_could_not_be_kept() {
        let world = World::new();
        let books = Arc::new(SchemaBooks::default());
        let schemas = books.keeping("main", Arc::clone(&world.double) as Arc<dyn Schemas>);
        assert_eq!(schemas.get(&[ONE]).await.unwrap_err().class(), ErrorClass::Retriable);
        // Too much of it.
        books.are_of(world.target().await);
        let long = format!("\"{}\"", "x".repeat(KEPT_MAX));
        world.has(&[(ONE, &long)]);
        let error = schemas.get(&[ONE]).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config);
        assert!(error.message().contains("is a schema registered for each record?"), "{error}");
        assert_eq!(world.target().await.schemas().kept().await.unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_changed_its_mind_between_sessions_stops_the_connector_with_both() {
        let world = World::new();
        world.session().await.get(&[ONE, TWO]).await.unwrap();
        world.has(&[(TWO, "\"long\""), (ONE, "\"string\"")]);
        let session = world.session().await;
        // A new id is not even asked for.
        for ids in [&[ONE][..], &[TWO], &[SchemaId::Id(3), ONE]] {
            let error = session.get(ids).await.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Config);
            let says = error.message();
            assert!(says.contains("\"long\"") && says.contains("\"string\""), "{says}");
            assert!(
                says.contains("the schema registry \"main\"") && says.contains("shop.Money"),
                "{says}"
            );
        }
        assert!(!world.double.asked.lock().unwrap().contains(&SchemaId::Id(3)));
        assert!(
            world.double.doubted.lock().unwrap().contains(&ONE),
            "it is asked anew after a restart"
        );
        // Restored, and written a little otherwise.
        world.has(&[(ONE, " \"long\""), (TWO, "\"string\"")]);
        let answers = session.get(&[ONE, TWO]).await.unwrap();
        assert_eq!(answers.iter().map(text).collect::<Vec<_>>(), ["\"long\"", "\"string\""]);
        // Under another name it is another registry.
        world.has(&[(ONE, "\"int\"")]);
        let books = Arc::new(SchemaBooks::default());
        let other = books.keeping("new", Arc::clone(&world.double) as Arc<dyn Schemas>);
        books.are_of(world.target().await);
        assert_eq!(text(&other.get(&[ONE]).await.unwrap()[0]), "\"int\"");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_read_by_while_the_registry_cannot_tell_and_is_asked_again() {
        let world = World::new();
        world.session().await.get(&[ONE]).await.unwrap();
        let session = world.session().await;
        *world.double.away.lock().unwrap() = true;
        assert_eq!(text(&session.get(&[ONE]).await.unwrap()[0]), "\"long\"");
        assert!(!session.is_sure(ONE));
        // What is not kept is waited for.
        assert_eq!(session.get(&[ONE, TWO]).await.unwrap_err().class(), ErrorClass::Retriable);
        // It stands still: records wait for it once in a while.
        *world.double.stands_still.lock().unwrap() = true;
        let began = Instant::now();
        for _ in 0..5 {
            assert_eq!(text(&session.get(&[ONE]).await.unwrap()[0]), "\"long\"");
        }
        assert_eq!(began.elapsed(), PATIENCE);
        *world.double.stands_still.lock().unwrap() = false;
        *world.double.away.lock().unwrap() = false;
        tokio::time::sleep(REST).await;
        // It lost the id.
        world.has(&[]);
        assert_eq!(text(&session.get(&[ONE]).await.unwrap()[0]), "\"long\"");
        assert!(!session.is_sure(ONE));
        // It has another one by now.
        world.has(&[(ONE, "\"int\"")]);
        assert_eq!(session.get(&[ONE]).await.unwrap_err().class(), ErrorClass::Config);
        world.has(&[(ONE, "\"long\"")]);
        session.get(&[ONE]).await.unwrap();
        assert!(session.is_sure(ONE));
    }

    #[tokio::test(start_paused = true)]
    async fn two_workers_that_were_told_different_schemas_do_not_both_go_on() {
        let world = World::new();
        let (first, second) = (world.session().await, world.session().await);
        // The second has read the books before the first wrote them.
        second.get(&[TWO]).await.unwrap();
        first.get(&[ONE]).await.unwrap();
        world.has(&[(ONE, "\"int\"")]);
        let error = second.get(&[ONE]).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config);
    }
}
