//! What must hold, each on real servers.

mod bad_records;
mod binding;
mod examples;
mod fleet;
mod group;
mod million;
mod outages;
mod rebuild;
mod reset;
mod seen;
mod shadow;
mod shipped;
mod stores_agree;
mod worker;
