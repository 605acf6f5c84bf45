//! The last answer of a flush.

use crate::codec::Raw;

/// The last answer of a flush.
pub(crate) struct Seal {
    pub(super) xid: u32,
    pub(super) oid: Option<u32>,
    pub(super) triggers: Triggers,
    pub(super) started: i64,
    /// Rows of other targets show this one's.
    pub(crate) followed: bool,
    /// The columns that name who holds this one's rows as children.
    pub(crate) vias: Vec<String>,
}

/// The user's own triggers on the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Triggers {
    None,
    /// They may change rows after they were written.
    Some,
    /// One decides before each row what is written, if anything.
    BeforeRow,
}

impl Seal {
    pub(super) fn read(row: &tokio_postgres::Row) -> Option<Self> {
        Some(Seal {
            xid: row.try_get::<_, Raw<'_>>("xid").ok()?.u32()?,
            oid: row.try_get("oid").ok()?,
            triggers: match row.try_get::<_, i32>("triggers").ok()? {
                0 => Triggers::None,
                1 => Triggers::Some,
                _ => Triggers::BeforeRow,
            },
            started: row.try_get("started").ok()?,
            followed: row.try_get("followed").ok()?,
            vias: row.try_get("vias").ok()?,
        })
    }
}
