//! Fields that are looked up are compared with the plain join at the snapshot's own moment: no event of the fold says what
//! they should be.

use foldline_api::error::Result;
use foldline_api::model::Row;
use foldline_api::sink::{Loaded, Snapshot};

use super::Verify;
use crate::replay::State;

/// For each row, what it would show at the snapshot's moment; none where it has still to show that, or shows nothing.
pub(super) async fn shown(
    shows: bool,
    snapshot: &mut dyn Snapshot,
    rows: Vec<Option<Row>>,
) -> Result<Vec<Option<Row>>> {
    if !shows {
        return Ok(vec![None; rows.len()]);
    }
    let there: Vec<Row> = rows.iter().flatten().cloned().collect();
    let mut shown = snapshot.shown(&there).await?.into_iter();
    Ok(rows.into_iter().map(|row| row.and_then(|_| shown.next().flatten())).collect())
}

/// For a count that is only told where there is one.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
pub(super) fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Verify {
    pub(super) fn shows(&self) -> bool {
        self.parts.projection.looks_up()
    }

    /// Whether a row has still to show what it looks up.
    pub(super) fn waits(&self, loaded: &Loaded, shown: Option<&Row>) -> bool {
        self.shows() && loaded.row.is_some() && shown.is_none()
    }

    /// The folded row with what it is to show; where that is not known, with what the stored row shows.
    pub(super) fn expected(
        &self,
        state: &State,
        stored: Option<&Row>,
        shown: Option<&Row>,
    ) -> Option<Row> {
        let folded = state.row.as_ref()?;
        let Some(shown) = shown.or(stored) else { return Some(folded.clone()) };
        Some(self.parts.projection.overlay(folded, shown))
    }
}
