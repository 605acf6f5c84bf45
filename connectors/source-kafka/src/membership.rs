//! A member's way out of its group, and what it does where the group gives it nothing or has forgotten it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use foldline_api::error::{Error, ErrorClass, Result};
use foldline_api::record::TopicPartition;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;

use crate::consumer::{ASK, Poller};
use crate::error::from_kafka;
use crate::group::{Standing, describe, membership};
use crate::native::Event;

/// How long a member may have nothing before it is asked who has what.
const NOTHING_MAX: Duration = Duration::from_secs(30);
/// The next look, where partitions have no owner.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The next look, where the group did not know a member: an answer may be older than a join.
const CONFIRM: Duration = Duration::from_secs(2);
/// How long leaving may take: the group's answers come within a moment.
const LEAVE: Duration = Duration::from_secs(1);
/// One poll while leaving.
const LEAVE_POLL: Duration = Duration::from_millis(20);

/// How long a member has had nothing, and what is known of it.
#[derive(Debug, Default)]
pub(crate) struct Nothing {
    since: Option<Instant>,
    look_at: Option<Instant>,
    /// It was told that the others have all partitions.
    spare: bool,
    /// The group forgot it, as of the last look.
    forgotten: bool,
}

/// Whether the group still knows a member that has partitions.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    look_at: Option<Instant>,
    /// It did not, as of the last look.
    unknown: bool,
}

impl Poller {
    /// A member that has nothing for long, while partitions have no owner, is in trouble: it says so, and where the group
    /// is not about to deal them anew, it ends, so that another takes its place.
    pub(crate) fn look_at_nothing(&mut self, now: Instant) {
        if !self.state.assignment.is_empty() || self.state.subscribed.is_empty() {
            self.state.nothing = Nothing::default();
            return;
        }
        let nothing = &mut self.state.nothing;
        let since = *nothing.since.get_or_insert(now);
        if *nothing.look_at.get_or_insert(now + NOTHING_MAX) > now {
            return;
        }
        let seconds = (now - since).as_secs();
        let standing = self.standing();
        let nothing = &mut self.state.nothing;
        let (unowned, forgotten) = match standing {
            Ok(Standing::Spare) => {
                if !std::mem::replace(&mut nothing.spare, true) {
                    tracing::info!(
                        "this member has no partition, and no partition is without an owner"
                    );
                }
                (nothing.forgotten, nothing.look_at) = (false, Some(Instant::now() + NOTHING_MAX));
                return;
            }
            Ok(Standing::Waiting(unowned)) => (unowned, false),
            Ok(Standing::Forgotten(unowned)) => (unowned, true),
            Err(error) => {
                nothing.look_at = Some(Instant::now() + LOOK_AGAIN);
                let what =
                    format!("the group has given this member nothing for {seconds} s: {error}");
                tracing::warn!("{what}");
                self.inbox.push_error(Error::retriable(what));
                return;
            }
        };
        let why = match unowned {
            0 => "does not know it".to_owned(),
            unowned => format!("{unowned} partitions have no owner"),
        };
        let what = format!(
            "the group {:?} has given this member nothing for {seconds} s, and {why}",
            self.group
        );
        nothing.look_at = Some(Instant::now() + LOOK_AGAIN);
        if std::mem::replace(&mut nothing.forgotten, forgotten) && forgotten {
            tracing::warn!("{what}: another member takes this one's place");
            self.inbox.end(ErrorClass::Fenced, format!("{what}: joining it anew"));
            return;
        }
        tracing::warn!("{what}");
        self.inbox.push_error(Error::retriable(what));
    }

