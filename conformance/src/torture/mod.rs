//! Fault gates: what is acknowledged must be there after kill -9, power cuts and dying peers. Binary `torture`.
//!
//! Every gate is a function of its seed and count, returns an [`Outcome`](ledger::Outcome) with figures of that run, and is shown
//! to see something by a sabotage that must turn it red.

pub mod cutfs;
pub mod ledger;
pub mod log;
pub mod random;
pub mod sabotage;
pub mod stack;
pub mod toxic;
mod workspace;
