//! Dead letters of a connector: see them, give them back.

use bytes::Bytes;
use foldline_api::error::{Error, Result};

use super::Connector;
use crate::letters::{Id, Letter, Letters, Reason, Replayed};

impl Connector {
    fn letters(&self) -> Result<Letters<'_>> {
        Ok(Letters {
            connector: &self.spec.name,
            log: (self.spec.letters)()?,
            of: &*self.spec.log,
            dead_letters: &*self.spec.dead_letters,
        })
    }

    /// How many letters there are of each reason.
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn letter_reasons(&self) -> Result<Vec<Reason>> {
        self.letters()?.reasons().await
    }

    /// The first letters of a reason that were not given back, at most so many.
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn open_letters(&self, reason: &str, most: usize) -> Result<Vec<Letter>> {
        self.letters()?.open(reason, most).await
    }

    /// One letter, and whether it was given back.
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn letter(&self, id: Id) -> Result<Option<(Letter, bool)>> {
        self.letters()?.one(id).await
    }

    /// Gives a letter back to its topic, with another value where one is given; none where there is no such letter.
    ///
    /// # Errors
    /// Of class Fenced where it was given back before and it is not asked for `again`; of class Config where it does not hold all of its record.
    pub async fn replay_letter(
        &self,
        id: Id,
        value: Option<Bytes>,
        again: bool,
    ) -> Result<Option<Replayed>> {
        let _one_at_a_time = self.replaying.lock().await;
        let letters = self.letters()?;
        let Some((letter, replayed)) = letters.one(id).await? else { return Ok(None) };
        if replayed && !again {
            return Err(Error::fenced(format!(
                "letter {id} was given back already: once more folds its event twice, which `--again` (?again=true) asks for"
            )));
        }
        letters.replay(letter, value).await.map(Some)
    }

    /// Gives all letters of a reason back that were not.
    ///
    /// # Errors
    /// When the log does not answer or refuses a record; those before were given back.
    pub async fn replay_letters(&self, reason: &str) -> Result<Replayed> {
        let _one_at_a_time = self.replaying.lock().await;
        self.letters()?.replay_all(reason).await
    }
}
