//! What `foldline_api::lifecycle` decides, carried out in the caller's transaction. Locks are taken in one order: the
//! target's row, position rows, tables.

use foldline_api::lifecycle::{Act, Change, Command, Facts, Outcome, Record, transition};
use foldline_api::record::{Position, TopicPartition};
use foldline_api::{Error, Result};
use tokio_postgres::Client;

use crate::generations::Generation;
use crate::rebuild::Standing;
use crate::target::PostgresTarget;

/// The end of each partition when a build began.
pub(crate) type Goals = [(TopicPartition, Position)];

impl Standing {
    /// What the books say of the target.
    pub(crate) fn record(&self) -> Record {
        Record {
            binding: self.stored.clone(),
            desired: self.desired,
            beside: self.beside.iter().map(Generation::beside).collect(),
        }
    }

    pub(crate) fn generation(&self, number: u64) -> Option<&Generation> {
        self.beside.iter().find(|generation| generation.number == number)
    }
}

impl PostgresTarget {
    /// What a command leads to.
    pub(crate) fn decide(&self, at: &Standing, facts: &Facts, command: Command) -> Result<Outcome> {
        transition(Some(&at.record()), &self.spec, facts, command)
    }

    /// Carries out a change beside the live table; the statements that are run later, each alone.
    pub(crate) async fn carry_out(
        &self,
        client: &Client,
        at: &Standing,
        change: &Change,
        goals: &Goals,
    ) -> Result<Vec<String>> {
        for fenced in &change.fences {
            self.books.raise_epochs(client, &at.site.label, *fenced).await?;
        }
        let (mut next, mut later) = (change.record.clone(), Vec::new());
        for act in &change.steps {
            match *act {
                Act::Make(number) => {
                    let made = self.make_table(client, at, number).await?;
                    let beside = next.beside.iter_mut().filter(|beside| beside.number == number);
                    beside.for_each(|beside| beside.physical = made.oid.to_string());
                }
                Act::Finish(number) => self.finish(client, at, number).await?,
                Act::Exchange { to, .. } => later = self.exchange(client, at, to).await?,
                Act::Drop(number) => self.drop_generation(client, at, number).await?,
                // What becomes of the live table is done where it is opened or emptied.
                Act::Create | Act::Adopt | Act::Take | Act::Check | Act::Extend | Act::Empty => {}
            }
        }
        self.keep(client, at, &next, goals).await?;
        Ok(later)
    }

    /// Drops a generation beside the live one, and all that the books keep of it.
    pub(crate) async fn drop_generation(
        &self,
        client: &Client,
        at: &Standing,
        number: u64,
    ) -> Result<()> {
        if let Some(generation) = at.generation(number) {
            self.drop_table(client, &at.table(generation)).await?;
        }
        self.books.forget_generation(client, &at.site.label, number).await
    }

    /// Writes the books as they shall be.
    ///
    /// # Errors
    /// Fenced where the build is no longer in the phase that it was seen in.
    async fn keep(
        &self,
        client: &Client,
        at: &Standing,
        next: &Record,
        goals: &Goals,
    ) -> Result<()> {
        let label = &at.site.label;
        if next.binding != at.stored {
            self.books.bind(client, label, &next.binding).await?;
        }
        if next.desired != at.desired {
            self.books.set_desired(client, label, next.desired).await?;
        }
        let stays = |old: &&Generation| next.beside.iter().any(|it| it.number == old.number);
        for gone in at.beside.iter().filter(|old| !stays(old)) {
            self.books.forget_row(client, label, gone.number).await?;
        }
        for beside in &next.beside {
            let known = at.generation(beside.number);
            let phases = known.map(|known| (known.role.phase(), beside.role.phase()));
            match phases {
                Some((Some(from), Some(to))) if from != to => {
                    let place = (label.as_str(), beside.number);
                    if !self.books.move_build(client, place, from, to).await? {
                        return Err(Error::fenced("the build ended meanwhile"));
                    }
                }
                Some(_) if known.is_some_and(|known| known.physical != beside.physical) => {
                    self.books
                        .take_generation(client, (label, beside.number), &beside.physical)
                        .await?;
                }
                Some(_) => {}
                None => {
                    let made = Generation::of(beside, &at.live.name.table, goals);
                    self.books.put_generation(client, label, &made).await?;
                }
            }
        }
        Ok(())
    }
}
