//! A table that was restored together with its books is taken over, in one transaction.
//!
//! A copy of the file needs none of it: the mark on the table is in the copy too. It is for a table that was made anew
//! from its rows, without the mark.

use foldline_api::lifecycle::{Command, Facts, LogNow, Outcome, transition};
use foldline_api::sink::{Adopted, TargetSpec};
use foldline_api::{Error, Result};
use rusqlite::Transaction;

use crate::change;
use crate::generations;
use crate::{books, schema};

pub(crate) fn take_over(tx: &Transaction<'_>, spec: &TargetSpec, log: &LogNow) -> Result<Adopted> {
    let mut facts = Facts { log: log.clone(), ..Facts::default() };
    // Books that are not there are not made: a restore would find its place taken.
    let before = if books::exist(tx)? {
        books::create(tx)?;
        change::record(tx, spec)?
    } else {
        None
    };
    if let Some(before) = &before {
        let target = &spec.target;
        facts.found = schema::find_marked(tx, target)?;
        for generation in generations::beside(tx, target)? {
            let copy = schema::find_marked(tx, &generation.relation)?;
            facts.copies.extend(copy.map(|copy| (generation.number, copy.physical)));
        }
        facts.positions = books::positions(tx, target, before.binding.generation)?;
    }
    let outcome = transition(before.as_ref(), spec, &facts, Command::Adopt)?;
    let (Some(before), Outcome::Changes(change)) = (before, outcome) else {
        return Err(Error::retriable("there is nothing to adopt"));
    };
    change::carry_out(tx, spec, (Some(&before), &change), &[])?;
    let mut adopted = Adopted::of(&change, facts.found.as_ref(), &before.binding.physical);
    if adopted.copied {
        adopted.notices.push(format!(
            "SQLite cannot tell whether the rows of {:?} are those of its books; `foldline verify {}` can, as far as the \
             log goes back",
            spec.target, spec.connector
        ));
    }
    Ok(adopted)
}