    /// Under KIP-848 librdkafka goes on for ever with the partitions that it has where the coordinator knows no such group
    /// any more: when the last member of this protocol is missed for long, the group becomes one of the classic protocol.
    /// Others have the partitions then, or nobody has. So the group is asked now and then, and where it refuses a commit.
    pub(crate) fn look_at_membership(&mut self, now: Instant) {
        if self.is_classic || self.state.assignment.is_empty() {
            self.state.doubt = Doubt::default();
            return;
        }
        let refused = self.refused.swap(false, Ordering::Relaxed);
        let doubt = &mut self.state.doubt;
        let at = *doubt.look_at.get_or_insert(now + NOTHING_MAX);
        if at > now && (!refused || doubt.unknown) {
            return;
        }
        let client = self.consumer.client().native_client();
        let (id, generation) = membership(client);
        let group = describe(client, &self.group, ASK);
        let doubt = &mut self.state.doubt;
        doubt.look_at = Some(Instant::now() + NOTHING_MAX);
        match group {
            Ok(group) => {
                let unknown = generation.is_some() && !group.knows(&id);
                if unknown && doubt.unknown {
                    let what = format!(
                        "the group {:?} does not know this member any more, which still holds partitions",
                        self.group
                    );
                    tracing::warn!("{what}: another member takes this one's place");
                    self.inbox.end(ErrorClass::Fenced, format!("{what}: joining it anew"));
                } else if unknown {
                    doubt.look_at = Some(Instant::now() + CONFIRM);
                }
                doubt.unknown = unknown;
            }
            Err(error) => tracing::debug!(%error, "asking whether the group knows this member"),
        }
    }

    fn standing(&self) -> Result<Standing> {
        let mut all = Vec::new();
        for topic in &self.state.subscribed {
            let metadata = self.consumer.fetch_metadata(Some(topic), ASK);
            let metadata = metadata.map_err(|e| from_kafka(format!("asking for `{topic}`"), &e))?;
            let found = metadata.topics().iter().filter(|found| found.name() == topic);
            let partitions = found.flat_map(|found| found.partitions());
            all.extend(partitions.map(|partition| TopicPartition::new(&**topic, partition.id())));
        }
        let client = self.consumer.client().native_client();
        let group = describe(client, &self.group, ASK)?;
        Ok(group.standing(&membership(client).0, &all))
    }

    /// Leaves the group and drops the consumer, once no commit uses it.
    pub(crate) fn leave(mut self) {
        // The group waits for this answer, and the task has let go of everything.
        self.finish_earlier_revocation();
        // A static member keeps its partitions over a restart.
        if !self.is_static && !self.state.subscribed.is_empty() {
            self.unsubscribe();
        }
        let Poller { queue, consumer, .. } = self;
        let deadline = Instant::now() + Duration::from_secs(10);
        drop(queue);
        while Arc::strong_count(&consumer) > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(consumer);
    }

    /// librdkafka's close tells the group nothing of a member that has no partition: it would be missed only at the end
    /// of its session, and until then the next rebalance would wait for it. Unsubscribing tells the group.
    fn unsubscribe(&mut self) {
        let deadline = Instant::now() + LEAVE;
        let joined = |poller: &Poller| {
            let (id, generation) = membership(poller.consumer.client().native_client());
            !id.is_empty() && (generation.is_some() || poller.is_classic)
        };
        // A join under way is answered with the id that the group knows this member by from then on.
        while !joined(self) && Instant::now() < deadline {
            self.answer(LEAVE_POLL);
        }
        self.consumer.unsubscribe();
        while joined(self) && Instant::now() < deadline {
            self.answer(LEAVE_POLL);
        }
    }

    /// Answers a rebalance; all else does not matter any more.
    fn answer(&mut self, wait: Duration) {
        match self.queue.poll(wait) {
            Some(Event::Assign(_)) => {
                if let Err(error) = self.consumer.incremental_assign(&TopicPartitionList::new()) {
                    tracing::debug!(%error, "answering an assignment while leaving");
                }
            }
            Some(Event::Revoke(partitions)) => {
                let known = self.state.assignment.remove(&partitions);
                self.unassign(&known);
            }
            Some(_) | None => {}
        }
    }
}
