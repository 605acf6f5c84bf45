//! How a flush's connection is given back.

use foldline_api::Result;
use foldline_api::sink::Written;

use super::End;
use crate::session::Session;
use crate::verdicts::Blame;

/// None where the table was changed: the flush is to be sent again, once the table is seen to fit.
pub(super) async fn end(session: Session, result: Result<End>) -> Result<Option<(Written, Blame)>> {
    match result {
        Ok(End::Committed(versions)) => {
            session.keep();
            Ok(Some((Written::Durable(versions), Blame::default())))
        }
        Ok(End::RolledBack(written)) => {
            session.roll_back().await;
            Ok(Some((written, Blame::default())))
        }
        Ok(End::Refused(error, blame)) => {
            session.roll_back().await;
            Ok(Some((Written::Rejected(error), blame)))
        }
        Ok(End::Changed) => {
            session.roll_back().await;
            Ok(None)
        }
        Err(error) => {
            session.roll_back().await;
            Err(error)
        }
    }
}
