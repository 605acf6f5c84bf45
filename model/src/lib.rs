//! Foldline's rules of exactness as small models, each checked over every interleaving up to a stated bound: the fence
//! ([`fence`], rules 4, 6, 9 and 10), the group's reset ([`reset`], rule 12) the swap of generations ([`swap`], rule 13), rows
//! that the clock deletes ([`horizon`]), and the lifecycle as it is decided ([`lifecycle`]).
//!
//! Each action's doc names the function that does it. Each model can be weakened by one rule at a time; the tests show that
//! every rule is needed: without it the checker finds a counterexample.

pub mod fence;
pub mod horizon;
pub mod lifecycle;
pub mod reset;
pub mod swap;
