//! The task's calls to sink, log and dead letters, each retried until the machine problem is over.
//! They run beside the loop, one on the writing side and one on the reading side, and own no state.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::failpoint::Failpoint;
use foldline_api::model::Key;
use foldline_api::parked::Place;
use foldline_api::record::{Position, TopicPartition};
use foldline_api::sink::{
    Acquired, Beginning, Flush, Loaded, StoredPosition, Target, Writer, Written,
};
use foldline_api::source::{DeadLetter, DeadLetters, Log};

use super::TaskSpec;
use super::assignment::Outcome;
use super::letters::Sent;
use super::needed::{Needed, States};
use super::status::TaskStatus;
use crate::expiry::Expiry;
use crate::maps::HashSet;
use crate::metrics::ConnectorMetrics;
use crate::policy::{Reaction, reaction};
use crate::retry::{Attempts, retry};
use crate::topic_ids::{folded, recreated};

/// What the calls need; cheap to clone.
#[derive(Clone)]
pub(crate) struct Ops {
    pub(crate) writer: Arc<dyn Writer>,
    pub(crate) target: Arc<dyn Target>,
    /// The generation that the writer writes.
    pub(crate) generation: u64,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) dead_letters: Arc<dyn DeadLetters>,
    /// The letters that were acknowledged; the calls note them.
    pub(crate) sent: Sent,
    /// Letters wait in the books for the swap of the build that is written.
    pub(crate) outbox: bool,
    pub(crate) metrics: ConnectorMetrics,
    pub(crate) status: TaskStatus,
    /// Which rows the clock deletes.
    pub(super) expiry: Option<Arc<Expiry>>,
    /// How much a load asks for.
    pub(super) stride: Arc<Stride>,
}

/// How many states are asked for at a time. A store reads no more rows than fit, but may have to send what was asked for.
#[derive(Debug)]
pub(super) struct Stride {
    /// No more than this.
    keys: AtomicUsize,
    /// Bytes of a state as the last loads had them, the largest of late.
    bytes: AtomicUsize,
}

impl Default for Stride {
    fn default() -> Self {
        Stride { keys: AtomicUsize::new(FIRST_KEYS), bytes: AtomicUsize::new(FIRST_BYTES) }
    }
}

impl Stride {
    /// How many keys to ask for where there is room for so many bytes.
    fn keys(&self, room: usize) -> usize {
        let fit = room / self.bytes.load(Ordering::Relaxed).max(1);
        (fit + fit / 4 + 1).min(self.keys.load(Ordering::Relaxed))
    }

    /// Of so many keys, so many states came, of so many bytes.
    fn came(&self, asked: usize, came: usize, bytes: usize) {
        let keys = if came < asked { came } else { asked.max(FIRST_KEYS).saturating_mul(8) };
        self.keys.store(keys.max(1), Ordering::Relaxed);
        let before = self.bytes.load(Ordering::Relaxed);
        self.bytes.store((bytes / came.max(1)).max(before / 2), Ordering::Relaxed);
    }
}

/// A task's first load asks for so many states at first, each taken to be so large.
const FIRST_KEYS: usize = 64;
const FIRST_BYTES: usize = 256;
/// States that one record needs are read whatever there is room for, up to what one record may touch, about so many bytes at
/// a time.
const NEEDED_BYTES: usize = 1 << 20;

/// How a write ended.
#[derive(Debug)]
pub(crate) enum WriteEnd {
    /// The sink said so.
    Known(Written),
    /// The write failed with this error, or the fence did not match: the positions as they stand now tell.
    Unknown(Vec<StoredPosition>, Option<Error>),
}

/// Partitions taken over.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) acquired: Acquired,
    /// The topics' ids, in the order of the leases.
    pub(crate) topic_ids: Vec<Option<String>>,
    /// Where each partition's log ends.
    pub(crate) ends: Vec<(TopicPartition, Position)>,
    /// Of which nothing was folded yet in this generation.
    pub(crate) untouched: Vec<TopicPartition>,
}

impl Attempts for Ops {
    fn failed(&self, what: &'static str, error: &Error) {
        self.metrics.retry(what).inc();
        self.metrics.error(what, error.class().label()).inc();
        self.status.trouble(error);
    }

    fn worked(&self) {
        self.status.clear_trouble();
    }
}

impl Ops {
    pub(crate) fn new(spec: &TaskSpec) -> Self {
        Ops {
            writer: Arc::clone(&spec.writer),
            target: Arc::clone(&spec.target),
            generation: spec.generation,
            log: Arc::clone(&spec.log),
            dead_letters: Arc::clone(&spec.dead_letters),
            sent: Sent::default(),
            outbox: spec.outbox,
            metrics: spec.metrics.clone(),
            status: spec.status.clone(),
            expiry: spec.expiry.clone(),
            stride: Arc::default(),
        }
    }

