//! The cases of the sink contract.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite of assertions")]

pub(crate) mod adopt;
pub(crate) mod deploys;
pub(crate) mod flush;
pub(crate) mod hole;
pub(crate) mod letters;
pub(crate) mod lifecycle;
pub(crate) mod meddling;
pub(crate) mod owner;
pub(crate) mod parking;
pub(crate) mod rebuild;
pub(crate) mod snapshot;
pub(crate) mod verdicts;
