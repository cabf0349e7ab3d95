//! Into the log: one loop for all pull sources, one intake for what is pushed, one decoder for both.

pub mod body;
pub mod book;
pub mod envelope;
pub mod gauge;
pub mod intake;
pub mod letters;
pub mod task;
