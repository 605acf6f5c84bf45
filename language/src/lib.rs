//! The language of Foldline: what a config says of projections, and the pure fold that comes of it.
//!
//! In reading order: [`config`] (projections as they are written), [`converter`] and [`event`] (bytes to what a
//! projection names), [`expr`] (expressions) and [`projection`] (the fold and its tests). No I/O, no clock and no
//! chance here, in this crate nor in what it depends on: `tests/pure` sees to it.

pub mod config;
pub mod converter;
pub mod event;
pub mod expr;
pub mod projection;
#[cfg(test)]
mod reference;
