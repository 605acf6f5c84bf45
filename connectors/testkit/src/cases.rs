//! The cases of the sink contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite of assertions")]

pub(crate) mod adopt;
pub(crate) mod children;
pub(crate) mod deploys;
pub(crate) mod expiry;
pub(crate) mod flush;
pub(crate) mod hole;
pub(crate) mod joins;
pub(crate) mod kept;
pub(crate) mod letters;
pub(crate) mod lifecycle;
pub(crate) mod meddling;
pub(crate) mod owner;
pub(crate) mod parking;
pub(crate) mod queries;
pub(crate) mod rebuild;
pub(crate) mod removal;
pub(crate) mod snapshot;
pub(crate) mod verdicts;
