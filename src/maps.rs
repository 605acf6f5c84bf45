//! The maps of the task and what it is made of, so that a seed of the simulation replays: under test the order that one
//! iterates in is the same in each run.

#[cfg(not(test))]
pub(crate) use hashbrown::DefaultHashBuilder as Hashing;
#[cfg(test)]
pub(crate) type Hashing = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

pub(crate) type HashMap<K, V> = hashbrown::HashMap<K, V, Hashing>;
pub(crate) type HashSet<T> = hashbrown::HashSet<T, Hashing>;