    /// What these keys' states will take, by what the last ones took.
    pub(super) fn expected(&self, keys: usize) -> usize {
        keys.saturating_mul(self.stride.bytes.load(Ordering::Relaxed))
    }

    /// Takes partitions over; learns their topic's id first, since a position names its topic's life.
    pub(crate) async fn acquire(self, partitions: Vec<TopicPartition>) -> Result<Taken> {
        let (found, stored) = tokio::join!(
            retry(&self, "acquire", || self.log.survey()),
            retry(&self, "acquire", || self.writer.positions(&partitions)),
        );
        let (found, stored) = (found?, stored?);
        let infos = found.of_all(folded(&stored))?;
        let mut claims = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let info = infos.iter().find(|info| info.partition == partition);
            let topic_id = info.and_then(|info| info.topic_id.clone());
            let known = stored.iter().find(|known| known.partition == partition);
            if info.is_none() && known.is_none() {
                // One that came just now and that not every broker knows: its beginning is not to be guessed.
                let what = format!("`{partition}` was given to this task and does not show yet");
                return Err(Error::retriable(what));
            }
            if let (Some(Some(old)), Some(new)) = (known.map(|k| k.topic_id.as_ref()), &topic_id)
                && old != new
            {
                return Err(recreated(&partition.topic));
            }
            let position = info.map(|info| info.low).unwrap_or_default();
            claims.push(Beginning { partition, topic_id, position });
        }
        let acquired = retry(&self, "acquire", || self.writer.acquire(&claims)).await?;
        self.learn_horizon().await?;
        let beginning = |partition: &TopicPartition| {
            let stored = stored.iter().find(|stored| stored.partition == *partition);
            let claimed = claims.iter().find(|claim| claim.partition == *partition);
            stored.map(|s| s.beginning).or(claimed.map(|claim| claim.position))
        };
        let fresh = acquired.leases.iter().filter(|l| beginning(&l.partition) == Some(l.position));
        let untouched = fresh.map(|lease| lease.partition.clone()).collect();
        let topic_ids = claims.into_iter().map(|claim| claim.topic_id).collect();
        let ends = infos.into_iter().map(|info| (info.partition, info.high)).collect();
        Ok(Taken { acquired, topic_ids, ends, untouched })
    }

    /// Reads states, in their order: those that the first record needs, up to what one record may touch, and of so many more
    /// as there is room for in bytes.
    pub(super) async fn load(
        self,
        keys: Vec<Key>,
        mut needed: Needed,
        room: usize,
    ) -> Result<States> {
        let mut states = States::default();
        let (mut left, mut parts) = (room, vec![&*keys]);
        loop {
            let lacks = needed.keys.saturating_sub(states.loaded.len());
            if needed.is_over() {
                let at = states.loaded.len();
                let unread = keys.get(at..at + lacks).unwrap_or_default();
                if !self.is_held(unread, &needed).await? {
                    states.over = true;
                    break;
                }
                needed.together = None;
            }
            if left == 0 && lacks == 0 {
                break;
            }
            let whatever = lacks > 0 && left < NEEDED_BYTES;
            let (most, count) = if whatever { (NEEDED_BYTES, lacks) } else { (left, usize::MAX) };
            let Some((part, loaded)) = self.read(&mut parts, most, count).await? else { break };
            let bytes = loaded.iter().map(Loaded::heap_bytes).sum();
            left = left.saturating_sub(bytes);
            loaded.iter().take(lacks).for_each(|loaded| needed.came(loaded));
            if loaded.is_empty() {
                states.loaded.extend(part.iter().map(|key| (key.clone(), Loaded::absent())));
                states.nowhere.extend(part.iter().cloned());
            } else {
                states.loaded.extend(part.iter().cloned().zip(loaded));
            }
        }
        Ok(states)
    }

    /// Whether some row of these keys holds the record that is loaded for: it was applied before it was cut short, whatever
    /// its rows take by now. None of them is kept.
    async fn is_held(&self, keys: &[Key], needed: &Needed) -> Result<bool> {
        let mut parts = vec![keys];
        if needed.place.is_none() {
            return Ok(false);
        }
        while let Some((_, loaded)) = self.read(&mut parts, NEEDED_BYTES, usize::MAX).await? {
            if loaded.iter().any(|loaded| needed.holds(loaded)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads the next states of `parts`, at most so many, and about so many bytes: their keys and they. In smaller parts
    /// where all at once is too much or one of them is to blame. A key that the store cannot even name has no state here: it
    /// is in no row; a write under it is refused, and its record found as with any refusal.
    async fn read<'k>(
        &self,
        parts: &mut Vec<&'k [Key]>,
        most: usize,
        count: usize,
    ) -> Result<Option<(&'k [Key], Vec<Loaded>)>> {
        while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
            let keys = count.min(part.len()).min(self.stride.keys(most));
            let (part, behind) = part.split_at(keys);
            parts.extend(Some(behind).filter(|behind| !behind.is_empty()));
            let read = || async {
                match self.writer.load_some(part, most).await {
                    Err(error) if error.is_too_much() && part.len() > 1 => Ok(Err(error)),
                    Err(error) if reaction(error.class()) == Reaction::Blame => Ok(Err(error)),
                    read => read.map(Ok),
                }
            };
            match retry(self, "load", read).await? {
                Ok(loaded) if (1..=part.len()).contains(&loaded.len()) => {
                    let bytes = loaded.iter().map(Loaded::heap_bytes).sum();
                    self.stride.came(part.len(), loaded.len(), bytes);
                    let (read, behind) = part.split_at(loaded.len());
                    parts.extend(Some(behind).filter(|behind| !behind.is_empty()));
                    return Ok(Some((read, loaded)));
                }
                Ok(_) => {
                    let wrong = "the sink answered for other keys than it was asked for";
                    return Err(Error::config(wrong));
                }
                Err(_) if part.len() == 1 => return Ok(Some((part, Vec::new()))),
                Err(_) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(None)
    }

    /// Dead letters first, then rows and positions: a letter may come twice where the worker dies, but never not at
    /// all. After a
    /// failure it waits for `pause` before it asks the sink what became of the write.
    pub(crate) async fn write(
        self,
        letters: Vec<DeadLetter>,
        flush: Arc<Flush>,
        pause: Duration,
    ) -> Result<WriteEnd> {
        let partitions: Vec<TopicPartition> =
            flush.advances.iter().map(|advance| advance.partition.clone()).collect();
        if !letters.is_empty() {
            // A member that lost its partition without knowing may have folded states that are ahead of it,
            // and a letter cannot be fenced. Whoever moves them takes the lease over first.
            let stored = self.stored(&partitions).await?;
            if Outcome::of(&flush.advances, &stored) != Outcome::NotApplied {
                return Ok(WriteEnd::Unknown(stored, None));
            }
            let letters = self.without_sent(letters).await?;
            let send = || self.sent.send(self.dead_letters.as_ref(), &letters);
            retry(&self, "dead_letter", send).await?;
        }
        let mut trouble = None;
        Failpoint::BeforeWrite.reach();
        match self.writer.write(&flush).await {
            Ok(Written::Fenced) => {}
            Ok(written) => {
                if matches!(written, Written::Durable(_)) {
                    Failpoint::AfterWrite.reach();
                }
                self.status.written();
                return Ok(WriteEnd::Known(written));
            }
            Err(error) if error.class() == ErrorClass::Retriable => {
                self.failed("write", &error);
                tokio::time::sleep(pause).await;
                trouble = Some(error);
            }
            Err(error) if error.class() == ErrorClass::Fenced => {}
            Err(error) => return Err(error),
        }
        Ok(WriteEnd::Unknown(self.stored(&partitions).await?, trouble))
    }

    /// Those that no generation has sent.
    async fn without_sent(&self, mut letters: Vec<DeadLetter>) -> Result<Vec<DeadLetter>> {
        let place = |letter: &DeadLetter| (letter.partition.clone(), letter.offset);
        let places: Vec<Place> = letters.iter().map(place).collect();
        let rebuilds = self.target.rebuilds();
        let ask = || rebuilds.were_sent(self.generation, &places);
        let sent: HashSet<Place> = retry(self, "write", ask).await?.into_iter().collect();
        letters.retain(|letter| !sent.contains(&place(letter)));
        Ok(letters)
    }

    /// Where the store stands now.
    pub(crate) async fn stored(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<StoredPosition>> {
        retry(self, "write", || self.writer.positions(partitions)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_asks_for_little_more_than_there_is_room_for() {
        let stride = Stride::default();
        assert_eq!(stride.keys(usize::MAX), FIRST_KEYS, "nothing is known of them");
        stride.came(64, 64, 64 * 100);
        assert_eq!(stride.keys(1 << 30), 512);
        stride.came(512, 512, 512 * 100);
        assert!(stride.keys(1 << 30) > 4_000, "small rows come at once");
        stride.came(4_000, 60, 60_000_000);
        assert!((60..=80).contains(&stride.keys(64_000_000)), "{}", stride.keys(64_000_000));
        assert_eq!(stride.keys(0), 1);
    }
}
