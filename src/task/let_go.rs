//! The keys that a cache has let go, as a Bloom filter: one that is not among them was never there, and need not be
//! looked for in the store.

use std::hash::BuildHasher;

use foldline_api::model::Key;

use crate::maps::Hashing;

/// Bits of a key. All lie in one word, so that a look costs one cache miss (Putze, Sanders and Singler: Cache-, Hash-
/// and Space-Efficient Bloom Filters, 2007).
const BITS: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct LetGo {
    hashing: Hashing,
    /// None before the first key.
    words: Vec<u64>,
    words_max: usize,
    /// Bits that are set.
    set: usize,
}

impl LetGo {
    /// None yet. It takes `bytes` from its first key on, three bits for each key that it can tell.
    pub(super) fn new(bytes: usize) -> Self {
        let words_max = (bytes / size_of::<u64>()).max(1);
        LetGo { hashing: Hashing::default(), words: Vec::new(), words_max, set: 0 }
    }

    pub(super) fn insert(&mut self, key: &Key) {
        if self.words.is_empty() {
            self.words = vec![0; self.words_max];
        }
        let (at, bits) = self.place(key);
        if let Some(word) = self.words.get_mut(at) {
            self.set += (bits & !*word).count_ones() as usize;
            *word |= bits;
        }
    }

    /// Whether the key may be among them; if not, it is not.
    pub(super) fn may_have(&self, key: &Key) -> bool {
        if self.words.is_empty() {
            return false;
        }
        let (at, bits) = self.place(key);
        self.words.get(at).is_none_or(|word| word & bits == bits)
    }

    /// Three quarters of the bits are set: by then it says of a third of all new keys that they may be among them.
    pub(super) fn is_full(&self) -> bool {
        self.set >= self.words_max * u64::BITS as usize / 4 * 3
    }

    /// The word of a key, and its bits there.
    fn place(&self, key: &Key) -> (usize, u64) {
        let hash = self.hashing.hash_one(key);
        // The hash as a fraction of all words. Its high bits, so that the low ones can choose the bits.
        let at = (u128::from(hash) * self.words.len() as u128) >> u64::BITS;
        let bits = (0..BITS).fold(0, |bits, n| bits | 1 << (hash >> (n * 6) & 63));
        (usize::try_from(at).unwrap_or_default(), bits)
    }
}
