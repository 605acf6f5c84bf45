//! A row that is not what the log gives is written anew.

use foldline_api::error::{Error, Result};
use foldline_api::model::Key;
use foldline_api::sink::{Flush, Loaded, Marks, RowWrite, Writer, Written};

use crate::replay::State;

/// Writes the folded row over the version that was judged. Where that is not the version any more, the
/// next round sees what is.
pub(super) async fn rewrite(
    writer: &dyn Writer,
    key: &Key,
    loaded: &Loaded,
    state: &State,
) -> Result<()> {
    let mut marks = Marks::new();
    if writer.keeps_marks() {
        marks.clone_from(&state.marks);
        for mark in &loaded.marks {
            match marks.iter_mut().find(|known| known.partition == mark.partition) {
                Some(known) => known.position = known.position.max(mark.position),
                None => marks.push(mark.clone()),
            }
        }
    }
    let write =
        RowWrite { key: key.clone(), row: state.row.clone(), version: loaded.version, marks };
    let flush = Flush { writes: vec![write], ..Flush::default() };
    match writer.write(&flush).await? {
        Written::Durable(_) | Written::Conflict { .. } => Ok(()),
        Written::Fenced => {
            Err(Error::retriable("the target was rebuilt meanwhile: verify the new generation"))
        }
        Written::Rejected(error) => Err(Error::config(format!(
            "the store refuses the row that the log gives for {key}: {}",
            error.message()
        ))),
    }
}
