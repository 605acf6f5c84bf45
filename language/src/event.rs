//! Events: decoded records, holding only what the projection names.

use std::sync::Arc;

use foldline_api::budget::Left;
use foldline_api::record::Headers;
use foldline_api::value::Value;
use smallvec::SmallVec;

/// The paths below `event` that a projection's expressions name, as a tree. A converter decodes these
/// and skips the rest. Prefix-free: where `event.a` is taken whole, `event.a.b` reads from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Taken whole, into this slot of the event.
    Whole(usize),
    /// An object of which only these fields are taken, sorted by name.
    Fields(Vec<(Arc<str>, Mask)>),
}

/// What a path begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `event`.
    Event,
    /// `envelope`: what stands around the event.
    Envelope,
}

/// The paths that expressions name, collected while they are compiled.
#[derive(Clone, Debug, Default)]
pub struct PathSet {
    paths: Vec<Vec<Arc<str>>>,
    envelope: Vec<Vec<Arc<str>>>,
    key: bool,
}

/// Where an event keeps what its projection's expressions name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The paths below `event`.
    pub event: Mask,
    /// The paths below `envelope`, in slots behind those.
    pub envelope: Mask,
    /// How many slots an event has.
    pub slots: usize,
}

impl PathSet {
    /// Names `event.a.b` as `["a", "b"]`; the empty path is the whole event.
    pub fn insert(&mut self, path: &[Arc<str>]) {
        self.insert_of(Root::Event, path);
    }

    /// Names a path below `root`.
    pub fn insert_of(&mut self, root: Root, path: &[Arc<str>]) {
        let paths = match root {
            Root::Event => &mut self.paths,
            Root::Envelope => &mut self.envelope,
        };
        if !paths.iter().any(|known| known == path) {
            paths.push(path.to_vec());
        }
    }

    /// Notes that an expression reads the record's key.
    pub fn note_key(&mut self) {
        self.key = true;
    }

    /// Whether some expression reads the record's key: else it is not decoded, whatever it holds.
    #[must_use]
    pub fn reads_key(&self) -> bool {
        self.key
    }

    /// The mask of what stands below `event`, and how many slots that takes.
    #[must_use]
    pub fn mask(&self) -> (Mask, usize) {
        let mut slots = 0;
        let mask = mask_of(&self.paths, &mut slots);
        (mask, slots)
    }

    /// Where an event keeps all of it.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let mut slots = 0;
        let event = mask_of(&self.paths, &mut slots);
        let envelope = mask_of(&self.envelope, &mut slots);
        Layout { event, envelope, slots }
    }
}

fn mask_of(paths: &[Vec<Arc<str>>], slots: &mut usize) -> Mask {
    let paths: Vec<&[Arc<str>]> = paths.iter().map(Vec::as_slice).collect();
    build(&paths, slots)
}

fn build(paths: &[&[Arc<str>]], slots: &mut usize) -> Mask {
    if paths.iter().any(|path| path.is_empty()) {
        *slots += 1;
        return Mask::Whole(*slots - 1);
    }
    let mut heads: Vec<&Arc<str>> = paths.iter().filter_map(|path| path.first()).collect();
    heads.sort();
    heads.dedup();
    let fields = heads.into_iter().map(|head| {
        let tails: Vec<&[Arc<str>]> = paths
            .iter()
            .filter_map(|path| path.split_first())
            .filter(|(first, _)| *first == head)
            .map(|(_, rest)| rest)
            .collect();
        (Arc::clone(head), build(&tails, slots))
    });
    Mask::Fields(fields.collect())
}

impl Mask {
    /// Where `path` is found: the slot, and how many of its names lead to the slot; the rest is looked
    /// up inside the slot's value.
    #[must_use]
    pub fn locate(&self, path: &[Arc<str>]) -> Option<(usize, usize)> {
        let mut mask = self;
        for depth in 0..=path.len() {
            match mask {
                Mask::Whole(slot) => return Some((*slot, depth)),
                Mask::Fields(fields) => {
                    let name = path.get(depth)?;
                    let at = fields.binary_search_by(|field| field.0.cmp(name)).ok()?;
                    mask = &fields.get(at)?.1;
                }
            }
        }
        None
    }
}

impl Mask {
    /// Each of its slots, with the path that leads there.
    #[must_use]
    pub fn leaves(&self) -> Vec<(Vec<Arc<str>>, usize)> {
        let mut leaves = Vec::new();
        self.add_leaves(&mut Vec::new(), &mut leaves);
        leaves
    }

    fn add_leaves(&self, path: &mut Vec<Arc<str>>, leaves: &mut Vec<(Vec<Arc<str>>, usize)>) {
        match self {
            Mask::Whole(slot) => leaves.push((path.clone(), *slot)),
            Mask::Fields(fields) => {
                for (name, inner) in fields {
                    path.push(Arc::clone(name));
                    inner.add_leaves(path, leaves);
                    path.pop();
                }
            }
        }
    }
}

impl Layout {
    /// The paths below `root`.
    #[must_use]
    pub fn mask(&self, root: Root) -> &Mask {
        match root {
            Root::Event => &self.event,
            Root::Envelope => &self.envelope,
        }
    }
}

/// How an event is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// By every handler that its name fits.
    #[default]
    Plain,
    /// A null value, by the name `tombstone` only; else it deletes its row.
    Tombstone,
    /// A row that its source deleted, by its name only; else it deletes its row.
    Delete,
    /// What is no row's (a truncate, a heartbeat), by its name only; else it is filtered.
    Aside,
}

/// An event's slots; few events have more than these, and so need no allocation.
pub type Slots = SmallVec<[Option<Value>; 6]>;

/// What stands behind the envelope of a record, and the record's own coordinates.
#[derive(Clone, Debug)]
pub struct Event {
    /// One per slot of the mask; none where the path leads nowhere, null where it says null.
    pub slots: Slots,
    /// The event's name as the converter or the envelope knows it (an Avro or Protobuf record's name).
    pub name: Option<Arc<str>>,
    /// How it is heard.
    pub kind: Kind,
    /// Whether what is read of it is the record's key, there being nothing else to believe.
    pub of_key: bool,
    /// Columns that the source could not send: what reads them keeps what the row has, or the record is bad.
    pub unavailable: Vec<Arc<str>>,
    /// What the value is, where it is no object: no path leads into it, so none may be read.
    pub no_object: Option<&'static str>,
    /// The record's key, as its converter gives it.
    pub key: Value,
    /// The record's headers.
    pub headers: Headers,
    /// The record's topic.
    pub topic: Arc<str>,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp, in milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// What decoding has left of the record's budget.
    pub left: Left,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<Arc<str>> {
        text.split('.').filter(|s| !s.is_empty()).map(Arc::from).collect()
    }

    #[test]
    fn a_prefix_takes_its_longer_paths_along() {
        let mut paths = PathSet::default();
        for text in ["b.c.d", "a", "b.c", "b.e"] {
            paths.insert(&path(text));
        }
        let (mask, slots) = paths.mask();
        assert_eq!(slots, 3);
        assert_eq!(mask.locate(&path("a")), Some((0, 1)));
        assert_eq!(mask.locate(&path("b.c.d")), Some((1, 2)));
        assert_eq!(mask.locate(&path("b.e")), Some((2, 2)));
        assert_eq!(mask.locate(&path("x")), None);
        paths.insert(&path(""));
        assert_eq!(paths.mask(), (Mask::Whole(0), 1));
    }
}
