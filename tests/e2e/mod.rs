//! What must hold, each on real servers.

mod adopt;
mod bad_records;
mod binding;
mod examples;
mod fencing;
mod fleet;
mod group;
mod holes;
mod kills;
mod memory;
mod million;
mod network;
mod outages;
mod parking;
mod rebuild;
mod refused;
mod reset;
mod seen;
mod shadow;
mod shadow_sqlite;
mod shipped;
mod soak;
mod stores_agree;
mod verify;
mod versions;
mod worker;
